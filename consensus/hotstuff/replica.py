"""The ordering state machine: ``Replica.step(event, now_ms) -> effects``.

Each step takes one event into account, then ``_settle`` does whatever has become possible: execute,
vote, propose, give the round up, resend, fetch, set timers. It is left out where it would do
nothing: after an event by which nothing can have become possible, while no timer is due. What is
signed passes through ``safety``; what is sent waits in the outbox until the step that completes the
signatures, behind the ``Persist`` that covers them. The rules are numbered as follows.

1 propose once per round · 2 vote · 3 ordered by a quorum certificate · 4 commit vote ·
5 certified by a commit certificate, delivered by height, each once · 6 timeout · 7 f + 1 timeouts
join us, q make a certificate · 8 any certificate moves us to its round + 1 · 9 payload only within
the windows; votes on payload wait beyond twice these; empty blocks never refused · 10 block times ·
11 two messages for one slot are evidence · 12 a proved block skips the voting checks.

Nothing depends on one delivery: certificates and own messages go out again on every connection
and at intervals, and whoever is behind is answered with certificates.

A replica is of one epoch. Once the block that ends it is certified, ``EndEpoch`` is its last effect
(``epochs``).

Not here: announcements of batches (``announcing``).
"""

from __future__ import annotations

from typing import Final, assert_never

from consensus.committee import Committee
from consensus.hotstuff import absence
from consensus.hotstuff.answers import Answers
from consensus.hotstuff.blocktree import BlockTree, Node
from consensus.hotstuff.epochs import Boundary
from consensus.hotstuff.events import (
    NEVER,
    BlocksFetched,
    Broadcast,
    Connected,
    Effect,
    Event,
    EvidenceKind,
    Executed,
    OtherEpoch,
    PayloadAvailable,
    PayloadHeld,
    PeerHeld,
    Received,
    RecoveredState,
    ReplicaConfig,
    ReportEvidence,
    Send,
    ServeBlocks,
    Signed,
    SignerAway,
    SignerBack,
    Started,
    Timer,
    TimerFired,
)
from consensus.hotstuff.execution import Execution
from consensus.hotstuff.fetching import Fetcher, certified_ids, missing, serve
from consensus.hotstuff.outbox import Outbox
from consensus.hotstuff.payload import PayloadPool
from consensus.hotstuff.rounds import Rounds
from consensus.hotstuff.safety import Safety
from consensus.hotstuff.types import (
    Block,
    BlocksRequest,
    BlocksResponse,
    Certificates,
    CommitCert,
    CommitVote,
    Message,
    Proposal,
    QuorumCert,
    Timeout,
    TimeoutCert,
    Vote,
    epoch_of,
)
from consensus.hotstuff.votes import Tally, commit_cert, quorum_cert, timeout_cert, unattainable
from consensus.hotstuff.wire import COMMIT_VOTES_MAX

ORPHANS_MAX: Final = 16
"""Proposals kept while their parent is being fetched; the lowest round goes first."""

LATE_ROUNDS: Final = 3
"""A vote this far behind comes from somebody who needs our certificates."""


class Replica:
    """One validator's part in ordering.

    Args:
        config: parameters, with the chain.
        committee: validators of the record's epoch.
        own_index: this validator's index, or ``FOLLOWER``.
        recovered: what storage gives back; ``types.first_record`` and genesis on a new node.

    Raises:
        LocalProtocolError: the record is of another epoch than the committee.
    """

    def __init__(
        self,
        config: ReplicaConfig,
        committee: Committee,
        own_index: int,
        recovered: RecoveredState,
    ) -> None:
        self._config = config
        self._committee = committee
        self._own = own_index
        self._recovered = recovered
        record, tip = recovered.record, recovered.tip
        self._safety = Safety(config.chain, committee, own_index, record)
        if tip.commit_cert is not None and tip.commit_cert.statement.epoch == committee.epoch:
            self._safety.learn_commit(tip.commit_cert)
        self._safety.hold_back(recovered.silent_upto)
        qc = record.high_qc if record.high_qc.block_id == tip.block.id else None
        self._tree = BlockTree(committee.epoch, tip.block, qc, config.tree_blocks_max)
        self._outbox = Outbox()
        self._pool = PayloadPool(config)
        self._execution = Execution(
            config.chain, self._safety, self._tree, self._pool, self._outbox
        )
        self._rounds = Rounds(
            config,
            committee,
            own_index,
            self._safety,
            self._tree,
            self._pool,
            self._outbox,
        )
        if isinstance(record.entry_cert, TimeoutCert):
            self._rounds.timeout_cert = record.entry_cert
        self._fetcher = Fetcher(config, committee.epoch, own_index, committee.size)
        self._votes: Tally[Vote] = Tally(committee.size)
        self._timeouts: Tally[Timeout] = Tally(committee.size)
        self._commit_votes: Tally[CommitVote] = Tally(committee.size, COMMIT_VOTES_MAX)
        self._orphans: dict[bytes, Proposal] = {}
        self._answers = Answers(config, own_index, self._rounds, self._outbox)
        self._boundary = Boundary(config, committee.epoch, self._rounds, self._outbox)
        self._now_ms = 0

    # --- what can be asked between steps ---

    @property
    def epoch(self) -> int:
        """The epoch of the replica."""
        return self._committee.epoch

    @property
    def ended(self) -> bool:
        """Whether ``EndEpoch`` was emitted; every later step does nothing."""
        return self._boundary.ended

    @property
    def round(self) -> int:
        """The current round."""
        return self._safety.round

    @property
    def leader(self) -> int:
        """Index of the current round's leader."""
        return self._committee.leader(self._safety.round)

    @property
    def ordered_height(self) -> int:
        """Height of the highest ordered block known."""
        return self._tree.ordered_tip.block.height

    @property
    def has_work(self) -> bool:
        """Whether batches are available that the ordered chain lacks."""
        return self._pool.since_ms is not None

    @property
    def halted(self) -> bool:
        """Whether ``Halt`` was emitted; every later step does nothing."""
        return self._outbox.halted

    def certificates(self) -> Certificates:
        """Return our highest certificates, for ``hello``."""
        return self._rounds.certificates()

    def wants(self, message: Message) -> bool:
        """Whether a message, not yet verified, could change anything; costs no signature check.

        Messages of other epochs are told by ``epochs.elsewhere`` before, and not asked about here.

        False for duplicates, settled rounds and what is beyond the window. The unsigned held
        counts of an unwanted vote may still be read from the link.
        """
        round_ = self._safety.round
        match message:
            case Proposal(block):
                if block.round <= self._tree.root.round:
                    return self._answers.may(self._committee.leader(block.round), self._now_ms)
                known = self._tree.get(block.id) is not None or block.id in self._orphans
                return not known and self._rounds.wants_proposal(message)
            case Vote():
                if message.round <= self._safety.high_qc.round:
                    late = message.round + LATE_ROUNDS <= round_
                    return late and self._answers.may(message.validator, self._now_ms)
                return self._is_news(self._votes, message)
            case Timeout():
                if message.round < round_:
                    return self._answers.may(message.validator, self._now_ms)
                return not self._timeouts.has(message.validator, message.round, message.body)
            case CommitVote():
                commit = self._safety.commit_cert
                if commit is not None and message.round <= commit.statement.round:
                    return self._is_late(message) and self._answers.may(
                        message.validator, self._now_ms
                    )
                return self._is_news(self._commit_votes, message)
            case BlocksResponse():
                return epoch_of(message) == self.epoch
            case Certificates(_, QuorumCert() as high, None, None):
                return high.round > self._safety.high_qc.round
            case _:
                return True

    # --- one step ---

    def step(self, event: Event, now_ms: int) -> list[Effect]:
        """Take one event into account and return what to do, in order.

        Args:
            event: what happened; messages only as verified outside.
            now_ms: the local clock, milliseconds since 1970. It may be set, forward and back:
                waits go on from where they were, and after it was set back some event (any timer)
                must bring the news, since timers are set by it.

        Raises:
            LocalProtocolError: whoever runs the replica broke the contract of ``events``.

        Cost: some 20 to 60 µs plus the encoding of what is signed.
        """
        if self._outbox.halted or (self.ended and not isinstance(event, Signed)):
            return []
        before_ms = self._rounds.set_back_ms
        self._now_ms = self._steady(now_ms)
        changed = self._take(event) or self._rounds.set_back_ms != before_ms
        if changed or self._outbox.is_due(self._now_ms):
            self._settle()
        return self._outbox.finish(self._safety)

    def _steady(self, now_ms: int) -> int:
        """Return a time that never runs backwards; block times are the clock's as it is now."""
        steady_ms = now_ms + self._rounds.set_back_ms
        if steady_ms < self._now_ms:
            self._rounds.set_back_ms += self._now_ms - steady_ms
            self._outbox.clock_set_back(self._now_ms - steady_ms)
        return max(steady_ms, self._now_ms)

    def _take(self, event: Event) -> bool:
        """Take an event into account; return whether anything may have become possible by it."""
        match event:
            case Started():
                self._start()
            case Received(sender, verified):
                return self._handle(verified.message, sender)
            case TimerFired(token):
                self._outbox.fired(token)
            case PayloadAvailable(items):
                return self._rounds.offered(items, self._now_ms)
            case PayloadHeld(block_id):
                node = self._tree.get(block_id)
                if node is None or node.held:
                    return False
                node.held = True
            case Executed():
                self._execution.executed(event)
            case Signed():
                return self._signed(event)
            case SignerAway() | SignerBack():
                return absence.take(event, self._safety, self._execution, self._outbox)
            case Connected(peer, certificates):
                self._connected(peer)
                if certificates is not None:
                    self._handle(certificates.message, peer)
            case BlocksFetched(peer, response):
                self._handle(response.message, peer)
            case OtherEpoch(peer, epoch):
                self._boundary.other(peer, epoch, self._now_ms)
                return False
            case _:
                assert_never(event)
        return True

    def _settle(self) -> None:
        """Do what has become possible."""
        if self._outbox.halted or self.ended:
            return
        if (end := self._execution.ended) is not None:
            self._safety.hold_back(NEVER)
            self._boundary.end(end, self._now_ms)
            return
        self._execution.advance()
        safety = self._safety
        if self._orphans:
            settled = self._tree.root.round
            self._orphans = {i: p for i, p in self._orphans.items() if p.block.round > settled}
        joined = (
            safety.timeout_round < safety.round
            and self._timeouts.count(safety.round) > self._committee.faulty_max
        )
        timers = self._rounds.act(joined, self._now_ms)
        self._fetcher.look(missing(self._tree, self._safety, self._orphans), self._now_ms)
        if (request := self._fetcher.ask(self._tree, self._now_ms)) is not None:
            self._outbox.emit(request)
        if (due_ms := self._fetcher.due_ms) is not None:
            timers[Timer.FETCH] = due_ms
        self._outbox.set_timers(timers, self._now_ms)

    def _start(self) -> None:
        """Take up recovered blocks and own messages, and tell every peer."""
        self._rounds.start(self._now_ms)
        tip = self._recovered.tip
        if tip.ends(self._committee.epoch):
            self._execution.ended = tip
            return
        blocks = sorted(self._recovered.blocks, key=lambda block: (block.height, block.round))
        for block in blocks:
            if (node := self._insert(block)) is not None:
                node.logged = True
                self._execution.require(node)
        commit = self._safety.commit_cert
        if commit is not None:
            self._certify(commit)
        for message in self._safety.own_messages():
            self._handle(message, self._own)
        self._rounds.resend()

    def _signed(self, event: Signed) -> bool:
        """Complete a message: keep it for the record, send it, and treat it as anybody's."""
        message = self._safety.signed(event)
        self._outbox.promise()
        if isinstance(message, Proposal) and (node := self._insert(message.block)) is not None:
            self._execution.require(node)
            node.held = True
            self._outbox.log(node)
        self._outbox.post(Broadcast(message))
        return self._handle(message, self._own)

    def _connected(self, peer: int) -> None:
        """Send a peer that just connected everything it may have missed."""
        self._fetcher.welcome(peer)
        self._answers.forget(peer)
        self._outbox.post(Send(peer, self._rounds.certificates()))
        self._repeat_to(peer)

    def _repeat_to(self, peer: int) -> None:
        for message in self._safety.own_messages():
            self._outbox.post(Send(peer, message))

    def _answer(self, message: Certificates, peer: int) -> None:
        """Give a peer that is behind our certificates.

        One that has only begun with this epoch also gets the messages that we sent before it did.
        """
        begun = message == Certificates(message.epoch, None, None, None)
        begun = begun and self._answers.may(peer, self._now_ms)
        if self._answers.is_behind(message):
            self._answers.give(peer, self._now_ms)
        if begun:
            self._repeat_to(peer)

    # --- messages ---

    def _handle(self, message: Message, sender: int) -> bool:
        """Take a message into account; return whether anything may have become possible by it."""
        match message:
            case Proposal():
                self._on_proposal(message, sender)
            case Vote():
                return self._on_vote(message, sender)
            case Timeout():
                self._on_timeout(message, sender)
            case CommitVote():
                return self._on_commit_vote(message, sender)
            case Certificates():
                self._learn(message.high_qc, message.timeout_cert, message.commit_cert, sender)
                self._answer(message, sender)
            case BlocksRequest():
                match serve(self._tree, self._committee.epoch, message, sender):
                    case Send() as answer:
                        self._outbox.post(answer)
                    case ServeBlocks() as task:
                        self._outbox.emit(task)
            case _:
                self._on_blocks(message, sender)
        return True

    def _on_proposal(self, message: Proposal, sender: int) -> None:
        block = message.block
        self._learn(block.justify, block.timeout_cert, message.commit_cert, sender)
        self._learn(message.high_qc, message.timeout_cert, None, sender)
        if block.round <= self._tree.root.round:
            self._answers.give(sender, self._now_ms)
            return
        if (pair := self._rounds.note_proposal(message)) is not None:
            self._outbox.emit(ReportEvidence(EvidenceKind.TWO_PROPOSALS, *pair))
        if not self._rounds.is_first(message):
            return
        if block.round + 1 < self._safety.round:
            self._answers.give(sender, self._now_ms)
        node = self._insert(block)
        if node is None:
            self._orphans[block.id] = message
            while len(self._orphans) > ORPHANS_MAX:
                oldest = min(self._orphans.items(), key=lambda item: item[1].block.round)
                del self._orphans[oldest[0]]
        else:
            self._execution.require(node)

    def _on_vote(self, vote: Vote, sender: int) -> bool:
        """Count a vote. While it completes no certificate, nothing follows from it."""
        if sender != self._own and vote.held:
            self._outbox.emit(PeerHeld(sender, vote.held))
        if vote.round <= self._safety.high_qc.round:
            if vote.round + LATE_ROUNDS <= self._safety.round:
                self._answers.give(sender, self._now_ms)
            return False
        if vote.round > self._safety.round + self._config.round_ahead_max:
            return False
        if (pair := self._votes.add(vote)) is not None:
            self._outbox.emit(ReportEvidence(EvidenceKind.TWO_VOTES, *pair))
            return False
        certificate = quorum_cert(self._votes.matching(vote), self._committee)
        if certificate is None:
            return False
        self._learn(certificate, None, None, sender)
        self._tell_leader(Certificates(vote.epoch, certificate, None, None), vote.round + 1)
        return True

    def _on_timeout(self, timeout: Timeout, sender: int) -> None:
        self._learn(timeout.high_qc, timeout.timeout_cert, timeout.commit_cert, sender)
        if timeout.round < self._safety.round:
            self._answers.give(sender, self._now_ms)
            return
        if (pair := self._timeouts.add(timeout)) is not None:
            self._outbox.emit(ReportEvidence(EvidenceKind.TWO_TIMEOUTS, *pair))
            return
        certificate = timeout_cert(self._timeouts.of_round(timeout.round), self._committee)
        if certificate is not None:
            self._learn(None, certificate, None, sender)
            self._tell_leader(
                Certificates(timeout.epoch, None, certificate, None), timeout.round + 1
            )

    def _on_commit_vote(self, vote: CommitVote, sender: int) -> bool:
        """Count a commit vote. Nothing follows until they make a certificate, or never will."""
        round_, commit = vote.round, self._safety.commit_cert
        if commit is not None and round_ <= commit.statement.round:
            if self._is_late(vote):
                self._answers.give(sender, self._now_ms)
            return False
        if round_ > self._safety.round + self._config.round_ahead_max:
            return False
        if (pair := self._commit_votes.add(vote)) is not None:
            self._outbox.emit(ReportEvidence(EvidenceKind.TWO_COMMIT_VOTES, *pair))
            return False
        matching = self._commit_votes.matching(vote)
        certificate = commit_cert(matching, self._committee)
        if certificate is not None:
            self._learn(None, None, certificate, sender)
            return True
        votes = self._commit_votes.of_round(round_)
        agreed = len(votes) == len(matching) or round_ <= self._rounds.disagreement_round
        if agreed or not unattainable(votes, self._committee):
            return False
        self._rounds.disagreement_round = round_
        other = next(v for v in votes if v.statement != vote.statement)
        self._outbox.emit(ReportEvidence(EvidenceKind.RESULTS_DISAGREE, other, vote))
        return True

    def _on_blocks(self, message: BlocksResponse, sender: int) -> None:
        """Take blocks that were asked for and are proved by their last one's certificate.

        Rule 12: they skip the voting checks, not execution.
        """
        if not self._fetcher.expects(sender):
            return
        blocks, last = message.blocks, message.blocks[-1]
        if message.certificate is None and last.id not in certified_ids(
            self._safety, self._orphans
        ):
            return
        linked = fresh = False
        for block in blocks:
            if block.height > self._tree.root.block.height:
                fresh = fresh or self._tree.get(block.id) is None
                linked = self._insert(block) is not None
        self._fetcher.answered(sender, self._now_ms, linked=linked, fresh=fresh)
        if not linked:
            return
        self._learn(last.justify, None, None, sender)
        match message.certificate:
            case QuorumCert() as certificate:
                self._learn(certificate, None, None, sender)
            case CommitCert() as certificate:
                self._learn(None, None, certificate, sender)

    # --- certificates ---

    def _learn(
        self,
        quorum: QuorumCert | None,
        timeout: TimeoutCert | None,
        commit: CommitCert | None,
        sender: int,
    ) -> None:
        """Take verified certificates into account (rules 3, 5 and 8)."""
        if timeout is not None:
            self._learn_quorum(timeout.high_qc, sender)
            highest = self._rounds.timeout_cert
            if highest is None or timeout.round > highest.round:
                self._rounds.timeout_cert = timeout
            self._enter(timeout)
        if quorum is not None:
            self._learn_quorum(quorum, sender)
        if commit is not None:
            if self._safety.learn_commit(commit):
                self._commit_votes.forget(commit.statement.round + 1)
                if self._tree.get(commit.statement.block_id) is None:
                    self._fetcher.prefer(sender)
            self._certify(commit)

    def _learn_quorum(self, certificate: QuorumCert, sender: int) -> None:
        node = self._tree.get(certificate.block_id)
        if self._safety.learn_quorum(certificate):
            self._votes.forget(certificate.round + 1)
            self._rounds.ordered(node, self._now_ms)
            if node is None:
                self._fetcher.prefer(sender)
        if node is not None:
            self._order(node, certificate)
        self._enter(certificate)

    def _enter(self, certificate: QuorumCert | TimeoutCert) -> None:
        if self._safety.enter(certificate):
            self._timeouts.forget(self._safety.round)
            self._rounds.entered(self._now_ms)

    def _certify(self, certificate: CommitCert) -> None:
        node = self._tree.get(certificate.statement.block_id)
        if node is not None and node is not self._tree.root:
            self._tree.order(node, None)
            self._execution.certify(node, certificate)

    def _order(self, node: Node, certificate: QuorumCert) -> None:
        """Mark a block ordered; with its parent's round before it, that commits the parent."""
        fresh = node.qc is None
        self._tree.order(node, certificate)
        if fresh and node.block.epoch == self.epoch:
            self._rounds.turns.ordered(node.block)
        if fresh:
            self._execution.ordered(node)

    def _insert(self, block: Block) -> Node | None:
        """Add a block to the tree, with those that waited for it."""
        known = self._tree.get(block.id)
        if known is not None:
            return known
        node = self._tree.insert(block, self._now_ms)
        if node is None or node.parent is None:
            return None
        node.held = not block.payload
        self._orphans.pop(block.id, None)
        self._order(node.parent, block.justify)
        high, commit = self._safety.high_qc, self._safety.commit_cert
        if high.block_id == block.id:
            self._order(node, high)
        if commit is not None and commit.statement.block_id == block.id:
            self._certify(commit)
        for orphan in [p for p in self._orphans.values() if p.block.parent_id == block.id]:
            if (child := self._insert(orphan.block)) is not None:
                self._execution.require(child)
        return node

    # --- those behind, and what we lack ---

    def _tell_leader(self, message: Certificates, round_: int) -> None:
        leader = self._committee.leader(round_)
        if leader != self._own:
            self._outbox.post(Send(leader, message))

    def _is_news(self, tally: Tally[Vote] | Tally[CommitVote], message: Vote | CommitVote) -> bool:
        round_ = message.round
        if round_ > self._safety.round + self._config.round_ahead_max:
            return False
        return not tally.has(message.validator, round_, message.body)

    def _is_late(self, vote: CommitVote) -> bool:
        commit = self._safety.commit_cert
        behind = 0 if commit is None else commit.statement.height - vote.statement.height
        return behind >= self._config.certified_ahead_max
