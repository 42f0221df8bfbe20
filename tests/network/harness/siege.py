"""Attacks on one node that go on until they are stopped: ways to be a burden, within the rules
where rules can be kept, at as high a rate as one process can.

    python -m tests.network.harness.siege ATTACK FOLDER VICTIM KEY...

``FOLDER`` is a network, ``KEY`` files of clients that the attacker has. As a process of its own it
leaves those alone who measure what others still get (``scripts/bench hostile``).

Not here: breaches that end a connection at once (``test_hostile_clients``, ``test_hostile_peers``).
"""

from __future__ import annotations

import contextlib
import secrets
import sys
import tomllib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from comity import drafting, keys, tls
from comity.client import Client
from comity.founding import CONFIG_NAME, GENESIS_NAME, Member
from comity.keys import Key
from consensus import codec, genesis, protocol
from consensus.hotstuff import wire as messages
from consensus.hotstuff.types import BlocksRequest
from consensus.ledger.transaction import assemble
from consensus.protocol import (
    Get,
    GetDecisions,
    GetStatus,
    Item,
    Request,
    StateKey,
    Stream,
    Submit,
    Subscribe,
)
from node import batch_wire
from node.network.framing import pack
from node.network.wire import Class
from scripts.benchmark_load import transfer
from scripts.localnet import LocalNetwork
from tests.network.guest import ELSEWHERE, Guest, guest
from tests.network.wire import LOST, Thief, dial_context

CONNECTIONS = 300
TALKERS = 8
AT_ONCE = 32
SILENT_SECONDS = 1.0
STOLEN = "registry"
"""Whose keys the attacks on peers use; its own node must not run."""


@dataclass
class Siege:
    """Who attacks whom."""

    town: LocalNetwork
    victim: str
    keys: Sequence[Key]

    async def crowd(self, count: int, one: Callable[[], Awaitable[None]]) -> None:
        """Have so many do the same for ever, each again as soon as it is thrown out."""

        async def again() -> None:
            while True:
                try:
                    await one()
                except* (*LOST, trio.TooSlowError, AssertionError):
                    pass
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(again)

    async def tcp(self, port: int) -> trio.SocketStream:
        """A connection from where the hostile are."""
        return await trio.open_tcp_stream("127.0.0.1", port, local_address=ELSEWHERE)

    @property
    def client_port(self) -> int:
        """Of the victim."""
        return self.town.member(self.victim).client_port

    # --- the client port ----------------------------------------------------------------------

    async def handshakes(self) -> None:
        """Connect, shake hands, leave; as often as it goes."""
        committee = genesis.decode(self.town.genesis).committee
        certificate = committee.validators[self.town.agencies.index(self.victim)].certificate
        context = tls.client_context([certificate])

        async def one() -> None:
            async with await self.tcp(self.client_port) as tcp:
                await trio.SSLStream(tcp, context).do_handshake()

        await self.crowd(AT_ONCE, one)

    async def silent(self) -> None:
        """Connections that say nothing at all."""

        async def one() -> None:
            async with await self.tcp(self.client_port) as stream:
                await stream.receive_some()

        await self.crowd(CONNECTIONS, one)

    async def trickle(self) -> None:
        """A frame of a thousand bytes, one byte a second."""

        async def one() -> None:
            async with guest(self.town, self.victim) as g:
                await g.greet()
                await g.stream.send_all((1000).to_bytes(4))
                while True:
                    await g.stream.send_all(b"\x80")
                    await trio.sleep(SILENT_SECONDS)

        await self.crowd(100, one)

    async def talk(self, requests: Sequence[Request], key: Key | None, reading: bool) -> None:
        """Ask the same again and again on a few connections, answers read or not."""

        async def one() -> None:
            async with guest(self.town, self.victim) as g, trio.open_nursery() as nursery:
                await g.greet(key)
                if reading:
                    nursery.start_soon(_drain, g, nursery.cancel_scope)
                number = 2
                while True:
                    burst = []
                    for request in requests * (64 // len(requests)):
                        burst.append(pack(_encoded(number, request)))
                        number += 1
                    await g.stream.send_all(b"".join(burst))

        await self.crowd(TALKERS, one)

    async def statuses(self) -> None:
        """The cheapest request there is, by nobody."""
        await self.talk([GetStatus()], None, True)

    async def proofs(self) -> None:
        """Reads of as many accounts as one request may name."""
        wanted = tuple(StateKey("account", ("wallet", number)) for number in range(64))
        await self.talk([Get(0, wanted)], self.keys[0], True)

    async def doors(self) -> None:
        """Ask, as nobody, for what nobody may see."""
        await self.talk([GetDecisions(1, 2)], None, True)

    async def unread(self) -> None:
        """Subscriptions from the beginning and long answers, none of which is read."""
        asked: list[Request] = [Subscribe(Stream.DECISIONS, 1)] * 4
        await self.talk([*asked, *[GetDecisions(1, 64)] * 4], self.keys[0], False)

    # --- transactions -------------------------------------------------------------------------

    async def forgeries(self) -> None:
        """Well-formed transactions with signatures that do not verify."""
        await self.submitted(forged=True)

    async def authors(self) -> None:
        """Valid transactions of many authors, more than the network takes."""
        await self.submitted(forged=False)

    async def submitted(self, *, forged: bool) -> None:
        """Submit made transactions of every key, without waiting for decisions."""
        async with Client.connect(
            self.town.genesis, servers=[self.victim], key=self.keys[0]
        ) as client:
            rules = await client.rules()
        books = [0] * len(self.keys)

        def made(author: int, count: int) -> tuple[tuple[Item, bytes], ...]:
            items = []
            key = self.keys[author]
            for _ in range(count):
                books[author] += 1
                unsigned = drafting.build(
                    genesis.chain_id(self.town.genesis),
                    rules.book,
                    [transfer(books[author])],
                    author=key.public,
                    sequence=books[author],
                    now_ms=rules.time_ms,
                    not_after_ms=rules.time_ms + 3_600_000,
                    seed=secrets.token_bytes(32),
                )
                signature = secrets.token_bytes(64) if forged else key.sign(unsigned.message)
                items.append((Item.ENVELOPE, assemble(unsigned, [signature])))
            return tuple(items)

        prepared = [made(author, 64) for author in range(len(self.keys))] if forged else []

        async def one(author: int) -> None:
            async with guest(self.town, self.victim) as g, trio.open_nursery() as nursery:
                await g.greet(self.keys[author])
                nursery.start_soon(_drain, g, nursery.cancel_scope)
                number = 2
                while True:
                    items = prepared[author] if forged else made(author, 32)
                    await g.stream.send_all(pack(_encoded(number, Submit(False, items))))
                    number += 1

        turns = iter(range(10**9))
        await self.crowd(min(len(self.keys), AT_ONCE), lambda: one(next(turns) % len(self.keys)))

    # --- telemetry ----------------------------------------------------------------------------

    async def scrapes(self) -> None:
        """Everything the metrics port shows, again and again, and many who ask and never end."""
        port = self.town.member(self.victim).telemetry_port

        async def scrape() -> None:
            async with await self.tcp(port) as stream:
                await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 16)
                while await stream.receive_some():
                    pass

        async def begin() -> None:
            async with await self.tcp(port) as stream:
                await stream.send_all(b"GET /metrics HTTP/1.1\r\nX: ")
                while True:
                    await stream.send_all(b"x")
                    await trio.sleep(SILENT_SECONDS)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.crowd, TALKERS, scrape)
            nursery.start_soon(self.crowd, CONNECTIONS, begin)

    # --- the peer port ------------------------------------------------------------------------

    async def strangers(self) -> None:
        """Handshakes at the peer port with a certificate of one's own making."""
        context = dial_context(self.town, secrets.token_bytes(32), STOLEN)

        async def one() -> None:
            async with await self.tcp(self.town.member(self.victim).peer_port) as tcp:
                stream = trio.SSLStream(tcp, context)
                await stream.do_handshake()
                await stream.receive_some()

        await self.crowd(AT_ONCE, one)

    async def besieged(self, frames: Callable[[Thief], list[tuple[Class, bytes]]]) -> None:
        """Send frames of a member at full speed over an introduced link."""
        thief = Thief(self.town, STOLEN)

        async def one() -> None:
            async with thief.link(self.victim) as link:
                burst = b"".join(pack(bytes([cls]) + data) for cls, data in frames(thief))
                while not link.ended.is_set():
                    await link.stream.send_all(burst)

        await self.crowd(1, one)

    async def votes(self) -> None:
        """True votes of rounds to come."""
        await self.besieged(
            lambda thief: [
                (Class.CONSENSUS, thief.vote(10**6 + n, secrets.token_bytes(32), 9))
                for n in range(100)
            ]
        )

    async def blocks(self) -> None:
        """Requests for blocks, each of which is answered with many."""
        request = messages.encode_message(BlocksRequest(1, 1, None, 32))
        await self.besieged(lambda thief: [(Class.SYNC, request)] * 100)

    async def batches(self) -> None:
        """Requests for batches that nobody has."""
        await self.besieged(
            lambda thief: [
                (
                    Class.BATCH,
                    codec.encode(
                        [batch_wire.KIND_REQUEST, [secrets.token_bytes(32) for _ in range(64)]]
                    ),
                )
                for _ in range(20)
            ]
        )


CLIENTS = ("handshakes", "silent", "trickle", "statuses", "proofs", "unread", "forgeries",
           "authors", "scrapes", "strangers")  # fmt: skip
PEERS = ("votes", "blocks", "batches")


def _encoded(number: int, request: Request) -> bytes:
    return protocol.encode_request(number, request)


async def _drain(g: Guest, scope: trio.CancelScope) -> None:
    """Read and forget until the node hangs up."""
    with contextlib.suppress(*LOST):
        while await g.reader.read():
            pass
    scope.cancel()


def opened(folder: Path) -> LocalNetwork:
    """The network in a folder, whoever runs its nodes."""
    committee = genesis.decode((folder / GENESIS_NAME).read_bytes()).committee
    members = []
    for row in committee.validators:
        config = tomllib.loads((folder / row.agency / CONFIG_NAME).read_text(encoding="utf-8"))
        telemetry = int(config["listen"]["telemetry"].rpartition(":")[2])
        ports = (row.peer_port, row.client_port, telemetry)
        members.append(Member(row.agency, row.agency, row.peer_host, *ports))
    return LocalNetwork(folder, members)


def main(words: Sequence[str]) -> None:
    """Attack until killed."""
    attack, folder, victim, *files = words
    siege = Siege(opened(Path(folder)), victim, [keys.load(Path(file)) for file in files])
    trio.run(getattr(siege, attack))


if __name__ == "__main__":
    main(sys.argv[1:])
