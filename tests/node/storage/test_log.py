"""The append log: what goes in comes out, once and in order, and failures are final."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from blake3 import blake3

from consensus.errors import LocalProtocolError
from node.errors import (
    DamagedLogError,
    ForeignDataError,
    InUseError,
    NewerFormatError,
    StorageFailedError,
)
from node.storage.log import Log
from tests.node.storage.memory_disk import MemoryDisk

FOLDER = Path("/data/log")
CHAIN = bytes(range(32))
FIRST = "00000000000000000000.log"
HEADER_BYTES = 96
HEAD_BYTES = 21
GROUP_BYTES = 37

Seen = list[tuple[int, bytes]]


def opened(disk: MemoryDisk, *, chain: bytes = CHAIN) -> tuple[Log, Seen]:
    seen: Seen = []
    log = Log.open(
        FOLDER,
        lambda _offset, kind, payload: seen.append((kind, payload)),
        chain=chain,
        disk=disk,
        reserve_bytes=64,
    )
    return log, seen


def put(log: Log, *payloads: bytes, kind: int = 1) -> list[int]:
    offsets = [log.append(kind, payload) for payload in payloads]
    log.sync()
    return offsets


# --- going in and out -----------------------------------------------------------------------------


def test_a_new_log_is_empty_and_says_that_it_was_created() -> None:
    log, seen = opened(MemoryDisk())
    assert seen == []
    assert log.created
    assert log.start == 0
    assert log.end == log.synced == HEADER_BYTES


def test_entries_come_back_in_order_with_kind_and_offset() -> None:
    disk = MemoryDisk()
    log, _ = opened(disk)
    offsets = [log.append(kind, bytes([kind]) * kind) for kind in (1, 2, 3)]
    log.sync()
    offsets += put(log, b"", kind=255)
    log.close()
    replayed: list[tuple[int, int, bytes]] = []
    Log.open(FOLDER, lambda *entry: replayed.append(entry), chain=CHAIN, disk=disk)
    assert replayed == [
        (offsets[0], 1, b"\1"),
        (offsets[1], 2, b"\2\2"),
        (offsets[2], 3, b"\3\3\3"),
        (offsets[3], 255, b""),
    ]


def test_offsets_are_those_of_the_documented_layout() -> None:
    log, _ = opened(MemoryDisk())
    first, second = put(log, b"abc", b"de")
    (third,) = put(log, b"f")
    assert first == HEADER_BYTES + GROUP_BYTES
    assert second == first + HEAD_BYTES + 3
    assert third == second + HEAD_BYTES + 2 + GROUP_BYTES
    assert log.end == third + HEAD_BYTES + 1


def test_the_bytes_on_disk_are_those_of_the_documented_format() -> None:
    disk = MemoryDisk()
    log, _ = opened(disk)
    put(log, b"payload", kind=4)
    content = bytes(disk.files[FOLDER / FIRST].durable)
    identity = log.identity
    fields = struct.pack(">8sIIQ16s32sQ", b"COMITYLG", 1, 0, 0, identity, CHAIN, HEADER_BYTES)
    header = blake3(fields, derive_key_context="comity 2026-11-21 log segment header v1").digest()
    key = blake3(identity + bytes(8), derive_key_context="comity 2026-11-21 log entry v1").digest()

    def entry(offset: int, kind: int, payload: bytes) -> bytes:
        checked = struct.pack(">QIB", offset, len(payload), kind) + payload
        check = blake3(checked, key=key).digest(16)
        return struct.pack(">IB", len(payload), kind) + check + payload

    expected = fields + header[:16]
    expected += entry(96, 0, b"\xc0GROUP\r\n" + (96).to_bytes(8, "big"))
    expected += entry(96 + 37, 4, b"payload")
    assert content[: len(expected)] == expected
    assert content[len(expected) :].strip(b"\0") == b""


def test_what_was_not_synced_is_gone_after_a_power_cut() -> None:
    disk = MemoryDisk()
    log, _ = opened(disk)
    put(log, b"kept")
    log.append(1, b"lost")
    _, seen = opened(disk.crash())
    assert seen == [(1, b"kept")]


def test_entries_can_be_read_again_by_offset_in_any_segment() -> None:
    log, _ = opened(MemoryDisk())
    first = put(log, b"one", b"two")
    second = log.rotate([(4, b"record")])
    third = put(log, b"three")
    assert [log.read(offset) for offset in (*first, *second, *third)] == [
        (1, b"one"),
        (1, b"two"),
        (4, b"record"),
        (1, b"three"),
    ]


def test_an_entry_that_is_not_yet_synced_cannot_be_read() -> None:
    log, _ = opened(MemoryDisk())
    offset = log.append(1, b"x")
    with pytest.raises(LocalProtocolError, match="synced"):
        log.read(offset)


def test_reading_notices_bytes_that_changed_under_an_open_log() -> None:
    disk = MemoryDisk()
    log, _ = opened(disk)
    (offset,) = put(log, b"payload")
    disk.files[FOLDER / FIRST].shown[offset + HEAD_BYTES] ^= 1
    with pytest.raises(DamagedLogError) as caught:
        log.read(offset)
    assert caught.value.offset == offset


@pytest.mark.parametrize("kind", [0, 256, -1])
def test_kinds_outside_their_range_are_our_own_bug(kind: int) -> None:
    log, _ = opened(MemoryDisk())
    with pytest.raises(LocalProtocolError):
        log.append(kind, b"")
    with pytest.raises(LocalProtocolError):
        log.rotate([(kind, b"")])


# --- segments -------------------------------------------------------------------------------------


def test_a_segment_goes_only_when_everything_in_it_lies_before_the_offset() -> None:
    disk = MemoryDisk()
    log, _ = opened(disk)
    put(log, b"old")
    (record,) = log.rotate([(4, b"record")])
    boundary = int(disk.names(FOLDER)[-1].removesuffix(".log"))
    assert log.drop_before(boundary - 1) == 0
    assert log.drop_before(boundary) == 1
    assert log.start == boundary
    assert log.drop_before(log.end) == 0, "the newest segment stays"
    assert log.read(record) == (4, b"record")
    assert log.read(HEADER_BYTES + GROUP_BYTES) is None
    _, seen = opened(disk.crash())
    assert seen == [(4, b"record")]


def test_rotation_keeps_order_identity_and_offsets_over_reopening() -> None:
    disk = MemoryDisk()
    log, _ = opened(disk)
    put(log, b"one")
    log.append(1, b"two, not yet synced")
    log.rotate([(4, b"record")])
    put(log, b"three")
    end, identity = log.end, log.identity
    log.close()
    again, seen = opened(disk)
    assert seen == [(1, b"one"), (1, b"two, not yet synced"), (4, b"record"), (1, b"three")]
    assert again.identity == identity
    assert again.end == end + GROUP_BYTES, "only the closing record was added"
    assert not again.created


def test_rotation_without_first_entries_is_allowed() -> None:
    disk = MemoryDisk()
    log, _ = opened(disk)
    put(log, b"one")
    assert log.rotate([]) == []
    put(log, b"two")
    _, seen = opened(disk.crash())
    assert seen == [(1, b"one"), (1, b"two")]


@pytest.mark.parametrize("keep", ["none", "all", "last", "half"])
@pytest.mark.parametrize("step", ["truncate", "sync", "create", "write", "rename", "sync_folder"])
@pytest.mark.parametrize("calls", [0, 1])
def test_a_crash_inside_rotation_leaves_the_old_log_or_the_new_one(
    step: str, calls: int, keep: str
) -> None:
    disk = MemoryDisk()
    log, _ = opened(disk)
    put(log, b"one")
    disk.fail = {step: calls}
    try:
        log.rotate([(4, b"record")])
    except StorageFailedError:
        pass
    else:
        keep = "none"  # the rotation returned: everything of it is on disk
    _, seen = opened(disk.crash(keep=keep))
    assert seen in ([(1, b"one")], [(1, b"one"), (4, b"record")])
    if log.failed is None:
        assert seen == [(1, b"one"), (4, b"record")]


def test_a_crash_between_two_removals_leaves_no_gap() -> None:
    disk = MemoryDisk()
    log, _ = opened(disk)
    for number in range(3):
        put(log, b"entry %d" % number)
        log.rotate([])
    disk.fail = {"remove": 1}
    with pytest.raises(StorageFailedError):
        log.drop_before(log.end)
    _, seen = opened(disk.crash())
    assert seen == [(1, b"entry 1"), (1, b"entry 2")]


def test_a_missing_segment_in_the_middle_is_refused_at_its_offset() -> None:
    disk = MemoryDisk()
    log, _ = opened(disk)
    put(log, b"one")
    log.rotate([])
    middle = int(disk.names(FOLDER)[-1].removesuffix(".log"))
    put(log, b"two")
    log.rotate([])
    after = disk.crash()
    after.remove(FOLDER / f"{middle:020d}.log")
    with pytest.raises(DamagedLogError) as caught:
        opened(after)
    assert caught.value.offset == middle


# --- what is not ours -----------------------------------------------------------------------------


def test_a_log_of_another_network_is_refused() -> None:
    disk = MemoryDisk()
    opened(disk)[0].close()
    with pytest.raises(ForeignDataError, match="another network"):
        opened(disk, chain=bytes(32))


def test_segments_of_two_logs_do_not_mix() -> None:
    disk, other = MemoryDisk(), MemoryDisk()
    other.random(1)
    for each in (disk, other):
        log, _ = opened(each)
        put(log, b"same length")
        log.rotate([])
        log.close()
    last = disk.names(FOLDER)[-1]
    disk.files[FOLDER / last] = other.files[FOLDER / last]
    with pytest.raises(ForeignDataError, match="another log"):
        opened(disk)


def test_a_second_process_is_refused_while_the_first_has_the_log_open() -> None:
    disk = MemoryDisk()
    log, _ = opened(disk)
    with pytest.raises(InUseError, match="another process"):
        opened(disk)
    log.close()
    opened(disk)


def test_a_newer_format_is_refused_with_a_hint_and_an_altered_version_is_damage() -> None:
    disk = MemoryDisk()
    opened(disk)[0].close()
    content = disk.files[FOLDER / FIRST].shown
    content[11] = 2
    with pytest.raises(DamagedLogError, match="header"):
        opened(disk)
    context = "comity 2026-11-21 log segment header v1"
    content[80:96] = blake3(bytes(content[:80]), derive_key_context=context).digest(16)
    with pytest.raises(NewerFormatError, match="log format 2") as caught:
        opened(disk)
    assert "newer" in caught.value.hint


def test_other_files_in_the_folder_are_left_alone() -> None:
    disk = MemoryDisk()
    opened(disk)[0].close()
    for name in ("notes.txt", "1.log", "0000000000000000000x.log"):
        disk.close(disk.create(FOLDER / name))
    opened(disk)[0].close()
    assert {"notes.txt", "1.log", "0000000000000000000x.log"} <= set(disk.names(FOLDER))


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["write", "sync"])
def test_a_failed_write_or_sync_poisons_the_log_for_ever(step: str) -> None:
    disk = MemoryDisk()
    log, _ = opened(disk)
    put(log, b"one")
    synced = log.synced
    log.append(1, b"two")
    disk.fail = {step: 0}
    with pytest.raises(StorageFailedError, match="injected") as caught:
        log.sync()
    assert isinstance(caught.value.__cause__, OSError)
    syncs = disk.calls["sync"]
    for attempt in (log.sync, lambda: log.append(1, b"x"), lambda: log.rotate([])):
        with pytest.raises(StorageFailedError, match="injected"):
            attempt()
    with pytest.raises(StorageFailedError, match="injected"):
        log.drop_before(log.end)
    assert log.synced == synced
    assert log.failed is not None
    log.close()
    assert disk.calls["sync"] == syncs, "a failed sync is never tried again"


def test_a_poisoned_log_still_serves_reads() -> None:
    disk = MemoryDisk()
    log, _ = opened(disk)
    (offset,) = put(log, b"one")
    log.append(1, b"two")
    disk.fail = {"sync": 0}
    with pytest.raises(StorageFailedError):
        log.sync()
    assert log.read(offset) == (1, b"one")


def test_bytes_of_a_failed_sync_are_written_again_before_they_count() -> None:
    """The system may show such bytes as clean: a bare sync would then write nothing."""
    disk = MemoryDisk()
    log, _ = opened(disk)
    put(log, b"one")
    log.append(1, b"two")
    disk.fail = {"sync": 0}
    with pytest.raises(StorageFailedError):
        log.sync()
    log.close()
    inode = disk.files[FOLDER / FIRST]
    inode.unsynced.clear()  # the system forgot that they are dirty
    inode.lies = True
    inode.durable.extend(bytes(len(inode.shown) - len(inode.durable)))
    again, seen = opened(disk)
    assert seen == [(1, b"one"), (1, b"two")]
    assert again.synced == again.end
    _, after = opened(disk.crash())
    assert after == seen


@pytest.mark.parametrize(
    "step", ["make_folder", "lock", "names", "create", "write", "sync", "rename", "sync_folder"]
)
def test_a_failure_while_opening_is_reported_and_releases_everything(step: str) -> None:
    disk = MemoryDisk()
    disk.fail = {step: 0}
    with pytest.raises(StorageFailedError, match="cannot open the log"):
        opened(disk)
    assert disk.handles == {}
    assert disk.locks == {}
    _, seen = opened(disk)
    assert seen == []


def test_names_that_a_failed_sync_left_uncertain_are_synced_before_they_count() -> None:
    disk = MemoryDisk()
    log, _ = opened(disk)
    put(log, b"one")
    disk.fail = {"sync_folder": 0}
    with pytest.raises(StorageFailedError):
        log.rotate([(4, b"record")])
    log.close()
    again, _ = opened(disk)
    put(again, b"two")
    _, seen = opened(disk.crash())
    assert seen == [(1, b"one"), (4, b"record"), (1, b"two")]


def test_an_error_of_the_caller_ends_the_opening_and_releases_the_folder() -> None:
    disk = MemoryDisk()
    log, _ = opened(disk)
    put(log, b"one")
    log.close()

    def refuse(*_entry: object) -> None:
        raise NewerFormatError("unknown")

    with pytest.raises(NewerFormatError):
        Log.open(FOLDER, refuse, chain=CHAIN, disk=disk)
    assert disk.handles == {}
    assert disk.locks == {}


# --- on a real file system ------------------------------------------------------------------------


def test_the_system_disk_keeps_a_log_over_reopening_with_private_modes(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "log"
    seen: Seen = []
    log = Log.open(folder, lambda *_: None, chain=CHAIN)
    put(log, b"one", b"x" * 100_000)
    log.rotate([(4, b"record")])
    log.drop_before(0)
    put(log, b"two")
    with pytest.raises(InUseError):
        Log.open(folder, lambda *_: None, chain=CHAIN)
    log.close()
    again = Log.open(folder, lambda _o, kind, data: seen.append((kind, data)), chain=CHAIN)
    assert seen == [(1, b"one"), (1, b"x" * 100_000), (4, b"record"), (1, b"two")]
    assert again.drop_before(again.end) == 1
    again.close()
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 2
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())
