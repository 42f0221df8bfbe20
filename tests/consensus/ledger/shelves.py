"""Reads indexes out of a state by themselves, apart from the code that keeps them."""

from __future__ import annotations

import cbor2

from consensus.codec import Value
from consensus.hashing import ZERO
from consensus.state.record import decode_single
from tests.consensus.ledger.world import World


def leaf(world: World, *components: Value) -> list[Value] | None:
    """Return the value of a leaf of an index, or None."""
    row = world.state.get(world.ledger.paths("index", list(components)))
    if row is None or row.vh == ZERO:
        return None
    version, _, data = decode_single(row.value)
    assert version == 1
    found: list[Value] = cbor2.loads(data)
    return found


def index_of(world: World, name: str, value: Value) -> tuple[list[Value], ...]:
    """Return the ids listed under a value, in the order of positions, after checking the rest."""
    size_leaf = leaf(world, name, value)
    size = 0 if size_leaf is None else size_leaf[0]
    found = []
    for position in range(size):
        entry = leaf(world, name, value, position)
        assert entry is not None
        (id_,) = entry
        assert leaf(world, name, value, id_) == [position]
        found.append(id_)
    assert leaf(world, name, value, size) in (None, [None])
    return tuple(found)
