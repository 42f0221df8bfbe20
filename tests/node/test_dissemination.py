"""Batches on their way: faults of peers, fetching, pushing again, numbers after a restart."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from consensus.errors import RemoteProtocolError
from consensus.genesis import Limits
from consensus.hotstuff import wire
from consensus.hotstuff.types import Block, Proposal, Timeout
from consensus.ledger import batch as formats
from node import batch_wire, dissemination
from node.batch_wire import Absent, Announce, Push, Request, Response
from node.checked import CheckedBatch, from_batch
from node.chronicle import Chronicle
from node.dissemination import BACKLOG_MAX, CHECKS_MAX
from node.network.wire import Class
from node.origins import NUMBERS_AHEAD_MAX
from tests.consensus.ledger.authors import BORIS, batch_of, signed
from tests.node.machines import CHAIN, Machine, Town, running
from tests.node.machines import inline_threads as inline_threads

pytestmark = pytest.mark.usefixtures("inline_threads")


class Frames:
    """Batch frames between machines, decoded; ``lose`` says which never arrive."""

    def __init__(self, town: Town) -> None:
        self.seen: list[tuple[int, int, batch_wire.BatchMessage]] = []
        self.lost: set[tuple[int, int]] = set()
        town.taps.append(self._hear)

    def _hear(self, by: int, peer: int, cls: Class, payload: bytes) -> bool:
        if payload[1:2] != b"\x18":  # ordering's kinds have one byte
            return True
        frame = batch_wire.decode(payload, 1 << 24)
        self.seen.append((by, peer, frame))
        return not (isinstance(frame, Push) and (by, peer) in self.lost)

    def of(self, kind: type, sender: int | None = None) -> list[tuple[int, int]]:
        """Return ``(from, to)`` of the frames of a kind."""
        return [
            (by, peer)
            for by, peer, frame in self.seen
            if isinstance(frame, kind) and sender in (None, by)
        ]


def pushed(machine: Machine, sender: int, public: bytes, private: bytes) -> None:
    machine.engine.take(sender, Class.BATCH, batch_wire.encode(Push(public, private)))


def holds(machine: Machine, digest: bytes) -> bool:
    return machine.engine.dissemination.find(digest) is not None


def broken(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


async def test_a_peer_that_pushes_what_is_no_batch_is_at_fault(
    tmp_path: Path, autojump_clock: object
) -> None:
    town = Town(tmp_path)
    machine = town.machines[0]
    one = signed(BORIS, 1, chain=CHAIN)
    good = batch_of(one, origin=1, number=1)
    signature = good.public.index(one.signatures[0])
    async with running(town):
        await town.until_certified(1)
        held = machine.engine.dissemination.batches.held_counts()
        with pytest.raises(RemoteProtocolError, match="its origin is not who sent it"):
            pushed(machine, 2, good.public, good.private)
        with pytest.raises(RemoteProtocolError, match="header cannot be read"):
            pushed(machine, 1, b"\x00", good.private)
        assert town.faults == []
        pushed(machine, 1, broken(good.public, signature), good.private)
        await town.until(lambda: len(town.faults) == 1)
        pushed(machine, 1, good.public, broken(good.private, len(good.private) // 2))
        await town.until(lambda: len(town.faults) == 2)
        assert [(own, peer) for own, peer, _ in town.faults] == [(0, 1)] * 2
        name = machine.engine.identity.committee.validators[1].agency
        assert machine.metrics.batches_rejected.labels(peer=name)._value.get() == 3
        assert machine.engine.dissemination.batches.held_counts() == held

        # A bad copy does not condemn the batch; forged bytes stay refused.
        pushed(machine, 1, good.public, good.private)
        await town.until(lambda: machine.engine.dissemination.find(good.digest) is not None)
        with pytest.raises(RemoteProtocolError, match="refused before"):
            pushed(machine, 1, broken(good.public, signature), good.private)


async def test_a_batch_that_one_node_lacks_is_fetched_when_a_block_names_it(
    tmp_path: Path, autojump_clock: object
) -> None:
    town = Town(tmp_path)
    frames = Frames(town)
    frames.lost = {(1, 0)}
    machine = town.machines[0]
    async with running(town):
        (txid,) = town.submit(1)
        await town.until(lambda: machine.engine.chronicle.find(txid) is not None)
    asked = frames.of(Request, 0)
    assert len(asked) >= 2, "two peers are asked at once"
    assert len({peer for _, peer in asked[:2]}) == 2
    assert any(to == 0 for _, to in frames.of(Response))


async def test_a_node_that_lacks_a_batch_says_so_and_delivered_ones_come_from_the_store(
    tmp_path: Path, autojump_clock: object
) -> None:
    town = Town(tmp_path)
    frames = Frames(town)
    machine = town.machines[0]
    async with running(town):
        (txid,) = town.submit(1)
        await town.until(lambda: machine.engine.chronicle.find(txid) is not None)
        engine = machine.engine
        await town.until(lambda: engine.store.height >= engine.chronicle.certified > 0)
        digests = [item.digest for block in town.blocks.values() for item in block.payload]
        stored = digests[0]
        engine.dissemination.batches._delivered.clear()  # long ago
        assert engine.dissemination.find(stored) is None
        engine.take(3, Class.SYNC, batch_wire.encode(Request((stored, b"?" * 32))))
        answers = [frame for by, to, frame in frames.seen if (by, to) == (0, 3)]
        (given,) = [frame for frame in answers if isinstance(frame, Response)]
        assert formats.digest(given.public) == stored
        (absent,) = [frame for frame in answers if isinstance(frame, Absent)]
        assert absent.digests == (b"?" * 32,)


async def test_what_peers_lack_of_ours_is_pushed_again_until_they_hold_it(
    tmp_path: Path, autojump_clock: object
) -> None:
    """All pushes are lost, so no block can name the batch before they have it."""
    town = Town(tmp_path)
    frames = Frames(town)
    frames.lost = {(1, peer) for peer in (0, 2, 3)}
    async with running(town):
        await town.until_certified(1)
        (txid,) = town.submit(1)
        await trio.sleep(3)
        assert town.machines[0].engine.chronicle.find(txid) is None or frames.of(Request)
        frames.lost.clear()
        chronicles = [each.engine.chronicle for each in town.machines]
        await town.until(lambda: all(each.find(txid) is not None for each in chronicles))
        assert town.machines[1].engine.dissemination.batches.held_counts()[1] == 1


async def test_more_batches_than_may_wait_are_dropped_and_not_held_against_anybody(
    tmp_path: Path, autojump_clock: object
) -> None:
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town):
        await town.until_certified(1)
        made = [
            batch_of(signed(BORIS, number, chain=CHAIN), origin=origin, number=number)
            for number in range(1, BACKLOG_MAX // 2)
            for origin in (1, 2, 3)
        ]
        for batch in made:
            pushed(machine, batch.origin, batch.public, batch.private)
            assert machine.engine.dissemination.depth <= BACKLOG_MAX
        assert town.faults == []
        for batch in made[-3:]:  # they come again when there is room
            await town.until(lambda: machine.engine.dissemination.depth == 0)
            pushed(machine, batch.origin, batch.public, batch.private)
            await town.until(partial(holds, machine, batch.digest))


class Slow:
    """A verifier that answers nothing until it is told to."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.answer = trio.Event()

    async def check_batch(
        self, public: bytes, private: bytes, *, signatures: bool = True
    ) -> CheckedBatch:
        self.asked.append(public)
        await self.answer.wait()
        return from_batch(formats.decode(CHAIN, public, private, Limits()))


@pytest.mark.parametrize(("limit", "together"), [(1 << 20, CHECKS_MAX), (2.5, 3), (0.5, 1)])
async def test_many_small_batches_are_with_the_workers_at_once_and_few_large_ones(
    tmp_path: Path,
    autojump_clock: object,
    monkeypatch: pytest.MonkeyPatch,
    limit: float,
    together: int,
) -> None:
    town = Town(tmp_path)
    machine = town.machines[0]
    made = [
        batch_of(signed(BORIS, number, chain=CHAIN), origin=1, number=number)
        for number in range(10, 10 + CHECKS_MAX + 8)
    ]
    size = len(made[-1].public) + len(made[-1].private)
    monkeypatch.setattr(dissemination, "CHECKS_BYTES_MAX", int(limit * size))
    async with running(town):
        await town.until_certified(1)
        slow = Slow()
        monkeypatch.setattr(machine.engine.dissemination, "_verifier", slow)
        for batch in made:
            pushed(machine, 1, batch.public, batch.private)
        await trio.testing.wait_all_tasks_blocked()
        assert slow.asked == [batch.public for batch in made[:together]]
        slow.answer.set()
        await town.until(lambda: holds(machine, made[-1].digest))
        assert slow.asked == [batch.public for batch in made]


async def test_a_restarted_node_never_gives_a_number_twice(
    tmp_path: Path, autojump_clock: object
) -> None:
    town = Town(tmp_path)
    frames = Frames(town)
    machine = town.machines[1]
    numbers: dict[int, bytes] = {}
    async with running(town) as nursery:
        for _ in range(5):
            town.submit(1, 2)
            await trio.sleep(0.1)
            machine.cut_power()
            await town.until(lambda: not machine.powered)
            machine.lose()
            await nursery.start(machine.run)
        goal = max(town.statements) + 2
        town.submit(1)
        await town.until_certified(goal)
    for by, _, frame in frames.seen:
        if isinstance(frame, Push) and by == 1:
            _, number, _ = formats.read_header(frame.public)
            assert numbers.setdefault(number, frame.public) == frame.public
    assert len(numbers) >= 5
    assert town.faults == []


async def test_transactions_that_can_no_longer_apply_leave_and_are_told(
    tmp_path: Path, autojump_clock: object
) -> None:
    """They were accepted by a node that is cut off until they have expired."""
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town):
        town.submit(1)
        await town.until_certified(1)
        town.cuts |= {frozenset({0, other}) for other in (1, 2, 3)}
        (txid,) = town.submit(0, not_after_ms=town.now_ms() + 500)
        assert machine.engine.sweep() == []
        await trio.sleep(2)
        for _ in range(3):
            town.submit(1)
            await trio.sleep(0.5)
        town.cuts.clear()
        town.meet(0)
        told: list[bytes] = []

        def left() -> bool:
            told.extend(machine.engine.sweep())
            return txid not in machine.engine.dissemination.pool

        await town.until(left)
        decided = machine.engine.chronicle.find(txid) is not None
        assert (told == [txid]) is not decided, "told of, or decided as EXPIRED; never both"


async def test_batches_after_one_that_nobody_has_are_decided_after_a_while(
    tmp_path: Path, autojump_clock: object
) -> None:
    town = Town(tmp_path)
    late = signed(BORIS, 2, chain=CHAIN)
    batch = batch_of(late, origin=1, number=2)
    async with running(town):
        await town.until_certified(1)
        for index in (0, 2, 3):
            pushed(town.machines[index], 1, batch.public, batch.private)
        chronicle = town.machines[0].engine.chronicle
        for _ in range(19):
            await trio.sleep(1)
            assert [machine.engine.sweep() for machine in town.machines] == [[]] * 4
        assert not decided(chronicle, late.txid)
        await trio.sleep(2)
        assert town.machines[2].engine.sweep() == []
        await town.until(partial(decided, chronicle, late.txid), 20)
        assert town.faults == []


# --- announcements ------------------------------------------------------------------------------


def decided(chronicle: Chronicle, txid: bytes) -> bool:
    return chronicle.find(txid) is not None


def gave_up(town: Town) -> int:
    """How many time-outs were signed."""
    return sum(isinstance(each, Timeout) for machine in town.machines for each in machine.sent)


def announced(machine: Machine, sender: int, *digests: bytes) -> None:
    frame = batch_wire.encode(Announce((0, 0, 0, 0), digests))
    machine.engine.take(sender, Class.BATCH, frame)


@pytest.mark.parametrize("shown", [(0,), (3,), (0, 3)])
async def test_batch_shown_to_some_only_is_ordered_without_a_failed_round(
    shown: tuple[int, ...], tmp_path: Path, autojump_clock: object
) -> None:
    """Its origin knows nothing of it any more, so that nobody can have it from there."""
    town = Town(tmp_path)
    frames = Frames(town)
    one = signed(BORIS, 1, chain=CHAIN)
    batch = batch_of(one, origin=1, number=1)
    async with running(town):
        await town.until_certified(1)
        begin = trio.current_time()
        assert town.machines[0].engine.ordering.replica.round % 4 == 2, "who leads is shown nothing"
        for index in shown:
            pushed(town.machines[index], 1, batch.public, batch.private)
        chronicles = [machine.engine.chronicle for machine in town.machines]
        await town.until(lambda: all(each.find(one.txid) is not None for each in chronicles))
        assert trio.current_time() - begin < 1, "before any timer"
        assert gave_up(town) == 0
        assert town.faults == []
    assert (shown[0], 2) in frames.of(Announce)


async def test_batches_of_a_block_are_required_with_the_name_of_its_leader(
    tmp_path: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = Town(tmp_path)
    proposers: dict[bytes, int] = {}
    leaders: dict[bytes, int] = {}

    def hear(sender: int, peer: int, cls: Class, payload: bytes) -> bool:
        if cls is Class.CONSENSUS and isinstance(it := wire.decode_message(payload), Proposal):
            proposers[it.block.id] = sender
        return True

    town.taps.append(hear)
    async with running(town):
        parts = town.machines[0].engine.dissemination
        require = parts.require

        def note(block: Block, leader: int, *, ordered: bool = False) -> None:
            leaders[block.id] = leader
            require(block, leader, ordered=ordered)

        monkeypatch.setattr(parts, "require", note)
        for at in range(4):
            (txid,) = town.submit(at)
            await town.until(partial(decided, town.machines[0].engine.chronicle, txid))
    assert len(set(leaders.values())) > 1
    assert leaders.items() <= proposers.items()


async def test_batch_shown_only_to_the_leader_costs_no_round(
    tmp_path: Path, autojump_clock: object
) -> None:
    town = Town(tmp_path)
    frames = Frames(town)
    async with running(town):
        await town.until_certified(1)
        engine = town.machines[0].engine
        replica, chronicle = engine.ordering.replica, engine.chronicle
        for number in range(1, 9):
            await town.until(lambda: replica.round % 4 != 1)  # the origin
            one = signed(BORIS, number, chain=CHAIN)
            batch = batch_of(one, origin=1, number=number)
            pushed(town.machines[replica.round % 4], 1, batch.public, batch.private)
            await town.until(partial(decided, chronicle, one.txid))
        assert gave_up(town) == 0
        assert town.faults == []
    assert frames.of(Request)


async def test_digests_that_nobody_has_cost_a_bounded_number_of_questions_to_the_liar(
    tmp_path: Path, autojump_clock: object
) -> None:
    town = Town(tmp_path)
    frames = Frames(town)
    machine = town.machines[0]
    async with running(town):
        await town.until_certified(1)
        for turn in range(100):
            announced(machine, 3, *[bytes([turn, n]) * 16 for n in range(64)])
            await trio.sleep(0.02)
        (txid,) = town.submit(1)
        await town.until(lambda: machine.engine.chronicle.find(txid) is not None)
        assert gave_up(town) == 0
        assert town.faults == []
    digests = [
        d for by, to, frame in frames.seen if isinstance(frame, Request) for d in frame.digests
    ]
    assert {(by, to) for by, to in frames.of(Request)} == {(0, 3)}
    assert len(digests) == 64, "100 frames in 2 s, one lot of places"
    assert machine.metrics.batches_dropped.labels(reason="announced")._value.get() == 99 * 64


async def test_what_was_announced_keeps_the_bounds_of_its_origins_pushes(
    tmp_path: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = Town(tmp_path)
    machine = town.machines[0]
    far = batch_of(signed(BORIS, 1, chain=CHAIN), origin=1, number=NUMBERS_AHEAD_MAX + 1)
    own = batch_of(signed(BORIS, 2, chain=CHAIN), origin=0, number=9)
    unasked = batch_of(signed(BORIS, 3, chain=CHAIN), origin=1, number=1)
    async with running(town):
        await town.until_certified(1)
        announced(machine, 3, far.digest, own.digest)
        for batch in (far, own, unasked):
            frame = batch_wire.encode(Response(batch.public, batch.private))
            machine.engine.take(3, Class.SYNC, frame)
        await trio.sleep(1)
        assert not any(holds(machine, batch.digest) for batch in (far, own, unasked))
        assert town.faults == []
    dropped = machine.metrics.batches_dropped
    assert dropped.labels(reason="too_far")._value.get() == 1
    assert dropped.labels(reason="unasked")._value.get() == 2


async def test_batches_that_all_have_and_that_are_proposed_are_not_announced(
    tmp_path: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On disks that take no time: a sync of 50 ms keeps a block back for so long."""
    monkeypatch.setattr(random.Random, "choice", lambda _self, options: options[0])
    town = Town(tmp_path)
    frames = Frames(town)
    async with running(town):
        await town.until_certified(1)
        chronicle = town.machines[0].engine.chronicle
        for _ in range(10):
            (txid,) = town.submit(1)
            await town.until(partial(decided, chronicle, txid))
            await trio.sleep(0.5)
    assert frames.of(Push)
    assert frames.of(Announce) == []


async def test_leader_cannot_use_up_another_s_numbers(
    tmp_path: Path, autojump_clock: object
) -> None:
    """It names a batch of its own making, in the other's name, with the last number there is."""
    town = Town(tmp_path)
    batch = batch_of(signed(BORIS, 1, chain=CHAIN), origin=1, number=2**40)
    async with running(town):
        await town.until_certified(1)
        liar = town.machines[0].engine
        own = liar.dissemination.batches
        own.require(b"B" * 32, [from_batch(batch).item], 1, town.now_ms(), ordered=True)
        response = batch_wire.encode(Response(batch.public, batch.private))
        liar.take(3, Class.SYNC, response)
        await town.until(lambda: own.get(batch.digest) is not None)
        own._origins[1].contiguous = 2**40
        own._entries[batch.digest].fetched = False
        liar.ordering.payload_changed()
        await town.until(
            lambda: any(batch.digest in named(block) for block in town.blocks.values())
        )
        (txid,) = town.submit(1)
        honest = [machine.engine for machine in town.machines[1:]]
        await town.until(lambda: all(decided(each.chronicle, txid) for each in honest))
        for each in honest:
            assert not decided(each.chronicle, batch.transactions[0].txid)
            assert each.dissemination.batches.held_counts()[1] == 1


def named(block: Block) -> set[bytes]:
    return {item.digest for item in block.payload}
