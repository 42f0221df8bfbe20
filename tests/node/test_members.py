"""Real engines while members come and go: observers, a member that joins, one removed, new keys.

No act of the ledger elects a committee here; the executor is made to, by one transaction. The town
watches that nobody ever signs two things for one slot of one epoch, and that all certify the same.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from consensus.committee import Committee, Validator
from consensus.errors import RemoteProtocolError, VerificationError
from consensus.hotstuff import wire
from consensus.hotstuff.types import BlocksRequest, Certificates, SignKind, Vote, vote_body
from consensus.keyfile import KeyKind
from consensus.ledger.executor import BlockResult, BlockRun
from node import batch_wire, execution
from node.batch_wire import Push, Request
from node.errors import PromisesLostError, SigningRefusedError
from node.network.guests import GUESTS_FROM
from node.network.wire import Class
from node.signer import Signer
from tests.consensus.ledger.authors import ANNA, BORIS, signed
from tests.node.machines import (  # noqa: F401 - the fixture is used by name
    CHAIN,
    Machine,
    Town,
    inline_threads,
    pair_of,
    running,
)

pytestmark = pytest.mark.usefixtures("inline_threads")


ELECTED: dict[bytes, tuple[Validator, ...]] = {}
FIRST = (0, 1, 2, 3)
"""Machines of the first committee; machine 4 is of none yet."""
OTHER = 4


class ElectingRun(BlockRun):
    """The executor, but for transactions by which these nodes go on."""

    def finish(self) -> BlockResult:
        outcome = super().finish()
        orders = [ELECTED[t.txid] for t in outcome.transactions if t.txid in ELECTED]
        if not orders:
            return outcome
        return replace(outcome, next_committee=Committee(self._context.epoch + 1, orders[-1]))


@pytest.fixture(autouse=True)
def electing(monkeypatch: pytest.MonkeyPatch) -> None:
    ELECTED.clear()
    monkeypatch.setattr(execution, "BlockRun", ElectingRun)


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path, size=5)


def elect(town: Town, at: int, *order: int) -> None:
    (txid,) = town.submit(at)
    ELECTED[txid] = tuple(town.machines[index].row for index in order)


async def decided(town: Town, txids: list[bytes], *indices: int) -> None:
    machines = [town.machines[index] for index in indices]
    await town.until(
        lambda: all(
            m.powered and m.engine.chronicle.find(txid) is not None
            for m in machines
            for txid in txids
        )
    )


async def in_epoch(town: Town, epoch: int, *indices: int) -> None:
    machines = [town.machines[index] for index in indices]
    await town.until(lambda: all(m.powered and m.epoch == epoch for m in machines))


def voted(machine: Machine, epoch: int) -> bool:
    return any(isinstance(each, Vote) and each.epoch == epoch for each in machine.sent)


async def test_observer_follows_everything_and_sends_no_signature(town: Town) -> None:
    town.admitted = {OTHER}
    async with running(town, *FIRST) as nursery:
        txids = town.submit(0, 5)
        await decided(town, txids, *FIRST)
        await nursery.start(town.machines[OTHER].run)
        txids += town.submit(1, 5)
        await decided(town, txids, OTHER)
        observer = town.machines[OTHER]
        assert not observer.engine.votes
        assert observer.sent == []
        with pytest.raises(SigningRefusedError):
            observer.engine.signer.sign(SignKind.VOTE, 1, 1, b"vote")
        assert not list(observer.folder.glob("signer*"))
        elect(town, 0, 3, 2, 1, 0)
        await in_epoch(town, 2, *FIRST, OTHER)
        txids = town.submit(2, 3)
        await decided(town, txids, *FIRST, OTHER)
        assert observer.sent == []
    assert not town.faults


async def test_who_is_not_admitted_gets_nothing(town: Town) -> None:
    frames: list[bytes] = []

    def tap(sender: int, peer: int, cls: Class, payload: bytes) -> bool:
        if peer == OTHER:
            frames.append(payload)
        return True

    async with running(town, *FIRST) as nursery:
        txids = town.submit(0, 5)
        await decided(town, txids, *FIRST)
        town.taps.append(tap)
        town.machines[OTHER].hold("agency-4", pair_of(44, KeyKind.VALIDATOR))
        await nursery.start(town.machines[OTHER].run)
        await trio.sleep(1)
        assert town.machines[OTHER].height == 0
        assert not any(batch_wire.is_known(each) for each in frames)


@pytest.mark.long
@pytest.mark.parametrize("rechecks", [True, False])
async def test_clients_signatures_are_checked_by_an_observer_that_wants_to(
    town: Town, rechecks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quorum that lets a wrong signature pass: the observer says so and goes no further."""
    town.admitted = {OTHER}
    bad = signed(ANNA, 9, chain=CHAIN).signed([BORIS.sign(b"")])
    observer = town.machines[OTHER]
    observer.rechecks = rechecks
    async with running(town, *FIRST, OTHER):
        txids = town.submit(0, 2)
        await decided(town, txids, *FIRST, OTHER)
        height = observer.height
        for index in FIRST:
            judge = town.machines[index].verifier._judge
            monkeypatch.setattr(judge, "_check_signatures", lambda items: None)
        town.machines[0].engine.dissemination.add(bad)
        await town.until(lambda: town.machines[1].engine.chronicle.find(bad.txid) is not None)
        if rechecks:
            await town.until(lambda: bool(observer.engine.doubt))
            assert observer.engine.chronicle.find(bad.txid) is None
            assert observer.metrics.signatures_doubted._value.get() >= 1
        else:
            await decided(town, [bad.txid], OTHER)
            assert observer.height > height
            assert observer.engine.doubt == ""
    assert not town.faults


async def test_joining_member_votes_from_the_boundary_on_and_counts(town: Town) -> None:
    town.admitted = {OTHER}
    joining = town.machines[OTHER]
    async with running(town, *FIRST, OTHER) as nursery:
        txids = town.submit(0, 5)
        await decided(town, txids, OTHER)
        elect(town, 1, 0, 1, 2, 3, OTHER)
        await in_epoch(town, 2, *FIRST, OTHER)
        assert joining.engine.votes
        town.machines[0].cut_power()  # 4 of 5 are a quorum: the newcomer's vote is needed
        await town.until(lambda: not town.machines[0].powered)
        txids = town.submit(OTHER, 3)
        await decided(town, txids, 1, 2, 3, OTHER)
        assert voted(joining, 2)
        joining.cut_power()
        await town.until(lambda: not joining.powered)
        joining.lose()
        await nursery.start(joining.run)
        txids = town.submit(1, 2)
        await decided(town, txids, 1, 2, 3, OTHER)
        assert joining.engine.stopped is None
    assert [path.name for path in sorted(joining.disk.files) if path.suffix == ".mark"] == [
        f"signer-{joining.keys[0].public.hex()[:16]}.mark"
    ]


@pytest.mark.long
async def test_joined_member_whose_data_is_gone_is_no_newcomer(town: Town) -> None:
    """Its key has signed; peers show that, and it does not sign again."""
    town.admitted = {OTHER}
    joined = town.machines[OTHER]
    async with running(town, *FIRST, OTHER) as nursery:
        elect(town, 1, 0, 1, 2, 3, OTHER)
        await in_epoch(town, 2, *FIRST, OTHER)
        town.machines[0].cut_power()
        await town.until(lambda: not town.machines[0].powered)
        txids = town.submit(OTHER, 3)
        await decided(town, txids, 1, 2, 3, OTHER)
        joined.cut_power()
        await town.until(lambda: not joined.powered)
        joined.disk = type(joined.disk)()
        shutil.rmtree(joined.folder)
        sent = len(joined.sent)
        await nursery.start(joined.run)
        await town.until(lambda: joined.epoch == 2 and joined.engine.stopped is not None)
        assert joined.engine.stopped is not None
        assert joined.engine.stopped.code == PromisesLostError.code
        assert not [each for each in joined.sent[sent:] if isinstance(each, Vote)]


async def test_removed_member_learns_it_and_its_signatures_count_for_nothing(town: Town) -> None:
    removed, members = town.machines[0], (1, 2, 3, OTHER)
    town.admitted = {OTHER}
    async with running(town, *FIRST, OTHER):
        txids = town.submit(0, 3)
        await decided(town, txids, OTHER)
        elect(town, 1, *members)
        await in_epoch(town, 2, 0, *members)
        end = removed.engine.identity.ended[0].height
        assert not removed.engine.votes
        sent = len(removed.sent)
        txids = town.submit(1, 3)
        await decided(town, txids, *members)
        assert removed.height == end  # it is no observer of what came after
        assert removed.sent[sent:] == []
        town.admitted.add(0)
        town.meet(0)
        await decided(town, txids, 0)
        assert removed.sent[sent:] == []
        peer, number = town.machines[1].engine, town.machines[1].number_of(0)
        assert number >= GUESTS_FROM
        block = peer.chronicle.block(end + 1)
        assert block is not None
        round_ = peer.ordering.replica.round
        own = Signer(removed.keys[0], CHAIN)
        for place in range(4):
            body = vote_body(2, round_, bytes(32), 9)
            vote = Vote(2, round_, bytes(32), 9, place, b"", ())
            forged = replace(vote, signature=own.sign(SignKind.VOTE, 2, round_, body))
            with pytest.raises((VerificationError, RemoteProtocolError)):
                peer.take(number, Class.CONSENSUS, wire.encode_message(forged))
            with pytest.raises((VerificationError, RemoteProtocolError)):
                peer.take(place, Class.CONSENSUS, wire.encode_message(forged))
    assert not town.faults


async def test_former_member_gets_its_own_epochs_and_nothing_after(town: Town) -> None:
    members = (1, 2, 3, OTHER)
    town.admitted = {OTHER}
    sent: list[tuple[Class, bytes]] = []

    def tap(sender: int, peer: int, cls: Class, payload: bytes) -> bool:
        if sender == 1 and peer == 0:
            sent.append((cls, payload))
        return True

    async with running(town, *FIRST, OTHER):
        before = town.submit(0, 3)
        await decided(town, before, OTHER)
        elect(town, 1, *members)
        await in_epoch(town, 2, 0, *members)
        after = town.submit(2, 3)
        await decided(town, after, *members)
        engine = town.machines[1].engine
        number = town.machines[1].number_of(0)
        town.taps.append(tap)
        end = engine.identity.ended[0].height

        def ask(payload: bytes, cls: Class = Class.SYNC) -> list[bytes]:
            sent.clear()
            engine.take(number, cls, payload)
            return [payload for _, payload in sent]

        def blocks(epoch: int, height: int) -> list[bytes]:
            return ask(wire.encode_message(BlocksRequest(epoch, height, None, 8)))

        def batch(txid: bytes) -> list[bytes]:
            place = engine.chronicle.find(txid)
            assert place is not None
            found = engine.chronicle.ordered(place.height)
            assert found is not None
            digests = tuple(item.digest for item in found[0].payload)
            return ask(batch_wire.encode(Request(digests)))

        assert wire.decode_message(blocks(1, 1)[0]).blocks[0].height == 1  # type: ignore[union-attr]
        assert blocks(2, end + 1) == []
        assert isinstance(batch_wire.decode(batch(before[0])[0], 1 << 20), batch_wire.Response)
        assert isinstance(batch_wire.decode(batch(after[0])[0], 1 << 20), batch_wire.Absent)
        await trio.sleep(1)  # the same peer is told the same again only after half a second
        ask(wire.encode_message(Certificates(1, None, None, None)), Class.CONSENSUS)
        await trio.sleep(0.1)
        told = [wire.decode_message(payload) for _, payload in sent]
        assert Certificates(1, None, None, engine.identity.ended[0].certificate) in told
        assert ask(batch_wire.encode(Push(b"\x80", b"\x80")), Class.BATCH) == []


@pytest.mark.long
async def test_observer_that_pushes_or_votes_is_at_fault(town: Town) -> None:
    town.admitted = {OTHER}
    async with running(town, *FIRST, OTHER):
        engine = town.machines[0].engine
        number = town.machines[0].number_of(OTHER)
        with pytest.raises(RemoteProtocolError, match="no batches"):
            engine.take(number, Class.BATCH, batch_wire.encode(Push(b"\x80", b"\x80")))
        vote = Vote(1, 1, bytes(32), 1, 0, bytes(64), ())
        with pytest.raises(RemoteProtocolError, match="Vote"):
            engine.take(number, Class.CONSENSUS, wire.encode_message(vote))


@pytest.mark.long
async def test_replaced_machine_follows_while_the_new_one_votes(town: Town) -> None:
    old, new = town.machines[0], town.machines[OTHER]
    new.hold("agency-0", pair_of(90, KeyKind.VALIDATOR))
    town.admitted = {0, OTHER}
    async with running(town, *FIRST, OTHER):
        elect(town, 1, OTHER, 1, 2, 3)
        await in_epoch(town, 2, *FIRST, OTHER)
        assert (old.engine.votes, new.engine.votes) == (False, True)
        txids = town.submit(OTHER, 2)
        await decided(town, txids, *FIRST, OTHER)
        assert voted(new, 2)
        assert not voted(old, 2)


@pytest.mark.long
async def test_next_key_signs_from_the_epoch_on_that_names_it(town: Town) -> None:
    turning = town.machines[0]
    turning.hold(turning.own.agency, turning.keys[0], pair_of(91, KeyKind.VALIDATOR))
    async with running(town, *FIRST):
        txids = town.submit(0, 2)
        await decided(town, txids, *FIRST)
        assert turning.engine.signer.public == turning.keys[0].public
        elect(town, 1, *FIRST)
        await in_epoch(town, 2, *FIRST)
        assert turning.engine.signer.public == turning.keys[1].public
        txids = town.submit(0, 2)
        await decided(town, txids, *FIRST)
        turning.hold(turning.own.agency, *reversed(turning.keys))
        elect(town, 1, *FIRST)  # and back
        await in_epoch(town, 3, *FIRST)
        assert turning.engine.signer.public == turning.keys[1].public
        txids = town.submit(0, 2)
        await decided(town, txids, *FIRST)
    assert not town.faults


@pytest.mark.long
async def test_committee_grows_to_five_and_shrinks_again_under_work(town: Town) -> None:
    town.admitted = {OTHER}
    async with running(town, *FIRST, OTHER):
        txids = town.submit(0, 3)
        elect(town, 1, 0, 1, 2, 3, OTHER)
        txids += town.submit(1, 3) + town.submit(3, 3)
        await in_epoch(town, 2, *FIRST, OTHER)
        txids += town.submit(OTHER, 3)
        elect(town, 2, OTHER, 2, 1, 0)
        txids += town.submit(2, 3)
        await in_epoch(town, 3, 0, 1, 2, OTHER)
        town.admitted.add(3)
        town.meet(3)
        await decided(town, txids, *FIRST, OTHER)
