"""Data folders that were torn, damaged, mixed up or taken from a backup.

What a crash can leave is mended silently; what only damage or a backup can leave is refused, with
its place and what to do, because the promises that were made there are no longer known.
"""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from scripts.localnet import LocalNetwork
from tests.network.town import (
    AGENT,
    agreed,
    client,
    data,
    eventually,
    home,
    kill,
    refused,
    start,
    status,
)
from tests.network.work import Books, working

pytestmark = pytest.mark.process

AT_ONCE = 2
ENTRY_BYTES_MAX = 8192
"""Longer than any entry that these tests have logged."""
MARK = "signer.mark"

Spoil = Callable[[Path], None]


def log_file(folder: Path) -> Path:
    """The only segment of a short log."""
    (found,) = (each for each in (folder / "log").iterdir() if each.name != "lock")
    return found


def written(folder: Path) -> int:
    """Length of the log without the zeros that are room taken in advance."""
    return len(log_file(folder).read_bytes().rstrip(b"\0"))


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def flip(folder: Path, offset: int) -> None:
    path = log_file(folder)
    overwrite(path, offset, bytes([path.read_bytes()[offset] ^ 0xFF]))


def cut(folder: Path, length: int) -> None:
    path = log_file(folder)
    path.write_bytes(path.read_bytes()[:length])


def exchange(old: Path, *names: str) -> Spoil:
    """Put parts of an old copy in the place of the present ones."""

    def spoil(folder: Path) -> None:
        for name in names:
            if (old / name).is_dir():
                shutil.rmtree(folder / name)
                shutil.copytree(old / name, folder / name)
            else:
                shutil.copy2(old / name, folder / name)

    return spoil


def remove(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

    return spoil


def noise(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / name
        overwrite(path, 0, b"\x55" * min(path.stat().st_size, 2**18))

    return spoil


@pytest.fixture(scope="module")
def books() -> Books:
    """What the load was told in this module's own network."""
    return Books()


@pytest.fixture(scope="module")
def backup(own_town: LocalNetwork, books: Books, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a node's data folder, after which the node and its network worked on."""
    old = tmp_path_factory.mktemp("backup") / "data"

    async def work() -> None:
        async with working(own_town, books):
            kill(own_town, AGENT)
            shutil.copytree(data(own_town, AGENT), old)
            await start(own_town, AGENT)
            await books.grown(20, "after the backup")
        await agreed(own_town, height=books.height)

    trio.run(work)
    return old


@pytest.fixture
def stopped(own_town: LocalNetwork) -> Path:
    """The data folder of a node that has just been stopped."""
    own_town.kill(AGENT, signal.SIGTERM)
    return data(own_town, AGENT)


async def test_what_a_crash_cannot_have_done_is_refused_with_its_place_and_what_to_do(
    own_town: LocalNetwork, backup: Path, stopped: Path, tmp_path: Path
) -> None:
    end, old_end = written(stopped), written(backup)
    log = log_file(stopped).name
    readmit = "admit this validator again under a new key"
    cases: dict[str, tuple[Spoil, str, str]] = {
        "a byte in the middle": (
            lambda folder: flip(folder, end // 2),
            rf"the log is damaged at offset (\d+) in {log}: ",
            "copy the data folder and check the disk",
        ),
        "the end of the promises": (
            lambda folder: cut(folder, old_end),
            r"the log ended at \d+, but \d+ was on disk when this key last signed",
            readmit,
        ),
        "an old log under a newer mark": (
            exchange(backup, "log", "state"),
            r"the log ended at \d+, but \d+ was on disk when this key last signed",
            readmit,
        ),
        "no mark": (remove(MARK), "there is no mark at .*, although this node has data", readmit),
        "noise for the mark": (noise(MARK), "neither slot of .* can be read", readmit),
        "noise for the store": (
            noise("state/data.mdb"),
            "cannot open the store in .*: .*MDB_INVALID",
            "remove state and sync from peers",
        ),
    }
    limiter = trio.CapacityLimiter(AT_ONCE)

    async def case(name: str, spoil: Spoil, says: str, hints: str) -> None:
        async with limiter:
            folder = tmp_path / name.replace(" ", "-")
            shutil.copytree(home(own_town, AGENT), folder)
            spoil(folder / "data")
            before = log_file(folder / "data").read_bytes()
            error, hint = await refused(folder / "node.toml")
            found = re.match(says, error)
            assert found, (name, error)
            assert hints in hint, (name, hint)
            if found.groups():
                assert 0 <= end // 2 - int(found.group(1)) < ENTRY_BYTES_MAX
                assert log_file(folder / "data").read_bytes() == before

    async with trio.open_nursery() as nursery:
        for name, rest in cases.items():
            nursery.start_soon(case, name, *rest)
    await start(own_town, AGENT)
    await agreed(own_town)


async def test_what_a_crash_can_leave_is_mended_and_the_node_takes_part_again(
    own_town: LocalNetwork, books: Books, backup: Path, stopped: Path
) -> None:
    path, end = log_file(stopped), written(stopped)
    overwrite(path, end, bytes(range(1, 200)))  # a group that was under way
    exchange(backup, MARK)(stopped)  # the mark is written after the log
    await takes_part(own_town, books)
    assert bytes(range(1, 200)) not in path.read_bytes()


async def test_a_lost_store_is_made_again_from_the_log(
    own_town: LocalNetwork, books: Books, backup: Path, stopped: Path
) -> None:
    height = (await status(own_town, "registry"))["certified"]
    remove("state")(stopped)
    await takes_part(own_town, books)
    assert (await status(own_town, AGENT))["flushed"] >= height


async def takes_part(town: LocalNetwork, books: Books) -> None:
    """Start the node again: it reaches the others' state, and work sent to it is decided."""
    await start(town, AGENT)
    await agreed(town, height=books.height)
    async with client(town, AGENT, key=town.key("social", "official")) as own:
        for _ in range(3):
            assert (await books.pay(own)).applied
    await agreed(town, height=books.height)
    async with client(town, AGENT) as reader:
        await books.check(reader)


async def test_a_whole_folder_from_a_backup_ends_signing_once_peers_show_what_it_forgot(
    own_town: LocalNetwork, books: Books, backup: Path, stopped: Path
) -> None:
    others = [agency for agency in own_town.agencies if agency != AGENT]
    exchange(backup, "log", "state", MARK)(stopped)
    own_town.start(AGENT)

    async def silent() -> bool:
        return "PROMISES_LOST" in own_town.log(AGENT)

    await eventually(silent, "the node finds out that it has forgotten what it signed")
    assert own_town.running(AGENT)
    height, _ = await agreed(own_town, *others)
    async with client(own_town, *others, key=own_town.key("social", "official")) as own:
        assert (await books.pay(own)).applied
    await agreed(own_town, *others, height=height + 1)
