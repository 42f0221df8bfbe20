"""What ``expects`` names beyond what calls need: only what the author may read, and so no oracle."""

# ruff: noqa: E501  rule sets read best with one construct a line

from __future__ import annotations

from functools import cache

import pytest

from consensus.codec import Value
from consensus.genesis import Genesis
from consensus.ledger.codes import Code
from consensus.ledger.dry import DryRun
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.transaction import PROPOSE
from tests.consensus.ledger.desk import DESK_CHARTER
from tests.consensus.ledger.reader import Witness
from tests.consensus.ledger.test_reservations import Recorded
from tests.consensus.ledger.world import (
    BENEFITS,
    IDENTITY,
    World,
    make_genesis,
    person,
    public_key,
    register,
    token,
)

PAY = """\
domain = "payments"
number = 1
legal_basis = "Files Act"

[kinds.secret]
fields.owner  = { type = "ref", kind = "person", optional = true }
fields.region = { type = "text", open = true }
class = "restricted"
read = [ { role = "payments.officer", where = "who.scope.region == record.region" }, { self = "owner" } ]

[kinds.memo]
fields.text = { type = "text", open = true }
fields.about = { type = "ref", kind = "person", optional = true }

[actions.file]
actor  = { role = "payments.clerk" }
inputs = { name = "text", region = "text", owner = "ref:person?" }
create = [ { kind = "secret", id = ["{input.name}"], set = { region = "input.region", owner = "input.owner" } } ]

[actions.write]
actor  = { role = "payments.clerk" }
inputs = { name = "text", about = "ref:person?" }
create = [ { kind = "memo", id = ["{input.name}"], set = { text = "input.name", about = "input.about" } } ]

[actions.amend]
actor  = { role = "payments.clerk" }
inputs = { secret = "ref:secret", owner = "ref:person?" }
load   = [ ["secret", "secret/{input.secret}"] ]
set    = [ { record = "secret", fields = { owner = "input.owner" } } ]

[actions.ping]
actor  = { self = "who.principal" }
inputs = { n = "int" }

[actions.watch]
phase  = "protective"
actor  = { role = "payments.clerk" }
inputs = { secret = "ref:secret" }
place_hold = [ { target = "secret/{input.secret}", scopes = ["pay"], reason = "an inquiry" } ]

[actions.watch_memo]
phase  = "protective"
actor  = { role = "payments.clerk" }
inputs = { memo = "ref:memo" }
place_hold = [ { target = "memo/{input.memo}", scopes = ["pay"], reason = "an inquiry" } ]
"""
SECRET, ABSENT, MEMO = ("secret", ["s"]), ("secret", ["none"]), ("memo", ["m"])


@cache
def genesis() -> Genesis:
    return make_genesis((DESK_CHARTER, IDENTITY, BENEFITS, PAY), accounts=())


@pytest.fixture
def world() -> World:
    """A secret of Ann's in the north at version 2, and a memo about her at version 1."""
    made = World(genesis())
    register(made, "ann")
    ann = person("ann")
    for call, named in (
        (("payments.file", "s", "north", None), [(*SECRET, 0)]),
        (("payments.write", "m", ann), [(*MEMO, 0)]),
        (("payments.amend", ["s"], ann), [(*SECRET, 1)]),
        (("payments.file", "south", "south", None), [("secret", ["south"], 0)]),
    ):
        decision = made.do("clerk", *call, expects=named)
        assert decision.code == Code.APPLIED, decision.detail
    return made


def answer(world: World, who: str, kind: str, id_: list[Value], version: int) -> tuple[Code, Value]:
    """Return what an act that needs nothing comes to that names a version."""
    decision = world.do(who, "payments.ping", 1, expects=[(kind, id_, version)])
    return decision.code, decision.detail


def test_who_may_not_read_a_record_learns_nothing_of_its_version(world: World) -> None:
    """The clerk may write what the clerk may not read."""
    for kind, id_ in (SECRET, ABSENT):
        refused = (Code.NOT_AUTHORIZED, [["read", [kind, id_]]])
        for version in (0, 1, 2, 3):
            assert answer(world, "clerk", kind, id_, version) == refused


def test_who_may_read_a_record_rests_acts_on_it(world: World) -> None:
    for who in ("officer", "ann's"):
        assert answer(world, who, *SECRET, 2) == (Code.APPLIED, None)
        for version in (0, 1, 3):
            stale = (Code.STALE, [["secret", ["s"]], 2, []])
            assert answer(world, who, *SECRET, version) == stale
    assert answer(world, "officer", "secret", ["south"], 1)[0] == Code.NOT_AUTHORIZED
    assert answer(world, "ann's", *ABSENT, 0)[0] == Code.NOT_AUTHORIZED


def test_without_read_rules_members_read_all_and_citizens_what_names_them(world: World) -> None:
    assert answer(world, "social", *MEMO, 1) == (Code.APPLIED, None)
    assert answer(world, "social", "memo", ["none"], 0) == (Code.APPLIED, None)
    assert answer(world, "social", *MEMO, 2)[0] == Code.STALE
    assert answer(world, "ann's", *MEMO, 1) == (Code.APPLIED, None)
    assert answer(world, "ann's", "person", person("ann"), 1) == (Code.APPLIED, None)
    assert (
        world.do("clerk", "payments.write", "x", None, expects=[("memo", ["x"], 0)]).code
        == Code.APPLIED
    )
    for kind, id_ in (("memo", ["x"]), ("memo", ["none"]), ("person", person("bob"))):
        for version in (0, 1):
            refused = (Code.NOT_AUTHORIZED, [["read", [kind, id_]]])
            assert answer(world, "ann's", kind, id_, version) == refused


def test_objects_of_the_kernel_are_as_nodes_show_them(world: World) -> None:
    own = (
        ("agency", ["audit"]),
        ("rules", ["payments"]),
        ("principal", [token("ann's")]),
        ("key", [public_key("ann's")]),
    )
    for kind, id_ in own:
        assert answer(world, "ann's", kind, id_, 1) == (Code.APPLIED, None), kind
    assert answer(world, "ann's", "role", [token("ann's"), "x.y"], 0) == (Code.APPLIED, None)
    others = (
        ("principal", [token("clerk")], 1),
        ("key", [public_key("clerk")], 1),
        ("role", [token("clerk"), "payments.clerk"], 1),
        ("grant", [token("g")], 0),
        ("review", [token("r")], 0),
        ("hold", [token("h")], 0),
    )
    for kind, id_, version in others:
        refused = (Code.NOT_AUTHORIZED, [["read", [kind, id_]]])
        assert answer(world, "ann's", kind, id_, version) == refused
        if kind != "hold":
            assert answer(world, "clerk", kind, id_, version) == (Code.APPLIED, None), kind


def held(world: World, action: str, name: str) -> list[Value]:
    """Place a hold and return its id."""
    placed = world.do("clerk", f"payments.{action}", [name])
    assert placed.code == Code.APPLIED
    rows: list[list[list[Value]]] = []
    for each in placed.names:
        if each.startswith("writes:"):
            rows += placed.value(each)  # type: ignore[arg-type]
    (id_,) = [row[0][1] for row in rows if row[0][0] == "hold"]
    assert type(id_) is list
    return id_


def test_a_hold_is_named_by_who_reads_what_it_is_on(world: World) -> None:
    secret, memo = held(world, "watch", "s"), held(world, "watch_memo", "m")
    for who in ("clerk", "officer", "ann's"):
        found = {answer(world, who, "hold", each, 1)[0] for each in (secret, [token("h")])}
        assert found == {Code.NOT_AUTHORIZED}
    assert answer(world, "clerk", "hold", memo, 1) == (Code.APPLIED, None)
    assert answer(world, "clerk", "hold", memo, 2)[0] == Code.STALE
    assert answer(world, "ann's", "hold", memo, 1)[0] == Code.NOT_AUTHORIZED


def test_what_a_call_needs_may_be_named_by_whoever_may_act(world: World) -> None:
    """Whoever may not read it and is told its version may act on it, which the rules allow."""
    draft = ("payments.amend", ["s"], None)
    stale = world.do("clerk", *draft, expects=[(*SECRET, 1)])
    assert (stale.code, stale.detail) == (Code.STALE, [["secret", ["s"]], 2, ["owner"]])
    assert world.do("clerk", *draft, expects=[(*SECRET, 2)]).code == Code.APPLIED


def test_a_record_that_one_writes_oneself_into_is_judged_as_it_was(world: World) -> None:
    """Ann may not read the south's file, nor give herself the right in the same act."""
    ann = person("ann")
    named = [("secret", ["south"], 1)]
    amended = world.draft("clerk", ("payments.amend", ["south"], ann), expects=named)
    assert world.one(amended).code == Code.APPLIED
    assert answer(world, "ann's", "secret", ["south"], 2) == (Code.APPLIED, None)


def test_what_nobody_declared_is_absent_for_all(world: World) -> None:
    assert answer(world, "ann's", "unheard", [1], 0) == (Code.APPLIED, None)
    assert answer(world, "ann's", "unheard", [1], 1)[0] == Code.STALE


def test_the_right_counts_when_a_proposal_is_stored_and_when_it_takes_effect(world: World) -> None:
    call = ("payments.amend", ["s"], None)
    named = [(*SECRET, 2), ("secret", ["south"], 1)]
    until_ms = world.now_ms + 1_000_000
    proposed = world.draft("clerk", call, expects=named, mode=PROPOSE, not_after_ms=until_ms)
    decision = world.one(proposed)
    assert (decision.code, decision.detail) == (
        Code.NOT_AUTHORIZED,
        [["read", ["secret", ["south"]]]],
    )


def test_a_dry_run_says_no_more(world: World) -> None:
    context = BlockContext(1, world.height + 1, world.now_ms + 1000)
    for version in (0, 2, 3):
        draft = world.draft("clerk", ("payments.ping", 1), expects=[(*SECRET, version)])
        run = DryRun(world.ledger, world.state, context, draft)
        assert [(each.code, each.detail) for each in run.findings] == [
            (Code.NOT_AUTHORIZED, [["read", ["secret", ["s"]]]])
        ]


def test_what_was_read_suffices_to_execute_again(world: World) -> None:
    context = BlockContext(1, world.height + 1, world.now_ms + 1000)
    for who in ("clerk", "officer", "ann's"):
        draft = world.draft(who, ("payments.ping", 1), expects=[(*SECRET, 1), (*MEMO, 1)])
        recorded = Recorded(world.state)
        first = BlockRun(world.ledger, recorded, context, [draft]).finish()
        again = BlockRun(world.ledger, Witness(recorded.asked), context, [draft]).finish()
        assert first.results_root == again.results_root
        reads = first.decisions[0].value("reads")
        assert world.ledger.paths("record", ["secret", "s"]) in reads[0]  # type: ignore[index, operator]
