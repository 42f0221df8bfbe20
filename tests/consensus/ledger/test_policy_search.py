"""Whether approvers suffice: against a judge that tries every way of assigning them to leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, count, product
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.codec import Value
from consensus.ledger.authority import Standing
from consensus.ledger.codes import Code, Refused
from consensus.ledger.layout import Agency, Principal
from consensus.ledger.model import Branch, Leaf, Policy
from consensus.ledger.policies import STEPS_MAX, Panel, why_lost


@dataclass(frozen=True)
class Person:
    """A principal: who it is, of which agency, with which roles."""

    principal: int
    name: str
    agency: str
    roles: frozenset[str]


@dataclass
class Asked:
    """A policy as the slow judge sees it: a leaf if there is a role."""

    role: str = ""
    number: int = 1
    """Of approvers, or of parts; 0: all parts."""
    distinct: str = ""
    author: bool = False
    parts: list[Asked] = field(default_factory=list)
    index: int = 0

    def leaves(self) -> Iterator[Asked]:
        """Every leaf in the order they are written."""
        if self.role:
            yield self
        for part in self.parts:
            yield from part.leaves()


# --- the slow judge -------------------------------------------------------------------------------

Chosen = dict[int, tuple[Person, ...]]


def brute(asked: Asked, author: Person, people: Sequence[Person]) -> bool:
    """Whether some choice of people for each leaf, or of nobody, satisfies the policy."""
    leaves = list(asked.leaves())
    around = {leaf.index: strict for leaf, strict in agency_leaves(asked, strict=False)}
    each: list[list[tuple[Person, ...]]] = []
    for leaf in leaves:
        able = [
            person
            for person in (author, *people)
            if leaf.role in person.roles
            and (leaf.author or person.name != author.name)
            and (leaf.author or not around[leaf.index] or person.agency != author.agency)
        ]
        each.append([(), *combinations(able, leaf.number)])
    for choice in product(*each):
        everybody = [person.principal for group in choice for person in group]
        if len(frozenset(everybody)) < len(everybody):
            continue
        if satisfied(asked, {leaf.index: who for leaf, who in zip(leaves, choice, strict=True)}):
            return True
    return False


def agency_leaves(asked: Asked, *, strict: bool) -> Iterator[tuple[Asked, bool]]:
    """Every leaf, and whether it or a branch around it wants different agencies."""
    strict = strict or asked.distinct == "agency"
    if asked.role:
        yield asked, strict
    for part in asked.parts:
        yield from agency_leaves(part, strict=strict)


def satisfied(asked: Asked, chosen: Chosen) -> bool:
    below = [person for leaf in asked.leaves() for person in chosen[leaf.index]]
    if asked.distinct:
        names = [each.agency if asked.distinct == "agency" else each.name for each in below]
        if len(frozenset(names)) < len(names):
            return False
    if asked.role:
        return bool(chosen[asked.index])
    # nobody is assigned below a part that is left out, so what breaks a rule there is not chosen
    met = sum(satisfied(part, chosen) for part in asked.parts)
    return met >= (asked.number or len(asked.parts))


# --- the judge under test -------------------------------------------------------------------------


def policy_of(asked: Asked, scopes: tuple[tuple[int, str], ...], numbers: Iterator[int]) -> Policy:
    if asked.distinct:
        scopes = (*scopes, (next(numbers), asked.distinct))
    if asked.role:
        return Leaf(
            asked.index, asked.role, None, asked.number, asked.distinct, scopes, asked.author,
            (), (), not_author_agency=False, when=None,
        )  # fmt: skip
    parts = tuple(policy_of(part, scopes, numbers) for part in asked.parts)
    return Branch(asked.number, parts, asked.distinct, None)


def standing(person: Person) -> Any:
    id_ = bytes([person.principal]) * 32
    subject = person.name.encode().ljust(32)
    return SimpleNamespace(
        known=True,
        fault=None,
        principal=Principal(id_, person.agency, 0, subject, None, 0),
        agency=Agency(person.agency, "", 0, 0),
        roles=person.roles,
    )


def power_of(standing: Any, role: str) -> Any:
    missing = [] if role in standing.roles else [["role", role, "missing"]]
    return SimpleNamespace(missing=missing, who={}, cbor=b"")


def panel(asked: Asked, author: Person, people: Sequence[Person]) -> Panel:
    view: Any = None
    power: Any = SimpleNamespace(agencies=())
    return Panel(
        view, policy_of(asked, (), count()), {}, standing(author), power,
        [standing(each) for each in people], power_of,
    )  # fmt: skip


def judged(asked: Asked, author: Person, people: Sequence[Person]) -> list[Value]:
    """What is missing; nothing if the policy is met."""
    try:
        fillings = panel(asked, author, people).judge()
    except Refused as refused:
        return list(refused.detail) if refused.code == Code.NEEDS_APPROVAL else [["?"]]
    by_leaf: Chosen = {leaf.index: () for leaf in asked.leaves()}
    for each in fillings:
        by_leaf[each.leaf] += ((author, *people)[each.approver],)
    assert satisfied(asked, by_leaf)
    principals = [each.approver for each in fillings]
    assert len(frozenset(principals)) == len(principals)
    return []


def cost(part: Value) -> int:
    """How many approvals more a missing part asks for at least."""
    match part:
        case ["role", _, more, _, _]:
            return int(more)
        case ["of", more, parts]:
            return sum(sorted(cost(each) for each in parts)[:more])
    raise AssertionError(part)


ROLES = ("a.x", "a.y", "a.z")
AGENCIES = ("k", "l", "m")
DISTINCT = st.sampled_from(["", "", "person", "agency"])


def people() -> st.SearchStrategy[list[Person]]:
    one = st.tuples(
        st.sampled_from(["ada", "bob", "cyd", "dan"]),
        st.sampled_from(AGENCIES),
        st.frozensets(st.sampled_from(ROLES), min_size=1),
    )
    return st.lists(one, min_size=1, max_size=5).map(
        lambda rows: [Person(number, *row) for number, row in enumerate(rows)]
    )


def policies() -> st.SearchStrategy[Asked]:
    leaf = st.builds(
        Asked,
        role=st.sampled_from(ROLES),
        number=st.integers(1, 2),
        distinct=DISTINCT,
        author=st.booleans(),
    )

    def branch(inner: st.SearchStrategy[Asked]) -> st.SearchStrategy[Asked]:
        return st.builds(
            lambda parts, number, distinct: Asked(
                "", min(number, len(parts)), distinct, parts=[replace(each) for each in parts]
            ),
            st.lists(inner, min_size=1, max_size=3),
            st.integers(0, 3),
            DISTINCT,
        )

    return st.recursive(leaf, branch, max_leaves=4).map(numbered)


def numbered(asked: Asked) -> Asked:
    def copy(each: Asked) -> Asked:
        return replace(each, parts=[copy(part) for part in each.parts])

    whole = copy(asked)
    for index, leaf in enumerate(whole.leaves()):
        leaf.index = index
    return whole


def strangers(number: int) -> list[Person]:
    """People who may do anything and are near to nobody."""
    return [
        Person(100 + each, f"stranger {each}", f"agency {each}", frozenset(ROLES))
        for each in range(number)
    ]


@settings(max_examples=300, deadline=None)
@given(policies(), people())
def test_policy_is_met_exactly_if_some_assignment_satisfies_it(
    asked: Asked, everybody: list[Person]
) -> None:
    author, *approvers = everybody
    missing = judged(asked, author, approvers)
    assert (missing == []) == brute(asked, author, approvers)


@settings(max_examples=150, deadline=None)
@given(policies(), people().map(lambda rows: rows[:3]))
def test_what_is_missing_is_as_little_as_can_be(asked: Asked, everybody: list[Person]) -> None:
    author, *approvers = everybody
    missing = judged(asked, author, approvers)
    needed = sum(map(cost, missing))
    if missing:
        assert not brute(asked, author, [*approvers, *strangers(needed - 1)])
        assert brute(asked, author, [*approvers, *strangers(needed)])


@settings(max_examples=200, deadline=None)
@given(policies(), people())
def test_whoever_would_complete_a_policy_has_nothing_against_approving(
    asked: Asked, everybody: list[Person]
) -> None:
    author, *approvers = everybody
    if len(approvers) < 1:
        return
    before = judged(asked, author, approvers[:-1])
    after = judged(asked, author, approvers)
    if sum(map(cost, after)) < sum(map(cost, before)):
        assert panel(asked, author, approvers).objection() == []


@settings(max_examples=100, deadline=None)
@given(policies(), people(), st.integers(0, 2))
def test_whoever_has_something_against_it_never_helps(
    asked: Asked, everybody: list[Person], number: int
) -> None:
    author, *approvers = everybody
    if approvers and panel(asked, author, approvers).objection():
        helped = [*strangers(number), *approvers[:-1]]
        with_last = judged(asked, author, [*helped, approvers[-1]])
        assert sum(map(cost, with_last)) == sum(map(cost, judged(asked, author, helped)))


def test_approver_who_approves_already_or_is_the_author_adds_nothing() -> None:
    author, sam, again = (Person(number, "sam", "k", frozenset(ROLES)) for number in (0, 1, 1))
    asked = Asked("a.x", 2)
    other = replace(sam, name="sue")
    assert panel(asked, author, [other, replace(other)]).objection() == [["twice"]]
    assert panel(asked, author, [again]).objection() == [["author"]]
    assert panel(asked, author, [other]).objection() == []
    unable = Person(2, "tom", "k", frozenset())
    assert panel(asked, author, [unable]).objection() == [["role", "a.x", "missing"]]


@pytest.mark.parametrize(
    ("code", "detail", "principal", "agency", "why"),
    [
        (Code.KEY_INACTIVE, "rotated", 0, 0, None),
        (Code.KEY_INACTIVE, "revoked", 0, 0, None),
        (Code.KEY_INACTIVE, "compromised", 0, 0, ["key", "compromised"]),
        (Code.KEY_INACTIVE, "rotated", 1, 0, ["suspended", "principal"]),
        (Code.KEY_INACTIVE, "revoked", 0, 1, ["suspended", "agency"]),
        (Code.SUSPENDED, "principal", 1, 0, ["suspended", "principal"]),
        (Code.SUSPENDED, "agency", 0, 1, ["suspended", "agency"]),
    ],
)
def test_approval_outlives_its_key_but_not_the_power_behind_it(
    code: Code, detail: str, principal: int, agency: int, why: Value
) -> None:
    found = standing(Person(1, "sam", "k", frozenset()))
    found.fault = Refused(code, [b"key", detail] if code == Code.KEY_INACTIVE else [detail, []])
    found.principal = found.principal._replace(status=principal)
    found.agency = found.agency._replace(status=agency)
    assert why_lost(found) == why


def test_key_that_nobody_knows_approves_nothing() -> None:
    assert why_lost(cast(Standing, SimpleNamespace(known=False))) == ["key", "unknown"]


# --- the bound ------------------------------------------------------------------------------------


def hard(size: int) -> tuple[Asked, Person, list[Person]]:
    """Two crowds of one person each who may fill either of two leaves: nothing can be cut short."""
    leaves = [Asked("a.x", size, "person"), Asked("a.y", size, "person")]
    both = frozenset(("a.x", "a.y"))
    crowd = [Person(1 + each, f"p{each % (size - 1)}", "k", both) for each in range(24)]
    return numbered(Asked(number=0, parts=leaves)), Person(0, "author", "m", frozenset()), crowd


def test_search_ends_at_its_bound_as_if_the_policy_were_not_met() -> None:
    missing = judged(*hard(8))
    assert missing[-1] == ["limit"]
    assert [part[:3] for part in missing[:-1]] == [["role", "a.x", 1], ["role", "a.y", 1]]


def test_bound_is_far_above_what_people_write() -> None:
    everybody = [Person(each, f"p{each}", f"a{each}", frozenset(ROLES)) for each in range(33)]
    leaves = [Asked(role, 5, "agency") for role in ROLES] + [Asked("a.x", 15, "person")]
    found = panel(numbered(Asked(number=0, parts=leaves)), everybody[0], everybody[1:])
    assert len(found.judge()) == 30
    assert found._steps > STEPS_MAX - 100


def test_too_few_people_are_found_without_a_search() -> None:
    everybody = [Person(each, f"p{each}", f"a{each}", frozenset(ROLES)) for each in range(20)]
    leaves = [Asked(role) for role in ROLES for _ in range(10)]
    missing = judged(numbered(Asked(number=0, parts=leaves)), everybody[0], everybody[1:])
    assert [part[2] for part in missing] == [1] * 11


def test_search_is_the_same_for_the_same_approvers() -> None:
    asked, author, crowd = hard(5)
    assert judged(asked, author, crowd) == judged(asked, author, crowd)


@pytest.mark.parametrize("number", [1, 2, 33])
def test_places_without_anybody_are_counted(number: int) -> None:
    asked = Asked("a.x", number)
    author = Person(0, "author", "m", frozenset())
    assert judged(asked, author, []) == [["role", "a.x", number, "", []]]


def test_reasons_are_given_for_some_of_many() -> None:
    author = Person(0, "author", "m", frozenset())
    crowd = [Person(1 + each, f"p{each}", "k", frozenset()) for each in range(20)]
    ((_, _, _, _, reasons),) = judged(Asked("a.x"), author, crowd)
    assert [why for _, why in reasons] == [["role", "a.x", "missing"]] * 8
