"""What a node finds on its own disk after a crash: the log, entries in it, and the signer's mark.

``log`` has the bytes of one segment: its checks are in force. ``log-entries`` writes the input's
entries with the log's own hand, so that recovery sorts what a check holds for.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from consensus import codec
from consensus.errors import DecodeError, LocalProtocolError
from consensus.keyfile import KeyKind, from_seed
from node.errors import SignerError, StorageError
from node.signer import Signer
from node.storage.log import Log
from node.storage.marks import CONTENT_BYTES_MAX, SlotFile
from node.storage.recovery import _Sorter
from node.storage.segment import name_of
from tests.fuzz.target import Target, of, vectors
from tests.node.storage.memory_disk import Inode, MemoryDisk
from tests.node.storage.test_vectors import content_of, entries_of

STORAGE = vectors("storage")
LOG = STORAGE["log"]
CHAIN = bytes.fromhex(LOG["chain"])
FOLDER, MARK = Path("/node/log"), Path("/node/mark")
FIRST = FOLDER / name_of(0)
KEY = from_seed(KeyKind.VALIDATOR, bytes(32))
_entries = codec.list_of(codec.array(codec.integer(1, 255), codec.octets()), 64)


def disk_with(path: Path, content: bytes) -> MemoryDisk:
    disk = MemoryDisk()
    disk.folders.add(path.parent)
    disk.files[path] = Inode()
    disk.files[path].write(content, 0)
    return disk


def log(data: bytes) -> None:
    """A log is refused, or opened, added to, closed and found again with the addition last."""
    disk = disk_with(FIRST, data)
    found = _entries_in(disk)
    opened = Log.open(FOLDER, lambda *_: None, chain=CHAIN, disk=disk)
    opened.append(1, b"after")
    opened.close()
    again = _entries_in(disk)
    assert [each[1:] for each in again] == [*(each[1:] for each in found), (1, b"after")]


def _entries_in(disk: MemoryDisk) -> list[tuple[int, int, bytes]]:
    seen: list[tuple[int, int, bytes]] = []
    Log.open(FOLDER, lambda *entry: seen.append(entry), chain=CHAIN, disk=disk).close()
    return seen


def log_entries(data: bytes) -> None:
    """Entries ``[[kind, payload], ...]`` that the log holds; a store that has none of it."""
    rows = codec.decode(data, _entries, bytes_max=2**20, what="entries")
    disk = MemoryDisk()
    fresh = Log.open(FOLDER, lambda *_: None, chain=CHAIN, disk=disk)
    for kind, payload in rows:
        fresh.append(kind, payload)
    fresh.close()
    store = SimpleNamespace(view=SimpleNamespace(height=-1, has_batch=lambda _: False))
    sorter = _Sorter(store)  # type: ignore[arg-type]  # all that it asks of a store
    Log.open(FOLDER, sorter.take, chain=CHAIN, disk=disk).close()


def mark(data: bytes) -> None:
    """A file is refused, or opened and written again, after which it says the same."""
    disk = disk_with(MARK, data)
    first = SlotFile.open(MARK, disk=disk)
    first.close()
    again = SlotFile.open(MARK, disk=disk)
    again.close()
    assert again.content == first.content


def signer(data: bytes) -> None:
    """The content of a mark that checks, as the signer takes it."""
    disk = MemoryDisk()
    SlotFile.open(MARK, disk=disk, fresh=data[:CONTENT_BYTES_MAX]).close()
    Signer.open(
        KEY, MARK, chain=CHAIN, log_identity=bytes(16), log_end=2**62, fresh=False, disk=disk
    ).close()


def made_marks() -> list[bytes]:
    disk = MemoryDisk()
    Signer.open(
        KEY, MARK, chain=CHAIN, log_identity=bytes(16), log_end=0, fresh=True, disk=disk
    ).close()
    opened = SlotFile.open(MARK, disk=disk)
    opened.close()
    return [opened.content]


SEGMENTS = [content_of(row) for row in LOG["segments"][:1]]
ENTRIES = [codec.encode([[kind, payload] for _, kind, payload in entries_of(LOG["segments"][0])])]

TARGETS = [
    Target("log", log, SEGMENTS, (StorageError,)),
    Target("log-entries", log_entries, ENTRIES,
           (DecodeError, StorageError, LocalProtocolError)),
    Target("mark", mark, of(STORAGE["mark"]["slots"], "bytes"), (StorageError, SignerError)),
    Target("signer", signer, made_marks(), (StorageError, SignerError), bytes_max=4096),
]  # fmt: skip
