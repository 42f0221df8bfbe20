"""The disclosure file as it travels: fields opened to somebody, with the act that opened them.

    file       = ["comity disclosure", 1, genesis, certificate, statements, proof, [item, ...],
                  [[item index, leaf index, place, opening], ...]]
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
    opening      of a sealed value: what a commitment in a leaf hides, ``place`` being -1 where the
                 commitment is the leaf, else its position among the leaf's fields; ascending

Not here: what it proves (``disclosure``), and who may make such a file (``node.api``).
Source: docs/protocol/disclosure.cddl.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from consensus import codec, genesis
from consensus.answers import EpochStep
from consensus.codec import Value
from consensus.committee import COMMITTEE
from consensus.errors import DecodeError, invariant
from consensus.hashing import DIGEST_BYTES
from consensus.ledger.disclosures import Disclosure
from consensus.ledger.model import WHOLE
from consensus.ledger.rules.definition import FIELDS_MAX
from consensus.ledger.sealing import OPENING, read_opening
from consensus.ledger.sealing import Opening as SealedOpening
from consensus.protocol import DISCLOSURES_MAX
from consensus.state import proof, salted
from consensus.state.record import StoredRecord
from consensus.state.salted import SALT_BYTES

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
_SEALED: Final = codec.list_of(
    codec.array(
        codec.integer(0, ITEMS_MAX - 1),
        codec.integer(0, LEAVES_MAX - 1),
        codec.integer(WHOLE, FIELDS_MAX),
        OPENING,
    ),
    ITEMS_MAX * LEAVES_MAX,
)
_FILE: Final = codec.array(
    codec.text(64), codec.integer(VERSION, VERSION), _GENESIS, *_BODY, _SEALED
)
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
class Revealed:
    """What a commitment in an opened leaf hides: ``place`` in the leaf, WHOLE where it is all."""

    item: int
    leaf: int
    place: int
    opening: SealedOpening

    def to_value(self) -> Value:
        """Return the canonical array."""
        return [self.item, self.leaf, self.place, self.opening.to_value()]


@dataclass(frozen=True, slots=True)
class Body:
    """What a node gives for a file: everything but the genesis head, which its reader has.

    ``sealed`` comes from whoever is of the audience of sealed fields; nodes leave it out.
    """

    steps: Sequence[EpochStep]
    certificate: bytes
    statements: Sequence[tuple[bytes, Sequence[bytes]]]
    proof: bytes
    items: Sequence[Item]
    sealed: Sequence[Revealed] = ()

    def to_value(self) -> Value:
        """Return the canonical array of a node's answer."""
        return [[each.to_value() for each in self.steps], *self._rest()]

    def encode(self, head: bytes, contents_hash: bytes) -> bytes:
        """Return the file.

        Args:
            head, contents_hash: of the genesis file, see ``genesis.split``.
        """
        opened = [head, contents_hash, [each.to_value() for each in self.steps]]
        sealed = [each.to_value() for each in self.sealed]
        return codec.encode([MAGIC, VERSION, opened, *self._rest(), sealed])

    def _rest(self) -> list[Value]:
        return [
            self.certificate,
            [[statement, [*path]] for statement, path in self.statements],
            self.proof,
            [each.to_value() for each in self.items],
        ]


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
    codec.refuse_crowd(data, "disclosure")
    value = codec.decode(data, _FILE, bytes_max=FILE_BYTES_MAX, what="disclosure")
    head, contents_hash, steps = value[2]
    *rest, sealed = value[3:]
    revealed = [
        Revealed(item, leaf, place, read_opening(opening, f"disclosure.sealed[{at}]"))
        for at, (item, leaf, place, opening) in enumerate(sealed)
    ]
    return head, contents_hash, replace(_body(steps, rest), sealed=revealed)


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
