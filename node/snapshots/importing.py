"""A new node's data folder from a snapshot file.

Everything is checked as it is read; the store gets its name when all of it is right. The folder
must be empty: what a node has promised lies in it, and nothing here may lose that. Whatever goes
wrong, it is empty again, so that the same command can be given once more.

Not here: the checks (``consensus.snapshot``), and joining over the links (``joining``).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from consensus.errors import invariant
from consensus.keyfile import KeyPair
from consensus.snapshot import Piece, Reader
from consensus.state.snapshot import Chunk, decode_piece
from node import config as configs
from node.epochs import ended_of
from node.errors import SnapshotError, StorageError
from node.identity import check_role, chosen, load_identity, load_keys
from node.keyring import Keyring, asking
from node.opening import mark_path
from node.snapshots import begin
from node.snapshots.checking import Pool, processes_for
from node.snapshots.filling import Filler, Listed
from node.storage.disk import SYSTEM_DISK

AHEAD_PER_WORKER: Final = 2
"""Chunks read and not yet stored, for each worker."""

Progress = Callable[[int, int], None]
"""``(done, of)`` in entries."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What the new node's store holds."""

    folder: Path
    height: int
    state_root: bytes
    entries: int
    votes: bool
    """Whether the key was given a mark, so that the node may vote."""


def import_file(
    file: Path, config_file: Path, progress: Progress, *, new_key: bool = False
) -> Imported:
    """Begin a new node's data from a snapshot file.

    Args:
        file: a whole snapshot.
        config_file: of the node; its data folder is empty or absent.
        new_key: the operator vouches that the validator key has never signed anything.

    Raises:
        SnapshotError: the folder is not empty, or the file is a copy for an auditor.
            Or the folder cannot be written.
        DecodeError, VerificationError: the file is not right.
        PromisesLostError: the key is not new.
        ComityError, OSError: configuration, keys, or the file cannot be read.
    """
    config = configs.load(config_file, os.environ)
    keys = load_keys(config, Keyring.of(config, os.environ, ask=asking()))
    founder = load_identity(config, keys)
    folder = config.path(config.node.data)
    if folder.exists() and any(folder.iterdir()):
        raise SnapshotError(
            f"the data folder {folder} is not empty",
            hint="a snapshot begins a new node; one that has data catches up by itself",
        )
    with file.open("rb") as opened:
        reader = Reader(opened.read, founder.chain)
        certified = reader.certified
        identity = founder.at(tuple([ended_of(each) for each in certified.manifest.epochs]))
        check_role(config, identity)
        key = chosen(keys.validators, identity)
        if new_key and key is None:
            raise SnapshotError(
                f"no key of {identity.agency} votes yet, so none needs to be called new",
                hint="leave --new-key away: the node follows until a committee names its key",
            )
        if not certified.whole:
            raise SnapshotError(
                "this is a copy of a part, for an auditor; a node cannot go on from it",
                hint="export one without --prefix and --kind",
            )
        if new_key:
            begin.refuse_used(certified, identity.holder.place(certified.committee))
        try:
            SYSTEM_DISK.make_folder(folder)
        except OSError as error:
            raise _unwritable(folder, error) from error
        new = begin.room(folder)
        try:
            entries = fill(reader, new, progress)
            if new_key and isinstance(key, KeyPair):  # else the mark is the signer's
                mark = mark_path(folder, identity.genesis, key)
                begin.first_mark(folder, mark, key, certified)
            begin.put_in_place(folder)
        except StorageError as error:
            _empty(folder)
            raise _unwritable(folder, error) from error
        except BaseException:
            _empty(folder)
            raise
    return Imported(folder, certified.height, certified.statement.state_root, entries, new_key)


def _unwritable(folder: Path, error: StorageError | OSError) -> SnapshotError:
    """Return what to tell whose disk failed."""
    why = error.message if isinstance(error, StorageError) else str(error)
    hint = "free or replace the disk, and import once more; no node has run on this folder"
    return SnapshotError(f"the snapshot cannot be stored in {folder}: {why}", hint=hint)


def _empty(folder: Path) -> None:
    """Remove what was made: the folder was empty, and no node has signed with what it holds."""
    with contextlib.suppress(OSError):
        for each in list(folder.iterdir()):
            if each.is_dir():
                shutil.rmtree(each, ignore_errors=True)
            else:
                each.unlink()


def fill(reader: Reader, new: Path, progress: Progress) -> int:
    """Check every chunk and store it in a new store; return how many entries there are.

    Args:
        reader: of a whole snapshot.
        new: folder of the store; must not exist.
    """
    certified = reader.certified
    key_count = certified.manifest.key_count
    filler = Filler(new, certified.chain)
    try:
        with Pool(certified.cut, processes_for(key_count)) as pool:
            waiting: deque[tuple[Piece, Future[Listed]]] = deque()
            for piece in reader.pieces():
                waiting.append((piece, pool.submit(piece)))
                if len(waiting) > AHEAD_PER_WORKER * pool.size:
                    _store(filler, *waiting.popleft())
                    progress(filler.entries, key_count)
            while waiting:
                _store(filler, *waiting.popleft())
                progress(filler.entries, key_count)
        reader.finish(filler.entries)
        filler.finish(certified, certified.manifest.numbers)
    finally:
        filler.close()
    return filler.entries


def _store(filler: Filler, piece: Piece, index: Future[Listed]) -> None:
    found = index.result()
    filler.put(checked_chunk(piece), found)


def checked_chunk(piece: Piece) -> Chunk:
    """Return the chunk in bytes that a worker has checked."""
    chunk = decode_piece(piece.data)
    invariant(isinstance(chunk, Chunk), "a checked piece is no chunk")
    return cast(Chunk, chunk)
