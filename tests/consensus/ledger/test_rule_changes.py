"""Rule sets on the chain: proposed, activated by chain time, objected to, withdrawn."""

from __future__ import annotations

from pathlib import Path

import pycddl
import pytest

from consensus.errors import DecodeError
from consensus.genesis import Agency, Principal, RoleGiven
from consensus.ledger.codes import Code
from consensus.ledger.layout import ACTIVATED, LAPSED, OBJECTED, PROPOSED, WITHDRAWN
from consensus.ledger.ledger import of_genesis
from consensus.ledger.rules import encode_definition, load_toml
from consensus.ledger.transaction import PROPOSE
from consensus.ledger.types import DEFINITION_BYTES_MAX
from consensus.state.record import decode_single
from tests.consensus.ledger.governed import (
    CHIEFS,
    GOVERNED,
    NOTICE_MS,
    Governed,
    founding,
    numbered,
)
from tests.consensus.ledger.world import (
    BENEFITS,
    IDENTITY,
    PAYMENTS,
    START_MS,
    public_key,
    token,
)

CDDL = (Path(__file__).parents[3] / "docs" / "protocol" / "ledger.cddl").read_text()
MOST = ('code = "MOST", that = "input.monthly <= params.most"', 'code = "MOST", that = "true"')
NAMELESS = ('inputs  = { name = "text" }', 'inputs  = { name = "text?" }')
TAX = """\
domain = "tax"
number = 1
legal_basis = "Tax Act"
[kinds.bill]
fields.due = { type = "date" }
[actions.bill]
actor  = { role = "tax.officer" }
inputs = { due = "date" }
create = [ { kind = "bill", id = "{tx}", set = { due = "input.due" } } ]
"""


def benefits(number: int = 2, *changes: tuple[str, str]) -> str:
    return numbered(BENEFITS, number, *changes)


def charter(number: int = 2, *changes: tuple[str, str]) -> str:
    return numbered(GOVERNED, number, *changes)


def act(name: str, actor: str = 'role = "charter.chief"') -> str:
    """Return the first lines of an act of the charter."""
    return f"[actions.{name}]\nkernel = true\nactor = {{ {actor} }}"


def having(name: str, actor: str, more: str = "") -> str:
    """Return charter number 2 with another actor of one act, and more of its keys."""
    return charter(2, (act(name), act(name, actor) + more))


def with_param(name: str, value: int) -> str:
    """Return a charter with a parameter of its own."""
    dated = f'values = [ {{ from = "2026-01", value = {value} }} ]'
    param = f'{name} = {{ by = "now", type = "int", {dated} }}\n'
    return GOVERNED.replace("[params]\n", "[params]\n" + param)


def without(text: str, action: str) -> str:
    """Return a charter without one of its acts."""
    start = text.index(f"[actions.{action}]")
    end = text.find("[actions.", start + 1)
    return text[:start] + (text[end:] if end > 0 else "")


# --- the ordinary course ----------------------------------------------------------------------


def test_a_rule_set_is_in_force_from_its_time_on_and_not_before():
    world = Governed()
    from_ms = world.adopt(benefits(2, MOST))
    assert world.numbers()["benefits"] == 1
    world.wait_until(from_ms - 1)
    world.run()
    assert world.numbers()["benefits"] == 1
    world.wait_until(from_ms)
    world.run()
    assert world.numbers()["benefits"] == 2


def test_the_genesis_rule_sets_have_their_interval_from_the_start():
    world = Governed()
    adoption = world.adoption("payments", 1)
    assert (adoption.state, adoption.from_ms, adoption.until_ms) == (ACTIVATED, START_MS, None)
    assert world.head("payments").latest == 1


def test_every_number_keeps_its_interval_and_who_did_what():
    world = Governed()
    proposed = world.propose(benefits(2, MOST), "chief_s")
    at_ms = world.now_ms
    from_ms = at_ms + 1000 + NOTICE_MS
    activated = world.activate("benefits", 2, from_ms)
    assert world.adoption("benefits", 2) == (
        "benefits",
        2,
        ACTIVATED,
        from_ms,
        None,
        [
            ["proposed", proposed.header.txid, token("chief_s"), "services", at_ms],
            ["activated", activated.header.txid, token("chief_t"), "treasury", at_ms + 1000],
        ],
    )
    assert world.adoption("benefits", 1).until_ms == from_ms
    assert world.head("benefits").active == [[1, START_MS], [2, from_ms]]


def test_the_head_keeps_what_is_in_force_and_what_comes_however_often_rules_change():
    world = Governed()
    for number in range(2, 7):
        world.wait_until(world.adopt(benefits(number)))
        world.run()
        assert [n for n, _ in world.head("benefits").active] == [number - 1, number]
    ends = [world.adoption("benefits", n).until_ms for n in range(1, 7)]
    starts = [world.adoption("benefits", n).from_ms for n in range(1, 7)]
    assert ends[:-1] == starts[1:]
    assert ends[-1] is None
    assert world.head("benefits").latest == 6


def test_a_new_domain_can_be_proposed_and_comes_into_force():
    world = Governed()
    assert world.propose(TAX).code == Code.APPLIED
    assert "tax" not in world.numbers()
    from_ms = world.now_ms + 1000 + NOTICE_MS
    assert world.activate("tax", 1, from_ms).code == Code.APPLIED
    assert "tax" not in world.numbers()
    world.wait_until(from_ms)
    world.run()
    assert world.numbers()["tax"] == 1
    refused = world.do("clerk", "tax.bill", 20_000)
    assert refused.detail == [["role", "tax.officer", "missing"]]


def test_the_block_that_crosses_the_time_compiles_nothing(monkeypatch: pytest.MonkeyPatch):
    world = Governed()
    world.wait_until(world.adopt(benefits(2, MOST)))

    def refuse(*_: object) -> None:
        raise AssertionError("compiled in the block")

    monkeypatch.setattr("consensus.ledger.ledger.compile_rulebook", refuse)
    world.run()
    assert world.numbers()["benefits"] == 2


def test_a_process_that_starts_before_the_time_compiles_what_is_to_come(
    monkeypatch: pytest.MonkeyPatch,
):
    world = Governed()
    from_ms = world.adopt(benefits(2, MOST))
    world.ledger = of_genesis(world.genesis)
    world.run()
    world.wait_until(from_ms)
    monkeypatch.setattr("consensus.ledger.ledger.compile_rulebook", None)
    world.run()
    assert world.numbers()["benefits"] == 2


def test_a_process_that_starts_after_the_time_finds_the_same_rules():
    world = Governed()
    world.wait_until(world.adopt(benefits(2, MOST)))
    world.run()
    world.ledger = of_genesis(world.genesis)
    assert world.numbers()["benefits"] == 2


# --- callers ----------------------------------------------------------------------------------


def test_only_callers_of_changed_actions_get_rules_moved():
    world = Governed()
    from_ms = world.adopt(benefits(2, NAMELESS))
    drafts = [
        world.draft("social", ("benefits.start", "one"), expects=[("link", ["one"], 0)]),
        world.draft("social", ("benefits.rely", ["none"])),
        world.draft("clerk", ("payments.transfer", "a", "b", 5)),
    ]
    world.wait_until(from_ms)
    moved, kept, other = world.run(*drafts).decisions
    assert (moved.code, moved.detail) == (Code.RULES_MOVED, [2, False])
    assert (kept.code, kept.detail[0]) == (Code.NOT_FOUND, "link")
    assert other.code == Code.APPLIED


def test_the_same_call_before_and_after_the_time():
    world = Governed()
    from_ms = world.adopt(benefits(2, NAMELESS))
    world.wait_until(from_ms - 1000)
    made = world.do("social", "benefits.start", "one", expects=[("link", ["one"], 0)])
    assert made.code == Code.APPLIED
    late = world.draft("social", ("benefits.start", "two"), expects=[("link", ["two"], 0)])
    assert world.one(late).code == Code.RULES_MOVED
    again = world.do("social", "benefits.start", "two", expects=[("link", ["two"], 0)])
    assert again.code == Code.APPLIED


# --- proposing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("fields.monthly = { type = \"money\", currency = \"USD\" }", ""), "monthly"),
        (('exports = ["entitlement.*"]', "exports = []"), "payments#1"),
        (("person.status == 'alive'", "person.status == 1"), "cannot compare"),
    ],
)  # fmt: skip
def test_a_rule_set_that_does_not_compile_with_the_others_is_refused(
    change: tuple[str, str], sentence: str
):
    world = Governed()
    refused = world.propose(benefits(2, change))
    assert refused.code == Code.REQUIREMENT
    assert refused.detail[0] == "RULES"
    assert sentence in refused.detail[1]
    assert world.head("benefits").latest == 1


def test_a_rule_set_that_may_not_follow_is_refused():
    world = Governed()
    gone = ('[kinds.link]\nfields.to = { type = "ref", kind = "link", optional = true }\n', "")
    text = benefits(2, gone)
    for action in ("start", "chain", "relink", "rely"):
        text = without(text, action)
    refused = world.propose(text)
    assert refused.detail == ["RULES", "kinds: kind link is gone"]


def test_numbers_are_given_out_one_by_one():
    world = Governed()
    assert world.propose(benefits(3)).detail == ["NUMBER", "the next number of this domain is 2"]
    assert world.propose(benefits(2)).code == Code.APPLIED
    assert world.propose(benefits(2)).detail == ["NUMBER", "the next number of this domain is 3"]
    assert world.propose(benefits(3)).code == Code.APPLIED


def test_a_proposal_names_the_head_as_it_is():
    world = Governed()
    late = world.proposal(benefits(2))
    assert world.propose(benefits(2), "chief_r").code == Code.APPLIED
    assert world.one(late).code == Code.STALE


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (("benefits", 2, b"\x00"), ""),
        (("payments", 2, encode_definition(load_toml(benefits(2)))), "it is of another domain"),
        (("benefits", 2, encode_definition(load_toml(benefits(3)))), "it has another number"),
    ],
)
def test_what_is_proposed_must_be_what_it_says(inputs: tuple[str, int, bytes], reason: str):
    world = Governed()
    refused = world.do(
        "chief_t", "charter.propose_rules", *inputs, expects=[("rules", [inputs[0]], 1)]
    )
    assert refused.code == Code.BAD_INPUT
    assert refused.detail[0] == "rules"
    assert reason in refused.detail[1]


def test_a_rule_set_has_its_own_bound():
    world = Governed()
    data = bytes(DEFINITION_BYTES_MAX + 1)
    refused = world.do("chief_t", "charter.propose_rules", "benefits", 2, data)
    size = f"a rule set of {DEFINITION_BYTES_MAX + 1} bytes, at most {DEFINITION_BYTES_MAX}"
    assert (refused.code, refused.detail) == (Code.BAD_INPUT, ["rules", size])


def test_no_ordinary_action_takes_a_definition():
    text = PAYMENTS.replace('inputs = { name = "text" }', 'inputs = { name = "definition" }', 1)
    with pytest.raises(DecodeError, match="there is no type 'definition'"):
        Governed(founding((GOVERNED, IDENTITY, BENEFITS, text)))


def test_who_has_no_role_proposes_nothing_and_has_nothing_compiled(
    monkeypatch: pytest.MonkeyPatch,
):
    world = Governed()
    world.run()
    monkeypatch.setattr("consensus.ledger.ledger.compile_rulebook", None)
    refused = world.propose(benefits(2, MOST), "clerk")
    assert refused.detail == [["role", "charter.chief", "missing"]]


def test_a_block_compiles_for_each_agency_twice():
    world = Governed()
    texts = [numbered(IDENTITY, 2), benefits(2), numbered(PAYMENTS, 2)]
    drafts = [world.proposal(text, "chief_t") for text in texts]
    first, second, third = world.run(*drafts).decisions
    assert (first.code, second.code) == (Code.APPLIED, Code.APPLIED)
    assert (third.code, third.detail) == (Code.LIMIT, "rules")
    assert world.propose(texts[2]).code == Code.APPLIED


def test_a_block_reads_so_many_bytes_of_proposals_and_more_come_in_the_next():
    world = Governed()
    junk = bytes(DEFINITION_BYTES_MAX)
    drafts = [
        world.draft(
            name,
            ("charter.propose_rules", "benefits", 2, junk),
            expects=[("rules", ["benefits"], 1)],
        )
        for name in CHIEFS
    ]
    small = world.proposal(benefits(2), "admin")
    codes = [each.code for each in world.run(*drafts, small).decisions]
    assert codes == [Code.BAD_INPUT, Code.LIMIT, Code.LIMIT, Code.LIMIT, Code.APPLIED]


# --- activating -------------------------------------------------------------------------------


def test_the_notice_must_lie_between():
    world = Governed()
    world.propose(benefits(2))
    least_ms = world.now_ms + 1000 + NOTICE_MS
    early = world.activate("benefits", 2, least_ms - 1)
    assert early.detail == ["NOTICE", f"the notice ends at {least_ms}, in milliseconds since 1970"]
    assert world.activate("benefits", 2, world.now_ms + 1000 + NOTICE_MS).code == Code.APPLIED


def test_an_activation_lies_at_most_two_years_ahead():
    world = Governed()
    world.propose(benefits(2))
    far = world.activate("benefits", 2, world.now_ms + 3 * 366 * 86_400_000)
    assert far.detail == ["TOO_FAR", "at most two years ahead"]


@pytest.mark.parametrize(("hours", "notice_ms"), [(1, 3_600_000), (0, 3_600_000)])
def test_the_charter_may_say_another_notice_for_ordinary_rule_sets(hours: int, notice_ms: int):
    text = with_param("rules_notice_hours", hours)
    world = Governed(founding((text, IDENTITY, BENEFITS, PAYMENTS)))
    world.propose(benefits(2))
    assert world.activate("benefits", 2).detail[0] == "NOTICE"
    assert world.activate("benefits", 2, world.now_ms + 1000 + notice_ms).code == Code.APPLIED


def test_one_activation_at_a_time_in_a_domain():
    world = Governed()
    world.adopt(benefits(2))
    world.propose(benefits(3))
    refused = world.activate("benefits", 3)
    assert refused.detail == ["SCHEDULED", "number 2 of this domain is still to come"]


def test_a_number_that_was_passed_over_is_never_activated():
    world = Governed()
    world.propose(benefits(2))
    world.wait_until(world.adopt(benefits(3)))
    refused = world.activate("benefits", 2)
    assert refused.detail == ["PASSED_OVER", "number 3 is in force"]


def test_a_rule_set_is_activated_once():
    world = Governed()
    world.wait_until(world.adopt(benefits(2)))
    assert world.activate("benefits", 2).detail == ["NOT_OPEN", "it is activated already"]


def test_what_does_not_exist_is_not_activated():
    world = Governed()
    assert world.activate("nothing", 1).detail == ["domain", ["rules", ["nothing"]]]
    missing = world.activate("benefits", 9)
    assert missing.detail == ["number", ["rules", ["benefits", 9, "adoption"]]]


PHONE = (
    'fields.note    = { type = "text", open = true, optional = true }',
    'fields.note    = { type = "text", open = true, optional = true }\n'
    'fields.phone   = { type = "text", open = true, optional = true, since = 2 }',
)
READS_PHONE = ('"person.name"] }\nexports', '"person.name", "person.phone"] }\nexports')


def test_a_proposal_may_rest_on_what_is_to_come_and_is_activated_no_sooner():
    world = Governed()
    assert world.propose(benefits(2, READS_PHONE)).detail[0] == "RULES"
    from_ms = world.adopt(numbered(IDENTITY, 2, PHONE)) + 5000
    assert world.propose(benefits(2, READS_PHONE)).code == Code.APPLIED
    world.wait_until(from_ms - 5000 - NOTICE_MS - 1)
    early = world.activate("benefits", 2, from_ms - 5001)
    assert early.detail[0] == "RULES"
    assert early.detail[1].startswith("benefits#2: ")
    assert world.activate("benefits", 2, from_ms).code == Code.APPLIED


def test_an_activation_must_hold_with_those_that_come_after_it():
    world = Governed()
    narrow = ('exports = ["person.*"]', 'exports = ["person.status", "person.region"]')
    no_name = [
        (IDENTITY, 2, [narrow]),
        (BENEFITS, 2, [('"person.region", "person.name"]', '"person.region"]')]),
        (PAYMENTS, 2, [('"person.region", "person.name"]', '"person.region"]')]),
    ]
    for text, number, changes in no_name[1:]:
        from_ms = world.adopt(numbered(text, number, *changes))
    world.wait_until(from_ms)
    world.adopt(numbered(IDENTITY, 2, narrow))
    # Names are exported for ten seconds more: too short for an activation that would read them.
    assert world.propose(benefits(3)).code == Code.APPLIED
    refused = world.activate("benefits", 3, world.now_ms + 1000 + NOTICE_MS)
    assert refused.code == Code.REQUIREMENT
    assert refused.detail[1].startswith("benefits#3: ")
    assert "person.name" in refused.detail[1]


# --- objecting --------------------------------------------------------------------------------


def test_a_third_of_the_agencies_end_a_rule_set_before_its_time():
    world = Governed()
    from_ms = world.adopt(benefits(2, MOST))
    assert world.object("benefits", 2, "chief_r").code == Code.APPLIED
    assert world.adoption("benefits", 2).state == ACTIVATED
    assert world.object("benefits", 2, "chief_a").code == Code.APPLIED
    ended = world.adoption("benefits", 2)
    assert (ended.state, ended.from_ms) == (OBJECTED, None)
    assert [(step[0], step[3]) for step in ended.steps[2:]] == [
        ("objected", "registry"),
        ("objected", "audit"),
    ]
    assert world.adoption("benefits", 1).until_ms is None
    assert world.head("benefits").active == [[1, START_MS]]
    world.wait_until(from_ms)
    world.run()
    assert world.numbers()["benefits"] == 1
    assert world.adopt(benefits(3, MOST)) > 0


def test_an_agency_objects_once():
    world = Governed()
    world.propose(benefits(2))
    assert world.object("benefits", 2, "chief_t").code == Code.APPLIED
    again = world.object("benefits", 2, "admin")
    assert again.detail == ["UNCHANGED", "this agency has objected"]
    assert world.object("benefits", 2, "chief_s").code == Code.APPLIED
    assert world.adoption("benefits", 2).state == OBJECTED
    assert world.activate("benefits", 2).detail == ["NOT_OPEN", "agencies objected to it"]


def test_from_its_time_on_nobody_objects():
    world = Governed()
    from_ms = world.adopt(benefits(2))
    world.wait_until(from_ms - 1000)
    assert world.object("benefits", 2, "chief_r").code == Code.APPLIED
    late = world.object("benefits", 2, "chief_a")
    assert late.detail == ["NOT_OPEN", "it is in force, or was"]
    assert world.numbers()["benefits"] == 2


def test_only_agencies_with_a_validator_object():
    people = founding()
    outsider = Principal(token("guest"), "guests", 0, token("subject guest"))
    genesis = founding(
        agencies=(*people.agencies, Agency("guests", "Guests")),
        principals=(*people.principals, outsider),
        keys=(*people.keys, (public_key("guest"), token("guest"))),
        roles=(*people.roles, RoleGiven(token("guest"), "charter.chief")),
    )
    world = Governed(genesis)
    world.propose(benefits(2))
    assert world.object("benefits", 2, "guest").detail == [["committee", "guests"]]


def test_the_charter_may_let_fewer_agencies_end_a_rule_set_but_not_ask_for_more():
    for value, left in ((1, OBJECTED), (4, OBJECTED)):
        text = with_param("rules_objections", value)
        world = Governed(founding((text, IDENTITY, BENEFITS, PAYMENTS)))
        world.propose(benefits(2))
        world.object("benefits", 2, "chief_r")
        if value > 1:
            assert world.adoption("benefits", 2).state == PROPOSED
            world.object("benefits", 2, "chief_a")
        assert world.adoption("benefits", 2).state == left


def test_objections_of_one_block_all_count():
    world = Governed()
    world.adopt(benefits(2))
    drafts = [
        world.draft(name, ("charter.object_rules", "benefits", 2))
        for name in ("chief_r", "chief_a")
    ]
    assert [each.code for each in world.run(*drafts).decisions] == [Code.APPLIED, Code.APPLIED]
    assert world.adoption("benefits", 2).state == OBJECTED


def test_what_does_not_hold_without_the_one_that_was_ended_lapses_with_it():
    world = Governed()
    from_ms = world.adopt(numbered(IDENTITY, 2, PHONE))
    world.propose(benefits(2, READS_PHONE))
    world.propose(numbered(PAYMENTS, 2))
    assert world.activate("benefits", 2, from_ms + 5000).code == Code.APPLIED
    assert world.activate("payments", 2, from_ms + 5000).code == Code.APPLIED
    world.object("identity", 2, "chief_r")
    ended = world.object("identity", 2, "chief_a")
    assert world.adoption("identity", 2).state == OBJECTED
    lapsed = world.adoption("benefits", 2)
    assert (lapsed.state, lapsed.from_ms) == (LAPSED, None)
    assert lapsed.steps[-1][:2] == ["lapsed", ended.header.txid]
    assert world.adoption("payments", 2).state == ACTIVATED
    world.wait_until(from_ms + 5000)
    world.run()
    assert world.numbers() == {"benefits": 1, "charter": 1, "identity": 1, "payments": 2}
    assert world.adoption("benefits", 1).until_ms is None


def test_a_block_ends_rule_sets_that_others_may_rest_on_for_each_agency_twice():
    world = Governed()
    from_ms = world.now_ms + 100_000
    texts = (numbered(IDENTITY, 2), benefits(2), numbered(PAYMENTS, 2))
    for text in texts:
        assert world.propose(text).code == Code.APPLIED
    domains = ("identity", "benefits", "payments")
    for domain in domains:
        assert world.activate(domain, 2, from_ms).code == Code.APPLIED
    assert world.propose(numbered(GOVERNED, 2)).code == Code.APPLIED
    quorum = ("chief_r", "chief_s")
    assert world.activate("charter", 2, from_ms, cosigners=quorum).code == Code.APPLIED
    for domain in domains:
        assert world.object(domain, 2, "chief_r").code == Code.APPLIED
    drafts = [world.draft("chief_a", ("charter.object_rules", each, 2)) for each in domains]
    first, second, third = world.run(*drafts).decisions
    assert (first.code, second.code) == (Code.APPLIED, Code.APPLIED)
    assert (third.code, third.detail) == (Code.LIMIT, "rules")
    assert world.adoption("payments", 2).state == ACTIVATED
    assert world.object("payments", 2, "chief_a").code == Code.APPLIED
    last = [
        world.draft(each, ("charter.object_rules", "charter", 2)) for each in ("chief_r", "chief_a")
    ]
    assert [each.code for each in world.run(*last).decisions] == [Code.APPLIED, Code.APPLIED]
    assert world.adoption("charter", 2).state == OBJECTED


def test_withdrawing():
    world = Governed()
    world.propose(benefits(2), "chief_s")
    assert world.withdraw("benefits", 2, "chief_t").detail == [["agency", "treasury"]]
    assert world.withdraw("benefits", 2, "chief_s").code == Code.APPLIED
    adoption = world.adoption("benefits", 2)
    assert (adoption.state, adoption.steps[-1][0]) == (WITHDRAWN, "withdrawn")
    assert world.activate("benefits", 2).detail == ["NOT_OPEN", "it is withdrawn"]
    assert world.object("benefits", 2, "chief_t").detail == ["NOT_OPEN", "it is withdrawn"]


def test_what_is_activated_is_not_withdrawn():
    world = Governed()
    world.adopt(benefits(2))
    assert world.withdraw("benefits", 2).detail == ["NOT_OPEN", "it is activated already"]


# --- the charter ------------------------------------------------------------------------------


def test_a_charter_takes_a_quorum_of_agencies():
    world = Governed()
    world.propose(charter(2))
    few = world.activate("charter", 2, cosigners=["chief_r", "admin"])
    assert (few.code, few.detail) == (Code.NEEDS_APPROVAL, [["agencies", 1]])
    done = world.activate("charter", 2, cosigners=["chief_r", "chief_s"])
    assert done.code == Code.APPLIED


def test_agencies_count_by_people_who_have_the_role():
    world = Governed()
    world.propose(charter(2))
    refused = world.activate("charter", 2, cosigners=["registrar", "social", "auditor"])
    assert refused.detail == [["agencies", 2]]


CHIEF = '{ role = "charter.chief" }'
NEVER = '{ role = "charter.chief", where = "1 == 2" }'
LOCKOUTS = [
    (without(charter(2), "propose_rules"), "it has no propose_rules"),
    (without(charter(2), "activate_rules"), "it has no activate_rules"),
    (without(charter(2), "object_rules"), "it has no object_rules"),
    (without(charter(2), "give_role"), "it has no give_role"),
    (
        having("activate_rules", 'self = "who.principal"'),
        "nobody could activate_rules: it asks for no role",
    ),
    (
        having("activate_rules", 'role = "charter.chief", where = "1 == 2"'),
        "nobody could activate_rules: its where is never true",
    ),
    (
        having(
            "propose_rules",
            'role = "charter.chief"',
            '\nrequire = [ { code = "NO", that = "1 / 0 == 1", say = "no" } ]',
        ),
        "nobody could propose_rules: its requirement NO is never met",
    ),
    (
        having(
            "propose_rules",
            'role = "charter.chief"',
            '\nrequire = [ { code = "YES", that = "1 == 1", say = "yes" }, '
            '{ code = "NO", that = "1 == 2", say = "no" } ]',
        ),
        "nobody could propose_rules: its requirement NO is never met",
    ),
    *(
        (
            having("propose_rules", 'role = "charter.chief"', f"\napprovals = {policy}"),
            "nobody could propose_rules: its approvals are never complete",
        )
        for policy in (
            NEVER,
            f"{{ all = [ {CHIEF}, {NEVER} ] }}",
            f"{{ any = [ {NEVER}, {NEVER} ] }}",
            f"{{ of = 2, among = [ {CHIEF}, {NEVER} ] }}",
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "why"), LOCKOUTS)
def test_a_charter_that_locks_everybody_out_is_refused_with_the_reason(text: str, why: str):
    world = Governed()
    assert world.propose(text).detail == ["LOCKED_OUT", why]


@pytest.mark.parametrize(
    "policy",
    [
        CHIEF,
        f"{{ any = [ {CHIEF}, {NEVER} ] }}",
        "{ all = [ " + CHIEF + ', { role = "a.b", where = "1 == 2", when = "1 / 0 == 1" } ] }',
    ],
)
def test_a_charter_whose_approvals_can_be_given_locks_nobody_out(policy: str):
    text = having("propose_rules", 'role = "charter.chief"', f"\napprovals = {policy}")
    assert Governed().propose(text).code == Code.APPLIED


def test_who_activates_a_charter_must_be_able_to_do_it_again():
    world = Governed()
    text = having("activate_rules", 'role = "charter.emperor"')
    assert world.propose(text).code == Code.APPLIED
    refused = world.activate("charter", 2, cosigners=["chief_r", "chief_s"])
    why = "none of those who activate it has the role that activate_rules asks for"
    assert refused.detail == ["LOCKED_OUT", why]


def test_a_charter_changes_under_its_own_old_rules():
    world = Governed()
    text = having("withdraw_rules", 'role = "charter.emperor"')
    from_ms = world.adopt(text, cosigners=["chief_r", "chief_s"])
    world.propose(benefits(2), "chief_r")
    world.wait_until(from_ms)
    world.run()
    assert world.withdraw("benefits", 2, "chief_r").detail == [
        ["role", "charter.emperor", "missing"]
    ]


def test_a_kernel_act_that_did_not_change_is_not_moved_by_a_new_charter():
    world = Governed()
    text = having("withdraw_rules", 'role = "charter.chief"', '\nsummary = "as before"')
    from_ms = world.adopt(text, cosigners=["chief_r", "chief_s"])
    proposal = world.proposal(benefits(2))
    world.wait_until(from_ms)
    assert world.one(proposal).code == Code.APPLIED
    withdraw = world.draft("chief_t", ("charter.withdraw_rules", "benefits", 2))
    assert withdraw.calls[0].action_id != founding_id("withdraw_rules")


def founding_id(name: str) -> bytes:
    world = Governed()
    action = world.ledger.rules(world.state, world.now_ms).book.action("charter", name)
    assert action is not None
    return action.action_id


# --- with stored proposals --------------------------------------------------------------------

CONSENT = 'approvals = { role = "charter.chief", distinct = "agency" }'
STORED = (
    GOVERNED.replace(act("activate_rules"), act("activate_rules") + "\n" + CONSENT)
    + """
[actions.approve]
kernel = true
actor = { self = "who.principal" }
"""
)


def stored(world: Governed, domain: str, number: int, from_ms: int) -> bytes:
    """Store a proposal to activate a rule set; return its txid."""
    call = ("charter.activate_rules", domain, number, from_ms)
    expects = world.expects(domain, number, head=True)
    draft = world.draft("chief_t", call, expects=expects, mode=PROPOSE)
    assert world.one(draft).code == Code.PROPOSED
    return draft.txid


def test_a_stored_activation_takes_effect_with_the_approval_that_completes_it():
    world = Governed(founding((STORED, IDENTITY, BENEFITS, PAYMENTS)))
    world.propose(benefits(2))
    from_ms = world.now_ms + 20_000 + NOTICE_MS
    txid = stored(world, "benefits", 2, from_ms)
    assert world.adoption("benefits", 2).state == PROPOSED
    approved = world.do("chief_r", "charter.approve", txid)
    assert approved.code == Code.APPLIED, approved.detail
    adoption = world.adoption("benefits", 2)
    assert (adoption.state, adoption.from_ms) == (ACTIVATED, from_ms)
    assert adoption.steps[1][:2] == ["activated", txid]


def test_a_stored_charter_waits_for_a_quorum_though_its_policy_asks_for_less():
    world = Governed(founding((STORED, IDENTITY, BENEFITS, PAYMENTS)))
    world.propose(numbered(STORED, 2))
    txid = stored(world, "charter", 2, world.now_ms + 20_000 + NOTICE_MS)
    assert world.do("chief_r", "charter.approve", txid).code == Code.APPLIED
    assert world.adoption("charter", 2).state == PROPOSED
    assert world.do("chief_s", "charter.approve", txid).code == Code.APPLIED
    assert world.adoption("charter", 2).state == ACTIVATED


def test_a_charter_that_asks_for_more_than_those_who_activate_it_is_refused():
    world = Governed(founding((STORED, IDENTITY, BENEFITS, PAYMENTS)))
    more = CONSENT.replace("distinct", "count = 4, distinct")
    world.propose(numbered(STORED, 2, (CONSENT, more)))
    refused = world.activate("charter", 2, cosigners=["chief_r", "chief_s", "chief_a"])
    why = "those who activate it could not activate another under it"
    assert (refused.code, refused.detail) == (Code.REQUIREMENT, ["LOCKED_OUT", why])


# --- hostile input ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inputs",
    [
        ("", 1, b""),
        ("charter", 2, b""),
        ("x" * 4000, 1, b"\x80"),
        ("benefits", -(2**63), b"\xff"),
        ("benefits", 2, b"\x82\x01\x89" + b"\x60" * 9),
        ("benefits", 2, b"\x82" * 1000),
    ],
)
def test_nothing_proposed_makes_more_than_a_refusal(inputs: tuple[str, int, bytes]):
    world = Governed()
    known = [("rules", [inputs[0]], world.version(inputs[0]))] if 0 < len(inputs[0]) < 250 else []
    refused = world.do("chief_t", "charter.propose_rules", *inputs, expects=known)
    assert refused.code in (Code.BAD_INPUT, Code.REQUIREMENT, Code.STALE)


@pytest.mark.parametrize("seed", range(40))
def test_a_rule_set_with_bytes_changed_makes_more_than_a_refusal_only_if_it_holds(seed: int):
    world = Governed()
    data = bytearray(encode_definition(load_toml(benefits(2))))
    at = (seed * 977 + 13) % len(data)
    data[at] = (data[at] + 1 + seed) % 256
    version = [("rules", ["benefits"], 1)]
    made = world.do("chief_t", "charter.propose_rules", "benefits", 2, bytes(data), expects=version)
    assert made.code in (Code.APPLIED, Code.BAD_INPUT, Code.REQUIREMENT)
    assert world.do("clerk", "payments.transfer", "a", "b", 1).code == Code.APPLIED


def test_the_reason_of_a_refusal_does_not_depend_on_tables_of_characters():
    world = Governed()
    refused = world.propose(benefits(2, ("who.scope.region == person.region", "'\U0001fae8' == 1")))
    assert refused.detail[0] == "RULES"
    assert refused.detail[1].isascii()


def test_names_of_the_rules_may_be_expected_by_anybody_and_in_any_form():
    world = Governed()
    for id_ in (["benefits"], ["benefits", 1], ["benefits", 1, "adoption"], ["none"], [["x"], 2]):
        known = [("rules", id_, int(id_[0] == "benefits"))]
        done = world.do("clerk", "payments.transfer", "a", "b", 1, expects=known)
        assert done.code == Code.APPLIED, id_


@pytest.mark.parametrize("components", [["benefits"], ["benefits", 2, "adoption"]])
def test_leaves_of_the_rules_match_the_cddl(components: list[object]):
    world = Governed()
    world.adopt(benefits(2))
    world.object("benefits", 2, "chief_r")
    row = world.state.get(world.ledger.paths("rules", components))
    rule = "rules-head-leaf" if len(components) == 1 else "adoption-leaf"
    pycddl.Schema(f"start = {rule}\n{CDDL}").validate_cbor(decode_single(row.value)[2])
