"""What a block replaced, as far as the working state has it in memory."""

from __future__ import annotations

import random

import pytest

from consensus.state import state as module
from consensus.state.state import MemoryBackend, State


def key(number: int) -> bytes:
    return random.Random(number).randbytes(32)


def write(number: int, value: int) -> tuple[bytes, bytes, bytes]:
    return key(number), random.Random(value).randbytes(32), bytes([value])


def test_rows_in_the_overlay_and_rows_that_were_read_are_told_and_others_are_not() -> None:
    backend = MemoryBackend()
    state = State(backend, 4, -1)
    state.apply([write(number, 1) for number in range(6)])
    backend.write(state.pending(0))
    state.flushed(0)
    state._stored.clear()
    state.get(key(1))
    state.apply([write(2, 2)])
    applied = state.apply([write(number, 3) for number in (1, 2, 3, 9)])
    found = dict(zip(applied.rows, applied.before, strict=True))
    assert found[key(1)] == backend.get(key(1))
    row = found[key(2)]
    assert row is not None
    assert (row.changed_height, row.value) == (1, b"\2")
    assert found[key(3)] is None
    assert found[key(9)] is None


def test_rows_are_remembered_over_one_more_generation_and_never_older_than_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "STORED_MAX", 5)
    backend = MemoryBackend()
    state = State(backend, 4, -1)
    chosen = random.Random(3)
    newest: dict[bytes, int] = {}
    for height in range(120):
        numbers = chosen.sample(range(30), chosen.randrange(1, 6))
        for number in chosen.sample(range(30), 4):
            row = state.get(key(number))
            assert (None if row is None else row.changed_height) == newest.get(key(number))
        applied = state.apply([write(number, height % 200) for number in numbers])
        for kh, row in zip(applied.rows, applied.before, strict=True):
            assert row is None or row.changed_height == newest[kh]
            newest[kh] = height
        if chosen.random() < 0.4:
            backend.write(state.pending(height))
            state.flushed(height)
