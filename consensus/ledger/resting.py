"""Leaves on which a judgement rests: while they are the same, it need not be made again.

Not here: the judgements that are kept (``authority``, ``delegation``).
"""

from __future__ import annotations

from typing import Any

from consensus.codec import Value
from consensus.ledger.view import View


def read_resting(view: View, reads: dict[bytes, bytes], space: str, components: list[Value]) -> Any:
    """Return the object of a single leaf, or None; ``reads`` notes its key path and value hash."""
    kh = view.paths(space, components)
    found = view.single(space, components, kh)
    reads[kh] = view.reads[kh]
    return None if found is None else found.value
