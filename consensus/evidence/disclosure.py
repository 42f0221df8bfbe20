"""The disclosure file: fields that were opened to somebody, with the act that opened them.

    file       = ["comity disclosure", 1, genesis, certificate, statements, proof, [item, ...]]
    genesis      [head of the genesis file, hash of its contents, [[certificate, committee], ...]]
                 the committees of later epochs, each elected under the one before
    certificate  commit certificate, the newest that the maker knew
    statements   [[statement, history path], ...]     ascending by height; of other heights than
                                                      the certificate's own
    proof        state proof of each item's disclosure and record, in their order
    item         one for each disclosure, ascending by their ids:
                 [salt, disclosure leaf, definition, leaf count,
                  [index, version, value, ...], salts, hashes, change]
                 index, version, value   of each leaf that the disclosure names, in its order
                 hashes                  what stands for the others (``salted``)
                 change                  null where the version is the present one, else
                                         [height, changes, index, previous height, path]

What is checked, in this order; the first that fails is the answer:

    file         canonical, of this version
    network      the genesis head leads to the hash that the reader knows
    certificate  each committee elected under the one before; a quorum of the last signs
    history      every other statement lies in the history that the certificate vouches for
    state        the proof shows each disclosure and each record under one of these statements
    disclosure   the leaf is the one in the state; it names record, version and fields
    fields       the leaves that it names, and no others, lead to the record as it is in the state,
                 or as a height of the history changed it

So nobody can show another record, version or field than the act on the chain names. Names and
versions of the other leaves are not in the file, nor any salt of theirs: their hashes tell nothing.
Header, names and version of what is shown follow from the leaf, and are not repeated.

Not here: whether the reader is the audience and the time is not over, which is the reader's to say
(``Disclosed`` has both); who may make such a file (``node.api``).
Source: docs/formats/disclosure.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from consensus import codec, genesis
from consensus.answers import EpochStep, StatementEvidence
from consensus.codec import Value
from consensus.committee import COMMITTEE
from consensus.errors import CertificateError, DecodeError, ProofError, invariant
from consensus.evidence.trust import Chain
from consensus.hashing import DIGEST_BYTES, ZERO
from consensus.hotstuff.types import Statement
from consensus.ledger.disclosures import SPACE, Disclosure
from consensus.ledger.layout import Paths, encode_id
from consensus.protocol import DISCLOSURES_MAX
from consensus.state import changes, proof, salted
from consensus.state.merkle import CHANGES
from consensus.state.record import StoredRecord
from consensus.state.salted import SALT_BYTES, Opening

MAGIC: Final = "comity disclosure"
VERSION: Final = 1
FILE_BYTES_MAX: Final = 16 * 1024 * 1024
ITEMS_MAX: Final = DISCLOSURES_MAX
"""Disclosures of one file."""
LEAVES_MAX: Final = 64
"""Leaves that one disclosure opens."""
CERTIFICATE_BYTES_MAX: Final = 64 * 1024
STATEMENT_BYTES_MAX: Final = 4096
EPOCHS_MAX: Final = 1024
PATH_MAX: Final = 64
"""Hashes from a statement to a history root, and from a change to its root."""
_FIRST: Final = 1
"""The version of a disclosure's leaf: it is never changed."""

_CERTIFICATE: Final = codec.octets(low=1, high=CERTIFICATE_BYTES_MAX)
_NAME: Final = codec.text(64, low=1)
_ID: Final = codec.list_of(codec.plain, 16, low=1)
_WORDS: Final = codec.text(1000, low=1)
_CHANGE: Final = codec.array(
    codec.count,  # height
    codec.integer(1),  # changes of that height
    codec.count,  # index
    codec.integer(-1),  # previous height
    codec.list_of(codec.bytes32, PATH_MAX * 3),
)
_DISCLOSURE: Final = codec.array(
    codec.bytes32,
    _NAME,
    _ID,
    codec.integer(1),
    codec.list_of(codec.text(salted.NAME_BYTES_MAX, low=1), LEAVES_MAX, low=1),
    codec.list_of(codec.plain, 2, low=2),
    _WORDS,
    _WORDS,
    codec.count,
    codec.count,
    codec.bytes32,
    _NAME,
)
_ITEM: Final = codec.array(
    codec.octets(SALT_BYTES),
    _DISCLOSURE,
    codec.integer(1),
    codec.integer(1, salted.LEAVES_MAX),
    codec.list_of(codec.plain, 3 * LEAVES_MAX, low=3),
    codec.octets(low=SALT_BYTES, high=SALT_BYTES * LEAVES_MAX),
    codec.octets(high=DIGEST_BYTES * salted.LEAVES_MAX),
    codec.optional(_CHANGE),
)
_GENESIS: Final = codec.array(
    codec.octets(low=1, high=genesis.HEAD_BYTES_MAX),
    codec.bytes32,
    codec.list_of(codec.array(_CERTIFICATE, COMMITTEE), EPOCHS_MAX),
)
_STATEMENTS: Final = codec.list_of(
    codec.array(
        codec.octets(low=1, high=STATEMENT_BYTES_MAX), codec.list_of(codec.bytes32, PATH_MAX)
    ),
    ITEMS_MAX + 1,
)
_BODY: Final = (
    _CERTIFICATE,
    _STATEMENTS,
    codec.octets(low=1, high=proof.PROOF_BYTES_MAX),
    codec.list_of(_ITEM, ITEMS_MAX, low=1),
)
_FILE: Final = codec.array(codec.text(64), codec.integer(VERSION, VERSION), _GENESIS, *_BODY)
_ANSWER: Final = codec.array(
    codec.list_of(codec.array(_CERTIFICATE, COMMITTEE), EPOCHS_MAX), *_BODY
)


@dataclass(frozen=True, slots=True)
class Change:
    """That a height changed a record to what is shown: its place in the height's change tree."""

    height: int
    count: int
    index: int
    previous: int
    path: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Item:
    """One disclosure with what it opens, not yet believed."""

    salt: bytes
    disclosure: Disclosure
    definition: int
    count: int
    shown: Sequence[tuple[int, int, Value]]
    """Index, version and value of each leaf that the disclosure names."""
    salts: bytes
    hashes: bytes
    change: Change | None

    def to_value(self) -> Value:
        """Return the canonical array."""
        change = self.change
        return [
            self.salt,
            list(self.disclosure),
            self.definition,
            self.count,
            [each for row in self.shown for each in row],
            self.salts,
            self.hashes,
            None
            if change is None
            else [change.height, change.count, change.index, change.previous, [*change.path]],
        ]


@dataclass(frozen=True, slots=True)
class Body:
    """What a node gives for a file: everything but the genesis head, which its reader has."""

    steps: Sequence[EpochStep]
    certificate: bytes
    statements: Sequence[tuple[bytes, Sequence[bytes]]]
    proof: bytes
    items: Sequence[Item]

    def to_value(self) -> Value:
        """Return the canonical array of a node's answer."""
        return [[each.to_value() for each in self.steps], *self._rest()]

    def encode(self, head: bytes, contents_hash: bytes) -> bytes:
        """Return the file.

        Args:
            head, contents_hash: of the genesis file, see ``genesis.split``.
        """
        opened = [head, contents_hash, [each.to_value() for each in self.steps]]
        return codec.encode([MAGIC, VERSION, opened, *self._rest()])

    def _rest(self) -> list[Value]:
        return [
            self.certificate,
            [[statement, [*path]] for statement, path in self.statements],
            self.proof,
            [each.to_value() for each in self.items],
        ]


@dataclass(frozen=True, slots=True)
class Field:
    """A leaf that is shown: a field, or the fields of a group, with the version that set it."""

    name: str
    version: int
    value: Value


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


def is_file(data: bytes) -> bool:
    """Return whether untrusted bytes begin like a disclosure file."""
    return data[1:].startswith(codec.encode(MAGIC))


# --- making -----------------------------------------------------------------------------------


def make_item(
    disclosure: Disclosure, salt: bytes, record: StoredRecord, change: Change | None
) -> Item | None:
    """Return what opens the leaves of a disclosure; None if the record has not all of them.

    Args:
        salt: of the disclosure's leaf.
        record: at the version that the disclosure names.
        change: that laid it so, where it is not the present one.
    """
    invariant(record.version == disclosure.version, "another version than the disclosure names")
    found = [record.index(name) for name in disclosure.leaves]
    indices = [each for each in found if each is not None]
    if len(indices) != len(found):
        return None
    leaves = [record.leaf_at(index) for index in indices]
    return Item(
        salt,
        disclosure,
        record.definition,
        len(record.names),
        [
            (index, leaf.version, codec.parse(leaf.value_cbor, "leaf"))
            for index, leaf in zip(indices, leaves, strict=True)
        ],
        b"".join([leaf.salt for leaf in leaves]),
        b"".join(record.hashes_for(indices)),
        change,
    )


# --- reading ----------------------------------------------------------------------------------


def read_body(value: Value) -> Body:
    """Return what a node answers. Raises DecodeError."""
    _ANSWER(value, "disclosure")
    return _body(value[0], value[1:])


def decode(data: bytes) -> tuple[bytes, bytes, Body]:
    """Return genesis head, hash of the contents and the rest of an untrusted file.

    Raises:
        DecodeError: not a disclosure file of this version; the error has the place.
    """
    if not is_file(data):
        raise DecodeError("this is no disclosure file", path="disclosure")
    value = codec.decode(data, _FILE, bytes_max=FILE_BYTES_MAX, what="disclosure")
    head, contents_hash, steps = value[2]
    return head, contents_hash, _body(steps, value[3:])


def _body(steps: Value, rest: Sequence[Value]) -> Body:
    certificate, statements, proved, items = rest
    return Body(
        [EpochStep(*step) for step in steps],
        certificate,
        [(statement, path) for statement, path in statements],
        proved,
        [_item(item, at) for at, item in enumerate(items)],
    )


def _item(value: Value, at: int) -> Item:
    salt, leaf, definition, count, flat, salts, hashes, change = value
    path = f"disclosure.items[{at}]"
    disclosure = Disclosure(*leaf)
    named = len(disclosure.leaves)
    if len(flat) != 3 * named or len(salts) != SALT_BYTES * named:
        raise DecodeError(f"{named} leaves are named, others are shown", path=path)
    if len(hashes) % DIGEST_BYTES:
        raise DecodeError("a hash does not have 32 bytes", path=path)
    for index, version in zip(flat[0::3], flat[1::3], strict=True):
        codec.count(index, path)
        codec.count(version, path)
    shown = list(zip(flat[0::3], flat[1::3], flat[2::3], strict=True))
    laid = None if change is None else Change(*change)
    return Item(salt, disclosure, definition, count, shown, salts, hashes, laid)


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
    return Disclosed(trust.chain, network, height, statement.time_ms, shown)


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
