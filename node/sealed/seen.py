"""What an executed block means for the sealed values of one node.

Not here: keeping them (``vault``), and how blocks are executed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from consensus import codec
from consensus.hashing import ZERO
from consensus.ledger.decision import APPLIED, PROPOSED, Decision
from consensus.ledger.executor import BlockResult
from consensus.ledger.layout import Erasure, Paths
from consensus.ledger.model import Kind, Rulebook
from consensus.ledger.records import Record, definition_of
from consensus.ledger.sealing import ERASURE
from consensus.ledger.transaction import Transaction
from consensus.state.record import StoredRecord, decode_row, decode_single
from node.sealed.vault import Change, Erase, Kept, Place, Proposed


def changes(result: BlockResult, node_key: bytes, book: Rulebook, paths: Paths) -> list[Change]:
    """Return what a block changes of the values that were delivered to this node.

    Args:
        node_key: of this node; values acknowledged by it concern it. Erasures concern everybody.
        book: the rules in force.

    Cost: nothing for a block without sealed values.
    """
    found: list[Change] = []
    notes = result.sealing
    if not notes.delivered and not notes.erased:
        return found
    rows = {write.kh: write.row for write in result.writes if write.vh != ZERO}
    for index, transaction in notes.delivered:
        own = _own(transaction, node_key)
        decision = result.decisions[index]
        state = decision.header.state if own else None
        if state == PROPOSED:
            found += [Proposed(commitment) for commitment in own]
        elif state == APPLIED:
            homes = _homes(decision, own, rows, book, paths)
            found += [Kept(each, audience, tuple(homes[each])) for each, audience in own.items()]
    for components in notes.erased:
        row = rows.get(paths(ERASURE, list(components)))
        if row is not None:
            erasure = Erasure(*codec.parse(decode_single(row)[2], ERASURE))
            place, version = components, erasure.version
            found.append(Erase(place, version, erasure.commitment, erasure.txid))
    return found


def _own(transaction: Transaction, node_key: bytes) -> dict[bytes, tuple[str, ...]]:
    """Return the commitments whose values were delivered to this node, with their audiences."""
    audiences: dict[tuple[int, int], tuple[str, ...]] = {}
    mine: dict[tuple[int, int], None] = {}
    for ack in transaction.acks:
        place = ack.call, ack.input
        audiences[place] = (*audiences.get(place, ()), ack.agency)
        if ack.node_key == node_key:
            mine[place] = None
    return {transaction.inputs(call)[0][at]: audiences[call, at] for call, at in mine}


def _homes(
    decision: Decision,
    commitments: Iterable[bytes],
    rows: Mapping[bytes, bytes],
    book: Rulebook,
    paths: Paths,
) -> dict[bytes, list[tuple[Place, int]]]:
    """Return the fields that a transaction wrote commitments into, with their versions.

    A later transaction of the block may have written the record once more: what that left is seen.
    """
    homes: dict[bytes, list[tuple[Place, int]]] = {each: [] for each in commitments}
    for leaf in decision.names:
        if not leaf.startswith("writes:"):
            continue
        for (name, id_), *_ in decision.value(leaf) or ():
            kind = book.kinds.get(name)
            row = None if kind is None else rows.get(paths("record", [name, *id_]))
            if kind is None or row is None:
                continue
            for field, commitment, version in sealed_fields(kind, decode_row(row)):
                if commitment in homes:
                    homes[commitment].append(((name, *id_, field), version))
    return homes


def sealed_fields(kind: Kind, stored: StoredRecord) -> list[tuple[str, bytes, int]]:
    """Return field, commitment and version of each sealed field of a record that has a value."""
    places = kind.places[definition_of(kind, stored) - 1]
    record = Record(b"", b"", kind, places, stored, b"")
    return [
        (each.name, record[each.name], record.field_version(each.name))
        for each in kind.fields.values()
        if each.sealed_for and record[each.name] is not None
    ]
