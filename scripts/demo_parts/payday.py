"""Scene 3: a payment job of five hundred payments while holds are placed.

The job is one signed group, handed over in parts as a bank takes a file. It is started twice: the
same bytes at two nodes, and once more by the standby paymaster, who has signed a group of its own.
Afterwards an auditor reads every decision since, with proof that none is missing, and does the
sums again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import trio

from comity.drafting import Call
from comity.results import Decision
from comity.session import Parcel
from consensus import codec
from consensus.codec import Value
from consensus.ledger import group
from consensus.ledger.transaction import Unsigned
from consensus.protocol import Item, StateKey
from scripts import benefits
from scripts.benefits import MONTH_ZERO_2026, Case
from scripts.demo_parts.cast import Cast, Office
from scripts.demo_parts.story import Story, money

PERIOD: Final = MONTH_ZERO_2026 + 8
"""September 2026."""
NEXT_PERIOD: Final = PERIOD + 1
PART_SIZE: Final = 16
LANES: Final = 2
"""Parts under way at once, at each node where the job runs."""
HELD_PER_THIRD: Final = 10
"""Persons held among those first, in the middle and last of the job."""
BEYOND: Final = 12
"""Payments of the next job that go beyond what the budget covers, about."""

Position = tuple[int, int]
"""Height and index of a decision: the order in which everything took effect."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one payment at both of its starts; ``held`` is when its hold took effect."""

    case: Case
    decisions: tuple[Decision, Decision]
    held: Position | None


async def payday(story: Story, cast: Cast, cases: Sequence[Case], opening: int) -> None:
    """Run the job, then audit it.

    Args:
        cases: all entitlements, as they are.
        opening: sum of all balances at genesis, in cents.
    """
    story.scene(
        f"3. {len(cases)} payments in one signed group, while holds are placed",
        "3. Every payment is made once, before the hold or not at all; the sum of money stays",
    )
    paymaster = await cast.office("treasury/paymaster")
    standby = await cast.office("treasury/standby", "registry")
    gateway = await cast.open("treasury/paymaster", paymaster.client.key, "social")
    auditor = await cast.office("integrity/auditor")
    begun = await auditor.entry("account", "programme")
    story.tell("the paymaster and the standby read every entitlement, each for itself, and sign")
    jobs: dict[str, list[Parcel]] = {}

    async def prepare(office: Office) -> None:
        jobs[office.name] = _signed_parts(office, await _drafts(office, cases, PERIOD))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(prepare, paymaster)
        nursery.start_soon(prepare, standby)
    story.tell(
        f"the job is one signed group of {len(cases)}, handed over in "
        f"{len(jobs[paymaster.name])} parts; it starts at the Treasury's node, with the same bytes "
        "at that of Social Services, and, signed by the standby, at the Civil Registry's"
    )
    story.tell(
        "meanwhile the Integrity Office freezes persons: first some who are paid last, then some "
        "who are paid first"
    )
    frozen = _to_freeze(cases)
    holds: dict[int, Decision] = {}
    results: dict[str, list[Decision]] = {}
    with story.progress(paymaster=len(cases), same_bytes_again=len(cases), standby=len(cases),
                        holds=len(frozen)) as advance:  # fmt: skip

        async def start(name: str, office: Office, parts: Sequence[Parcel]) -> None:
            results[name] = await _run_job(office, parts, advance[name])
            ended[name] = time.monotonic()

        begun_at, ended = time.monotonic(), dict[str, float]()
        async with trio.open_nursery() as nursery:
            own = jobs[paymaster.name]
            nursery.start_soon(start, "paymaster", paymaster, own)
            nursery.start_soon(start, "same_bytes_again", gateway, own)
            nursery.start_soon(start, "standby", standby, jobs[standby.name])
            nursery.start_soon(_freeze, cast, cases, frozen, holds, advance["holds"])

    story.claim(
        "started twice with the same bytes, every payment has one and the same decision",
        seen=[_receipt(each) for each in results["same_bytes_again"]],
        expected=[_receipt(each) for each in results["paymaster"]],
    )
    outcomes = [
        Outcome(case, (ours, theirs), _position(holds[i]) if i in holds else None)
        for i, (case, ours, theirs) in enumerate(
            zip(cases, results["paymaster"], results["standby"], strict=True)
        )
    ]
    _judge(story, outcomes)
    await _audit(story, auditor, cases, begun.height, begun.value[1], opening, outcomes)
    made = sum(any(each.applied for each in o.decisions) for o in outcomes)
    took = max(ended.values()) - begun_at
    story.figure(
        f"{made} payments in {took:.1f} s, {made / took:,.0f} a second, each asked for three times"
    )
    held = sum(each.held is not None for each in outcomes)
    story.figure(f"{held} holds placed meanwhile, {len(cases) - made} payments stopped by them")
    free = [case for index, case in enumerate(cases) if index not in holds]
    await _run_dry(story, auditor, standby, free)


# --- the job ------------------------------------------------------------------------------------


async def _drafts(office: Office, cases: Sequence[Case], period: int) -> list[Unsigned]:
    """Read entitlements and absences of payments, and draft on what was read."""
    wanted = [StateKey("record", ("entitlement", *case.id)) for case in cases]
    wanted += [StateKey("record", ("payment", case.id, period)) for case in cases]
    entries = await office.entries(wanted)
    drafts = []
    for case, entitlement, payment in zip(
        cases, entries[: len(cases)], entries[len(cases) :], strict=True
    ):
        call = Call("payments", "disburse", {"entitlement": case.id, "period": period})
        drafts.append(await office.draft(call, (entitlement, payment)))
    return drafts


def _signed_parts(office: Office, drafts: Sequence[Unsigned]) -> list[Parcel]:
    """Sign all drafts with one signature; return the parts, in order."""
    client = office.client
    key = client.key
    if key is None:
        raise ValueError("an office without a key signs nothing")
    message = group.group_message(client.chain, len(drafts), group.group_root(drafts))
    whole = group.build(drafts, [(key.public, key.sign(message))])
    return [
        Parcel(
            Item.GROUP,
            codec.encode(part.to_value()),
            tuple(each.txid for each in part.transactions),
        )
        for part in group.split(whole, PART_SIZE)
    ]


async def _run_job(
    office: Office, parts: Sequence[Parcel], advance: Callable[[int], None]
) -> list[Decision]:
    """Hand over the parts in order, LANES at a time; return all decisions in order."""
    waiting = iter(enumerate(parts))
    decided: dict[int, list[Decision]] = {}

    async def lane() -> None:
        for index, part in waiting:
            (row,) = await office.client.deliver([part])
            decided[index] = [each for each in row if isinstance(each, Decision)]
            if len(decided[index]) != len(row):
                raise RuntimeError(f"a node did not take a part of the job: {row}")
            office.receipts.keep(decided[index])
            advance(len(row))

    async with trio.open_nursery() as nursery:
        for _ in range(LANES):
            nursery.start_soon(lane)
    return [decision for index in range(len(parts)) for decision in decided[index]]


def _to_freeze(cases: Sequence[Case]) -> dict[int, bytes]:
    """Choose persons of cases by index: last ones of the job first. Caregivers and children."""
    size = len(cases)
    last = [size - 1 - 7 * n for n in range(HELD_PER_THIRD)]
    middle = [size // 2 + 7 * n for n in range(HELD_PER_THIRD)]
    first = [12 + 7 * n for n in range(HELD_PER_THIRD)]
    chosen: dict[int, bytes] = {}
    for index in (*last, *middle, *first):
        household = cases[index].household
        whom = household.child if index % 2 else household.caregiver
        chosen[index] = whom.token
    return chosen


async def _freeze(
    cast: Cast,
    cases: Sequence[Case],
    frozen: Mapping[int, bytes],
    holds: dict[int, Decision],
    advance: Callable[[int], None],
) -> None:
    investigator = await cast.office("integrity/investigator")
    for index, token in frozen.items():
        done = await investigator.act(Call("compliance", "freeze", {"person": [token]}))
        benefits.refuse_refusals(f"hold on a person of case {index} of {len(cases)}", [done])
        holds[index] = done
        advance(1)


# --- what is claimed ----------------------------------------------------------------------------


def _judge(story: Story, outcomes: Sequence[Outcome]) -> None:
    """Claim what became of every payment, one by one."""
    wrong = [reason for each in outcomes if (reason := _fault(each))]
    story.claim(
        "every payment took effect before the hold on its person, or was HELD after it",
        seen=wrong,
        expected=[],
    )
    story.claim(
        "every payment without a hold was made exactly once, whoever was first",
        seen=Counter(
            sum(decision.applied for decision in each.decisions)
            for each in outcomes
            if each.held is None
        ),
        expected=Counter({1: sum(each.held is None for each in outcomes)}),
    )
    held = [each for each in outcomes if each.held is not None]
    before = sum(any(decision.applied for decision in each.decisions) for each in held)
    story.within(
        f"of {len(held)} persons held, {before} had been paid before and {len(held) - before} were "
        "not paid: both happened",
        seen=min(before, len(held) - before),
        low=1,
    )
    first = Counter(
        name
        for each in outcomes
        for name, decision in zip(("paymaster", "standby"), each.decisions, strict=True)
        if decision.applied
    )
    late = Counter(
        decision.code for each in outcomes for decision in each.decisions if not decision.applied
    )
    ahead = ", ".join(f"the {name}'s {count}" for name, count in sorted(first.items()))
    told = ", ".join(f"{count} {code}" for code, count in sorted(late.items()))
    story.tell(f"applied: {ahead}; refused, of both jobs together: {told}")


def _fault(outcome: Outcome) -> str:
    """Return what is wrong with an outcome; empty if nothing is."""
    who = outcome.case.household.child.token.hex()[:8]
    applied = [each for each in outcome.decisions if each.applied]
    if len(applied) > 1:
        return f"{who}: paid twice"
    paid = _position(applied[0]) if applied else None
    if outcome.held is not None and paid is not None and paid > outcome.held:
        return f"{who}: paid at {paid}, after the hold at {outcome.held}"
    for each in outcome.decisions:
        at = _position(each)
        if each.applied:
            continue
        if each.code == "STALE":  # the other job was first
            if paid is None or at < paid or each.detail[0][0] != "payment":
                return f"{who}: STALE {each.detail} at {at}, paid at {paid}"
        elif each.code != "HELD" or outcome.held is None or at < outcome.held:
            return f"{who}: {each.code} {each.detail} at {at}, hold at {outcome.held}"
    return ""


async def _audit(
    story: Story,
    auditor: Office,
    cases: Sequence[Case],
    since: int,
    budget: int,
    opening: int,
    outcomes: Sequence[Outcome],
) -> None:
    """Do the sums again from every decision since a height, and from the balances now."""
    heights = await auditor.decisions_since(since + 1)
    everything = [decision for height in heights for decision in height.decisions or ()]
    lowest = balance = budget
    paid: Counter[bytes] = Counter()
    for decision in everything:
        if not decision.applied:
            continue
        leaves = decision.leaves
        for _, account, delta in leaves.get("moves:payments", []):
            if account == ["programme"]:
                balance += delta
                lowest = min(lowest, balance)
        paid.update(_payments_made(leaves))
    story.tell(
        f"the auditor reads all {len(everything)} decisions of heights {heights[0].height} to "
        f"{heights[-1].height}; their hashes prove that none is missing"
    )
    made = sum(any(each.applied for each in o.decisions) for o in outcomes)
    story.claim(
        f"{made} payments are in the record, none of them twice",
        seen=(sum(paid.values()), max(paid.values())),
        expected=(made, 1),
    )
    now = await auditor.entry("account", "programme")
    story.claim(
        f"decision by decision the budget leads from {money(budget)} to {money(now.value[1])}",
        seen=balance,
        expected=now.value[1],
    )
    story.within(f"and was never below {money(lowest)}", seen=lowest, low=0)
    payees = await auditor.entries(
        [StateKey("account", ("payee", [case.household.caregiver.token])) for case in cases]
    )
    story.claim(
        f"budget and {len(payees)} payees' accounts together hold {money(opening)}, as at genesis",
        seen=now.value[1] + sum(each.value[1] for each in payees),
        expected=opening,
    )


def _payments_made(leaves: Mapping[str, Any]) -> list[bytes]:
    return [
        codec.encode(place)
        for place, old, _, _, _ in leaves.get("writes:payments", [])
        if place[0] == "record" and place[1][0] == "payment" and old == 0
    ]


async def _run_dry(story: Story, auditor: Office, office: Office, cases: Sequence[Case]) -> None:
    """Pay another month to as many as the budget does not cover."""
    before: Value = (await auditor.entry("account", "programme")).value[1]
    due, count = 0, 0
    while count < len(cases) and due < before:
        due += cases[count].household.monthly
        count += 1
    cases = cases[: count + BEYOND]
    due = sum(case.household.monthly for case in cases)
    story.tell(f"another month for {len(cases)} of them, {money(due)}, out of {money(before)}")
    drafts = await _drafts(office, cases, NEXT_PERIOD)
    decisions = await office.client.submit_group(drafts)
    office.receipts.keep(decisions)
    codes = Counter(each.code for each in decisions)
    after = (await auditor.entry("account", "programme")).value[1]
    story.claim(
        f"{codes['APPLIED']} are paid, {codes['INSUFFICIENT']} refused as INSUFFICIENT",
        seen=(set(codes), codes.total()),
        expected=({"APPLIED", "INSUFFICIENT"}, len(cases)),
    )
    story.within(f"the budget ends at {money(after)}, not below zero", seen=after, low=0)


def _position(decision: Decision) -> Position:
    return decision.height, decision.index


def _receipt(decision: Decision) -> tuple[bytes, int, int, bytes]:
    return decision.txid, decision.height, decision.index, decision.root
