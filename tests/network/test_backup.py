"""Backups of a node that works, put back elsewhere: certified, and never a voter again.

Nodes are real processes under load; the backups are made beside them, at moments that the load
chooses, not the test.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from comity.founding import CONFIG_NAME
from consensus.genesis import chain_id
from consensus.hotstuff import wire
from node.backup import making, restoring
from node.backup.manifest import Manifest
from node.recorded import block_of
from node.storage import readonly
from scripts.localnet import LocalNetwork
from tests.network.town import (
    AGENT,
    agreed,
    client,
    config_path,
    data,
    found_town,
    home,
    kill,
    metric,
    ready,
    start,
    status,
    until,
)
from tests.network.work import Books, working

pytestmark = pytest.mark.process

MOMENTS = 3
RATE = 4 * 2**20
"""Slow enough that the node goes on by several heights while it is copied."""
MARK = "signer.mark"


def silent(done: int, of: int) -> None:
    pass


def quiet(what: str, done: int, of: int) -> None:
    pass


@pytest.fixture(scope="module")
def books() -> Books:
    """What the load was told in this network, over all tests."""
    return Books()


@pytest.fixture(scope="module")
def own_town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    """A running network of this module's own."""
    with found_town(tmp_path_factory.mktemp("backups") / "network") as network:
        network.start_all()
        yield network


@pytest.fixture(scope="module")
def backups(own_town: LocalNetwork, books: Books, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Backups of a node under load, taken one after the other, the last one stopped."""
    folder = tmp_path_factory.mktemp("made")

    async def work() -> None:
        async with working(own_town, books):
            for number in range(MOMENTS):
                await books.grown(5, "between two backups")
                await trio.to_thread.run_sync(make, own_town, folder / f"{number}.tar", RATE)
        await agreed(own_town, height=books.height)

    trio.run(work)
    return folder


def make(town: LocalNetwork, target: Path, rate: int = 0) -> Manifest:
    return making.make(config_path(town, AGENT), target, silent, rate=rate).manifest


def new_machine(town: LocalNetwork, folder: Path) -> Path:
    """Another machine of the agency: its keys and configuration, other paths, no data."""
    shutil.copytree(home(town, AGENT), folder, ignore=shutil.ignore_patterns("data", "*.log"))
    return folder / CONFIG_NAME


async def test_backups_at_any_moment_under_load_lead_to_a_certified_root(
    own_town: LocalNetwork, backups: Path, books: Books, tmp_path: Path
) -> None:
    heights = []
    async with client(own_town) as reader:
        for number in range(MOMENTS):
            config = new_machine(own_town, tmp_path / str(number))
            found = restoring.restore(backups / f"{number}.tar", config, quiet, processes=0)
            statement = found.verified.certificate.statement
            heights.append(statement.height)
            (told,) = await reader.statements(statement.height)
            assert told.state_root == statement.state_root  # the whole network's, proved
            assert wire.decode_commit_cert(found.manifest.certificate).statement == statement
    assert heights == sorted(set(heights)), "the load went on between the backups"
    assert heights[-1] <= books.height


@pytest.mark.long
async def test_a_restored_node_follows_and_never_votes_whatever_is_put_beside_it(
    own_town: LocalNetwork, backups: Path, books: Books, tmp_path: Path
) -> None:
    town = own_town
    assert signed_by(town, AGENT, 1, tmp_path / "before")
    kill(town, AGENT)
    async with working(town, books):
        await books.grown(8, "without it")
    silent_from, _ = await agreed(town, *[name for name in town.agencies if name != AGENT])
    folder = data(town, AGENT)
    shutil.copytree(folder, tmp_path / "lost")  # what an old disk, or a thief, might still have
    old = tmp_path / "old.mark"
    shutil.copy(folder / MARK, old)
    shutil.rmtree(folder)
    restoring.restore(backups / "0.tar", config_path(town, AGENT), quiet, processes=0)
    async with working(town, books):  # with original keys, and the others going on without it
        await start(town, AGENT)
        await until(lambda: "restored from a backup" in town.log(AGENT), "it says so")
        await ready(town, AGENT)
        await books.grown(8, "beside the restored node")
    await agreed(town, height=books.height)
    assert await follows(town)
    assert not (folder / MARK).exists()
    town.kill(AGENT, signal.SIGTERM)
    shutil.copy(old, folder / MARK)  # the mark that its key had last
    await start(town, AGENT)
    assert await follows(town)
    town.kill(AGENT, signal.SIGTERM)
    shutil.rmtree(folder / "log")  # all that was lost, but the store
    shutil.copytree(tmp_path / "lost" / "log", folder / "log")
    (folder / "restored").unlink()  # the store's own record is enough
    await start(town, AGENT)
    assert await follows(town)
    assert signed_by(town, AGENT, silent_from + 1, tmp_path / "after") == []


async def follows(town: LocalNetwork) -> bool:
    """Whether a node runs, catches up with the others, and says that it signs nothing."""
    said = await status(town, AGENT)
    await agreed(town, height=said["certified"] + 1)
    return (
        said["votes"] is False
        and said["restored_at"] > 0
        and await metric(town, AGENT, "comity_node_signing") == 0
    )


def signed_by(town: LocalNetwork, agency: str, first: int, folder: Path) -> list[int]:
    """Heights from ``first`` on at which a certificate holds an agency's signature.

    As another node has them, which runs: a backup of it is read.
    """
    own = town.agencies.index(agency)
    other = next(name for name in town.agencies if name != agency)
    making.make(config_path(town, other), folder, silent, rate=0)
    chain = chain_id(town.genesis)
    environment, view = readonly.open_store(folder / "state", chain=chain)
    found = []
    for height in range(first, view.height + 1):
        block, _, _ = block_of(view.block(height) or b"", height)
        signers = [index for index, _ in block.justify.signatures]
        if block.timeout_cert is not None:
            signers += [index for index, _, _ in block.timeout_cert.entries]
        certificate = view.certificate(height)
        if certificate is not None:
            signers += [v for v, _ in wire.decode_commit_cert(certificate).signatures]
        if own in signers:
            found.append(height)
    environment.close()
    return found


@pytest.mark.long
async def test_a_backup_of_a_stopped_node_is_that_of_its_last_flush(
    own_town: LocalNetwork, backups: Path, books: Books, tmp_path: Path
) -> None:
    other = next(name for name in own_town.agencies if name != AGENT)
    own_town.kill(other, signal.SIGTERM)
    made = making.make(config_path(own_town, other), tmp_path / "stopped", silent, rate=0).manifest
    await start(own_town, other)
    assert made.height >= books.height
