"""What a disclosure file proves: fields that were opened to somebody, and the act that opened them.

What is checked, in this order; the first that fails is the answer:

    file         canonical, of this version
    network      the genesis head leads to the hash that the reader knows
    certificate  each committee elected under the one before; a quorum of the last signs
    history      every other statement lies in the history that the certificate vouches for
    state        the proof shows each disclosure and each record under one of these statements
    disclosure   the leaf is the one in the state; it names record, version and fields
    fields       the leaves that it names, and no others, lead to the record as it is in the state,
                 or as a height of the history changed it
    sealed       each opening is what the commitment that it names hides

So nobody can show another record, version or field than the act on the chain names. Names and
versions of the other leaves are not in the file, nor any salt of theirs: their hashes tell nothing.
Header, names and version of what is shown follow from the leaf, and are not repeated.

Not here: whether the reader is the audience and the time is not over, which is the reader's to say
(``Disclosed`` has both); who may make such a file (``node.api``).
What is in the file is told by ``disclosure_file``. Source: docs/formats/disclosure.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final

from consensus import codec, genesis
from consensus.answers import StatementEvidence
from consensus.codec import Value
from consensus.errors import CertificateError, ProofError
from consensus.evidence.disclosure_file import Body, Change, Item, Revealed, decode
from consensus.evidence.trust import Chain
from consensus.hashing import DIGEST_BYTES, ZERO
from consensus.hotstuff.types import Statement
from consensus.ledger.disclosures import SPACE, Disclosure
from consensus.ledger.layout import Paths, encode_id
from consensus.ledger.model import WHOLE
from consensus.state import changes, proof, salted
from consensus.state.merkle import CHANGES
from consensus.state.salted import SALT_BYTES, Opening

_FIRST: Final = 1
"""The version of a disclosure's leaf: it is never changed."""
_NONE: Final[Mapping[int, Value]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Field:
    """A leaf that is shown: a field, or the fields of a group, with the version that set it.

    ``revealed`` has the values of sealed fields whose commitments are in ``value``, by their place
    in it (WHOLE: the commitment is the value).
    """

    name: str
    version: int
    value: Value
    revealed: Mapping[int, Value] = field(default_factory=lambda: _NONE)


@dataclass(frozen=True, slots=True)
class Shown:
    """What one disclosure proves to have opened.

    Args:
        disclosure: the act, as it is on the chain.
        definition: by which definition of its kind the record was laid out.
        fields: what was opened, in the order of the disclosure.
        height: that wrote the version which is shown, or something beside it that steps no version.
        current: whether this was still the record's present version at the height of the file.
    """

    disclosure: Disclosure
    definition: int
    fields: tuple[Field, ...]
    height: int
    current: bool


@dataclass(frozen=True, slots=True)
class Disclosed:
    """What a disclosure file proves, as of a certified height and its chain time."""

    chain: bytes
    network: str
    height: int
    time_ms: int
    items: tuple[Shown, ...]


# --- verifying --------------------------------------------------------------------------------


def verify(data: bytes, chain: bytes) -> Disclosed:
    """Return what an untrusted disclosure file proves.

    Args:
        chain: hash of the genesis file, which the reader knows by another way.

    Raises:
        DecodeError: not a disclosure file of this version.
        CertificateError, SignatureError: it is of another network, or no quorum vouches for it.
        ProofError: it does not show what it says.

    Cost: 70 µs a signature of the certificate and about 0.2 ms for each record.
    """
    head, contents_hash, body = decode(data)
    if genesis.chain_of(head, contents_hash) != chain:
        raise CertificateError("the disclosure is of another network")
    first = genesis.decode_head(head)
    trust = Chain(chain, first.committee)
    trust.follow(body.steps)
    return check(body, trust, first.network)


def check(body: Body, trust: Chain, network: str) -> Disclosed:
    """Return what the body of a file proves to somebody who trusts the committees of ``trust``.

    Raises:
        CertificateError, DecodeError, ProofError, SignatureError: as ``verify``.
    """
    statements = _statements(body, trust)
    paths = Paths(trust.chain)
    height = proof.decode(body.proof).height
    statement = statements.get(height)
    if statement is None:
        raise ProofError(f"the state of height {height} is shown, but no statement of it")
    ids = [item.disclosure.id for item in body.items]
    if any(a >= b for a, b in pairwise(ids)):
        raise ProofError("the disclosures do not ascend")
    used = {height, max(statements), *(item.change.height for item in body.items if item.change)}
    if used != statements.keys():
        raise ProofError("a statement that nothing rests on")
    keys = [_keys(item, paths) for item in body.items]
    flat = list(dict.fromkeys(key for pair in keys for key in pair))
    found = proof.verify(body.proof, statement.state_root, flat, height=height)
    shown = tuple(
        _shown(item, pair, found, statements, height)
        for item, pair in zip(body.items, keys, strict=True)
    )
    shown = _with_revealed(shown, body.sealed)
    return Disclosed(trust.chain, network, height, statement.time_ms, shown)


def _with_revealed(shown: tuple[Shown, ...], sealed: Sequence[Revealed]) -> tuple[Shown, ...]:
    """Return what is shown with the values that its commitments are shown to hide."""
    places = [(each.item, each.leaf, each.place) for each in sealed]
    if any(a >= b for a, b in pairwise(places)):
        raise ProofError("the sealed values do not ascend")
    fields = [list(each.fields) for each in shown]
    for each in sealed:
        if each.item >= len(fields) or each.leaf >= len(fields[each.item]):
            raise ProofError("a sealed value of a field that is not shown")
        found = fields[each.item][each.leaf]
        _check_sealed(found, each)
        revealed = {**found.revealed, each.place: each.opening.value}
        fields[each.item][each.leaf] = replace(found, revealed=revealed)
    return tuple(replace(each, fields=tuple(row)) for each, row in zip(shown, fields, strict=True))


def _check_sealed(found: Field, revealed: Revealed) -> None:
    value, place = found.value, revealed.place
    if place != WHOLE:
        inside = type(value) is list and place < len(value)
        value = value[place] if inside else None
    if type(value) is not bytes or revealed.opening.commitment != value:
        raise ProofError(f"{found.name} does not commit to the sealed value that is shown")


def _statements(body: Body, trust: Chain) -> dict[int, Statement]:
    """Return the verified statements of a file by height, the certificate's own among them."""
    own = trust.certificate(body.certificate).statement
    found: dict[int, Statement] = {}
    for encoded, path in body.statements:
        each = trust.statement(StatementEvidence(body.certificate, encoded, tuple(path)))
        found[each.height] = each
    if len(found) != len(body.statements) or any(a >= b for a, b in pairwise(found)):
        raise ProofError("the statements do not ascend")
    found[own.height] = own
    return found


def _keys(item: Item, paths: Paths) -> tuple[bytes, bytes]:
    disclosure = item.disclosure
    return (
        paths(SPACE, [disclosure.id]),
        paths("record", [disclosure.kind, *disclosure.record]),
    )


def _shown(
    item: Item,
    keys: tuple[bytes, bytes],
    found: dict[bytes, proof.Found],
    statements: dict[int, Statement],
    height: int,
) -> Shown:
    disclosure = item.disclosure
    leaf, record = found[keys[0]], found[keys[1]]
    value = codec.encode(list(disclosure))
    hashed = salted.single_leaf(keys[0], _FIRST, item.salt, value)
    if leaf is None or leaf[0] != hashed:
        raise ProofError(f"disclosure {disclosure.id.hex()} is not what the state holds")
    vh = _root(item, keys[1])
    fields = tuple(
        Field(name, version, each)
        for name, (_, version, each) in zip(disclosure.leaves, item.shown, strict=True)
    )
    change = item.change
    if change is None:
        if record is None or record[0] != vh:
            raise ProofError(f"{_word(disclosure)} is not what the state holds")
        return Shown(disclosure, item.definition, fields, record[1], current=True)
    if change.height > height:
        raise ProofError("a change is shown that came after the state")
    if record is None or record[0] in (ZERO, vh):
        raise ProofError(f"{_word(disclosure)} is shown as an earlier version, and is none")
    _check_change(change, keys[1], vh, statements[change.height], disclosure)
    return Shown(disclosure, item.definition, fields, change.height, current=False)


def _root(item: Item, kh: bytes) -> bytes:
    """Return the value hash that the shown leaves and the hashes of the others lead to."""
    disclosure = item.disclosure
    indices = [index for index, _, _ in item.shown]
    if any(a >= b for a, b in pairwise(indices)):
        raise ProofError(f"the leaves of {_word(disclosure)} do not ascend")
    header: list[Any] = [
        disclosure.kind,
        item.definition,
        disclosure.record,
        disclosure.version,
        item.count,
    ]
    salts = salted.split(item.salts, SALT_BYTES)
    openings: dict[int, Opening | salted.HiddenOpening] = {}
    for name, salt, (index, version, value) in zip(
        disclosure.leaves, salts, item.shown, strict=True
    ):
        if version > disclosure.version:
            raise ProofError(f"{name} of {_word(disclosure)} is newer than the record")
        openings[index] = Opening(name, version, salt, codec.encode(value))
    hashes = salted.split(item.hashes, DIGEST_BYTES)
    encoded = codec.encode(header)
    return salted.opened_root(salted.RECORD, kh, encoded, item.count, openings, hashes)


def _check_change(
    change: Change, kh: bytes, vh: bytes, statement: Statement, disclosure: Disclosure
) -> None:
    record = kh + vh + change.previous.to_bytes(8, "big", signed=True)
    (leaf,) = changes.leaf_hashes([record])
    try:
        CHANGES.verify_path(statement.changes_root, change.count, change.index, leaf, change.path)
    except ProofError as error:
        said = f"height {change.height} did not write what is shown of {_word(disclosure)}"
        raise ProofError(said) from error


def _word(disclosure: Disclosure) -> str:
    """Return what an error calls the record of a disclosure: its kind, and the place in hex."""
    return f"{disclosure.kind} {encode_id(disclosure.record).hex()} v{disclosure.version}"
