"""Rows of somebody else's store, checked against the value hashes that the state tree has.

A row holds what its value hash was made of: values, salts, and hashes that follow from these. Every
byte of it is bound, so there is one row for a value hash and no other:

    record      each leaf hash is computed again, the root over all of them is the value hash, and
                the row is the one that its parts encode to
    single      the leaf hash is the value hash
    attached    the same, and the attachment leads to the root that the leaf holds: the text of a
                rule set to the root of its parts, a proposal's draft to its txid, with the private
                part that its body commits to
    tombstone   empty, under the zero value hash

Not here: which key path a value belongs to (the tree binds both), and what values mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from consensus import codec
from consensus.errors import ComityError, ProofError
from consensus.hashing import DIGEST_BYTES, ZERO, bulk
from consensus.ledger.attached import ATTACHED, cut_attached, split_attached
from consensus.ledger.layout import Paths, encode_bytes
from consensus.ledger.private import CALLS_MAX
from consensus.ledger.proposals import DRAFT
from consensus.ledger.proposals import SPACE as PROPOSAL
from consensus.ledger.rules import decode_definition, parts_root
from consensus.ledger.transaction import ENVELOPE_BYTES_MAX, decode_body, with_private
from consensus.state.record import decode_row, encode_row, is_record_row
from consensus.state.salted import SALT_BYTES, TEXTS, single_leaf, split, uint
from consensus.state.tree import ENTRY_BYTES

_RULES: Final = "rules"
_SINGLE_HEAD_BYTES: Final = 8 + SALT_BYTES
_KH_HEAD: Final = b"\x83\x58\x20"
_DRAFT: Final = codec.array(
    codec.octets(low=1, high=ENVELOPE_BYTES_MAX),
    codec.list_of(codec.octets(low=1, high=ENVELOPE_BYTES_MAX), CALLS_MAX + 3, low=2),
    codec.octets(DIGEST_BYTES),
)

_values = bulk("value")
_fields = bulk("field")


def check_rows(chain: bytes, paths: Paths, entries: bytes, values: Sequence[bytes | None]) -> None:
    """Check the rows of entries of the tree, each with its row or None where that is left out.

    Args:
        chain: hash of the genesis file.
        paths: of the network.
        entries: joined, 72 bytes each.
        values: untrusted, one an entry.

    Raises:
        ProofError: a row is not the one that its value hash was made of. Says which key.

    Cost: about 12 µs a record of six leaves, 3 µs a single leaf.
    """
    for at, row in zip(range(0, len(entries), ENTRY_BYTES), values, strict=True):
        if row is not None:
            kh = entries[at : at + DIGEST_BYTES]
            check_row(chain, paths, kh, entries[at + DIGEST_BYTES : at + 2 * DIGEST_BYTES], row)


def check_row(chain: bytes, paths: Paths, kh: bytes, vh: bytes, row: bytes) -> None:
    """Check that an untrusted row is the one that the value hash of a key was made of.

    Raises:
        ProofError: it is not. Says which key.
    """
    try:
        if vh == ZERO or not row:
            fits = vh == ZERO and not row
        elif is_record_row(row):
            fits = _record_hash(kh, row) == vh
        elif row[0] == ATTACHED:
            fits = _attached_hash(chain, paths, kh, row) == vh
        else:
            fits = _single_hash(kh, row) == vh
    except ComityError as error:
        raise ProofError(f"the row of key {kh.hex()}: {error.message}") from error
    if not fits:
        raise ProofError(f"the row of key {kh.hex()} does not have the value hash of its entry")


def _record_hash(kh: bytes, row: bytes) -> bytes:
    record = decode_row(row)
    head = _KH_HEAD + kh
    salts = split(record.salts, SALT_BYTES)
    hidden = _values([salt + value for salt, value in zip(salts, record.values, strict=True)])
    leaves = [
        head + TEXTS[name] + uint(version) + hash_
        for name, version, hash_ in zip(record.names, record.versions, hidden, strict=True)
    ]
    if b"".join(_fields(leaves)) != record.hashes:
        raise ProofError("a leaf does not have the hash that is stored with it")
    if encode_row(record) != row:
        raise ProofError("it is not laid as a record is")
    return record.root()


def _single_hash(kh: bytes, row: bytes) -> bytes:
    if len(row) <= _SINGLE_HEAD_BYTES:
        raise ProofError("a single leaf is cut short")
    version = int.from_bytes(row[:8], "big")
    return single_leaf(kh, version, row[8:_SINGLE_HEAD_BYTES], row[_SINGLE_HEAD_BYTES:])


def _attached_hash(chain: bytes, paths: Paths, kh: bytes, row: bytes) -> bytes:
    root, attachment = split_attached(row)
    single, _ = cut_attached(row)
    if single[_SINGLE_HEAD_BYTES:] != encode_bytes(root):
        raise ProofError("the leaf does not hold a root")
    if kh == paths(PROPOSAL, [root, DRAFT]):
        _check_draft(chain, root, attachment)
    else:
        definition = decode_definition(attachment)
        if kh != paths(_RULES, [definition.domain, definition.number]):
            raise ProofError("an attachment lies where there is none")
        if parts_root(definition) != root:
            raise ProofError("the text of a rule set does not lead to its root")
    return _single_hash(kh, single)


def _check_draft(chain: bytes, txid: bytes, attachment: bytes) -> None:
    body, openings, seed = codec.decode(
        attachment, _DRAFT, bytes_max=ENVELOPE_BYTES_MAX, what="draft"
    )
    found = decode_body(chain, body)
    if found.txid != txid:
        raise ProofError("the draft of a proposal is not the transaction that it names")
    with_private(chain, found, openings, seed)
