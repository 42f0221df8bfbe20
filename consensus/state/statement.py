"""What a proof takes from the bytes of a statement.

Not here: who signs statements, and the other places where their array stands (``hotstuff.wire``).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from consensus import codec
from consensus.hashing import H_STATEMENT

STATEMENT_BYTES_MAX: Final = 512
_SHAPE: Final = codec.array(
    codec.bytes32,  # chain
    codec.integer(1),  # epoch
    codec.count,  # round
    codec.count,  # height
    codec.bytes32,  # block id
    codec.count,  # time_ms
    codec.count,  # executor
    codec.bytes32,  # state_root
    codec.bytes32,  # results_root
    codec.bytes32,  # changes_root
    codec.bytes32,  # history_root
    codec.optional(codec.bytes32),  # next_committee_hash
)


class Summary(NamedTuple):
    """A statement as far as proofs need it. ``hash`` is its leaf in the history."""

    hash: bytes
    height: int
    time_ms: int
    state_root: bytes
    changes_root: bytes
    history_root: bytes


def read(data: bytes, path: str = "statement") -> Summary:
    """Return what the bytes of a statement say.

    Raises:
        DecodeError: not the canonical encoding of a statement.
    """
    found = codec.decode(data, _SHAPE, bytes_max=STATEMENT_BYTES_MAX, what=path)
    return Summary(H_STATEMENT(data), found[3], found[5], found[7], found[9], found[10])
