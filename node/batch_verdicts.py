"""What the batch store says of a batch that arrives, and of the batches that a block names.

Not here: how it comes to that (``batches``).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Drop(enum.Enum):
    """Why a batch was not even looked into. The second value: the sender is at fault."""

    KNOWN = ("it is held, or was delivered", False)
    IN_CHECK = ("it is being checked", False)
    UNASKED = ("it is no answer to a question", False)
    NO_ROOM = ("as many batches of its origin or sender wait as may wait", False)
    TOO_FAR = ("its number is too far ahead", False)
    REFUSED = ("it was refused before", True)
    ELSEWHERE = ("it is of another epoch", False)
    MALFORMED = ("its header cannot be read", True)
    FOREIGN = ("its origin is not who sent it", True)
    SECOND = ("its origin gave that number to another batch", False)  # or lost its log's end

    @property
    def sentence(self) -> str:
        """For the log."""
        return self.value[0]

    @property
    def fault(self) -> bool:
        """Whether an honest sender never does that."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Verify:
    """Have a worker check this batch; then call ``checked`` or ``failed``."""

    sender: int
    digest: bytes
    public: bytes
    private: bytes


class Payload(enum.Enum):
    """What is known of a block's batches."""

    COMPLETE = "all are held"
    MISSING = "some are being fetched"
    INVALID = "one is invalid, not what the block says, or skips numbers; the block gets no vote"
