"""The kernel's own actions: who is who, holds by hand, accounts by hand."""

from __future__ import annotations

import pytest

from consensus.codec import Value
from consensus.genesis import CITIZEN, OFFICIAL, SYSTEM
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.kernel.catalogue import KERNEL_ACTIONS
from consensus.ledger.kernel.perform import HANDLERS
from consensus.ledger.layout import ACTIVE, Agency, Key, Principal, Role
from tests.consensus.ledger.reader import SingleView, read_single
from tests.consensus.ledger.world import (
    CHARTER,
    IDENTITY,
    PAYMENTS,
    World,
    make_genesis,
    person,
    public_key,
    token,
)

NEW = token("new")
TREASURY = "treasury"


def leaf(world: World, space: str, *components: Value) -> SingleView:
    row = world.state.get(world.ledger.paths(space, list(components)))
    assert row is not None, (space, components)
    return read_single(space, components, row.value)


def act(world: World, action: str, *inputs: Value, expects: object = ()) -> Decision:
    return world.do("admin", f"charter.{action}", *inputs, expects=expects)


def applied(decision: Decision) -> Decision:
    assert decision.code == Code.APPLIED, (decision.code, decision.detail)
    return decision


def add_principal(world: World, *, kind: str = "official", person: Value = None) -> Decision:
    expects = [("principal", [NEW], 0)]
    inputs = (TREASURY, NEW, kind, token("s"), person)
    return act(world, "add_principal", *inputs, expects=expects)


def test_every_action_of_the_catalogue_has_a_handler() -> None:
    assert HANDLERS.keys() == KERNEL_ACTIONS.keys()


def test_agency_is_admitted_suspended_and_reinstated() -> None:
    world = World()
    name = [("agency", ["police"], 0)]
    decision = applied(act(world, "add_agency", "police", "The Police", expects=name))
    assert leaf(world, "agency", "police") == SingleView(1, Agency("police", "The Police", 0, 0))
    [entry] = decision.value("writes:charter")
    row = world.state.get(world.ledger.paths("agency", ["police"]))
    assert row is not None
    assert entry == [["agency", ["police"]], 0, 1, row.vh, []]
    applied(act(world, "suspend_agency", "police"))
    assert leaf(world, "agency", "police").value.status == 1
    applied(act(world, "reinstate_agency", "police", expects=[("agency", ["police"], 2)]))
    assert leaf(world, "agency", "police") == SingleView(3, Agency("police", "The Police", 0, 0))


def test_principal_key_and_role_make_somebody_able_to_act() -> None:
    world = World()
    applied(add_principal(world))
    expected = Principal(NEW, TREASURY, OFFICIAL, token("s"), None, ACTIVE)
    assert leaf(world, "principal", NEW) == SingleView(1, expected)
    key = public_key("new")
    applied(act(world, "add_key", TREASURY, NEW, key, expects=[("key", [key], 0)]))
    assert leaf(world, "key", key).value == Key(key, NEW, ACTIVE, world.now_ms)
    scope = ["programme", "child", "region", "north"]
    role = [("role", [NEW, "payments.clerk"], 0)]
    applied(act(world, "give_role", TREASURY, NEW, "payments.clerk", scope, 5, None, expects=role))
    assert leaf(world, "role", NEW, "payments.clerk").value == Role(
        NEW, "payments.clerk", [["programme", "child"], ["region", "north"]], 5, None, None, 0
    )
    applied(world.do("new", "payments.transfer", "a", "b", 1))


@pytest.mark.parametrize(
    ("kind", "who", "number"), [("system", None, SYSTEM), ("citizen", person("ann"), CITIZEN)]
)
def test_kind_of_a_principal_is_kept(kind: str, who: Value, number: int) -> None:
    world = World()
    applied(add_principal(world, kind=kind, person=who))
    assert leaf(world, "principal", NEW).value[2:5:2] == (number, who)


ADMIN = token("admin")
WEAK = bytes(32)
REFUSED: list[tuple[str, tuple[Value, ...], list[object], Code, Value]] = [
    ("add_agency", ("", "T"), [], Code.BAD_INPUT, ["agency", "1 to 64 bytes"]),
    ("add_agency", ("x", ""), [], Code.BAD_INPUT, ["title", "1 to 256 bytes"]),
    ("add_agency", ("x", "X"), [], Code.STALE, [["agency", ["x"]], 0, []]),
    (
        "add_agency",
        (TREASURY, "X"),
        [("agency", [TREASURY], 1)],
        Code.NOT_UNIQUE,
        [["agency", [TREASURY]]],
    ),
    ("suspend_agency", ("x",), [], Code.NOT_FOUND, ["agency", ["agency", ["x"]]]),
    (
        "reinstate_agency",
        (TREASURY,),
        [("agency", [TREASURY], 1)],
        Code.REQUIREMENT,
        ["UNCHANGED", "it is so already"],
    ),
    ("add_principal", ("x", NEW, "system", None, None), [], Code.NOT_FOUND, None),
    (
        "add_principal",
        (TREASURY, NEW, "robot", None, None),
        [],
        Code.BAD_INPUT,
        ["kind", "one of official, system, citizen"],
    ),
    ("add_principal", (TREASURY, NEW, "citizen", None, None), [], Code.BAD_INPUT, None),
    (
        "add_principal",
        (TREASURY, NEW, "official", None, None),
        [],
        Code.BAD_INPUT,
        ["subject", "the registrar's token of the official"],
    ),
    ("add_principal", (TREASURY, NEW, "system", None, [b"x"]), [], Code.BAD_INPUT, None),
    (
        "add_principal",
        (TREASURY, ADMIN, "system", None, None),
        [("principal", [ADMIN], 1)],
        Code.NOT_UNIQUE,
        [["principal", [ADMIN]]],
    ),
    (
        "suspend_principal",
        (TREASURY, NEW),
        [],
        Code.NOT_FOUND,
        ["principal", ["principal", [NEW]]],
    ),
    ("suspend_principal", (TREASURY, token("auditor")), [], Code.NOT_FOUND, None),
    (
        "reinstate_principal",
        (TREASURY, ADMIN),
        [("principal", [ADMIN], 1)],
        Code.REQUIREMENT,
        None,
    ),
    ("add_key", (TREASURY, ADMIN, b"short"), [], Code.BAD_INPUT, None),
    ("add_key", (TREASURY, ADMIN, WEAK), [], Code.BAD_INPUT, None),
    (
        "add_key",
        (TREASURY, ADMIN, public_key("clerk")),
        [("key", [public_key("clerk")], 1)],
        Code.NOT_UNIQUE,
        [["key", [public_key("clerk")]]],
    ),
    ("revoke_key", (TREASURY, ADMIN, public_key("none"), False), [], Code.NOT_FOUND, None),
    ("revoke_key", (TREASURY, ADMIN, public_key("clerk"), False), [], Code.BAD_INPUT, None),
    ("give_role", (TREASURY, ADMIN, "", [], 0, None), [], Code.BAD_INPUT, None),
    ("give_role", (TREASURY, ADMIN, "r", ["a"], 0, None), [], Code.BAD_INPUT, None),
    ("give_role", (TREASURY, ADMIN, "r", ["b", "", "a", ""], 0, None), [], Code.BAD_INPUT, None),
    ("give_role", (TREASURY, ADMIN, "r", ["a", "", "a", ""], 0, None), [], Code.BAD_INPUT, None),
    ("give_role", (TREASURY, ADMIN, "r", ["a", "x" * 257], 0, None), [], Code.BAD_INPUT, None),
    ("give_role", (TREASURY, ADMIN, "r", ["", "x"], 0, None), [], Code.BAD_INPUT, None),
    ("give_role", (TREASURY, ADMIN, "r", [], 5, 5), [], Code.BAD_INPUT, ["until", "after from"]),
    ("revoke_role", (TREASURY, ADMIN, "none"), [], Code.NOT_FOUND, None),
    ("open_account", ("none", ["x"]), [], Code.NOT_FOUND, ["family", None]),
    ("open_account", ("purse", ["x"] * 8), [], Code.BAD_INPUT, None),
    ("open_account", ("purse", ["a"]), [], Code.NOT_UNIQUE, [["account", ["purse", "a"]]]),
    ("confirm_hold", (NEW, None), [], Code.NOT_FOUND, ["hold", ["hold", [NEW]]]),
    ("withdraw_hold", (NEW,), [], Code.NOT_FOUND, ["hold", ["hold", [NEW]]]),
    ("release_hold", (TREASURY, NEW), [], Code.NOT_FOUND, ["hold", ["hold", [NEW]]]),
]

A: Value = ["account", ["purse", "a"]]
HELD: list[tuple[Value, ...]] = [
    ([A], [], None, "Act"),
    ([A], ["pay", "all"], None, "Act"),
    ([A], ["some"], None, "Act"),
    ([A], ["pay"], 5, "Act"),
    ([A], ["pay"], None, ""),
    ([A], ["pay"], None, "x" * 1001),
    ([A, A], ["pay"], None, "Act"),
    ([], ["pay"], None, "Act"),
    ([["account", ["purse", str(number)]] for number in range(17)], ["pay"], None, "Act"),
    ([["account"]], ["pay"], None, "Act"),
    ([["account", ["none", "a"]]], ["pay"], None, "Act"),
    ([["record", ["none", "a"]]], ["pay"], None, "Act"),
    ([["record", ["person"]]], ["pay"], None, "Act"),
    ([["nothing", ["a"]]], ["pay"], None, "Act"),
]
REFUSED += [("place_hold", inputs, [], Code.BAD_INPUT, None) for inputs in HELD]
REFUSED += [
    ("place_hold", ([target], ["pay"], None, "Act"), [], Code.NOT_FOUND, None)
    for target in (["agency", ["none"]], ["domain", ["none"]], ["action", ["payments", "none"]])
]


@pytest.mark.parametrize(("action", "inputs", "expects", "code", "detail"), REFUSED)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    action: str, inputs: tuple[Value, ...], expects: list[object], code: Code, detail: Value
) -> None:
    world = World()
    before = {kh: vh for kh, vh, _ in world.state.entries()}
    decision = act(world, action, *inputs, expects=expects)
    assert decision.code == code, decision.detail
    assert detail is None or decision.detail == detail
    paths = world.ledger.paths
    after = {kh: vh for kh, vh, _ in world.state.entries()}
    changed = {kh for kh in after if after[kh] != before.get(kh)}
    assert changed == {paths.pool, paths("sequence", [public_key("admin")])}


def test_administrator_of_another_agency_has_no_say() -> None:
    world = World()
    decision = act(world, "suspend_principal", "audit", token("auditor"))
    assert (decision.code, decision.detail) == (Code.NOT_AUTHORIZED, [["where"]])
    decision = world.do("clerk", "charter.suspend_agency", "audit")
    assert decision.detail == [["role", "charter.admin", "missing"]]


def test_key_once_revoked_may_still_be_called_compromised() -> None:
    world = World()
    inputs = (TREASURY, token("clerk"), public_key("clerk"))
    applied(act(world, "revoke_key", *inputs, False))
    assert act(world, "revoke_key", *inputs, False).code == Code.REQUIREMENT
    applied(act(world, "revoke_key", *inputs, True))
    assert leaf(world, "key", public_key("clerk")) == SingleView(
        3, Key(public_key("clerk"), token("clerk"), 2, world.genesis.time_ms)
    )
    assert act(world, "revoke_key", *inputs, False).code == Code.REQUIREMENT


def test_reinstated_principal_acts_again() -> None:
    world = World()
    clerk = (TREASURY, token("clerk"))
    applied(act(world, "suspend_principal", *clerk))
    again = act(world, "suspend_principal", *clerk)
    assert (again.code, again.detail[0]) == (Code.REQUIREMENT, "UNCHANGED")
    named = [("principal", [token("clerk")], 2)]
    applied(act(world, "reinstate_principal", *clerk, expects=named))
    applied(world.do("clerk", "payments.transfer", "a", "b", 1))


def test_account_is_opened_by_hand() -> None:
    world = World()
    applied(act(world, "open_account", "purse", ["x"]))
    assert world.balance("purse", "x") == 0
    applied(world.do("clerk", "payments.transfer", "a", "x", 1))


@pytest.mark.parametrize(
    ("value", "hours"), [("48", 48), ("0", 1), ("100000", 24 * 365), (None, 72), ("text", 72)]
)
def test_unconfirmed_hold_lapses_as_the_charter_says(value: str | None, hours: int) -> None:
    line = next(line for line in CHARTER.splitlines() if line.startswith("hold_unconfirmed"))
    charter = CHARTER.replace("[params]\n" + line, "")
    if value == "text":
        charter = CHARTER.replace('type = "int"', 'type = "text"').replace("48", '"48"')
    elif value is not None:
        charter = CHARTER.replace("48", value)
    benefits = 'domain = "benefits"\nnumber = 1\nlegal_basis = "Act"\nexports = ["entitlement.*"]\n'
    benefits += '[kinds.entitlement]\nfields.person = { type = "ref", kind = "person" }\n'
    benefits += 'fields.monthly = { type = "money", currency = "USD" }\n'
    benefits += 'status = { start = "active", steps = { active = [] } }\n'
    world = World(make_genesis((charter, IDENTITY, benefits, PAYMENTS)))
    applied(act(world, "place_hold", [["account", ["purse", "a"]]], ["pay"], None, "Act"))
    target = ["account", ["purse", "a"]]
    id_ = leaf(world, "holds", *target, 0).value[0]
    hold = leaf(world, "hold", id_).value
    assert hold.until_ms - hold.placed_ms == hours * 3_600_000


def test_hold_by_hand_ends_when_its_placer_says_if_that_is_sooner() -> None:
    world = World()
    until = world.now_ms + 100_000
    applied(act(world, "place_hold", [["account", ["purse", "a"]]], ["pay"], until, "Act"))
    id_ = leaf(world, "holds", "account", ["purse", "a"], 0).value[0]
    assert leaf(world, "hold", id_).value.until_ms == until
    officer = ("charter.confirm_hold", id_, 5)
    bad = world.do("admin", *officer, expects=[("hold", [id_], 1)])
    assert (bad.code, bad.detail) == (Code.BAD_INPUT, ["until", "not in the past"])
