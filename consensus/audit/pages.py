"""Heights as a node gives them to an auditor: pages of what it keeps, which prove nothing yet.

    page   [newest certified height, [audit height, ...]]      as in the frames of an audit stream

Not here: which page is asked for (``consensus.protocol``), and the checks (``replay``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consensus import codec
from consensus.codec import Value
from consensus.protocol import ANSWER_BYTES_MAX, HEIGHTS_MAX

_PAGE: Final = codec.array(
    codec.count, codec.list_of(codec.octets(low=1, high=ANSWER_BYTES_MAX), HEIGHTS_MAX)
)


@dataclass(frozen=True, slots=True)
class Page:
    """A node's newest certified height, and encoded heights (``stream.encode_height``)."""

    certified: int
    heights: tuple[bytes, ...]

    def to_value(self) -> Value:
        """Return the canonical array."""
        return [self.certified, [*self.heights]]


def read_page(result: Value) -> Page:
    """Return the page in an answer to ``blocks``. Raises DecodeError."""
    _PAGE(result, "blocks")
    return Page(result[0], tuple(result[1]))
