"""What differs between what is recorded and what executing again gives, leaf by leaf, in words.

Only made when something differs, so nothing here is fast. Values are shown as CBOR's diagnostic
notation, cut where they are long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from consensus import codec
from consensus.audit.divergence import Difference, Problem
from consensus.errors import DecodeError
from consensus.hotstuff.types import Statement
from consensus.ledger import decision as decisions
from consensus.ledger.decision import Decision
from consensus.ledger.transaction import Transaction

WORD_MAX: Final = 400
"""Characters of a value that are shown."""
DIFFERENCES_MAX: Final = 32
"""Places that are named."""
ABSENT: Final = "nothing"

_ENTRY_BYTES: Final = 72
_STATEMENT: Final = (
    ("executor", "executor"),
    ("results_root", "results root"),
    ("changes_root", "changes root"),
    ("state_root", "state root"),
    ("history_root", "history root"),
    ("next_committee_hash", "next committee"),
)
_HEADER: Final = ("txid", "height", "index", "time_ms", "state", "actions", "executor")


def word(value: codec.Value) -> str:
    """Return a plain value as people read it, cut where it is long."""
    text = _word(value)
    return text if len(text) <= WORD_MAX else f"{text[:WORD_MAX]}… ({len(text)} characters)"


def _word(value: codec.Value) -> str:
    match value:
        case None:
            return "null"
        case True:
            return "true"
        case False:
            return "false"
        case bytes():
            return f"h'{value.hex()}'"
        case str():
            return repr(value)
        case int():
            return str(value)
        case _:
            return f"[{', '.join(map(_word, value))}]"


def of_decisions(
    recorded: Sequence[Sequence[bytes]],
    transactions: Sequence[Transaction],
    found: Sequence[Decision],
) -> Problem | None:
    """Return the first difference between recorded rows and decisions made again.

    Args:
        recorded: ``(txid, author, root, encoded)`` in order.
        transactions: what the decisions found are about.
        found: in order.
    """
    for index, (row, decision) in enumerate(zip(recorded, found, strict=False)):
        problem = _of_decision(index, row, transactions[index], decision)
        if problem is not None:
            return problem
    if len(recorded) == len(found):
        return None
    index = min(len(recorded), len(found))
    said = f"{len(recorded)} decisions are recorded, executing the block gives {len(found)}"
    kept = recorded[index][0] if index < len(recorded) else b""
    txid = transactions[index].txid if index < len(transactions) else kept
    return Problem("decision", said, index, txid)


def _of_decision(
    index: int, row: Sequence[bytes], transaction: Transaction, decision: Decision
) -> Problem | None:
    kept_txid, author, root, encoded = row
    txid = transaction.txid
    if kept_txid != txid:
        said = "another transaction is recorded at this place than the block executes there"
        differences = (Difference("txid", kept_txid.hex(), txid.hex()),)
        return Problem("decision", said, index, txid, differences)
    if author != transaction.author:
        said = "another author is recorded than the transaction's"
        differences = (Difference("author", author.hex(), transaction.author.hex()),)
        return Problem("decision", said, index, txid, differences)
    made = decision.encode()
    if made == encoded and root == decision.root:
        return None
    if made == encoded:
        said = "the recorded hash of the decision is not its hash"
        differences = (Difference("root", root.hex(), decision.root.hex()),)
        return Problem("decision", said, index, txid, differences)
    try:
        kept = decisions.decode(encoded)
    except DecodeError as error:
        said = f"the recorded decision cannot be read: {error.message}"
        return Problem("decision", said, index, txid)
    said = "the recorded decision is not the one that executing the transaction gives"
    return Problem("decision", said, index, txid, tuple(_leaves(kept, decision)))


def _leaves(recorded: Decision, found: Decision) -> list[Difference]:
    differences: list[Difference] = []
    for name in _HEADER:
        left, right = getattr(recorded.header, name), getattr(found.header, name)
        if left != right:
            differences.append(
                Difference(f"header {name}", word(_plain(left)), word(_plain(right)))
            )
    salts = dict(zip(recorded.leaves, recorded.salts, strict=False))
    for name in dict.fromkeys([*recorded.leaves, *found.leaves]):
        left, right = _leaf(recorded, name), _leaf(found, name)
        if left != right:
            differences.append(Difference(f"leaf {name}", left, right))
    for name, salt in zip(found.leaves, found.salts, strict=False):
        if name in salts and salts[name] != salt:
            differences.append(Difference(f"salt of {name}", salts[name].hex(), salt.hex()))
    return differences[:DIFFERENCES_MAX]


def _leaf(decision: Decision, name: str) -> str:
    return word(decision.value(name)) if name in decision.leaves else ABSENT


def _plain(value: object) -> codec.Value:
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def of_changes(recorded: bytes, found: Sequence[bytes]) -> Problem | None:
    """Return the first difference between recorded change records and those made again."""
    made = b"".join(found)
    if recorded == made:
        return None
    if len(recorded) % _ENTRY_BYTES:
        said = f"the recorded changes have {len(recorded)} bytes, which no number of them has"
        return Problem("changes", said)
    kept = [recorded[at : at + _ENTRY_BYTES] for at in range(0, len(recorded), _ENTRY_BYTES)]
    for left, right in zip(kept, found, strict=False):
        if left != right:
            said = "a recorded change is not one that was made"
            place = f"key path {right[:32].hex()}"
            differences = (Difference(place, _change(left), _change(right)),)
            return Problem("changes", said, None, None, differences)
    said = f"{len(kept)} changes are recorded, executing the block gives {len(found)}"
    return Problem("changes", said)


def _change(record: bytes) -> str:
    before = int.from_bytes(record[64:], "big", signed=True)
    return f"{record[:32].hex()} to {record[32:64].hex()}, before that changed at {before}"


def of_statements(recorded: Statement, found: Statement) -> Problem | None:
    """Return in which roots a recorded statement differs from the one made again."""
    if recorded == found:
        return None
    differences = tuple(
        Difference(name, word(getattr(recorded, field)), word(getattr(found, field)))
        for field, name in _STATEMENT
        if getattr(recorded, field) != getattr(found, field)
    )
    names = ", ".join(each.place for each in differences)
    said = f"what the network stated is not what executing the block gives ({names})"
    return Problem("statement", said, None, None, differences)
