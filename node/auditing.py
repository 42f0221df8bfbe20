"""Reads a stopped node's data for an audit: ``python -m node.auditing``, a process of its own.

    python -m node.auditing DATA GENESIS FIRST LAST ROWS

It writes an audit stream (``consensus.audit.stream``) of the heights FIRST to LAST ("-": as far as
they go) to standard output: those of the store, then those that only the log has, up to the newest
certificate. With ROWS "rows", the state that the store keeps follows its last height. Keys are
neither needed nor read, and nothing is written.

A damaged store can kill whoever reads it. That is why this is a process; the one that reads its
output notices that the stream has no end.

Not here: any judgement of what is read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from consensus.audit.stream import (
    Failed,
    Header,
    Recorded,
    StateRow,
    Steps,
    Writer,
    encode_height,
)
from consensus.errors import ComityError
from consensus.genesis import chain_id
from consensus.hotstuff import wire
from consensus.hotstuff.types import Block, CommitCert
from node import epochs
from node.errors import DamagedStoreError
from node.recorded import block_of, stored
from node.storage import readonly
from node.storage.kinds import AtHeight, BatchPart, Kind
from node.storage.recovery import LOG_FOLDER, STORE_FOLDER
from node.storage.store import View

ROWS_BYTES: Final = 1024 * 1024
"""About how many bytes of rows go into one frame."""
ROWS_COUNT_MAX: Final = 8192
LOGGED_MAX: Final = 65_536
"""Blocks of a log above the store; a node stops long before."""


class Logged:
    """What a log holds above a store: blocks by id, certificates, and batches by digest.

    Batches are kept in memory: a log holds a few seconds, or what a node could not flush.
    """

    def __init__(self, folder: Path, chain: bytes, above: int) -> None:
        self.blocks: dict[bytes, Block] = {}
        self.certificates: dict[bytes, CommitCert] = {}
        self.public: dict[bytes, bytes] = {}
        self.private: dict[bytes, bytes] = {}
        self.newest: CommitCert | None = None
        for _, kind, payload in readonly.entries(folder, chain=chain):
            match kind:
                case Kind.BLOCK:
                    entry = AtHeight.unpack(payload)
                    if entry.height > above and len(self.blocks) < LOGGED_MAX:
                        self.blocks[entry.block_id] = wire.decode_block(entry.data)
                case Kind.COMMIT_CERT:
                    self._certify(AtHeight.unpack(payload), above)
                case Kind.SAFETY:
                    certificate = wire.decode_record(payload).commit_cert
                    if certificate is not None:
                        self._keep(certificate, above)
                case Kind.BATCH:
                    part = BatchPart.unpack(payload)
                    self.public[part.digest] = part.data
                case Kind.PRIVATE:
                    part = BatchPart.unpack(payload)
                    self.private[part.digest] = part.data

    def _certify(self, entry: AtHeight, above: int) -> None:
        self._keep(wire.decode_commit_cert(entry.data), above)

    def _keep(self, certificate: CommitCert, above: int) -> None:
        height = certificate.statement.height
        if height > above:
            self.certificates[certificate.statement.block_id] = certificate
            if self.newest is None or height > self.newest.statement.height:
                self.newest = certificate

    def certified(self, tip_id: bytes) -> list[Block]:
        """Return the blocks above ``tip_id`` up to the newest certificate, ascending."""
        chain: list[Block] = []
        wanted = None if self.newest is None else self.newest.statement.block_id
        while wanted is not None and wanted != tip_id:
            block = self.blocks.get(wanted)
            if block is None:
                return []  # the log does not join the store; the certificate may be a peer's
            chain.append(block)
            wanted = block.parent_id
        chain.reverse()
        return chain


class DataFolder:
    """The data of a stopped node, or a copy of it.

    Args:
        folder: with ``state`` and ``log`` in it.
        last: is exceeded up to the next height that has a certificate; None: as far as it goes.

    Raises:
        StorageError: the data cannot be read.
        DecodeError: an entry is malformed.
    """

    def __init__(self, folder: Path, chain: bytes, last: int | None) -> None:
        self._environment, self._view = readonly.open_store(folder / STORE_FOLDER, chain=chain)
        try:
            view = self._view
            self.steps = Steps([each.step() for each in epochs.kept(view)])
            self._logged = Logged(folder / LOG_FOLDER, chain, view.height)
            tip = view.block(view.height)
            self._above = (
                [] if tip is None else self._logged.certified(block_of(tip, view.height)[0].id)
            )
            self.last = view.height + len(self._above)
            if last is not None and last < self.last:
                found = view.certificate_from(last)
                self.last = self.last if found is None else found[0]
        except BaseException:
            self.close()
            raise

    def items(self, first: int, rows: bool) -> Iterator[Recorded | tuple[StateRow, ...]]:
        """Yield what is recorded from ``first`` on, and rows of the state where they are wanted."""
        view = self._view
        for height in range(first, min(self.last, view.height) + 1):
            recorded = stored(view, height)
            if recorded is not None:  # a gap shows in what follows
                yield recorded
        if rows and self.last >= view.height:
            yield from _rows(view)
        for block in self._above:
            if first <= block.height <= self.last:
                yield _from_log(self._logged, block)

    def close(self) -> None:
        """Close the store."""
        self._view.close()
        self._environment.close()


def _from_log(logged: Logged, block: Block) -> Recorded:
    certificate = logged.certificates.get(block.id)
    return Recorded(
        block.height,
        block.encoded,
        None,
        None if certificate is None else certificate.encoded,
        [
            (logged.public.get(item.digest), logged.private.get(item.digest))
            for item in block.payload
        ],
        None,
        None,
    )


def _rows(view: View) -> Iterator[tuple[StateRow, ...]]:
    rows: list[StateRow] = []
    size = 0
    for kh, vh, changed_height in view.entries():
        row = view.get(kh)
        if row is None:
            raise DamagedStoreError("a row of the state cannot be found again")
        rows.append(StateRow(kh, changed_height, vh, row.value))
        size += len(row.value) + 80
        if size >= ROWS_BYTES or len(rows) >= ROWS_COUNT_MAX:
            yield tuple(rows)
            rows, size = [], 0
    if rows:
        yield tuple(rows)


def write(
    sink: BinaryIO, folder: Path, genesis: bytes, first: int, last: int | None, rows: bool
) -> None:
    """Write the stream of a data folder; what goes wrong is its last frame."""
    writer = Writer()
    try:
        data = DataFolder(folder, chain_id(genesis), last)
        try:
            sink.write(writer.begin(Header(genesis, first, max(first, data.last))))
            for item in data.items(first, rows):
                if isinstance(item, Recorded):
                    sink.writelines(writer.epoch(step) for step in data.steps.before(item.height))
                    sink.write(writer.height(encode_height(item)))
                else:
                    sink.write(writer.rows(item))
        finally:
            data.close()
        sink.write(writer.end())
    except ComityError as error:
        _fail(sink, writer, genesis, Failed(error.code, error.message, error.hint))
    except OSError as error:
        said = f"{error.filename or folder}: {error.strerror}"
        failed = Failed("FILE", said, "check the path and its permissions")
        _fail(sink, writer, genesis, failed)
    sink.flush()


def _fail(sink: BinaryIO, writer: Writer, genesis: bytes, failed: Failed) -> None:
    if not writer.begun:
        sink.write(writer.begin(Header(genesis, 0, None)))
    sink.write(writer.failed(failed))


def main(arguments: list[str]) -> None:
    """Write the stream that the arguments ask for to standard output."""
    data, genesis, first, last, rows = arguments
    write(
        sys.stdout.buffer,
        Path(data),
        Path(genesis).read_bytes(),
        int(first),
        None if last == "-" else int(last),
        rows == "rows",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
