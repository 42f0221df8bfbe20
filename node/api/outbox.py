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
from node.bell import Bell
from node.network.framing import FrameWriter


class Outbox:
    """Answers ready to be sent."""

    def __init__(self, writer: FrameWriter) -> None:
        self._writer = writer
        self._bell = Bell()
        self._payloads: list[bytes] = []
        self._bytes = 0
        self._drained: trio.Event | None = None  # while somebody waits for room
        self._statements: dict[int, None] = {}

    def put(self, request_id: int, status: Status, result: Value) -> None:
        """Add one answer."""
        payload = answers.encode_answer(request_id, status, result)
        self._payloads.append(payload)
        self._bytes += len(payload)
        self._bell.ring()

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
            if self._drained is None:
                self._drained = trio.Event()
            await self._drained.wait()

    async def run(self) -> None:
        """Send what is put in, everything that waits in one write.

        Raises:
            ConnectionLost: the transport failed or the client does not read.
        """
        while True:
            await self._bell.heard()
            payloads, self._payloads = self._payloads, []
            await self._writer.send(protocol.frames(payloads))
            self._bytes -= sum(map(len, payloads))
            if self._drained is not None:
                self._drained.set()
                self._drained = None
