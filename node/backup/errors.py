"""Errors of backups, below ``node.errors.NodeError``.

NodeError
├── BackupError                  a backup cannot be made, or put back here
│   └── DamagedBackupError       it is not what was written, or not whole
└── StorageError
    └── DamagedStoreError
        └── DamagedRowError      the first row of a store that is wrong; knows table, key, height
"""

from __future__ import annotations

from node.errors import DamagedStoreError, NodeError


class BackupError(NodeError):
    """A backup cannot be made or put back here."""

    code = "BACKUP"
    advice = "`comity node backup --help` and `comity node restore --help` say what is needed"


class DamagedBackupError(BackupError):
    """What lies there is not a whole backup."""

    code = "BACKUP_DAMAGED"
    advice = "take another backup; the data folder was left as it was"


class DamagedRowError(DamagedStoreError):
    """The first row of a store that is not what it must be.

    Args:
        table: of the store.
        key: of the row; empty where it is about the table.
        height: that the row belongs to; None where it is of no height.
        what: what is wrong with it, in words.
    """

    code = "STORE_DAMAGED"

    def __init__(self, table: str, key: bytes, height: int | None, what: str) -> None:
        place = f"table {table}"
        if height is not None:
            place += f", height {height}"
        if key:
            place += f", key 0x{key.hex()}"
        super().__init__(f"{place}: {what}")
        self.table = table
        self.key = key
        self.height = height
        self.what = what

    def __reduce__(self) -> tuple[type[DamagedRowError], tuple[str, bytes, int | None, str]]:
        """Return how another process makes it again."""
        return DamagedRowError, (self.table, self.key, self.height, self.what)
