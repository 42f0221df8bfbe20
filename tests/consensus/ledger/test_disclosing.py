"""The act of disclosing: who may, of what, to whom, until when; and where it is listed."""

# ruff: noqa: E501  rule sets read best with one construct a line

from __future__ import annotations

from typing import Any

import pytest

from consensus import codec
from consensus.codec import Value
from consensus.errors import RulesError
from consensus.genesis import Principal, RoleGiven
from consensus.hashing import ZERO, context
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.rules import compile_rulebook, load_toml
from consensus.state.record import decode_single
from tests.consensus.ledger.reader import Recorded, Witness
from tests.consensus.ledger.world import (
    BENEFITS,
    CHARTER,
    IDENTITY,
    PAYMENTS,
    START_MS,
    World,
    make_genesis,
    person,
    public_key,
    register,
    token,
)

DISCLOSE = """
[actions.disclose]
kernel = true
actor = { self = "who.principal" }
"""
CASES = """\
domain = "cases"
number = 1
legal_basis = "Cases Act"

[kinds.case]
fields.holder = { type = "ref", kind = "person" }
fields.lines  = { type = "list:int" }
read  = [ { role = "cases.officer" }, { self = "holder" } ]
class = "restricted"

[kinds.rota]
fields.people = { type = "list:ref:person" }

[actions.open]
actor  = { role = "cases.officer" }
inputs = { name = "text", holder = "ref:person" }
create = [ { kind = "case", id = ["{input.name}"], set = { holder = "input.holder", lines = "[1]" } } ]

[actions.plan]
actor  = { role = "cases.officer" }
inputs = { name = "text", people = "list:ref:person" }
create = [ { kind = "rota", id = ["{input.name}"], set = { people = "input.people" } } ]
"""
HOUR_MS = 3_600_000
CASE: dict[str, Any] = {"kind": "case", "id_": ["c1"], "fields": ["lines"]}


def world(charter: str = DISCLOSE, **changes: Any) -> World:
    """A network whose charter lets disclose, with two people; Ann has a case."""
    base = make_genesis()
    genesis = make_genesis(
        (CHARTER + charter, IDENTITY, BENEFITS, PAYMENTS, CASES),
        principals=(
            *base.principals,
            Principal(token("cora"), "services", 0, token("subject cora")),
        ),
        keys=(*base.keys, (public_key("cora"), token("cora"))),
        **{"roles": (*base.roles, RoleGiven(token("cora"), "cases.officer", ())), **changes},
    )
    made = World(genesis)
    for name in ("ann", "bob"):
        register(made, name)
    opened = made.do("cora", "cases.open", "c1", person("ann"), expects=[("case", ["c1"], 0)])
    assert opened.code == Code.APPLIED, opened.detail
    return made


def disclose(
    made: World,
    author: str = "registrar",
    *,
    kind: str = "person",
    id_: list[Value] | None = None,
    version: int = 0,
    fields: list[str] | None = None,
    audience: list[Value] | None = None,
    purpose: str = "a court asks",
    legal: str = "Courts Act s 4",
    until: int | None = None,
) -> Decision:
    """Disclose the region of Ann to a court, unless said otherwise."""
    return made.do(
        author,
        "charter.disclose",
        kind,
        person("ann") if id_ is None else id_,
        version,
        ["region"] if fields is None else fields,
        ["party", "District Court"] if audience is None else audience,
        purpose,
        legal,
        made.now_ms + HOUR_MS if until is None else until,
    )


def leaf(made: World, space: str, *components: Value) -> list[Value] | None:
    """Return the value of a single leaf."""
    row = made.state.get(made.ledger.paths(space, list(components)))
    if row is None or row.vh == ZERO:
        return None
    value: list[Value] = codec.parse(decode_single(row.value)[2])
    return value


def id_of(decision: Decision) -> bytes:
    """Return the id of the disclosure that the first call of a transaction makes."""
    return context("disclosure id")(decision.header.txid + bytes(4))


def listed(made: World, index: str, value: Value) -> list[bytes]:
    """Return the disclosures that an index lists."""
    size = leaf(made, "index", f"disclosure.{index}", value)
    count = 0 if size is None else size[0]
    rows = [leaf(made, "index", f"disclosure.{index}", value, at) for at in range(count)]
    return [row[0][0] for row in rows if row is not None]


# --- what is written ---------------------------------------------------------------------------


def test_a_disclosure_names_record_version_fields_audience_purpose_and_end() -> None:
    made = world()
    until = made.now_ms + HOUR_MS
    done = disclose(made, fields=["address", "region"], until=until)
    assert done.code == Code.APPLIED, done.detail
    assert leaf(made, "disclosure", id_of(done)) == [
        id_of(done),
        "person",
        person("ann"),
        1,
        ["address", "region"],
        ["party", "District Court"],
        "a court asks",
        "Courts Act s 4",
        done.header.time_ms,
        until,
        token("registrar"),
        "registry",
    ]


def test_it_is_listed_by_record_by_subject_by_audience_and_by_author() -> None:
    made = world()
    first = id_of(disclose(made))
    second = id_of(disclose(made, "cora", kind="case", id_=["c1"], fields=["lines"]))
    disclose(made, id_=person("bob"))
    assert listed(made, "record", ["person", token("ann")]) == [first]
    assert listed(made, "record", ["case", "c1"]) == [second]
    assert listed(made, "subject", person("ann")) == [first, second]
    assert listed(made, "author", [token("cora")]) == [second]
    assert len(listed(made, "audience", ["party", "District Court"])) == 3


def test_everybody_whom_a_field_of_people_names_is_a_subject() -> None:
    made = world()
    people = [person("bob"), person("ann")]
    done = made.do("cora", "cases.plan", "r", people, expects=[("rota", ["r"], 0)])
    assert done.code == Code.APPLIED, done.detail
    shown = id_of(disclose(made, "cora", kind="rota", id_=["r"], fields=["people"]))
    assert listed(made, "subject", person("ann")) == [shown]
    assert listed(made, "subject", person("bob")) == [shown]


def test_the_leaf_does_not_say_whom_the_record_concerns() -> None:
    made = world()
    done = disclose(made, "cora", kind="case", id_=["c1"], fields=["lines"])
    row = made.state.get(made.ledger.paths("disclosure", [id_of(done)]))
    assert row is not None
    assert token("ann") not in row.value


def test_an_earlier_version_may_be_named_and_the_present_one_is_resolved() -> None:
    made = world()
    made.do(
        "registrar",
        "identity.rename",
        person("ann"),
        "Anna",
        expects=[("person", person("ann"), 1)],
    )
    now = leaf(made, "disclosure", id_of(disclose(made, fields=["name"])))
    then = leaf(made, "disclosure", id_of(disclose(made, fields=["name"], version=1)))
    assert now is not None
    assert then is not None
    assert (now[3], then[3]) == (2, 1)


def test_two_calls_of_one_transaction_make_two_disclosures() -> None:
    made = world()
    words = [["party", "Court"], "why", "law", made.now_ms + HOUR_MS]
    calls = [
        ("charter.disclose", "person", person(name), 0, ["region"], *words)
        for name in ("ann", "bob")
    ]
    done = made.one(made.draft("registrar", *calls))
    assert done.code == Code.APPLIED
    assert len(listed(made, "author", [token("registrar")])) == 2


# --- who may -----------------------------------------------------------------------------------


def test_a_member_discloses_by_default_and_a_citizen_the_own_record_alone() -> None:
    made = world()
    assert disclose(made, "clerk").code == Code.APPLIED
    assert disclose(made, "ann's").code == Code.APPLIED
    refused = disclose(made, "ann's", id_=person("bob"))
    assert (refused.code, refused.detail) == (
        Code.NOT_AUTHORIZED,
        [["read", ["person", person("bob")]]],
    )


def test_read_rules_say_who_discloses_a_kind() -> None:
    made = world()
    assert disclose(made, "cora", **CASE).code == Code.APPLIED
    assert disclose(made, "ann's", **CASE).code == Code.APPLIED
    for author in ("registrar", "clerk", "admin"):
        refused = disclose(made, author, **CASE)
        assert (refused.code, refused.detail) == (Code.NOT_AUTHORIZED, [["read", ["case", ["c1"]]]])


def test_who_may_not_read_a_restricted_kind_does_not_learn_what_there_is() -> None:
    made = world()
    there = disclose(made, "clerk", kind="case", id_=["c1"], fields=["nothing"])
    absent = disclose(made, "clerk", kind="case", id_=["c2"], fields=["lines"])
    assert there.code == absent.code == Code.NOT_AUTHORIZED
    assert there.detail == [["read", ["case", ["c1"]]]]
    assert absent.detail == [["read", ["case", ["c2"]]]]


def test_the_charter_may_ask_for_a_role() -> None:
    made = world(DISCLOSE.replace('self = "who.principal"', 'role = "identity.officer"'))
    assert disclose(made, "registrar").code == Code.APPLIED
    refused = disclose(made, "clerk")
    assert (refused.code, refused.detail) == (
        Code.NOT_AUTHORIZED,
        [["role", "identity.officer", "missing"]],
    )


def test_the_charter_may_keep_a_kind_from_being_disclosed() -> None:
    made = world(
        DISCLOSE
        + """require = [ { code = "NEVER", that = "!(input.kind in ['case'])", say = "never" } ]\n"""
    )
    assert disclose(made).code == Code.APPLIED
    refused = disclose(made, "cora", **CASE)
    assert (refused.code, refused.detail) == (Code.REQUIREMENT, ["NEVER", "never"])


def test_whoever_lost_the_role_that_let_read_discloses_no_more() -> None:
    made = world(
        roles=(
            *make_genesis().roles,
            RoleGiven(token("cora"), "cases.officer", (), 0, START_MS + HOUR_MS),
        )
    )
    assert disclose(made, "cora", **CASE).code == Code.APPLIED
    made.now_ms += HOUR_MS
    assert disclose(made, "cora", **CASE).code == Code.NOT_AUTHORIZED


# --- what is refused ---------------------------------------------------------------------------

BAD = [
    ({"kind": "nothing"}, Code.BAD_INPUT, ["kind", "there is no such kind of record"]),
    ({"id_": person("eve")}, Code.NOT_FOUND, ["id", ["person", person("eve")]]),
    ({"version": 2}, Code.BAD_INPUT, ["version", "the record is at version 1"]),
    ({"version": -1}, Code.BAD_INPUT, ["version", "the record is at version 1"]),
    ({"fields": []}, Code.BAD_INPUT, ["fields", "one or more, ascending, each once"]),
    (
        {"fields": ["region", "name"]},
        Code.BAD_INPUT,
        ["fields", "one or more, ascending, each once"],
    ),
    ({"fields": ["name", "name"]}, Code.BAD_INPUT, ["fields", "one or more, ascending, each once"]),
    ({"fields": ["age"]}, Code.BAD_INPUT, ["fields", "person has no field age"]),
    ({"fields": ["id"]}, Code.BAD_INPUT, ["fields", "person has no field id"]),
    ({"fields": ["~holds"]}, Code.BAD_INPUT, ["fields", "holds are not disclosed"]),
    (
        {"fields": ["town"]},
        Code.BAD_INPUT,
        ["fields", "town is shown with all of its group address: name that"],
    ),
    ({"purpose": ""}, Code.BAD_INPUT, ["purpose", "1 to 1000 bytes"]),
    ({"purpose": "é" * 501}, Code.BAD_INPUT, ["purpose", "1 to 1000 bytes"]),
    ({"legal": ""}, Code.BAD_INPUT, ["legal", "1 to 1000 bytes"]),
    (
        {"audience": ["principal", token("eve")]},
        Code.NOT_FOUND,
        ["audience", ["principal", person("eve")]],
    ),
    ({"audience": ["agency", "police"]}, Code.NOT_FOUND, ["audience", ["agency", ["police"]]]),
    *(
        (
            {"audience": audience},
            Code.BAD_INPUT,
            ["audience", "[one of principal, agency, party, who]"],
        )
        for audience in (
            ["party", " "],
            ["party"],
            ["party", "a", "b"],
            ["party", 7],
            ["agency", token("x")],
            ["principal", "ann"],
            ["world", "all"],
        )
    ),
    ({"until": 1000}, Code.BAD_INPUT, ["until", "not in the past"]),
]


@pytest.mark.parametrize(("changes", "code", "detail"), BAD)
def test_what_cannot_be_disclosed_is_refused_with_its_reason(
    changes: dict[str, Value], code: Code, detail: Value
) -> None:
    made = world()
    refused = disclose(made, **changes)
    assert (refused.code, refused.detail) == (code, detail)
    assert listed(made, "author", [token("registrar")]) == []


def test_a_disclosure_lasts_no_longer_than_the_charter_lets_it() -> None:
    year = 365 * 24 * HOUR_MS
    made = world()
    start = made.now_ms + 1000  # the time of the next block
    assert disclose(made, until=start + year).code == Code.APPLIED
    late = disclose(made, until=start + year + HOUR_MS)
    assert (late.code, late.detail) == (Code.BAD_INPUT, ["until", "at most 8760 hours ahead"])
    param = 'disclosure_hours_max = { by = "now", type = "int", values = [ { from = "2026-01", value = 2 } ] }'
    texts = (
        CHARTER.replace("[params]\n", f"[params]\n{param}\n") + DISCLOSE,
        IDENTITY,
        BENEFITS,
        PAYMENTS,
    )
    short = World(make_genesis(texts))
    register(short, "ann")
    late = disclose(short, until=short.now_ms + 3 * HOUR_MS)
    assert late.detail == ["until", "at most 2 hours ahead"]


def test_what_the_same_transaction_writes_is_not_disclosed() -> None:
    made = world()
    words = [["party", "Court"], "why", "law", made.now_ms + HOUR_MS]
    both = made.draft(
        "registrar",
        ("identity.rename", person("ann"), "Anna"),
        ("charter.disclose", "person", person("ann"), 0, ["name"], *words),
        expects=[("person", person("ann"), 1)],
    )
    done = made.one(both)
    assert (done.code, done.detail) == (
        Code.REQUIREMENT,
        ["WRITTEN", "the same transaction writes the record"],
    )
    assert made.record("person", person("ann")).version == 1


def test_what_the_same_transaction_makes_is_not_there_yet() -> None:
    made = world()
    words = [["party", "Court"], "why", "law", made.now_ms + HOUR_MS]
    both = made.draft(
        "registrar",
        ("identity.register", token("eve"), "Eve", "north"),
        ("charter.disclose", "person", person("eve"), 0, ["name"], *words),
        expects=[("person", person("eve"), 0)],
    )
    assert made.one(both).code == Code.NOT_FOUND


def test_no_kind_of_record_is_called_disclosure() -> None:
    text = CASES.replace("kinds.rota", "kinds.disclosure").replace('"rota"', '"disclosure"')
    with pytest.raises(RulesError, match="disclosure"):
        compile_rulebook([load_toml(each) for each in (CHARTER, IDENTITY, text)])


def test_whoever_has_what_a_disclosure_read_can_judge_it_again() -> None:
    made = world()
    words = [["party", "Court"], "why", "law", made.now_ms + HOUR_MS]
    calls = [
        ("case", ["c1"], 0, ["lines"]),
        ("case", ["c2"], 0, ["lines"]),
        ("person", person("ann"), 1, ["name"]),
    ]
    drafts = [
        made.draft(author, ("charter.disclose", *call, *words))
        for author in ("cora", "ann's", "clerk")
        for call in calls
    ]
    context = BlockContext(1, made.height + 1, made.now_ms + 1000)
    recorded = Recorded(made.state)
    first = BlockRun(made.ledger, recorded, context, drafts).finish()
    again = BlockRun(made.ledger, Witness(recorded.asked), context, drafts).finish()
    assert [each.code for each in first.decisions].count(Code.APPLIED) == 5
    assert (again.results_root, again.writes) == (first.results_root, first.writes)
    named = set[bytes]()
    for decision in first.decisions:
        full, moved = codec.parse(decision.leaves["reads"])
        assert moved == b""
        named |= {full[at : at + 32] for at in range(0, len(full), 64)}
    paths = made.ledger.paths
    attested = {paths.pool, paths.rules, paths.executor, paths.committee}
    attested |= {paths("sequence", [public_key(name)]) for name in ("cora", "ann's", "clerk")}
    others = {
        kh
        for each in ("identity", "benefits", "payments")
        for kh in (paths("rules", [each]), paths("rules", [each, 1]))
    }
    assert set(recorded.asked) - named <= attested | others
    assert {paths("rules", ["cases"]), paths("record", ["case", "c1"])} <= named
