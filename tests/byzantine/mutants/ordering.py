"""Rules of ordering, one broken each, in the real replica.

Numbers are those of docs/consensus.md. A mutant that is one *safety* check less stays broken
wherever the rule is kept twice: the rule is what is taken away, not a line. "Lesson" names what
systems of this kind have shipped: 5 commit without consecutive rounds (relab/hotstuff #249) or in
the wrong order (asonnino PR #84); 6 two signatures for a slot after a restart (malachite #850); 7
the own vote lost on replay (commonware PR #4275); 9 a signature after the timeout (Simplex #280);
10 a proof left out (nandatown PR #191); 11 a guard off by one (cometbft #5668); 12 fields outside
the hash (read in asonnino/hotstuff).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from consensus import codec
from consensus.committee import Committee
from consensus.hashing import H_BLOCK
from consensus.hotstuff import certificates
from consensus.hotstuff import replica as replicas
from consensus.hotstuff import safety as safeties
from consensus.hotstuff.blocktree import BlockTree, Node
from consensus.hotstuff.events import Sign, Timer
from consensus.hotstuff.replica import Replica
from consensus.hotstuff.safety import Refused, Safety, TwoChain
from consensus.hotstuff.types import (
    Block,
    QuorumCert,
    SafetyRecord,
    Statement,
    TimeoutCert,
)
from tests.byzantine.twins.judge import (
    AGREEMENT,
    EVIDENCE,
    GIVEN_UP,
    GUARD,
    IN_ORDER,
    LOCK,
    ONE_BLOCK,
    ONE_SIGNATURE,
    PROGRESS,
    QUORUM,
)


def _same(_replica: Replica) -> None:
    pass


@dataclass(frozen=True)
class Mutant:
    """One rule broken.

    Args:
        rule: of docs/consensus.md.
        on_boot: changes each replica as it starts.
        patched: what holds around the whole run.
        found_as: promises, one of which must be found broken.
        ignore: promises that notice at once and are not asked, so that others must.
        script: what it is found by; else scenarios drawn at random.
    """

    name: str
    rule: int
    found_as: tuple[str, ...]
    on_boot: Callable[[Replica], None] = _same
    patched: Callable[[], AbstractContextManager[None]] = nullcontext
    ignore: tuple[str, ...] = ()
    script: str = ""


@contextmanager
def swapped(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Put ``value`` in place of an attribute for a while."""
    before = owner.__dict__[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def all_of(*managers: AbstractContextManager[None]) -> Iterator[None]:
    """Hold several contexts at once."""
    if not managers:
        yield
        return
    with managers[0], all_of(*managers[1:]):
        yield


# --- rule 2: votes ------------------------------------------------------------------------------


def recovers_one_short(replica: Replica) -> None:
    """The guard taken from the disk is one round short: it guards nothing (lesson 11)."""
    safety = replica._safety
    if safety.voted_round:
        safety.voted_round -= 1


def votes_for_every_proposal(replica: Replica) -> None:
    """A replica that votes for each proposal of its round, not only the first."""
    rounds, safety = replica._rounds, replica._safety
    given: set[bytes] = set()

    def propose(proposal: Any) -> None:
        rounds._proposals[proposal.block.round] = proposal

    note, act = rounds.note_proposal, rounds._vote

    def noted(proposal: Any) -> Any:
        pair = note(proposal)
        propose(proposal)
        return pair

    def vote(node: Node, timers: dict[Timer, int], now_ms: int) -> bool:
        if node.block.id not in given and safety.voted_round == node.block.round:
            safety.voted_round -= 1
        given.add(node.block.id)
        return act(node, timers, now_ms)

    rounds.note_proposal = noted  # type: ignore[method-assign]
    rounds._vote = vote  # type: ignore[method-assign]


def votes_late(replica: Replica) -> None:
    """A vote in a round that was given up (lesson 9)."""
    safety, rounds = replica._safety, replica._rounds
    act = rounds._vote

    def vote(node: Node, timers: dict[Timer, int], now_ms: int) -> bool:
        kept, safety.timeout_round = safety.timeout_round, 0
        voted = act(node, timers, now_ms)
        safety.timeout_round = kept
        return voted

    rounds._vote = vote  # type: ignore[method-assign]


def _checks(judge: Callable[[Block], bool]) -> Callable[[], AbstractContextManager[None]]:
    """Have blocks pass that ``judge`` lets pass, whatever else is wrong with them."""
    real = certificates.check_block

    def check(block: Block, committee: Committee) -> None:
        if not judge(block):
            real(block, committee)

    return lambda: all_of(
        swapped(certificates, "check_block", check), swapped(safeties, "check_block", check)
    )


def _links(block: Block) -> bool:
    justify = block.justify
    return (block.parent_id, block.height) == (justify.block_id, justify.height + 1)


def _below_reported(block: Block) -> bool:
    """Everything in order but that the parent is below what the timeouts report."""
    entry = block.timeout_cert
    return _links(block) and entry is not None and entry.round == block.round - 1


def _without_proof(block: Block) -> bool:
    """The optional proof is left out, and with it the check (lesson 10)."""
    return _links(block) and block.timeout_cert is None and block.round > block.justify.round


# --- rules 3, 5, 7: certificates ------------------------------------------------------------------


def _weak(kind: str) -> Callable[[], AbstractContextManager[None]]:
    """Two signatures make a certificate of one kind."""
    make = getattr(replicas, kind)

    def weak(messages: Any, committee: Committee) -> Any:
        return make(messages, _Two(committee.epoch, committee.validators))

    return lambda: swapped(replicas, kind, weak)


class _Two(Committee):
    """A committee in which two signatures make a quorum."""

    quorum = property(lambda self: 2)


def delivers_alone() -> AbstractContextManager[None]:
    """A certified block is delivered without its ancestors (lesson 5)."""
    deliver = BlockTree.deliver
    return swapped(BlockTree, "deliver", lambda self, node: deliver(self, node)[-1:])


def delivers_backwards() -> AbstractContextManager[None]:
    """After skipped rounds, ancestors are delivered last (lesson 5)."""
    deliver = BlockTree.deliver
    return swapped(BlockTree, "deliver", lambda self, node: deliver(self, node)[::-1])


def delivers_twice() -> AbstractContextManager[None]:
    """What an earlier certificate delivered is delivered again with the next one (lesson 5)."""
    deliver = BlockTree.deliver

    def twice(self: BlockTree, node: Node) -> list[Node]:
        return [self.root, *deliver(self, node)] if self.root.block.height else deliver(self, node)

    return swapped(BlockTree, "deliver", twice)


# --- rule 4: commit votes -------------------------------------------------------------------------


def _guard(allows: Callable[[Safety, int], bool]) -> Callable[[], AbstractContextManager[None]]:
    return lambda: swapped(Safety, "_guard_allows", allows)


def _always(_self: Safety, round_: int) -> bool:
    return True


def _off_by_one(self: Safety, round_: int) -> bool:
    if round_ < max(self._commit_rounds, default=0):
        return False
    return all(high >= round_ for late, high in self._signed_timeouts if late > round_)


def _newest_only(self: Safety, round_: int) -> bool:
    pairs = self._signed_timeouts[-1:]
    return all(high >= round_ for late, high in pairs if late == round_)


def _exempts(proves: Callable[[BlockTree, Node], bool]) -> Callable[[Replica], None]:
    """Let the tree's shape alone lift the guard where ``proves`` says so."""

    def apply(replica: Replica) -> None:
        safety, execution, tree = replica._safety, replica._execution, replica._tree
        act = execution.commit_vote

        def commit_vote(node: Node) -> None:
            if proves(tree, node):
                safety._guard_allows = lambda round_: True  # type: ignore[method-assign]
            try:
                act(node)
            finally:
                safety.__dict__.pop("_guard_allows", None)

        execution.commit_vote = commit_vote  # type: ignore[method-assign]

    return apply


def _ordered_above(tree: BlockTree, node: Node) -> bool:
    tip = tree.ordered_tip
    return tip is not node and tree.extends(tip, node)


def _ordered_child(tree: BlockTree, node: Node) -> bool:
    return any(each.parent is node and each.ordered for each in tree._nodes.values())


def only_rises() -> AbstractContextManager[None]:
    """No commit vote below the last one, whatever the two-chain proves."""
    judge = Safety.commit_vote

    def commit_vote(self: Safety, statement: Statement, proof: TwoChain | None) -> Any:
        if statement.round < max(self._commit_rounds, default=0):
            return Refused("commit votes only rise")
        return judge(self, statement, proof)

    return swapped(Safety, "commit_vote", commit_vote)


def no_exemption() -> AbstractContextManager[None]:
    """The two-chain lifts nothing."""
    judge = Safety.commit_vote

    def commit_vote(self: Safety, statement: Statement, proof: TwoChain | None) -> Any:
        return judge(self, statement, None)

    return swapped(Safety, "commit_vote", commit_vote)


# --- rule 6: timeouts -----------------------------------------------------------------------------


def reports_less() -> AbstractContextManager[None]:
    """A timeout reports the certificate by which its round was entered, not the highest."""
    give_up = Safety.timeout

    def timeout(self: Safety) -> Sign | Refused:
        high, entry = self.high_qc, self.entry_cert
        if isinstance(entry, TimeoutCert):
            self.high_qc = entry.high_qc
        try:
            return give_up(self)
        finally:
            self.high_qc = high

    return swapped(Safety, "timeout", timeout)


def prunes_early() -> AbstractContextManager[None]:
    """Pairs of timeouts are dropped as soon as a quorum certificate moves the round on."""
    enter = Safety.enter

    def entered(self: Safety, certificate: QuorumCert | TimeoutCert) -> bool:
        moved = enter(self, certificate)
        if moved and isinstance(certificate, QuorumCert):
            self._signed_timeouts = []
        return moved

    return swapped(Safety, "enter", entered)


# --- what survives a crash -----------------------------------------------------------------------


def forgets(**forgotten: Any) -> Callable[[Replica], None]:
    """Leave something out of the record: after a restart it is signed anew (lesson 6)."""

    def apply(replica: Replica) -> None:
        safety = replica._safety
        record = safety.record

        def forgetful() -> SafetyRecord:
            return replace(record(), **forgotten)

        safety.record = forgetful  # type: ignore[method-assign]

    return apply


def forgets_high_qc(replica: Replica) -> None:
    """The record's highest certificate is the one of the start."""
    safety = replica._safety
    record, first = safety.record, safety.high_qc

    def forgetful() -> SafetyRecord:
        whole = record()
        entry = whole.entry_cert
        if isinstance(entry, QuorumCert):
            return replace(whole, high_qc=first, entry_cert=first, last_proposal=None)
        return replace(whole, high_qc=entry.high_qc)

    safety.record = forgetful  # type: ignore[method-assign]


def forgets_commit_cert(replica: Replica) -> None:
    """Neither the record nor the messages in it have the commit certificate."""
    safety = replica._safety
    record = safety.record

    def forgetful() -> SafetyRecord:
        whole = record()
        timeout, proposal = whole.last_timeout, whole.last_proposal
        return replace(
            whole,
            commit_cert=None,
            last_timeout=None if timeout is None else replace(timeout, commit_cert=None),
            last_proposal=None if proposal is None else replace(proposal, commit_cert=None),
        )

    safety.record = forgetful  # type: ignore[method-assign]


def own_messages_stay_out(replica: Replica) -> None:
    """After a restart own messages are sent, but not counted at home (lesson 7)."""
    safety = replica._safety
    start = replica._start

    def started() -> None:
        own = safety.own_messages
        first = [()]

        def once() -> Any:
            return first.pop() if first else own()

        safety.own_messages = once  # type: ignore[method-assign]
        start()
        safety.own_messages = own  # type: ignore[method-assign]

    replica._start = started  # type: ignore[method-assign]


# --- what the id of a block covers ---------------------------------------------------------------


def id_without_time() -> AbstractContextManager[None]:
    """A field stays outside the hash (lesson 12)."""

    def block_id(self: Block) -> bytes:
        value: Any = self.to_value()
        value[6] = 0
        return H_BLOCK(codec.encode(value))

    return swapped(Block, "id", property(block_id))


CALM = "the script comes to its point"
"""Found when a script no longer reaches its mark."""

ORDERING = (
    Mutant("votes for every proposal of a round", 2, (ONE_SIGNATURE,), votes_for_every_proposal),
    Mutant(
        "the vote's guard is one round short after a restart",
        2,
        (ONE_SIGNATURE,),
        recovers_one_short,
        ignore=(EVIDENCE,),  # it hears itself contradict itself before anybody else does
        script="a second proposal after a restart",
    ),
    Mutant(
        "the record forgets the last vote",
        2,
        (ONE_SIGNATURE,),
        forgets(last_vote=None),
        script="a second proposal after a restart",
    ),
    Mutant("votes after the timeout", 2, (GIVEN_UP,), votes_late),
    Mutant(
        "the record forgets the last timeout",
        6,
        (GIVEN_UP,),
        forgets(last_timeout=None),
        script="a proposal after a timeout and a restart",
    ),
    Mutant(
        "no check of what timeouts report",
        2,
        (LOCK,),
        patched=_checks(_below_reported),
        script="a leader below what timeouts report",
    ),
    Mutant(
        "no check of what timeouts report, seen by the fork",
        2,
        (AGREEMENT,),
        patched=_checks(_below_reported),
        ignore=(LOCK,),
        script="a leader below what timeouts report",
    ),
    Mutant(
        "a proof left out skips the check",
        2,
        (LOCK,),
        patched=_checks(_without_proof),
        script="a leader that leaves the proof out",
    ),
    Mutant(
        "two votes make a certificate",
        3,
        (AGREEMENT, PROGRESS),
        patched=_weak("quorum_cert"),
        ignore=(ONE_BLOCK, QUORUM, GUARD, EVIDENCE),
    ),
    Mutant(
        "two timeouts make a certificate", 7, (AGREEMENT, PROGRESS), patched=_weak("timeout_cert")
    ),
    Mutant(
        "two commit votes make a certificate",
        5,
        (AGREEMENT,),
        patched=_weak("commit_cert"),
        ignore=(QUORUM,),
        script="ordered where two know",
    ),
    Mutant("delivers without ancestors", 5, (IN_ORDER,), patched=delivers_alone),
    Mutant("delivers ancestors last", 5, (IN_ORDER,), patched=delivers_backwards),
    Mutant("delivers twice", 5, (IN_ORDER,), patched=delivers_twice),
    Mutant("commit votes without the guard", 4, (GUARD,), patched=_guard(_always)),
    Mutant("the guard is off by one", 4, (GUARD,), patched=_guard(_off_by_one)),
    Mutant(
        "the guard sees the newest timeout only",
        4,
        (GUARD,),
        patched=_guard(_newest_only),
        script="restart above a round that was given up",
    ),
    Mutant(
        "any ordered descendant lifts the guard",
        4,
        (GUARD,),
        _exempts(_ordered_above),
        script="a certificate that comes after the round",
    ),
    Mutant(
        "an ordered child lifts the guard, its round consecutive or not",
        4,
        (GUARD,),
        _exempts(_ordered_child),
        script="a certificate that comes after the round",
    ),
    Mutant(
        "the two-chain lifts nothing",
        4,
        (CALM,),
        patched=no_exemption,
        script="a branch that another one overtook",
    ),
    Mutant(
        "commit votes only rise",
        4,
        (CALM,),
        patched=only_rises,
        script="a branch that another one overtook",
    ),
    Mutant(
        "a timeout reports less than the highest certificate",
        6,
        (GUARD,),
        patched=reports_less,
        script="a certificate that comes after the round",
    ),
    Mutant("timeouts are forgotten when the round moves on", 6, (GUARD,), patched=prunes_early),
    Mutant("the record forgets timeouts", 6, (GUARD,), forgets(signed_timeouts=())),
    Mutant(
        "timeouts are forgotten, and then the certificate that settled them",
        6,
        (GUARD,),
        forgets_commit_cert,
        script="restart above a round that was given up",
    ),
    Mutant(
        "the record forgets the highest certificate", 4, (GUARD, ONE_SIGNATURE), forgets_high_qc
    ),
    Mutant(
        "own messages are lost on replay",
        6,
        (PROGRESS,),
        own_messages_stay_out,
        script="all restart after their timeouts",
    ),
    Mutant("a block's time is outside its id", 2, (AGREEMENT, "no halt"), patched=id_without_time),
)
