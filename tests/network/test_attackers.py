"""Each attacker of ``tests/byzantine`` as a real process among three honest ones.

In the simulator they meet the replica; here the links, queues, limits and workers too. What clients
are told is held against the honest nodes' logs by the checker that shares no code with them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from scripts.localnet import LocalNetwork
from tests.byzantine.attackers.table import ATTACKERS
from tests.network.harness.attack import SAID
from tests.network.harness.history import Recorder
from tests.network.harness.load import Load, verdict
from tests.network.harness.network import as_attacker
from tests.network.town import (
    agreed,
    eventually,
    found_town,
    kill,
    metric,
    start,
    status,
    until,
)

pytestmark = [pytest.mark.process, pytest.mark.long]

LIAR = "integrity"
HONEST = ("registry", "social", "treasury")
PAUSE_SECONDS = 0.05
EVIDENCE = {"equivocating leader", "equivocating voter", "wrong result voter"}
"""Of whose lies two signatures remain that contradict each other."""
FAULTS = {
    "stale replayer",
    "forged certificates",
    "epoch confuser",
    "evidence forger",
}
"""What these say costs them their links, whatever else happens."""
ORIGINS = {"withheld batch", "oversized and malformed payload"}
"""These lie about batches of their own, so some clients work through them."""


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Load]:
    folder = tmp_path_factory.mktemp("attackers")
    with found_town(folder / "network") as town, Recorder(folder / "history") as recorder:
        town.start_all()
        yield Load(town, recorder, 1, PAUSE_SECONDS)


async def total(town: LocalNetwork, name: str, **labels: str) -> float:
    """The sum of a metric over the honest nodes."""
    return sum([await metric(town, agency, name, **labels) for agency in HONEST])


def lied(town: LocalNetwork, name: str) -> int:
    """How many of the liar's processes have said that they lied in this way."""
    return town.log(LIAR).count(f"{SAID} {name}")


@pytest.mark.parametrize("name", ATTACKERS)
async def test_an_attacker_stops_nobody_and_nothing_false_is_told(load: Load, name: str) -> None:
    town = load.town
    kill(town, *town.agencies)
    await start(town, *HONEST)  # new processes, which this peer has not disappointed yet
    equivocations = await total(town, "comity_consensus_equivocations_total")
    faults = await total(town, "comity_peer_faults_total", peer=LIAR)
    before = lied(town, name)
    as_attacker(town, LIAR, name)
    if name in ORIGINS:
        await start(town, LIAR)  # before the clients choose whom to ask
    async with load.running(4, (LIAR, *HONEST) if name in ORIGINS else HONEST):
        if name not in ORIGINS:
            await load.grown(10, "while the liar is away")  # something for it to catch up with
            town.start(LIAR)
        if name == "sync liar":
            await served_by_the_liar(load)
        await until(lambda: lied(town, name) > before, f"the {name} lies")
        await load.grown(40, f"beside the {name}")
        if name in EVIDENCE:
            await counted(town, "comity_consensus_equivocations_total", equivocations)
        if name in FAULTS:
            await counted(town, "comity_peer_faults_total", faults, peer=LIAR)
    await agreed(town, *HONEST, height=load.recorder.newest_height)
    for agency in HONEST:
        assert "Traceback" not in town.log(agency)
        assert (await status(town, agency))["halted"] is None


async def served_by_the_liar(load: Load) -> None:
    """Have an honest node come back that asks for blocks, of which the liar serves some."""
    town = load.town
    await trio.to_thread.run_sync(town.wait_ready, LIAR)
    kill(town, "social")
    await load.grown(15, "while an honest node is away")
    await start(town, "social")


async def counted(town: LocalNetwork, name: str, before: float, **labels: str) -> None:
    """Wait until the honest count more."""

    async def more() -> bool:
        return await total(town, name, **labels) > before

    await eventually(more, f"{name} is counted")


async def test_what_clients_were_told_beside_all_of_them_is_the_log(
    load: Load,
) -> None:
    kill(load.town, LIAR)
    found = await verdict(load.town, load.recorder, *HONEST)
    assert found.complaints == []
    marks = ("receipts", "reads", "reads after a certificate", "ordered in real time")
    assert all(found.marks.get(name, 0) >= 100 for name in marks), found.marks
