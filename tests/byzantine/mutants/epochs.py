"""Rules of the end of an epoch, one broken each, under committees that change (``tests.sim``).

Not here: certificates of round 0 that no message may bring. Nobody honest sends one, so the check
alone tells (``tests/consensus/hotstuff/test_certificates.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from consensus.committee import Validator
from consensus.hotstuff.blocktree import Node
from consensus.hotstuff.events import Executed
from consensus.hotstuff.replica import Replica
from consensus.hotstuff.types import CommitCert
from consensus.ledger import governing, membership
from consensus.ledger.floor import Floor
from consensus.ledger.kernel import committee as kernel
from consensus.ledger.seats import SPACE
from consensus.ledger.view import View
from node.batches import BatchStore
from tests.sim.mutants import Mutant


def _executes_beyond(replica: Replica) -> None:
    tree = replica._tree
    following = tree.next_to_execute

    def further() -> tuple[Node | None, Node | None]:
        undo, node = following()
        target, executed = tree.ordered_tip, tree.executed
        if undo is None and node is None and target is not executed:
            node = tree.ancestor(target, executed.block.height + 1)
        return undo, node

    tree.next_to_execute = further  # type: ignore[method-assign]


def _ends_by_itself(replica: Replica) -> None:
    execution = replica._execution
    executed = execution.executed

    def ends(event: Executed) -> None:
        executed(event)
        tip = replica._tree.executed
        if tip.ends_epoch and tip.statement is not None:
            execution.certify(tip, CommitCert(tip.statement, ()))

    execution.executed = ends  # type: ignore[method-assign]


def _no_exemption(replica: Replica) -> None:
    replica._tree.two_chain = lambda node: None  # type: ignore[method-assign]


def _own_child_only(replica: Replica) -> None:
    replica._execution.child_ordered = replica._execution.commit_vote  # type: ignore[method-assign]


def _answers_nobody(replica: Replica) -> None:
    replica._boundary.other = lambda peer, epoch, now_ms: None  # type: ignore[method-assign]


NO_PROGRESS = ("a quorum catches up", "new work is certified", "all that waits is decided")
CAUGHT_BY: Mapping[Mutant, tuple[int, tuple[str, ...]]] = {
    Mutant("executes what extends the end of an epoch", on_boot=_executes_beyond): (
        18,
        ("nothing is executed beyond the end of an epoch",),
    ),
    Mutant("an epoch ends when its end is executed", on_boot=_ends_by_itself): (
        1,
        ("certificates have a quorum",),
    ),
    Mutant("signs in an epoch whose first record is not on disk", hasty_epoch=True): (
        1,
        ("an epoch begins on disk",),
    ),
    Mutant("what an epoch left undecided is forgotten", forgets_earlier=True): (
        1,
        ("what was accepted is decided", *NO_PROGRESS),
    ),
    Mutant("no two-chain lifts the guard", on_boot=_no_exemption): (18, NO_PROGRESS),
    Mutant("only a two-chain of the end's own child lifts the guard", on_boot=_own_child_only): (
        68,
        NO_PROGRESS,
    ),
    Mutant("who speaks of another epoch gets no answer", on_boot=_answers_nobody): (4, NO_PROGRESS),
}
"""Each mutant with the seed from which on it is looked for, and the promises that it must break.

The search begins where one of its first seeds shows it; any other beginning takes longer.
"""


@contextmanager
def _patched(owner: object, name: str, broken: object) -> Iterator[None]:
    kept = getattr(owner, name)
    setattr(owner, name, broken)
    try:
        yield
    finally:
        setattr(owner, name, kept)


def _at_once(view: View, _now_ms: int) -> int | None:
    coming = view.single(SPACE, [], view.paths.committee)
    return coming.value.coming[0] if coming is not None and coming.value.coming else None


def _places_turned_round(view: View, *asked: Any) -> tuple[tuple[Validator, ...], Any]:
    rows, fault = AFTER(view, *asked)
    return rows[::-1], fault


def _nobody_ends(seats: Sequence[str], notice_ms: int) -> Floor:
    return replace(FLOOR_OF(seats, notice_ms), objectors=len(seats) + 1)


ANY_COUNTS = partial(_patched, BatchStore, "_of_epoch", lambda self, counts: True)
"""Counts of batches are taken from whoever announces, of whatever epoch."""
AFTER, FLOOR_OF = membership.after, governing.floor_of
EVERYWHERE: Mapping[str, tuple[Callable[[], AbstractContextManager[None]], int, str]] = {
    "fewer than a quorum of agencies change the committee": (
        partial(_patched, kernel, "check_quorum", lambda acting, action: None),
        0,
        "the second reading agrees",
    ),
    "a change takes effect before its notice is over": (
        partial(_patched, membership, "_due", _at_once),
        0,
        "all elect whom they agreed on",
    ),
    "who stays does not keep its place": (
        partial(_patched, membership, "after", _places_turned_round),
        0,
        "all elect whom they agreed on",
    ),
    "f + 1 agencies that object end nothing": (
        partial(_patched, governing, "floor_of", _nobody_ends),
        28,
        "the second reading agrees",
    ),
}
"""What is broken at every node and in the replay: how, the first seed, and the promise broken."""
