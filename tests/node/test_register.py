"""The node's register of proposals: the same before and after a flush, in pages."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from consensus.ledger.proposals import EXECUTED, OPEN, Proposal
from node.register import Change, Register, effect_entry
from node.storage.flush import BlockData, FlushBatch
from node.storage.store import Store

PAY = "payments.pay"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "state", chain=bytes(32), map_bytes=2**22)
    opened.write(FlushBatch(0))
    yield opened
    opened.close()


def proposal(
    number: int, *, expires_ms: int = 1000, state: int = OPEN, actions: tuple[str, ...] = (PAY,)
) -> Proposal:
    calls = [[*action.split("."), bytes(32)] for action in actions]
    txid = number.to_bytes(32, "big")
    return Proposal(
        txid, b"k" * 32, b"p" * 32, "treasury", False, number, expires_ms, state, calls, []
    )


def new(*proposals: Proposal) -> list[Change]:
    return [(None, each) for each in proposals]


def flush(store: Store, register: Register, height: int, *more: tuple[bytes, bytes]) -> None:
    block = BlockData(height, b"b", b"d", b"", None, (), ())
    entries = [*register.entries(height), *more]
    store.write(FlushBatch(height, blocks=[block], index=entries))
    register.flushed(height)


def numbers(rows: Iterator[tuple[bytes, bytes]]) -> list[int]:
    return [int.from_bytes(txid, "big") for _, txid in rows]


def pages(register: Register, now_ms: int = 0, size: int = 2) -> list[int]:
    """Return what pages of an action bring, each after the last cursor of the one before."""
    found: list[int] = []
    after = b""
    while True:
        rows = list(islice(register.open_for(PAY, now_ms, after), size))
        if not rows:
            return found
        found += [int.from_bytes(txid, "big") for _, txid in rows]
        after = rows[-1][0]


def test_open_proposals_come_by_when_they_end_flushed_or_not(store: Store) -> None:
    register = Register(store)
    register.certified(1, new(proposal(1, expires_ms=300), proposal(2, expires_ms=100)))
    assert pages(register) == [2, 1]
    flush(store, register, 1)
    register.certified(2, new(proposal(3, expires_ms=200), proposal(4, expires_ms=400)))
    assert pages(register) == [2, 3, 1, 4]
    assert pages(register, size=1) == [2, 3, 1, 4]
    flush(store, register, 2)
    assert pages(register) == [2, 3, 1, 4]
    assert pages(Register(store)) == [2, 3, 1, 4]


def test_what_ended_leaves_the_open_ones_and_stays_with_its_agency(store: Store) -> None:
    register = Register(store)
    register.certified(1, new(proposal(1), proposal(2)))
    flush(store, register, 1)
    register.certified(2, [(proposal(1), proposal(1, state=EXECUTED))])
    for _ in range(2):
        assert pages(register) == [2]
        assert numbers(register.of_agency("treasury", OPEN, b"")) == [2]
        assert numbers(register.of_agency("treasury", EXECUTED, b"")) == [1]
        assert numbers(register.of_agency("treasure", OPEN, b"")) == []
        if store.height == 1:
            flush(store, register, 2)


def test_what_comes_and_goes_between_two_flushes_leaves_nothing(store: Store) -> None:
    register = Register(store)
    register.certified(1, new(proposal(1)))
    register.certified(2, [(proposal(1), proposal(1, state=EXECUTED))])
    flush(store, register, 1)
    assert pages(register) == []
    flush(store, register, 2)
    assert pages(register) == []
    assert numbers(register.of_agency("treasury", EXECUTED, b"")) == [1]


def test_expired_ones_are_passed_over(store: Store) -> None:
    register = Register(store)
    register.certified(1, new(*[proposal(n, expires_ms=n) for n in range(1, 9)]))
    assert pages(register, now_ms=6) == [6, 7, 8]
    flush(store, register, 1)
    assert pages(register, now_ms=6) == [6, 7, 8]
    assert numbers(register.open_for("payments.pa", 0, b"")) == []


def test_one_of_several_actions_is_found_under_each(store: Store) -> None:
    register = Register(store)
    register.certified(1, new(proposal(1, actions=(PAY, "payments.open"))))
    assert numbers(register.open_for("payments.open", 0, b"")) == pages(register) == [1]


def test_a_cursor_that_somebody_made_up_does_no_harm(store: Store) -> None:
    register = Register(store)
    register.certified(1, new(proposal(1)))
    flush(store, register, 1)
    for cursor in (b"\x00", b"\x02", b"\xff" * 256, b"\x01payments.pay\x00", b"\x01payments.pay"):
        assert numbers(register.open_for(PAY, 0, cursor)) in ([1], [])


def test_where_the_second_decision_is_is_kept_for_ever(store: Store) -> None:
    register = Register(store)
    txid = b"t" * 32
    flush(store, register, 1, effect_entry(txid, 1, 7))
    assert register.effect(txid) == (1, 7)
    assert register.effect(b"t" * 31 + b"s") is None
    assert register.effect(b"u" * 32) is None
