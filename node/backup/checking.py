"""A store checked where it lies: a stopped node's, or a backup's with its files' digests first.

Not here: the checks of the store (``verifying``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blake3 import blake3

from node.backup import sources, verifying
from node.backup.errors import DamagedBackupError
from node.backup.manifest import MANIFEST_NAME, Manifest
from node.backup.sources import Source
from node.backup.verifying import Verified

READ_BYTES: Final = 2**20

Progress = Callable[[str, int, int], None]
"""``(what, done, of)``."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found to be right; ``backup`` is None for a node's own data."""

    verified: Verified
    backup: Manifest | None


def check_folder(folder: Path, store: Path, genesis_bytes: bytes, progress: Progress) -> Checked:
    """Check a store from end to end, and a backup's files before.

    Args:
        folder: of the data, or of a backup.
        store: of the store in it.

    Raises:
        DamagedBackupError, DamagedStoreError, StorageError: the first thing that is wrong.
    """
    backup = None
    if (folder / MANIFEST_NAME).exists():
        with sources.opened(folder) as source:
            _digests(source, progress)
            backup = source.manifest
    verified = verifying.verify(
        store, genesis_bytes, lambda done, of: progress("checked", done, of)
    )
    return Checked(verified, backup)


def _digests(source: Source, progress: Progress) -> None:
    of = source.manifest.size_bytes
    done = 0
    for part in source.manifest.files:
        hasher = blake3()
        with source.file(part.name) as file:
            while data := file.read(READ_BYTES):
                hasher.update(data)
                done += len(data)
                progress("read", done, of)
        if hasher.digest() != part.digest:
            raise DamagedBackupError(
                f"{part.name} is damaged: its BLAKE3 is not that of the manifest"
            )
