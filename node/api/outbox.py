"""What waits to be sent to one client, and the one task that sends it.

Evidence of a height goes out before the first answer that rests on it, and again only when it is no
longer among the last STATEMENTS_KEPT sent (``consensus.protocol``).
"""

from __future__ import annotations

import trio

from consensus import answers, protocol
from consensus.answers import StatementEvidence
from consensus.codec import Value
from consensus.protocol import Status
from node.network.framing import FrameWriter


class Bell:
    """Wakes the one task that waits for it; rung before, the next wait returns at once."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = trio.Event()

    def ring(self) -> None:
        """Wake the waiting task, now or when it next waits."""
        self._event.set()

    async def heard(self) -> None:
        """Wait until it was rung since the last time."""
        await self._event.wait()
        self._event = trio.Event()


class Outbox:
    """Answers ready to be sent. Whoever puts some in rings ``bell`` once at the end."""

    def __init__(self, writer: FrameWriter) -> None:
        self.bell = Bell()
        self._writer = writer
        self._payloads: list[bytes] = []
        self._bytes = 0
        self._drained = trio.Event()
        self._statements: dict[int, None] = {}

    def put(self, request_id: int, status: Status, result: Value) -> None:
        """Add one answer."""
        payload = answers.encode_answer(request_id, status, result)
        self._payloads.append(payload)
        self._bytes += len(payload)

    def statement(self, height: int, evidence: StatementEvidence) -> None:
        """Add the evidence of a height unless the client remembers it."""
        if height in self._statements:
            return
        self._statements[height] = None
        if len(self._statements) > protocol.STATEMENTS_KEPT:
            del self._statements[next(iter(self._statements))]
        self.put(0, Status.EVENT, evidence.to_value())

    async def below(self, bytes_max: int) -> None:
        """Wait until at most this many bytes wait."""
        while self._bytes > bytes_max:
            await self._drained.wait()

    async def run(self) -> None:
        """Send what is put in, everything that waits in one write.

        Raises:
            ConnectionLost: the transport failed or the client does not read.
        """
        while True:
            await self.bell.heard()
            payloads, self._payloads = self._payloads, []
            size = sum(map(len, payloads))
            await self._writer.write(payloads)
            self._bytes -= size
            self._drained.set()
            self._drained = trio.Event()
