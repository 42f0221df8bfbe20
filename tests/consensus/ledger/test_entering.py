"""An agency without a validator enters with its first administrator, by a quorum's consent."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest

from consensus.codec import Value
from consensus.genesis import OFFICIAL, SYSTEM, Genesis
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.layout import ACTIVE, Agency, Key, Principal, Role
from consensus.ledger.transaction import PROPOSE
from tests.consensus.ledger.governed import GOVERNED, founding
from tests.consensus.ledger.members import Members
from tests.consensus.ledger.reader import read_single
from tests.consensus.ledger.world import BENEFITS, IDENTITY, PAYMENTS, public_key, token

CHIEF = """
[actions.admit_agency]
kernel = true
actor = { role = "charter.chief" }
approvals = { role = "charter.chief", distinct = "agency" }

[actions.approve]
kernel = true
actor = { self = "who.principal" }
"""
FIRST, SUBJECT = token("clara"), token("subject clara")
SCOPE = ("roles", "health.")


@cache
def genesis() -> Genesis:
    """A charter that asks for one other agency; chiefs make the principals of their own."""
    charter = GOVERNED.replace(
        '[actions.add_principal]\nkernel = true\nactor = { role = "charter.admin"',
        '[actions.add_principal]\nkernel = true\nactor = { role = "charter.chief"',
    )
    return founding((charter + CHIEF, IDENTITY, BENEFITS, PAYMENTS))


@pytest.fixture
def world() -> Members:
    return Members(genesis=genesis())


def admit(
    world: Members,
    agency: str = "health",
    title: str = "Health",
    principal: bytes = FIRST,
    subject: bytes | None = SUBJECT,
    key: bytes | None = None,
    scope: Sequence[str] = SCOPE,
    cosigners: Sequence[str] = ("chief_r", "chief_s"),
    **more: Any,
) -> Decision:
    inputs = (agency, title, principal, subject, key or public_key("clara"), list(scope))
    expects: list[tuple[str, list[Value], int]] = [("agency", [agency], 0)]
    call = ("charter.admit_agency", *inputs)
    given = {"expects": expects, "cosigners": tuple(cosigners), **more}
    return world.one(world.draft("chief_t", call, **given))


def leaf(world: Members, space: str, *components: Value) -> Any:
    row = world.state.get(world.ledger.paths(space, list(components)))
    return None if row is None else read_single(space, list(components), row.value).value


def test_the_agency_its_administrator_key_and_role_are_made_by_one_act(world: Members) -> None:
    decision = admit(world)
    assert decision.code == Code.APPLIED, decision.detail
    assert leaf(world, "agency", "health") == Agency("health", "Health", ACTIVE, 0)
    expected = Principal(FIRST, "health", OFFICIAL, SUBJECT, None, ACTIVE)
    assert leaf(world, "principal", FIRST) == expected
    key = public_key("clara")
    assert leaf(world, "key", key) == Key(key, FIRST, ACTIVE, world.now_ms)
    assert leaf(world, "role", FIRST, "charter.chief") == Role(
        FIRST, "charter.chief", [["roles", "health."]], world.now_ms, None, None, ACTIVE
    )
    assert world.committee.size == 4, "it has no validator by that"


def test_its_administrator_admits_the_others_of_its_agency_and_nobody_elsewhere(
    world: Members,
) -> None:
    assert admit(world).code == Code.APPLIED
    for agency, code in (("health", Code.APPLIED), ("treasury", Code.NOT_AUTHORIZED)):
        who = token(f"nurse of {agency}")
        inputs = (agency, who, "system", None, None)
        made = world.do(
            "clara", "charter.add_principal", *inputs, expects=[("principal", [who], 0)]
        )
        assert made.code == code, made.detail


def test_a_system_can_be_the_first_to_act(world: Members) -> None:
    assert admit(world, subject=None).code == Code.APPLIED
    assert leaf(world, "principal", FIRST).kind == SYSTEM


def test_it_takes_a_quorum_of_agencies_with_a_validator_whatever_the_charter_says(
    world: Members,
) -> None:
    refused = admit(world, cosigners=("chief_r",))  # enough for the charter
    assert refused.code == Code.NEEDS_APPROVAL
    assert refused.detail == [["agencies", 1]]
    assert leaf(world, "agency", "health") is None
    assert admit(world).code == Code.APPLIED
    # whom they admitted has no seat, and does not count
    again = admit(
        world, "police", principal=token("p"), key=public_key("p"), cosigners=("chief_r", "clara")
    )
    assert again.code == Code.NEEDS_APPROVAL
    assert again.detail == [["agencies", 1]]


def test_a_proposal_takes_effect_with_the_last_agency_of_the_quorum(world: Members) -> None:
    call = ("charter.admit_agency", "health", "Health", FIRST, SUBJECT, public_key("clara"), [])
    draft = world.draft(
        "chief_t",
        call,
        expects=[("agency", ["health"], 0)],
        mode=PROPOSE,
        not_after_ms=world.now_ms + 1_000_000,
    )
    assert world.one(draft).code == Code.PROPOSED
    for chief in ("chief_r", "chief_s"):
        assert leaf(world, "agency", "health") is None
        assert world.do(chief, "charter.approve", draft.txid).code == Code.APPLIED
    assert leaf(world, "agency", "health") is not None


KNOWN: list[tuple[dict[str, Any], Code, Value]] = [
    ({"agency": ""}, Code.BAD_INPUT, ["agency", "1 to 64 bytes"]),
    ({"title": ""}, Code.BAD_INPUT, ["title", "1 to 256 bytes"]),
    ({"key": bytes(32)}, Code.BAD_INPUT, "key"),
    ({"key": b"short"}, Code.BAD_INPUT, "key"),
    ({"scope": ["roles"]}, Code.BAD_INPUT, "scope"),
    ({"scope": ["b", "1", "a", "2"]}, Code.BAD_INPUT, "scope"),
    ({"expects": []}, Code.STALE, [["agency", ["health"]], 0, []]),
    (
        {"agency": "treasury", "expects": [("agency", ["treasury"], 1)]},
        Code.NOT_UNIQUE,
        [["agency", ["treasury"]]],
    ),
    ({"principal": token("clerk")}, Code.NOT_UNIQUE, [["principal", [token("clerk")]]]),
    ({"key": public_key("clerk")}, Code.NOT_UNIQUE, [["key", [public_key("clerk")]]]),
]


@pytest.mark.parametrize(("changes", "code", "detail"), KNOWN)
def test_what_is_not_in_order_changes_nothing(
    world: Members, changes: dict[str, Any], code: Code, detail: Value
) -> None:
    decision = admit(world, **changes)
    assert decision.code == code, decision.detail
    if isinstance(detail, str):
        assert decision.detail[0] == detail
    else:
        assert decision.detail == detail
    assert leaf(world, "principal", FIRST) is None
    assert leaf(world, "agency", "health") is None
