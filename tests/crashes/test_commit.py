"""Power fails within a commit of the store: any of its pages is on disk, or half of it, or not.

Until the page that ends a commit is written the store is at its old height, with all of it; from
then on at the new one. That page is the smaller of two at the file's beginning, written in turn.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from consensus.state.state import Row
from node.storage.flush import BatchData, BlockData, FlushBatch
from node.storage.store import Store

CHAIN = bytes(range(32))
MAP_BYTES = 4 * 2**20
PAGE = 4096
ROOTS = 2
"""Pages at the beginning, of which a commit ends with one."""


def flush(height: int) -> FlushBatch:
    """Return a height with rows of all ages and a batch of some pages."""
    rng = random.Random(height)
    keys = [random.Random(number).randbytes(32) for number in range(0, 40, 1 + height % 3)]
    rows = [(kh, Row(rng.randbytes(32), height, rng.randbytes(90))) for kh in sorted(keys)]
    batch = BatchData(rng.randbytes(32), rng.randbytes(6000), rng.randbytes(500))
    block = BlockData(
        height, b"block %d" % height, b"decisions", b"changes", b"certificate", [], [batch]
    )
    return FlushBatch(height, rows=rows, blocks=[block])


def shown(folder: Path) -> tuple[int, list[object]]:
    """Return the height of a store, and everything it was given."""
    store = Store.open(folder, chain=CHAIN, map_bytes=MAP_BYTES)
    try:
        found: list[object] = [store.state.get(random.Random(n).randbytes(32)) for n in range(40)]
        found += [store.view.block(height) for height in range(1, 8)]
        return store.height, found
    finally:
        store.close()


def committed(folder: Path) -> tuple[bytes, bytes]:
    """Return the store's file before and after its last commit."""
    store = Store.open(folder, chain=CHAIN, map_bytes=MAP_BYTES)
    store.write(FlushBatch(0))
    for height in range(1, 6):
        store.write(flush(height))
    file = folder / "data.mdb"
    before = file.read_bytes()
    store.write(flush(6))
    after = file.read_bytes()
    store.close()
    return before, after


def page_of(content: bytes, number: int) -> bytes:
    """Return a page, zeros beyond the end."""
    return content[number * PAGE : (number + 1) * PAGE].ljust(PAGE, b"\0")


def mixed(before: bytes, pages: dict[int, bytes]) -> bytes:
    """Return a file with some pages changed."""
    size = max(len(before), (max(pages, default=0) + 1) * PAGE)
    content = bytearray(before.ljust(size, b"\0"))
    for number, data in pages.items():
        content[number * PAGE : (number + 1) * PAGE] = data
    return bytes(content)


@pytest.mark.parametrize("order", ["up", "down", "each", "first halves", "second halves"])
def test_store_is_at_its_old_height_until_the_page_that_ends_a_commit(
    tmp_path: Path, order: str
) -> None:
    before, after = committed(tmp_path / "made")
    count = -(-max(len(before), len(after)) // PAGE)
    changed = [n for n in range(count) if page_of(before, n) != page_of(after, n)]
    ends = [number for number in changed if number < ROOTS]
    pages = [number for number in changed if number >= ROOTS]
    assert len(ends) == 1
    assert len(pages) > 8
    folder = tmp_path / "cut"
    folder.mkdir(mode=0o700)

    def look(content: bytes) -> tuple[int, list[object]]:
        (folder / "data.mdb").write_bytes(content)
        (folder / "lock.mdb").unlink(missing_ok=True)
        return shown(folder)

    old, new = look(before), look(after)
    assert (old[0], new[0]) == (5, 6)
    assert old[1] != new[1]
    cases: list[dict[int, bytes]] = []
    for at in range(len(pages) + 1):
        chosen = pages[:at] if order == "up" else pages[at:]
        if order == "each" or "halves" in order:
            chosen = pages[at : at + 1]
        if order == "first halves":
            half = PAGE // 2
            cases.append({n: page_of(after, n)[:half] + page_of(before, n)[half:] for n in chosen})
        elif order == "second halves":
            half = PAGE // 2
            cases.append({n: page_of(before, n)[:half] + page_of(after, n)[half:] for n in chosen})
        else:
            cases.append({n: page_of(after, n) for n in chosen})
    for case in cases:
        assert look(mixed(before, case)) == old, f"pages {sorted(case)}"
    whole = {number: page_of(after, number) for number in (*pages, *ends)}
    assert look(mixed(before, whole)) == new
