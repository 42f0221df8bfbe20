"""Certified states for tests of snapshots, signed by validators whose keys the test world makes.

Not here: the format, which ``consensus.snapshot`` has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nacl.bindings

from consensus import codec, genesis
from consensus.genesis import Genesis
from consensus.hotstuff import wire
from consensus.hotstuff.types import Block, CommitCert, PayloadItem, QuorumCert, Statement
from consensus.ledger.codes import Code
from consensus.ledger.transaction import PROPOSE
from consensus.signing import TAG_COMMIT_VOTE, message
from consensus.snapshot import Manifest, frame
from consensus.state.history import HistoryTree, MemoryNodes
from consensus.state.record import create, encode_row, salts_needed
from consensus.state.snapshot import Chunk, encode_chunk
from consensus.state.state import MemoryBackend, Row, State
from consensus.state.subtree import bounds, subtree_hash
from consensus.state.tree import ENTRY_BYTES
from node.flushing import META_NUMBERS
from node.storage.bulk import Beginning, Rows
from node.storage.store import Store
from tests.consensus.ledger import world as worlds
from tests.consensus.ledger.committee_room import Desk, genesis_with

NUMBERS = (3, 0, 7, 1)


@dataclass(frozen=True)
class CertifiedState:
    """A state with all that a snapshot of it says."""

    genesis: Genesis
    rows: dict[bytes, Row]
    block: Block
    statement: Statement
    certificate: CommitCert
    frontier: tuple[bytes, ...]

    @property
    def chain(self) -> bytes:
        return genesis.chain_id(self.genesis.encode())

    @property
    def depth(self) -> int:
        return self.genesis.tree_depth

    def below(self, name: int) -> list[tuple[bytes, Row]]:
        """The rows below a node, ascending."""
        low, high = bounds(name)
        return [(k, r) for k, r in sorted(self.rows.items()) if low <= k and (not high or k < high)]

    def chunk(self, name: int) -> Chunk:
        rows = self.below(name)
        entries = b"".join(k + r.vh + r.changed_height.to_bytes(8, "big") for k, r in rows)
        return Chunk(name, entries, [row.value for _, row in rows])

    def manifest(self, bits: int = 4, parts: Sequence[int] | None = None) -> Manifest:
        head, contents = genesis.split(self.genesis.encode())
        chunks = [self.chunk(1 << bits | index) for index in range(1 << bits)]
        return Manifest(
            genesis=head,
            contents=contents,
            certificate=wire.encode_commit_cert(self.certificate),
            block=wire.encode_block(self.block),
            history=self.frontier,
            numbers=NUMBERS,
            key_count=len(self.rows),
            depth=bits,
            row=b"".join(subtree_hash(self.depth, each.name, each.entries) for each in chunks),
            parts=None if parts is None else tuple(parts),
        )

    def pieces(self, bits: int = 4) -> list[bytes]:
        chunks = [self.chunk(1 << bits | index) for index in range(1 << bits)]
        return [encode_chunk(each) for each in chunks if each.entries]

    def file(self, bits: int = 4) -> bytes:
        return join(self.manifest(bits), self.pieces(bits))

    def store(self, folder: Path) -> Path:
        """A node's store at this state."""
        store = Store.open(folder, chain=self.chain, map_bytes=1 << 26)
        rows = [
            (kh, row.changed_height.to_bytes(8, "big") + row.vh + row.value)
            for kh, row in sorted(self.rows.items())
        ]
        store.write_bulk(Rows(rows))
        store.write_bulk(
            Beginning(
                height=self.statement.height,
                block=codec.encode([wire.encode_block(self.block), self.statement.encode()]),
                certificate=wire.encode_commit_cert(self.certificate),
                history=history_nodes(self.statement.height),
                meta=[(META_NUMBERS, codec.encode(list(NUMBERS)))],
            )
        )
        store.close()
        return folder


def join(manifest: Manifest, pieces: Iterable[bytes]) -> bytes:
    """The file of a manifest and pieces."""
    return b"".join([frame(manifest.encode()), *map(frame, pieces)])


def entries_in(pieces: Iterable[bytes]) -> int:
    """How many entries the chunks among some pieces hold."""
    values = [codec.parse(each) for each in pieces]
    return sum(len(value[2]) // ENTRY_BYTES for value in values if value[0] == 0)


def history_nodes(height: int) -> list[tuple[int, int, bytes]]:
    """All nodes of that history."""
    return _history(height)[1]


def _history(height: int) -> tuple[HistoryTree, list[tuple[int, int, bytes]]]:
    """A history of as many statements as lie below a height, which say nothing."""
    nodes = MemoryNodes()
    tree = HistoryTree(nodes)
    for number in range(height):
        tree.append(number.to_bytes(32, "big"))
    found = [(level, index, hash_) for (level, index), hash_ in tree.pending(height)]
    return tree, found


def certify(
    founded: Genesis,
    rows: dict[bytes, Row],
    height: int = 12,
    voters: Sequence[int] = (0, 1, 2),
    signers: Sequence[int] = (0, 1, 2),
) -> CertifiedState:
    """The state of some rows, signed by three of the four validators.

    ``voters`` voted on the block before, as this one says.
    """
    chain = genesis.chain_id(founded.encode())
    backend = MemoryBackend(rows.items())
    state = State(backend, founded.tree_depth, height)
    history, _ = _history(height)
    parent = bytes([height]) * 32
    votes = tuple((index, bytes([index + 1]) * 64) for index in voters)
    justify = QuorumCert(1, height, parent, height - 1, votes)
    time_ms = founded.time_ms + 1000 * height
    item = PayloadItem(b"\x07" * 32, 2, 7, 0, 1, 300)
    block = Block(
        1, height + 1, height, parent, justify, None, time_ms, (item,), founded.committee.hash
    )
    statement = Statement(
        chain, 1, block.round, height, block.id, time_ms, 1, state.root,
        bytes(32), bytes(32), history.root(), None,
    )  # fmt: skip
    signatures = []
    for index in signers:
        validator = founded.committee.validators[index]
        _, secret = nacl.bindings.crypto_sign_seed_keypair(
            worlds._seed(f"validator {validator.agency}".encode())
        )
        signed = message(TAG_COMMIT_VOTE, chain, statement.encode())
        signatures.append((index, nacl.bindings.crypto_sign(signed, secret)[:64]))
    return CertifiedState(
        founded,
        dict(rows),
        block,
        statement,
        CommitCert(statement, tuple(signatures)),
        tuple(hash_ for _, hash_ in history.frontier()),
    )


def record_row(kh: bytes, fields: int) -> tuple[bytes, bytes]:
    """Value hash and row of a record of so many fields; above 16 it has decoys."""
    values = {f"field{number:03}": codec.encode([number, "x"]) for number in range(fields)}
    salts = [bytes([number]) * 16 for number in range(salts_needed(None, list(values)))]
    stem = codec.encode(["file", 1, [kh[:4]]])[1:]
    record, vh = create(kh, stem, values, salts)
    return vh, encode_row(record)


@lru_cache(maxsize=1)
def town_state() -> CertifiedState:
    """Records (one with decoys), kernel objects, rule sets, an open proposal, and a tombstone."""
    desk = Desk('{ role = "desk.supervisor" }')
    proposed = desk.one(desk.sending(mode=PROPOSE))
    assert proposed.code == Code.PROPOSED, proposed.detail
    rows = dict(_rows(desk.state))
    for first, fields in ((0x31, 20), (0x72, 3), (0x73, 0)):
        kh = bytes([first]) * 32
        rows[kh] = Row(*_at(5, *record_row(kh, fields)))
    rows[b"\xe0" * 32] = Row(bytes(32), 7, b"")
    return certify(desk.genesis, rows)


def crowded_state() -> CertifiedState:
    """Forty records of which the key paths share 20 bits, beside a few others."""
    rows = dict(_rows(Desk('{ role = "desk.supervisor" }').state))
    for number in range(40):
        kh = b"\xab\xcd" + bytes([0xE0 | number % 4, number]) * 15
        rows[kh] = Row(*_at(3, *record_row(kh, 2)))
    return certify(genesis_with('{ role = "desk.supervisor" }'), rows)


def _at(height: int, vh: bytes, row: bytes) -> tuple[bytes, int, bytes]:
    return vh, height, row


def _rows(backend: MemoryBackend) -> Iterable[tuple[bytes, Row]]:
    for kh, _, _ in backend.entries():
        row = backend.get(kh)
        assert row is not None
        yield kh, row
