"""Keys that are replaced: who may, how long the old one goes on, and what others cannot do."""

from __future__ import annotations

from typing import Any

import pytest

from consensus.codec import Value
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.layout import ACTIVE, COMPROMISED, REVOKED, Key
from tests.consensus.ledger.reader import SingleView, read_single
from tests.consensus.ledger.world import CHARTER, TEXTS, World, make_genesis, public_key, token

HOUR_MS = 3_600_000
ROTATION = """
[actions.rotate_key]
kernel = true
actor = { self = "input.principal" }

[actions.replace_key]
kernel = true
actor = { role = "charter.admin", where = "who.agency == input.agency" }
"""
GENESIS = make_genesis((CHARTER + ROTATION, *TEXTS[1:]))
CLERK, OLD, NEW = token("clerk"), public_key("clerk"), public_key("new")
FRESH = [("key", [OLD], 1), ("key", [NEW], 0)]
PAY = ("payments.transfer", "a", "b", 1)


@pytest.fixture
def world() -> World:
    return World(GENESIS)


def key(world: World, name: str) -> SingleView:
    row = world.state.get(world.ledger.paths("key", [public_key(name)]))
    assert row is not None
    return read_single("key", [public_key(name)], row.value)


def rotate(world: World, until_ms: int | None, author: str = "clerk", **more: Any) -> Decision:
    action = "charter.replace_key" if author == "admin" else "charter.rotate_key"
    inputs: dict[str, Value] = {
        "agency": "treasury", "principal": CLERK, "key": OLD, "new": NEW, "until": until_ms
    }  # fmt: skip
    expects = more.pop("expects", FRESH)
    return world.do(author, action, *(inputs | more).values(), expects=expects)


@pytest.mark.parametrize("author", ["clerk", "admin"])
def test_replaced_key_goes_on_until_its_time_and_ends_by_itself(world: World, author: str) -> None:
    until_ms = world.now_ms + 50_000
    assert rotate(world, until_ms, author).code == Code.APPLIED
    now_ms, founded_ms = world.now_ms, world.genesis.time_ms
    assert key(world, "clerk") == SingleView(2, Key(OLD, CLERK, ACTIVE, founded_ms, until_ms, NEW))
    assert key(world, "new") == SingleView(1, Key(NEW, CLERK, ACTIVE, now_ms, None, None))
    assert world.do("new", *PAY).code == Code.APPLIED
    world.now_ms = until_ms - 1 - 1000
    assert world.do("clerk", *PAY).code == Code.APPLIED
    world.now_ms = until_ms - 1000
    ended = world.do("clerk", *PAY)
    assert (ended.code, ended.detail) == (Code.KEY_INACTIVE, [OLD, "rotated"])
    assert world.do("new", *PAY).code == Code.APPLIED
    assert key(world, "clerk").value.status == ACTIVE  # nothing ran when it ended


def test_key_without_overlap_ends_within_the_block(world: World) -> None:
    """What the old key signs after its replacement in the same block is refused too."""
    first = world.draft(
        "clerk", ("charter.rotate_key", "treasury", CLERK, OLD, NEW, None), expects=FRESH
    )
    result = world.run(first, world.draft("clerk", PAY), world.draft("new", PAY))
    assert [each.code for each in result.decisions] == [
        Code.APPLIED, Code.KEY_INACTIVE, Code.APPLIED
    ]  # fmt: skip


def test_ended_key_cannot_cosign(world: World) -> None:
    assert rotate(world, None).code == Code.APPLIED
    refused = world.one(world.draft("admin", ("charter.open_account", "purse", ["x"]),
                                    cosigners=["clerk"]))  # fmt: skip
    assert (refused.code, refused.detail) == (Code.KEY_INACTIVE, [OLD, "rotated"])


@pytest.mark.parametrize(("hours", "most"), [(None, 720), (5, 5), (0, 1), (10**6, 8760)])
def test_overlap_is_bounded_by_the_charter(hours: int | None, most: int) -> None:
    line = f'key_overlap_hours = {{ by = "now", type = "int", values = [ {{ from = "2026-01", value = {hours} }} ] }}'  # noqa: E501
    charter = CHARTER if hours is None else CHARTER.replace("[params]", f"[params]\n{line}")
    world = World(make_genesis((charter + ROTATION, *TEXTS[1:])))
    at_most = world.now_ms + 1000 + most * HOUR_MS
    refused = rotate(world, at_most + 1001)
    assert (refused.code, refused.detail) == (
        Code.BAD_INPUT, ["until", f"at most {most} hours ahead"]
    )  # fmt: skip
    assert rotate(world, at_most + 1000).code == Code.APPLIED


def test_nobody_rotates_the_key_of_another(world: World) -> None:
    refused = rotate(world, None, "officer")
    assert (refused.code, refused.detail) == (Code.NOT_AUTHORIZED, [["self"]])
    own = {"principal": token("officer")}
    refused = rotate(world, None, "officer", **own)
    assert (refused.code, refused.detail) == (Code.BAD_INPUT, ["key", "a key of another principal"])
    auditor = {"agency": "audit", "principal": token("auditor"), "key": public_key("auditor")}
    refused = rotate(world, None, "admin", **auditor)
    assert (refused.code, refused.detail) == (Code.NOT_AUTHORIZED, [["where"]])


def test_stolen_key_ends_no_other_key_of_its_holder(world: World) -> None:
    second = public_key("second")
    added = world.do("admin", "charter.add_key", "treasury", CLERK, second,
                     expects=[("key", [second], 0)])  # fmt: skip
    assert added.code == Code.APPLIED
    expects = [("key", [second], 1), ("key", [NEW], 0)]
    refused = rotate(world, None, key=second, expects=expects)
    assert (refused.code, refused.detail) == (Code.NOT_AUTHORIZED, [["key"]])
    assert world.do("second", *PAY).code == Code.APPLIED


@pytest.mark.parametrize(
    ("changes", "code", "detail"),
    [
        ({"until": 5}, Code.BAD_INPUT, ["until", "not in the past"]),
        ({"new": b"short"}, Code.BAD_INPUT, None),
        ({"new": bytes(32)}, Code.BAD_INPUT, None),
        ({"new": OLD}, Code.NOT_UNIQUE, [["key", [OLD]]]),
        ({"new": public_key("officer")}, Code.NOT_UNIQUE, [["key", [public_key("officer")]]]),
        ({"agency": "audit"}, Code.NOT_FOUND, ["principal", ["principal", [CLERK]]]),
        ({"principal": bytes(32)}, Code.NOT_FOUND, ["principal", ["principal", [bytes(32)]]]),
        ({"key": NEW}, Code.NOT_FOUND, ["key", ["key", [NEW]]]),
        ({"key": 7}, Code.BAD_INPUT, None),
        ({"expects": []}, Code.STALE, [["key", [OLD]], 1, []]),
        ({"expects": FRESH[:1]}, Code.STALE, [["key", [NEW]], 0, []]),
    ],
)
def test_rotation_that_makes_no_sense_is_refused(
    world: World, changes: dict[str, Any], code: Code, detail: Value
) -> None:
    if "new" in changes:
        version = 0 if len(changes["new"]) < 32 or not any(changes["new"]) else 1
        changes = changes | {"expects": [FRESH[0], ("key", [changes["new"]], version)]}
        if changes["new"] == OLD:
            changes["expects"] = FRESH[:1]
    refused = rotate(world, None, **changes)
    assert refused.code == code, refused.detail
    assert detail is None or refused.detail == detail
    assert key(world, "clerk").version == 1


def test_key_is_replaced_once_and_not_after_it_was_revoked(world: World) -> None:
    assert rotate(world, world.now_ms + 9_000).code == Code.APPLIED
    third = public_key("third")
    again: dict[str, Any] = {"new": third, "expects": [("key", [OLD], 2), ("key", [third], 0)]}
    refused = rotate(world, None, **again)
    assert (refused.code, refused.detail) == (
        Code.REQUIREMENT, ["ROTATED", "the key was replaced already"]
    )  # fmt: skip
    revoke = ("charter.revoke_key", "treasury", CLERK, NEW, False)
    assert world.do("admin", *revoke).code == Code.APPLIED
    again = {"key": NEW, "new": third, "expects": [("key", [NEW], 2), ("key", [third], 0)]}
    refused = rotate(world, None, "admin", **again)
    assert (refused.code, refused.detail[0]) == (Code.REQUIREMENT, "REVOKED")


@pytest.mark.parametrize(("compromised", "why"), [(False, "revoked"), (True, "compromised")])
def test_revoking_ends_the_overlap_and_keeps_what_the_rotation_recorded(
    world: World, compromised: bool, why: str
) -> None:
    until_ms = world.now_ms + 50_000
    assert rotate(world, until_ms).code == Code.APPLIED
    revoke = ("charter.revoke_key", "treasury", CLERK, OLD, compromised)
    assert world.do("admin", *revoke).code == Code.APPLIED
    status = COMPROMISED if compromised else REVOKED
    assert key(world, "clerk").value[2:] == (status, world.genesis.time_ms, until_ms, NEW)
    for time_ms in (world.now_ms, until_ms):
        world.now_ms = time_ms
        assert world.do("clerk", *PAY).detail == [OLD, why]


def test_lost_key_is_revoked_and_another_added_by_the_administrator(world: World) -> None:
    revoked = world.do("admin", "charter.revoke_key", "treasury", CLERK, OLD, False)
    added = world.do("admin", "charter.add_key", "treasury", CLERK, NEW,
                     expects=[("key", [NEW], 0)])  # fmt: skip
    assert revoked.code == added.code == Code.APPLIED
    assert world.do("clerk", *PAY).detail == [OLD, "revoked"]
    assert world.do("new", *PAY).code == Code.APPLIED
