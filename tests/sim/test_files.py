"""The simulated disk loses, tears and lies as real ones do, and keeps what was synced."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sim.files import Files

PATH = Path("/data/a")
SEEDS = range(60)


def prepared(seed: int) -> tuple[Files, int]:
    """Return a disk with one synced file of 2,000 bytes."""
    files = Files(random.Random(seed))
    handle = files.create(PATH)
    files.write(handle, b"a" * 2000, 0)
    files.sync(handle)
    files.sync_folder(PATH.parent)
    files.settle()
    return files, handle


def content(files: Files) -> bytes:
    """Return what a new process reads."""
    return files.read(files.open(PATH), 10_000, 0)


def test_what_was_synced_is_there_after_every_power_cut() -> None:
    for seed in SEEDS:
        files, handle = prepared(seed)
        files.write(handle, b"b" * 100, 2000)
        files.power()
        assert content(files)[:2000] == b"a" * 2000


def test_unsynced_write_is_there_or_not_or_torn_in_its_middle_or_in_sectors() -> None:
    found = set()
    for seed in SEEDS:
        files, handle = prepared(seed)
        files.write(handle, b"b" * 1500, 0)
        files.power()
        left = content(files)
        found.add((left.count(b"b"), left.strip(b"a").count(b"a") > 0))
    counts = {count for count, _ in found}
    assert {0, 1500} <= counts
    assert len([count for count in counts if 0 < count < 1500]) > 5
    assert any(holes for _, holes in found)


def test_power_cut_comes_between_any_two_calls_and_keeps_their_order() -> None:
    seen = set()
    for seed in SEEDS:
        files, handle = prepared(seed)
        files.write(handle, b"1", 0)
        files.sync(handle)
        files.write(handle, b"2", 1)
        files.sync(handle)
        files.power()
        seen.add(content(files)[:2])
    assert seen == {b"aa", b"1a", b"12"}


def test_new_name_is_on_disk_only_after_a_sync_of_its_folder() -> None:
    kept = set()
    for seed in SEEDS:
        files, _ = prepared(seed)
        files.rename(PATH, PATH.with_name("b"))
        files.settle()
        files.power()
        kept.add(tuple(files.names(PATH.parent)))
    assert kept == {("a",), ("b",)}
    files, _ = prepared(0)
    files.rename(PATH, PATH.with_name("b"))
    files.sync_folder(PATH.parent)
    files.settle()
    files.power()
    assert files.names(PATH.parent) == ["b"]


def test_killed_process_leaves_what_it_wrote_to_be_seen_and_a_power_cut_may_take_it() -> None:
    lost = 0
    for seed in SEEDS:
        files, handle = prepared(seed)
        files.write(handle, b"b", 0)
        files.settle()
        files.kill()
        assert content(files)[:1] == b"b"
        files.power()
        lost += content(files)[:1] == b"a"
    assert 0 < lost < len(SEEDS)


def test_kill_takes_back_the_calls_that_were_never_made() -> None:
    seen = set()
    for seed in SEEDS:
        files, handle = prepared(seed)
        files.write(handle, b"bb", 1999)
        files.truncate(handle, 10)
        files.kill()
        seen.add(len(content(files)))
    assert seen == {2000, 2001, 10}


def test_failed_sync_drops_the_write_for_good_although_it_can_still_be_read() -> None:
    files, handle = prepared(1)
    files.write(handle, b"b", 0)
    files.failing = "sync"
    with pytest.raises(OSError, match="input/output"):
        files.sync(handle)
    files.failing = ""
    files.sync(handle)
    files.settle()
    files.kill()
    assert content(files)[:1] == b"b"
    files.power()
    assert content(files)[:1] == b"a"


def test_full_disk_takes_some_bytes_of_what_needs_room_and_overwrites() -> None:
    files, handle = prepared(3)
    files.failing = "full"
    files.write(handle, b"b" * 2000, 0)
    with pytest.raises(OSError, match="no space"):
        files.write(handle, b"c" * 1000, 2000)
    assert 2000 <= files.size(handle) <= 3000


def test_read_only_disk_takes_nothing() -> None:
    files, handle = prepared(3)
    files.failing = "read-only"
    calls: tuple[Callable[[], None], ...] = (
        lambda: files.write(handle, b"b", 0),
        lambda: files.truncate(handle, 1),
        lambda: files.remove(PATH),
        lambda: files.rename(PATH, PATH.with_name("b")),
    )
    for call in calls:
        with pytest.raises(OSError, match="read-only"):
            call()
    assert content(files) == b"a" * 2000


def test_lock_is_held_by_one_process_until_it_ends() -> None:
    files, _ = prepared(0)
    assert files.lock(PATH) is not None
    assert files.lock(PATH) is None
    files.kill()
    assert files.lock(PATH) is not None
