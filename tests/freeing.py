"""What leaves nothing behind that waits for the collector of cycles."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

OURS = ("consensus.", "node.")


@contextmanager
def freed(*kinds: type) -> Iterator[None]:
    """See that what is made in this block and not kept is freed by reference counts alone.

    Args:
        kinds: of which nothing that was made in it is there at its end, be it kept or not.
    """
    gc.freeze()  # what was there before is not looked at
    gc.disable()
    try:
        yield
        held = Counter(type(each).__name__ for each in gc.get_objects() if type(each) in kinds)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        types = map(type, gc.garbage)
        cyclic = Counter(each.__name__ for each in types if each.__module__.startswith(OURS))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        gc.unfreeze()
    assert (held, cyclic) == ({}, {})
