"""Full, read-only and failing disks under what lies beside the log: sealed values, logged reads.

Whoever asks is told, nothing is acknowledged that is not on disk, and what was there stays.
"""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from consensus.protocol import StateKey
from node.errors import StorageFailedError
from node.readlog import ReadLog
from node.sealed.vault import KEPT, WAITING, Change, Destroyed, Erase, Held, Vault
from node.storage.disk import SystemDisk
from tests.node.sealed.test_vault import CHAIN, KEY, OTHER, PLACE, SEEN, delivered, kept, opening
from tests.node.test_readlog import CASE, read

FAILURES = {
    "full": (errno.ENOSPC, frozenset({"write", "create"})),
    "read-only": (errno.EROFS, frozenset({"write", "create", "make_folder", "truncate"})),
    "failing syncs": (errno.EIO, frozenset({"sync", "sync_folder"})),
}


class FailingDisk(SystemDisk):
    """A disk that fails on command."""

    failing: str = ""

    def _meet(self, call: str) -> None:
        number, calls = FAILURES.get(self.failing, (0, frozenset()))
        if call in calls:
            raise OSError(number, self.failing)

    def make_folder(self, path: Path) -> None:
        self._meet("make_folder")
        super().make_folder(path)

    def create(self, path: Path) -> int:
        self._meet("create")
        return super().create(path)

    def write(self, handle: int, data: bytes, position: int) -> None:
        self._meet("write")
        super().write(handle, data, position)

    def truncate(self, handle: int, size: int) -> None:
        self._meet("truncate")
        super().truncate(handle, size)

    def sync(self, handle: int) -> None:
        self._meet("sync")
        super().sync(handle)

    def sync_folder(self, path: Path) -> None:
        self._meet("sync_folder")
        super().sync_folder(path)


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as on a file system that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_value_is_not_acknowledged_and_no_other_is_lost(
    tmp_path: Path, failure: str
) -> None:
    disk, folder = FailingDisk(), tmp_path / "sealed"
    vault = Vault(folder, KEY, CHAIN, disk)
    one, two, three = opening(1), opening(2), opening(3)
    await vault.deliver([delivered(one)])
    disk.failing = failure
    for _ in range(2):
        with pytest.raises(StorageFailedError, match="the sealed values"):
            await vault.deliver([delivered(two)])
        assert vault.get(two.commitment) is None
        assert [*vault.waiting] == [one.commitment]
    assert vault.get(one.commitment) == Held(one, WAITING, (), ())
    disk.failing = ""
    await vault.deliver([delivered(three)])
    vault.close()
    vault = Vault(folder, KEY, CHAIN, disk)
    assert vault.get(one.commitment) == Held(one, WAITING, (), ())
    assert vault.get(three.commitment) == Held(three, WAITING, (), ())
    assert vault.get(two.commitment) is None
    vault.close()


@pytest.mark.parametrize("failure", FAILURES)
async def test_what_a_block_did_is_told_again_once_the_disk_is_mended(
    tmp_path: Path, failure: str
) -> None:
    """The flush that hands it over stops the node; the next start hands the same over again."""
    disk, folder = FailingDisk(), tmp_path / "sealed"
    vault = Vault(folder, KEY, CHAIN, disk)
    one, two = opening(1), opening(2)
    await vault.deliver([delivered(one, 10**6), delivered(two, 10**6)])
    await vault.settle([kept(one)], 500, SEEN)
    done: list[Change] = [kept(two, (OTHER, 1)), Erase(PLACE, 1, one.commitment, b"T" * 32)]
    disk.failing = failure
    with pytest.raises(StorageFailedError):
        await vault.settle(done, 600, SEEN)
    vault.close()
    disk.failing = ""
    vault = Vault(folder, KEY, CHAIN, disk)
    assert vault.get(two.commitment) == Held(two, WAITING, (), ())
    await vault.settle(done, 600, SEEN)
    found = vault.get(two.commitment)
    assert isinstance(found, Held)
    assert found.state == KEPT
    assert isinstance(vault.get(one.commitment), Destroyed)
    vault.close()


async def test_a_database_that_cannot_grow_keeps_what_it_has(tmp_path: Path) -> None:
    folder = tmp_path / "sealed"
    vault = Vault(folder, KEY, CHAIN)
    one, large = opening(1), opening(2, "x" * 60_000)
    await vault.deliver([delivered(one)])
    size = (folder / "values" / "data.mdb").stat().st_size
    with files_no_longer_than(size):
        with pytest.raises(StorageFailedError, match="the sealed values"):
            await vault.deliver([delivered(large)])
        assert vault.get(one.commitment) == Held(one, WAITING, (), ())
    vault.close()
    vault = Vault(folder, KEY, CHAIN)
    assert vault.get(large.commitment) is None
    await vault.deliver([delivered(large)])
    assert vault.get(one.commitment) == Held(one, WAITING, (), ())
    assert vault.get(large.commitment) == Held(large, WAITING, (), ())
    vault.close()


@pytest.mark.parametrize("failure", ["read-only", "full"])
def test_a_folder_that_cannot_be_made_is_told_with_its_name(tmp_path: Path, failure: str) -> None:
    disk = FailingDisk()
    disk.failing = failure
    with pytest.raises(StorageFailedError, match=str(tmp_path / "sealed")):
        Vault(tmp_path / "sealed", KEY, CHAIN, disk)
    with pytest.raises(StorageFailedError, match=str(tmp_path / "reads.log")):
        ReadLog(tmp_path, disk)


def test_a_file_of_which_the_name_may_be_lost_is_not_used_before_it_is_synced(
    tmp_path: Path,
) -> None:
    """Not at the next start either, which finds the file: power may fail after that one."""
    (tmp_path / "sealed" / "values").mkdir(parents=True)
    disk = FailingDisk()
    disk.failing = "failing syncs"
    for there in (False, True):
        assert (tmp_path / "sealed" / "keys").exists() is there
        with pytest.raises(StorageFailedError, match="cannot open"):
            Vault(tmp_path / "sealed", KEY, CHAIN, disk)
        assert (tmp_path / "reads.log").exists() is there
        with pytest.raises(StorageFailedError, match="cannot open"):
            ReadLog(tmp_path, disk)
    disk.failing = ""
    Vault(tmp_path / "sealed", KEY, CHAIN, disk).close()
    ReadLog(tmp_path, disk).close()


@pytest.mark.parametrize("failure", FAILURES)
async def test_nobody_is_shown_what_is_not_recorded_and_earlier_records_stay(
    tmp_path: Path, failure: str
) -> None:
    disk = FailingDisk()
    log = ReadLog(tmp_path, disk)
    await log.record(read(0))
    disk.failing = failure
    with pytest.raises(StorageFailedError):
        await log.record(read(1))
    disk.failing = ""
    with pytest.raises(StorageFailedError, match="has failed before"):
        await log.record(read(2))
    log.close()
    again = ReadLog(tmp_path, disk)
    await again.record(read(3))
    times = [each.time_ms for each in await again.of(CASE, 0, 9)]
    assert times in ([0, 3], [0, 1, 3]), "an entry whose sync failed may have been written"
    assert isinstance(CASE, StateKey)
    again.close()
