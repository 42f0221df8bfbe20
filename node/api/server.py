"""The client port: who may connect, who waits for what, and what the runtime tells clients.

``ApiServer.run`` serves a listener. The runtime calls ``certified`` for every height in order and
``lapsed`` for transactions that leave the pool undecided; both are quick and never block. All
receipts of a block leave in one event a connection, with one path.

Not here: one client's requests (``connection``), the bounds' values (``limits``).
"""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import trio

from consensus import answers, protocol
from consensus.protocol import Status
from consensus.release import minor_of
from consensus.state.merkle import RESULTS
from node.api.backend import ApiBackend, CertifiedBlock
from node.api.connection import RECEIPTS_BYTES_MAX, Connection, Waiter
from node.api.limits import ApiLimits, ByteBudget, Tally
from node.network.framing import FrameReader, FrameWriter
from node.network.transport import TlsStream

Found = list[tuple[int, Waiter]]
"""Indices of a block's decisions, each with one who waits for it."""

LINGER_SECONDS_MAX: Final = 1.0
"""How long a client that broke the protocol is still read from, and ignored."""
_LOST: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError, ssl.SSLError)


class ApiServer:
    """Serves clients of one node.

    Args:
        backend: the node.
        chain: of the network.
        node_key: the public key of this node's certificate.
        limits: bounds of the port.
        context: TLS of the port (``node.network.tls.client_server_context``); None serves
            streams that the caller has secured, as tests do.
        random_bytes: fresh randomness, e.g. ``secrets.token_bytes``.
        finished: is told of each request that was answered in full, whether it waited for
            decisions, and after how many seconds.
    """

    def __init__(
        self,
        backend: ApiBackend,
        chain: bytes,
        node_key: bytes,
        limits: ApiLimits,
        context: ssl.SSLContext | None,
        random_bytes: Callable[[int], bytes],
        finished: Callable[[bool, float], None] = lambda decides, seconds: None,
    ) -> None:
        self.finished = finished
        self.backend = backend
        self.chain = chain
        self.node_key = node_key
        self.limits = limits
        self.requests: Counter[tuple[str, Status]] = Counter()
        """Answers by method and status, for telemetry."""
        self.cut: Counter[str] = Counter()
        """Connections that this side ended, by reason: see ``comity_client_cut_total``."""
        self.greeted: Counter[int] = Counter()
        """Hellos of this version of the protocol, by minor version."""
        self._context = context
        self._random_bytes = random_bytes
        self._connections: dict[Connection, None] = {}
        self._waiting: dict[bytes, list[Waiter]] = {}
        self._addresses = Tally(limits.connections_max, limits.connections_per_address_max)
        self._keys = Tally(limits.connections_max, limits.connections_per_key_max)
        self._counts = Tally(limits.transactions_waiting_max, limits.requests_in_flight_max)
        self._bytes = Tally(
            limits.bytes_in_flight_max * 16,
            limits.bytes_in_flight_max,
        )
        self._budget = ByteBudget(limits.bytes_per_second_max, limits.bytes_burst_max)
        self._accepting = True

    @property
    def sessions(self) -> int:
        """Open connections."""
        return len(self._addresses)

    @property
    def waiting(self) -> int:
        """Transactions that clients wait for."""
        return len(self._waiting)

    async def run(self, listeners: Sequence[trio.SocketListener]) -> None:
        """Serve until cancelled."""
        await trio.serve_listeners(self._accept, list(listeners))

    async def serve(self, stream: trio.abc.Stream, address: str) -> None:
        """Serve one client over a stream until it leaves or is cut; the stream is closed."""
        if not self._accepting or not self._addresses.take(address):
            self.cut["crowded"] += self._accepting
            await trio.aclose_forcefully(stream)
            return
        try:
            await self._converse(stream, address)
        except _LOST:
            pass  # the client went away; whatever it waited for is decided all the same
        finally:
            self._addresses.add(address, -1)
            await trio.aclose_forcefully(stream)

    def stop_accepting(self) -> None:
        """Refuse connections from now on; those that are open go on."""
        self._accepting = False

    def close(self) -> None:
        """End all connections."""
        self.stop_accepting()
        for connection in self._connections:
            connection.stop()

    # --- what the runtime tells ---------------------------------------------------------------

    def certified(self, block: CertifiedBlock) -> None:
        """Send the receipts of a certified height to all who wait, and wake subscriptions.

        Call it for every height, in order, once ``backend`` answers for that height.

        Cost: about 0.2 µs a decision, and a few µs for each that somebody waits for.
        """
        found: dict[Connection, Found] = {}
        if self._waiting:
            waiting = self._waiting
            for index, txid in enumerate(block.txids):
                for waiter in waiting.pop(txid, ()):
                    waiter[0].txids.discard(txid)
                    found.setdefault(waiter[0], []).append((index, waiter))
        parts = [
            (connection, part) for connection, rows in found.items() for part in _parts(block, rows)
        ]
        if parts:
            indices = [[index for index, _ in part] for _, part in parts]
            paths = RESULTS.multi_paths(block.roots, indices)
            for (connection, part), path in zip(parts, paths, strict=True):
                connection.receipts(block, part, path)
        for connection in self._connections:
            connection.height_certified()

    def lapsed(self, txids: Sequence[bytes]) -> None:
        """Tell all who wait that these left the pool undecided, past their ``not_after``."""
        for txid in txids:
            for connection, request_id, item, position in self._waiting.pop(txid, ()):
                connection.txids.discard(txid)
                connection.lapse(request_id, item, position)

    # --- what connections ask -----------------------------------------------------------------

    def proved(self, connection: Connection, key: bytes) -> bool:
        """Count a connection under the key it proved; False when the key has too many."""
        return self._keys.take(key)

    def spend(self, connection: Connection, count_bytes: int) -> float:
        """Charge received bytes and return how long to pause reading, in seconds."""
        return self._budget.spend(connection.holder, count_bytes, trio.current_time())

    def take_on(self, connection: Connection, count: int, count_bytes: int) -> bool:
        """Count requests and bytes in flight; False if a connection may not have as many more."""
        holder = connection.holder
        if not (self._counts.room(holder, count) and self._bytes.room(holder, count_bytes)):
            return False
        self._counts.add(holder, count)
        self._bytes.add(holder, count_bytes)
        return True

    def let_go(self, connection: Connection, count: int, count_bytes: int) -> None:
        """Count that so many are answered."""
        self._counts.add(connection.holder, -count)
        self._bytes.add(connection.holder, -count_bytes)

    def wait(self, txid: bytes, waiter: Waiter) -> None:
        """Have a waiter told of a transaction's certified decision."""
        self._waiting.setdefault(txid, []).append(waiter)

    def answered(self, method: str, status: Status) -> None:
        """Count an answer."""
        self.requests[method, status] += 1

    # --- connections --------------------------------------------------------------------------

    async def _accept(self, stream: trio.SocketStream) -> None:
        try:
            address = str(stream.socket.getpeername()[0])
        except OSError:
            await trio.aclose_forcefully(stream)
            return
        if self._context is None:
            await self.serve(stream, address)
        else:
            tls = TlsStream(stream, self._context, server_side=True)
            await self.serve(tls, address)

    async def _converse(self, stream: trio.abc.Stream, address: str) -> None:
        limits = self.limits
        if isinstance(stream, TlsStream):
            shaken = False
            with trio.move_on_after(limits.hello_seconds_max), suppress(*_LOST):
                await stream.do_handshake()
                shaken = True
            if not shaken:
                self.cut["handshake"] += 1
                return
        connection = Connection(
            self,
            FrameReader(stream, limits.unproved_frame_bytes_max, limits.frame_seconds_max),
            FrameWriter(stream, limits.send_seconds_max),
            address,
            self._random_bytes(protocol.NONCE_BYTES),
            minor_of(stream.protocol()) if isinstance(stream, TlsStream) else 0,
        )
        self._connections[connection] = None
        try:
            await connection.run()
        finally:
            self._forget(connection)
        if connection.closing:
            # Closing with unread bytes resets the connection, and the last answer goes with it.
            with trio.move_on_after(LINGER_SECONDS_MAX):
                while await stream.receive_some():
                    pass

    def _forget(self, connection: Connection) -> None:
        del self._connections[connection]
        if connection.key:
            self._keys.add(connection.key, -1)
        for txid in connection.txids:
            others = [w for w in self._waiting.get(txid, ()) if w[0] is not connection]
            if others:
                self._waiting[txid] = others
            else:
                self._waiting.pop(txid, None)
        connection.discharge()


def _parts(block: CertifiedBlock, rows: Found) -> list[Found]:
    """Return ``rows`` cut so that each part makes one event of bounded size."""
    parts: list[Found] = []
    room = 0
    for row in rows:
        size = len(block.decisions[row[0]])
        if not parts or size > room or len(parts[-1]) >= answers.RECEIPTS_MAX:
            parts.append([])
            room = RECEIPTS_BYTES_MAX
        room -= size
        parts[-1].append(row)
    return parts
