"""Acting in the current round: propose, vote, give up, resend (rules 1, 2, 6, 7, 9, 10).

Everything is recomputed from what is known and the time, after every event; so a lost or repeated
timer does no harm, and what was held back is done as soon as it becomes possible.

Not here: what messages do to our knowledge (``replica``), what may be signed (``safety``).
"""

from __future__ import annotations

from typing import Final

from consensus.committee import Committee
from consensus.hotstuff.blocktree import BlockTree, Node
from consensus.hotstuff.events import Broadcast, ReplicaConfig, Timer
from consensus.hotstuff.outbox import Outbox
from consensus.hotstuff.pacemaker import Pacemaker, Situation
from consensus.hotstuff.payload import PayloadPool, repeats_batch, within_limits
from consensus.hotstuff.safety import Safety
from consensus.hotstuff.turns import Turns
from consensus.hotstuff.types import (
    Block,
    Certificates,
    PayloadItem,
    Proposal,
    TimeoutCert,
)

PROPOSALS_MAX: Final = 16
"""Rounds whose first proposal is remembered, to recognise a second one."""


class Rounds:
    """The current round of one replica.

    Args:
        own: validator index.
        safety, tree, pool, outbox: the replica's.
    """

    def __init__(
        self,
        config: ReplicaConfig,
        committee: Committee,
        own: int,
        safety: Safety,
        tree: BlockTree,
        pool: PayloadPool,
        outbox: Outbox,
    ) -> None:
        self._config = config
        self._committee = committee
        self._own = own
        self._safety = safety
        self._tree = tree
        self._pool = pool
        self._outbox = outbox
        self._pacemaker = Pacemaker(config)
        self.turns = Turns(committee, tree.root.round)
        """How the leaders' turns ended."""
        self._entered_ms = 0
        self._ordered_ms = 0
        self._resent_ms = 0
        self._proposals: dict[int, Proposal] = {}
        self._disputed: dict[int, None] = {}
        self.set_back_ms = 0
        """By how much the local clock was set back so far; less this, ``now_ms`` is its time."""
        self.timeout_cert: TimeoutCert | None = None
        """The highest known."""
        self.disagreement_round = 0
        """Highest round whose commit votes are split beyond repair; 0 if none."""

    # --- what is learned ---

    def start(self, now_ms: int) -> None:
        """Begin counting time."""
        self._entered_ms = self._ordered_ms = self._resent_ms = now_ms

    def entered(self, now_ms: int) -> None:
        """Note that a new round begins."""
        self._entered_ms = now_ms

    def ordered(self, node: Node | None, now_ms: int) -> None:
        """Note a new highest quorum certificate, on ``node`` if that is known."""
        self._ordered_ms = now_ms
        if node is not None and node.round == self._safety.round:
            self._pacemaker.observe(now_ms - node.seen_ms)

    def note_proposal(self, proposal: Proposal) -> tuple[Proposal, Proposal] | None:
        """Remember the first proposal of a round; return the pair if another one came before.

        A round reports one contradiction, then no more (rule 11).
        """
        round_ = proposal.block.round
        first = self._proposals.setdefault(round_, proposal)
        while len(self._proposals) > PROPOSALS_MAX:
            lowest = min(self._proposals)
            del self._proposals[lowest]
            self._disputed.pop(lowest, None)
        if first.block.id == proposal.block.id or round_ in self._disputed:
            return None
        self._disputed[round_] = None
        return first, proposal

    def is_first(self, proposal: Proposal) -> bool:
        """Whether this is the remembered proposal of its round."""
        first = self._proposals.get(proposal.block.round)
        return first is not None and first.block.id == proposal.block.id

    def wants_proposal(self, proposal: Proposal) -> bool:
        """Whether a proposal could be news: a first one, or the first contradiction."""
        return proposal.block.round not in self._disputed

    def offered(self, items: tuple[PayloadItem, ...], now_ms: int) -> bool:
        """Take the node's newest list of available batches; return whether that changes anything.

        It does when there was no work and now is, or the reverse: whoever leads proposes for it,
        and everybody's timer counts from it. Which work there is matters only once a block is made.
        """
        before = self._pool.since_ms
        self._pool.replace(items)
        self._pool.refresh(self._parent() or self._tree.ordered_tip, now_ms)
        return self._pool.since_ms != before

    # --- acting ---

    def act(self, joined: bool, now_ms: int) -> dict[Timer, int]:
        """Do what the round asks for now; return when to look again.

        Args:
            joined: f + 1 validators gave this round up (rule 7).
        """
        parent = self._parent()
        self._pool.refresh(parent or self._tree.ordered_tip, now_ms)
        proposal = self._proposal_node()
        situation = self._situation(parent, proposal)
        propose_ms = self._pacemaker.propose_from_ms(situation)
        timers: dict[Timer, int] = {}
        fit = proposal is not None and self._vote(proposal, timers, now_ms)
        if parent is not None and self._may_propose():
            if propose_ms <= now_ms:
                self._propose(parent, situation, now_ms)
            else:
                timers[Timer.PROPOSE] = propose_ms
        deadline_ms = self._pacemaker.deadline_ms(
            situation, propose_ms, self._failures, hurried=not fit and self._hurried
        )
        self._give_up(deadline_ms, joined, timers, now_ms)
        self._resend(self._pacemaker.start_ms(situation, propose_ms), timers, now_ms)
        return timers

    def _parent(self) -> Node | None:
        return self._tree.get(self._safety.high_qc.block_id)

    def _situation(self, parent: Node | None, proposal: Node | None) -> Situation:
        safety = self._safety
        high, commit = safety.high_qc, safety.commit_cert
        certified = high.round == 0
        if commit is not None and commit.statement.round >= high.round:
            certified = True
        behind = parent is not None and self._execution_behind(parent, 1)
        disagree = self.results_disagree
        return Situation(
            entered_ms=self._entered_ms,
            by_timeout=high.round < safety.round - 1,
            ordered_ms=self._ordered_ms,
            work_since_ms=self._pool.since_ms,
            payload_allowed=self._in_window(parent, 1)
            and not (behind or disagree or self._tree.executed.ends_epoch),
            proposal_ms=None if proposal is None else proposal.seen_ms,
            parent_ms=self._ordered_ms if parent is None else parent.seen_ms,
            parent_bytes=0 if parent is None else parent.block.payload_bytes,
            parent_certified=certified,
            execution_behind=behind,
            results_disagree=disagree,
        )

    @property
    def results_disagree(self) -> bool:
        """Whether some block that is not certified can never be."""
        commit = self._safety.commit_cert
        return self.disagreement_round > (0 if commit is None else commit.statement.round)

    @property
    def _failures(self) -> int:
        return self._safety.round - self._safety.high_qc.round - 1

    @property
    def _hurried(self) -> bool:
        """Whether the short timer is set for the leader, unless it proposes what is fit.

        After f failed rounds in a row it is set for nobody until a quorum certificate forms: it
        may be that not the leaders are slow.
        """
        if self._failures >= self._committee.faulty_max:
            return False
        return self.turns.marked(self._committee.leader(self._safety.round))

    def _proposal_node(self) -> Node | None:
        proposal = self._proposals.get(self._safety.round)
        return None if proposal is None else self._tree.get(proposal.block.id)

    def _in_window(self, parent: Node | None, factor: int) -> bool:
        """Whether ``parent`` is within ``factor`` times the window of certification (rule 9)."""
        if parent is None:
            return False
        commit = self._safety.commit_cert
        certified = self._tree.root.block.height
        if commit is not None:
            certified = max(certified, commit.statement.height)
        return parent.block.height - certified <= factor * self._config.certified_ahead_max

    def _execution_behind(self, parent: Node, factor: int) -> bool:
        """Whether more blocks up to ``parent`` wait for execution than the window permits."""
        tree = self._tree
        executed = tree.executed if tree.extends(parent, tree.executed) else tree.root
        behind = parent.block.height - executed.block.height
        return behind > factor * self._config.execution_ahead_max

    def _vote(self, node: Node, timers: dict[Timer, int], now_ms: int) -> bool:
        """Vote for the round's block as soon as rule 2 permits.

        Return whether the block is fit: its leader can do no more for our vote.
        """
        safety = self._safety
        if max(safety.voted_round, safety.timeout_round) >= safety.round:
            return True
        parent = node.parent
        if parent is None:
            return False
        if node.acceptable is None:
            node.acceptable = (
                node.block.time_ms > parent.block.time_ms
                and within_limits(node.block, self._config)
                and not repeats_batch(node)
            )
        if not node.acceptable or not node.held:
            return False
        early_ms = node.block.time_ms - self._config.time_ahead_ms + self.set_back_ms
        if node.block.time_ms > parent.block.time_ms + 1 and now_ms < early_ms:
            timers[Timer.EARLY_BLOCK] = early_ms
            return False
        if node.block.payload and (
            not self._in_window(parent, 2) or self._execution_behind(parent, 2)
        ):
            return True
        self._outbox.sign(safety.vote(node.block), node)
        return True

    def _may_propose(self) -> bool:
        """Whether we lead the round and have neither proposed in it nor given it up (rule 1)."""
        safety = self._safety
        round_ = safety.round
        free = max(safety.proposed_round, safety.timeout_round) < round_ and not safety.away
        return free and self._committee.leader(round_) == self._own and not self._tree.full

    def _propose(self, parent: Node, situation: Situation, now_ms: int) -> None:
        """Propose: the moment has come (rules 1, 9, 10)."""
        safety = self._safety
        round_ = safety.round
        payload: tuple[PayloadItem, ...] = ()
        payload_ms = self._pacemaker.payload_from_ms(situation)
        if payload_ms is not None and payload_ms <= now_ms:
            payload = self._pool.select(self._failures)
        high, entry = safety.high_qc, safety.entry_cert
        needs_entry = high.round < round_ - 1
        block = Block(
            self._committee.epoch,
            round_,
            high.height + 1,
            high.block_id,
            high,
            entry if needs_entry and isinstance(entry, TimeoutCert) else None,
            max(now_ms - self.set_back_ms, parent.block.time_ms + 1),
            payload,
            self._committee.hash,
        )
        self._outbox.sign(safety.propose(block), None)

    def _give_up(
        self, deadline_ms: int, joined: bool, timers: dict[Timer, int], now_ms: int
    ) -> None:
        """Sign a timeout when the round has lasted too long or f + 1 others did (rules 6, 7)."""
        safety = self._safety
        if safety.timeout_round >= safety.round:
            return
        if joined or now_ms >= deadline_ms:
            self._outbox.sign(safety.timeout(), None)
        else:
            timers[Timer.ROUND] = deadline_ms

    def _resend(self, start_ms: int, timers: dict[Timer, int], now_ms: int) -> None:
        """Send certificates and own messages again at intervals while something is undecided."""
        since_ms = self._resent_ms
        if not self._tree.executed.ends_epoch:  # else new rounds bring nothing that certifies it
            since_ms = max(start_ms, since_ms)
        due_ms = since_ms + self._config.resend_ms
        if now_ms < due_ms:
            timers[Timer.RESEND] = due_ms
            return
        self._resent_ms = now_ms
        timers[Timer.RESEND] = now_ms + self._config.resend_ms
        self.resend()

    def resend(self) -> None:
        """Send our certificates and stored messages to every peer."""
        self._outbox.post(Broadcast(self.certificates()))
        for message in self._safety.own_messages():
            self._outbox.post(Broadcast(message))

    def certificates(self) -> Certificates:
        """Return our highest certificates."""
        safety = self._safety
        high = safety.high_qc
        timeout = self.timeout_cert
        if timeout is not None and timeout.round < high.round:
            timeout = None
        return Certificates(
            self._committee.epoch, high if high.round > 0 else None, timeout, safety.commit_cert
        )
