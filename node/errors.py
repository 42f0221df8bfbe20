"""Errors of one agency's machine, in one tree below ``consensus.errors.ComityError``.

ComityError
└── NodeError                    something of this node, not of the protocol
    ├── StorageError
    │   ├── DamagedLogError      synced bytes of the log have changed; knows offset and segment
    │   ├── DamagedStoreError    the store's own description of itself is wrong
    │   ├── NewerFormatError     written by a newer version of the software
    │   ├── ForeignDataError     data of another network or key
    │   ├── InUseError           another process has the folder open
    │   └── StorageFailedError   the disk failed; nothing more is written or signed
    ├── SignerError
    │   ├── SigningRefusedError  a second, different body for one slot
    │   ├── PromisesLostError    what this key signed is no longer known
    │   ├── KeyStoreError        the key cannot be reached: its token is gone or refuses
    │   └── DamagedMarkError     neither slot of the signer's mark can be read
    ├── NewerExecutorError       the state is of an executor that this release lacks
    ├── SnapshotError            a snapshot cannot be made, taken or joined by here
    ├── SealedKeyError           the sealed values here are under another key
    ├── DataAccessError          others may write where the node keeps its data
    └── KeyAccessError           a key file with wrong permissions, or in the way
"""

from __future__ import annotations

from consensus.errors import ComityError

READMIT = "admit this validator again under a new key"


class NodeError(ComityError):
    """Something of this machine."""

    code = "NODE"


class StorageError(NodeError):
    """Log or store cannot be used as it is."""

    code = "STORAGE"


class DamagedLogError(StorageError):
    """Bytes of the log that were known to be on disk have changed or gone.

    Args:
        offset: global offset in the log of the first damaged byte range.
        segment: file name of its segment.
    """

    code = "LOG_DAMAGED"
    advice = (
        "copy the data folder and check the disk; if the old content of this file can be brought "
        f"back, do that; otherwise remove log and state, sync from peers and {READMIT}"
    )

    def __init__(self, offset: int, segment: str, what: str) -> None:
        super().__init__(f"the log is damaged at offset {offset} in {segment}: {what}")
        self.offset = offset
        self.segment = segment


class DamagedStoreError(StorageError):
    """The store lacks or contradicts what every flush writes."""

    code = "STORE_DAMAGED"
    advice = "copy the data folder, check the disk, remove state and sync from peers"


class NewerExecutorError(NodeError):
    """The data is of an executor that this release does not have."""

    code = "NEWER_EXECUTOR"
    advice = "run the release that wrote it, or a newer one: an older one could only guess"


class NewerFormatError(StorageError):
    """Data of a newer format."""

    code = "NEWER_FORMAT"
    advice = "run the version of the software that wrote it, or a newer one"


class ForeignDataError(StorageError):
    """Data of another network, log or key."""

    code = "FOREIGN_DATA"
    advice = "check the folders and the genesis file named in the configuration, or with --genesis"


class InUseError(StorageError):
    """Another process holds the lock."""

    code = "IN_USE"
    advice = "stop the other process, or wait for it; one key must never run twice"


class StorageFailedError(StorageError):
    """A write or sync failed. It is final for this process: what the disk holds is unknown."""

    code = "STORAGE_FAILED"
    advice = "free or replace the disk, then restart the node; it has stopped signing"


class SignerError(NodeError):
    """The signer cannot or will not sign."""

    code = "SIGNER"


class SigningRefusedError(SignerError):
    """The body would be a second signature for a slot, or lies below the mark."""

    code = "SIGNING_REFUSED"
    advice = "stop the node, keep its data folder and report the last log lines"


class PromisesLostError(SignerError):
    """Log and signer's mark do not belong together, so old promises may be missing."""

    code = "PROMISES_LOST"
    advice = (
        "mount the data folder that this key was last used with; if it is lost or was restored "
        f"from a backup, {READMIT}: this key does not vote again, but with `votes = false` under "
        "[node] and an empty data folder the node follows"
    )


class KeyStoreError(SignerError):
    """The key's store cannot be used: no module, no token, no such key, a wrong PIN."""

    code = "KEY_STORE"
    advice = "check [token] in the signer's configuration, and that the token is there"


class DamagedMarkError(SignerError):
    """The signer's mark cannot be read."""

    code = "MARK_DAMAGED"
    advice = f"keep a copy, check the disk and {READMIT}"


class SnapshotError(NodeError):
    """A snapshot cannot be made or taken here."""

    code = "SNAPSHOT"
    advice = "`comity snapshot --help` says what is needed"


class SealedKeyError(NodeError):
    """The node's sealed key is not the one that its sealed values are encrypted under."""

    code = "SEALED_KEY"
    advice = "put the file back that was in use; without it the sealed values here are lost"


class DataAccessError(NodeError):
    """The data folder is not this node's alone."""

    code = "DATA_ACCESS"
    advice = "the folder must belong to the node's user: chown it, and chmod 700"


class KeyAccessError(NodeError):
    """A key file cannot be used or made at this place."""

    code = "KEY_ACCESS"
    advice = "the file must belong to the node's user, with mode 0600"
