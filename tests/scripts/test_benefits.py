"""Loading the benefits programme against an honest twin of a node, under the real rule sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from comity import founding
from comity.results import Decision
from consensus.genesis import Genesis, OpeningBalance, RoleGiven
from scripts import benefits, register
from scripts.benefits import MONTH_ZERO_2026, OFFICE_ROLES, LoadError, Offices
from scripts.localnet import ROOT
from tests.comity.twin import Twin, harness, make_genesis

RULES = ROOT / "configs" / "rules"
BUDGET = 1_000_000
PEOPLE = register.people(24)
HOUSEHOLDS = register.households(PEOPLE, 8)


def programme(roles: Sequence[tuple[str, tuple[tuple[str, str], ...]]] = OFFICE_ROLES) -> Genesis:
    """The twin's network under the rule sets of the demonstration."""
    made = make_genesis()
    official = made.principals[0].id
    return replace(
        made,
        roles=tuple(RoleGiven(official, role, scope) for role, scope in roles),
        rules=tuple(founding.read_rules(RULES)),
        accounts=(OpeningBalance("programme", (), BUDGET),),
    )


async def test_load_makes_every_person_household_account_and_entitlement() -> None:
    told: Counter[str] = Counter()

    def hear(what: str, decisions: Sequence[Decision]) -> None:
        told[what] += sum(each.applied for each in decisions)

    async with harness(Twin(programme())) as h, h.client() as client:
        cases = await benefits.load(Offices.everybody([client]), PEOPLE, HOUSEHOLDS, hear)
        assert told == {"people": 24, "households": 8, "accounts": 8, "entitlements": 8}
        for case, household in zip(cases, HOUSEHOLDS, strict=True):
            held = await client.get("record", "entitlement", household.child.token)
            assert held.fields["monthly"] == household.monthly
            assert held.fields["caregiver"] == [household.caregiver.token]
            assert (held.version, held.changed) == (1, case.entitlement.changed)
        last = await client.get("record", "person", PEOPLE[23].token)
        assert last.fields["name"] == [PEOPLE[23].given_name, PEOPLE[23].family_name]


async def test_disbursement_of_a_loaded_case_pays_once() -> None:
    async with harness(Twin(programme())) as h, h.client() as client:
        cases = await benefits.load(Offices.everybody([client]), PEOPLE, HOUSEHOLDS)
        acts = [case.disbursement(MONTH_ZERO_2026) for case in cases[:2]]
        paid = await benefits.submit(client, acts)
        again = await benefits.submit(client, acts)
        assert [each.code for each in paid] == ["APPLIED", "APPLIED"]
        assert [each.code for each in again] == ["STALE", "STALE"]
        budget = await client.get("account", "programme")
        assert budget.value[1] == BUDGET - sum(each.monthly for each in HOUSEHOLDS[:2])


async def test_refused_load_ends_with_its_code() -> None:
    without = [each for each in OFFICE_ROLES if each[0] != "benefits.officer"]
    async with harness(Twin(programme(without))) as h, h.client() as client:
        with pytest.raises(ExceptionGroup) as caught:
            await benefits.load(Offices.everybody([client]), PEOPLE, HOUSEHOLDS)
        assert caught.group_contains(LoadError, match="households: NOT_AUTHORIZED")
