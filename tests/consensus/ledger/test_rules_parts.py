"""Parts and identities: a change to one action disturbs that action alone."""

from __future__ import annotations

import pytest

from consensus.errors import ProofError
from consensus.ledger.rules import (
    ACTION_PART,
    HEAD,
    KIND_PART,
    PARAMETER,
    RULE_PARTS,
    load_toml,
    part_path,
    parts,
    parts_root,
)
from tests.consensus.ledger.rule_texts import BENEFITS, edited, rulebook

Ids = dict[tuple[str, str], bytes]


def identities(**changed: str) -> Ids:
    book = rulebook(**changed)
    return {
        (domain, name): action.action_id
        for domain, rules in book.rule_sets.items()
        for name, action in rules.actions.items()
    }


BEFORE = identities()


def moved(domain: str, old: str, new: str) -> set[str]:
    after = identities(**{domain: edited(domain, old, new)})
    return {f"{d}.{n}" for d, n in BEFORE.keys() | after.keys()
            if BEFORE.get((d, n)) != after.get((d, n))}  # fmt: skip


def test_every_action_has_an_identity_of_its_own() -> None:
    assert len(set(BEFORE.values())) == len(BEFORE)
    assert all(len(each) == 32 for each in BEFORE.values())


@pytest.mark.parametrize(
    ("domain", "old", "new", "expected"),
    [
        # an action: only itself
        ("benefits", '"the person is dead"', '"the person has died"', {"benefits.grant"}),
        ("benefits", "section 4", "section 5", {"benefits.grant"}),
        ("charter", "another agency's key", "not your key", {"charter.revoke_key"}),
        # number, legal basis, a parameter's values, exports nobody reads: none
        ("benefits", "number = 12", "number = 13", set()),
        ("benefits", "Child Benefit Act", "Children Act", set()),
        ("benefits", "value = 100", "value = 101", set()),
        ("identity", '"licence"]', '"licence", "person.died"]', set()),
        # a parameter's type: those that read it
        ("benefits", 'type = "int", values', 'type = "money:USD", values', {"benefits.grant"}),
        # an own kind: those that use it
        ("benefits", "[kinds.revision]", "[kinds.revision]\nfields.extra = { type = 'int', "
         "optional = true }", {"benefits.approve"}),
        ("benefits", "fields.monthly = {", "fields.extra = { type = 'int', optional = true }\n"
         "fields.monthly = {", {"benefits.grant", "benefits.approve", "benefits.suspend"}),
        ("identity", 'hold_by = ["payments"]', 'hold_by = ["payments", "tax"]',
         {"identity.register", "identity.move_house"}),
        # a foreign kind: only what is read of it
        ("identity", 'fields.income  = { type = "money", currency = "USD" }',
         'fields.income  = { type = "money", currency = "EUR" }',
         {"identity.register", "identity.move_house"}),
        ("identity", "dead = [] }", 'dead = ["alive"] }',
         {"identity.register", "identity.move_house", "benefits.grant"}),
        ("benefits", 'fields.person  = { type = "ref", kind = "person" }',
         'fields.person  = { type = "ref", kind = "person", optional = true }',
         {"benefits.grant", "benefits.approve", "benefits.suspend", "payments.disburse"}),
        # accounts: name, owner and currency, not the floor
        ("payments", "floor = -500", "floor = 0", set()),
    ],
)  # fmt: skip
def test_change_moves_exactly_the_actions_that_depend_on_it(
    domain: str, old: str, new: str, expected: set[str]
) -> None:
    assert moved(domain, old, new) == expected


def test_adding_an_action_moves_no_other() -> None:
    new = '[actions.note]\nactor = { role = "a.b" }\n\n[actions.grant]'
    assert moved("benefits", "[actions.grant]", new) == {"benefits.note"}


def test_the_same_action_of_another_name_has_another_identity() -> None:
    assert moved("benefits", "[actions.suspend]", "[actions.halt]") == {
        "benefits.suspend",
        "benefits.halt",
    }


def test_parts_come_in_the_documented_order() -> None:
    found = [(part.part_class, part.name) for part in parts(load_toml(BENEFITS))]
    assert found == [
        (HEAD, ""), (PARAMETER, "large"), (PARAMETER, "rates"), (KIND_PART, "entitlement"),
        (KIND_PART, "revision"), (ACTION_PART, "approve"), (ACTION_PART, "grant"),
        (ACTION_PART, "suspend"),
    ]  # fmt: skip


def test_one_part_is_proved_against_the_root_and_no_other_is() -> None:
    definition = load_toml(BENEFITS)
    root = parts_root(definition)
    leaves = {part.name: part.leaf for part in parts(definition)}
    index, count, path = part_path(definition, ACTION_PART, "grant")
    RULE_PARTS.verify_path(root, count, index, leaves["grant"], path)
    for name in ("approve", "entitlement"):
        with pytest.raises(ProofError):
            RULE_PARTS.verify_path(root, count, index, leaves[name], path)


def test_a_part_that_does_not_exist_has_no_path() -> None:
    with pytest.raises(KeyError):
        part_path(load_toml(BENEFITS), KIND_PART, "grant")


def test_the_root_changes_with_every_part() -> None:
    changes = ["number = 12", "Child Benefit Act", "value = 100", '"sealed:', "section 4"]
    roots = {parts_root(load_toml(BENEFITS))}
    for old in changes:
        new = old.replace("12", "13").replace("Act", "Law").replace("100", "1")
        new = new.replace('"sealed:', '"sealed:x,').replace("section 4", "")
        roots.add(parts_root(load_toml(edited("benefits", old, new))))
    assert len(roots) == len(changes) + 1
