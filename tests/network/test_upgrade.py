"""Nodes of the previous release and of this one in one network, exchanged one at a time under load.

In the suite two nodes are exchanged after a little load; ``scripts/upgrade`` exchanges all of them
after more. What a newer release wrote is refused in words, whichever file it is in.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from consensus import codec, keyfile
from consensus.errors import ComityError
from consensus.hashing import ZERO
from consensus.release import VERSION
from node.backup import manifest, restored
from node.storage import marks, segment, tables
from node.storage.marks import SlotFile
from node.storage.store import Store
from scripts.rolling_upgrade import (
    MixedNetwork,
    Unavailable,
    founded_by,
    previous_release,
    runs_from,
)
from tests.network.executors import activate, until_in_force
from tests.network.town import agreed, client, start, status
from tests.network.work import Books, working

pytestmark = pytest.mark.process

LOAD = int(os.environ.get("COMITY_UPGRADE_LOAD", "0"))
"""Decisions between two exchanges; 0: the bounded sample of the suite."""
FEW = 6


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MixedNetwork]:
    """A network founded and run by the previous release."""
    try:
        release = previous_release(tmp_path_factory.mktemp("previous"))
    except Unavailable as error:
        pytest.skip(f"the previous release cannot be run: {error}")
    assert runs_from(release).is_relative_to(release.site)  # the wheel, and not this checkout
    network = founded_by(release, tmp_path_factory.mktemp("upgraded") / "network")
    with network:
        network.start_all()
        yield network


async def exchange(network: MixedNetwork, agency: str) -> None:
    """Stop a node, and start it with this release's program."""
    await trio.to_thread.run_sync(network.kill, agency, signal.SIGTERM)
    del network.releases[agency]
    await start(network, agency)


@pytest.mark.long
async def test_nodes_are_exchanged_one_at_a_time_under_load_and_nothing_is_lost(
    mixed: MixedNetwork,
) -> None:
    books = Books()
    chosen = mixed.agencies if LOAD else mixed.agencies[:2]
    async with working(mixed, books):
        for agency in chosen:
            await books.grown(LOAD or FEW, f"before {agency} is exchanged")
            await exchange(mixed, agency)
        await books.grown(LOAD or FEW, "with the new nodes")
    await agreed(mixed, height=books.height)  # one root for each height, of both releases
    for agency in mixed.agencies:
        said = await status(mixed, agency)
        assert ("releases" in said) == (agency in chosen)
        if agency in chosen:  # who speaks minor 0 of the link says nothing of its release
            others = {each: VERSION if each in chosen else "" for each in mixed.agencies}
            del others[agency]
            assert said["releases"] == others
    async with client(mixed, chosen[0]) as reader:
        await books.check(reader, newest=FEW)
    if not LOAD:
        return
    print(f"exchanged {len(chosen)} nodes under load; {books.count} decisions, none lost")
    from_ms = await activate(mixed, 2)
    async with working(mixed, books):
        await until_in_force(mixed, 2, *mixed.agencies)
        await books.grown(LOAD, "by the next executor")
    height, _ = await agreed(mixed, height=books.height)
    async with client(mixed, chosen[-1]) as reader:
        await books.check(reader, newest=FEW)
        [newest] = await reader.statements(height)
        assert newest.time_ms >= from_ms
    print(f"executor 2 at {from_ms}, {books.count} decisions, none lost, one root at {height}")


# --- back is refused ----------------------------------------------------------------------------


def newer_store(folder: Path) -> None:
    store = Store.open(folder / "state", chain=ZERO, map_bytes=1 << 24)
    with store._environment.begin(write=True) as txn:
        stamp = (tables.FORMAT_VERSION + 1).to_bytes(4, "big")
        txn.put(tables.META_FORMAT, stamp, db=store._opened.meta)
    store.close()
    Store.open(folder / "state", chain=ZERO, map_bytes=1 << 24)


def newer_segment(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment, "FORMAT_VERSION", segment.FORMAT_VERSION + 1)
        data = segment.Header(0, bytes(16), ZERO, segment.HEADER_BYTES).pack()
    segment.read_header(data, segment.name_of(0))


def newer_mark(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(marks, "FORMAT_VERSION", marks.FORMAT_VERSION + 1)
        SlotFile.open(folder / "mark", fresh=b"x").close()
    SlotFile.open(folder / "mark")


def newer_map(read: Callable[[bytes], object], magic: str) -> Callable[[Path], None]:
    def refuse(folder: Path) -> None:
        read(codec.encode({"magic": magic, "version": 2}))

    return refuse


@pytest.mark.parametrize(
    "read",
    [
        newer_store,
        newer_segment,
        newer_mark,
        newer_map(manifest.decode, "comity backup"),
        newer_map(lambda data: restored.decode(data, "the record"), "comity restored"),
        newer_map(lambda data: keyfile.describe(data), "comity key"),
    ],
    ids=["store", "log", "mark", "backup", "restored", "key"],
)
def test_what_a_newer_release_wrote_is_refused_in_words(
    read: Callable[[Path], None], tmp_path: Path
) -> None:
    with pytest.raises(ComityError, match=r"format 2|version 2") as caught:
        read(tmp_path)
    assert caught.value.hint
