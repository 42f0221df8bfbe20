"""Dry runs: the executor's outcome, every other lack with it, and not a trace of either."""

from __future__ import annotations

from collections import Counter

import pytest

from consensus.ledger.codes import Code
from consensus.ledger.dry import DryRun, Finding
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.ledger import of_genesis
from tests.consensus.ledger.desk import Desk
from tests.consensus.ledger.test_executor_properties import Chaos


class Watched(DryRun):
    """A dry run that remembers what its walk found, before the outcome is put with it."""

    __slots__ = ("walked",)

    def _find(self) -> None:
        super()._find()
        self.walked = tuple(self.findings)


@pytest.mark.parametrize("seed", range(4))
def test_first_finding_of_any_draft_is_what_the_executor_decides(seed: int) -> None:
    chaos = Chaos(1000 + seed)
    dry = of_genesis(chaos.world.genesis)
    seen: Counter[str] = Counter()
    for _ in range(6):
        for _ in range(20):
            draft = chaos.draft()
            before = chaos.state.root
            context = BlockContext(1, chaos.state.height + 1, chaos.world.now_ms + 1000)
            run = Watched(dry, chaos.state, context, draft)
            alone = BlockRun(chaos.other, chaos.state, context, [draft])
            (decision,) = alone.finish().decisions[:1]
            outcome = Finding(decision.code, decision.call, decision.detail)
            assert run.outcome.root == decision.root
            assert chaos.state.root == before
            seen[outcome.code.name] += 1
            if outcome.code in (Code.APPLIED, Code.PROPOSED):
                assert run.walked == ()
                assert run.complete
            else:
                assert run.walked[:1] == (outcome,)
                assert run.findings == list(run.walked)
        chaos.block([chaos.draft() for _ in range(8)])
    assert len(seen) > 3


def test_dry_run_finds_more_than_the_executor_says() -> None:
    more = 0
    for seed in range(3):
        chaos = Chaos(2000 + seed)
        dry = of_genesis(chaos.world.genesis)
        context = BlockContext(1, chaos.state.height + 1, chaos.world.now_ms + 1000)
        for _ in range(60):
            run = DryRun(dry, chaos.state, context, chaos.draft())
            more += len(run.findings) > 1
            assert len({repr(each) for each in run.findings}) == len(run.findings)
    assert more > 10


def test_first_finding_of_a_proposal_is_what_keeps_it_from_being_stored() -> None:
    """A requirement may come right until it takes effect, a wrong input of a later call never."""
    desk = Desk()
    calls = (
        ("payments.check_purse", "a", 1),
        ("payments.check_purse", "b", 2),
        ("payments.transfer", "a", "b", "nothing"),
    )
    context = BlockContext(1, desk.height + 1, desk.now_ms + 1000)
    run = DryRun(desk.ledger, desk.state, context, desk.propose("clerk", *calls))
    bad = (Code.BAD_INPUT, 2, run.outcome.detail)
    assert (run.outcome.code, run.outcome.call) == bad[:2]
    short = ["BALANCE", "another balance"]
    told = [each for each in run.findings if each.code != Code.NEEDS_APPROVAL]
    assert told == [bad, (Code.REQUIREMENT, 0, short), (Code.REQUIREMENT, 1, short)]
