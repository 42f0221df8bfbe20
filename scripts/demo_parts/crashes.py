"""Scene 5: one node killed while everybody works, then all of them at once."""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from comity.drafting import Call
from comity.results import Decision
from consensus.codec import Value
from scripts.demo_parts.cast import Cast, Office, eventually
from scripts.demo_parts.story import Story
from scripts.register import REGIONS, Person

VICTIM: Final = "social"
WARM_COUNT: Final = 24
"""Decisions before the kill."""
DOWN_COUNT: Final = 40
"""Decisions that must come while the node is down."""
DOWN_SECONDS: Final = 3.0
"""How long it stays down at least."""
SECONDS_MAX: Final = 60.0


@dataclass(frozen=True, slots=True)
class Done:
    """A correction: who made it, when its certified decision came, how long that took."""

    officer: str
    at: float
    seconds: float
    decision: Decision


@dataclass(slots=True)
class Bustle:
    """Officers of four regions who correct addresses, each at another node, until told to stop."""

    officers: Sequence[tuple[Office, Sequence[Person]]]
    decided: list[Done] = field(default_factory=list)
    under_way: dict[str, float] = field(default_factory=dict)
    stopping: bool = False

    async def work(self, office: Office, people: Sequence[Person]) -> None:
        """Correct one address after the other."""
        turn = 0
        while not self.stopping:
            person = people[turn % len(people)]
            inputs: dict[str, Value] = {
                "person": [person.token],
                "street": f"{turn + 1} {person.street.partition(' ')[2]}",
                "town": person.town,
            }
            call = Call("identity", "correct_address", inputs)
            reads = await office.read(call)
            begun = self.under_way[office.name] = time.monotonic()
            decision = await office.send(call, reads=reads)
            del self.under_way[office.name]
            now = time.monotonic()
            self.decided.append(Done(office.name, now, now - begun, decision))
            turn += 1

    def since(self, moment: float) -> list[Done]:
        """Return what was decided after a moment."""
        return [each for each in self.decided if each.at > moment]

    async def until(self, count: int, since: float, what: str) -> None:
        """Wait for so many decisions after a moment.

        Raises:
            RuntimeError: they take longer than SECONDS_MAX.
        """

        async def enough() -> bool:
            return len(self.since(since)) >= count

        if await eventually(enough, SECONDS_MAX):
            return
        came = len(self.since(since))
        raise RuntimeError(f"{what}: {came} of {count} decisions came in {SECONDS_MAX:g} s")


async def crashes(story: Story, cast: Cast, people: Sequence[Person]) -> None:
    """Kill one node and bring it back, kill all and bring them back.

    Args:
        people: of all regions, whom nobody else works on.
    """
    story.scene(
        "5. Nodes are killed while work goes on",
        "5. A node is killed and work goes on; all are killed and no receipt is lost",
    )
    officers = []
    for region, node in zip(REGIONS, cast.network.agencies, strict=True):
        office = await cast.office(f"registry/officer-{region}", node)
        officers.append((office, [each for each in people if each.region == region]))
    bustle = Bustle(officers)
    with story.spinner("four officers at four nodes correct addresses, one after the other"):
        async with trio.open_nursery() as nursery:
            for office, theirs in officers:
                nursery.start_soon(bustle.work, office, theirs)
            await _one(story, cast, bustle)
            await _all(story, cast, bustle)
            bustle.stopping = True
    story.claim(
        f"all {len(bustle.decided)} corrections were applied, each once",
        seen=(
            {each.decision.code for each in bustle.decided},
            len({each.decision.txid for each in bustle.decided}),
        ),
        expected=({"APPLIED"}, len(bustle.decided)),
    )
    height, roots = await cast.same_root()
    story.claim(
        f"at height {height} all four nodes have one state root, {_first(roots)}…",
        seen=len(set(roots.values())),
        expected=1,
    )
    await _receipts(story, cast)


async def _one(story: Story, cast: Cast, bustle: Bustle) -> None:
    """Kill one node; claim that work goes on, and that it catches up."""
    network = cast.network
    title = network.member(VICTIM).title
    await bustle.until(WARM_COUNT, 0.0, "before the kill")
    usual = statistics.median(each.seconds for each in bustle.decided)
    killed = time.monotonic()
    network.kill(VICTIM)
    await bustle.until(DOWN_COUNT, killed, "while one node is down")
    await trio.sleep(max(0.0, killed + DOWN_SECONDS - time.monotonic()))
    down = time.monotonic() - killed
    missed = bustle.since(killed)
    story.claim(
        f"the node of {title} is killed (SIGKILL)",
        seen=network.processes[VICTIM].returncode,
        expected=-signal.SIGKILL,
    )
    median = statistics.median(each.seconds for each in missed)
    longest = max(each.seconds for each in missed)
    story.claim(
        f"in {down:.1f} s without it all four officers, one of whom used it, have {len(missed)} "
        "corrections certified",
        seen=len({each.officer for each in missed}),
        expected=len(bustle.officers),
    )
    story.tell(
        f"half of them took less than {median * 1000:.0f} ms, all less than "
        f"{longest * 1000 + 1:.0f} ms; with all nodes up, half took less than "
        f"{usual * 1000:.0f} ms (when it is the dead node's turn to lead, a round's time-out "
        "passes first)"
    )
    target = await _height(cast)
    begun = time.monotonic()
    network.start(VICTIM)
    await cast.ready(VICTIM)
    await cast.reached(VICTIM, target)
    mine = await cast.telemetry(VICTIM)
    took = time.monotonic() - begun
    story.within(
        f"restarted, it has recovered and caught up to height {mine['certified']} in {took:.1f} s",
        seen=int(mine["certified"]),
        low=target,
    )
    auditor = await cast.office("integrity/auditor")
    certified = int(mine["certified"])
    await cast.reached("integrity", certified)
    (height,) = await auditor.client.statements(certified)
    story.claim(
        f"with the state root that the others certified for it, {mine['state_root'][:16]}…",
        seen=mine["state_root"],
        expected=height.state_root.hex(),
    )
    story.figure(
        f"{len(missed)} certified in {down:.1f} s with a node down; caught up in {took:.1f} s"
    )


async def _height(cast: Cast) -> int:
    """Return the newest certified height that a node which lives knows."""
    others = [each for each in cast.network.agencies if each != VICTIM]
    return max([int((await cast.telemetry(each))["certified"]) for each in others])


async def _all(story: Story, cast: Cast, bustle: Bustle) -> None:
    """Kill all nodes at once; claim that what was under way ends well, and that work goes on."""
    network = cast.network
    await bustle.until(WARM_COUNT, time.monotonic(), "before all nodes are killed")

    async def busy() -> bool:
        return len(bustle.under_way) > 1

    await eventually(busy, SECONDS_MAX)
    killed = time.monotonic()
    waiting = len(bustle.under_way)
    for agency in network.agencies:
        network.processes[agency].send_signal(signal.SIGKILL)
    codes = {network.processes[each].wait(SECONDS_MAX) for each in network.agencies}
    before = len(cast.receipts.roots)
    story.claim(
        f"all four nodes are killed at once, {waiting} corrections under way, {before:,} receipts "
        "given",
        seen=codes,
        expected={-signal.SIGKILL},
    )
    for agency in network.agencies:
        network.start(agency)
    for agency in network.agencies:
        await cast.ready(agency)
    ready = time.monotonic()
    await bustle.until(1, ready, "after all nodes were killed")
    again = time.monotonic() - killed
    await bustle.until(WARM_COUNT, ready, "after all nodes were killed")
    story.within(
        f"restarted, they certify again {again:.1f} s after the kill, and work goes on",
        seen=len(bustle.since(ready)),
        low=WARM_COUNT,
    )
    story.figure(f"all four killed: certifying again after {again:.1f} s")


async def _receipts(story: Story, cast: Cast) -> None:
    """Claim that every receipt anybody ever got is on the ledger, where it says."""
    auditor = await cast.open("integrity/auditor", cast.network.key("integrity", "auditor"),
                              VICTIM, fallback=False)  # fmt: skip
    begun = time.monotonic()
    heights = await auditor.decisions_since(1)
    found = {
        (decision.height, decision.index): decision.root
        for height in heights
        for decision in height.decisions or ()
    }
    receipts = cast.receipts.roots
    lost = [place for place, root in receipts.items() if found.get(place) != root]
    story.claim(
        f"all {len(receipts):,} receipts ever given are still there, each at its height and "
        "position",
        seen=lost,
        expected=[],
    )
    decided = [decision for each in heights for decision in each.decisions or ()]
    applied = [decision.txid for decision in decided if decision.applied]
    story.claim(
        f"and of {len(decided):,} decisions, read with proof from the node that was killed twice, "
        "no two applied one transaction",
        seen=len(set(applied)),
        expected=len(applied),
    )
    story.tell(f"that took {time.monotonic() - begun:.1f} s")
    story.figure(f"{len(receipts):,} receipts checked, none lost")


def _first(roots: dict[str, str]) -> str:
    return next(iter(roots.values()))[:16]
