"""Duties that no one person may have: as roles are given, as acts are judged, across agencies."""

from __future__ import annotations

import cbor2
import pytest
from pycddl import Schema

from consensus.codec import Value
from consensus.errors import DecodeError, RulesError
from consensus.genesis import Principal, RoleGiven
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.genesis_state import genesis_state
from consensus.ledger.rules import (
    compile_rulebook,
    decode_definition,
    encode_definition,
    load_toml,
    parts_root,
)
from tests.consensus.ledger.test_rules_vectors import ROOT
from tests.consensus.ledger.world import (
    DEFAULT,
    TEXTS,
    World,
    make_genesis,
    person,
    register,
    token,
)

TRANSFER = ("payments.transfer", "a", "b", 1)
APART = 'separate = [["payments.clerk", "audit.reader"]]\n'


def with_separate(domain: str, line: str = APART) -> tuple[str, ...]:
    head = f'domain = "{domain}"\nnumber = 1\n'
    return tuple(text.replace(head, head + line) for text in TEXTS)


def twins() -> tuple[Principal, ...]:
    """Everybody, and ``twin`` at audit, who is the person that ``clerk`` is at the treasury."""
    subject = token("subject clerk")
    found = [
        Principal(each.id, each.agency, 0, subject) if each.id == token("clerk") else each
        for each in DEFAULT.principals
    ]
    return (*found, Principal(token("twin"), "audit", 0, subject))


def make(domain: str = "payments", line: str = APART, *roles: RoleGiven) -> World:
    texts = with_separate(domain, line)
    return World(make_genesis(texts, principals=twins(), roles=(*DEFAULT.roles, *roles)))


def give(
    world: World, agency: str, name: str, role: str, start_ms: int = 0, until_ms: int | None = None
) -> Decision:
    expects = [("role", [token(name), role], 0)]
    inputs: list[Value] = [agency, token(name), role, [], start_ms, until_ms]
    return world.do("admin", "charter.give_role", *inputs, expects=expects)


def test_a_role_is_not_given_to_a_person_who_has_the_other_one_at_the_same_agency() -> None:
    world = make(line='separate = [["payments.clerk", "payments.officer"]]\n')
    refused = give(world, "treasury", "clerk", "payments.officer")
    sentence = "the person has payments.clerk, which excludes payments.officer"
    assert (refused.code, refused.detail) == (Code.REQUIREMENT, ["SEPARATE", sentence])
    assert give(world, "treasury", "clerk", "payments.reader").code == Code.APPLIED


def test_a_person_is_the_same_behind_principals_of_several_agencies() -> None:
    world = make("payments", APART, RoleGiven(token("twin"), "audit.reader"))
    refused = world.do("clerk", *TRANSFER)
    apart = [["apart", "payments.clerk", "audit.reader"]]
    assert (refused.code, refused.detail) == (Code.NOT_AUTHORIZED, apart)


def test_who_holds_only_one_of_the_roles_acts_as_ever() -> None:
    assert make().do("clerk", *TRANSFER).code == Code.APPLIED


def test_the_other_role_counts_only_while_it_is_live() -> None:
    start = DEFAULT.time_ms + 10_000
    given = RoleGiven(token("twin"), "audit.reader", (), start, start + 10_000)
    world = make("payments", APART, given)
    assert world.do("clerk", *TRANSFER).code == Code.APPLIED
    world.now_ms = start - 1001
    assert world.do("clerk", *TRANSFER).code == Code.APPLIED
    assert world.do("clerk", *TRANSFER).code == Code.NOT_AUTHORIZED
    world.now_ms = start + 9_000
    assert world.do("clerk", *TRANSFER).code == Code.APPLIED


def test_a_role_given_in_the_same_block_counts_at_once() -> None:
    anywhere = TEXTS[0].replace(', where = "who.agency == input.agency"', "")
    world = World(make_genesis((anywhere, *with_separate("payments")[1:]), principals=twins()))
    inputs: list[Value] = ["audit", token("twin"), "audit.reader", [], 0, None]
    expects = [("role", [token("twin"), "audit.reader"], 0)]
    result = world.run(
        world.draft("clerk", TRANSFER),
        world.draft("admin", ("charter.give_role", *inputs), expects=expects),
        world.draft("clerk", TRANSFER),
    )
    codes = [each.code for each in result.decisions]
    assert codes == [Code.APPLIED, Code.APPLIED, Code.NOT_AUTHORIZED]


def test_roles_whose_intervals_never_meet_may_both_be_given() -> None:
    line = 'separate = [["payments.officer", "payments.reader"]]\n'
    world = make(line=line)
    now = world.now_ms
    assert give(world, "treasury", "clerk", "payments.officer", 0, now).code == Code.APPLIED
    assert give(world, "treasury", "clerk", "payments.reader", now).code == Code.APPLIED
    world = make(line=line)
    assert give(world, "treasury", "clerk", "payments.officer", 0, now + 1).code == Code.APPLIED
    assert give(world, "treasury", "clerk", "payments.reader", now).code == Code.REQUIREMENT


def test_a_revoked_role_excludes_nothing() -> None:
    world = make(line='separate = [["payments.clerk", "payments.officer"]]\n')
    revoke = ("charter.revoke_role", "treasury", token("clerk"), "payments.clerk")
    assert world.do("admin", *revoke).code == Code.APPLIED
    assert give(world, "treasury", "clerk", "payments.officer").code == Code.APPLIED


def test_a_rule_set_binds_roles_of_its_own_domain_alone() -> None:
    line = 'separate = [["benefits.officer", "payments.clerk"]]\n'
    both = RoleGiven(token("twin"), "benefits.officer")
    assert make("benefits", line, both).do("clerk", *TRANSFER).code == Code.APPLIED
    assert make("payments", line, both).do("clerk", *TRANSFER).code == Code.NOT_AUTHORIZED
    assert make("charter", line, both).do("clerk", *TRANSFER).code == Code.NOT_AUTHORIZED


def test_a_principal_that_is_added_later_is_known_as_the_same_person() -> None:
    line = 'separate = [["payments.clerk", "payments.officer"]]\n'
    world = make(line=line)
    add = ("charter.add_principal", "treasury", token("second"), "official")
    expects = [("principal", [token("second")], 0)]
    added = world.do("admin", *add, token("subject clerk"), None, expects=expects)
    assert added.code == Code.APPLIED, added.detail
    assert give(world, "treasury", "second", "payments.officer").code == Code.REQUIREMENT


def test_a_person_has_a_bounded_number_of_principals() -> None:
    world = make()
    for number in range(14):
        name = f"more {number}"
        expects = [("principal", [token(name)], 0)]
        inputs: list[Value] = [token(name), "official", token("subject clerk"), None]
        made = world.do("admin", "charter.add_principal", "treasury", *inputs, expects=expects)
        assert made.code == Code.APPLIED
    expects = [("principal", [token("last")], 0)]
    inputs = [token("last"), "official", token("subject clerk"), None]
    refused = world.do("admin", "charter.add_principal", "treasury", *inputs, expects=expects)
    assert (refused.code, refused.detail) == (Code.LIMIT, "principals")


def test_a_genesis_with_too_many_principals_of_one_person_is_refused() -> None:
    more = [Principal(token(f"p{n}"), "audit", 0, token("one")) for n in range(17)]
    with pytest.raises(DecodeError, match="17 principals"):
        genesis_state(make_genesis(principals=(*DEFAULT.principals, *more)))


def test_the_refusal_rests_on_the_rules_that_say_so() -> None:
    """Whoever replays the decision needs the charter that keeps the roles apart."""
    world = make("charter", APART, RoleGiven(token("twin"), "audit.reader"))
    refused = world.do("clerk", *TRANSFER)
    full = cbor2.loads(refused.leaves["reads"])[0]
    read = [full[at : at + 32] for at in range(0, len(full), 64)]
    paths = world.ledger.paths
    for space, components in (
        ("rules", ["charter"]),
        ("rules", ["charter", 1]),
        ("subject", [token("subject clerk")]),
        ("role", [token("twin"), "audit.reader"]),
        ("role", [token("clerk"), "audit.reader"]),
    ):
        assert paths(space, components) in read, (space, components)


HEAD = 'domain = "payments"\nnumber = 1\nlegal_basis = "Act"\n'


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ('["payments.clerk"]', "two or more"),
        ('["payments.clerk", "payments.clerk"]', "two or more"),
        ("[]", "two or more"),
        ('["payments.clerk", "clerk"]', "is not a role"),
        ('["audit.reader", "audit.head"]', "belongs to domain payments"),
    ],
)
def test_groups_that_bind_nothing_are_refused_with_their_line(groups: str, said: str) -> None:
    with pytest.raises(RulesError, match=said) as refused:
        compile_rulebook([load_toml(f"{HEAD}separate = [{groups}]\n")])
    assert refused.value.line == 4


def test_groups_are_part_of_the_canonical_form_and_of_the_head() -> None:
    definition = load_toml(HEAD + APART)
    data = encode_definition(definition)
    Schema((ROOT / "docs/protocol/rules.cddl").read_text(encoding="utf-8")).validate_cbor(data)
    assert cbor2.loads(data)[1][9] == [["separate", [["payments.clerk", "audit.reader"]]]]
    assert decode_definition(data) == definition
    assert parts_root(definition) != parts_root(load_toml(HEAD))


# --- a person's own record, and officials ---------------------------------------------------------


def official_is(whom: str) -> tuple[Principal, ...]:
    """Everybody; ``registrar`` is the person whose record has the token of ``whom`` for its id."""
    return tuple(
        Principal(p.id, p.agency, p.kind, token(whom)) if p.id == token("registrar") else p
        for p in DEFAULT.principals
    )


def barred(principals: tuple[Principal, ...]) -> World:
    """A register in which nobody corrects the own name."""
    actor = 'actor  = { role = "identity.officer", where = "who.scope.region == person.region" }'
    new = actor.replace(" }", ', not = ["input.person"] }')
    texts = tuple(text.replace(actor, new) for text in TEXTS)
    assert texts != TEXTS
    world = World(make_genesis(texts, principals=principals))
    register(world, "ann")
    return world


def rename(world: World) -> Decision:
    expects = [("person", person("ann"), 1)]
    return world.do("registrar", "identity.rename", person("ann"), "Anna", expects=expects)


def test_an_official_is_the_person_whose_record_has_their_token_for_its_id() -> None:
    refused = rename(barred(official_is("ann")))
    assert (refused.code, refused.detail) == (Code.NOT_AUTHORIZED, [["not", "input.person"]])
    assert rename(barred(official_is("bob"))).code == Code.APPLIED


def test_who_is_barred_as_an_official_does_not_become_the_citizen() -> None:
    world = barred(official_is("ann"))
    call = ("identity.move_house", person("ann"), "Street", "Town")
    refused = world.do("registrar", *call, expects=[("person", person("ann"), 1)])
    assert (refused.code, refused.detail) == (Code.NOT_AUTHORIZED, [["self"]])


def test_an_official_and_the_citizen_with_the_same_token_are_one_person() -> None:
    citizen = Principal(token("ann's"), "registry", 2, None, (token("ann"),))
    others = tuple(each for each in official_is("ann") if each.id != citizen.id)
    roles = (*DEFAULT.roles, RoleGiven(citizen.id, "audit.reader"))
    line = 'separate = [["identity.officer", "audit.reader"]]\n'
    texts = with_separate("identity", line)
    world = World(make_genesis(texts, principals=(*others, citizen), roles=roles))
    refused = world.do("registrar", "identity.register", token("bob"), "Bob", "north")
    apart = [["apart", "identity.officer", "audit.reader"]]
    assert (refused.code, refused.detail) == (Code.NOT_AUTHORIZED, apart)
