"""How a node's processes share a machine: few collections, few changes between processes.

Not here: which work is done in which process (``runtime``, ``verifier``).
"""

from __future__ import annotations

import contextlib
import gc
import os
from typing import Final

GC_ALLOCATIONS: Final = 50_000
"""Objects between two searches for reference cycles, of which little here makes any; default 700."""


def settle() -> None:
    """Set this process up for steady work; call it once, at the start.

    Its turns on a processor become longer (SCHED_BATCH, sched(7)): who has just been woken does not
    take the processor from it at once, so caches stay warm. Where the system has no such policy or
    forbids it, nothing changes.
    """
    gc.set_threshold(GC_ALLOCATIONS)
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
