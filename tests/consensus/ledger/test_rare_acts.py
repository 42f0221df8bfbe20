"""Acts of the kernel at bounds and in states that programmes seldom reach."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from consensus import codec
from consensus.codec import Value
from consensus.errors import DecodeError
from consensus.ledger import disclosures, expects, fixed_policies, membership
from consensus.ledger.authority import Standing
from consensus.ledger.codes import Code, Refused
from consensus.ledger.evidence import Written
from consensus.ledger.governing import Governing
from consensus.ledger.kernel import committee, disclosing, proposals, reversal, rulesets
from consensus.ledger.kernel.quorum import roles_of
from consensus.ledger.layout import ACTIVE, ADOPTION, EXECUTOR_HEAD, Agency
from consensus.ledger.model import EvaluationError, Expression, Leaf
from consensus.ledger.readable import Readable
from consensus.ledger.rules import compile_rulebook, encode_definition, load_toml
from consensus.ledger.rules.emergency import _both
from consensus.ledger.rules.indexes import check_order
from consensus.ledger.rules.schema import Place, Report, Skip
from consensus.ledger.seats import ADMIT
from consensus.ledger.types import ID_BYTES_MAX, Type
from consensus.ledger.view import View
from tests.consensus.ledger import members
from tests.consensus.ledger import test_disclosing as disclosed
from tests.consensus.ledger import test_reversal_approvals as reversals
from tests.consensus.ledger import test_versions as versions
from tests.consensus.ledger.desk import Desk
from tests.consensus.ledger.governed import NOTICE_MS, Governed
from tests.consensus.ledger.members import Members
from tests.consensus.ledger.test_executor import chain
from tests.consensus.ledger.test_holds import place
from tests.consensus.ledger.test_rare_inputs import viewed
from tests.consensus.ledger.test_reversal import REVERSE, _genesis, lend
from tests.consensus.ledger.test_rule_changes import TAX, benefits
from tests.consensus.ledger.world import (
    IDENTITY,
    PAYMENTS,
    TEXTS,
    World,
    make_genesis,
    person,
    populated,
    public_key,
    register,
)

DAY_MS = 86_400_000


def said(text: str, value: Any, *reads: tuple[str, ...]) -> Expression:
    """A condition that is ``value``; an exception is raised."""

    def evaluate(_: Any) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    return Expression(text, Type("bool"), False, reads, evaluate)


# --- rule sets and executors --------------------------------------------------------------------


def test_an_executor_comes_at_most_two_years_ahead() -> None:
    world = versions.governed()
    far = versions.activate(world, 2, world.now_ms + 3 * 366 * DAY_MS, "chief_r", "chief_s")
    assert far.detail == ["TOO_FAR", "at most two years ahead"]


def test_a_network_has_so_many_domains(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Governed()
    assert world.propose(TAX).code == Code.APPLIED
    monkeypatch.setattr(rulesets, "RULE_SETS_MAX", len(world.numbers()))
    full = world.activate("tax", 1)
    assert (full.code, full.detail) == (Code.LIMIT, "domains")
    monkeypatch.setattr(rulesets, "RULE_SETS_MAX", len(world.numbers()) + 1)
    assert world.activate("tax", 1).code == Code.APPLIED


def test_a_rule_set_that_comes_earlier_than_one_that_is_to_come_fits_both_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is compiled with the others for both; that it may follow is asked for its own alone."""
    asked: list[int] = []
    follows = rulesets._check_following

    def counted(acting: Any, book: Any, domain: str) -> None:
        asked.append(book.rule_sets["benefits"].number)
        follows(acting, book, domain)

    monkeypatch.setattr(rulesets, "_check_following", counted)
    world = Governed()
    world.propose(benefits(2))
    world.propose(TAX)
    late_ms = world.now_ms + 1000 + NOTICE_MS + 50_000
    assert world.activate("benefits", 2, late_ms).code == Code.APPLIED
    soon_ms = world.now_ms + 1000 + NOTICE_MS
    assert soon_ms < late_ms
    asked.clear()
    assert world.activate("tax", 1, soon_ms).code == Code.APPLIED
    assert asked == [1]
    for time_ms, numbers in ((soon_ms, (1, 1)), (late_ms, (2, 1))):
        world.wait_until(time_ms)
        world.run()
        assert (world.numbers()["benefits"], world.numbers()["tax"]) == numbers


def test_a_rule_set_is_proposed_and_activated_in_one_transaction() -> None:
    world = Governed()
    data = encode_definition(load_toml(TAX))
    both = world.draft(
        "chief_t",
        ("charter.propose_rules", "tax", 1, data),
        ("charter.activate_rules", "tax", 1, world.now_ms + 1000 + NOTICE_MS),
        expects=[("rules", ["tax"], 0), ("rules", ["tax", 1, ADOPTION], 0)],
    )
    decision = world.one(both)
    assert decision.code == Code.APPLIED, (decision.code, decision.detail)
    world.now_ms += NOTICE_MS
    world.run()
    assert world.numbers()["tax"] == 1
    assert EXECUTOR_HEAD not in world.numbers()


# --- the committee ------------------------------------------------------------------------------


def test_so_many_people_come_with_a_validator(monkeypatch: pytest.MonkeyPatch) -> None:
    row = members.validator("health")
    file = members.member_file(b"N" * 32, row, people=("one", "two"))
    assert len(committee.verify_file(file, b"N" * 32).people) == 2
    monkeypatch.setattr(committee, "PEOPLE_MAX", 1)
    with pytest.raises(DecodeError, match="1 people at most"):
        committee.verify_file(file, b"N" * 32)


def test_an_agency_whose_place_was_taken_is_not_admitted() -> None:
    """It has no say; whoever took its place may be admitted."""
    there = {
        "health": Agency("health", "Health", ACTIVE, 0, "audit", None),
        "audit": Agency("audit", "Audit", ACTIVE, 0, None, ["health"]),
        "tax": Agency("tax", "Tax", ACTIVE, 0, "post", None),
        "post": Agency("post", "Post", ACTIVE, 0, None, None),
    }

    def single(space: str, components: list[Value]) -> Any:
        assert space == "agency"
        found = there.get(str(components[0]))
        return None if found is None else SimpleNamespace(value=found)

    view: Any = SimpleNamespace(single=single)
    left = ("LEFT", "health left; audit took its place")
    assert membership._agency_fault(view, [[ADMIT, "health", None]]) == left
    for name in ("audit", "tax", "nobody"):
        assert membership._agency_fault(view, [[ADMIT, name, None]]) is None


def test_somebody_who_is_there_already_does_not_come_with_a_validator() -> None:
    world = Members()
    taken = world.agree(world.joining("health", "chief_a"))
    assert (taken.code, taken.detail[0][0]) == (Code.NOT_UNIQUE, "principal")
    assert world.pass_notice().next_committee is None


def test_the_nodes_of_a_later_epoch_are_those_of_its_seats() -> None:
    world = World()
    founded = world.genesis.committee
    seats: Any = SimpleNamespace(pairs=[("audit", b"a" * 32), ("health", b"h" * 32)])
    asked = []

    def now(view: Any) -> Any:
        asked.append(view)
        return seats

    given: list[Any] = [founded, 0, b"C" * 32, world.ledger.compiled, 1]
    nodes = {"audit": b"first"}
    later = Governing(*given, nodes, now)
    view: Any = object()
    for _ in range(2):
        assert later.nodes(view) == {"audit": b"a" * 32, "health": b"h" * 32}
    assert asked == [view, view]  # that they were asked for is a read of each transaction
    assert Governing(*given, nodes, None).nodes(view) == nodes
    assert Governing(*given, None, now).nodes(view) is None


# --- proposals, disclosures, facts --------------------------------------------------------------


def test_a_proposal_has_so_many_approvals(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    proposed = desk.stored("clerk", ("payments.transfer", "a", "b", 7))
    monkeypatch.setattr(proposals, "APPROVALS_MAX", 0)
    [full] = desk.approve("officer", proposed).decisions
    assert (full.code, full.detail) == (Code.LIMIT, "approvals")


def test_a_disclosure_concerns_so_many_people(monkeypatch: pytest.MonkeyPatch) -> None:
    made = disclosed.world()
    monkeypatch.setattr(disclosures, "SUBJECTS_MAX", 0)
    full = disclosed.disclose(made)
    assert (full.code, full.detail) == (Code.LIMIT, "subjects")


def test_a_field_that_a_version_lacks_is_not_disclosed_of_it() -> None:
    world = populated()
    view = viewed(world)
    field = "fields.photo = { type = 'digest', optional = true, since = 2 }\nstatus = "
    later = IDENTITY.replace("number = 1", "number = 2").replace("status = ", field, 1)
    kind = compile_rulebook([load_toml(later)]).kinds["person"]
    record = view.record(kind, person("ann"))
    assert record is not None
    assert disclosing._leaves(kind, record, record.version, ["region"]) == ["region"]
    with pytest.raises(Refused) as caught:
        disclosing._leaves(kind, record, record.version, ["photo"])
    assert caught.value.code == Code.BAD_INPUT
    assert caught.value.detail == ["fields", f"version {record.version} has no field photo"]


def test_facts_are_followed_to_so_many_records(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    chain(world, 4)
    monkeypatch.setattr(expects, "BASIS_READS_MAX", 1)
    assert world.do("social", "benefits.rely", ["l1"]).code == Code.APPLIED
    far = world.do("social", "benefits.rely", ["l3"])
    assert (far.code, far.detail) == (Code.BASIS_MOVED, "limit")


# --- reversals ----------------------------------------------------------------------------------


def test_a_reversal_asks_for_so_many_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(reversals.genesis())
    register(world, "ann")
    lent = world.do(
        "maker", "loans.lend", "l", person("ann"), "north", 10, expects=[("loan", ["l"], 0)]
    )
    changed = world.do("clerk", "loans.change", ["l"], 20, expects=[("loan", ["l"], 1)])
    assert (lent.code, changed.code) == (Code.APPLIED, Code.APPLIED)
    monkeypatch.setattr(reversal, "POLICIES_MAX", 0)
    full = world.reverse("chief", changed)
    assert (full.code, full.detail) == (Code.LIMIT, "policies")


def test_what_no_rule_set_knows_any_more_is_not_given_back() -> None:
    """Kinds, families and records are never dropped: evidence of any is evidence of nothing."""
    world = World(_genesis(REVERSE))  # type: ignore[arg-type]
    lend(world)
    view = viewed(world)
    for name in (["nothing", 1], ["loan", "nobody"]):
        with pytest.raises(Refused) as caught:
            reversal._Restored(view, Written("record", name, 0, 1, ()), [])
        assert caught.value.code == Code.NOT_FOUND
        assert caught.value.detail == ["evidence", [name[0], name[1:]]]
    amounts = reversal._Amounts(view, SimpleNamespace(moves=dict, terms=[]))  # type: ignore[arg-type]
    assert amounts._family(["wallet", "ann"]).currency == "USD"
    with pytest.raises(Refused) as caught:
        amounts._family(["nothing", "ann"])
    assert caught.value.detail == ["evidence", ["account", ["nothing", "ann"]]]


# --- what a record's hold leaves ----------------------------------------------------------------


def test_a_record_that_is_merely_held_overwrites_nothing() -> None:
    world = populated()
    view: View = viewed(world)
    record = view.record(view.book.kinds["person"], person("ann"))
    assert record is not None
    draft = view.draft(record)
    draft.held = 1
    assert draft.overwritten() == []
    assert [draft.field_version_before("name"), draft.field_version("name")] == [1, 1]
    draft.write("name", "Anna")
    assert [draft.field_version_before("name"), draft.field_version("name")] == [1, 2]
    assert [codec.parse(each.value_cbor) for each in draft.overwritten()] == ["Ann"]


# --- policies -----------------------------------------------------------------------------------


def test_everybody_who_is_asked_in_an_act_has_a_say() -> None:
    world = Desk()
    book = world.ledger.rules(world.state, world.now_ms).book
    action = book.action("payments", "seed_purse")
    assert action is not None
    roles = ["identity.officer", "payments.clerk", "payments.officer"]
    assert roles_of(action) == roles
    simple = book.action("payments", "transfer")
    assert simple is not None
    assert isinstance(simple.approvals, Leaf)
    assert roles_of(simple) == ["payments.clerk", "payments.officer"]
    nobody = replace(simple.approvals, role="")
    assert roles_of(replace(simple, approvals=nobody)) == ["payments.clerk"]
    assert roles_of(replace(simple, approvals=None)) == ["payments.clerk"]


def test_what_is_no_name_names_nobody_in_a_policy_that_is_kept() -> None:
    assert fixed_policies._value(said("x", "ann"), {}) == "ann"
    assert fixed_policies._value(said("x", EvaluationError("none")), {}) is None
    assert fixed_policies._value(said("x", "x" * ID_BYTES_MAX), {}) is None


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [(True, True, True), (True, False, False), (False, True, False), (None, True, False)],
)
def test_an_emergency_form_asks_for_both_conditions(one: Any, other: Any, both: bool) -> None:
    found = _both(said("a", one, ("a",), ("c",)), said("b", other, ("b",), ("a",)))
    assert found.evaluate({}) is both
    assert found.source == "(a) && (b)"
    assert found.reads == (("a",), ("c",), ("b",))


def test_what_has_no_order_orders_no_list() -> None:
    field = "[kinds.person]\nfields.others = { type = 'list:int', optional = true }\n"
    text = IDENTITY.replace("[kinds.person]\n", field)
    kind = compile_rulebook([load_toml(text)]).kinds["person"]
    report = Report("", {})
    check_order(kind, "region", Place(report))
    for by, why in (("others", "is list:int, which has no order"), ("nothing", "has no field")):
        with pytest.raises(Skip):
            check_order(kind, by, Place(report))
        assert why in report.problems[-1].message


# --- who reads ----------------------------------------------------------------------------------


def test_a_citizen_who_is_nobody_on_record_reads_nothing_by_default() -> None:
    world = populated()
    view = viewed(world)
    standing = Standing(view, public_key("ann's"), world.now_ms)
    assert Readable(view, standing).may_read("person", person("ann"))
    standing.principal = standing.principal._replace(person=None)
    assert not Readable(view, standing).may_read("person", person("ann"))


@pytest.mark.parametrize(
    ("target", "may"),
    [
        (["agency", ["audit"]], True),
        (["domain", ["payments"]], True),
        (["account", ["purse", "a"]], True),
        (["account", ["box"]], False),
    ],
)
def test_a_hold_is_read_by_who_reads_all_that_is_like_its_target(
    target: list[Value], may: bool
) -> None:
    """Everything of an account family that has no read rules, and of what is no record at all."""
    box = '[accounts.box]\ncurrency = "USD"\nread = [ { role = "payments.officer" } ]\n'
    text = PAYMENTS.replace("[accounts.purse]", f"{box}\n[accounts.purse]")
    world = World(make_genesis((*TEXTS[:3], text)))
    held = place(world, str(target[0]), target[1], "edit")
    decision = world.do("clerk", "payments.check_purse", "a", 1000, expects=[("hold", [held], 1)])
    assert decision.code == (Code.APPLIED if may else Code.NOT_AUTHORIZED)
