"""The benefits programme as its offices load it: through ordinary transactions, in signed groups.

    registrars    enter people                            identity.register
    caseworkers   form households, determine benefits     benefits.form_household, determine
    payers        open the accounts that people are paid into   payments.open_payee

Every office is a client with a key of its own at a node of its choice. What one step makes, the
next one names at the version that its receipt gave: nothing is read that is known already. Rule
sets: ``configs/rules``. Used by the demonstration and the benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from comity.client import Client
from comity.drafting import Call
from comity.results import Decision, Entry
from consensus.codec import Value
from consensus.errors import ComityError
from consensus.protocol import StateKey
from scripts.register import Household, Person

GROUP_SIZE: Final = 250
"""Transactions signed and sent together. An office has one group under way: its sequence window
has room for 1,024 numbers, its node's pool for 8,192 transactions of one author."""
MONTH_ZERO_2026: Final = 2026 * 12
"""A month is counted from year 0; this is January 2026, the first that ``disburse`` accepts."""
OFFICE_ROLES: Final = (
    ("identity.registrar", ()),
    ("benefits.officer", (("region", "all"),)),
    ("payments.officer", (("region", "all"),)),
)
"""Roles with their scopes for one key that does everything, as benchmarks want it."""

Told = Callable[[str, Sequence[Decision]], None]
"""Hears of each decided group: what it does, and its decisions."""


class LoadError(ComityError):
    """A transaction of the load was refused. The message gives code and detail."""

    code = "LOAD_REFUSED"
    advice = "load into a new network, whose genesis gives the offices their roles"


@dataclass(frozen=True, slots=True)
class Offices:
    """Who loads the programme: clients with a key each, one or more for every task."""

    registrars: Sequence[Client]
    caseworkers: Sequence[Client]
    payers: Sequence[Client]

    @classmethod
    def everybody(cls, clients: Sequence[Client]) -> Offices:
        """Return offices of clients that all have OFFICE_ROLES."""
        return cls(clients, clients, clients)


@dataclass(frozen=True, slots=True)
class Case:
    """An entitlement on the ledger, of the child of a household, as its receipt left it."""

    household: Household
    entitlement: Entry

    @property
    def id(self) -> list[Value]:
        """Id of the entitlement, as ``ref`` inputs take it: that of the child."""
        return [self.household.child.token]

    def disbursement(self, period: int) -> tuple[Call, tuple[Entry, ...]]:
        """Return the payment of one month, and what its author knows.

        Args:
            period: months since year 0, from MONTH_ZERO_2026; paid once at most.
        """
        call = Call("payments", "disburse", {"entitlement": self.id, "period": period})
        return call, (self.entitlement, absent("payment", self.id, period))


def absent(kind: str, *components: Value) -> Entry:
    """Return what an author says of a record that must not exist."""
    return Entry(StateKey("record", (kind, *components)), 0, 0)


def made(decision: Decision, kind: str, *components: Value) -> Entry:
    """Return what an author knows of a record that its applied transaction has made."""
    key = StateKey("record", (kind, *components))
    height, time_ms = decision.height, decision.time_ms
    return Entry(key, height, time_ms, version=1, changed=height, present=True)


async def load(
    offices: Offices,
    people: Sequence[Person],
    households: Sequence[Household],
    told: Told | None = None,
) -> list[Case]:
    """Enter people, form households, open payees' accounts, determine entitlements.

    Args:
        offices: of a network that runs ``configs/rules`` and knows none of the people.
        people: all of them, those of ``households`` among them.
        households: a caregiver and an entitled child each; nobody is in two.
        told: is told of each group as it is decided.

    Returns:
        the case of each household, in their order.

    Raises:
        LoadError: a transaction was refused.
        ComityError: a group was not decided in time.

    Cost: one transaction a person and three a household; 1,000 to 3,000 a second on two cores.
    """
    report = told or _nobody
    entered = await _do(offices.registrars, "people", [_register(p) for p in people], report)
    known = {
        person.token: made(decision, "person", person.token)
        for person, decision in zip(people, entered, strict=True)
    }
    formed: list[Decision] = []

    async def form() -> None:
        acts = [_form_household(h, known[h.caregiver.token]) for h in households]
        formed.extend(await _do(offices.caseworkers, "households", acts, report))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(form)
        opened = [_open_payee(h) for h in households]
        nursery.start_soon(_do, offices.payers, "accounts", opened, report)
    acts = [
        _determine(h, known[h.child.token], made(decision, "household", h.caregiver.token))
        for h, decision in zip(households, formed, strict=True)
    ]
    determined = await _do(offices.caseworkers, "entitlements", acts, report)
    return [
        Case(household, made(decision, "entitlement", household.child.token))
        for household, decision in zip(households, determined, strict=True)
    ]


# --- what is sent -------------------------------------------------------------------------------

Act = tuple[Call, tuple[Entry, ...]]


def _register(person: Person) -> Act:
    inputs: dict[str, Value] = {
        "token": person.token,
        "given_name": person.given_name,
        "family_name": person.family_name,
        "street": person.street,
        "town": person.town,
        "region": person.region,
    }
    return Call("identity", "register", inputs), (absent("person", person.token),)


def _form_household(household: Household, caregiver: Entry) -> Act:
    token = household.caregiver.token
    call = Call("benefits", "form_household", {"caregiver": [token]})
    return call, (caregiver, absent("household", token))


def _open_payee(household: Household) -> Act:
    return Call("payments", "open_payee", {"person": [household.caregiver.token]}), ()


def _determine(household: Household, child: Entry, home: Entry) -> Act:
    inputs: dict[str, Value] = {
        "child": [household.child.token],
        "household": [household.caregiver.token],
        "monthly": household.monthly,
    }
    reads = (child, home, absent("entitlement", household.child.token))
    return Call("benefits", "determine", inputs), reads


# --- the same without a network, for what makes its own blocks --------------------------------


def entering(people: Iterable[Person]) -> list[Act]:
    """Return what enters people."""
    return [_register(person) for person in people]


def forming(households: Sequence[Household], known: Callable[..., Entry]) -> list[Act]:
    """Return what forms households and opens their payees' accounts.

    Args:
        known: gives what was made: kind and components of the id.
    """
    formed = [_form_household(h, known("person", h.caregiver.token)) for h in households]
    return [*formed, *(_open_payee(h) for h in households)]


def determining(households: Sequence[Household], known: Callable[..., Entry]) -> list[Act]:
    """Return what determines entitlements."""
    return [
        _determine(h, known("person", h.child.token), known("household", h.caregiver.token))
        for h in households
    ]


# --- how it is sent -----------------------------------------------------------------------------


async def _do(
    offices: Sequence[Client], what: str, acts: Sequence[Act], told: Told
) -> list[Decision]:
    """Submit acts in groups, shared among the offices; return their decisions in order."""
    chunks = [(first, acts[first : first + GROUP_SIZE]) for first in _starts(len(acts))]
    waiting = iter(chunks)
    decided: dict[int, list[Decision]] = {}

    async def work(office: Client) -> None:
        for first, chunk in waiting:
            decided[first] = await submit(office, chunk)
            told(what, decided[first])
            refuse_refusals(what, decided[first])

    async with trio.open_nursery() as nursery:
        for office in offices:
            nursery.start_soon(work, office)
    return [decision for first in _starts(len(acts)) for decision in decided[first]]


async def submit(office: Client, acts: Sequence[Act]) -> list[Decision]:
    """Submit acts of one office as one signed group; return each one's decision.

    Raises:
        ComityError: as ``Client.submit_group``.
    """
    drafts = [await office.draft(call, reads=reads) for call, reads in acts]
    return await office.submit_group(drafts)


def refuse_refusals(what: str, decisions: Iterable[Decision]) -> None:
    """Raise LoadError if a decision is not APPLIED."""
    for decision in decisions:
        if not decision.applied:
            raise LoadError(f"{what}: {decision.code} {decision.detail!r}")


def _starts(count: int) -> range:
    return range(0, count, GROUP_SIZE)


def _nobody(_what: str, _decisions: Sequence[Decision]) -> None:
    """Take no notice."""
