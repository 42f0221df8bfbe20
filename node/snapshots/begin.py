"""Putting a store that was begun from a snapshot in its place, so that no crash leaves half of one.

    state.new     being filled; blank until it is whole
    state.old     what it replaces, until the new one has its name

The log, with every promise of the validator key, and the signer's mark stay as they are: a store
holds no promises. Both stores stay until the folder is synced with the new one's name in it, so a
disk that fails leaves one of the two. A key without a mark gets one only where the operator says
that it was never used (``first_mark``); else the node does not vote (``PROMISES_LOST`` at its next
start).

Not here: filling it (``filling``).
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Final

from consensus.errors import invariant
from consensus.hotstuff.types import SignKind
from consensus.keyfile import KeyPair
from consensus.snapshot import Certified
from node.errors import PromisesLostError, StorageFailedError
from node.signer import Signer
from node.storage.disk import SYSTEM_DISK
from node.storage.log import Log
from node.storage.recovery import LOG_FOLDER, STORE_FOLDER

NEW_FOLDER: Final = f"{STORE_FOLDER}.new"
OLD_FOLDER: Final = f"{STORE_FOLDER}.old"


def room(folder: Path) -> Path:
    """Return where a new store of the data folder is filled; nothing is there.

    Raises:
        StorageFailedError: what is there cannot be removed.
    """
    new = folder / NEW_FOLDER
    clear(folder)
    if new.exists():
        raise StorageFailedError(f"cannot remove {new}", hint="mend the disk; it is a draft")
    return new


def clear(folder: Path) -> None:
    """Remove what was filled and is not needed, as far as the disk permits."""
    shutil.rmtree(folder / NEW_FOLDER, ignore_errors=True)


def put_in_place(folder: Path) -> None:
    """Have the filled store take the place of the one in the data folder; neither is open.

    Raises:
        StorageFailedError: the disk failed. One of the two is in place, or will be by ``mend``.
    """
    state, new, old = folder / STORE_FOLDER, folder / NEW_FOLDER, folder / OLD_FOLDER
    invariant(new.exists(), "there is no new store")
    try:
        if state.exists():
            if old.exists():
                SYSTEM_DISK.sync_folder(folder)  # no name leads to it any more
                shutil.rmtree(old)
            SYSTEM_DISK.rename(state, old)
        _name(new, state, old)
        SYSTEM_DISK.sync_folder(folder)
    except OSError as error:
        raise StorageFailedError(f"cannot put a new store in place: {error}") from error
    shutil.rmtree(old, ignore_errors=True)


def _name(new: Path, state: Path, old: Path) -> None:
    """Give the new store its name, or the old one its own back."""
    try:
        SYSTEM_DISK.rename(new, state)
    except OSError:
        if old.exists():
            with contextlib.suppress(OSError):
                SYSTEM_DISK.rename(old, state)
        raise


def mend(folder: Path) -> None:
    """Finish what a crash interrupted; called before the data is opened.

    The old store is set aside only when the new one is whole, so that one is it.

    Raises:
        StorageFailedError: the disk fails; both are still there.
    """
    state, new, old = folder / STORE_FOLDER, folder / NEW_FOLDER, folder / OLD_FOLDER
    try:
        if not state.exists() and new.exists() and old.exists():
            SYSTEM_DISK.rename(new, state)
        left = [each for each in (new, old) if each.exists()]
        if state.exists() and left:
            SYSTEM_DISK.sync_folder(folder)
            for each in left:
                shutil.rmtree(each, ignore_errors=True)
    except OSError as error:
        raise StorageFailedError(f"cannot finish putting a store in place: {error}") from error


def refuse_used(certified: Certified, own: int) -> None:
    """Refuse to call a key new that the snapshot itself shows to have signed.

    Raises:
        PromisesLostError: a certificate in it holds its signature.
    """
    certificate, block = certified.certificate, certified.block
    signed = [
        (SignKind.COMMIT_VOTE, certified.statement.round, certificate.signatures),
        (SignKind.VOTE, block.justify.round, block.justify.signatures),
    ]
    if block.timeout_cert is not None:
        entries = [(index, signature) for index, _, signature in block.timeout_cert.entries]
        signed.append((SignKind.TIMEOUT, block.timeout_cert.round, tuple(entries)))
    for kind, round_, signatures in signed:
        if own in (index for index, _ in signatures):
            name = kind.name.lower().replace("_", " ")
            raise PromisesLostError(
                f"the snapshot holds a {name} of this key for round {round_}: it is not new"
            )


def first_mark(folder: Path, mark: Path, key: KeyPair, certified: Certified) -> None:
    """Make log and mark of a key that was never used, in a data folder without a store.

    No commit vote is ever signed up to the round of the snapshot.
    """
    log = Log.open(folder / LOG_FOLDER, lambda offset, kind, payload: None, chain=certified.chain)
    try:
        signer = Signer.open(
            key,
            mark,
            chain=certified.chain,
            log_identity=log.identity,
            log_end=log.end,
            fresh=True,
        )
        try:
            statement = certified.statement
            signer.settle(statement.epoch, statement.round)
            signer.write_mark(log.end)
        finally:
            signer.close()
    finally:
        log.close()
