"""Committees of four and seven follow each other, with too many cut off where they meet.

As a change is agreed on, ``f + 1`` of the committee lose all their links to the others, so the
block of the change's time cannot be certified; only after that time they are connected again.
Clients go on meanwhile. In the end a checker that shares no code with the product holds what they
were told against the logs of all nodes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
import trio

from consensus.codec import Value
from consensus.genesis import OpeningBalance
from scripts import localmembers
from scripts.localmembers import Newcomer, Town
from tests.network.harness.history import Recorder
from tests.network.harness.load import Load, verdict
from tests.network.harness.network import relays_between
from tests.network.harness.relay import Relays
from tests.network.town import (
    NAMES,
    OPENING,
    PEOPLE,
    RULES,
    TUNING,
    WALLETS,
    agreed,
    eventually,
    metric,
    status,
    until,
)

pytestmark = [pytest.mark.process, pytest.mark.long]

JOINING = ("harbour", "court", "forest")
NOTICE_MS = 5000
"""Long enough to cut nodes off between what was agreed on and its time."""
PAUSE_SECONDS = 0.02
TIMEOUTS = "comity_consensus_timeouts_total"


@dataclass
class Scene:
    town: Town
    newcomers: Sequence[Newcomer]
    relays: Relays
    load: Load


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Four that run, three that follow, relays between all, and clients that write down all."""
    folder = tmp_path_factory.mktemp("boundaries")
    accounts = [OpeningBalance("wallet", (number,), OPENING) for number in range(2 * WALLETS)]
    town = localmembers.found(
        folder / "network", RULES, PEOPLE, accounts, tuning=TUNING, notice_ms=NOTICE_MS
    )
    newcomers = [town.add(name, "joining", tuning=TUNING) for name in JOINING]
    with (
        relays_between(town.network) as relays,
        town.network as network,
        Recorder(folder / "history.jsonl") as recorder,
    ):
        network.start_all()
        yield Scene(town, newcomers, relays, Load(network, recorder, 1, PAUSE_SECONDS))


async def change(
    scene: Scene, members: Sequence[str], cut: Sequence[str], changes: Sequence[list[Value]]
) -> None:
    """Have a committee of ``members`` agree on changes while ``cut`` lose their links."""
    quorum = len(members) - (len(members) - 1) // 3
    assert len(cut) == len(members) - quorum + 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cut_off, scene, members, cut)
        await scene.town.change(*changes, by=members[:quorum])


async def cut_off(scene: Scene, members: Sequence[str], cut: Sequence[str]) -> None:
    """Cut nodes off once a change is to come, until its time is over and all gave up a round."""
    network = scene.town.network
    at_ms = await scene.town.coming(members[0])
    for name in cut:
        scene.relays.isolate(name)
    before = {name: await metric(network, name, TIMEOUTS) for name in members}
    epoch = (await status(network, members[0]))["epoch"]
    await until(lambda: time.time_ns() // 1_000_000 > at_ms, "the change's time")

    async def given_up() -> bool:
        return all([await metric(network, each, TIMEOUTS) > before[each] for each in members])

    await eventually(given_up, "every member gives up a round")
    assert {(await status(network, each))["epoch"] for each in members} == {epoch}
    scene.relays.heal()


async def begun(scene: Scene, epoch: int, members: Sequence[str]) -> None:
    """Wait until all of a committee are in its epoch, at one height with everything decided."""

    async def all_have() -> bool:
        said = [await status(scene.town.network, each) for each in members]
        return all(each.get("votes") and each["epoch"] == epoch for each in said)

    await eventually(all_have, f"{', '.join(members)} vote in epoch {epoch}")
    await agreed(scene.town.network, *members, height=scene.load.recorder.newest_height)


async def test_no_receipt_is_lost_or_doubled_where_committees_meet(scene: Scene) -> None:
    town, load, seven = scene.town, scene.load, (*NAMES, *JOINING)
    async with load.running():
        await load.grown(20, "in the committee of four")
        await change(scene, NAMES, NAMES[2:], [town.admission(each) for each in scene.newcomers])
        await load.grown(20, "in the committee of seven")
        await begun(scene, 2, seven)
        away = [NAMES[3], *JOINING[1:]]
        await change(scene, seven, away, [["leave", name] for name in JOINING])
        await load.grown(20, "in the committee of four again")
        await begun(scene, 3, NAMES)
    with trio.fail_after(60):
        found = await verdict(town.network, load.recorder, *NAMES, others=town.acts)
    assert found.complaints == []
    assert found.marks["epochs"] == 3
    assert found.marks["of others"] >= 2 * len(NAMES)
    assert found.marks["receipts"] >= 60, found.marks
    assert found.marks["reads"] >= 20, found.marks
