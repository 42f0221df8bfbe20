"""Why a restored node does not vote: its keys may have signed what the backup does not know.

A record of it lies twice in a restored node's data, in the file ``restored`` and in the store, and
never goes away. The keys in it are those that its agency had in any committee up to the backup, and
those in its key files when it was restored. With one of these the node follows, and signs nothing,
whatever log or signer's mark anybody puts beside it. With another key, once that is elected, it
votes like any other.

    record   {magic, version, chain, agency, height, backup, restored_ms, keys}   canonical CBOR

While data is being put back there is a folder ``restoring``, and no node starts there.

Not here: putting it back (``restoring``), and how a key is elected (the charter).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from consensus import codec
from consensus.committee import VALIDATORS_MAX
from consensus.errors import DecodeError
from node.backup.errors import BackupError
from node.errors import DamagedStoreError, NewerFormatError
from node.storage.store import View

FILE_NAME: Final = "restored"
STAGING_FOLDER: Final = "restoring"
META_RESTORED: Final = b"restored"
MAGIC: Final = "comity restored"
VERSION: Final = 1
KEYS_MAX: Final = 4 * VALIDATORS_MAX
RECORD_BYTES_MAX: Final = 64 * 1024

_SHAPE: Final = codec.mapping(
    {
        "magic": codec.text(32),
        "version": codec.integer(1),
        "chain": codec.bytes32,
        "agency": codec.text(256, low=1),
        "height": codec.count,
        "backup": codec.bytes32,
        "restored_ms": codec.count,
        "keys": codec.list_of(codec.bytes32, KEYS_MAX),
    }
)


@dataclass(frozen=True, slots=True)
class Restored:
    """That a node's data came from a backup.

    Args:
        height: of the backup.
        backup: its digest.
        restored_ms: that machine's clock.
        keys: validator keys that do not sign here, ascending.
    """

    chain: bytes
    agency: str
    height: int
    backup: bytes
    restored_ms: int
    keys: tuple[bytes, ...]

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        value = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return codec.encode({"magic": MAGIC, "version": VERSION, **value, "keys": list(self.keys)})


def decode(data: bytes, where: str) -> Restored:
    """Return the record in bytes.

    Raises:
        DamagedStoreError: it is not what was written.
        NewerFormatError: a newer release wrote it.
    """
    try:
        value = codec.parse(data[:RECORD_BYTES_MAX], where)
        version = value.get("version") if type(value) is dict else None
        if type(version) is int and version > VERSION:
            raise NewerFormatError(f"{where} has format {version}, this software knows {VERSION}")
        value = codec.decode(data, _SHAPE, bytes_max=RECORD_BYTES_MAX, what=where)
    except DecodeError as error:
        raise DamagedStoreError(
            f"{where}, which says that this data was restored, cannot be read: {error}",
            hint="restore the backup again, into an empty folder",
        ) from error
    del value["magic"], value["version"]
    return Restored(**{**value, "keys": tuple(value["keys"])})


def found(folder: Path, view: View) -> Restored | None:
    """Return that the data was restored, None if it never was.

    Args:
        folder: the node's data.
        view: of its store.

    Raises:
        DamagedStoreError, NewerFormatError: a record of it cannot be read.
    """
    records = []
    stored = view.meta(META_RESTORED)
    if stored is not None:
        records.append(decode(stored, "the store's record"))
    path = folder / FILE_NAME
    with suppress(FileNotFoundError):
        records.append(decode(path.read_bytes(), str(path)))
    if not records:
        return None
    keys = sorted({key for each in records for key in each.keys})
    first = records[0]
    return Restored(
        first.chain, first.agency, first.height, first.backup, first.restored_ms, tuple(keys)
    )


def refuse_unfinished(folder: Path) -> None:
    """Refuse data that is only partly put back.

    Raises:
        BackupError: a restore was interrupted, or is under way.
    """
    if (folder / STAGING_FOLDER).exists():
        raise BackupError(
            f"a backup is being restored into {folder}, or that was interrupted",
            hint="wait for it, or run `comity node restore` again: it clears what is left",
        )
