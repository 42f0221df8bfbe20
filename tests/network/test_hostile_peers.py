"""Peers that are strangers, and one that is a member and sends what no member may.

The registry's node is stopped and its keys are stolen; the three others must go on among
themselves, drop each bad link, count it, and need no more memory than before.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import trio

from consensus import codec
from consensus.hotstuff import wire as messages
from consensus.hotstuff.types import Certificates, CommitCert, QuorumCert, Vote
from consensus.ledger import batch
from consensus.ledger.transaction import Transaction
from node import batch_wire
from node.network import wire
from node.network.framing import pack
from node.network.wire import Class
from scripts.localnet import LocalNetwork
from tests.network.test_refusals import desk
from tests.network.town import (
    agreed,
    eventually,
    kill,
    memory_bytes,
    metric,
    start,
    status,
)
from tests.network.wire import LOST, Declined, Link, Thief, dial_context
from tests.network.work import Books

pytestmark = pytest.mark.process

STOLEN = "registry"
VICTIMS = ("social", "treasury", "integrity")
GROWTH_BYTES_MAX = 48 << 20
"""Room for what honest work keeps meanwhile; the attacks send more than this."""
FAULTS = "comity_peer_faults_total"
REJECTED = "comity_batches_rejected_total"

Attack = Callable[[Link, Thief], Awaitable[None]]


@pytest.fixture(scope="module")
def thief(own_town: LocalNetwork) -> Thief:
    kill(own_town, STOLEN)
    return Thief(own_town, STOLEN)


@pytest.fixture(scope="module")
def books() -> Books:
    return Books()


# --- what is sent --------------------------------------------------------------------------------


def data(payload: bytes, cls: Class = Class.CONSENSUS) -> Attack:
    return lambda link, thief: link.data(payload, cls)


def raw(content: bytes) -> Attack:
    return lambda link, thief: link.send(content)


def forged(change: Callable[[QuorumCert], QuorumCert]) -> Attack:
    """The victim's own quorum certificate, said of a later round and changed: one that would count.

    What a node has no use for, like one of a round that it is past, it drops without a check.
    """

    async def attack(link: Link, thief: Thief) -> None:
        assert link.certificates.high_qc is not None
        later = replace(link.certificates.high_qc, round=link_round(link))
        message = Certificates(1, change(later), None, None)
        await link.data(messages.encode_message(message))

    return attack


async def another_result(link: Link, thief: Thief) -> None:
    """The newest commit certificate, about another state."""
    true = link.certificates.commit_cert
    assert true is not None
    false = CommitCert(replace(true.statement, state_root=bytes(32)), true.signatures)
    await link.data(messages.encode_message(Certificates(1, None, None, false)))


async def vote_of_another(link: Link, thief: Thief) -> None:
    vote = messages.decode_message(thief.vote(link_round(link), bytes(32), 9))
    assert isinstance(vote, Vote)
    await link.data(messages.encode_message(replace(vote, validator=2)))


async def long_head(link: Link, thief: Thief) -> None:
    """True certificates, with the length of the outer array in two bytes instead of one."""
    true = messages.encode_message(link.certificates)
    await link.data(b"\x98" + bytes([true[0] & 0x1F]) + true[1:])


def link_round(link: Link) -> int:
    assert link.certificates.high_qc is not None
    return link.certificates.high_qc.round + 2


def batches(make: Callable[[Thief, Transaction], tuple[bytes, bytes]], paid: Transaction) -> Attack:
    async def attack(link: Link, thief: Thief) -> None:
        push = codec.encode([batch_wire.KIND_PUSH, *make(thief, paid)])
        await link.data(push, Class.BATCH)

    return attack


def of_items(
    thief: Thief, *items: Transaction, lane: int = 0, number: int = 1
) -> tuple[bytes, bytes]:
    public = batch.encode_public(thief.index, number, lane, items)
    return public, batch.encode_private(items)


def attacks(paid: Transaction) -> dict[str, list[tuple[str, Attack, str, dict[str, str]]]]:
    """Victim -> attacks in turn: what, how, and which metric with which labels counts it."""
    bad = {"peer": STOLEN, "code": "BAD_CERTIFICATE"}
    malformed = {"peer": STOLEN, "code": "MALFORMED"}
    too_large = {"peer": STOLEN, "code": "FRAME_TOO_LARGE"}
    unexpected = {"peer": STOLEN, "code": "UNEXPECTED_FRAME"}
    peer = {"peer": STOLEN}
    return {
        "social": [
            ("too few signatures", forged(fewer), FAULTS, bad),
            ("deep nesting", data(b"\x85\x05" + b"\x81" * 20_000), FAULTS, malformed),
            ("a length of 4 GiB", raw(b"\xff\xff\xff\xff" + bytes(1000)), FAULTS, too_large),
            ("a bad signature in a batch", batches(unsigned, paid), REJECTED, peer),
        ],
        "treasury": [
            ("one signer twice", forged(repeated), FAULTS, bad),
            ("a vote in another's name", vote_of_another, FAULTS, bad),
            ("a batch in the wrong lane", batches(other_lane, paid), REJECTED, peer),
            ("a long head", long_head, FAULTS, malformed),
        ],
        "integrity": [
            ("a foreign signer", forged(foreign), FAULTS, bad),
            ("another result", another_result, FAULTS, {"peer": STOLEN, "code": "BAD_SIGNATURE"}),
            ("an oversized batch", batches(oversized, paid), FAULTS, malformed),
            ("an unknown kind of frame", raw(pack(bytes([99, 1, 2]))), FAULTS, unexpected),
        ],
    }


def fewer(true: QuorumCert) -> QuorumCert:
    return replace(true, signatures=true.signatures[:-1])


def repeated(true: QuorumCert) -> QuorumCert:
    return replace(true, signatures=(true.signatures[0], *true.signatures[:-1]))


def foreign(true: QuorumCert) -> QuorumCert:
    return replace(true, signatures=(*true.signatures[:-1], (60, true.signatures[-1][1])))


def unsigned(thief: Thief, paid: Transaction) -> tuple[bytes, bytes]:
    return of_items(thief, paid.signed([bytes(64)]))


def other_lane(thief: Thief, paid: Transaction) -> tuple[bytes, bytes]:
    return of_items(thief, paid, lane=1)


def oversized(thief: Thief, paid: Transaction) -> tuple[bytes, bytes]:
    public, private = of_items(thief, paid)
    return public + bytes(1 << 20), private


# --- tests ---------------------------------------------------------------------------------------


async def test_strangers_and_liars_get_no_link(
    own_town: LocalNetwork, thief: Thief, tmp_path_factory: pytest.TempPathFactory
) -> None:
    town, victim = own_town, "social"
    port = town.member(victim).peer_port

    async def with_key(seed: bytes, name: str) -> bytes:
        """What the victim answers to somebody with this certificate; nothing, if it hangs up."""
        tcp = await trio.open_tcp_stream("127.0.0.1", port)
        stream = trio.SSLStream(tcp, dial_context(town, seed, name))
        try:
            await stream.send_all(pack(wire.encode_hello(thief.hello())))
            return bytes(await stream.receive_some())
        except LOST:
            return b""
        finally:
            await trio.aclose_forcefully(stream)

    assert await with_key(secrets.token_bytes(32), STOLEN) == b"", "a key of its own making"
    assert await with_key(thief.node.seed, "somebody") == b"", "a certificate of its own making"
    async with await trio.open_tcp_stream("127.0.0.1", port) as plain:
        await plain.send_all(b"GET / HTTP/1.1\r\n\r\n" * 100)
        with trio.fail_after(10):
            while await plain.receive_some():
                pass
    for hello, says in (
        (thief.hello(chain=bytes(32)), "OTHER_CHAIN"),
        (thief.hello(index=2), "NOT_A_MEMBER"),
    ):
        with pytest.raises(Declined, match=says):
            await thief.introduce(victim, hello)
    with pytest.raises(Declined, match="WRONG_DIRECTION"):
        await Thief(town, "integrity").introduce(victim)
    half = await thief.introduce(victim)
    await half.send((1000).to_bytes(4) + bytes(10))  # a frame that never ends
    await half.stream.aclose()
    async with thief.link(victim):
        pass  # which is no fault: the next link is welcome at once

    async def alone() -> bool:
        return bool((await status(town, victim))["peers"] == ["treasury", "integrity"])

    await eventually(alone, "the thief has no link any more")
    height, _ = await agreed(town, *VICTIMS)
    await agreed(town, *VICTIMS, height=height + 1)


async def test_floods_of_signed_votes_are_bounded_and_two_faces_are_seen(
    own_town: LocalNetwork, thief: Thief
) -> None:
    town = own_town
    victim = "treasury"
    before = memory_bytes(town, victim)
    seen = await metric(town, victim, "comity_consensus_equivocations_total")
    async with thief.link(victim) as link:
        far = link_round(link) + 1_000_000
        frame = pack(bytes([Class.CONSENSUS]) + thief.vote(far, bytes(32), 9))
        for _ in range(20):
            await link.send(frame * 1000)
        # The same slot twice, in rounds that the victim still minds.
        for round_ in range(link_round(link), link_round(link) + 200):
            for _ in range(2):
                await link.data(thief.vote(round_, secrets.token_bytes(32), 9))

        async def noticed() -> bool:
            return await metric(town, victim, "comity_consensus_equivocations_total") > seen

        await eventually(noticed, "the contradiction is counted")
        assert not link.ended.is_set(), "a link was closed for messages that are merely far ahead"
    assert memory_bytes(town, victim) - before < GROWTH_BYTES_MAX
    assert (await status(town, victim))["halted"] is None


async def test_what_no_member_may_send_costs_its_link_and_nothing_else(
    own_town: LocalNetwork, thief: Thief, books: Books
) -> None:
    town = own_town
    kill(town, *VICTIMS)
    await start(town, *VICTIMS)  # new processes, which this peer has not disappointed yet
    before = {victim: memory_bytes(town, victim) for victim in VICTIMS}
    async with desk(town) as d:
        unsigned_pay = await d.write("pay", [20, 21, 1])
        paid = unsigned_pay.transaction.signed([d.key.sign(unsigned_pay.message)])

        async def besiege(victim: str) -> None:
            for name, attack, counter, labels in attacks(paid)[victim]:
                counted = await metric(town, victim, counter, **labels)
                async with thief.link(victim) as link:
                    await attack(link, thief)
                    await link.dropped()

                async def more(was: float = counted) -> bool:
                    return await metric(town, victim, counter, **labels) > was  # noqa: B023

                await eventually(more, f"{victim} counts {name}")

        async with trio.open_nursery() as nursery:
            for victim in VICTIMS:
                nursery.start_soon(besiege, victim)
        assert (await d.send(await d.write("pay", [20, 21, 1]))).applied
    height, _ = await agreed(town, *VICTIMS)
    await agreed(town, *VICTIMS, height=height + 1)
    for victim in VICTIMS:
        assert "Traceback" not in town.log(victim)
        assert memory_bytes(town, victim) - before[victim] < GROWTH_BYTES_MAX
