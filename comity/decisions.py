"""Decisions as clients read them: hashed first, looked into only once the hash is certified.

A decision comes as ``[header, [[name, salt, value], ...]]`` with header and values as byte strings.
Its root follows from those bytes alone, so nothing needs to be canonical or of any shape before the
root is compared; what a quorum certified was made by the executor and has the shapes it declares.
Leaves that this reader may not see come as their hashes; they are closed, not left out.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from comity.results import Decision
from consensus import codec
from consensus.codec import Value
from consensus.errors import DecodeError, ProofError
from consensus.ledger import decision as ledger
from consensus.ledger.codes import Code
from consensus.ledger.showing import Shown, hash_or_none
from consensus.state import salted

STATES: Final = MappingProxyType(
    {ledger.REFUSED: "refused", ledger.APPLIED: "applied", ledger.PROPOSED: "proposed"}
)
NOT_SHOWN: Final = MappingProxyType(
    {ledger.REFUSED: "REFUSED", ledger.APPLIED: "APPLIED", ledger.PROPOSED: "PROPOSED"}
)
"""What is said of an outcome whose leaf is closed: no more than the header does."""
_DECOY: Final = "~"


def read(data: bytes) -> Decision:
    """Return the decision in untrusted bytes; it is certified only if its ``root`` is.

    Raises:
        DecodeError: not of the form of a decision.
        ProofError: lengths that no decision has.

    Cost: about 20 µs.
    """
    rows = codec.parse(data, "decision")
    if type(rows) is not list or len(rows) != 2 or type(rows[1]) is not list:
        raise DecodeError("expected a header and leaves", path="decision")
    header_cbor, leaves = rows
    if type(header_cbor) is not bytes or not 1 <= len(leaves) <= salted.LEAVES_MAX:
        raise DecodeError("expected a header and leaves", path="decision")
    for row in leaves:
        if hash_or_none(row) is not None:
            continue
        if type(row) is not list or len(row) != 3 or type(row[0]) is not str:
            raise DecodeError("expected name, salt and value", path="decision")
        if type(row[1]) is not bytes or type(row[2]) is not bytes:
            raise DecodeError("expected name, salt and value", path="decision")
        if len(row[1]) != salted.SALT_BYTES or len(row[0]) > salted.NAME_BYTES_MAX // 4:
            raise ProofError("a salt or a name has a length that no leaf has")
    salts = [row[1] for row in leaves if type(row) is list]
    count = len([row for row in leaves if row[0] != _DECOY])
    shown = [row for row in leaves[:count] if type(row) is list]
    if len(leaves) - count != salted.decoy_count(count) or any(
        row[0] != _DECOY for row in leaves[count:]
    ):
        raise ProofError("decoys are not those of a decision")
    header = codec.parse(header_cbor, "decision header")
    ledger.HEADER(header, "decision header")
    txid, height, index, time_ms, state, actions = header[:6]
    kh = ledger.slot(txid, height, index)
    values = {row[0]: row[2] for row in shown}
    if len(values) != len(shown):
        raise ProofError("a decision shows a leaf twice")
    if len(shown) == count:
        found = ledger.Decision(header_cbor, kh, values, salts)
    else:
        places = [at for at in range(count) if type(leaves[at]) is list]
        closed = {at: leaves[at] for at in range(count) if type(leaves[at]) is bytes}
        found = Shown(header_cbor, kh, values, salts, places, closed)
    code, call, detail = _outcome(found, state)
    return Decision(
        txid,
        height,
        index,
        time_ms,
        STATES[state],
        code,
        call,
        detail,
        tuple((domain, number, action_id) for domain, number, action_id in actions),
        found.root,
        found,
    )


_CODE: Final = ledger.SHAPES["code"]
_NAMES: Final = MappingProxyType({int(code): code.name for code in Code})


def _outcome(found: ledger.Decision, state: int) -> tuple[str, int | None, Value]:
    if "code" not in found.leaves and isinstance(found, Shown):
        return NOT_SHOWN[state], None, None
    if next(iter(found.leaves), None) != "code":
        raise ProofError("a decision that does not show its code")
    value = codec.parse(found.leaves["code"], "code")
    _CODE(value, "code")
    code, call, detail = value[:3]
    return _NAMES.get(code) or f"CODE_{code}", call, detail
