"""Readers of state, of statements, and of evidence for reversals, with the checks that follow."""

from __future__ import annotations

from consensus import codec
from consensus.audit import heights
from consensus.errors import DecodeError, ProofError
from consensus.ledger import evidence
from consensus.ledger.evidence import EvidenceError
from consensus.ledger.layout import Paths
from consensus.ledger.stored import check_row
from consensus.state import changes, statement
from consensus.state import snapshot as pieces
from tests.fuzz.target import Target, of, vectors

HISTORY, REVERSAL, STORAGE = vectors("history"), vectors("reversal"), vectors("storage")
CHAIN = bytes.fromhex(REVERSAL["chain"])
PATHS = Paths(CHAIN)
_row = codec.array(codec.bytes32, codec.bytes32, codec.octets(low=1))


def read_statement(data: bytes) -> None:
    """As a client, an audit and evidence read it: all or none of them take it."""
    found = statement.read(data)
    assert heights.read_statement(data, "statement").encode() == data
    assert found.height >= 0


def history_proof(data: bytes) -> None:
    row = HISTORY["valid"][0]
    found = changes.decode(data)
    assert found.encode() == data, "accepted, but not the canonical bytes"
    newest = statement.read(bytes.fromhex(HISTORY["statement"]))
    changes.check(found, newest, bytes.fromhex(row["kh"]), row["first"], row["last"])


def reversal_evidence(data: bytes) -> None:
    def root_of(size: int) -> bytes | None:
        return bytes.fromhex(REVERSAL["history_root"]) if size == REVERSAL["size"] else None

    evidence.check(data, bytes.fromhex(REVERSAL["txid"]), root_of, PATHS)


def snapshot_piece(data: bytes) -> None:
    pieces.decode_piece(data)


def stored_row(data: bytes) -> None:
    """A row of somebody else's store, ``[key path, value hash, row]``."""
    kh, vh, row = codec.decode(data, _row, bytes_max=2**20, what="row")
    check_row(CHAIN, PATHS, kh, vh, row)


def stored_rows() -> list[bytes]:
    rows = [*STORAGE["rows"]["records"], *STORAGE["rows"]["singles"]]
    return [codec.encode([bytes.fromhex(row[key]) for key in ("kh", "vh", "row")]) for row in rows]


TARGETS = [
    Target("statement", read_statement, [bytes.fromhex(HISTORY["statement"])]),
    Target("history-proof", history_proof, of(HISTORY["valid"], "proof"),
           (DecodeError, ProofError)),
    Target("reversal-evidence", reversal_evidence, [bytes.fromhex(REVERSAL["evidence"])],
           (EvidenceError,)),
    Target("snapshot-piece", snapshot_piece,
           [bytes.fromhex(data) for name, data in vectors("snapshot")["frames"].items()
            if name.startswith("chunk")]),
    Target("stored-row", stored_row, stored_rows(), (DecodeError, ProofError)),
]  # fmt: skip
