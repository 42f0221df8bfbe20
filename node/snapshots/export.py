"""A snapshot file from a node's store, of a stopped node or of one that runs.

One LMDB read transaction shows one height, whatever the node writes meanwhile. The hashes of the
row are computed from the rows as they are read, and must lead to the certified state root: a store
that is damaged makes no snapshot. The file gets its name when it is whole.

Not here: the format (``consensus.snapshot``), and a running node's own snapshots (``serving``).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

import lmdb

from consensus import codec, genesis
from consensus.errors import ProofError
from consensus.hashing import DIGEST_BYTES
from consensus.ledger.layout import Paths
from consensus.snapshot import Manifest, frame, verify_manifest
from consensus.state.history import HistoryTree
from consensus.state.record import decode_row, is_record_row
from consensus.state.snapshot import ROW_BITS_MAX, is_split, row_bits
from consensus.state.subtree import subtree_hash
from consensus.state.tree import ENTRY_BYTES
from node import epochs
from node.errors import DamagedStoreError, SnapshotError
from node.flushing import META_NUMBERS
from node.snapshots.source import LeaveOut, Source
from node.storage import tables
from node.storage.disk import SYSTEM_DISK
from node.storage.refusals import refused
from node.storage.store import View
from node.storage.tables import Tables

PARTIAL_SUFFIX: Final = ".partial"

Progress = Callable[[int, int], None]
"""``(done, of)`` in entries."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What a snapshot file holds."""

    height: int
    state_root: bytes
    key_count: int
    entries: int
    chunks: int
    left_out: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Selection:
    """What a copy for an auditor holds; with neither, it is a whole snapshot.

    Args:
        prefixes: texts of 0 and 1: the first bits of the key paths, whole chunks.
        kinds: of records whose rows are in it; other rows are left out, their entries stay.
    """

    prefixes: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether nothing is left out."""
        return not self.prefixes and not self.kinds


WHOLE: Final = Selection()


def stored_manifest(view: View, split: tuple[bytes, bytes], key_count: int, row: bytes) -> Manifest:
    """Return the manifest of the height that a store's view shows.

    Args:
        split: head of the genesis file, and the hash of its contents.
        key_count, row: entries of the state, and the hashes of its nodes of one depth.

    Raises:
        SnapshotError: there is no certified height yet.
        DamagedStoreError: the store lacks what every flush writes.
    """
    height = view.height
    if height <= 0:
        raise SnapshotError(
            "this node has no certified height yet",
            hint="start the node and wait until it has caught up",
        )
    block, certificate = view.block(height), view.certificate(height)
    numbers = view.meta(META_NUMBERS)
    ended = [each for each in epochs.kept(view) if each.height <= height]
    if block is None or certificate is None or numbers is None:
        raise DamagedStoreError(f"the store lacks block or certificate of height {height}")
    return Manifest(
        genesis=split[0],
        contents=split[1],
        certificate=certificate,
        block=bytes(codec.parse(block)[0]),
        history=tuple(hash_ for _, hash_ in HistoryTree(_Nodes(view), height).frontier()),
        numbers=tuple(codec.parse(numbers)),
        key_count=key_count,
        depth=(len(row) // DIGEST_BYTES).bit_length() - 1,
        row=row,
        epochs=tuple(each.step() for each in ended),
    )


class _Nodes:
    def __init__(self, view: View) -> None:
        self._view = view

    def node(self, level: int, index: int) -> bytes | None:
        return self._view.history(level, index)


def export(
    store_folder: Path,
    genesis_bytes: bytes,
    target: Path,
    progress: Progress,
    selection: Selection = WHOLE,
) -> Exported:
    """Write a snapshot of the newest height in a node's store.

    Args:
        store_folder: the store's own; the node may be running.
        genesis_bytes: the network's genesis file.
        target: made, or refused if it is there.

    Raises:
        SnapshotError: nothing is certified yet, the file exists, or it cannot be written.
        StorageError: the store cannot be read, is another network's, or does not lead to the
            certified state root.
    """
    if target.exists():
        raise SnapshotError(f"{target} exists", hint="name a new file")
    if not (store_folder / "data.mdb").is_file():
        raise SnapshotError(
            f"there is no store in {store_folder}", hint="name the node's configuration or data"
        )
    chain = genesis.chain_id(genesis_bytes)
    partial = target.with_name(target.name + PARTIAL_SUFFIX)
    try:
        with lmdb.open(
            str(store_folder), readonly=True, create=False, max_dbs=tables.TABLES_MAX
        ) as environment:
            opened = tables.open_tables(environment, create=False)
            with environment.begin() as txn, os.fdopen(_create(partial), "r+b") as file:
                tables.check_stamp(
                    txn.get(tables.META_FORMAT, db=opened.meta),
                    txn.get(tables.META_CHAIN, db=opened.meta),
                    chain,
                )
                found = _write(txn, opened, genesis_bytes, file, progress, selection)
                file.flush()
                SYSTEM_DISK.sync(file.fileno())
        SYSTEM_DISK.rename(partial, target)
        _sync_name(target)
    except lmdb.Error as error:
        raise refused(f"cannot read the store in {store_folder}", error) from error
    except OSError as error:
        raise SnapshotError(
            f"cannot write {target}: {error.strerror or error}",
            hint="free or replace the disk, or name a file on another; the store is as it was",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return found


def _sync_name(target: Path) -> None:
    """Return once the name of a file is on disk; without that there is to be no such file."""
    try:
        SYSTEM_DISK.sync_folder(target.parent)
    except OSError:
        with contextlib.suppress(OSError):
            target.unlink()
        raise


def _create(path: Path) -> int:
    path.unlink(missing_ok=True)
    return SYSTEM_DISK.create(path)


def _write(
    txn: lmdb.Transaction[bytes],
    opened: Tables,
    genesis_bytes: bytes,
    file: BinaryIO,
    progress: Progress,
    selection: Selection,
) -> Exported:
    head = genesis.split(genesis_bytes)
    chain = genesis.chain_of(*head)
    tree_depth = genesis.decode_head(head[0]).tree_depth
    stat = txn.stat(opened.state)
    state_bytes = (stat["leaf_pages"] + stat["overflow_pages"]) * stat["psize"]
    depth, parts = _cut(state_bytes, tree_depth, selection)
    key_count = stat["entries"]
    leave_out = None if selection.whole else _leaving_out(Paths(chain), selection.kinds)
    source = Source(txn, opened.state, tree_depth, leave_out)
    blank = bytes(DIGEST_BYTES << depth)
    empty = replace(stored_manifest(View(txn, opened), head, key_count, blank), parts=parts)
    file.write(frame(empty.encode()))  # of the same length as the one that takes its place
    chosen = range(1 << depth) if parts is None else frozenset(parts)
    hashes: list[bytes] = []
    read = entries = chunks = 0
    for index in range(1 << depth):
        name = 1 << depth | index
        node = source.entries(name)
        hashes.append(subtree_hash(tree_depth, name, node))
        read += len(node) // ENTRY_BYTES
        if index in chosen and node:
            entries += len(node) // ENTRY_BYTES
            for piece in source.pieces(name):
                file.write(frame(piece))
                chunks += not is_split(piece)
        progress(read, key_count)
    manifest = replace(empty, row=b"".join(hashes))
    try:
        certified = verify_manifest(manifest, chain)
    except ProofError as error:
        raise DamagedStoreError(f"the store is not what is certified: {error.message}") from error
    size_bytes = file.tell()
    file.seek(0)
    file.write(frame(manifest.encode()))
    return Exported(
        height=certified.height,
        state_root=certified.statement.state_root,
        key_count=key_count,
        entries=entries,
        chunks=chunks,
        left_out=source.left_out,
        size_bytes=size_bytes,
    )


def _cut(
    state_bytes: int, tree_depth: int, selection: Selection
) -> tuple[int, tuple[int, ...] | None]:
    """Return the depth of the row, and the indices of the chunks (None: all)."""
    depth = row_bits(state_bytes, tree_depth)
    if selection.whole:
        return depth, None
    longest = max(map(len, selection.prefixes), default=0)
    depth = max(depth, longest + longest % 2)
    if depth > min(tree_depth, ROW_BITS_MAX):
        raise SnapshotError(
            f"a prefix of {longest} bits is longer than the {min(tree_depth, ROW_BITS_MAX)} by "
            "which this network's state can be cut"
        )
    indices: set[int] = set()
    for prefix in selection.prefixes or ("",):
        free = depth - len(prefix)
        first = int(prefix or "0", 2) << free
        indices.update(range(first, first + (1 << free)))
    return depth, tuple(sorted(indices))


def _leaving_out(paths: Paths, kinds: Collection[str]) -> LeaveOut:
    """Return what a copy for an auditor leaves out: the salt pool, and what was not asked for."""

    def leave_out(kh: bytes, row: bytes) -> bool:
        if kh == paths.pool:
            return True
        if not kinds or not row:  # a tombstone says no more than its entry
            return False
        return not (is_record_row(row) and decode_row(row).kind in kinds)

    return leave_out
