"""Links that fail, clocks that differ, a full disk and a liar, under clients who write down all.

One network goes through one fault after the other. At the end a checker that shares no code with
the product holds everything the clients were told against the log of every honest node.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import trio

from scripts.localnet import LocalNetwork
from tests.network.harness.disk import Disk, full_disk
from tests.network.harness.history import Recorder
from tests.network.harness.load import Load, verdict
from tests.network.harness.network import as_liar, relayed_town, with_clock
from tests.network.harness.relay import Relays
from tests.network.town import agreed, eventually, kill, metric, start, status

pytestmark = pytest.mark.process

PAUSE_SECONDS = 0.05
TIMEOUTS = "comity_consensus_timeouts_total"
LIAR = "integrity"
WRONG = "treasury"
"""The node whose clock is wrong for the first tests."""
CLOCK_MS = 60_000


@dataclass
class Scene:
    town: LocalNetwork
    relays: Relays
    disk: Disk
    load: Load
    clock_ms: int


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("faults")
    with (
        relayed_town(folder / "network") as (town, relays),
        full_disk(town, "social") as disk,
        town,  # its nodes end before their disk goes
        Recorder(folder / "history.jsonl") as recorder,
    ):
        with_clock(town, WRONG, CLOCK_MS)
        town.start_all()
        yield Scene(town, relays, disk, Load(town, recorder, 1, PAUSE_SECONDS), CLOCK_MS)


async def certified(town: LocalNetwork) -> list[int]:
    return [(await status(town, agency))["certified"] for agency in town.agencies]


async def given_up(town: LocalNetwork) -> None:
    """Wait until each node has given up one more round."""
    before = [await metric(town, agency, TIMEOUTS) for agency in town.agencies]

    async def all_have() -> bool:
        now = [await metric(town, agency, TIMEOUTS) for agency in town.agencies]
        return all(a > b for a, b in zip(now, before, strict=True))

    await eventually(all_have, "every node gives up a round")


async def connected(town: LocalNetwork, peers: int) -> None:
    """Wait until each node has links with so many others."""

    async def all_are() -> bool:
        counts = [await metric(town, a, "comity_peers_connected") for a in town.agencies]
        return counts == [peers] * len(counts)

    await eventually(all_are, f"every node has {peers} links")


async def whole(scene: Scene) -> None:
    """Wait until all nodes are at one height that has everything decided so far."""
    await agreed(scene.town, height=scene.load.recorder.newest_height)


async def votes(scene: Scene, agency: str) -> None:
    """Work that needs a node's vote, because another one stands still, is decided."""
    town = scene.town
    still = next(name for name in town.agencies if name != agency)
    others = [name for name in town.agencies if name != still]
    town.kill(still, signal.SIGSTOP)
    try:
        async with scene.load.running(2, others):
            await scene.load.grown(5, f"with the vote of {agency}")
    finally:
        town.kill(still, signal.SIGCONT)
    await whole(scene)


@pytest.mark.parametrize("offset_ms", [CLOCK_MS, -CLOCK_MS])
async def test_a_node_whose_clock_is_wrong_holds_up_no_others_and_is_seen(
    scene: Scene, offset_ms: int
) -> None:
    town = scene.town
    others = [agency for agency in town.agencies if agency != WRONG]
    await clock(scene, offset_ms)
    async with scene.load.running(3, others):
        await scene.load.grown(15, "beside a wrong clock")
        watch, watched = (others[0], WRONG) if offset_ms > 0 else (WRONG, others[0])

        async def seen() -> bool:
            skew = await metric(
                town, watch, "comity_consensus_clock_skew_seconds", validator=watched
            )
            return skew > CLOCK_MS / 2000

        await eventually(seen, "the difference of the clocks is measured")


async def clock(scene: Scene, offset_ms: int) -> None:
    """Have the one node run with a clock that is so wrong, and all be at one state."""
    if scene.clock_ms == offset_ms:
        return
    kill(scene.town, WRONG)
    with_clock(scene.town, WRONG, offset_ms)
    await start(scene.town, WRONG)
    scene.clock_ms = offset_ms
    if offset_ms == 0:
        await whole(scene)


async def test_a_node_that_is_cut_off_is_not_missed_and_catches_up(scene: Scene) -> None:
    await clock(scene, 0)
    async with scene.load.running():
        scene.relays.isolate("registry")
        await scene.load.grown(15, "without a node")
        scene.relays.heal()
        await scene.load.grown(10, "with it again")
    await whole(scene)


async def test_halves_of_a_network_certify_nothing_and_go_on_once_they_meet(scene: Scene) -> None:
    town = scene.town
    async with scene.load.running():
        scene.relays.separate(["registry", "social"], ["treasury", "integrity"])
        await given_up(town)
        before = await certified(town)
        await connected(town, 1)  # half-open links, of which nobody hears that they have ended
        assert await certified(town) == before
        scene.relays.heal()
        await scene.load.grown(15, "after the halves have met")
        await connected(town, 3)
    await whole(scene)


async def test_a_node_that_hears_and_is_not_heard_follows(scene: Scene) -> None:
    others = ["social", "treasury", "integrity"]
    async with scene.load.running(3, others):
        for other in others:
            scene.relays.cut("registry", other)
        await scene.load.grown(15, "without hearing a node")
        await agreed(scene.town, "registry", height=scene.load.recorder.newest_height)
        scene.relays.heal()
    await whole(scene)


async def test_slow_links_of_one_node_slow_nobody_down_for_good(scene: Scene) -> None:
    async with scene.load.running():
        for other in ("registry", "social", "integrity"):
            scene.relays.slow("treasury", other, 0.3, 50_000)
            scene.relays.slow(other, "treasury", 0.3, 50_000)
        await scene.load.grown(30, "beside slow links")
        scene.relays.heal()
    await whole(scene)
    await votes(scene, "treasury")


async def test_links_that_break_again_and_again_come_back(scene: Scene) -> None:
    async with scene.load.running():
        for turn in range(3):
            for other in ("social", "treasury", "integrity"):
                scene.relays.reset("registry", other)
            await scene.load.grown(5, f"after break {turn}")
    await whole(scene)


async def test_a_node_whose_disk_is_full_stops_signing_and_serves_again_once_it_has_room(
    scene: Scene,
) -> None:
    town, full = scene.town, "social"
    others = [agency for agency in town.agencies if agency != full]
    print(f"the disk is made full by {scene.disk.how}")
    async with scene.load.running(3, others):
        scene.disk.fill()

        async def told() -> bool:
            return await metric(town, full, "comity_storage_failed") == 1

        await eventually(told, "the node says that its disk has failed")
        said = await status(town, full)
        assert not said["ready"]
        assert "signing stopped" in town.log(full)
        await scene.load.grown(10, "beside a full disk")
        kill(town, full)
        scene.disk.free()
        await start(town, full)
    await whole(scene)
    await votes(scene, full)


async def test_a_liar_is_found_out_and_everything_told_in_all_this_is_true(scene: Scene) -> None:
    town, load = scene.town, scene.load
    others = [agency for agency in town.agencies if agency != LIAR]
    kill(town, LIAR)
    as_liar(town, LIAR, 1)
    town.start(LIAR)
    async with load.running(3, others):

        async def seen() -> bool:
            counts = [
                await metric(town, agency, "comity_consensus_equivocations_total")
                for agency in others
            ]
            return min(counts) > 0

        await eventually(seen, "each honest node has seen two faces")
        await load.grown(20, "beside a liar")
    await agreed(town, *others, height=load.recorder.newest_height)
    kill(town, LIAR)
    with trio.fail_after(60):
        found = await verdict(town, load.recorder, *others)
    assert found.complaints == []
    marks = ("receipts", "reads", "reads after a certificate", "ordered in real time")
    assert all(found.marks.get(name, 0) >= 100 for name in marks), found.marks
    assert found.marks.get("STALE", 0) + found.marks.get("INSUFFICIENT", 0) > 0, found.marks
