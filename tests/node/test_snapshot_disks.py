"""Snapshots on disks that are full, read-only, or whose syncs fail: at every call to the disk.

Whoever asked is told; what there was stays; nothing half made is left; and the same works once the
disk is mended.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lmdb
import pytest
import structlog
import trio
from structlog.testing import capture_logs

from node import main
from node.errors import DamagedStoreError, SnapshotError, StorageFailedError
from node.snapshots import begin
from node.snapshots.export import export
from node.snapshots.importing import import_file
from node.storage.disk import SystemDisk
from node.storage.store import Store
from tests.node.test_failing_folders import files_no_longer_than
from tests.node.test_snapshot_joining import join, many_small_pieces, threads_in_place, town
from tests.node.test_snapshots import GENESIS, OUTSIDER, TOWN, configured, exported, read, silent
from tests.snapshots import certify

__all__ = ["many_small_pieces", "threads_in_place"]

CALLS = {
    "full": (errno.ENOSPC, ("create", "write", "make_folder")),
    "read-only": (errno.EROFS, ("create", "write", "make_folder", "rename", "truncate", "lock")),
    "failing syncs": (errno.EIO, ("sync", "sync_folder")),
}
SOME = ["full", pytest.param("read-only", marks=pytest.mark.long), "failing syncs"]
OLD = certify(TOWN.genesis, TOWN.rows, height=5)
CALLS_MAX = 60


@contextmanager
def failing(kind: str, after: int) -> Iterator[list[str]]:
    """Let calls of a kind fail once so many have succeeded; yield those that failed."""
    number, names = CALLS[kind]
    failed: list[str] = []
    left = after

    def guarded(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            failed.append(name)
            raise OSError(number, os.strerror(number))
        return call(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            call = getattr(SystemDisk, name)
            patch.setattr(
                SystemDisk,
                name,
                lambda self, *given, name=name, call=call: guarded(name, call, self, *given),
            )
        yield failed


def at_every_call(kind: str, work: Callable[[], Any], check: Callable[[], None]) -> list[str]:
    """Let the disk fail at each call of ``work`` in turn; return which calls there are."""
    called: list[str] = []
    for after in range(CALLS_MAX):
        said: SnapshotError | None = None
        with failing(kind, after) as failed:
            try:
                work()
            except SnapshotError as error:
                said = error
        if said is None:
            assert not failed
            return called
        called.append(failed[0])
        assert os.strerror(CALLS[kind][0]) in said.message
        assert "disk" in said.hint
        check()
    raise AssertionError("the disk is called more often than that")


def height_of(store: Path) -> int:
    """The height of a store that is whole: all its rows are there."""
    opened = Store.open(store, chain=TOWN.chain, map_bytes=1 << 26)
    try:
        assert {kh: opened.state.get(kh) for kh in TOWN.rows} == TOWN.rows
        return opened.height
    finally:
        opened.close()


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CALLS)
def test_a_snapshot_that_cannot_be_written_is_told_and_leaves_no_file(
    tmp_path: Path, kind: str
) -> None:
    store, target = TOWN.store(tmp_path / "state"), tmp_path / "out" / "made.snapshot"
    target.parent.mkdir()
    before = (store / "data.mdb").read_bytes()
    called = at_every_call(
        kind,
        partial(export, store, GENESIS, target, silent),
        lambda: check_no_file(target.parent),
    )
    assert (
        called
        == {
            "full": ["create"],
            "read-only": ["create", "rename"],
            "failing syncs": ["sync", "sync_folder"],
        }[kind]
    )
    assert read(target).entries == len(TOWN.rows)
    assert (store / "data.mdb").read_bytes() == before


def check_no_file(folder: Path) -> None:
    assert list(folder.iterdir()) == []


def test_a_snapshot_for_which_there_is_no_room_is_told_and_leaves_no_file(tmp_path: Path) -> None:
    store, target = TOWN.store(tmp_path / "state"), tmp_path / "made.snapshot"
    with (
        files_no_longer_than(10_000),
        pytest.raises(SnapshotError, match=f"cannot write {target}: File too large"),
    ):
        export(store, GENESIS, target, silent)
    assert not [each for each in tmp_path.iterdir() if each.name.startswith("made")]
    export(store, GENESIS, target, silent)
    assert height_of(store) == 12


@pytest.mark.parametrize("kind", SOME)
def test_an_import_that_cannot_be_stored_is_told_and_can_be_given_again(
    tmp_path: Path, kind: str
) -> None:
    file, config = exported(tmp_path), configured(tmp_path / "home", OUTSIDER)
    data = tmp_path / "home" / "data"

    def check() -> None:
        assert not data.exists() or list(data.iterdir()) == []

    called = at_every_call(kind, partial(import_file, file, config, silent, new_key=True), check)
    assert len(called) > 3
    assert height_of(data / "state") == 12


def test_an_import_for_which_there_is_no_room_is_told_and_can_be_given_again(
    tmp_path: Path,
) -> None:
    file, config = exported(tmp_path), configured(tmp_path / "home", OUTSIDER)
    data = tmp_path / "home" / "data"
    for size in (0, 8192, 40_000):
        with (
            files_no_longer_than(size),
            pytest.raises(SnapshotError, match=f"cannot be stored in {data}"),
        ):
            import_file(file, config, silent)
        assert list(data.iterdir()) == []
    import_file(file, config, silent)
    assert height_of(data / "state") == 12


# --- joining --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SOME)
async def test_joining_that_cannot_be_stored_is_told_and_one_whole_store_stays(
    tmp_path: Path, kind: str
) -> None:
    """At every call in turn, until none fails; each time the next start finds a whole store."""
    for after in range(CALLS_MAX):
        home = tmp_path / str(after)
        home.mkdir()
        async with town(home, TOWN, TOWN, TOWN) as hub:
            own = home / "own"
            OLD.store(own / "state")
            said = ""
            with failing(kind, after) as failed:
                try:
                    await join(hub)
                except StorageFailedError as error:
                    said = error.message
            if failed:
                assert os.strerror(CALLS[kind][0]) in said
                assert (own / "state").exists() or (own / begin.OLD_FOLDER).exists()
        begin.mend(own)
        found = height_of(own / "state")
        assert sorted(each.name for each in own.iterdir()) == ["state"]
        if not failed:
            assert found == 12
            assert after > 0
            return
        assert found in (5, 12)
    raise AssertionError("the disk is called more often than that")


async def test_joining_without_room_for_a_second_store_leaves_the_first(tmp_path: Path) -> None:
    async with town(tmp_path, TOWN, TOWN, TOWN) as hub:
        own = tmp_path / "own"
        OLD.store(own / "state")
        with files_no_longer_than(40_000), pytest.raises(StorageFailedError):
            await join(hub)
        assert height_of(own / "state") == 5
        assert sorted(each.name for each in own.iterdir()) == ["state"]


def test_the_older_store_has_its_name_again_if_the_new_one_cannot_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    OLD.store(tmp_path / "state")
    TOWN.store(tmp_path / begin.NEW_FOLDER)
    rename, renamed = SystemDisk.rename, []

    def second_fails(self: SystemDisk, source: Path, target: Path) -> None:
        renamed.append(target.name)
        if len(renamed) == 2:
            raise OSError(errno.EIO, "the second fails")
        rename(self, source, target)

    monkeypatch.setattr(SystemDisk, "rename", second_fails)
    with pytest.raises(StorageFailedError, match="the second fails"):
        begin.put_in_place(tmp_path)
    assert renamed == ["state.old", "state", "state"]
    assert height_of(tmp_path / "state") == 5


def test_the_older_store_stays_until_the_new_ones_name_is_synced(tmp_path: Path) -> None:
    """What a power cut leaves of unsynced names is either; so both must be there."""
    OLD.store(tmp_path / "state")
    TOWN.store(tmp_path / begin.NEW_FOLDER)
    with failing("failing syncs", 0):
        with pytest.raises(StorageFailedError, match="cannot put a new store in place"):
            begin.put_in_place(tmp_path)
        with pytest.raises(StorageFailedError, match="cannot finish"):
            begin.mend(tmp_path)
    assert height_of(tmp_path / "state") == 12
    assert height_of(tmp_path / begin.OLD_FOLDER) == 5
    begin.mend(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["state"]


async def test_a_node_that_cannot_store_a_snapshot_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def full(*_: Any) -> bool:
        raise StorageFailedError("the store failed to flush: No space left on device")

    monkeypatch.setattr(main, "join", full)
    nothing: Any = None
    with capture_logs() as told:
        joined = await main._joined(nothing, nothing, structlog.get_logger(), trio.Event(), 0)
    assert joined is False
    assert [(each["event"], each["log_level"]) for each in told] == [
        ("no snapshot taken", "warning")
    ]
    assert "No space left" in told[0]["reason"]


# --- opening --------------------------------------------------------------------------------------


def test_a_disk_that_fails_is_no_damaged_store(tmp_path: Path) -> None:
    store = TOWN.store(tmp_path / "state")
    with (
        failing("failing syncs", 0) as failed,
        pytest.raises(StorageFailedError, match="cannot open the store"),
    ):
        Store.open(store, chain=TOWN.chain)
    assert failed == ["sync_folder"]
    with pytest.MonkeyPatch.context() as patch:
        full = lmdb.DiskError("No space left on device")
        full.code = errno.ENOSPC  # type: ignore[misc]
        patch.setattr("lmdb.open", raising(full))
        with pytest.raises(StorageFailedError, match="No space"):
            Store.open(store, chain=TOWN.chain)
    (store / "data.mdb").write_bytes(b"garbage" * 3000)
    with pytest.raises(DamagedStoreError, match="not an LMDB file"):
        Store.open(store, chain=TOWN.chain)


def raising(error: Exception) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise error

    return call
