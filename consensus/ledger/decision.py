"""Decisions: the recorded outcome of one transaction, as a salted list.

    header   [txid, height, index, time_ms, state, [[domain, number, action_id], ...]], and the
             executor's number last unless it is 1
    leaves   code             [code, call | null, detail]       detail by code, see ``codes``; with
                              a fourth item, true, of a refusal that is quiet
             authority        [actor, [power, ...], [cosigner, ...]], and if any approved
                              [[call, leaf, approver, power], ...]: 0 the author, 1 ... cosigners
                              actor and cosigners: [principal, agency, key] or null
                              power: [role | null, scope] of one's own, or
                              [role, scope, office, grant, ...] passed on
             reads            [kh ‖ vh ..., kh ...]              two byte strings, ascending
             writes:<domain>  [[[space, components], old version, new version, vh,
                                [[leaf name, old leaf hash], ...]], ...]
             moves:<domain>   [[position, account id, delta], ...]; where a reservation is made,
                              posted, voided or opened again [position, account id, delta,
                              delta of what is reserved, [domain, component, ...]]
             links            [[what, txid], ...]
             reversible       on which terms it may be taken back, see ``terms``

The header is always open; leaves that would be empty are left out. Field versions are 0, salts are
slices of the stream over the pool after the transaction and ``H(txid ‖ height ‖ index)``. Writes
and moves are one leaf per owning domain, so that one can be shown without the others: a transfer
across domains shows each its side, joined by the position. ``results_root`` commits to the
decisions of a block in order of execution.

    encoded    [header, [[name, salt, value], ...]]              header and values as byte strings

Not here: how an outcome is reached (``executor``). Source: docs/protocol/ledger.cddl.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from consensus import codec
from consensus.codec import Value
from consensus.errors import DecodeError
from consensus.hashing import context
from consensus.ledger import terms
from consensus.ledger.codes import Code
from consensus.ledger.layout import (
    GRANT_DEPTH_MAX,
    NULL,
    encode_array,
    encode_bytes,
    encode_int,
    encode_text,
)
from consensus.state import salted
from consensus.state.merkle import RESULTS
from consensus.state.salted import DECISION, SALT_BYTES, TEXTS, HiddenOpening, Opening

REFUSED: Final = 0
APPLIED: Final = 1
PROPOSED: Final = 2
_STATES: Final = tuple(map(encode_int, (REFUSED, APPLIED, PROPOSED)))

CALLS_MAX: Final = 64
LEAVES_MAX: Final = salted.LEAVES_MAX
DECISION_BYTES_MAX: Final = 4 * 2**20

_slot = context("decision slot")

_NAME: Final = codec.text(64, low=1)
_HEADER_ITEMS: Final = (
    codec.bytes32,
    codec.count,
    codec.count,
    codec.count,
    codec.integer(REFUSED, PROPOSED),
    codec.list_of(codec.array(_NAME, codec.count, codec.bytes32), CALLS_MAX),
)
HEADER: Final = codec.one_of(
    (codec.array(*_HEADER_ITEMS), codec.array(*_HEADER_ITEMS, codec.integer(2)))
)
"""The shape of a header; the first executor goes without its number."""
_ENCODED: Final = codec.array(
    codec.octets(high=2**16),
    codec.list_of(
        codec.array(
            codec.text(salted.NAME_BYTES_MAX, low=1),
            codec.octets(SALT_BYTES),
            codec.octets(low=1, high=DECISION_BYTES_MAX),
        ),
        LEAVES_MAX,
        low=1,
    ),
)
_SCOPE: Final = codec.list_of(codec.array(codec.text(64), codec.text(256)), 32)
_POWER: Final = codec.one_of(
    [
        codec.array(codec.optional(_NAME), _SCOPE, *[codec.bytes32] * count)
        for count in (0, *range(2, 2 + GRANT_DEPTH_MAX))
    ]
)
_ACTOR: Final = codec.optional(codec.array(codec.bytes32, _NAME, codec.bytes32))
_AUTHORITY: Final = (
    _ACTOR,
    codec.list_of(_POWER, CALLS_MAX),
    codec.list_of(_ACTOR, CALLS_MAX),
)
_LEAVES_MAX: Final = 64 + 64 * 8
"""Leaves by which a call is approved: of its action's policy, and of the terms of a reversal."""
_FILLING: Final = codec.array(
    codec.integer(0, CALLS_MAX - 1),
    codec.integer(0, _LEAVES_MAX - 1),
    codec.integer(0, CALLS_MAX),
    _POWER,
)
_PLACE: Final = codec.array(_NAME, codec.list_of(codec.plain, 32))
_PAIRS: Final = codec.list_of(codec.array(_NAME, codec.bytes32), LEAVES_MAX)
_ENTRIES_MAX: Final = 65_536
_ID: Final = codec.list_of(codec.plain, 16)
_MOVED: Final = (codec.count, _ID, codec.integer())

_CODE: Final = (
    codec.integer(0, 255),
    codec.optional(codec.integer(0, CALLS_MAX - 1)),
    codec.plain,
)

QUIET_ITEMS: Final = len(_CODE) + 1
"""Items of the code leaf of a quiet refusal."""

SHAPES: Final = {
    "code": codec.one_of([codec.array(*_CODE), codec.array(*_CODE, codec.boolean)]),
    "authority": codec.one_of(
        [
            codec.array(*_AUTHORITY),
            codec.array(*_AUTHORITY, codec.list_of(_FILLING, _ENTRIES_MAX, low=1)),
        ]
    ),
    "reads": codec.array(codec.octets(), codec.octets()),
    "writes": codec.list_of(
        codec.array(_PLACE, codec.count, codec.count, codec.bytes32, _PAIRS), _ENTRIES_MAX, low=1
    ),
    "moves": codec.list_of(
        codec.one_of([codec.array(*_MOVED), codec.array(*_MOVED, codec.integer(), _ID)]),
        _ENTRIES_MAX,
        low=1,
    ),
    "links": codec.list_of(codec.array(_NAME, codec.bytes32), CALLS_MAX, low=1),
    terms.LEAF: terms.SHAPE,
}
"""Shape of each leaf's value, by the part of its name before the colon."""
_DECOY: Final = "~"
_SALT_HEAD: Final = encode_bytes(bytes(SALT_BYTES))[:1]
_DECOY_HEAD: Final = b"\x83" + codec.encode(_DECOY) + _SALT_HEAD
_DECOY_VALUE: Final = encode_bytes(NULL)
_ORDER: Final = {name: index for index, name in enumerate(SHAPES)}


class Action(NamedTuple):
    """Under which rules a call was judged."""

    domain: str
    number: int
    action_id: bytes


@dataclass(frozen=True, slots=True)
class Header:
    """The part of a decision that is always open."""

    txid: bytes
    height: int
    index: int
    time_ms: int
    state: int
    """REFUSED, APPLIED or PROPOSED."""
    actions: tuple[Action, ...]
    executor: int = 1


class Decision:
    """A decision with all its leaves, as nodes and the author hold it.

    ``leaves`` are encoded values by name, in the order of the leaves; ``salts`` are theirs, then
    those of decoys. ``kh`` binds them to this decision: ``H(txid ‖ height ‖ index)``.
    """

    __slots__ = ("_root", "header_cbor", "kh", "leaves", "salts")

    def __init__(
        self, header_cbor: bytes, kh: bytes, leaves: Mapping[str, bytes], salts: Sequence[bytes]
    ) -> None:
        self.header_cbor = header_cbor
        self.kh = kh
        self.leaves = leaves
        self.salts = salts
        self._root = b""

    @property
    def root(self) -> bytes:
        """The decision's hash, a leaf of ``results_root``. Cost: about 1.5 µs a leaf, once."""
        if not self._root:
            hashes = b"".join(salted.leaf_hashes(self.kh, 0, self.leaves, self.salts))
            decoys = b"".join(self._decoys()) if len(self.salts) > len(self.leaves) else b""
            self._root = salted.joined_root(DECISION, self.header_cbor, hashes, decoys)
        return self._root

    def _decoys(self) -> list[bytes]:
        return salted.decoys(self.salts[len(self.leaves) :])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the leaves, in their order."""
        return tuple(self.leaves)

    @property
    def header(self) -> Header:
        """The decoded header."""
        txid, height, index, time_ms, state, actions, *executor = codec.parse(
            self.header_cbor, "header"
        )
        named = tuple(Action(*action) for action in actions)
        return Header(txid, height, index, time_ms, state, named, *executor)

    def value(self, name: str) -> Value | None:
        """Return the decoded value of a leaf, None if it was left out."""
        value = self.leaves.get(name)
        return None if value is None else codec.parse(value, name)

    @property
    def code(self) -> Code:
        """The outcome."""
        return Code(codec.parse(self.leaves["code"], "code")[0])

    @property
    def call(self) -> int | None:
        """The call that failed; None for a transaction's own checks and for success."""
        call: int | None = codec.parse(self.leaves["code"], "code")[1]
        return call

    @property
    def detail(self) -> Value:
        """What the code says about this case, see ``codes``."""
        return codec.parse(self.leaves["code"], "code")[2]

    def encode(self) -> bytes:
        """Return the canonical bytes that ``decode`` reads."""
        salts = self.salts
        rows = [
            b"\x83" + TEXTS[name] + _SALT_HEAD + salt + encode_bytes(value)
            for (name, value), salt in zip(self.leaves.items(), salts, strict=False)
        ]
        if len(salts) > len(rows):
            rows += [_DECOY_HEAD + salt + _DECOY_VALUE for salt in salts[len(rows) :]]
        return b"\x82" + encode_bytes(self.header_cbor) + encode_array(rows)

    def openings(self, names: Sequence[str]) -> tuple[dict[int, Opening], list[bytes]]:
        """Return openings of the named leaves by index, and the hashes that stand for the rest."""
        shown = {
            index: Opening(name, 0, self.salts[index], value)
            for index, (name, value) in enumerate(self.leaves.items())
            if name in names
        }
        hashes = salted.leaf_hashes(self.kh, 0, self.leaves, self.salts)
        return shown, salted.hashes_for(hashes, self._decoys(), list(shown))


def slot(txid: bytes, height: int, index: int) -> bytes:
    """Return the 32 bytes that bind a decision's leaves to it."""
    return _slot(txid + height.to_bytes(8, "big") + index.to_bytes(8, "big"))


class Maker:
    """Makes the decisions of one block, whose place and time they share."""

    __slots__ = ("_executor_cbor", "_head", "_height_bytes", "_height_cbor", "_time_cbor")

    def __init__(self, height: int, time_ms: int, executor: int = 1) -> None:
        self._height_bytes = height.to_bytes(8, "big")
        self._height_cbor = encode_int(height)
        self._time_cbor = encode_int(time_ms)
        self._head = b"\x86\x58\x20" if executor == 1 else b"\x87\x58\x20"
        self._executor_cbor = b"" if executor == 1 else encode_int(executor)

    def make(
        self,
        txid: bytes,
        index: int,
        state: int,
        actions: Sequence[bytes],
        leaves: dict[str, bytes],
        pool: bytes,
    ) -> Decision:
        """Return the decision of a transaction.

        Args:
            index: of the transaction in the block's order of execution.
            state: REFUSED, APPLIED or PROPOSED.
            actions: encoded ``[domain, number, action_id]`` of the calls judged.
            leaves: encoded values by name, in the order of the leaves.
            pool: the salt pool after the transaction.

        Cost: about 3 µs, and its root once.
        """
        place = self._height_cbor + encode_int(index) + self._time_cbor + _STATES[state]
        header = self._head + txid + place + encode_array(actions) + self._executor_cbor
        kh = _slot(txid + self._height_bytes + index.to_bytes(8, "big"))
        count = len(leaves)
        count += salted.decoy_count(count)
        return Decision(header, kh, leaves, salted.salts(pool, kh, count))


def encode_action(domain: str, number: int, action_id: bytes) -> bytes:
    """Return an item of the header's list of actions, encoded."""
    return b"\x83" + encode_text(domain) + encode_int(number) + encode_bytes(action_id)


def decode(data: bytes) -> Decision:
    """Return the decision in untrusted bytes; its root says whether it is the certified one.

    Raises:
        DecodeError: not canonical, or a leaf is unknown, repeated, out of order or misshapen.
    """
    header_cbor, rows = codec.decode(data, _ENCODED, bytes_max=DECISION_BYTES_MAX, what="decision")
    header = codec.decode(header_cbor, HEADER, bytes_max=2**16, what="decision.header")
    salts = [row[1] for row in rows]
    rows = [row for row in rows if row[0] != _DECOY]
    names = tuple(row[0] for row in rows)
    _check_names(names)
    decoys = [[_DECOY, salt, NULL] for salt in salts[len(rows) :]]
    if len(decoys) != salted.decoy_count(len(rows)):
        raise DecodeError("wrong number of decoys", path="decision")
    for name, _, value in rows:
        shape = SHAPES[name.partition(":")[0]]
        codec.decode(value, shape, bytes_max=DECISION_BYTES_MAX, what=f"decision.{name}")
    kh = slot(header[0], header[1], header[2])
    decision = Decision(header_cbor, kh, {row[0]: row[2] for row in rows}, salts)
    if decision.encode() != data:
        raise DecodeError("decoys are not at the end", path="decision")
    return decision


def _check_names(names: Sequence[str]) -> None:
    previous = (-1, "")
    for name in names:
        base, colon, domain = name.partition(":")
        if base not in _ORDER or bool(colon) != (base in ("writes", "moves")):
            raise DecodeError(f"unknown leaf {name!r}", path="decision")
        place = (_ORDER[base], domain)
        if place <= previous:
            raise DecodeError(f"leaf {name!r} is out of order", path="decision")
        previous = place
    if not names or names[0] != "code":
        raise DecodeError("the leaf 'code' is missing", path="decision")


def opened_root(
    header_cbor: bytes,
    count: int,
    shown: dict[int, Opening | HiddenOpening],
    hashes: Sequence[bytes],
) -> bytes:
    """Return the root of a decision of which some leaves are shown, for a third party.

    Args:
        header_cbor: untrusted; where a decision stands follows from it.
        count: number of its leaves.
        shown: leaves by index.
        hashes: of the others, as ``Decision.openings`` gives them.

    Raises:
        DecodeError: the header is malformed.
        ProofError: an opening or the number of hashes is. Comparing the root is the caller's.
    """
    header = codec.decode(header_cbor, HEADER, bytes_max=2**16, what="decision.header")
    kh = slot(header[0], header[1], header[2])
    return salted.opened_root(DECISION, kh, header_cbor, count, shown, hashes)


def results_root(decisions: Sequence[Decision]) -> bytes:
    """Return what a statement says about all decisions of its block."""
    return RESULTS.root([each.root for each in decisions])
