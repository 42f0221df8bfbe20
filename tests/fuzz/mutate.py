"""Mutations that keep an encoding's form, which mutations of bytes seldom do.

Canonical CBOR is refused for one wrong head, so half of all inputs are changed item by item and
encoded again; texts have whole tokens put in. What decides is the seed alone.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import cbor2

from consensus import codec
from consensus.errors import DecodeError
from tests.consensus.test_hostile_bytes import bytewise, spoil
from tests.fuzz.target import Target

Bytes = Callable[[bytes, int], bytes]
"""Changes bytes, to at most so many: libFuzzer's own mutations."""


def mutator(target: Target, other: Bytes) -> Callable[[bytes, int, int], bytes]:
    """Return the function ``(data, bytes_max, seed) -> data`` for a target."""

    def mutate(data: bytes, bytes_max: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.4:
            return other(data, bytes_max)
        if random.random() < 0.05 and target.seeds:
            data = random.choice(target.seeds)
        changed = worded(random, data, target) if target.words else structured(random, data)
        return changed[:bytes_max] if changed else other(data, bytes_max)

    return mutate


def structured(random: Random, data: bytes) -> bytes:
    """Return the encoding with one to three items changed; bytes changed if it is none."""
    try:
        value = codec.parse(data)
    except DecodeError:
        return bytewise(random, data) if data else b""
    for _ in range(random.randint(1, 3)):
        value = spoil(random, value)
    try:
        return cbor2.dumps(value, canonical=True)
    except (ValueError, OverflowError, cbor2.CBOREncodeError):
        return bytewise(random, data)


def worded(random: Random, data: bytes, target: Target) -> bytes:
    """Return the text with a token put in, a line repeated, moved or gone, or a part of a seed."""
    at = random.randrange(len(data) + 1)
    match random.randrange(4):
        case 0:
            return data[:at] + random.choice(target.words).encode() + data[at:]
        case 1:
            lines = data.splitlines(keepends=True) or [b""]
            lines.insert(random.randrange(len(lines) + 1), random.choice(lines))
            return b"".join(lines)
        case 2:
            lines = data.splitlines(keepends=True) or [b""]
            del lines[random.randrange(len(lines))]
            return b"".join(lines)
    seed = random.choice(target.seeds)
    start = random.randrange(len(seed))
    return data[:at] + seed[start : start + random.randint(1, 80)] + data[at:]
