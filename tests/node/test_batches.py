"""Batches held: numbering, proposing order, fetching, and bounds on hostile origins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import pycddl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.errors import (
    ComityError,
    CopyError,
    DecodeError,
    LocalProtocolError,
    SignatureError,
)
from consensus.hotstuff.types import PayloadItem, number_before
from consensus.ledger.batch import Batch
from node import batch_wire, batches, origins
from node.batch_verdicts import Drop, Payload, Verify
from node.batch_wire import Absent, Announce, Push, Request, Response
from node.batches import BatchStore
from node.checked import CheckedBatch, from_batch, from_log
from tests.consensus.ledger.authors import (
    ANNA,
    BORIS,
    CHAIN,
    CLARA,
    DORA,
    batch_of,
    signed,
)

NOW = 1_000_000
OWN = 0
AUTHORS = (ANNA, BORIS, CLARA, DORA)


def store(own: int | None = OWN, size: int = 4) -> BatchStore:
    return BatchStore(size, own)


def made(origin: int, number: int, *, protective: bool = False, **options: Any) -> Batch:
    one = signed(AUTHORS[origin], number, protective=protective, **options)
    return batch_of(one, origin=origin, number=number)


def arrive(
    it: BatchStore, batch: Batch, now_ms: int = NOW, *, sender: int | None = None
) -> list[bytes]:
    """A push from its origin (or a wanted answer), checked and logged; return complete blocks."""
    by = batch.origin if sender is None else sender
    request = it.offer(by, batch.public, batch.private, solicited=sender is not None)
    assert isinstance(request, Verify)
    it.checked(request, from_batch(batch), now_ms)
    return it.held(batch.digest)


def pushed(it: BatchStore, batch: Batch, sender: int | None = None) -> Verify | Drop:
    by = batch.origin if sender is None else sender
    return it.offer(by, batch.public, batch.private)


def named(batch: Batch) -> PayloadItem:
    return from_batch(batch).item


def proposed(it: BatchStore) -> list[tuple[int, int]]:
    return [(item.origin, item.number) for item in it.proposable()]


# --- what a block says of a batch ---


def test_item_of_a_batch_counts_transactions_and_bytes_of_both_parts() -> None:
    batch = batch_of(signed(ANNA, 1), signed(ANNA, 2), origin=3, number=9)
    size = len(batch.public) + len(batch.private)
    assert named(batch) == PayloadItem(batch.digest, 3, 9, 0, 2, size)


def test_batch_of_the_own_log_is_as_it_was_checked() -> None:
    batch = batch_of(signed(ANNA, 1, not_after_ms=5), signed(ANNA, 2, not_after_ms=8))
    found = from_log(CHAIN, batch.public, batch.private)
    assert found == from_batch(batch)
    assert found.not_after_ms == 8
    assert found.decode(CHAIN).transactions == batch.transactions


# --- own batches ---


def test_own_batches_are_numbered_and_held_once_logged() -> None:
    it = store()
    one = it.add_own(0, [signed(ANNA, 1)], NOW)
    two = it.add_own(0, [signed(ANNA, 2)], NOW)
    assert (one.origin, one.number, two.number) == (OWN, 1, 2)
    assert (it.held_counts(), proposed(it)) == ((0, 0, 0, 0), [])
    it.held(two.digest)
    assert (it.held_counts(), proposed(it)) == ((0, 0, 0, 0), [])
    it.held(one.digest)
    assert it.held_counts() == (2, 0, 0, 0)
    assert proposed(it) == [(0, 1), (0, 2)]


def test_observer_makes_no_batches() -> None:
    with pytest.raises(LocalProtocolError):
        store(None).add_own(0, [signed(ANNA, 1)], NOW)
    assert store(None).peer_held(1, 0, NOW) == []


def test_restored_node_goes_on_numbering_where_it_stopped() -> None:
    it = store()
    kept = [from_batch(made(0, 6)), from_batch(made(0, 7)), from_batch(made(2, 4))]
    it.restore((5, 0, 3, 0), kept, NOW)
    assert it.held_counts() == (7, 0, 4, 0)
    assert proposed(it) == [(0, 6), (2, 4), (0, 7)]
    assert it.add_own(0, [signed(ANNA, 8)], NOW).number == 8


def test_lost_end_of_the_log_does_not_give_a_number_out_twice() -> None:
    """f + 1 peers hold more of ours than we know: one of them is honest."""
    it = store()
    it.restore((5, 0, 0, 0), [], NOW)
    it.peer_held(1, 10**9, NOW)
    assert it.add_own(0, [signed(ANNA, 1)], NOW).number == 6
    it.peer_held(2, 8, NOW)
    assert it.add_own(0, [signed(ANNA, 2)], NOW).number == 9


def test_peer_that_lacks_own_batches_gets_them_again_but_not_all_the_time() -> None:
    it = store()
    own = [it.add_own(0, [signed(ANNA, n)], NOW) for n in (1, 2, 3)]
    for each in own:
        it.held(each.digest)
    assert it.peer_held(2, 1, NOW + 100) == []  # they may still be on their way
    assert it.peer_held(2, 1, NOW + 1000) == own[1:]
    assert it.peer_held(2, 1, NOW + 1500) == []
    assert it.peer_held(1, 3, NOW + 1500) == []
    assert it.peer_held(1, 0, NOW + 1500) == own
    assert it.peer_held(2, 1, NOW + 2000) == own[1:]
    it.delivered([own[1].item, own[2].item], NOW)
    assert it.peer_held(2, 1, NOW + 9000) == []


def test_repeated_push_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    it = store()
    own = [it.add_own(0, [signed(ANNA, n)], NOW) for n in (1, 2, 3)]
    for each in own:
        it.held(each.digest)
    monkeypatch.setattr(batches, "RESEND_BYTES_MAX", own[0].size_bytes + own[1].size_bytes)
    assert it.peer_held(2, 0, NOW + 1000) == own[:2]
    monkeypatch.setattr(batches, "RESEND_BYTES_MAX", 1)
    assert it.peer_held(2, 0, NOW + 2000) == own[:1]


# --- arrival ---


def test_pushed_batch_is_checked_logged_and_then_held() -> None:
    it, batch = store(), made(1, 1)
    request = pushed(it, batch)
    assert request == Verify(1, batch.digest, batch.public, batch.private)
    assert pushed(it, batch) is Drop.IN_CHECK
    it.checked(request, from_batch(batch), NOW)
    assert pushed(it, batch) is Drop.KNOWN
    assert it.held_counts() == (0, 0, 0, 0)
    it.held(batch.digest)
    it.held(batch.digest)
    assert it.held_counts() == (0, 1, 0, 0)
    assert proposed(it) == [(1, 1)]


def test_batch_waits_for_all_earlier_ones_of_its_origin() -> None:
    it = store()
    arrive(it, made(1, 3))
    arrive(it, made(1, 1))
    assert it.held_counts() == (0, 1, 0, 0)
    assert proposed(it) == [(1, 1)]
    arrive(it, made(1, 2))
    assert it.held_counts() == (0, 3, 0, 0)
    assert sorted(proposed(it)) == [(1, 1), (1, 2), (1, 3)]


def test_only_its_origin_pushes_a_batch() -> None:
    it = store()
    assert pushed(it, made(1, 1), sender=2) is Drop.FOREIGN
    assert pushed(it, made(0, 1), sender=2) is Drop.FOREIGN
    assert pushed(it, made(0, 1), sender=0) is Drop.FOREIGN
    assert Drop.FOREIGN.fault


def test_second_batch_of_one_number_is_dropped_unless_a_block_needs_it() -> None:
    it = store()
    first, second = made(1, 1), batch_of(signed(BORIS, 99), origin=1, number=1)
    arrive(it, first)
    assert pushed(it, second) is Drop.SECOND
    it.require(b"B" * 32, [named(second)], 1, NOW)
    assert arrive(it, second, sender=3) == [b"B" * 32]
    assert it.held_counts() == (0, 1, 0, 0)
    assert proposed(it) == [(1, 1)], "what was fetched waits until another holds that number too"
    assert it.take_counts(2, (0, 1, 0, 0))
    assert sorted(proposed(it)) == [(1, 1), (1, 1)]


@pytest.mark.parametrize("public", [b"", b"\x82", b"\xff" * 40, b"\x82\x84\x01\x04\x01\x00\x80"])
def test_batch_without_a_readable_header_is_dropped(public: bytes) -> None:
    assert store().offer(1, public, b"\x80") is Drop.MALFORMED  # the last one: origin 4 of 4
    assert Drop.MALFORMED.fault
    assert Drop.MALFORMED.sentence


def test_numbers_far_ahead_are_dropped() -> None:
    it = store()
    last = origins.NUMBERS_AHEAD_MAX
    assert isinstance(pushed(it, made(1, last)), Verify)
    assert pushed(it, made(1, last + 1)) is Drop.TOO_FAR
    assert pushed(it, made(1, 2**40)) is Drop.TOO_FAR
    assert pushed(it, made(1, 2**40 + 1)) is Drop.ELSEWHERE
    assert pushed(it, made(1, 2**63 - 1)) is Drop.ELSEWHERE


def test_sender_has_a_bounded_number_of_batches_in_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "CHECKING_MAX", 2)
    it = store()
    first = pushed(it, made(1, 1))
    assert isinstance(first, Verify)
    assert isinstance(pushed(it, made(1, 2)), Verify)
    assert pushed(it, made(1, 3)) is Drop.NO_ROOM
    assert isinstance(pushed(it, made(2, 1)), Verify)
    it.failed(first, CopyError("x"), NOW)
    assert isinstance(pushed(it, made(1, 3)), Verify)


@pytest.mark.parametrize("error", [DecodeError("bad"), SignatureError("bad")])
def test_bad_batch_is_never_looked_at_again_and_its_block_gets_no_vote(error: ComityError) -> None:
    it, batch = store(), made(1, 1)
    it.require(b"B" * 32, [named(batch)], 1, NOW)
    request = pushed(it, batch)
    assert isinstance(request, Verify)
    it.failed(request, error, NOW)
    assert pushed(it, batch) is Drop.REFUSED
    assert it.require(b"C" * 32, [named(batch)], 1, NOW) is Payload.INVALID
    assert it.fetches(NOW, [1, 2, 3]) == []
    assert it.next_fetch_ms() is None


@pytest.mark.parametrize("error", [CopyError("bad copy"), ComityError("a worker failed")])
def test_bad_copy_is_fetched_elsewhere_at_once(error: ComityError) -> None:
    it, batch = store(), made(1, 1)
    assert it.require(b"B" * 32, [named(batch)], 1, NOW) is Payload.MISSING
    assert len(it.fetches(NOW, [1, 2, 3])) == 2
    request = it.offer(2, batch.public, b"\x80", solicited=True)
    assert isinstance(request, Verify)
    assert it.next_fetch_ms() is None  # not while it is being checked
    it.failed(request, error, NOW + 7)
    assert it.next_fetch_ms() == NOW + 7
    assert len(it.fetches(NOW + 7, [1, 2, 3])) == 2
    assert arrive(it, batch, sender=3) == [b"B" * 32]


def test_worker_s_answer_about_another_batch_stops_the_node() -> None:
    it = store()
    request = pushed(it, made(1, 1))
    assert isinstance(request, Verify)
    with pytest.raises(LocalProtocolError):
        it.checked(request, from_batch(made(1, 2)), NOW)


# --- bounds on one origin ---


def test_origin_s_pushes_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    size = from_batch(made(1, 1)).size_bytes
    monkeypatch.setattr(batches, "ORIGIN_BYTES_MAX", 3 * size)
    it = store()
    for number in (1, 2, 3):
        arrive(it, made(1, number))
    assert pushed(it, made(1, 4)) is Drop.NO_ROOM
    assert isinstance(pushed(it, made(2, 1)), Verify)  # the others are not concerned
    it.delivered([named(made(1, 1))], NOW)
    arrive(it, made(1, 4))
    assert it.held_counts() == (0, 4, 0, 0)


def test_origin_s_pushes_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "ORIGIN_BATCHES_MAX", 2)
    it = store()
    arrive(it, made(1, 1))
    arrive(it, made(1, 2))
    assert pushed(it, made(1, 3)) is Drop.NO_ROOM


def test_what_a_block_names_comes_in_and_pushes_older_ones_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = from_batch(made(1, 1)).size_bytes
    monkeypatch.setattr(batches, "ORIGIN_BYTES_MAX", 2 * size)
    it = store()
    arrive(it, made(1, 1))
    arrive(it, made(1, 2))
    it.require(b"B" * 32, [named(made(1, 1)), named(made(1, 3))], 1, NOW)
    assert arrive(it, made(1, 3), sender=2) == [b"B" * 32]
    assert it.get(made(1, 1).digest) is not None  # needed by the block
    assert it.get(made(1, 2).digest) is None
    assert it.held_counts() == (0, 3, 0, 0)
    assert it.size_bytes <= 2 * size + 1
    # Forgotten, not lost: a block that names it has it fetched again.
    assert it.require(b"C" * 32, [named(made(1, 2))], 1, NOW) is Payload.MISSING
    assert arrive(it, made(1, 2), sender=2) == [b"C" * 32]


def test_numbers_of_a_hostile_origin_cost_no_memory() -> None:
    """An ordered block may name any; the window does not move for what is merely held."""
    it = store()
    for number in (2**30, 2**39, 2**40):
        batch = made(1, number)
        it.require(number.to_bytes(32, "big"), [named(batch)], 1, NOW, ordered=True)
        arrive(it, batch, sender=2)
    it.close_gaps(NOW + 20_000)
    assert it.held_counts() == (0, 0, 0, 0)
    assert proposed(it) == []
    assert not it._origins[1].held
    assert not it._origins[1].digests
    it.delivered([named(made(1, 2**40))], NOW)
    assert it.held_counts() == (0, 2**40 - origins.NUMBERS_AHEAD_MAX, 0, 0)


# --- proposing order ---


def test_protective_lane_first_then_origins_in_turns_oldest_first() -> None:
    it = store()
    for number in (1, 2, 3):
        arrive(it, made(1, number), NOW + number)
    arrive(it, made(2, 1), NOW + 10)
    arrive(it, made(3, 1), NOW + 5)
    arrive(it, made(3, 2, protective=True), NOW + 20)
    assert proposed(it) == [(3, 2), (1, 1), (3, 1), (2, 1), (1, 2), (1, 3)]


def test_batch_stays_proposable_until_a_block_with_it_is_delivered() -> None:
    """Whatever becomes of blocks in between: an undone block needs no give-back."""
    it, batch = store(), made(1, 1)
    arrive(it, batch)
    it.require(b"B" * 32, [named(batch)], 1, NOW)
    it.release(b"B" * 32)
    assert proposed(it) == [(1, 1)]
    assert it.delivered([named(batch)], NOW) == [from_batch(batch)]
    assert proposed(it) == []
    assert it.held_counts() == (0, 1, 0, 0)
    assert pushed(it, batch) is Drop.KNOWN


# --- blocks and fetching ---


def test_block_is_complete_when_its_last_batch_is_logged() -> None:
    it = store()
    one, two = made(1, 1), made(2, 1)
    arrive(it, one)
    assert it.require(b"A" * 32, [named(one)], 1, NOW) is Payload.COMPLETE
    assert it.require(b"B" * 32, [named(one), named(two)], 1, NOW) is Payload.MISSING
    assert it.require(b"C" * 32, [named(two)], 1, NOW) is Payload.MISSING
    request = it.offer(3, two.public, two.private, solicited=True)
    assert isinstance(request, Verify)
    it.checked(request, from_batch(two), NOW)
    assert it.require(b"D" * 32, [named(two)], 1, NOW) is Payload.MISSING  # not logged yet
    assert it.held(two.digest) == [b"B" * 32, b"C" * 32, b"D" * 32]
    assert it.held(two.digest) == []
    assert it.require(b"E" * 32, [], 1, NOW) is Payload.COMPLETE


@pytest.mark.parametrize(
    "change", ["origin", "number", "lane", "count", "size_bytes", "unknown origin"]
)
@pytest.mark.parametrize("held_first", [True, False])
def test_block_that_describes_a_batch_wrongly_is_never_complete(
    change: str, held_first: bool
) -> None:
    it, batch = store(), made(1, 1)
    values = dict(zip(("digest", "origin", "number", "lane", "count", "size_bytes"),
                      named(batch).to_value(), strict=True))  # fmt: skip
    if change == "unknown origin":
        values["origin"] = 4
    else:
        values[change] = 1 if change == "lane" else values[change] + 1
    wrong = PayloadItem(**values)
    if held_first:
        arrive(it, batch)
        assert it.require(b"B" * 32, [wrong], 1, NOW) is Payload.INVALID
    else:
        it.require(b"B" * 32, [wrong], 1, NOW)
        assert arrive(it, batch) == []
        assert it.next_fetch_ms() is None


def test_missing_batch_is_asked_of_two_peers_at_once_then_of_the_next() -> None:
    it, batch = store(), made(1, 1)
    it.require(b"B" * 32, [named(batch)], 1, NOW)
    asked: list[int] = []
    for now_ms in (NOW, NOW + 250, NOW + 750):
        assert it.next_fetch_ms() == now_ms
        requests = it.fetches(now_ms, [1, 2, 3])
        assert [digests for _, digests in requests] == [(batch.digest,)] * 2
        assert it.fetches(now_ms + 1, [1, 2, 3]) == []
        peers = [peer for peer, _ in requests]
        assert len(set(peers)) == 2
        asked += peers
    assert sorted(asked) == [1, 1, 2, 2, 3, 3]
    assert it.fetches(NOW + 10_000, [2]) == [(2, (batch.digest,))]
    assert it.fetches(NOW + 20_000, []) == []


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("leader", [1, 20, 63])
def test_leader_is_asked_at_the_first_retry_however_many_peers_there_are(
    leader: int, ordered: bool
) -> None:
    it, batch = store(size=64), made(1, 1)
    it.require(b"B" * 32, [named(batch)], 1, NOW, leader=leader, ordered=ordered)
    peers = list(range(1, 64))
    it.fetches(NOW, peers)
    it.absent([batch.digest], NOW)
    asked = [peer for peer, _ in it.fetches(NOW + 20, peers)]
    assert leader in asked
    assert len(set(asked)) == len(asked) == 2
    assert leader not in [peer for peer, _ in it.fetches(NOW + 10_000, [5, 6])]


def test_counts_of_a_peer_in_another_epoch_move_no_number() -> None:
    """Simulator, seed 30: own batches of the old epoch got numbers of the next one."""
    it = store()
    for peer in range(1, 4):
        assert not it.take_counts(peer, [number_before(2)] * 4)
        assert it.peer_held(peer, number_before(2) + 5, NOW) == []
    assert it.add_own(0, [signed(ANNA, 1)], NOW).number == 1
    late = BatchStore(4, 0, 2)
    late.restore([number_before(2)] * 4, [], NOW)
    for peer in range(1, 4):
        assert late.peer_held(peer, 7, NOW) == []
    assert late.add_own(0, [signed(ANNA, 2)], NOW).number == number_before(2) + 1


def test_what_an_ordered_block_lacks_is_asked_of_one_peer_first_then_of_two() -> None:
    it, batch = store(), made(1, 1)
    it.require(b"B" * 32, [named(batch)], 1, NOW, ordered=True)
    asked = []
    for now_ms in (NOW, NOW + 250, NOW + 750, NOW + 1750):
        assert it.next_fetch_ms() == now_ms
        asked.append([peer for peer, _ in it.fetches(now_ms, [1, 2, 3])])
    assert [len(peers) for peers in asked] == [1, 2, 2, 2]
    assert {peer for peers in asked for peer in peers} == {1, 2, 3}


def test_requests_are_cut_to_the_messages_size() -> None:
    it = store()
    items = [PayloadItem(bytes([n]) * 32, 1, n, 0, 1, 100) for n in range(1, 151)]
    it.require(b"B" * 32, items, 1, NOW)
    requests = it.fetches(NOW, [2])
    assert [len(digests) for _, digests in requests] == [64, 64, 22]
    for _, digests in requests:
        batch_wire.decode(batch_wire.encode(Request(digests)), 10**6)


def test_peer_without_the_batch_makes_others_be_asked_soon() -> None:
    it, batch = store(), made(1, 1)
    it.require(b"B" * 32, [named(batch)], 1, NOW)
    it.fetches(NOW, [1, 2, 3])
    it.absent([batch.digest, b"?" * 32], NOW + 1)
    assert it.next_fetch_ms() == NOW + 1 + batches.ABSENT_RETRY_MS


def test_answer_that_nobody_asked_for_is_dropped() -> None:
    it, batch = store(), made(1, 1)
    assert it.offer(2, batch.public, batch.private, solicited=True) is Drop.UNASKED


def test_abandoned_block_s_batches_are_no_longer_wanted() -> None:
    it = store()
    one, two = made(1, 1), made(2, 1)
    it.require(b"B" * 32, [named(one), named(two)], 1, NOW)
    it.require(b"C" * 32, [named(two)], 1, NOW)
    it.release(b"B" * 32)
    assert {d for _, ds in it.fetches(NOW, [1, 2, 3]) for d in ds} == {two.digest}
    it.release(b"C" * 32)
    it.release(b"C" * 32)
    assert it.next_fetch_ms() is None


def test_final_height_settles_the_blocks_beside_and_below_it() -> None:
    """A leader that names what nobody has does not make us ask for it for ever."""
    it = store()
    rows = [PayloadItem(bytes([n]) * 32, 1, n, 0, 1, 100) for n in range(1, 4)]
    for block, row, height in zip((b"B", b"C", b"D"), rows, (7, 7, 8), strict=True):
        it.require(block * 32, [row], height, NOW)
    it.settle(7)
    asked = [it.fetches(NOW + turn * 10_000, [1]) for turn in range(20)]
    times = {
        row.digest[0]: sum(row.digest in ds for each in asked for _, ds in each) for row in rows
    }
    assert times == {1: 8, 2: 8, 3: 20}
    it.settle(8)
    assert it.fetches(NOW + 10**6, [1]) == []
    assert it.next_fetch_ms() is None


def test_batch_of_an_abandoned_block_is_taken_when_it_comes_late() -> None:
    """Its leader may be the only one that has it, with its origin dead."""
    it, batch = store(), made(1, 1)
    it.require(b"B" * 32, [named(batch)], 7, NOW)
    it.fetches(NOW, [2])
    it.settle(7)
    it.take_counts(3, (0, 1, 0, 0))
    arrive(it, batch, sender=2)
    assert proposed(it) == [(1, 1)]


def test_number_of_blocks_in_waiting_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "REQUIRED_MAX", 3)
    it = store()
    for n in range(1, 6):
        item = PayloadItem(bytes([n]) * 32, 1, n, 0, 1, 100)
        it.require(bytes([n]) * 32, [item], 1, NOW)
    assert {d for _, ds in it.fetches(NOW, [1]) for d in ds} == {bytes([n]) * 32 for n in (3, 4, 5)}


# --- leaving ---


@pytest.mark.parametrize("bound", ["bytes", "batches"])
def test_delivered_batches_serve_peers_for_a_while(
    bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = store()
    all_of_them = [made(1, number) for number in range(1, 5)]
    size = from_batch(all_of_them[0]).size_bytes
    if bound == "bytes":
        monkeypatch.setattr(batches, "DELIVERED_BYTES_MAX", 2 * size)
    else:
        monkeypatch.setattr(batches, "DELIVERED_BATCHES_MAX", 2)
    for batch in all_of_them:
        arrive(it, batch)
    it.delivered([named(batch) for batch in all_of_them], NOW)
    kept = [it.get(batch.digest) is not None for batch in all_of_them]
    assert kept == [False, False, True, True]
    assert it.size_bytes == 2 * size


def test_delivered_batch_that_was_never_here_closes_its_gap() -> None:
    it = store()
    arrive(it, made(1, 2))
    assert it.delivered([named(made(1, 1))], NOW) == []
    assert it.held_counts() == (0, 2, 0, 0)
    assert pushed(it, made(1, 1)) is Drop.KNOWN


def test_expired_batches_go_unless_a_block_needs_them() -> None:
    it = store()
    early, late = made(1, 1, not_after_ms=1000), made(1, 2, not_after_ms=2000)
    arrive(it, early)
    arrive(it, late)
    it.require(b"B" * 32, [named(early)], 1, NOW)
    assert it.expire(1000) == []
    assert it.expire(1001) == []
    it.release(b"B" * 32)
    assert it.expire(1001) == [from_batch(early)]
    assert it.get(early.digest) is None
    assert it.held_counts() == (0, 2, 0, 0)
    assert proposed(it) == [(1, 2)]


@settings(max_examples=60, deadline=None)
@given(
    st.permutations([(origin, number) for origin in (1, 2) for number in range(1, 7)]), st.data()
)
def test_any_order_of_arrival_and_delivery_keeps_the_books(
    order: list[tuple[int, int]], data: st.DataObject
) -> None:
    it = store()
    here: dict[tuple[int, int], CheckedBatch] = {}
    counted: set[tuple[int, int]] = set()
    for place in order:
        batch = made(*place)
        if data.draw(st.booleans()):
            arrive(it, batch)
            here[place] = from_batch(batch)
        else:
            it.delivered([named(batch)], NOW)
        counted.add(place)
        deliver = data.draw(st.booleans())
        if here and deliver:
            gone = data.draw(st.sampled_from(sorted(here)))
            assert it.delivered([here[gone].item], NOW) == [here.pop(gone)]
        counts = [next(n for n in range(8) if (o, n + 1) not in counted) for o in (1, 2)]
        assert it.held_counts() == (0, *counts, 0)
        assert set(proposed(it)) == {(o, n) for o, n in here if n <= counts[o - 1]}
        assert all(it.get(batch.digest) == batch for batch in here.values())


# --- messages ---

ROOT = Path(__file__).parents[2]
VECTORS: dict[str, Any] = json.loads((ROOT / "tests/vectors/transaction.json").read_text())
CDDL = (ROOT / "docs/protocol/transaction.cddl").read_text()
LIMIT = 2**20


@pytest.mark.parametrize("case", VECTORS["messages"], ids=lambda case: str(case["name"]))
def test_message_vector_is_decoded_and_encoded_again(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["cbor"])
    pycddl.Schema(f"root = batch-{case['name']}\n{CDDL}").validate_cbor(data)
    found = batch_wire.decode(data, LIMIT)
    assert type(found).__name__.lower() == case["name"]
    assert batch_wire.encode(found) == data


def test_kinds_stand_clear_of_consensus_messages() -> None:
    kinds = [cbor2.loads(batch_wire.encode(m))[0] for m in (
        Push(b"a", b"b"), Request((b"d" * 32,)), Response(b"a", b"b"), Absent((b"d" * 32,)),
        Announce((0,), ()),
    )]  # fmt: skip
    assert kinds == [64, 65, 66, 67, 68]


DIGEST = b"d" * 32


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        [64],
        [63, b"a", b"b"],
        [68, b"a", b"b"],
        [True, b"a", b"b"],
        [64, b"a"],
        [64, b"a", b"b", b"c"],
        [64, b"", b"b"],
        [64, b"a", b""],
        [64, "a", b"b"],
        [66, b"a", None],
        [65, []],
        [65, DIGEST],
        [65, [DIGEST[1:]]],
        [65, [DIGEST, DIGEST]],
        [67, [DIGEST, DIGEST]],
        [65, [bytes([n]) * 32 for n in range(65)]],
        [65, [DIGEST], 1],
        [68, [DIGEST]],
        [68, [0, 0, 0, 0], [DIGEST, DIGEST]],
        [68, [0, 0, 0, 0], [bytes([n]) * 32 for n in range(65)]],
        [68, [], [DIGEST]],
        [68, [-1], [DIGEST]],
        [68, [0] * 65, []],
        [68, [0], [DIGEST], 1],
        {64: b"a"},
    ],
)
def test_message_is_refused(value: Any) -> None:
    with pytest.raises(DecodeError):
        batch_wire.decode(cbor2.dumps(value), LIMIT)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"\x83\x18\x40\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x82\x18\x41\x9b\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x81" * 9999,
        b"\x83\x18\x40\x41a\x41b\x00",
        b"\x83\x19\x00\x40\x41a\x41b",
        b"\x98\x03\x18\x40\x41a\x41b",
        b"\x9f\x18\x40\x41a\x41b\xff",
    ],
)
def test_hostile_message_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        batch_wire.decode(data, LIMIT)


@given(st.binary(max_size=100))
def test_garbage_is_no_message(data: bytes) -> None:
    try:
        found = batch_wire.decode(data, LIMIT)
    except DecodeError:
        return
    assert batch_wire.encode(found) == data


def test_batch_in_a_message_is_limited_by_the_network() -> None:
    most = Push(b"a" * (LIMIT - 10), b"b" * 10)
    data = batch_wire.encode(most)
    assert len(data) <= batch_wire.frame_bytes_max(LIMIT)
    assert batch_wire.decode(data, LIMIT) == most
    with pytest.raises(DecodeError):
        batch_wire.decode(batch_wire.encode(Push(b"a" * (LIMIT - 10), b"b" * 11)), LIMIT)
    with pytest.raises(DecodeError):
        batch_wire.decode(data, LIMIT // 2)
    many = Request(tuple(bytes([n]) * 32 for n in range(64)))
    assert len(batch_wire.encode(many)) <= batch_wire.frame_bytes_max(1024)


def test_gap_that_nobody_fills_is_closed_after_a_while() -> None:
    """Number 1 expired before it came here; what was made after it is proposed all the same."""
    it = store()
    arrive(it, made(1, 2))
    arrive(it, made(1, 4))
    it.close_gaps(NOW + 19_999)
    assert (proposed(it), it.held_counts()) == ([], (0, 0, 0, 0))
    it.close_gaps(NOW + 20_000)
    assert (proposed(it), it.held_counts()) == ([(1, 2), (1, 4)], (0, 4, 0, 0))
    arrive(it, made(1, 5))
    assert proposed(it) == [(1, 2), (1, 4), (1, 5)]
    late = made(1, 1)
    assert pushed(it, late) is Drop.KNOWN
    assert it.require(b"B" * 32, [named(late)], 1, NOW) is Payload.MISSING
    assert arrive(it, late, sender=2) == [b"B" * 32]


def test_gap_is_waited_for_while_what_came_after_it_is_young() -> None:
    it = store()
    arrive(it, made(1, 2))
    arrive(it, made(1, 1))
    arrive(it, made(1, 4))
    it.close_gaps(NOW + 19_999)
    assert it.held_counts() == (0, 2, 0, 0)


def test_gap_is_closed_although_nothing_lives_as_long_as_it_is_waited_for() -> None:
    it = store()
    for second in range(21):
        at_ms = NOW + 1000 * second
        arrive(it, made(1, 2 + second, not_after_ms=at_ms + 5000), at_ms)
        it.close_gaps(at_ms)
        it.expire(at_ms)
    assert it.held_counts() == (0, 22, 0, 0)
    assert proposed(it) == [(1, number) for number in range(17, 23)]


def test_gap_is_closed_below_what_was_delivered_young() -> None:
    """The others do without number 1: what is held here never grows old."""
    it = store()
    it.delivered([named(made(1, 2))], NOW + 50)
    arrive(it, made(1, 3), NOW + 19_000)
    it.close_gaps(NOW + 20_049)
    assert proposed(it) == []
    it.close_gaps(NOW + 20_050)
    assert (proposed(it), it.held_counts()) == ([(1, 3)], (0, 3, 0, 0))


def test_gaps_of_one_origin_close_no_other_s() -> None:
    it = BatchStore(4, OWN, 2)
    first = number_before(2)
    it.restore([first] * 4, [], NOW)
    arrive(it, made(1, first + 2))
    arrive(it, made(2, first + 2), NOW + 1)
    it.close_gaps(NOW + 20_000)
    assert it.held_counts() == (first, first + 2, first, first)


def test_block_that_skips_numbers_of_an_origin_gets_no_vote() -> None:
    """Whoever leads can name a batch in another's name, and would use up that one's numbers."""
    it = store()
    arrive(it, made(1, 1))
    last, far = made(1, 1 + 2**20), made(1, 2 + 2**20)
    assert it.require(b"A" * 32, [named(last)], 1, NOW) is Payload.MISSING
    assert it.require(b"B" * 32, [named(made(1, 1)), named(far)], 1, NOW) is Payload.INVALID
    assert it.fetches(NOW, [2]) == [(2, (last.digest,))]
    assert it.require(b"B" * 32, [named(far)], 1, NOW, ordered=True) is Payload.MISSING
    assert arrive(it, far, sender=2) == [b"B" * 32]


def test_digests_of_an_origin_whose_batches_are_delivered_late_are_bounded() -> None:
    it = store()
    late = 2000
    for number in range(1, 6 * late):
        it.delivered([PayloadItem(number.to_bytes(32, "big"), 1, number + late, 0, 1, 100)], NOW)
        it.delivered([PayloadItem(number.to_bytes(32, "big"), 1, number, 0, 1, 100)], NOW)
    assert len(it._origins[1].digests) <= origins.NUMBERS_AHEAD_MAX + origins.NUMBERS_KEPT_MAX


def test_own_numbers_that_the_log_lacks_are_not_given_twice_nor_waited_for() -> None:
    """All before number 5000 expired undelivered, and the log began anew."""
    it, batch = store(), made(OWN, 5000)
    it.restore([0, 0, 0, 0], [from_batch(batch)], NOW)
    assert proposed(it) == [(OWN, 5000)]
    assert it.peer_held(1, 4999, NOW + 1000) == [from_batch(batch)]
    assert it.add_own(0, [signed(ANNA, 1)], NOW).number == 5001


def test_number_of_an_own_batch_that_others_had_ordered_is_not_given_again() -> None:
    """Our log lost its end; no peer has told us its counts yet."""
    it = store()
    it.delivered([named(made(OWN, 3))], NOW)
    assert it.add_own(0, [signed(ANNA, 1)], NOW).number == 4
