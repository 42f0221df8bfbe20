"""The replica's surroundings: hostile frames, bounds, evidence, and answers for those behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nacl.bindings
import pytest
import trio
import trio.testing

from consensus import signing
from consensus.errors import DecodeError, LocalProtocolError
from consensus.hotstuff import wire
from consensus.hotstuff.events import EvidenceKind, PayloadAvailable, ReportEvidence, RequirePayload
from consensus.hotstuff.types import (
    SIGN_TAGS,
    Block,
    BlocksRequest,
    BlocksResponse,
    Certificates,
    CommitCert,
    PayloadItem,
    QuorumCert,
    SignKind,
    Vote,
    vote_body,
)
from consensus.keyfile import KeyKind
from node import ordering
from node.network.wire import Class
from node.ordering import EVIDENCE_MAX, FAULTS, RECEIVED_MAX
from node.storage import kinds
from node.telemetry.coordination import Coordination
from tests.node.machines import CHAIN, SIZE, Machine, Town, pair_of, running
from tests.node.machines import inline_threads as inline_threads

pytestmark = pytest.mark.usefixtures("inline_threads")


class Wire:
    """Hears what is sent between two machines, frame by frame."""

    def __init__(self, town: Town, sender: int | None = None, to: int | None = None) -> None:
        self.frames: list[tuple[Class, bytes]] = []
        self._sender, self._to = sender, to
        town.taps.append(self._hear)

    def _hear(self, by: int, peer: int, cls: Class, payload: bytes) -> bool:
        if self._sender in (None, by) and self._to in (None, peer):
            self.frames.append((cls, payload))
        return True

    def blocks(self) -> list[BlocksResponse]:
        """Return the blocks that were sent."""
        head = bytes([wire.KIND_BLOCKS_RESPONSE])
        found = [wire.decode_message(data) for _, data in self.frames if data[1:2] == head]
        return [message for message in found if isinstance(message, BlocksResponse)]


def vote_of(validator: int, block: Block, block_id: bytes) -> Vote:
    """A vote with the real key of a validator, for whatever block."""
    body = vote_body(block.epoch, block.round, block_id, block.height)
    seed = pair_of(40 + validator, KeyKind.VALIDATOR).seed
    _, secret = nacl.bindings.crypto_sign_seed_keypair(seed)
    signed = signing.message(SIGN_TAGS[SignKind.VOTE], CHAIN, body)
    signature = nacl.bindings.crypto_sign(signed, secret)[:64]
    return Vote(block.epoch, block.round, block_id, block.height, validator, signature, ())


# --- hellos ---------------------------------------------------------------------------------------


def own_signatures(extras: bytes, own: int) -> dict[SignKind, int]:
    """The highest round of each kind in which certificates of a hello hold this signature."""
    found = wire.decode_message(extras)
    assert isinstance(found, Certificates)
    rounds: dict[SignKind, int] = {}
    for certificate in (found.high_qc, found.commit_cert):
        if certificate is not None and own in dict(certificate.signatures):
            match certificate:
                case QuorumCert():
                    rounds[SignKind.VOTE] = certificate.round
                case CommitCert(statement):
                    rounds[SignKind.COMMIT_VOTE] = statement.round
    return rounds


async def test_no_hello_shows_a_signature_that_is_not_durable_yet(
    tmp_path: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who dies then would find that others know more of its key than it does, and not sign."""
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town):
        await town.until_certified(2)
        engine = machine.engine
        for _ in range(SIZE):  # a node at rest tells the newest that it has
            await trio.testing.wait_all_tasks_blocked()
        assert engine.ordering.extras() == wire.encode_message(
            engine.ordering.replica.certificates()
        )

        promised = {kind: engine.signer.slot_of(kind) for kind in SignKind}
        blocked, persist = trio.Event(), engine.outbox._log.persist

        async def waits(*args: Any, **kinds_: Any) -> object:
            await blocked.wait()
            return await persist(*args, **kinds_)

        monkeypatch.setattr(engine.outbox._log, "persist", waits)
        town.submit(0)
        town.submit(1)

        def ahead() -> bool:
            """The node has made certificates with signatures that its disk does not hold."""
            live = own_signatures(wire.encode_message(engine.ordering.replica.certificates()), 0)
            return any((1, round_) > promised[kind] for kind, round_ in live.items())

        await town.until(ahead)
        told = own_signatures(engine.ordering.extras(), 0)
        assert all((1, round_) <= promised[kind] for kind, round_ in told.items())
        blocked.set()
        await town.until_certified(max(town.statements) + 1)


# --- hostile frames -------------------------------------------------------------------------------


async def test_a_damaged_frame_is_a_fault_of_its_sender_and_changes_nothing(
    tmp_path: Path, autojump_clock: object
) -> None:
    """Every frame of a run, cut, extended and with one byte changed, as frame and as hello."""
    town = Town(tmp_path)
    heard = Wire(town, to=0)
    async with running(town):
        for turn in range(SIZE):
            town.submit(turn)
        await town.until_certified(6)
        engine = town.machines[0].engine
        before = len(town.machines[0].sent)
        faults = 0
        damaged = [
            (cls, broken) for cls, payload in heard.frames for broken in damaged_forms(payload)
        ]
        for cls, broken in damaged:
            try:
                engine.take(1, cls, broken)
            except FAULTS:
                faults += 1
            try:
                engine.ordering.connected(1, broken)
            except FAULTS:
                faults += 1
        assert faults > len(damaged) > 500
        assert engine.stopped is None
        town.submit(1)
        await town.until_certified(max(town.statements) + 2)
        assert len(town.machines[0].sent) > before


async def test_an_own_fault_behind_a_good_frame_is_not_taken_for_its_senders(
    tmp_path: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked of the effects was verified; the rest of them would be lost, unnoticed."""
    town = Town(tmp_path)
    async with running(town):
        await town.until_certified(1)
        own = town.machines[0].engine.ordering

        def failing(_event: object, _now_ms: int) -> list[object]:
            raise DecodeError("it ends too early", path="leaf")

        with monkeypatch.context() as patched:
            patched.setattr(own.replica, "step", failing)
            with pytest.raises(LocalProtocolError, match="leaf: it ends too early"):
                own.post(PayloadAvailable(()))
        await town.until_certified(3)


async def test_counting_for_dashboards_stops_no_node(
    tmp_path: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_self: Coordination, _height: object) -> None:
        raise DecodeError("it ends too early", path="leaf")

    monkeypatch.setattr(Coordination, "certified", failing)
    town = Town(tmp_path)
    async with running(town):
        town.submit(1)
        await town.until_certified(4)


async def test_blocks_that_are_never_delivered_are_forgotten_at_a_bound(
    tmp_path: Path, autojump_clock: object
) -> None:
    """A faulty leader's proposals leave no trace that grows."""
    town = Town(tmp_path)
    async with running(town):
        town.submit(1)
        await town.until_certified(2)
        own = town.machines[0].engine.ordering
        some = next(iter(town.blocks.values()))
        for number in range(2 * RECEIVED_MAX):
            item = PayloadItem(number.to_bytes(32, "big"), 1, 10_000 + number, 0, 1, 100)
            own._carry_out(RequirePayload(replace(some, round=1000 + number, payload=(item,))))
        assert len(own._received) == RECEIVED_MAX
        town.submit(1)
        await town.until_certified(max(town.statements) + 2)


def damaged_forms(payload: bytes) -> list[bytes]:
    """Cut, extended, and with one bit changed at places all over."""
    forms = [payload[:-1], payload[: len(payload) // 2], payload + b"\0"]
    places = range(0, len(payload), max(1, len(payload) // 9))
    flipped = [(at, bytes([payload[at] ^ 1 << at % 8])) for at in places]
    forms += [payload[:at] + byte + payload[at + 1 :] for at, byte in flipped]
    return forms


# --- evidence -------------------------------------------------------------------------------------


async def test_two_votes_of_one_validator_are_kept_through_turned_logs_and_restarts(
    tmp_path: Path, autojump_clock: object
) -> None:
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town) as nursery:
        await town.until_certified(2)
        round_ = machine.engine.ordering.replica.round + 3
        block = replace(next(iter(town.blocks.values())), round=round_, height=50)
        pair = [wire.encode_message(vote_of(2, block, bytes([n]) * 32)) for n in (1, 2)]
        for payload in (*pair, *pair):
            machine.engine.take(2, Class.CONSENSUS, payload)
        (kept,) = machine.engine.ordering.evidence
        size = int.from_bytes(kept[:4], "big")
        assert [kept[4 : 4 + size], kept[4 + size :]] == pair
        assert machine.metrics.equivocations._value.get() == 1

        town.submit(0)
        await town.until_certified(max(town.statements) + 2)
        for _ in range(2):
            log = machine.engine._recovered.log
            entries = machine.engine.carried()
            assert kinds.evidence(kept) in entries
            persisted = await machine.engine.writer.rotate(entries)
            await machine.engine.writer.drop_before(persisted.synced)
            assert log.start > 0
            machine.cut_power()
            await town.until(lambda: not machine.powered)
            machine.lose()
            await nursery.start(machine.run)
            assert machine.engine.ordering.evidence == [kept]
        await town.until_certified(max(town.statements) + 2)


async def test_evidence_is_kept_up_to_a_bound_and_counted_beyond(
    tmp_path: Path, autojump_clock: object
) -> None:
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town):
        town.submit(0)
        await town.until_certified(1)
        own = machine.engine.ordering
        block = next(iter(town.blocks.values()))
        for number in range(EVIDENCE_MAX + 10):
            slot = replace(block, round=9 + number)
            one, two = (vote_of(1, slot, bytes([letter]) * 32) for letter in b"ab")
            for _ in range(2):
                own._carry_out(ReportEvidence(EvidenceKind.TWO_VOTES, one, two))
        assert len(own.evidence) == EVIDENCE_MAX
        assert machine.metrics.equivocations._value.get() == 2 * (EVIDENCE_MAX + 10)


# --- those behind ---------------------------------------------------------------------------------


async def test_a_node_far_behind_catches_up_by_pages_and_by_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """It was away for more heights than are asked for by id; small answers are enough."""
    monkeypatch.setattr(ordering, "SERVE_BYTES_MAX", 4 * 1024)
    town = Town(tmp_path)
    late = town.machines[3]
    async with running(town, 0, 1, 2) as nursery:
        turn = 0
        while max(town.statements, default=0) < wire.BLOCKS_PER_RESPONSE_MAX // 2 + 6:
            town.submit(turn % 3)
            turn += 1
            await trio.sleep(0.1)
        heard = Wire(town, to=3)
        await nursery.start(late.run)
        await town.until_certified(max(town.statements))
        assert len(heard.blocks()) > 3
        town.cuts |= {frozenset({3, other}) for other in range(3)}  # near: it misses two or three
        goal = max(town.statements) + 3
        town.submit(0)
        await town.until_certified(goal, 0, 1, 2)
        town.cuts.clear()
        town.meet(3)
        town.submit(1)
        await town.until_certified(goal + 1)
    assert not town.faults


async def ask(town: Town, machine: Machine, request: BlocksRequest) -> BlocksResponse | None:
    """Ask a machine in the name of its peer 3, and return what it answers at once."""
    heard = Wire(town, sender=machine.index, to=3)
    machine.engine.take(3, Class.SYNC, wire.encode_message(request))
    await trio.sleep(0.1)
    found = heard.blocks()
    return found[0] if found else None


async def test_requests_for_blocks_are_answered_with_a_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town, 0, 1, 2):
        town.submit(0, 2)
        await town.until_certified(6, 0, 1, 2)
        tip = machine.height
        blocks = {height: machine.engine.chronicle.ordered(height) for height in range(1, tip + 1)}
        ids = {height: found[0].id for height, found in blocks.items() if found is not None}

        whole = await ask(town, machine, BlocksRequest(1, 1, None, 4))
        assert whole is not None
        assert [block.id for block in whole.blocks] == [ids[n] for n in range(1, 5)]
        certificate = whole.certificate
        assert isinstance(certificate, CommitCert)
        assert certificate.statement.block_id == ids[4]

        # A delivered block asked for by its id is answered by height.
        one = await ask(town, machine, BlocksRequest(1, 3, ids[3], 1))
        assert one is not None
        assert [block.id for block in one.blocks] == [ids[3]]
        assert isinstance(one.certificate, CommitCert | QuorumCert)

        assert await ask(town, machine, BlocksRequest(1, 10_000, None, 4)) is None
        assert await ask(town, machine, BlocksRequest(1, 10_000, b"?" * 32, 4)) is None

        monkeypatch.setattr(ordering, "SERVE_BYTES_MAX", len(wire.encode_block(whole.blocks[0])))
        short = await ask(town, machine, BlocksRequest(1, 1, None, 4))
        assert short is not None
        assert [block.id for block in short.blocks] == [ids[1]]


async def test_requests_for_blocks_beyond_what_one_peer_gets_are_counted_and_cost_others_nothing(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    town = Town(tmp_path)
    async with running(town, 0):
        engine = town.machines[0].engine
        asked = engine.ordering._may_ask
        assert [asked(3) for _ in range(ordering.SERVES_BURST_MAX)] == [True] * 40
        assert [asked(3) for _ in range(7)] == [False] * 7
        assert asked(1)
        name = engine.identity.committee.validators[3].agency
        assert engine._metrics.peer_refused.labels(peer=name)._value.get() == 7
        autojump_clock.jump(1.0)
        assert [asked(3) for _ in range(21)] == [True] * 20 + [False]


async def test_an_ordered_block_above_the_delivered_ones_is_given_by_id(
    tmp_path: Path, autojump_clock: object
) -> None:
    """Commit votes are lost, so blocks are ordered and not final; whoever lacks one gets it."""
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town, 0, 1, 2):
        await town.until_certified(2, 0, 1, 2)
        lost = bytes([wire.KIND_COMMIT_VOTE])
        town.taps.append(lambda _by, _peer, _cls, data: data[1:2] != lost)
        replica = machine.engine.ordering.replica
        town.submit(0)
        await town.until(lambda: replica.ordered_height >= machine.height + 3)
        height = machine.height + 2
        block = next(b for b in town.blocks.values() if b.height == height)
        answer = await ask(town, machine, BlocksRequest(1, height - 1, block.id, 2))
        assert answer is not None
        assert answer.blocks[-1].id == block.id
        assert isinstance(answer.certificate, QuorumCert)
        assert answer.certificate.block_id == block.id


async def test_a_certificate_asked_of_a_closed_node_changes_nothing(
    tmp_path: Path, autojump_clock: object
) -> None:
    """After it was closed nothing is taken up, whatever comes, and nothing is sent."""
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town):
        await town.until_certified(1)
        machine.engine.ordering.close()
        round_, sent = machine.engine.ordering.replica.round, len(machine.sent)
        town.submit(1)
        await town.until_certified(4, 1, 2, 3)
        assert machine.engine.ordering.replica.round == round_
        assert len(machine.sent) == sent
