"""The generated register: the same for everybody, shaped like a real one."""

from __future__ import annotations

from collections import Counter

from scripts import register
from scripts.register import Person


def test_register_is_the_same_in_every_run() -> None:
    assert register.people(50) == register.people(50)
    assert register.people(50, seed=2) != register.people(50)


def test_first_person_is_the_one_written_down() -> None:
    (first,) = register.people(1)
    assert first == Person(
        token=bytes.fromhex("c24ac1cd0634adf46755a47ce6bf510186b204989ac42df96e046d11365bf5ae"),
        given_name="David",
        family_name="Wagner",
        street="17 Garden Row",
        town="Aldermoor",
        region="north",
    )


def test_longer_register_begins_as_the_shorter_one() -> None:
    assert register.people(300)[:100] == register.people(100)


def test_nobody_shares_a_token() -> None:
    people = register.people(2_000)
    assert len({each.token for each in people}) == 2_000
    assert {len(each.token) for each in people} == {32}


def test_regions_are_of_one_size_and_have_towns_of_their_own() -> None:
    people = register.people(2_000)
    assert Counter(each.region for each in people) == dict.fromkeys(register.REGIONS, 500)
    regions_of_town: dict[str, set[str]] = {}
    for each in people:
        regions_of_town.setdefault(each.town, set()).add(each.region)
    assert len(regions_of_town) == 16
    assert {len(regions) for regions in regions_of_town.values()} == {1}


def test_households_join_two_people_of_one_region_and_share_nobody() -> None:
    households = register.households(register.people(2_000), 500)
    members = [person for each in households for person in (each.caregiver, each.child)]
    assert len({person.token for person in members}) == 1_000
    assert all(each.caregiver.region == each.child.region for each in households)


def test_monthly_amounts_are_within_what_the_act_allows() -> None:
    amounts = {each.monthly for each in register.households(register.people(1_000), 500)}
    assert amounts == {15_000, 20_000, 25_000}
