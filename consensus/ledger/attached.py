"""Rows of leaves that are a root, with what the root proves beside them.

So lie rule sets, whose parts make the root, and the drafts of proposals, whose txid it is: what is
long is written once, and hashed only by its root.

    row = 2 ‖ row of the single leaf ‖ attachment

Not here: what an attachment holds, and whether the root is its own (whoever takes a row from
somebody else computes it).
"""

from __future__ import annotations

from typing import Final

from consensus.errors import invariant

ATTACHED: Final = 2
"""First byte of a row with an attachment; rows of records begin with 1, of single leaves with 0."""
_ROOT_BYTES: Final = 34
_HEAD_BYTES: Final = 24
ATTACHMENT_AT: Final = 1 + _HEAD_BYTES + _ROOT_BYTES
"""Where the attachment begins."""


def join_attached(single_row: bytes, attachment: bytes) -> bytes:
    """Return the row of a leaf whose value is a 32-byte root, with what the root proves.

    So lie rule sets, and the drafts of proposals.
    """
    invariant(len(single_row) == _HEAD_BYTES + _ROOT_BYTES, "the leaf is no root")
    return bytes([ATTACHED]) + single_row + attachment


def split_attached(row: bytes) -> tuple[bytes, bytes]:
    """Return root and attachment of a row that ``join_attached`` made."""
    end = ATTACHMENT_AT
    invariant(len(row) > end and row[0] == ATTACHED, "not the row of a rule set")
    return row[end - 32 : end], row[end:]


def cut_attached(row: bytes) -> tuple[bytes, bytes]:
    """Return the single leaf's own row and the attachment of one that ``join_attached`` made."""
    end = ATTACHMENT_AT
    invariant(len(row) > end and row[0] == ATTACHED, "not a row with an attachment")
    return row[1:end], row[end:]
