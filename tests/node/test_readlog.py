"""The log of reads: durable before it returns, chained, cut where it was torn."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from consensus import codec
from consensus.protocol import StateKey
from node.errors import StorageError, StorageFailedError
from node.readlog import FILE_NAME, Read, ReadLog
from node.storage.disk import SystemDisk

CASE, NOTE = StateKey("record", ("case", 1)), StateKey("record", ("note", b"\x01"))


def read(number: int, *places: StateKey) -> Read:
    return Read(
        number, 7, b"p" * 32, b"k" * 32, "north", "get", f"case {number}", places or (CASE,)
    )


async def filled(folder: Path, count: int) -> ReadLog:
    log = ReadLog(folder)
    for number in range(count):
        await log.record(read(number, *((CASE, NOTE) if number % 2 else (CASE,))))
    return log


async def test_entries_are_found_by_place_oldest_first_and_in_parts(tmp_path: Path) -> None:
    log = await filled(tmp_path, 5)
    assert [each.time_ms for each in await log.of(CASE, 0, 100)] == [0, 1, 2, 3, 4]
    assert [each.time_ms for each in await log.of(CASE, 1, 2)] == [1, 2]
    assert [each.time_ms for each in await log.of(NOTE, 0, 100)] == [1, 3]
    assert await log.of(StateKey("record", ("case", 2)), 0, 100) == []
    assert (await log.of(NOTE, 0, 1))[0] == read(1, CASE, NOTE)
    log.close()


async def test_log_is_found_again_and_goes_on(tmp_path: Path) -> None:
    (await filled(tmp_path, 3)).close()
    log = ReadLog(tmp_path)
    await log.record(read(9))
    assert [each.time_ms for each in await log.of(CASE, 0, 100)] == [0, 1, 2, 9]
    log.close()
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


async def test_every_torn_end_is_cut_and_nothing_before_it(tmp_path: Path) -> None:
    log = await filled(tmp_path, 2)
    path = tmp_path / FILE_NAME
    whole = len(path.read_bytes())
    await log.record(read(2))
    log.close()
    data = path.read_bytes()
    for size in range(whole, len(data)):
        path.write_bytes(data[:size])
        again = ReadLog(tmp_path)
        assert [each.time_ms for each in await again.of(CASE, 0, 9)] == [0, 1]
        again.close()
        assert len(path.read_bytes()) == whole


async def test_changed_or_removed_entry_is_noticed(tmp_path: Path) -> None:
    (await filled(tmp_path, 4)).close()
    path = tmp_path / FILE_NAME
    data = path.read_bytes()
    first = 36 + int.from_bytes(data[:4], "big")
    changed = data.replace(b"case 1", b"case X")
    removed = data[first:]
    for bad in (changed, removed):
        assert bad != data
        path.write_bytes(bad)
        with pytest.raises(StorageError, match="damaged at byte"):
            ReadLog(tmp_path)


class Full(SystemDisk):
    """A disk on which nothing more can be written."""

    def write(self, handle: int, data: bytes, position: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")


async def test_what_is_not_on_disk_is_not_recorded_and_nothing_is_after_it(tmp_path: Path) -> None:
    (await filled(tmp_path, 1)).close()
    log = ReadLog(tmp_path, Full())
    for _ in range(2):
        with pytest.raises(StorageFailedError):
            await log.record(read(1))
    log.close()


def test_entry_has_the_documented_bytes() -> None:
    expected = [[3, 7, b"p" * 32, b"k" * 32, "north", "get", "case 3"], [["record", ["case", 1]]]]
    assert codec.parse(read(3).encode()) == expected
