"""Approval policies as rule authors write them: forms, faults with their lines, notes, identity."""

# ruff: noqa: E501  policies read best in one line

from __future__ import annotations

from pathlib import Path

import cbor2
import pytest
from pycddl import Schema, ValidationError

from consensus.errors import DecodeError, RulesError
from consensus.ledger.model import Branch, Leaf, Policy
from consensus.ledger.rules import (
    Note,
    Problem,
    check_text,
    compile_rulebook,
    decode_definition,
    describe,
    encode_definition,
    load_toml,
)
from tests.consensus.ledger.committee_room import DESK
from tests.consensus.ledger.rule_texts import line_of
from tests.consensus.ledger.world import CHARTER

GRAMMAR = (Path(__file__).parents[3] / "docs/protocol/rules.cddl").read_text("utf-8")
SCHEMA = Schema(GRAMMAR)
LEAF = Schema(f"start = policy-leaf\n{GRAMMAR}")
BRANCH = Schema(f"start = branch-1-plain\n{GRAMMAR}")
EVERYTHING = '{ of = 2, distinct = "person", when = "file.amount > 1", among = [ { role = "a.b", where = "who.agency == \'x\'", count = 3, distinct = "agency", not = ["author", "file.by.created"], not_agency = ["author", "file.agency"], when = "twice > 2" }, { any = [ { role = "c.d", author = true } ] }, { all = [ { role = "e.f" } ] } ] }'


def text_with(policy: str) -> str:
    return DESK.format(policy=policy, actor="desk.clerk")


def compiled(policy: str) -> Policy | None:
    action = compile_rulebook([load_toml(text_with(policy))]).action("desk", "send")
    assert action is not None
    return action.approvals


def told(policy: str) -> list[Problem | Note]:
    """What is said of the line of the policy."""
    text = text_with(policy)
    line = line_of(text, "approvals = ")
    return [each for each in check_text(text, "desk.toml") if each.line == line]


# --- forms ----------------------------------------------------------------------------------------


def test_policy_becomes_leaves_and_branches() -> None:
    policy = compiled(EVERYTHING)
    assert isinstance(policy, Branch)
    assert (policy.needed, policy.distinct) == (2, "person")
    first, second, third = policy.among
    assert isinstance(first, Leaf)
    assert (first.index, first.role, first.count, first.distinct) == (0, "a.b", 3, "agency")
    assert [each.source for each in first.not_paths] == ["file.by.created"]
    assert [each.source for each in first.not_agencies] == ["file.agency"]
    assert first.not_author_agency
    assert not first.author
    assert [what for _, what in first.scopes] == ["person", "agency"]
    assert isinstance(second, Branch)
    assert isinstance(third, Branch)
    assert (second.needed, third.needed) == (1, 0)
    (leaf,) = second.among
    assert isinstance(leaf, Leaf)
    assert leaf.author
    assert [what for _, what in leaf.scopes] == ["person"]


def test_action_without_policy_has_none() -> None:
    found = compile_rulebook([load_toml(text_with(EVERYTHING))]).action("desk", "open_file")
    assert found is not None
    assert found.approvals is None


@pytest.mark.parametrize(
    "policy", [EVERYTHING, '{ role = "a.b" }', '{ all = [ { role = "a.b" } ] }']
)
def test_both_forms_carry_the_same(policy: str) -> None:
    definition = load_toml(text_with(policy))
    data = encode_definition(definition)
    SCHEMA.validate_cbor(data)
    assert decode_definition(data) == definition
    assert encode_definition(decode_definition(data)) == data


def packed(policy: str) -> object:
    actions = dict(cbor2.loads(encode_definition(load_toml(text_with(policy))))[1][8])
    return dict(actions["send"][-1])["approvals"]


def test_canonical_form_is_as_documented() -> None:
    assert packed('{ role = "a.b" }') == [0, ["a.b"]]
    assert packed('{ role = "a.b", count = 1, distinct = "", author = false }') == [0, ["a.b"]]
    assert packed('{ count = 2, role = "a.b", not = ["author"] }') == [
        0, ["a.b", [["count", 2], ["not", ["author"]]]],
    ]  # fmt: skip
    assert packed('{ any = [ { role = "a.b" } ], when = "true" }') == [
        1, [1, [[0, ["a.b"]]], [["when", "true"]]],
    ]  # fmt: skip
    assert packed('{ of = 1, among = [ { role = "a.b" } ] }') == [1, [1, [[0, ["a.b"]]]]]
    assert packed('{ all = [ { role = "a.b" } ] }') == [1, [0, [[0, ["a.b"]]]]]


def with_packed(value: object) -> bytes:
    whole = cbor2.loads(encode_definition(load_toml(text_with('{ role = "a.b" }'))))
    for name, action in whole[1][8]:
        if name == "send":
            action[-1] = [[key, value if key == "approvals" else each] for key, each in action[-1]]
    return cbor2.dumps(whole, canonical=True)


DEEP: list[object] = [0, ["a.b"]]
for _ in range(4):
    DEEP = [1, [0, [DEEP]]]


@pytest.mark.parametrize(
    "value",
    [
        None, [], "none", [2, ["a.b"]], [0, []], [0, "a.b"], [0, ["a.b", []]], [1, [33, []]],
        [0, ["a.b", [["count", 1]]]], [0, ["a.b", [["count", 0]]]], [0, ["a.b", [["count", 65]]]],
        [0, ["a.b", [["when", "true"], ["count", 2]]]], [0, ["a.b", [["author", False]]]],
        [0, ["a.b", [["selves", "x"]]]], [0, ["", [["self", ""]]]], [1, [0, [[0, ["a.b"]]] * 33]], DEEP,
    ],
    ids=repr,
)  # fmt: skip
def test_bytes_of_another_form_are_refused(value: object) -> None:
    with pytest.raises(DecodeError):
        decode_definition(with_packed(value))


def test_branch_of_nobody_is_refused_in_bytes_too() -> None:
    definition = decode_definition(with_packed([1, [0, []]]))
    with pytest.raises(RulesError, match="nobody is listed"):
        compile_rulebook([definition])
    definition = decode_definition(with_packed([1, [2, [[0, ["a.b"]]]]]))
    with pytest.raises(RulesError, match="2 of 1 can never be had"):
        compile_rulebook([definition])


def test_the_grammar_refuses_another_form() -> None:
    # of an array of arrays pycddl 0.6 checks the first, of a choice of arrays not all
    LEAF.validate_cbor(cbor2.dumps([0, ["a.b", [["count", 2], ["not", ["author"]]]]]))
    for value in ([2, ["a.b"]], [0, []], [0, ["a.b", []]], [0, ["a.b", [["count", 1]]]]):
        with pytest.raises(ValidationError):
            LEAF.validate_cbor(cbor2.dumps(value))
    BRANCH.validate_cbor(cbor2.dumps([2, [[0, ["a.b"]]]]))
    for branch in ([33, [[0, ["a.b"]]]], [0, []], [0, [[0, []]]]):
        with pytest.raises(ValidationError):
            BRANCH.validate_cbor(cbor2.dumps(branch))


# --- identity -------------------------------------------------------------------------------------


def test_identity_of_an_action_moves_with_its_policy_and_no_other() -> None:
    ids = []
    for policy in ('{ role = "a.b" }', '{ role = "a.b", count = 2 }', '{ role = "a.c" }'):
        rules = compile_rulebook([load_toml(text_with(policy))]).rule_sets["desk"]
        ids.append({name: action.action_id for name, action in rules.actions.items()})
    assert len({each["send"] for each in ids}) == 3
    assert len({each["stop"] for each in ids}) == 1


def test_what_a_policy_reads_belongs_to_the_identity() -> None:
    policy = '{ role = "a.b", when = "params.large > 1" }'
    other = text_with(policy).replace(
        'large = { by = "now", type = "int"', 'large = { by = "now", type = "money:USD"'
    )
    ids = [
        compile_rulebook([load_toml(each)]).rule_sets["desk"].actions["send"].action_id
        for each in (text_with(policy), other)
    ]
    assert ids[0] != ids[1]


# --- faults ---------------------------------------------------------------------------------------


def leaf(more: str) -> str:
    return f'{{ role = "a.b", {more} }}'


@pytest.mark.parametrize(
    ("policy", "message", "hint"),
    [
        ('"none"', "'none' is not a policy", "write { role"),
        ("true", "this is not a policy", "write { role"),
        ("[]", "this is not a policy", "write { role"),
        ("{ }", "a policy says who approves", "write { role"),
        ('{ count = 2 }', "a policy says who approves", "write { role"),
        ('{ role = "a.b", all = [] }', "role and all do not go together", "inside the other"),
        ('{ any = [], of = 1 }', "any and of do not go together", "inside the other"),
        ('{ role = "supervisor" }', "'supervisor' is not a role", "domain.name"),
        ('{ role = 7 }', "expected text, found a number", "quotes"),
        (leaf("count = 0"), "0 is outside 1 to 64", ""),
        (leaf("count = -1"), "-1 is outside 1 to 64", ""),
        (leaf("count = 65"), "65 is outside 1 to 64", ""),
        (leaf('count = "2"'), "expected a whole number, found text", ""),
        (leaf("needed = 2"), "unknown key needed", ""),
        (leaf('distinct = "people"'), "'people' is not what people differ by", "person, agency"),
        (leaf('where = "file.amout > 1"'), "file has no field amout", "did you mean amount?"),
        (leaf('where = "file.amount"'), "bool", ""),
        (leaf('when = "nothing.x"'), "nothing is called nothing", ""),
        (leaf('not = ["fle.owner"]'), "nothing is called fle", "did you mean file?"),
        (leaf('not = ["file.region"]'), "file.region is text", ""),
        (leaf('not = ["fle.by.created"]'), "'fle' is not a loaded record", "did you mean file?"),
        (leaf('not = ["file.by.snt"]'), "file has no status 'snt'", "did you mean sent?"),
        (leaf('not_agency = ["file.owner"]'), "file.owner is digest, expected text", ""),
        (leaf('author = true, not = ["author"]'), "both let in and kept out", "leave out author"),
        ("{ all = [] }", "nobody is listed", "leave out"),
        ('{ all = { role = "a.b" } }', "expected an array, found a table", ""),
        ('{ all = [ { role = "a.b" } ], count = 2 }', "unknown key count", ""),
        ('{ of = 2 }', "among is missing", "among = ["),
        ('{ among = [ { role = "a.b" } ] }', "a policy says who approves", "of = 2"),
        ('{ of = 2, among = [ { role = "a.b" } ] }', "2 of 1 can never be had", "of = 1 or less"),
        ('{ of = 0, among = [ { role = "a.b" } ] }', "0 is outside 1 to 32", ""),
        ('{ all = [ { all = [ { all = [ { all = [ { role = "a.b" } ] } ] } ] } ] }', "nested at most 4 deep", ""),
        ("{ all = [ " + '{ role = "a.b" }, ' * 32 + "] }", "33 leaves and branches, at most 32", ""),
        ('{ all = [ { role = "a.b", count = 33 }, { role = "a.b", count = 32 } ] }', "65 approvals, at most 64", ""),
    ],
)  # fmt: skip
def test_faulty_policy_is_refused_with_its_line_and_what_to_do(
    policy: str, message: str, hint: str
) -> None:
    text = text_with(policy)
    (problem,) = [each for each in check_text(text, "desk.toml") if isinstance(each, Problem)]
    assert message in problem.message
    assert hint in problem.hint
    assert problem.line == line_of(text, "approvals = ")


def test_line_is_that_of_the_part_at_fault() -> None:
    text = text_with('{ any = [\n  { role = "a.b" },\n  { role = "b.c", where = "x" },\n] }')
    (problem,) = [each for each in check_text(text, "desk.toml") if isinstance(each, Problem)]
    assert problem.line == line_of(text, 'where = "x"')


def test_who_wrote_a_foreign_record_cannot_be_asked() -> None:
    lender = 'domain = "archive"\nnumber = 1\nlegal_basis = "A"\nexports = ["scroll"]\n[kinds.scroll]\nfields.n = { type = "int" }\n'
    text = text_with('{ role = "a.b", not = ["scroll.by.created"] }').replace(
        '["other?", "file/other"]', '["scroll", "scroll/one"]'
    )
    text = text.replace(
        'legal_basis = "Desk Act"', 'legal_basis = "Desk Act"\nuses = { archive = ["scroll"] }'
    )
    (problem,) = [
        each
        for each in check_text(text, "desk.toml", [load_toml(lender)])
        if isinstance(each, Problem)
    ]
    assert "known to domain archive alone" in problem.message


def test_policy_of_a_kernel_action_reads_its_inputs() -> None:
    text = CHARTER.replace(
        "[actions.add_key]\nkernel = true\n",
        '[actions.add_key]\nkernel = true\napprovals = { role = "a.b", where = "who.agency == input.agency", not = ["input.principal"] }\n',
    )  # fmt: skip
    action = compile_rulebook([load_toml(text)]).action("charter", "add_key")
    assert action is not None
    leaf = action.approvals
    assert isinstance(leaf, Leaf)
    assert leaf.where is not None
    assert leaf.where.reads == (("who", "agency"), ("input", "agency"))
    for agency, met in (("audit", True), ("registry", False)):
        env = {"who": {"agency": "audit"}, "input": {"agency": agency, "principal": b"p"}}
        assert leaf.where.evaluate(env) is met
        assert [each.evaluate(env) for each in leaf.not_paths] == [b"p"]


# --- words ----------------------------------------------------------------------------------------


def test_summary_says_who_must_approve() -> None:
    (summary,) = describe(compile_rulebook([load_toml(text_with(EVERYTHING))]))
    (action,) = [each for each in summary.actions if each.name == "send"]
    assert action.approvals == (
        "2 of (3 with role a.b where who.agency == 'x', not file.by.created, file.agency, "
        "the author's agency, different agencies, when twice > 2; role c.d, the author counts; "
        "role e.f), different people, when file.amount > 1"
    )
    assert [each.approvals for each in summary.actions if each.name == "open_file"] == [""]


# --- notes ----------------------------------------------------------------------------------------


def where(condition: str, more: str = "") -> str:
    return f'{{ role = "a.b", where = "{condition}"{more} }}'


AUDIT = "who.agency == 'audit'"


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (where("false"), "where is always false"),
        (where("1 / 0 == 1"), "where is always false"),
        (where("1 == 2 && true"), "where is always false"),
        (where("who.agency == 'x' && who.agency == 'y'"), "who.agency cannot be 'x' and 'y'"),
        (where("'x' == who.agency && file.amount > 1 && who.agency == 'y'"), "cannot be 'x' and 'y'"),
        (where("who.role == 'c.d'"), "who.role is always 'a.b' here"),
        (where("who.principal == file.owner", ", count = 2"), "one principal, and 2 are asked for"),
        (where(AUDIT, ', count = 2, distinct = "agency"'), "one agency, and 2 different ones"),
        ('{ all = [ { role = "a.b" }, ' + where("false") + " ] }", "where is always false"),
    ],
)  # fmt: skip
def test_leaf_that_nobody_can_fill_is_noted_with_the_reason(policy: str, said: str) -> None:
    found = told(policy)
    assert "nobody can ever give this approval: " in found[0].message
    assert said in found[0].message
    assert all(isinstance(each, Note) for each in found)
    assert found[0].line == line_of(text_with(policy), "approvals = ")


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ('{ all = [ { role = "a.b" }, ' + where("false") + " ] }", "2 needed, 1 possible"),
        ("{ any = [ " + where("false") + " ] }", "1 needed, 0 possible"),
        ('{ of = 2, among = [ { role = "a.b" }, ' + where("false") + " ] }", "2 needed, 1 possible"),
        ('{ of = 2, among = [ { role = "a.b" }, { role = "a.b", when = "false" } ] }', "2 needed, 1 possible"),
        ('{ distinct = "agency", all = [ ' + where(AUDIT) + ", " + where(AUDIT) + " ] }", "two approvals of audit"),
    ],
)  # fmt: skip
def test_branch_that_nobody_can_satisfy_is_noted(policy: str, said: str) -> None:
    last = told(policy)[-1]
    assert "nobody can ever satisfy this: " in last.message
    assert said in last.message


def test_part_that_is_never_asked_for_is_noted() -> None:
    (note,) = told('{ role = "a.b", when = "1 > 2" }')
    assert note.message == "this is never asked for"


def test_agency_of_author_and_approver_cannot_be_one_and_differ() -> None:
    for more in ('distinct = "agency"', 'not_agency = ["author"]'):
        text = text_with(where(AUDIT, f", {more}")).replace(
            'actor     = { role = "desk.clerk" }', f'actor = {{ role = "a.b", where = "{AUDIT}" }}'
        )
        (note,) = [each for each in check_text(text, "desk.toml") if "author is of" in each.message]
        assert "the author is of agency 'audit' as well" in note.message


def test_policy_of_an_emergency_form_is_looked_at_too() -> None:
    form = (
        "emergency = { approvals = { any = [ "
        + where("false")
        + ' ] }, review = { role = "a.b", within_days = 3 } }\n'
    )
    text = text_with('{ role = "a.b" }')
    text = text.replace("[actions.stop]\n", f"[actions.stop]\n{form}")
    found = [each for each in check_text(text, "desk.toml") if "nobody can ever" in each.message]
    assert [each.line for each in found] == [line_of(text, "emergency = ")] * 2


def test_more_approvals_than_cosigners_are_noted() -> None:
    (note,) = told('{ all = [ { role = "a.b", count = 30 }, { role = "c.d", count = 3 } ] }')
    assert note.message.startswith("at least 33 approvals: a transaction has at most 32 cosigners")


@pytest.mark.parametrize(
    "policy",
    [
        where("true"), where("who.agency == file.region"), where(AUDIT, ", count = 2"),
        where("who.agency == 'x' || who.agency == 'y'"), where("who.agency != 'x' && who.agency != 'y'"),
        "{ any = [ { role = \"c.d\" }, { role = \"a.b\", count = 40 } ] }",
        '{ of = 1, among = [ { role = "a.b", when = "file.amount > 1" } ] }',
        where(AUDIT, ', distinct = "agency"'),
        '{ distinct = "agency", all = [ ' + where(AUDIT) + ", " + where("who.agency == 'north'") + " ] }",
        '{ distinct = "agency", all = [ ' + where(AUDIT) + ", " + where(AUDIT, ', when = "file.amount > 1"') + " ] }",
        '{ distinct = "agency", all = [ ' + where(AUDIT) + ", { any = [ " + where(AUDIT) + " ] } ] }",
        where("who.agency == who.role"), where("who.agency == (true ? 'x' : 'y')"),
        where("who.principal == (file.amount > 1 ? file.owner : file.owner)", ", count = 2"),
    ],
)  # fmt: skip
def test_policy_that_somebody_may_satisfy_is_not_noted(policy: str) -> None:
    assert told(policy) == []


def test_impossible_leaf_that_is_asked_for_at_times_is_noted_alone() -> None:
    (note,) = told("{ all = [ " + where("false", ', when = "file.amount > 1"') + " ] }")
    assert note.message.startswith("nobody can ever give this approval when it is asked for")
