"""Cut and flip at every offset: the exact prefix or the documented error, never wrong data.

Lesson 13 (malachite #1434, informalsystems/malachite #11, snapchain #868). Where each entry lies
is computed here from the documented layout, not asked of the log.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from node.errors import DamagedLogError
from node.storage.log import Log
from tests.node.storage.memory_disk import MemoryDisk

FOLDER = Path("/data/log")
CHAIN = bytes(range(32))
HEADER_BYTES = 96
HEAD_BYTES = 21
GROUP_BYTES = 37
RESERVE_BYTES = 64

GROUPS = [
    [(1, b"batch" * 3), (2, b"private"), (4, b"first record")],
    [(3, b"block")],
    [(1, b""), (1, bytes(40)), (4, b"second record")],
    [(3, b"another block"), (4, b"third record")],
]


@dataclass
class Layout:
    """Where things lie in the last segment, from its start. ``base`` is its global offset."""

    base: int
    name: str
    first_bytes: int
    entries: list[tuple[int, int, int]] = field(default_factory=list)
    """(start, end, group) of each entry and group header, in order."""
    payloads: list[tuple[int, int, bytes]] = field(default_factory=list)
    """(end, kind, payload) of each entry, in order."""
    size: int = 0

    def prefix(self, end: int) -> list[tuple[int, bytes]]:
        return [(kind, data) for stop, kind, data in self.payloads if stop <= end]

    def holding(self, position: int) -> tuple[int, int] | None:
        """(start, group) of the entry that holds a byte, None in the room after the last."""
        return next(
            ((start, group) for start, end, group in self.entries if start <= position < end), None
        )


def build(
    *, rotated: bool, closed: bool = False
) -> tuple[MemoryDisk, Layout, list[tuple[int, bytes]]]:
    """Write GROUPS, the first of them as a rotation's first entries if ``rotated``."""
    disk = MemoryDisk()
    log = Log.open(FOLDER, lambda *_: None, chain=CHAIN, disk=disk, reserve_bytes=RESERVE_BYTES)
    before: list[tuple[int, bytes]] = []
    groups = list(GROUPS)
    base = 0
    first_bytes = HEADER_BYTES
    if rotated:
        log.append(1, b"in the old segment")
        before.append((1, b"in the old segment"))
        base = log.sync()
        log.rotate(GROUPS[0])
        first_bytes += GROUP_BYTES + sum(HEAD_BYTES + len(data) for _, data in GROUPS[0])
        groups = groups[1:]
    for group in groups:
        for kind, payload in group:
            log.append(kind, payload)
        log.sync()
    if closed:
        log.close()
    layout = Layout(base, f"{base:020d}.log", first_bytes)
    position = HEADER_BYTES
    for number, group in enumerate(GROUPS):
        layout.entries.append((position, position + GROUP_BYTES, number))
        position += GROUP_BYTES
        for kind, payload in group:
            end = position + HEAD_BYTES + len(payload)
            layout.entries.append((position, end, number))
            layout.payloads.append((end, kind, payload))
            position = end
    if closed:
        layout.entries.append((position, position + GROUP_BYTES, len(GROUPS)))
        position += GROUP_BYTES
    layout.size = position
    return disk.crash(), layout, before


def reopen(disk: MemoryDisk) -> tuple[Log, list[tuple[int, bytes]]]:
    seen: list[tuple[int, bytes]] = []
    log = Log.open(
        FOLDER,
        lambda _offset, kind, payload: seen.append((kind, payload)),
        chain=CHAIN,
        disk=disk,
        reserve_bytes=RESERVE_BYTES,
    )
    return log, seen


def check_usable(disk: MemoryDisk, log: Log, seen: list[tuple[int, bytes]]) -> None:
    """After a cut the log takes entries again, and a later power cut keeps all of it."""
    log.append(9, b"afterwards")
    log.sync()
    _, again = reopen(disk.crash())
    assert again == [*seen, (9, b"afterwards")]


@pytest.mark.parametrize("rotated", [False, True])
def test_an_intact_log_gives_everything(rotated: bool) -> None:
    disk, layout, before = build(rotated=rotated)
    log, seen = reopen(disk)
    assert seen == before + [entry for group in GROUPS for entry in group]
    assert log.end == layout.base + layout.size
    assert log.cut_bytes == 0


@pytest.mark.parametrize("rotated", [False, True])
def test_a_cut_at_any_offset_gives_the_exact_prefix_or_the_documented_error(rotated: bool) -> None:
    disk, layout, before = build(rotated=rotated)
    for size in range(layout.size):
        after = disk.copy()
        del after.files[FOLDER / layout.name].shown[size:]
        if size < layout.first_bytes:
            with pytest.raises(DamagedLogError) as caught:
                reopen(after)
            assert caught.value.segment == layout.name
            continue
        log, seen = reopen(after)
        assert seen == before + layout.prefix(size), f"cut at {size}"
        assert log.synced == log.end <= layout.base + size
        check_usable(after, log, seen)


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("mask", [0xFF, 0x01, 0x80, 0x10])
def test_a_flip_at_any_offset_gives_the_exact_prefix_or_the_documented_error(
    rotated: bool, mask: int
) -> None:
    disk, layout, before = build(rotated=rotated)
    last_group = len(GROUPS) - 1
    everything = before + layout.prefix(layout.size)
    room = len(disk.files[FOLDER / layout.name].shown)
    assert room > layout.size
    for position in range(room):
        after = disk.copy()
        after.files[FOLDER / layout.name].shown[position] ^= mask
        place = layout.holding(position)
        if position < layout.first_bytes or (place and place[1] < last_group):
            with pytest.raises(DamagedLogError) as caught:
                reopen(after)
            start = 0 if position < HEADER_BYTES else place[0] if place else -1
            assert caught.value.offset == layout.base + start, f"flip at {position}"
            assert caught.value.segment == layout.name
            assert str(caught.value.offset) in caught.value.message
            assert "new key" in caught.value.hint
            continue
        log, seen = reopen(after)
        if place is None:
            assert seen == everything
            assert log.cut_bytes == position + 1 - layout.size
        else:
            assert seen == before + layout.prefix(place[0]), f"flip at {position}"
            assert log.cut_bytes > 0
        check_usable(after, log, seen)


def test_after_a_clean_stop_a_flip_in_any_entry_is_refused() -> None:
    """The record written at closing says that the last group was synced too."""
    disk, layout, _ = build(rotated=False, closed=True)
    for position in range(HEADER_BYTES, layout.size - GROUP_BYTES):
        after = disk.copy()
        after.files[FOLDER / layout.name].shown[position] ^= 1
        with pytest.raises(DamagedLogError):
            reopen(after)


def test_damage_in_an_older_segment_is_refused_at_every_offset() -> None:
    disk, layout, _ = build(rotated=True)
    old = FOLDER / f"{0:020d}.log"
    size = len(disk.files[old].shown)
    assert size == layout.base, "a finished segment has no room left"
    for position in range(size):
        for cut in (False, True):
            after = disk.copy()
            content = after.files[old].shown
            if cut:
                del content[position:]
            else:
                content[position] ^= 0x40
            with pytest.raises(DamagedLogError) as caught:
                reopen(after)
            assert caught.value.segment == old.name
            assert caught.value.offset <= position


def test_zeros_and_rubbish_after_the_end_are_cut_alike() -> None:
    disk, layout, before = build(rotated=False)
    for tail in (bytes(500), b"\xff" * 500, b"\xc0GROUP\r\n" * 40, bytes(400) + b"\1"):
        after = disk.copy()
        content = after.files[FOLDER / layout.name].shown
        del content[layout.size :]
        content.extend(tail)
        log, seen = reopen(after)
        assert seen == before + layout.prefix(layout.size)
        assert log.cut_bytes == len(tail.rstrip(b"\0"))
        check_usable(after, log, seen)


def test_a_payload_that_imitates_a_group_header_is_not_taken_for_one() -> None:
    """Somebody's transaction may hold any bytes; a torn tail must still be cut."""
    disk = MemoryDisk()
    log, _ = reopen(disk)
    log.append(1, b"kept")
    log.sync()
    forged = bytes(HEAD_BYTES) + b"\xc0GROUP\r\n" + (2**40).to_bytes(8, "big")
    start = log.append(1, b"torn")
    log.append(1, forged)
    log.sync()
    after = disk.crash()
    after.files[FOLDER / f"{0:020d}.log"].shown[start + HEAD_BYTES] ^= 1
    _, seen = reopen(after)
    assert seen == [(1, b"kept")]


def test_entries_moved_to_another_place_do_not_check() -> None:
    disk, layout, before = build(rotated=False)
    content = disk.files[FOLDER / layout.name].shown
    start, end, _group = layout.entries[-1]
    moved = bytes(content[start:end])
    content[end : end + len(moved)] = moved
    log, seen = reopen(disk)
    assert seen == before + layout.prefix(layout.size)
    assert log.cut_bytes == len(moved)


def test_intact_entries_of_a_cut_tail_never_come_back() -> None:
    """They would check at their old place if a new entry of the same length led up to them."""
    disk = MemoryDisk()
    log, _ = reopen(disk)
    log.append(1, b"promised")
    log.sync()
    length = -(log.end + GROUP_BYTES + HEAD_BYTES) % RESERVE_BYTES
    torn = log.append(1, bytes(length))
    stale = log.append(1, b"intact and stale")
    log.sync()
    assert stale % RESERVE_BYTES == 0, "no zeros will be written over it"
    after = disk.crash()
    after.files[FOLDER / f"{0:020d}.log"].shown[torn] ^= 1
    again, seen = reopen(after)
    assert seen == [(1, b"promised")]
    assert again.end == torn, "the cut is where the bad entry began"
    again._buffer = [b""]  # the next entry goes exactly there, without a group header
    assert again.append(1, b"!" * length) == torn
    again.sync()
    _, seen = reopen(after.crash())
    assert seen == [(1, b"promised"), (1, b"!" * length)]


@pytest.mark.parametrize("keep", ["none", "all", "last", "half"])
def test_a_power_cut_during_a_sync_keeps_a_prefix_of_the_group(keep: str) -> None:
    disk = MemoryDisk()
    log, _ = reopen(disk)
    log.append(1, b"promised")
    log.sync()
    group = [(1, b"a" * 30), (1, b"b" * 30), (4, b"record")]
    for kind, payload in group:
        log.append(kind, payload)
    log._write_group(log._segments[-1], b"".join(log._buffer))
    _, seen = reopen(disk.crash(keep=keep))
    assert seen[0] == (1, b"promised")
    assert seen[1:] == group[: len(seen) - 1]
    assert len(seen) == {"none": 1, "all": 4, "last": 4, "half": 2}[keep]


def test_a_hole_before_newer_bytes_is_a_torn_tail_when_nothing_says_it_was_synced() -> None:
    """The system may write a group's pages in any order."""
    disk, layout, before = build(rotated=False)
    content = disk.files[FOLDER / layout.name].shown
    start = next(start for start, _end, group in layout.entries if group == len(GROUPS) - 1)
    content[start : start + GROUP_BYTES] = bytes(GROUP_BYTES)
    _, seen = reopen(disk)
    assert seen == before + layout.prefix(start)


def test_the_search_for_later_groups_crosses_its_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.storage.segment.WINDOW_BYTES", 16)
    test_damage_in_an_older_segment_is_refused_at_every_offset()
    disk, layout, _ = build(rotated=False)
    for position in range(HEADER_BYTES, layout.entries[-3][0]):
        after = disk.copy()
        after.files[FOLDER / layout.name].shown[position] ^= 4
        with pytest.raises(DamagedLogError):
            reopen(after)


def test_length_beyond_the_limit_is_damage_not_memory() -> None:
    disk, layout, before = build(rotated=False)
    start = layout.entries[-1][0]
    disk.files[FOLDER / layout.name].shown[start : start + 4] = b"\xff\xff\xff\xff"
    reads = disk.calls["read"]
    _, seen = reopen(disk)
    assert seen == before + layout.prefix(start)
    assert disk.calls["read"] - reads < 30
