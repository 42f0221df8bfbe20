"""Every pair of concurrent acts comes to what one of the allowed serial orders comes to."""

# ruff: noqa: E501

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import combinations

import pytest

from consensus import codec
from consensus.codec import Value
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.layout import Key, Role
from tests.consensus.ledger.pairs import (
    Act,
    Outcome,
    acts,
    both,
    change_rules,
    end_hold,
    end_key,
    end_role,
    founded_world,
)
from tests.consensus.ledger.world import World

WORLD = founded_world()
ACTS = acts(WORLD)
BY_NAME = {each.name: each for each in ACTS}
PAIRS = list(combinations(ACTS, 2))
ALONE = {each.name: both(WORLD, [each], one_block=True) for each in ACTS}
ORDERS = [(first, second) for one, other in PAIRS for first, second in ((one, other), (other, one))]


def in_phases(first: Act, second: Act) -> tuple[Act, Act]:
    """The serial order that a block of two stands for: protective acts go first."""
    if second.protective and not first.protective:
        return second, first
    return first, second


def test_every_act_by_itself_is_applied() -> None:
    for name, outcome in ALONE.items():
        assert outcome.said[name][0][0] == Code.APPLIED, (name, outcome.said)


@pytest.mark.parametrize("first", ACTS, ids=lambda act: act.name)
def test_a_block_of_two_comes_to_the_serial_order_of_its_phases(first: Act) -> None:
    for second in ACTS:
        if second is first:
            continue
        together = both(WORLD, [first, second], one_block=True)
        serial = both(WORLD, in_phases(first, second), one_block=False)
        assert together.said == serial.said, (first.name, second.name)
        assert together.state == serial.state, (first.name, second.name)
        assert together.money == ALONE[first.name].money, (first.name, second.name)
        check_loser(first, second, together)


def check_loser(first: Act, second: Act, outcome: Outcome) -> None:
    """Whoever is refused beside the other, and not alone, is told what the other did."""
    for act, other in ((first, second), (second, first)):
        for number, (code, detail) in enumerate(outcome.said[act.name]):
            if code in (Code.APPLIED, Code.PROPOSED) or number:
                continue
            why = (act.name, other.name, code.name, detail)
            assert other.name in REASONS[code], why
            assert says_why(code, detail), why


TAKES_MONEY = {
    "pay July", "pay July too", "pay August", "transfer 600", "transfer the rest", "book", "pay what is booked",
    "approve", "approve too", "unbook", "transfer under a grant",
}  # fmt: skip
REVOKES = {
    "revoke role", "revoke grant", "suspend clerk", "suspend agency", "compromise key", "rotate key",
    "review", "emergency stop",
}  # fmt: skip
CHANGES = {"rename", "rename too", "go abroad", "move house", "record death", "rotate key", "compromise key",
           "suspend clerk", "review", "give role", "revoke role"}  # fmt: skip
HOLDS = {"freeze Ann", "freeze purse", "hold the domain", "emergency stop"}
ENDS = {"approve", "approve too", "withdraw", "object"}
TAKEN = {
    "pay July",
    "pay July too",
    "book",
    "book the same name",
    "open",
    "open too",
    "pay what is booked",
    "unbook",
}
REASONS: dict[Code, set[str]] = {
    Code.INSUFFICIENT: TAKES_MONEY,
    Code.STALE: CHANGES,
    Code.BASIS_MOVED: {"go abroad", "record death"},
    Code.HELD: HOLDS,
    Code.NOT_UNIQUE: TAKEN,
    Code.NOT_AUTHORIZED: REVOKES | ENDS,
    Code.SUSPENDED: {"suspend clerk", "suspend agency"},
    Code.KEY_INACTIVE: {"compromise key", "rotate key"},
    Code.REQUIREMENT: CHANGES | TAKEN | ENDS | REVOKES,
}
"""Which other acts may be the reason of a refusal."""


def says_why(code: Code, detail: Value) -> bool:
    """A detail that names something: never empty, and of the shape that its code has."""
    match code, detail:
        case Code.INSUFFICIENT, [[str(), *_], "floor" | "overflow"]:
            return True
        case Code.STALE, [[str(), [_, *_]], int(), [*_]]:
            return True
        case Code.BASIS_MOVED, [[str(), [_, *_]], str()]:
            return True
        case Code.HELD, [bytes(), *_]:
            return True
        case Code.NOT_UNIQUE, [[str(), _], *_]:
            return True
        case Code.NOT_AUTHORIZED, [[str(), *_], *_]:
            return True
        case Code.SUSPENDED, [str(), [_, *_]]:
            return True
        case Code.KEY_INACTIVE, [bytes(), str()]:
            return True
        case Code.REQUIREMENT, [str() as found, str() as sentence]:
            return bool(found) and len(sentence) > 8
    return False


# --- no authority that was not live ---------------------------------------------------------------


def author_of(decision: Decision) -> tuple[bytes, bytes]:
    principal, _, key = decision.value("authority")[0]
    return principal, key


def leaf(world: World, outcome: Outcome, space: str, *components: Value) -> object:
    found = outcome.state.get(world.ledger.paths(space, list(components)))
    if found is None:
        return None
    return read_values(space, components, found[1])


def read_values(space: str, components: tuple[Value, ...], data: bytes) -> object:
    value = codec.parse(data, space)
    return {"key": Key, "role": Role}[space](*value)


@pytest.mark.parametrize("stopper", sorted(REVOKES), ids=str)
def test_no_act_is_applied_with_what_an_act_before_it_took_away(stopper: str) -> None:
    """Read from the state after the first act alone, not by the code that judges."""
    first = BY_NAME[stopper]
    after = ALONE[stopper]
    now_ms = WORLD.now_ms + 1000
    for second in ACTS:
        if second is first:
            continue
        outcome = both(WORLD, [first, second], one_block=False)
        if outcome.said[second.name][0][0] != Code.APPLIED:
            continue
        decision = next(d for d in outcome.decisions if d.header.txid == second.transaction.txid)
        principal, key = author_of(decision)
        found = leaf(WORLD, after, "key", key)
        assert isinstance(found, Key)
        assert found.status == 0, (stopper, second.name)
        assert found.until_ms is None or now_ms < found.until_ms, (stopper, second.name)
        for power in decision.value("authority")[1]:
            if power[0] is None or len(power) > 2:
                continue
            role = leaf(WORLD, after, "role", principal, power[0])
            assert isinstance(role, Role)
            assert role.status == 0, (stopper, second.name)


# --- time as the other side -----------------------------------------------------------------------

CLERKS = {
    "transfer 600", "transfer the rest", "book", "pay what is booked", "open", "withdraw",
    "transfer under a grant",
}  # fmt: skip
SPENDS_A = {
    "transfer 600",
    "transfer the rest",
    "book",
    "pay what is booked",
    "approve",
    "approve too",
    "unbook",
}
EVENTS: dict[str, tuple[Callable[[World, int], None] | None, set[str], set[str], Code]] = {
    "rules change": (
        change_rules,
        set(),
        {"transfer 600", "transfer the rest", "transfer under a grant"},
        Code.RULES_MOVED,
    ),
    "the clerk's role ends": (end_role, set(), CLERKS - {"withdraw"}, Code.NOT_AUTHORIZED),
    "the clerk's key ends": (
        end_key,
        set(),
        CLERKS - {"transfer under a grant"},
        Code.KEY_INACTIVE,
    ),
    "a hold ends": (end_hold, SPENDS_A - {"approve", "approve too", "unbook"}, set(), Code.HELD),
    "the grant ends": (None, set(), {"transfer under a grant"}, Code.NOT_AUTHORIZED),
    "the proposal ends": (
        None,
        set(),
        {"approve", "approve too", "withdraw", "object"},
        Code.REQUIREMENT,
    ),
    "the booking ends": (None, set(), {"pay what is booked"}, Code.REQUIREMENT),
}
"""What happens at a time: how it is brought about, which acts are refused before, which after, why."""


@pytest.mark.parametrize("event", EVENTS)
def test_an_act_before_and_after_what_a_time_brings(event: str) -> None:
    prepare, before, after, code = EVENTS[event]
    at_ms = WORLD.now_ms + 20_000
    world = founded_world(at_ms if event == "the booking ends" else None)
    found = acts(
        world,
        grant_until_ms=at_ms if event == "the grant ends" else None,
        proposal_until_ms=at_ms - 1 if event == "the proposal ends" else None,
    )
    if prepare is not None:
        prepare(world, at_ms)
    for act in found:
        if event == "the clerk's key ends" and act.name == "rotate key":
            continue  # replaced once, it is not replaced again
        for refused, now_ms in ((before, at_ms - 1), (after, at_ms)):
            outcome = both(world, [act], one_block=True, at_ms=now_ms)
            expected = code if act.name in refused else Code.APPLIED
            assert outcome.said[act.name][0][0] == expected, (
                act.name,
                now_ms - at_ms,
                outcome.said,
            )
            if act.name in refused:
                assert code == Code.RULES_MOVED or says_why(code, outcome.said[act.name][0][1])
            assert outcome.money == ALONE[act.name].money


def test_how_many_pairs_and_orders_were_run(capsys: pytest.CaptureFixture[str]) -> None:
    codes: Counter[str] = Counter()
    for first, second in ORDERS:
        for said in both(WORLD, [first, second], one_block=True).said.values():
            codes.update(code.name for code, _ in said)
    runs = 2 * len(ORDERS)
    with capsys.disabled():
        print(
            f"\n{len(ACTS)} acts: {len(PAIRS)} pairs in both orders, together and apart: {runs} runs;"
        )
        print(f"beside time: {len(ACTS) * len(EVENTS)} pairs; outcomes {dict(codes)}")
    assert len(PAIRS) == len(ACTS) * (len(ACTS) - 1) // 2
    for code in REASONS:
        assert codes[code.name] >= 4, code.name
