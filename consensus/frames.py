"""Frames of the client protocol: a length and a payload. Pure: bytes in, payloads out.

    frame = length (4 bytes, big-endian) ‖ payload

Not here: what payloads say (``protocol``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from consensus.errors import RemoteProtocolError, invariant

LENGTH_BYTES: Final = 4
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
"""Longest payload of all: that of an answer."""

_LENGTH: Final = struct.Struct(">I")


class FrameSplitter:
    """Cuts a byte stream into payloads. Pure: bytes in, payloads out.

    Args:
        payload_bytes_max: longest payload accepted.

    Memory: at most one payload and what was fed last.
    """

    __slots__ = ("_buffer", "_payload_bytes_max")

    def __init__(self, payload_bytes_max: int) -> None:
        self._buffer = bytearray()
        self._payload_bytes_max = payload_bytes_max

    def feed(self, data: bytes) -> list[bytes]:
        """Return the payloads that ``data`` completes.

        Raises:
            RemoteProtocolError: an empty frame, or one beyond the limit.
        """
        buffer = self._buffer
        buffer += data
        out: list[bytes] = []
        start = 0
        end = len(buffer)
        while end - start >= LENGTH_BYTES:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if not 0 < length <= self._payload_bytes_max:
                raise RemoteProtocolError(
                    f"a frame of {length} bytes; allowed are 1..{self._payload_bytes_max}"
                )
            stop = start + LENGTH_BYTES + length
            if stop > end:
                break
            out.append(bytes(buffer[start + LENGTH_BYTES : stop]))
            start = stop
        del buffer[:start]
        return out


def frames(payloads: Iterable[bytes]) -> bytes:
    """Return the payloads as frames, one after the other."""
    parts: list[bytes] = []
    for payload in payloads:
        invariant(0 < len(payload) <= ANSWER_BYTES_MAX, "a frame of ours is out of bounds")
        parts += (_LENGTH.pack(len(payload)), payload)
    return b"".join(parts)
