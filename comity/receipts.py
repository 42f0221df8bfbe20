"""Receipts: one decision, as far as its holder may see it, to be checked by anybody.

    receipt  = ["comity receipt", 1, genesis, certificate, statement | null, history path,
                [number of decisions, path], decision, [record, ...]]
    genesis    [head of the genesis file, hash of its contents, [[certificate, committee], ...]]
    statement  of the decision's height; null where the certificate is for that height
    decision   as its holder is shown it: closed leaves are their hashes
    record     of those that the decision wrote and that are still as it wrote them, as their
               holder is shown them (``consensus.reads``)

Checked: the genesis head, the certificate, the statement's place in its history, the decision's
among the results of its height, and each record against the hash that the decision names. Unlike a
bundle it does not show what was judged, only what was decided.

The **digest** is the hash of the file. Printed, as text or as a QR code, it ties paper to file.

Not here: bundles (``consensus.evidence``). Source: docs/formats/receipt.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from comity import decisions
from comity.results import Decision, Entry
from comity.verify import record_entry
from consensus import codec, genesis, reads
from consensus.answers import EpochStep, StatementEvidence
from consensus.codec import Value
from consensus.committee import COMMITTEE
from consensus.errors import DecodeError, ProofError
from consensus.evidence.stages import stage
from consensus.evidence.trust import Chain
from consensus.hashing import context
from consensus.hotstuff.types import Statement
from consensus.ledger.layout import Paths
from consensus.protocol import StateKey
from consensus.reads import RecordRow
from consensus.state.merkle import RESULTS

MAGIC: Final = "comity receipt"
VERSION: Final = 1
RECEIPT_BYTES_MAX: Final = 4 * 1024 * 1024
RECORDS_MAX: Final = 64
_EVIDENCE: Final = codec.octets(low=1, high=64 * 1024)
_HASHES: Final = codec.list_of(codec.bytes32, 256)

_digest = context("receipt")
_SHAPE: Final = codec.array(
    codec.text(32, low=1),
    codec.integer(VERSION, VERSION),
    codec.array(
        codec.octets(low=1, high=genesis.HEAD_BYTES_MAX),
        codec.bytes32,
        codec.list_of(codec.array(_EVIDENCE, COMMITTEE), 1024),
    ),
    _EVIDENCE,
    codec.optional(_EVIDENCE),
    codec.list_of(codec.bytes32, 64),
    codec.array(codec.integer(1), _HASHES),
    codec.octets(low=1, high=1024 * 1024),
    reads.RECORDS,
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a receipt proves.

    Args:
        network: its name.
        decision: with the leaves that are open to whom it was given.
        statement: of its height.
        newest: the certificate's statement: nothing later is known to the receipt.
        records: what the decision wrote, as far as shown.
        digest: of the file.
    """

    network: str
    decision: Decision
    statement: Statement
    newest: Statement
    records: tuple[Entry, ...]
    digest: bytes


def is_file(data: bytes) -> bool:
    """Return whether untrusted bytes begin like a receipt."""
    return data[1:].startswith(codec.encode(MAGIC))


def digest(data: bytes) -> bytes:
    """Return the digest of a receipt's file."""
    return _digest(data)


def make(
    head: tuple[bytes, bytes],
    steps: Sequence[EpochStep],
    evidence: StatementEvidence,
    results: tuple[int, Sequence[bytes]],
    decision: bytes,
    records: Sequence[RecordRow],
) -> bytes:
    """Return the file of a receipt.

    Args:
        head: of the genesis file, with the hash of its contents.
        steps: the committees of later epochs.
        evidence: of the decision's height.
        results: the number of decisions of that height, and the path to their root.
        decision: as its holder is shown it.
        records: that it wrote and that are unchanged.
    """
    return codec.encode(
        [
            MAGIC,
            VERSION,
            [*head, [each.to_value() for each in steps]],
            evidence.certificate,
            evidence.statement,
            list(evidence.path),
            [results[0], list(results[1])],
            decision,
            [each.to_value() for each in records],
        ]
    )


def verify(data: bytes, chain: bytes) -> Receipt:
    """Return what the receipt in untrusted bytes proves.

    Args:
        chain: hash of the genesis file, which the reader knows by another way.

    Raises:
        DecodeError: it is no receipt, or malformed.
        FailedError: a check fails.
    """
    codec.refuse_crowd(data, "receipt")
    value = codec.decode(data, _SHAPE, bytes_max=RECEIPT_BYTES_MAX, what="receipt")
    if value[0] != MAGIC:
        raise DecodeError("this is no receipt", path="receipt")
    (head, contents, steps), certificate, statement, path, (total, results), shown, rows = value[2:]
    with stage("network"):
        if genesis.chain_of(head, contents) != chain:
            raise ProofError("it is of another network")
        first = genesis.decode_head(head)
    with stage("certificate"):
        trust = Chain(chain, first.committee)
        trust.follow([EpochStep(*each) for each in steps])
        newest = trust.certificate(certificate).statement
    with stage("history"):
        found = trust.statement(StatementEvidence(certificate, statement, tuple(path)))
    with stage("decision"):
        decision = decisions.read(shown)
        if (decision.height, decision.time_ms) != (found.height, found.time_ms):
            raise ProofError("the decision is of another height than the statement")
        RESULTS.verify_path(found.results_root, total, decision.index, decision.root, results)
    with stage("writes"):
        records = _records(decision, reads.read_records(rows), found, Paths(chain))
    return Receipt(first.network, decision, found, newest, records, digest(data))


def written(decision: Decision) -> dict[bytes, tuple[StateKey, bytes]]:
    """Return the records that a decision shows it wrote, with their hashes, by encoded place."""
    found: dict[bytes, tuple[StateKey, bytes]] = {}
    for name, value in decision.leaves.items():
        rows: Any = value if name.startswith("writes:") else []
        for (space, components), _, _, vh, _ in rows:
            if space == "record":
                found[codec.encode(components)] = StateKey(space, tuple(components)), vh
    return found


def place_of(row: RecordRow) -> bytes:
    """Return the encoded place of an untrusted record: what its header says of itself.

    Raises:
        DecodeError: it has no header.
    """
    value: Value = codec.parse(row.header, "record header")
    if type(value) is not list or len(value) != 5 or type(value[2]) is not list:
        raise DecodeError("expected a record's header", path="receipt.records")
    return codec.encode([value[0], *value[2]])


def _records(
    decision: Decision, rows: Sequence[RecordRow], statement: Statement, paths: Paths
) -> tuple[Entry, ...]:
    places = written(decision)
    found: list[Entry] = []
    for row in rows:
        place = place_of(row)
        if place not in places:
            raise ProofError("a record is shown that the decision did not write, or twice")
        key, vh = places.pop(place)
        kh = paths(key.namespace, list(key.components))
        found.append(
            record_entry(key, kh, row, vh, statement.height, statement.height, statement.time_ms)
        )
    return tuple(found)
