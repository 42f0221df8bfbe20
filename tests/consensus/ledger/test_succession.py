"""An agency leaves and another takes its place: agreed by both, and found out when it is read."""

from __future__ import annotations

from typing import Any

import pytest

from consensus.codec import Value
from consensus.genesis import Agency as Member
from consensus.genesis import RoleGiven
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.layout import Agency, Principal, in_force
from tests.consensus.ledger import test_grants
from tests.consensus.ledger.reader import SingleView, read_single
from tests.consensus.ledger.test_grants import Town, made
from tests.consensus.ledger.world import (
    CHARTER,
    DEFAULT,
    IDENTITY,
    NORTH,
    TEXTS,
    World,
    ent,
    make_genesis,
    person,
    register,
    token,
)

SUCCESSION = """
[actions.name_successor]
kernel = true
actor = { role = "charter.admin", where = "who.agency == input.agency" }

[actions.accept_succession]
kernel = true
actor = { role = "charter.admin", where = "who.agency == input.agency" }
"""
SMALL = tuple(f"small {number:02}" for number in range(20))
FIELDS = {
    "roles": (
        *DEFAULT.roles,
        RoleGiven(token("registrar"), "charter.admin", NORTH),
        RoleGiven(token("auditor"), "charter.admin", NORTH),
        RoleGiven(token("auditor"), "payments.clerk", NORTH),
    ),
    "agencies": (*DEFAULT.agencies, *(Member(name, name) for name in SMALL)),
}
GENESIS = make_genesis((CHARTER + SUCCESSION, *TEXTS[1:]), **FIELDS)
ADMINS = {
    "treasury": "admin",
    "registry": "registrar",
    "audit": "auditor",
    "services": "social",
}
PAY = ("payments.transfer", "a", "b", 1)


@pytest.fixture
def world() -> World:
    return World(GENESIS)


def agency(world: World, name: str) -> SingleView:
    row = world.state.get(world.ledger.paths("agency", [name]))
    assert row is not None
    return read_single("agency", [name], row.value)


def name(world: World, leaving: str, successor: str | None, author: str = "") -> Decision:
    expects = [("agency", [leaving], agency(world, leaving).version)]
    call = ("charter.name_successor", leaving, successor)
    return world.do(author or ADMINS[leaving], *call, expects=expects)


def accept(world: World, successor: str, leaving: str, author: str = "") -> Decision:
    expects = [
        ("agency", [each], agency(world, each).version) for each in {successor: 0, leaving: 0}
    ]
    call = ("charter.accept_succession", successor, leaving)
    return world.do(author or ADMINS[successor], *call, expects=expects)


def succeed(world: World, leaving: str, successor: str) -> None:
    for decision in (name(world, leaving, successor), accept(world, successor, leaving)):
        assert decision.code == Code.APPLIED, decision.detail


def leaf(decision: Decision, name: str) -> Any:
    value = decision.value(name)
    assert value is not None, decision.detail
    return value


def acted_for(decision: Decision) -> str:
    return str(leaf(decision, "authority")[0][1])


def paths_read(decision: Decision) -> set[bytes]:
    full = leaf(decision, "reads")[0]
    return {full[start : start + 32] for start in range(0, len(full), 64)}


def refused(decision: Decision) -> tuple[Code, Value]:
    return decision.code, decision.detail


def suspend(world: World, author: str, of: str, whom: str) -> Decision:
    return world.do(author, "charter.suspend_principal", of, token(whom))


def test_succession_takes_an_act_of_each_agency(world: World) -> None:
    assert name(world, "audit", "treasury").code == Code.APPLIED
    assert agency(world, "audit").value == Agency("audit", "Audit", 0, 0, "treasury", None)
    assert refused(suspend(world, "admin", "treasury", "auditor"))[0] == Code.NOT_FOUND
    assert acted_for(world.do("auditor", *PAY)) == "audit"
    assert accept(world, "treasury", "audit").code == Code.APPLIED
    assert agency(world, "treasury").value == Agency("treasury", "Treasury", 0, 0, None, ["audit"])


def test_people_of_the_agency_that_left_act_for_its_successor(world: World) -> None:
    succeed(world, "audit", "treasury")
    decision = world.do("auditor", *PAY)
    assert decision.code == Code.APPLIED
    assert acted_for(decision) == "treasury"
    row = world.state.get(world.ledger.paths("principal", [token("auditor")]))
    assert row is not None
    kept: Principal = read_single("principal", [token("auditor")], row.value).value
    assert kept.agency == "audit"  # nothing of theirs is rewritten


def test_reads_show_whom_the_author_acts_for(world: World) -> None:
    """Whoever executes the decision again needs the leaves of both agencies."""
    succeed(world, "audit", "treasury")
    paths = paths_read(world.do("auditor", *PAY))
    for each in ("audit", "treasury"):
        assert world.ledger.paths("agency", [each]) in paths
    paths = paths_read(world.do("clerk", *PAY))
    assert world.ledger.paths("agency", ["audit"]) not in paths


def test_administrators_of_the_successor_administer_them(world: World) -> None:
    succeed(world, "audit", "treasury")
    decision = suspend(world, "admin", "audit", "auditor")
    assert refused(decision)[0] == Code.NOT_FOUND
    assert suspend(world, "admin", "treasury", "auditor").code == Code.APPLIED
    assert world.do("auditor", *PAY).code == Code.SUSPENDED


def test_suspending_the_successor_suspends_them(world: World) -> None:
    succeed(world, "audit", "treasury")
    assert world.do("admin", "charter.suspend_agency", "treasury").code == Code.APPLIED
    decision = world.do("auditor", *PAY)
    assert refused(decision) == (Code.SUSPENDED, ["agency", ["treasury"]])


def test_hold_on_the_successor_binds_them_and_names_it_as_placer(world: World) -> None:
    succeed(world, "audit", "treasury")
    hold = ("charter.place_hold", [["agency", ["treasury"]]], ["pay"], None, "Act")
    assert world.do("auditor", *hold).code == Code.APPLIED
    held = world.do("auditor", *PAY)
    assert held.code == Code.HELD
    row = world.state.get(world.ledger.paths("hold", held.detail))
    assert row is not None
    assert read_single("hold", held.detail, row.value).value.agency == "treasury"


def test_successions_follow_one_another(world: World) -> None:
    succeed(world, "audit", "registry")
    succeed(world, "registry", "treasury")
    assert agency(world, "treasury").value.predecessors == ["audit", "registry"]
    for author in ("auditor", "registrar"):
        decision = suspend(world, author, "treasury", "clerk")
        assert acted_for(decision) == "treasury"
    decision = world.do("admin", "charter.add_key", "treasury", token("auditor"), token("x"))
    assert decision.code != Code.NOT_FOUND


def test_separation_between_agencies_goes_by_who_stands_for_them() -> None:
    """What the registry did, it may not confirm as the agency that took its place."""
    identity = IDENTITY + (
        '\n[actions.confirm]\nactor = { role = "payments.clerk", '
        'not_agency = ["person.by.created"] }\ninputs = { person = "ref:person" }\n'
        'load = [ ["person", "person/{input.person}"] ]\n'
        'set = [ { record = "person", fields = { note = "person.name" } } ]\n'
    )
    rules = [CHARTER + SUCCESSION, *(identity if t is IDENTITY else t for t in TEXTS[1:])]
    world = World(make_genesis(rules, **FIELDS))
    register(world, "ann")
    confirm = ("identity.confirm", person("ann"))
    assert world.do("clerk", *confirm, expects=[("person", person("ann"), 1)]).code == Code.APPLIED
    succeed(world, "registry", "treasury")
    decision = world.do("clerk", *confirm, expects=[("person", person("ann"), 2)])
    assert refused(decision) == (Code.NOT_AUTHORIZED, [["not_agency", "person.by.created"]])
    assert world.do("auditor", *confirm, expects=[("person", person("ann"), 2)]).code == (
        Code.APPLIED
    )


def test_agency_that_left_neither_acts_nor_is_acted_upon(world: World) -> None:
    succeed(world, "audit", "treasury")
    left = "it left; treasury took its place"
    everybody = World(
        make_genesis((CHARTER + SUCCESSION.replace(', where = "who.agency == input.agency"', ""),
                      *TEXTS[1:]), **FIELDS)
    )  # fmt: skip
    succeed(everybody, "audit", "treasury")
    for decision, which in (
        (name(everybody, "audit", None), "agency"),
        (name(everybody, "audit", "registry"), "agency"),
        (accept(everybody, "audit", "registry"), "agency"),
        (name(everybody, "registry", "audit"), "successor"),
        (accept(everybody, "registry", "audit"), "predecessor"),
        (world.do("admin", "charter.suspend_agency", "audit"), "agency"),
        (world.do("admin", "charter.reinstate_agency", "audit"), "agency"),
        (world.do("admin", "charter.add_principal", "audit", token("n"), "system", None, None),
         "agency"),
        (world.do("admin", "charter.place_hold", [["agency", ["audit"]]], ["all"], None, "A"),
         "targets"),
    ):  # fmt: skip
        assert refused(decision) == (Code.BAD_INPUT, [which, left])
    taken = world.do("admin", "charter.add_agency", "audit", "New", expects=[
        ("agency", ["audit"], 2)])  # fmt: skip
    assert taken.code == Code.NOT_UNIQUE


def test_two_that_name_each_other_make_no_cycle(world: World) -> None:
    assert name(world, "audit", "treasury").code == Code.APPLIED
    assert name(world, "treasury", "audit").code == Code.APPLIED
    assert accept(world, "treasury", "audit").code == Code.APPLIED
    decision = accept(world, "audit", "treasury")
    assert refused(decision) == (
        Code.BAD_INPUT, ["agency", "it left; treasury took its place"]
    )  # fmt: skip
    assert acted_for(world.do("auditor", *PAY)) == "treasury"
    assert acted_for(world.do("clerk", *PAY)) == "treasury"


def test_nobody_is_its_own_successor_and_nobody_unknown(world: World) -> None:
    decision = name(world, "audit", "audit")
    assert refused(decision) == (Code.BAD_INPUT, ["successor", "another agency"])
    decision = name(world, "audit", "nobody")
    assert refused(decision) == (Code.NOT_FOUND, ["successor", ["agency", ["nobody"]]])
    decision = world.do("admin", "charter.accept_succession", "treasury", "nobody")
    assert refused(decision) == (Code.NOT_FOUND, ["predecessor", ["agency", ["nobody"]]])


def test_who_was_not_named_or_not_any_more_cannot_accept(world: World) -> None:
    never = ["NOT_NAMED", "that agency does not name this one as its successor"]
    assert refused(accept(world, "treasury", "audit")) == (Code.REQUIREMENT, never)
    assert refused(accept(world, "treasury", "treasury")) == (Code.REQUIREMENT, never)
    assert name(world, "audit", "treasury").code == Code.APPLIED
    assert refused(accept(world, "registry", "audit")) == (Code.REQUIREMENT, never)
    again = name(world, "audit", "treasury")
    assert refused(again) == (Code.REQUIREMENT, ["UNCHANGED", "it is so already"])
    assert name(world, "audit", None).code == Code.APPLIED
    assert refused(accept(world, "treasury", "audit")) == (Code.REQUIREMENT, never)


def test_one_agency_alone_decides_nothing_for_another(world: World) -> None:
    assert refused(name(world, "audit", "treasury", "admin")) == (
        Code.NOT_AUTHORIZED, [["where"]]
    )  # fmt: skip
    assert name(world, "audit", "treasury").code == Code.APPLIED
    assert refused(accept(world, "treasury", "audit", "auditor")) == (
        Code.NOT_AUTHORIZED, [["where"]]
    )  # fmt: skip


def test_acceptance_is_of_the_facts_that_its_author_saw(world: World) -> None:
    assert name(world, "audit", "treasury").code == Code.APPLIED
    call = ("charter.accept_succession", "treasury", "audit")
    decision = world.do("admin", *call, expects=[("agency", ["treasury"], 1)])
    assert refused(decision) == (Code.STALE, [["agency", ["audit"]], 2, []])


def test_leaving_ends_neither_a_suspension_nor_a_hold(world: World) -> None:
    assert name(world, "audit", "treasury").code == Code.APPLIED
    hold = ("charter.place_hold", [["agency", ["audit"]]], ["all"], None, "Act")
    assert world.do("admin", *hold).code == Code.APPLIED
    decision = accept(world, "treasury", "audit")
    assert refused(decision) == (
        Code.REQUIREMENT, ["HELD", "a hold on that agency is not released"]
    )  # fmt: skip
    assert world.do("admin", "charter.suspend_agency", "audit").code == Code.APPLIED
    decision = accept(world, "treasury", "audit")
    assert (decision.code, decision.detail[0]) == (Code.REQUIREMENT, "SUSPENDED")


def test_an_agency_takes_the_place_of_sixteen_at_most() -> None:
    charter = CHARTER + SUCCESSION.replace(', where = "who.agency == input.agency"', "")
    world = World(make_genesis((charter, *TEXTS[1:]), **FIELDS))
    for each in SMALL[:16]:
        assert name(world, each, "treasury", "admin").code == Code.APPLIED
        assert accept(world, "treasury", each).code == Code.APPLIED
    assert name(world, SMALL[16], "treasury", "admin").code == Code.APPLIED
    decision = accept(world, "treasury", SMALL[16])
    assert (decision.code, decision.detail[0]) == (Code.REQUIREMENT, "LIMIT")
    assert agency(world, "treasury").value.predecessors == [*SMALL[:16]]


def test_standing_for_an_agency_is_agreed_by_both_leaves() -> None:
    leaves = {
        "a": Agency("a", "A", 0, 0, "b"),
        "b": Agency("b", "B", 0, 0, "c", ["a"]),
        "c": Agency("c", "C", 0, 0),
    }
    assert in_force(leaves["a"], leaves.__getitem__).name == "b"
    leaves["c"] = Agency("c", "C", 0, 0, "a", ["a", "b"])
    assert in_force(leaves["a"], leaves.__getitem__).name == "c"


def test_payment_of_an_entitlement_goes_on_after_a_succession() -> None:
    world = World(make_genesis((CHARTER + SUCCESSION, *TEXTS[1:]), **FIELDS))
    register(world, "ann")
    made = world.do("social", "benefits.grant", person("ann"), 400,
                    expects=[("person", person("ann"), 1), (*ent("ann"), 0)])  # fmt: skip
    opened = world.do("officer", "payments.open_payee", person("ann"))
    assert made.code == opened.code == Code.APPLIED
    succeed(world, "treasury", "audit")
    assert world.one(world.disburse("ann")).code == Code.APPLIED


# --- grants -----------------------------------------------------------------------------------


@pytest.fixture
def town() -> Town:
    """A network with grants in which every agency has an administrator."""
    admins = [
        RoleGiven(token(each), "charter.admin", NORTH)
        for each in ("registrar", "auditor", "social")
    ]
    charter = CHARTER + test_grants.GRANTS + SUCCESSION
    principals = test_grants.GENESIS.principals  # type: ignore[attr-defined]
    roles = (*test_grants.GENESIS.roles, *admins)  # type: ignore[attr-defined]
    genesis = make_genesis((charter, *TEXTS[1:]), principals=principals, roles=roles)
    return Town(genesis).entitle()


def test_what_an_agency_passed_on_its_successor_can_take_back(town: Town) -> None:
    grant = made(town.give(to=token("social")))
    succeed(town, "treasury", "audit")
    assert town.pay("social", grant).code == Code.APPLIED
    assert refused(town.revoke(grant, "treasury")) == (Code.NOT_AUTHORIZED, [["where"]])
    assert town.revoke(grant, "audit", "auditor").code == Code.APPLIED
    decision = town.pay("social", grant, period=24_313)
    assert refused(decision) == (Code.NOT_AUTHORIZED, [["grant", grant, "revoked"]])


def test_suspending_the_successor_ends_what_was_passed_on(town: Town) -> None:
    grant = made(town.give(to=token("social")))
    succeed(town, "treasury", "audit")
    assert town.do("auditor", "charter.suspend_agency", "audit").code == Code.APPLIED
    decision = town.pay("social", grant)
    assert refused(decision) == (Code.NOT_AUTHORIZED, [["grant", grant, "suspended"]])


def test_post_that_holds_a_grant_goes_on_in_the_successor(town: Town) -> None:
    grant = made(town.give(post=("services", "benefits.officer")))
    succeed(town, "services", "audit")
    assert town.pay("social", grant).code == Code.APPLIED


def test_office_goes_on_under_the_successor_and_not_under_the_old_name(town: Town) -> None:
    succeed(town, "treasury", "audit")
    made(town.give(to=token("social"), agency="audit", author="auditor"))
    left = "it left; audit took its place"
    assert refused(town.give(agency="treasury")) == (Code.BAD_INPUT, ["agency", left])
    decision = town.give(post=("treasury", "x"), agency="audit", author="auditor")
    assert refused(decision) == (Code.BAD_INPUT, ["to_agency", left])
