"""Salted leaves, and the salted lists and trees made of them: the unit of selective disclosure.

    value hash  H_value(salt ‖ cbor value)                        salt: 16 bytes
    leaf        H_field(cbor[kh, name, version] ‖ value hash)
    list        H_<kind>(header ‖ leaf ...)                        up to 8 leaves
    tree        H_<kind tree>(header ‖ root of the 4-ary tree over leaves and decoys)   above 8

The header is one CBOR array, so where it ends is never in doubt. ``kh`` and version in the leaf
keep it from being transplanted; a name or version can be shown without the value, by its hash.
A tree of more than 16 leaves is padded with decoys to a power of four; list and tree have
contexts of their own.

Salts are slices of one stream per list, from a pool that no single author knows, so that nobody
can confirm a guess of a value it is not shown. An account or other kernel object is one salted
leaf with the empty name; the leaf is its value hash in the state tree.

Not here: which leaves a record, a private part or a decision has.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from consensus import codec
from consensus.errors import ProofError, invariant
from consensus.hashing import DIGEST_BYTES, bulk, context, stream
from consensus.state.merkle import SALTED
from consensus.table import Table

SALT_BYTES: Final = 16
LIST_LEAVES_MAX: Final = 8
"""Longest list that is hashed flat; above it the leaves form a tree, so that opening one of them
takes a path and not all the others."""
PLAIN_LEAVES_MAX: Final = 16
"""Largest tree without decoys."""
LEAVES_MAX: Final = 256
"""Most leaves of one salted tree, decoys included."""
NAME_BYTES_MAX: Final = 255
NO_SALT: Final = bytes(SALT_BYTES)
"""Stands for the salt at block start of a single leaf that did not exist then."""

RECORD: Final = "record root"
PRIVATE: Final = "private root"
DECISION: Final = "decision root"

_ROOTS: Final = {
    kind: (context(kind), context(f"{kind} tree")) for kind in (RECORD, PRIVATE, DECISION)
}
_value = context("value")
_field = context("field")
_values = bulk("value")
_fields = bulk("field")
_decoys = bulk("decoy")
_stream = stream("salts")
_pool = context("pool")
_single_salt = context("single salt")

_KH_HEAD: Final = b"\x83\x58\x20"
_UINTS: Final = tuple(codec.encode(value) for value in range(1024))


def uint(value: int) -> bytes:
    """Return the canonical CBOR of a non-negative integer; a table lookup below 1,024."""
    if 0 <= value < 1024:
        return _UINTS[value]
    invariant(value >= 0, "a version or count is negative")
    return codec.encode(value)


def split(data: bytes, size: int) -> list[bytes]:
    """Return the consecutive parts of ``size`` bytes of a concatenation."""
    return [data[at : at + size] for at in range(0, len(data), size)]


TEXTS_MAX: Final = 4096
TEXT_BYTES_MAX: Final = 64
"""Longest text worth a place in the table; names are shorter."""


class _Texts(Table[str, bytes]):
    def __missing__(self, text: str) -> bytes:
        return codec.encode(text) if len(text) > TEXT_BYTES_MAX else super().__missing__(text)


TEXTS: Final = _Texts(codec.encode, TEXTS_MAX)
"""``TEXTS[text]`` is the canonical CBOR of a text, kept where it is short: names recur."""


def value_hash(salt: bytes, value_cbor: bytes) -> bytes:
    """Return the hash that hides a value behind its 16-byte salt."""
    return _value(salt + value_cbor)


def leaf_hash(kh: bytes, name: str, version: int, salt: bytes, value_cbor: bytes) -> bytes:
    """Return the hash of a leaf.

    Args:
        kh: 32 bytes that bind the leaf to its list: key path, or a hash of the transaction.
        name: the field; empty for a single-leaf object.
        version: of the record when the field was last changed; 0 where there are no versions.
        salt: 16 bytes.
        value_cbor: canonical CBOR of the value.

    Cost: about 2 µs.
    """
    return _field(_KH_HEAD + kh + TEXTS[name] + uint(version) + _value(salt + value_cbor))


def leaf_hash_of(kh: bytes, name: str, version: int, hidden: bytes) -> bytes:
    """Return the hash of a leaf whose name and version are shown and whose value is not.

    Args:
        hidden: the value's ``value_hash``.
    """
    return _field(_KH_HEAD + kh + TEXTS[name] + uint(version) + hidden)


def leaf_hashes(
    kh: bytes, version: int, values: Mapping[str, bytes], salts_: Sequence[bytes]
) -> list[bytes]:
    """Return the hashes of leaves of one version, in the order of ``values``.

    Args:
        values: canonical CBOR by name.
        salts_: one a leaf, in the same order; more are ignored.

    Cost: about 1.4 µs a leaf.
    """
    invariant(len(salts_) >= len(values), "a leaf lacks its salt")
    head = _KH_HEAD + kh
    tail = uint(version)
    hidden = _values([salt + value for salt, value in zip(salts_, values.values(), strict=False)])
    return _fields(
        [head + TEXTS[name] + tail + hash_ for name, hash_ in zip(values, hidden, strict=True)]
    )


# --- lists and trees --------------------------------------------------------------------------


def decoy_count(count: int) -> int:
    """Return how many decoys pad ``count`` leaves: none up to 16, else to a power of four."""
    if count <= PLAIN_LEAVES_MAX:
        return 0
    invariant(count <= LEAVES_MAX, f"{count} leaves, at most {LEAVES_MAX}")
    size = PLAIN_LEAVES_MAX
    while size < count:
        size *= 4
    return size - count


def decoys(salts_: Sequence[bytes]) -> list[bytes]:
    """Return one decoy a salt: indistinguishable from the hash of a leaf that is not shown."""
    return _decoys(salts_)


def list_root(
    kind: str, header: bytes, leaves: Sequence[bytes], decoys_: Sequence[bytes] = ()
) -> bytes:
    """Return the root of a salted list or tree.

    Args:
        kind: RECORD, PRIVATE or DECISION.
        header: the open part, one canonical CBOR array.
        leaves: 32-byte leaf hashes in the order of the list.
        decoys_: ``decoy_count(len(leaves))`` of them, from the salts after the leaves' own.
    """
    return joined_root(kind, header, b"".join(leaves), b"".join(decoys_))


def joined_root(kind: str, header: bytes, leaves: bytes, decoys_: bytes) -> bytes:
    """Return ``list_root`` of concatenated leaf hashes and decoys."""
    flat, tree = _ROOTS[kind]
    count = len(leaves) // DIGEST_BYTES
    padding = decoy_count(count) if count > PLAIN_LEAVES_MAX else 0
    invariant(len(decoys_) == padding * DIGEST_BYTES, "wrong number of decoys")
    if count <= LIST_LEAVES_MAX:
        return flat(header + leaves)
    return tree(header + SALTED.joined_root(leaves + decoys_))


# --- salts ------------------------------------------------------------------------------------


def _salt_columns(count: int) -> struct.Struct:
    return struct.Struct(f"{SALT_BYTES}s" * count)


_SALTS: Final = Table(_salt_columns, LEAVES_MAX)
"""How so many salts lie in a row."""


def salts(pool: bytes, kh: bytes, count: int) -> list[bytes]:
    """Return ``count`` 16-byte salts of one list, in leaf order; decoys' salts come last.

    Args:
        pool: the salt pool after the writing transaction; for a private part, its 32-byte seed.
        kh: 32 bytes of the list.
    """
    return list(_SALTS[count].unpack(_stream(pool + kh, SALT_BYTES * count)))


def next_pool(pool: bytes, seed: bytes) -> bytes:
    """Return the pool after a transaction with this seed; both have 32 bytes."""
    return _pool(pool + seed)


def next_single_salt(salt_at_block_start: bytes, pool: bytes, kh: bytes) -> bytes:
    """Return the 16-byte salt of a single-leaf object that was written in a block.

    Args:
        salt_at_block_start: its salt before the block, NO_SALT if it did not exist.
        pool: the pool after the last transaction of the block that wrote it so far.
    """
    return _single_salt(salt_at_block_start + pool + kh)[:SALT_BYTES]


def single_leaf(kh: bytes, version: int, salt: bytes, value_cbor: bytes) -> bytes:
    """Return the value hash of an account or kernel object, which is one leaf without a name."""
    return leaf_hash(kh, "", version, salt, value_cbor)


# --- openings: the check of a third party -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opening:
    """A leaf that is shown: with its value, or with the hash of a value that stays hidden."""

    name: str
    version: int
    salt: bytes
    value_cbor: bytes


@dataclass(frozen=True, slots=True)
class HiddenOpening:
    """A leaf whose name and version are shown and whose value stays hidden."""

    name: str
    version: int
    value_hash: bytes


def opening_hash(kh: bytes, opening: Opening | HiddenOpening) -> bytes:
    """Return the leaf hash of an untrusted opening.

    Raises:
        ProofError: a part has a length or range that no leaf has.
    """
    if len(kh) != DIGEST_BYTES:
        raise ProofError("the key path of a leaf does not have 32 bytes")
    if len(opening.name.encode()) > NAME_BYTES_MAX:
        raise ProofError(f"the name of a leaf is longer than {NAME_BYTES_MAX} bytes")
    if not 0 <= opening.version <= codec.INT64_MAX:
        raise ProofError(f"version {opening.version} of a leaf is out of range")
    match opening:
        case Opening(name, version, salt, value_cbor):
            if len(salt) != SALT_BYTES:
                raise ProofError(f"a salt has {len(salt)} bytes, expected {SALT_BYTES}")
            return leaf_hash(kh, name, version, salt, value_cbor)
        case HiddenOpening(name, version, hidden):
            if len(hidden) != DIGEST_BYTES:
                raise ProofError("a value hash does not have 32 bytes")
            return leaf_hash_of(kh, name, version, hidden)
        case _:
            assert_never(opening)


def hashes_for(
    leaves: Sequence[bytes], decoys_: Sequence[bytes], shown: Sequence[int]
) -> list[bytes]:
    """Return the hashes that ``opened_root`` needs beside the leaves at the indices ``shown``."""
    if len(leaves) <= LIST_LEAVES_MAX:
        return [leaf for index, leaf in enumerate(leaves) if index not in shown]
    everything = [*leaves, *decoys_]
    return SALTED.multi_path(everything, shown) if shown else [SALTED.root(everything)]


def opened_root(
    kind: str,
    kh: bytes,
    header: bytes,
    count: int,
    shown: Mapping[int, Opening | HiddenOpening],
    hashes: Sequence[bytes],
) -> bytes:
    """Return the root that opened leaves and the hashes of the others lead to.

    Args:
        kind: RECORD, PRIVATE or DECISION.
        kh: what binds the leaves to this list.
        header: as shown; the caller decodes it strictly and compares it with what it expects.
        count: leaves of the list without decoys, from the header where it has a count.
        shown: opened leaves by index.
        hashes: up to 8 leaves, the hashes of the others in order; above, the siblings of the
            tree, or its root when nothing is opened.

    Raises:
        ProofError: lengths, counts or indices that no such list has. Comparing the root is the
            caller's: nothing is shown until it is equal.
    """
    if not 0 <= count <= LEAVES_MAX:
        raise ProofError(f"{count} leaves, at most {LEAVES_MAX}")
    if any(not 0 <= index < count for index in shown):
        raise ProofError(f"an opened leaf is outside 0..{count - 1}")
    if any(len(hash_) != DIGEST_BYTES for hash_ in hashes):
        raise ProofError("a leaf hash does not have 32 bytes")
    flat, tree = _ROOTS[kind]
    known = {index: opening_hash(kh, opening) for index, opening in sorted(shown.items())}
    if count <= LIST_LEAVES_MAX:
        if len(known) + len(hashes) != count:
            raise ProofError(f"{len(known) + len(hashes)} leaves shown or hashed, expected {count}")
        others = iter(hashes)
        return flat(
            header
            + b"".join(known[index] if index in known else next(others) for index in range(count))
        )
    if known:
        return tree(header + SALTED.multi_root(count + decoy_count(count), known, hashes))
    if len(hashes) != 1:
        raise ProofError("a tree without opened leaves is shown by its root alone")
    return tree(header + hashes[0])
