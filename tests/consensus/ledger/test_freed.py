"""What the execution of a block leaves behind: nothing that waits for the collector of cycles.

Reference counts free all that a block's run knew as soon as nobody asks it any more. What is kept
from block to block, the standings of keys among it, holds nothing of it either. Otherwise the
collector finds more and more of it, and stops all nodes of a network at the same moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from consensus.codec import Value
from consensus.ledger.bench import Bench
from consensus.ledger.calls import Calls
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.dry import DryRun
from consensus.ledger.effects import Effects
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.expects import Expectations
from consensus.ledger.governing import Governing
from consensus.ledger.judged import Judged
from consensus.ledger.ledger import of_genesis
from consensus.ledger.proposals import Desk as ProposalDesk
from consensus.ledger.proposing import Proposing
from consensus.ledger.transaction import Transaction
from consensus.ledger.view import View
from tests.consensus.ledger import test_grants, test_reversal, test_waterfall
from tests.consensus.ledger.desk import Desk
from tests.consensus.ledger.governed import NOTICE_MS, Governed, numbered
from tests.consensus.ledger.members import Members
from tests.consensus.ledger.test_executor_properties import Chaos
from tests.consensus.ledger.test_language import LETS, make
from tests.consensus.ledger.test_proposals_ahead import with_approval
from tests.consensus.ledger.world import BENEFITS, World, public_key, token
from tests.freeing import freed

OF_A_RUN = (
    BlockRun, Bench, View, Proposing, ProposalDesk, Governing, Calls, Effects, Expectations, Judged,
)  # fmt: skip
TRANSFER = ("payments.transfer", "a", "b", 1)


Blocks = Callable[[], Sequence[Decision]]
"""Executes blocks, and returns their decisions."""


def transfers() -> tuple[Blocks, list[Code]]:
    world = World()
    drafts = [world.draft("clerk", TRANSFER) for _ in range(3)]
    return lambda: world.run(*drafts, slice_=1).decisions, [Code.APPLIED] * 3


def refusals() -> tuple[Blocks, list[Code]]:
    world = World()
    drafts = {
        Code.UNKNOWN_KEY: world.draft("nobody", TRANSFER),
        Code.SEQUENCE_AHEAD: world.draft("clerk", TRANSFER, sequence=2**40),
        Code.EXPIRED: world.draft("clerk", TRANSFER, not_after_ms=world.now_ms),
        Code.NOT_AFTER_TOO_FAR: world.draft("clerk", TRANSFER, not_after_ms=2 * world.now_ms),
        Code.KEY_INACTIVE: world.draft("clerk", TRANSFER, cosigners=["nobody"]),
        Code.INSUFFICIENT: world.draft("clerk", ("payments.transfer", "a", "b", 10**9)),
        Code.NOT_FOUND: world.draft("clerk", ("payments.transfer", "a", "none", 1)),
        Code.NOT_AUTHORIZED: world.draft("social", TRANSFER),
        Code.REQUIREMENT: world.draft("clerk", ("payments.transfer", "a", "b", -1)),
    }
    return lambda: world.run(*drafts.values()).decisions, list(drafts)


def revoked_keys() -> tuple[Blocks, list[Code]]:
    world = World()
    for name in ("clerk", "officer"):
        revoked = ("charter.revoke_key", "treasury", token(name), public_key(name), False)
        assert world.do("admin", *revoked).code == Code.APPLIED
    drafts = [
        world.draft("clerk", TRANSFER),
        world.draft("auditor", TRANSFER, cosigners=["officer"]),
    ]
    return lambda: world.run(*drafts).decisions, [Code.KEY_INACTIVE] * 2


def suspended_people() -> tuple[Blocks, list[Code]]:
    world = World()
    suspended = ("charter.suspend_principal", "treasury", token("clerk"))
    assert world.do("admin", *suspended).code == Code.APPLIED
    draft = world.draft("clerk", TRANSFER)
    return lambda: [world.one(draft), *world.run().decisions], [Code.SUSPENDED]


NOTES = """
[actions.label]
actor   = { role = "payments.clerk" }
inputs  = { label = "text?", parts = "list:int", by = "int" }
require = [ { code = "FEW", that = "input.parts.all(x, 9 / x > 1)", say = "too few" },
            { code = "PART", that = "9 / input.by > 1 || input.by > 9", say = "too much" } ]
create  = [ { kind = "note", id = "{input.label}", set = { amount = "input.by * input.by" } } ]
"""


def values() -> tuple[Blocks, list[Code]]:
    """Intermediate values, and expressions and templates that have none."""
    world = make(LETS + NOTES)

    def note(id_: Value, *call: Value) -> Transaction:
        expects = [] if id_ is None else [("note", [id_, *call[5:]], 0)]
        return world.draft("clerk", call[:5], expects=expects)

    share, label = "grants.share", "grants.label"
    drafts = {
        note(100, share, 2, 10, 31, None, 65): Code.APPLIED,
        note(None, share, 1, 2**62, 1, None): Code.REQUIREMENT,  # 300 * 2^62 exceeds 64 bits
        note(None, share, 9, 1, 1, None): Code.NOT_AUTHORIZED,  # there is no ninth rate
        note("one", label, "one", [3], 1): Code.APPLIED,
        note("two", label, "two", [0], 1): Code.REQUIREMENT,  # 9 / 0, of a part
        note("two", label, "two", [], 0): Code.REQUIREMENT,  # 9 / 0, of an alternative
        note(None, label, None, [], 1): Code.REQUIREMENT,  # the note has no name
        note("two", label, "two", [], 2**32): Code.REQUIREMENT,  # what it notes exceeds 64 bits
    }
    return lambda: world.run(*drafts).decisions, list(drafts.values())


def amounts() -> tuple[Blocks, list[Code]]:
    """Debts that are paid in their order, and one whose account nobody has."""
    world = test_waterfall.indebted()
    drafts = [
        world.draft("clerk", ("tax.settle", "ann", 340)),
        world.draft("clerk", ("tax.offset", "ann", 100, True)),
        world.draft("clerk", ("tax.settle", "bob", 1)),
    ]
    return lambda: world.run(*drafts).decisions, [Code.APPLIED, Code.APPLIED, Code.NOT_FOUND]


def reversals() -> tuple[Blocks, list[Code]]:
    world = test_reversal.town()
    made = test_reversal.lend(world)
    return (
        lambda: [world.reverse("admin", made), world.reverse("admin", made)],
        [Code.APPLIED, Code.REQUIREMENT],
    )


def proposals() -> tuple[Blocks, list[Code]]:
    """Proposals that are stored, refused, approved, objected to, taken back and carried out."""
    desk = Desk()
    first, second, third = (desk.stored("clerk", TRANSFER) for _ in range(3))
    open_ = desk.stored("clerk", ("payments.open_purse", "new"))
    drafts = [
        desk.act("auditor", "object", second, "paid twice"),
        desk.act("clerk", "withdraw", third),
        desk.propose("clerk", TRANSFER),
        desk.propose("clerk", TRANSFER, cosigners=["officer"]),
        desk.propose("officer", TRANSFER),
        desk.act("social", "approve", first),
        desk.act("officer", "approve", second),
        desk.act("officer", "approve", first),
        desk.act("officer", "approve", open_),
    ]
    done, late = [Code.APPLIED, Code.APPLIED], [Code.NOT_AUTHORIZED, Code.REQUIREMENT]
    outcomes = [*done, Code.PROPOSED, Code.PROPOSED, Code.APPLIED, Code.NOT_AUTHORIZED]
    return lambda: desk.run(*drafts).decisions, [*outcomes, *late, *done, *done]


def stale_proposals() -> tuple[Blocks, list[Code]]:
    """Proposals that can no longer take effect: of too much, and of a compromised key."""
    desk = Desk()
    much = desk.stored("clerk", ("payments.transfer", "c", "a", 51))
    lost = desk.stored("clerk", TRANSFER)
    compromised = ("charter.revoke_key", "treasury", token("clerk"), public_key("clerk"), True)

    def blocks() -> list[Decision]:
        found = [*desk.approve("officer", much).decisions, desk.do("admin", *compromised)]
        return [*found, *desk.approve("officer", lost).decisions]

    done = Code.APPLIED
    return blocks, [done, Code.INSUFFICIENT, done, done, Code.KEY_INACTIVE]


def rules() -> tuple[Blocks, list[Code]]:
    """Rule sets: one that does not compile, one that does, and the block that switches to it."""
    world = Governed()
    wrong = world.proposal(numbered(BENEFITS, 2, ("person.status == 'alive'", "person == 1")))
    right = world.proposal(numbered(BENEFITS, 2))

    def blocks() -> list[Decision]:
        found = [*world.run(wrong, right).decisions, world.activate("benefits", 2)]
        world.now_ms += NOTICE_MS
        return [*found, world.do("clerk", *TRANSFER)]

    return blocks, [Code.REQUIREMENT, Code.APPLIED, Code.APPLIED, Code.APPLIED]


def grants() -> tuple[Blocks, list[Code]]:
    """Acts with the power of an office, which is kept from block to block."""
    town = test_grants.entitled()
    grant = test_grants.made(town.give(to=test_grants.SOCIAL))
    return (
        lambda: [town.pay("social", grant), town.pay("social", grant)],
        [Code.APPLIED, Code.NOT_UNIQUE],
    )


def later_epochs() -> tuple[Blocks, list[Code]]:
    """An act under the floor in the second epoch, where the state says who has a seat."""
    world = Members()
    world.agreed(world.joining("health", "chief_h"))
    assert world.pass_notice().next_committee is not None
    drafts = [
        world.draft("clerk", TRANSFER),
        world.draft_change(
            ["leave", "health"], number=2, cosigners=("chief_r", "chief_s", "chief_a")
        ),
        world.draft_change(["leave", "police"], number=2),
    ]

    def blocks() -> list[Decision]:
        found = world.run(*drafts).decisions
        assert world.pass_notice().next_committee is not None
        return list(found)

    return blocks, [Code.APPLIED, Code.APPLIED, Code.REQUIREMENT]


@pytest.mark.parametrize(
    "case",
    [
        transfers, refusals, revoked_keys, suspended_people, values, amounts, reversals, proposals,
        stale_proposals, rules, grants, later_epochs,
    ],
)  # fmt: skip
def test_the_run_of_a_block_is_freed_by_reference_counts(
    case: Callable[[], tuple[Blocks, list[Code]]],
) -> None:
    blocks, expected = case()
    with freed(*OF_A_RUN):
        codes = [each.code for each in blocks()]
    assert codes == expected


@pytest.mark.parametrize("seed", range(4))
def test_so_are_the_runs_of_random_blocks_and_drafts(seed: int) -> None:
    chaos = Chaos(3000 + seed)
    dry = of_genesis(chaos.world.genesis)
    for _ in range(3):
        drafts = [chaos.draft() for _ in range(12)]
        with freed(*OF_A_RUN):
            context = BlockContext(1, chaos.state.height + 1, chaos.world.now_ms + 1000)
            for draft in drafts:
                DryRun(dry, chaos.state, context, draft)
            chaos.block(drafts)


def test_so_is_a_run_that_is_abandoned() -> None:
    desk = Desk()
    drafts = [desk.propose("clerk", TRANSFER), desk.draft("clerk", TRANSFER)]
    with freed(*OF_A_RUN):
        run = BlockRun(desk.ledger, desk.state, BlockContext(1, 1, desk.now_ms), drafts)
        assert run.step(1)
        del run


def test_so_is_the_judgement_of_proposals_for_those_who_ask() -> None:
    desk = Desk()
    waiting = desk.proposal(desk.stored("clerk", TRANSFER).txid)
    poor = with_approval(desk, desk.stored("clerk", ("payments.transfer", "c", "a", 51)))
    with freed(*OF_A_RUN):
        context = BlockContext(1, desk.height + 1, desk.now_ms + 1000)
        asked = BlockRun(desk.ledger.apart(), desk.state, context, ()).proposing
        found = [asked.outlook(waiting), asked.outlook(poor)]
        assert asked.lacking(waiting, public_key("officer")) == []
        assert asked.lacking(waiting, public_key("social"))
        assert "payments.transfer" in asked.asked_of(public_key("officer"))
        assert not asked.is_quiet(waiting)
        del asked
    assert [each and each.code for each in found] == [Code.NEEDS_APPROVAL, Code.INSUFFICIENT]
