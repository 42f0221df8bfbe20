"""What it means when LMDB refuses: the system's reasons apart from the store's own.

A full disk or a file of another user says nothing of what is in the store. Who takes it for damage
removes a store that was whole.
"""

from __future__ import annotations

import errno

import lmdb

from node.errors import DamagedStoreError, StorageError, StorageFailedError

_USER = "run it as the node's user, and have the data folder belong to that user"


def refused(doing: str, error: lmdb.Error) -> StorageError:
    """Return the error to raise: ``doing``, as *cannot open the store in x*, and why.

    LMDB's own codes are negative; the others are the system's.
    """
    code = getattr(error, "code", None) or 0
    said = f"{doing}: {error}"
    if code <= 0:
        return DamagedStoreError(said)
    hint = _USER if code in (errno.EACCES, errno.EPERM) else ""
    return StorageFailedError(said, hint=hint)
