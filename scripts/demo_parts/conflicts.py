"""Scenes 1 and 2: several offices on one record, and a decision whose ground has moved."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import trio

from comity.drafting import Call
from comity.results import Decision, Entry
from consensus.codec import Value
from scripts.benefits import MONTH_ZERO_2026, Case
from scripts.demo_parts.cast import Cast, Office
from scripts.demo_parts.story import Story, money

CLERK = "registry/clerk-north"
CITIZEN = "registry/citizen"
PERIOD = MONTH_ZERO_2026 + 7
"""August 2026."""


@dataclass(frozen=True, slots=True)
class Hired:
    """Somebody admitted while the network runs."""

    office: Office
    principal: bytes
    key: bytes


async def admit(story: Story, cast: Cast, case: Case) -> Hired:
    """Have the Civil Registry admit a citizen and a new official; return the official."""
    caregiver = case.household.caregiver
    story.scene(
        "Before: the Civil Registry admits a citizen and a new official",
        "People get keys and roles while the network runs",
    )
    administrator = await cast.office("registry/administrator")
    citizen, clerk = secrets.token_bytes(32), secrets.token_bytes(32)
    citizen_key = cast.new_key("registry", "citizen").public
    clerk_key = cast.new_key("registry", "clerk-north").public
    now_ms = await administrator.client.now_ms()
    first = await administrator.act(
        _charter("add_principal", citizen, kind="citizen", person=[caregiver.token]),
        _charter("add_key", citizen, key=citizen_key),
    )
    story.claim(
        f"{caregiver.given_name} {caregiver.family_name} is admitted, with a key",
        seen=first.code,
        expected="APPLIED",
    )
    role: dict[str, Value] = {"role": "identity.officer", "scope": ["region", "north"]}
    second = await administrator.act(
        _charter("add_principal", clerk, kind="official", subject=secrets.token_bytes(32)),
        _charter("add_key", clerk, key=clerk_key),
        _charter("give_role", clerk, **role, **{"from": now_ms}),
    )
    story.claim(
        "a clerk is admitted with a key and the role identity.officer for the north",
        seen=second.code,
        expected="APPLIED",
    )
    await cast.office(CITIZEN, "social")
    return Hired(await cast.office(CLERK, "integrity"), clerk, clerk_key)


def _charter(action: str, principal: bytes, **inputs: Value) -> Call:
    return Call("charter", action, {"agency": "registry", "principal": principal, **inputs})


# --- scene 1 ------------------------------------------------------------------------------------


async def same_record(story: Story, cast: Cast, case: Case) -> None:
    """Two offices change different fields, then the same field, of one person at once."""
    story.scene(
        "1. A citizen and an office change one record at the same time",
        "1. Different fields of a record: both succeed; the same field: the second is STALE",
    )
    person = case.household.caregiver
    citizen = cast.offices[CITIZEN]
    officer = await cast.office("registry/officer-north")
    auditor = await cast.office("integrity/auditor")
    before = await auditor.entry("record", "person", person.token)

    story.tell(
        "the citizen, at the node of Social Services, gives a new address; the office, at the node "
        f"of the Civil Registry, corrects the name; both have read version {before.version}"
    )
    moved, renamed = await _together(
        (citizen, _move_house(person.token, "4 Orchard Way", "Castle Fen")),
        (officer, _correct_name(person.token, "Davina", person.family_name)),
    )
    story.claim(
        "different fields: both succeed",
        seen=(moved.code, renamed.code),
        expected=("APPLIED", "APPLIED"),
    )
    after = await auditor.entry("record", "person", person.token)
    story.claim(
        "the record, read with proof at a third node, has both changes, two versions on",
        seen=(after.fields["address"], after.fields["name"], after.version),
        expected=(
            ["4 Orchard Way", "Castle Fen"],
            ["Davina", person.family_name],
            before.version + 2,
        ),
    )

    story.tell("now both give a new address, on the same reading")
    calls = {
        citizen.name: (citizen, _move_house(person.token, "12 Mill Lane", "Dunhaven")),
        officer.name: (officer, _correct_address(person.token, "4a Orchard Way", "Castle Fen")),
    }
    decisions = dict(zip(calls, await _together(*calls.values()), strict=True))
    codes = sorted(each.code for each in decisions.values())
    story.claim(
        "the same field: one succeeds, one is STALE", seen=codes, expected=["APPLIED", "STALE"]
    )
    loser = next(name for name, each in decisions.items() if each.code == "STALE")
    who = "the citizen" if loser == citizen.name else "the office"
    story.claim(
        f"{who} is told the record, its current version {after.version + 1}, and the fields",
        seen=decisions[loser].detail,
        expected=[["person", [person.token]], after.version + 1, ["street", "town"]],
    )
    office, call = calls[loser]
    again = await office.act(call)
    story.claim(f"{who} reads again, and succeeds", seen=again.code, expected="APPLIED")
    last = await auditor.entry("record", "person", person.token)
    story.claim(
        "the address is the one given last, and nothing else has changed",
        seen=(last.fields["address"], last.fields["name"], last.version),
        expected=(
            [call.inputs["street"], call.inputs["town"]],
            after.fields["name"],
            after.version + 2,
        ),
    )


async def _together(*acts: tuple[Office, Call]) -> list[Decision]:
    """Let everybody read first, then submit at the same time."""
    reads = [await office.read(call) for office, call in acts]
    decisions: dict[int, Decision] = {}

    async def submit(index: int, office: Office, call: Call, seen: tuple[Entry, ...]) -> None:
        decisions[index] = await office.send(call, reads=seen)

    async with trio.open_nursery() as nursery:
        for index, ((office, call), seen) in enumerate(zip(acts, reads, strict=True)):
            nursery.start_soon(submit, index, office, call, seen)
    return [decisions[index] for index in range(len(acts))]


def _move_house(token: bytes, street: str, town: str) -> Call:
    return Call("identity", "move_house", {"person": [token], "street": street, "town": town})


def _correct_address(token: bytes, street: str, town: str) -> Call:
    return Call("identity", "correct_address", {"person": [token], "street": street, "town": town})


def _correct_name(token: bytes, given: str, family: str) -> Call:
    inputs: dict[str, Value] = {"person": [token], "given_name": given, "family_name": family}
    return Call("identity", "correct_name", inputs)


# --- scene 2 ------------------------------------------------------------------------------------


async def moved_basis(story: Story, cast: Cast, case: Case) -> Case:
    """A fact changes after an entitlement rested on it; return the case as determined anew."""
    story.scene(
        "2. A person's status changes after the entitlement was determined",
        "2. A payment on facts that have changed is refused, and passes once they are judged anew",
    )
    child = case.household.child
    registrar = await cast.office("registry/registrar")
    caseworker = await cast.office("social/officer-north")
    paymaster = await cast.office("treasury/paymaster")
    auditor = await cast.office("integrity/auditor")
    payment = Call("payments", "disburse", {"entitlement": case.id, "period": PERIOD})

    story.tell(
        "the Treasury has read the entitlement and drafts the payment of a month; meanwhile the "
        "Civil Registry records that the child has moved abroad"
    )
    seen = await paymaster.read(payment)
    left = await registrar.act(Call("identity", "leave_country", {"person": [child.token]}))
    story.claim("the Civil Registry sets the status", seen=left.code, expected="APPLIED")
    refused = await paymaster.send(payment, reads=seen)
    story.claim(
        "the payment is refused with BASIS_MOVED, naming the child's status",
        seen=(refused.code, refused.detail),
        expected=("BASIS_MOVED", [["person", [child.token]], "status"]),
    )
    entitlement = await auditor.entry("record", "entitlement", child.token)
    story.claim(
        "although the entitlement itself never changed",
        seen=(entitlement.version, entitlement.fields["monthly"]),
        expected=(case.entitlement.version, case.household.monthly),
    )
    inputs: dict[str, Value] = {"entitlement": case.id, "monthly": 12_500}
    anew = await caseworker.act(Call("benefits", "redetermine", inputs))
    story.claim(
        f"Social Services determines it anew: {money(12_500)} while the child lives abroad",
        seen=anew.code,
        expected="APPLIED",
    )
    account = ("payee", [case.household.caregiver.token])
    had = await auditor.entry("account", *account)
    paid = await paymaster.act(payment)
    has = await auditor.entry("account", *account)
    story.claim(
        "the payment goes through, at the new amount",
        seen=(paid.code, has.value[1] - had.value[1]),
        expected=("APPLIED", 12_500),
    )
    return Case(case.household, await auditor.entry("record", "entitlement", child.token))
