"""The two-slot file: after any torn write the newest whole content is there."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest
from blake3 import blake3

from consensus.errors import LocalProtocolError
from node.errors import DamagedMarkError, InUseError, NewerFormatError, StorageFailedError
from node.storage.marks import CONTENT_BYTES_MAX, SLOT_BYTES, SlotFile
from tests.node.storage.memory_disk import MemoryDisk

PATH = Path("/data/mark")
HEAD_BYTES = 56


def made(disk: MemoryDisk, *contents: bytes) -> SlotFile:
    file = SlotFile.open(PATH, disk=disk, fresh=contents[0])
    for content in contents[1:]:
        file.write(content)
    return file


def found(disk: MemoryDisk) -> bytes:
    file = SlotFile.open(PATH, disk=disk)
    file.close()
    return file.content


def test_each_write_replaces_the_content_and_survives_a_power_cut() -> None:
    disk = MemoryDisk()
    file = made(disk, b"zero")
    assert found(disk.crash()) == b"zero"
    for number in range(1, 6):
        content = b"content %d" % number * number
        file.write(content)
        assert file.content == content
        assert found(disk.crash()) == content


def test_a_write_costs_one_sync_and_no_change_of_size() -> None:
    disk = MemoryDisk()
    file = made(disk, b"zero")
    before = disk.calls["sync"], len(disk.files[PATH].shown)
    file.write(b"one")
    assert (disk.calls["sync"], len(disk.files[PATH].shown)) == (before[0] + 1, before[1])
    assert before[1] == 2 * SLOT_BYTES


def test_the_bytes_on_disk_are_those_of_the_documented_format() -> None:
    disk = MemoryDisk()
    made(disk, b"zero", b"one")
    content = bytes(disk.files[PATH].durable)
    for slot, text in enumerate((b"zero", b"one")):
        fields = struct.pack(">8sIIQ", b"COMITYMK", 1, len(text), slot)
        context = "comity 2026-11-21 signer mark slot v1"
        check = blake3(fields + text, derive_key_context=context).digest()
        expected = fields + check + text
        assert content[slot * SLOT_BYTES :][: len(expected)] == expected


@pytest.mark.parametrize("lengths", [(10, 30), (30, 10)])
def test_a_write_torn_at_any_byte_leaves_the_older_content(lengths: tuple[int, int]) -> None:
    disk = MemoryDisk()
    file = made(disk, b"zero", b"a" * lengths[0], b"b" * 20)
    place = 3 % 2 * SLOT_BYTES
    before = bytes(disk.files[PATH].shown[place : place + 200])
    file.write(b"c" * lengths[1])
    written = bytes(disk.files[PATH].shown[place : place + 200])
    size = HEAD_BYTES + lengths[1]
    assert before[:size] != written[:size]
    for count in range(size + 1):
        for torn in (written[:count] + before[count:], before[:count] + written[count:]):
            after = disk.copy()
            after.files[PATH].shown[place : place + 200] = torn
            expected = b"c" * lengths[1] if torn[:size] == written[:size] else b"b" * 20
            assert found(after) == expected, f"torn after {count} bytes"


def test_a_flip_at_any_byte_leaves_the_other_slot() -> None:
    disk = MemoryDisk()
    made(disk, b"older", b"newer")
    for slot, (mine, other) in enumerate([(b"older", b"newer"), (b"newer", b"older")]):
        for position in range(HEAD_BYTES + len(mine)):
            after = disk.copy()
            after.files[PATH].shown[slot * SLOT_BYTES + position] ^= 0x10
            assert found(after) == other


def test_both_slots_damaged_is_refused() -> None:
    disk = MemoryDisk()
    made(disk, b"older", b"newer").close()
    for slot in range(2):
        disk.files[PATH].shown[slot * SLOT_BYTES + HEAD_BYTES] ^= 1
    with pytest.raises(DamagedMarkError, match="neither slot") as caught:
        found(disk)
    assert "new key" in caught.value.hint


@pytest.mark.parametrize("size", [0, 1, HEAD_BYTES, SLOT_BYTES - 1])
def test_a_file_cut_short_of_its_first_slot_is_refused_or_whole(size: int) -> None:
    disk = MemoryDisk()
    made(disk, b"zero")
    after = disk.copy()
    del after.files[PATH].shown[size:]
    if size <= HEAD_BYTES:
        with pytest.raises(DamagedMarkError):
            found(after)
    else:
        assert found(after) == b"zero"


def test_a_slot_copied_over_the_other_does_not_count_twice() -> None:
    disk = MemoryDisk()
    made(disk, b"older", b"newer").close()
    content = disk.files[PATH].shown
    content[SLOT_BYTES:] = content[:SLOT_BYTES]
    assert found(disk) == b"older"


def test_a_failed_write_is_final_and_the_file_is_whole_either_way() -> None:
    for step in ("write", "sync"):
        for keep in ("none", "all", "half"):
            disk = MemoryDisk()
            file = made(disk, b"zero")
            disk.fail = {step: 0}
            with pytest.raises(StorageFailedError, match="injected"):
                file.write(b"one")
            with pytest.raises(StorageFailedError, match="injected"):
                file.write(b"two")
            assert file.failed is not None
            assert found(disk.crash(keep=keep)) in (b"zero", b"one")


def test_opening_writes_what_it_found_again() -> None:
    """After a failed sync the content may be shown and yet not be on disk."""
    disk = MemoryDisk()
    file = made(disk, b"zero")
    disk.fail = {"sync": 0}
    with pytest.raises(StorageFailedError):
        file.write(b"one")
    file.close()
    disk.files[PATH].unsynced.clear()
    disk.files[PATH].lies = True
    assert found(disk) == b"one"
    assert found(disk.crash()) == b"one"


@pytest.mark.parametrize("step", ["lock", "create", "write", "sync", "rename", "sync_folder"])
def test_a_crash_while_making_the_file_leaves_none_or_a_whole_one(step: str) -> None:
    disk = MemoryDisk()
    disk.fail = {step: 0}
    with pytest.raises(StorageFailedError):
        made(disk, b"zero")
    assert disk.handles == {}
    assert disk.locks == {}
    after = disk.crash(keep="all")
    try:
        assert found(after) == b"zero"
    except FileNotFoundError:
        assert made(after, b"again").content == b"again"


def test_fresh_content_never_replaces_what_is_there() -> None:
    disk = MemoryDisk()
    made(disk, b"zero", b"one").close()
    assert made(disk, b"fresh").content == b"one"


def test_a_second_process_is_refused() -> None:
    disk = MemoryDisk()
    file = made(disk, b"zero")
    with pytest.raises(InUseError):
        found(disk)
    file.close()
    assert found(disk) == b"zero"


def test_a_newer_format_is_refused() -> None:
    disk = MemoryDisk()
    made(disk, b"zero")
    fields = struct.pack(">8sIIQ", b"COMITYMK", 2, 3, 1)
    context = "comity 2026-11-21 signer mark slot v1"
    check = blake3(fields + b"new", derive_key_context=context).digest()
    slot = fields + check + b"new"
    after = disk.copy()
    after.files[PATH].shown[SLOT_BYTES : SLOT_BYTES + len(slot)] = slot
    with pytest.raises(NewerFormatError):
        found(after)


def test_content_that_does_not_fit_is_our_own_bug() -> None:
    file = made(MemoryDisk(), b"zero")
    file.write(bytes(CONTENT_BYTES_MAX))
    with pytest.raises(LocalProtocolError):
        file.write(bytes(CONTENT_BYTES_MAX + 1))


def test_the_system_disk_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "signer" / "mark"
    path.parent.mkdir()
    file = SlotFile.open(path, fresh=b"zero")
    file.write(b"one")
    with pytest.raises(InUseError):
        SlotFile.open(path)
    file.close()
    again = SlotFile.open(path)
    assert again.content == b"one"
    again.close()
    with pytest.raises(StorageFailedError, match="closed"):
        again.write(b"two")
    assert path.stat().st_mode & 0o777 == 0o600


# --- a full disk ----------------------------------------------------------------------------------


class FullDisk(MemoryDisk):
    """Has no room for writes, or tells so only when it is synced, while ``full`` says so."""

    full = ""

    def write(self, handle: int, data: bytes, position: int) -> None:
        if self.full == "write":
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(handle, data, position)

    def sync(self, handle: int) -> None:
        if self.full == "sync":
            raise OSError(errno.EDQUOT, "Quota exceeded")
        super().sync(handle)


@pytest.mark.parametrize("how", ["write", "sync"])
def test_what_found_no_room_is_written_whole_once_there_is_and_nothing_before(how: str) -> None:
    disk = FullDisk()
    file = made(disk, b"zero", b"one")
    disk.full = how
    with pytest.raises(StorageFailedError, match=r"No space|Quota"):
        file.write(b"two")
    assert file.full
    assert (file.content, file.kept) == (b"one", b"two")
    with pytest.raises(StorageFailedError):
        file.write(b"three")
    with pytest.raises(StorageFailedError):
        file.retry()
    assert file.full, "there is no room yet"
    assert found(disk.crash()) == b"one"
    disk.full = ""
    file.retry()
    assert not file.full
    assert file.failed is None
    assert found(disk.crash()) == file.content == file.kept == b"two"
    file.write(b"three")
    assert found(disk.crash()) == b"three"


def test_a_failure_of_another_kind_is_final() -> None:
    disk = FullDisk()
    file = made(disk, b"zero")
    disk.full = "write"
    with pytest.raises(StorageFailedError):
        file.write(b"one")
    disk.full = ""
    disk.fail["sync"] = 0
    with pytest.raises(StorageFailedError):
        file.retry()
    assert not file.full
    assert file.failed is not None
    with pytest.raises(LocalProtocolError, match="lack of room"):
        file.retry()


def test_a_disk_that_is_full_at_the_opening_is_waited_for_by_whoever_says_so() -> None:
    disk = FullDisk()
    made(disk, b"zero", b"one").close()
    disk.full = "write"
    with pytest.raises(StorageFailedError):
        SlotFile.open(PATH, disk=disk)
    file = SlotFile.open(PATH, disk=disk, waits=True)
    assert (file.full, file.kept) == (True, b"one")
    disk.full = ""
    file.retry()
    file.write(b"two")
    assert found(disk.crash()) == b"two"
    file.close()
    disk.fail["write"] = 0
    with pytest.raises(StorageFailedError):
        SlotFile.open(PATH, disk=disk, waits=True)  # EIO is not waited for
