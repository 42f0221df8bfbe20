"""The private part of a transaction: salted leaves that only the network's nodes need to see.

Openings are the encoded values of the leaves. They are hashed as they came; what they say is looked
at only under the right root, when it is certain that the author signed it.

Not here: the body that commits to the root (``transaction``).
Source: docs/protocol/transaction.cddl.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final

from consensus import codec
from consensus.codec import Value
from consensus.errors import DecodeError, ProofError, invariant
from consensus.hashing import DIGEST_BYTES, context
from consensus.ledger.types import InputError, check_id
from consensus.state import salted

CALLS_MAX: Final = 64
NAME_BYTES_MAX: Final = 64
INPUTS_MAX: Final = 64
EXPECTS_MAX: Final = 512
UNDER_MAX: Final = 16
REASON_BYTES_MAX: Final = 4096
ACKS_MAX: Final = 64
PRIVATE_BYTES_MAX: Final = 256 * 1024
"""Longest sum of a transaction's openings."""
SEED_BYTES: Final = 32

_H_SLOT: Final = context("transaction slot")
_H_SEED: Final = context("private seed")

_DIGEST_SIZE: Final = 2 + DIGEST_BYTES
"""Bytes of an encoded digest or key."""
_NAME: Final = codec.text(NAME_BYTES_MAX, low=1)
_NO_CONTEXT: Final = codec.encode([[], []])
"""What a transaction says that relies on nothing: most transfers do."""
_UNDER: Final = codec.list_of(codec.bytes32, UNDER_MAX)
_REASON: Final = codec.text(REASON_BYTES_MAX)
_ACKS: Final = codec.list_of(
    codec.array(
        codec.integer(0, CALLS_MAX - 1),
        codec.integer(0, INPUTS_MAX - 1),
        codec.text(NAME_BYTES_MAX, low=1),
        codec.bytes32,
        codec.bytes64,
    ),
    ACKS_MAX,
    low=1,
)


def slot(chain: bytes, author: bytes, sequence: int) -> bytes:
    """Return the 32 bytes that bind private leaves and sealed values to one place of one key."""
    return _H_SLOT(chain + author + sequence.to_bytes(8, "big"))


@lru_cache(maxsize=3 * CALLS_MAX)
def leaf_names(calls: int, count: int) -> tuple[str, ...]:
    """Return the names of the ``count`` private leaves of a transaction of ``calls`` calls."""
    invariant(0 < calls < count <= calls + 3, f"no private part has {count} leaves")
    return (*[f"in{index}" for index in range(calls)], "context", "reason", "acks")[:count]


def private_header(hashed_seed: bytes, count: int) -> bytes:
    """Return the open header of the private part: ``[H(seed), count]``."""
    return b"\x82\x58\x20" + hashed_seed + salted.uint(count)


def seed_hash(seed: bytes) -> bytes:
    """Return the hash of the seed that the header shows."""
    return _H_SEED(seed)


def private_salts(kh: bytes, seed: bytes, count: int) -> list[bytes]:
    """Return the salts of ``count`` private leaves, then those of the decoys."""
    return salted.salts(seed, kh, count + salted.decoy_count(count))


def private_root(kh: bytes, calls: int, openings: Sequence[bytes], seed: bytes) -> bytes:
    """Return the root that ``openings`` and ``seed`` lead to.

    Args:
        kh: ``slot`` of the transaction.
        calls: number of its calls; there are one to three openings more.

    Cost: about 4 µs and 2 µs an opening.
    """
    count = len(openings)
    salts = private_salts(kh, seed, count)
    # One by one: a transaction has two or three leaves, too few for hashing in bulk to pay.
    leaves = [
        salted.leaf_hash(kh, name, 0, salt, opening)
        for name, salt, opening in zip(leaf_names(calls, count), salts, openings, strict=False)
    ]
    decoys = salted.decoys(salts[count:]) if count < len(salts) else ()
    return salted.list_root(salted.PRIVATE, private_header(seed_hash(seed), count), leaves, decoys)


def salted_root(
    kh: bytes,
    calls: int,
    openings: Sequence[bytes],
    hashed_seed: bytes,
    salts: Sequence[bytes],
) -> bytes:
    """Return what ``private_root`` does, from untrusted salts of leaves and decoys, not the seed.

    Raises:
        ProofError: lengths that no private part has.
    """
    count = len(openings)
    fits = calls < count <= calls + 3
    if not fits or len(salts) != count + salted.decoy_count(count):
        raise ProofError("a draft has other leaves than its calls ask for")
    leaves = [
        salted.leaf_hash(kh, name, 0, salt, opening)
        for name, salt, opening in zip(leaf_names(calls, count), salts, openings, strict=False)
    ]
    decoys = salted.decoys(salts[count:])
    return salted.list_root(salted.PRIVATE, private_header(hashed_seed, count), leaves, decoys)


def check_openings(calls: int, openings: Sequence[bytes]) -> None:
    """Check what the openings say, once their root is known to be the author's.

    Raises:
        DecodeError: an opening has another shape, or is not canonical.

    Cost: about 3 µs an opening.
    """
    names = leaf_names(calls, len(openings))
    for index, opening in enumerate(openings):
        if index == calls and opening == _NO_CONTEXT:
            continue
        name = names[index]
        value = codec.parse(opening, name)
        if index < calls:
            size = _check_inputs(value, name)
        elif index == calls:
            size = _check_context(value)
        elif name == "reason":
            _REASON(value, name)
            if not value and len(openings) == calls + 2:
                raise DecodeError("an empty reason at the end is left out", path=name)
            size = codec.plain(value, name)
        else:
            _check_acks(value, calls)
            size = codec.plain(value, name)
        if size != len(opening):
            raise DecodeError("not the canonical encoding", path=name)


def _check_inputs(value: Value, name: str) -> int:
    """Return the length of the canonical encoding, as the other checks here do."""
    if type(value) is not list or len(value) != 2:
        raise DecodeError("expected an array of 2 items", path=name)
    values, params = value
    if type(params) is not bytes or len(params) != DIGEST_BYTES:
        raise DecodeError("expected 32 bytes", path=f"{name}[1]")
    if type(values) is not list or len(values) > INPUTS_MAX:
        raise DecodeError(f"expected up to {INPUTS_MAX} values", path=f"{name}[0]")
    return 1 + codec.plain(values, name) + _DIGEST_SIZE


def _check_context(value: Value) -> int:
    if type(value) is not list or len(value) != 2:
        raise DecodeError("expected an array of 2 items", path="context")
    expects, under = value
    _UNDER(under, "context.under")
    if type(expects) is not list or len(expects) > EXPECTS_MAX:
        raise DecodeError(f"expected up to {EXPECTS_MAX} records", path="context.expects")
    size = 1 + codec.plain(expects, "context.expects")
    for index, expect in enumerate(expects):
        _check_expect(expect, index)
    if len(expects) > 1 and len({codec.encode(record) for record, _ in expects}) != len(expects):
        raise DecodeError("a record is named twice", path="context.expects")
    return size + codec.head_bytes(len(under)) + _DIGEST_SIZE * len(under)


def _check_acks(value: Value, calls: int) -> None:
    _ACKS(value, "acks")
    places = [(call, input_, agency.encode()) for call, input_, agency, _, _ in value]
    if any(before >= after for before, after in pairwise(places)):
        raise DecodeError("acknowledgements ascend, each once", path="acks")
    if places[-1][0] >= calls:
        raise DecodeError("an acknowledgement of a call that there is not", path="acks")


def _check_expect(expect: Value, index: int) -> None:
    match expect:
        case [[str() as kind, list() as id_], int() as version] if type(version) is int:
            if not kind.isascii() or not 0 < len(kind) <= NAME_BYTES_MAX:
                _NAME(kind, f"context.expects[{index}]")
            if version < 0:
                raise DecodeError("a version counts from 0", path=f"context.expects[{index}]")
            try:
                check_id(id_)
            except InputError as error:
                raise DecodeError(error.reason, path=f"context.expects[{index}]") from error
        case _:
            raise DecodeError("expected [[kind, id], version]", path=f"context.expects[{index}]")
