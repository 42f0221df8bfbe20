"""Power fails in the commit of a flush: LMDB's file, page by page, as a disk may have it then.

A commit writes pages that nothing of the last commit uses, syncs, writes one of the two meta pages,
and syncs. So what a power cut leaves is the old meta pages and any of the new pages, the file grown
or not; or, from the last write on, the new one. A meta page's content is less than a sector, which
a disk writes whole. The simulator takes a flush as one step for this reason.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from consensus.state.state import Row
from node.storage.flush import BlockData, FlushBatch
from node.storage.store import Store

CHAIN = bytes(32)
MAP_BYTES = 8 * 2**20
PAGE = 4096
METAS = (0, 1)
KEYS = 300
FILE = "data.mdb"


def key(number: int) -> bytes:
    return random.Random(f"key {number}").randbytes(32)


def rows(height: int) -> dict[bytes, Row]:
    """What a flush writes: some rows anew, some again, so that pages come free for later ones."""
    draw = random.Random(f"rows {height}")
    chosen = draw.sample(range(KEYS), 60)
    return {
        key(n): Row(draw.randbytes(32), height, draw.randbytes(draw.randrange(900))) for n in chosen
    }


def batch(height: int) -> FlushBatch:
    written = sorted(rows(height).items())
    blocks = [BlockData(height, b"block %d" % height, bytes(2000), b"", None, [], [])]
    return FlushBatch(height, rows=written, blocks=blocks if height else [])


def expected(height: int) -> dict[bytes, Row]:
    found: dict[bytes, Row] = {}
    for each in range(height + 1):
        found |= rows(each)
    return found


def opened(folder: Path) -> Store:
    return Store.open(folder, chain=CHAIN, map_bytes=MAP_BYTES)


def pages(data: bytes) -> list[bytes]:
    return [data[at : at + PAGE] for at in range(0, len(data), PAGE)]


def check(folder: Path, data: bytes, height: int) -> None:
    """A store with this file is whole at ``height``, and takes the next flush."""
    folder.mkdir()
    (folder / FILE).write_bytes(data)
    store = opened(folder)
    try:
        for at in (height, height + 1):
            assert store.height == at
            found = {kh: vh for kh, vh, *_ in store.state.entries()}
            assert found == {kh: row.vh for kh, row in expected(at).items()}
            assert all(store.state.get(k) == row for k, row in expected(at).items())
            assert all(store.view.block(n) == b"block %d" % n for n in range(1, at + 1))
            if at == height:
                store.write(batch(height + 1))
    finally:
        store.close()


@pytest.mark.parametrize("height", [1, 4, 9])
def test_power_lost_in_a_commit_leaves_the_flush_before_it_or_all_of_it(
    tmp_path: Path, height: int
) -> None:
    store = opened(tmp_path / "store")
    for each in range(height):
        store.write(batch(each))
    before = (tmp_path / "store" / FILE).read_bytes()
    commits = store._environment.info()["last_txnid"]
    store.write(batch(height))
    assert store._environment.info()["last_txnid"] == commits + 1, "a flush is one commit"
    after = (tmp_path / "store" / FILE).read_bytes()
    store.close()
    old, new = pages(before), pages(after)
    changed = [n for n in range(len(new)) if n >= len(old) or new[n] != old[n]]
    data = [n for n in changed if n not in METAS]
    assert data
    assert [n for n in changed if n in METAS]
    draw = random.Random(height)
    cases = [[], data, *[draw.sample(data, draw.randrange(len(data))) for _ in range(4)]]
    for number, written in enumerate(cases):
        size = len(new) if written else len(old)
        disk = [old[n] if n < len(old) else bytes(PAGE) for n in range(size)]
        for n in written:
            disk[n] = new[n]
        check(tmp_path / f"cut {number}", b"".join(disk), height - 1)
    check(tmp_path / "through", after, height)


def test_a_meta_page_fits_into_a_sector_and_every_commit_is_synced(tmp_path: Path) -> None:
    store = opened(tmp_path / "store")
    store.write(batch(0))
    flags = store._environment.flags()
    assert flags["sync"]
    assert flags["metasync"]
    assert not flags["writemap"]
    store.close()
    data = (tmp_path / "store" / FILE).read_bytes()
    for page in METAS:
        assert not any(pages(data)[page][512:]), "what a meta page says lies in its first sector"
