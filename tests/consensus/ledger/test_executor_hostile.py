"""Executor: inputs that are allowed to be sent and meant to do harm are refused, never a stop.

An outcome is always a decision. If an author could make the executor raise, one transaction would
stop every node of the network.
"""

# ruff: noqa: E501  rule sets read best with one construct a line

from __future__ import annotations

from dataclasses import replace

import pytest

from consensus.codec import Value
from consensus.errors import DecodeError
from consensus.genesis import Principal, RoleGiven
from consensus.hashing import ZERO
from consensus.ledger import holds
from consensus.ledger.codes import Code
from consensus.ledger.genesis_state import genesis_state
from consensus.ledger.layout import ALL, PAY
from tests.consensus.ledger.reader import read_account
from tests.consensus.ledger.world import (
    TEXTS,
    World,
    ent,
    make_genesis,
    person,
    populated,
    public_key,
    register,
    token,
)

LAB = """\
domain = "lab"
number = 1
legal_basis = "Test Act"
uses = { identity = ["person.status"] }

[accounts.box]
currency = "USD"

[kinds.thing]
fields.left  = { type = "int", optional = true }
fields.right = { type = "int", optional = true }
fields.owner = { type = "ref", kind = "person", optional = true }
status = { start = "new", steps = { new = ["old"], old = ["gone"] } }
index  = ["left", { field = "owner", while = "left / right >= 0" }, { field = "status", while = "left != 7" }]

[kinds.tag]
fields.on = { type = "ref", kind = "thing" }

[actions.make]
actor  = { role = "lab.worker" }
inputs = { name = "text", owner = "ref:person?" }
create = [ { kind = "thing", id = ["{input.name}"], set = { left = "0", right = "0", owner = "input.owner" } } ]

[actions.tag_it]
actor  = { role = "lab.worker" }
inputs = { thing = "ref:thing", name = "text" }
create = [ { kind = "tag", id = ["{input.thing}", "{input.name}"], set = { on = "input.thing" } } ]

[actions.set_both]
actor  = { role = "lab.worker" }
inputs = { a = "ref:thing", b = "ref:thing" }
load   = [ ["a", "thing/{input.a}"], ["b", "thing/{input.b}"] ]
set    = [ { record = "a", fields = { left = "1" } }, { record = "b", fields = { right = "2" } } ]

[actions.age_both]
actor  = { role = "lab.worker" }
inputs = { a = "ref:thing", b = "ref:thing" }
load   = [ ["a", "thing/{input.a}"], ["b", "thing/{input.b}"] ]
set    = [ { record = "a", status = "old" }, { record = "b", status = "gone" } ]

[actions.open_and_pay]
actor  = { role = "lab.worker" }
inputs = { a = "ref:person", b = "ref:person", amount = "money:USD" }
open   = [ { account = "account/box/{input.a}" } ]
move   = [ { from = "account/box/{input.a}", to = "account/box/{input.b}", amount = "input.amount" } ]

[actions.set_aside]
actor   = { role = "lab.worker" }
inputs  = { thing = "ref:thing", from = "text", amount = "money:USD", until = "time?" }
reserve = [ { id = ["{input.thing}"], from = "account/purse/{input.from}", amount = "input.amount", expires = "input.until" } ]

[actions.hand_over]
actor  = { role = "lab.worker" }
inputs = { thing = "ref:thing", from = "text", to = "text", amount = "money:USD", keep = "bool" }
post   = [ { id = ["{input.thing}"], from = "account/purse/{input.from}", to = "account/purse/{input.to}", when = "!input.keep" },
           { id = ["{input.thing}"], from = "account/purse/{input.from}", to = "account/purse/{input.to}", amount = "input.amount", keep = true, when = "input.keep" } ]

[actions.let_go]
actor  = { role = "lab.worker" }
inputs = { thing = "ref:thing", from = "text" }
void   = [ { id = ["{input.thing}"], from = "account/purse/{input.from}" } ]

[actions.deal_out]
actor  = { role = "lab.worker" }
inputs = { owner = "ref:person", from = "text", amount = "money:USD" }
load   = [ ["owned", "index thing.owner {input.owner} max 4 by right"] ]
waterfall = { from = "account/purse/{input.from}", amount = "input.amount", each = "owned", up_to = "each.left + 3", to = "account/box/{each.owner}", rest = "account/purse/{input.from}" }

[actions.hold_twice]
phase  = "protective"
actor  = { role = "lab.worker" }
inputs = { thing = "ref:thing" }
place_hold = [
  { target = "thing/{input.thing}", scopes = ["edit"], reason = "first" },
  { target = "thing/{input.thing}", scopes = ["all"], reason = "second" },
]

[actions.release_two]
actor  = { role = "lab.worker" }
inputs = { thing = "ref:thing", one = "digest", two = "digest" }
release_hold = [
  { target = "thing/{input.thing}", hold = "input.one" },
  { target = "thing/{input.thing}", hold = "input.two" },
]

[actions.look]
actor  = { role = "lab.worker" }
inputs = { owner = "ref:person", left = "int" }
load   = [ ["owned", "index thing.owner {input.owner} max 2 by right"], ["left", "index thing.left {input.left} max 3"] ]
require = [ { code = "FEW", that = "size(left) < 2 || owned.exists(o, o.left == input.left)", say = "too many" } ]

[actions.mine]
actor  = { self = "thing.owner" }
inputs = { thing = "ref:thing" }
load   = [ ["thing", "thing/{input.thing}"] ]
set    = [ { record = "thing", fields = { left = "7" } } ]

[actions.same]
actor   = { role = "lab.worker" }
inputs  = { a = "ref:person", b = "ref:person", among = "list:ref:person" }
require = [ { code = "SAME", that = "input.a == input.b", say = "not the same" },
            { code = "DIFFERENT", that = "!(input.a != input.b)", say = "not the same" },
            { code = "AMONG", that = "input.a in input.among", say = "not among them" } ]
"""


LENDING = TEXTS[3].replace("floor = -50\n", 'floor = -50\ndebit_by = ["lab"]\n')
"""Payments that let the laboratory take from purses."""


def lab() -> World:
    """Return a network with a laboratory whose worker may do what the tests try."""
    genesis = make_genesis()
    worker = Principal(token("worker"), "services", 0, token("subject worker"))
    citizen = Principal(token("one's"), "services", 2, None, (1,))
    return World(
        make_genesis(
            (*TEXTS[:3], LENDING, LAB),
            principals=(*genesis.principals, worker, citizen),
            keys=(
                *genesis.keys,
                (public_key("worker"), worker.id),
                (public_key("one's"), citizen.id),
            ),
            roles=(*genesis.roles, RoleGiven(worker.id, "lab.worker")),
        )
    )


def make(world: World, name: str, owner: list[Value] | None = None) -> list[Value]:
    made = world.do("worker", "lab.make", name, owner, expects=[("thing", [name], 0)])
    assert made.code == Code.APPLIED, made.detail
    return [name]


def test_one_record_loaded_twice_keeps_what_both_effects_set() -> None:
    world = lab()
    id_ = make(world, "x")
    done = world.do("worker", "lab.set_both", id_, id_, expects=[("thing", id_, 1)])
    assert done.code == Code.APPLIED
    fields = world.record("thing", id_).fields
    assert (fields["left"], fields["right"]) == (1, 2)
    assert world.record("thing", id_).version == 2


def test_one_record_loaded_twice_takes_both_steps_in_order() -> None:
    world = lab()
    id_ = make(world, "x")
    done = world.do("worker", "lab.age_both", id_, id_, expects=[("thing", id_, 1)])
    assert done.code == Code.APPLIED
    record = world.record("thing", id_)
    assert record.fields["status"] == "gone"
    assert [row[0] for row in record.fields["by"]] == ["created", "new", "old", "gone"]


def test_one_hold_named_twice_in_a_release_is_refused() -> None:
    world = lab()
    id_ = make(world, "x")
    world.do("worker", "lab.hold_twice", id_)
    target = holds.Target("record", ["thing", *id_])
    paths = world.ledger.paths
    first = world.state.get(paths("holds", [*target.index_components(), 0]))
    assert first is not None
    hold = first.value[-32:]
    refused = world.do("worker", "lab.release_two", id_, hold, hold)
    assert refused.code == Code.REQUIREMENT
    assert refused.detail == ["RELEASED", "the hold is released already"]
    assert world.record("thing", id_).held == ALL | 4


def test_two_holds_are_released_together() -> None:
    world = lab()
    id_ = make(world, "x")
    world.do("worker", "lab.hold_twice", id_)
    target = holds.Target("record", ["thing", *id_])
    rows = [
        world.state.get(world.ledger.paths("holds", [*target.index_components(), at]))
        for at in (0, 1)
    ]
    one, two = (row.value[-32:] for row in rows if row is not None)
    done = world.do("worker", "lab.release_two", id_, one, two)
    assert done.code == Code.APPLIED
    assert world.record("thing", id_).held == 0


@pytest.mark.parametrize(("opened", "paid"), [([1], [True]), ([True], [1]), ([0], [False])])
def test_an_account_opened_for_one_is_not_open_for_true(
    opened: list[Value], paid: list[Value]
) -> None:
    world = lab()
    refused = world.do("worker", "lab.open_and_pay", opened, paid, 0)
    assert refused.code == Code.NOT_FOUND
    assert refused.detail == ["box", ["account", ["box", paid]]]


def test_a_citizen_is_not_the_one_whose_id_only_compares_equal() -> None:
    world = lab()
    theirs, mine = make(world, "theirs", [True]), make(world, "mine", [1])
    refused = world.do("one's", "lab.mine", theirs, expects=[("thing", theirs, 1)])
    assert (refused.code, refused.detail) == (Code.NOT_AUTHORIZED, [["self"]])
    done = world.do("one's", "lab.mine", mine, expects=[("thing", mine, 1)])
    assert done.code == Code.APPLIED


@pytest.mark.parametrize(
    ("left", "right", "among", "outcome"),
    [
        ([1], [1], [[0], [1]], None),
        ([True], [True], [[True]], None),
        ([1], [True], [[1]], "SAME"),
        ([[0], b"x"], [[False], b"x"], [[1]], "SAME"),
        ([1], [1], [[True]], "AMONG"),
        ([True], [True], [[1], [0]], "AMONG"),
    ],
)
def test_references_are_equal_only_if_their_types_are(
    left: list[Value], right: list[Value], among: list[Value], outcome: str | None
) -> None:
    decision = lab().do("worker", "lab.same", left, right, among)
    assert decision.code == (Code.APPLIED if outcome is None else Code.REQUIREMENT)
    if outcome is not None:
        assert decision.detail[0] == outcome


def nested(text: str, wide: int, deep: int) -> list[Value]:
    return [text if deep == 1 else nested(text, wide, deep - 1) for _ in range(wide)]


@pytest.mark.parametrize("deep", [1, 2, 3])
def test_a_huge_reference_is_refused_as_an_input(deep: int) -> None:
    world = lab()
    refused = world.do("worker", "lab.tag_it", nested("t" * 200, 8, deep), "x")
    assert refused.code == Code.BAD_INPUT
    assert refused.detail == ["thing", "an id has at most 1024 bytes"]


def test_an_id_that_grows_too_long_when_composed_is_a_failed_requirement() -> None:
    world = lab()
    near = ["t" * 250, "t" * 250, "t" * 250]
    allowed = world.do(
        "worker", "lab.tag_it", near, "x" * 100, expects=[("tag", [near, "x" * 100], 0)]
    )
    assert allowed.code == Code.APPLIED
    long = [*near, "t" * 200]
    refused = world.do("worker", "lab.tag_it", long, "x" * 100)
    assert refused.code == Code.REQUIREMENT
    assert refused.detail[0] == "NO_VALUE"


def test_a_hold_placed_before_its_account_exists_binds_the_account_that_the_kernel_opens() -> None:
    world = lab()
    world.do("admin", "charter.place_hold", [["account", ["purse", "later"]]], ["pay"], None, "Act")
    opened = world.do("admin", "charter.open_account", "purse", ["later"])
    assert opened.code == Code.APPLIED
    row = world.state.get(world.ledger.paths("account", ["purse", "later"]))
    assert row is not None
    assert read_account(row.value).held == PAY
    refused = world.do("clerk", "payments.transfer", "a", "later", 1)
    assert refused.code == Code.HELD


def test_a_hold_of_all_on_an_absent_account_stops_the_kernel_from_opening_it() -> None:
    world = lab()
    placed = world.do(
        "admin", "charter.place_hold", [["account", ["purse", "later"]]], ["all"], None, "Act"
    )
    assert placed.code == Code.APPLIED
    refused = world.do("admin", "charter.open_account", "purse", ["later"])
    assert refused.code == Code.HELD


def test_the_same_person_under_another_principal_does_not_confirm_a_hold() -> None:
    genesis = make_genesis()
    twin = Principal(token("twin"), "audit", 2, None, (token("ann"),))
    world = World(
        make_genesis(
            principals=(*genesis.principals, twin),
            keys=(*genesis.keys, (public_key("twin"), twin.id)),
            roles=(
                *genesis.roles,
                RoleGiven(twin.id, "charter.admin"),
                RoleGiven(token("ann's"), "charter.admin"),
            ),
        )
    )
    register(world, "bob")
    target = ["person", *person("bob")]
    placed = world.do("ann's", "charter.place_hold", [["record", target]], ["all"], None, "Act")
    entry = placed.value("writes:charter")
    hold = next(each[0][1][0] for each in entry if each[0][0] == "hold")
    refused = world.do("twin", "charter.confirm_hold", hold, None, expects=[("hold", [hold], 1)])
    assert (refused.code, refused.detail) == (Code.NOT_AUTHORIZED, [["same_person"]])


@pytest.mark.parametrize("id_", [(), (1.5,), (None,), ("t" * 300,)])
def test_a_genesis_with_a_person_of_an_impossible_id_is_refused(id_: tuple[Value, ...]) -> None:
    genesis = make_genesis()
    citizen = Principal(token("odd"), "services", 2, None, id_)
    with pytest.raises(DecodeError, match=r"^genesis\.principals: "):
        genesis_state(replace(genesis, principals=(citizen,), keys=(), roles=()))


def test_who_has_no_power_learns_no_account_whose_name_is_in_a_record() -> None:
    world = populated()
    granted = world.do(
        "social",
        "benefits.grant",
        person("bob"),
        100,
        expects=[("person", person("bob"), 1), (*ent("bob"), 0)],
    )
    assert granted.code == Code.APPLIED
    call = ("payments.disburse", person("bob"), 24_312)
    refused = world.do("ann's", *call, expects=[(*ent("bob"), 1)])
    assert refused.code == Code.NOT_AUTHORIZED
    told = world.do("officer", *call, expects=[(*ent("bob"), 1)])
    assert told.code == Code.NOT_FOUND


def test_who_has_no_power_learns_no_id_that_a_record_names() -> None:
    """``renew`` loads the person that an entitlement names; here that record was never made."""
    world = populated()
    row = world.state.get(world.ledger.paths("record", ["person", token("ann")]))
    assert row is not None
    kh = world.ledger.paths("record", ["person", token("ann")])
    world.state.write([(kh, row._replace(vh=ZERO))])
    renew = ("benefits.renew", person("ann"))
    refused = world.do("clerk", *renew, expects=[(*ent("ann"), 1)])
    assert (refused.code, refused.detail[0][2]) == (Code.NOT_AUTHORIZED, "missing")
    told = world.do("social", *renew, expects=[(*ent("ann"), 1)])
    assert (told.code, told.detail) == (Code.NOT_FOUND, ["person", ["person", person("ann")]])
