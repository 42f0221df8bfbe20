"""What ended stays, with who began it, who agreed and who ended it (lesson 21).

Systems of this kind have deleted proposals with their approvals at quorum, removed what was
accepted, and written a second revocation's time over the first one's.
"""

from __future__ import annotations

from typing import Any

import pytest

from consensus import codec
from consensus.codec import Value
from consensus.ledger.codes import Code
from consensus.state.record import decode_single
from tests.consensus.ledger.desk import Desk
from tests.consensus.ledger.world import World, public_key, token

ENDS = {
    "executed": ("officer", "approve", ()),
    "withdrawn": ("clerk", "withdraw", ()),
    "objected": ("auditor", "object", ("too much",)),
}


def stored(world: World, space: str, *id_: Value) -> tuple[int, list[Any]]:
    """Version and value of a kernel row, as the state has it."""
    row = world.state.get(world.ledger.paths(space, list(id_)))
    assert row is not None
    version, _, value = decode_single(row.value)
    return version, codec.parse(value, space)


@pytest.mark.parametrize("end", ENDS)
def test_an_ended_proposal_keeps_who_proposed_who_approved_and_who_ended_it(end: str) -> None:
    desk = Desk()
    proposed = desk.stored("clerk", ("payments.transfer", "a", "b", 100))
    began_ms = desk.proposal(proposed.txid).proposed_ms
    who, what, words = ENDS[end]
    act = desk.act(who, what, proposed, *words)
    desk.run(act)
    found = desk.proposal(proposed.txid)
    assert (desk.word(proposed), found.author, found.proposed_ms) == (
        end,
        public_key("clerk"),
        began_ms,
    )
    assert found.end is not None
    ended_ms, by, txid, why = found.end
    assert (ended_ms, by[:2], txid) == (desk.now_ms, [public_key(who), token(who)], act.txid)
    assert why == (words[0] if words else None)
    approvals = [[public_key("officer"), token("officer"), "treasury", desk.now_ms, act.txid]]
    assert found.approvals == (approvals if end == "executed" else [])
    desk.run(desk.act("auditor", "approve", proposed))
    assert desk.proposal(proposed.txid) == found


def test_approvals_stay_when_the_proposal_ends_otherwise() -> None:
    desk = Desk()
    proposed = desk.stored("clerk", ("payments.seed_purse", "new", "a", 5))
    given = desk.act("officer", "approve", proposed)
    desk.run(given)
    desk.run(desk.act("clerk", "withdraw", proposed))
    found = desk.proposal(proposed.txid)
    assert [(each[0], each[4]) for each in found.approvals] == [(public_key("officer"), given.txid)]


def test_a_second_revocation_changes_nothing_of_the_first() -> None:
    world = World()
    role = ("charter.revoke_role", "treasury", token("clerk"), "payments.clerk")
    key = ("charter.revoke_key", "treasury", token("clerk"), public_key("clerk"), False)
    places = (("role", token("clerk"), "payments.clerk"), ("key", public_key("clerk")))
    for act in (role, key):
        assert world.do("admin", *act).code == Code.APPLIED
    first = [stored(world, *place) for place in places]
    world.now_ms += 60_000
    for act in (role, key):
        again = world.do("admin", *act)
        assert (again.code, again.detail[0]) == (Code.REQUIREMENT, "UNCHANGED")
    assert [stored(world, *place) for place in places] == first


def test_a_role_that_is_given_anew_is_a_later_version_of_the_same_row() -> None:
    world = World()
    place = ("role", token("clerk"), "payments.clerk")
    before, _ = stored(world, *place)
    revoke = ("charter.revoke_role", "treasury", token("clerk"), "payments.clerk")
    assert world.do("admin", *revoke).code == Code.APPLIED
    ended, value = stored(world, *place)
    give = ("charter.give_role", "treasury", token("clerk"), "payments.clerk", [], 0, None)
    expects = [("role", list(place[1:]), ended)]
    assert world.do("admin", *give, expects=expects).code == Code.APPLIED
    assert stored(world, *place)[0] == ended + 1 == before + 2
    assert value[:2] == [token("clerk"), "payments.clerk"]
