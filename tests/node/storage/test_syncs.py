"""What is said to be on disk was asked of the disk: the system calls themselves, and LMDB's modes.

Everywhere else disks are simulated, so that a call that is left out here would lose nothing.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from node import keyfiles
from node.sealed.vault import Vault
from node.storage.disk import SYSTEM_DISK
from node.storage.log import Log
from node.storage.marks import SlotFile
from node.storage.store import Store

CHAIN = bytes(range(32))
Synced = list[tuple[int, int]]
"""Device and inode of what was synced, in order."""


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> Synced:
    calls: Synced = []
    plain, whole = os.fdatasync, os.fsync

    def note(handle: int) -> None:
        status = os.fstat(handle)
        calls.append((status.st_dev, status.st_ino))

    def data(handle: int) -> None:
        note(handle)
        plain(handle)

    def all_of_it(handle: int) -> None:
        note(handle)
        whole(handle)

    monkeypatch.setattr(os, "fdatasync", data)
    monkeypatch.setattr(os, "fsync", all_of_it)
    return calls


def place(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def test_a_group_of_the_log_is_synced_before_its_offset_is_told(
    tmp_path: Path, synced: Synced
) -> None:
    folder = tmp_path / "log"
    log = Log.open(folder, lambda *_: None, chain=CHAIN)
    (segment,) = [path for path in folder.iterdir() if path.suffix == ".log"]
    assert place(segment) in synced
    assert synced[-1] == place(folder), "its name too, once it has it"
    synced.clear()
    log.append(1, b"payload")
    assert synced == []
    log.sync()
    assert synced == [place(segment)]
    log.close()


def test_a_turn_of_the_log_syncs_the_old_end_the_new_segment_and_its_name(
    tmp_path: Path, synced: Synced
) -> None:
    folder = tmp_path / "log"
    log = Log.open(folder, lambda *_: None, chain=CHAIN)
    (old,) = [path for path in folder.iterdir() if path.suffix == ".log"]
    log.append(1, b"payload")
    synced.clear()
    log.rotate([(1, b"first")])
    new = max(path for path in folder.iterdir() if path.suffix == ".log")
    assert new != old
    assert synced == [place(old), place(old), place(new), place(folder)], "its entries, its length"
    synced.clear()
    assert log.drop_before(log.end) == 1
    assert synced == [place(folder)]
    log.close()


def test_a_signers_mark_is_synced_with_each_writing(tmp_path: Path, synced: Synced) -> None:
    path = tmp_path / "mark"
    file = SlotFile.open(path, fresh=b"first")
    assert place(path) in synced
    assert place(tmp_path) in synced
    synced.clear()
    file.write(b"second")
    assert synced == [place(path)]
    file.close()


def test_a_key_file_is_synced_before_it_has_its_name_and_so_is_the_folder(
    tmp_path: Path, synced: Synced
) -> None:
    keyfiles.create(tmp_path / "a.key", b"key")
    assert synced == [place(tmp_path / "a.key"), place(tmp_path)]
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600


def test_folders_are_named_on_disk_one_by_one(tmp_path: Path, synced: Synced) -> None:
    SYSTEM_DISK.make_folder(tmp_path / "a" / "b")
    assert synced == [place(tmp_path), place(tmp_path / "a")]


def test_the_store_and_the_sealed_values_are_never_opened_in_a_mode_without_syncs(
    tmp_path: Path,
) -> None:
    store = Store.open(tmp_path / "state", chain=CHAIN)
    vault = Vault(tmp_path / "sealed", bytes(32), CHAIN)
    try:
        for environment in (store._environment, vault._environment):
            flags = environment.flags()
            assert flags["sync"]
            assert flags["metasync"]
            assert not flags["map_async"]
            assert not flags["writemap"]
    finally:
        store.close()
        vault.close()


def test_the_files_of_both_have_their_names_on_disk(tmp_path: Path, synced: Synced) -> None:
    store = Store.open(tmp_path / "state", chain=CHAIN)
    assert place(tmp_path / "state") in synced
    vault = Vault(tmp_path / "sealed", bytes(32), CHAIN)
    assert place(tmp_path / "sealed" / "values") in synced
    assert place(tmp_path / "sealed") in synced, "where the keys of the values lie"
    store.close()
    vault.close()
