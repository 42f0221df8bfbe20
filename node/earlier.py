"""A record as it was at an earlier version, with the change that laid it so.

Versions only grow along the changes of a record, so the change is found by halving. A height may
have written a record more than once: then the versions in between were never in any state.

Not here: which versions there were (``node.past``), and who may see them (``node.api``).
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from consensus.state.record import decode_row
from node.api.backend import Earlier
from node.past import Past, Pruned

CHANGES_MAX: Final = 16_384
"""Changes of one record that are gone through: some hundredths of a second."""


def find(past: Past, kh: bytes, version: int, upto: int) -> Earlier | None:
    """Return the first row up to height ``upto`` that has a version; None if there is none.

    Raises:
        Pruned: it is not kept any more.

    Cost: some µs for each change, and up to 2 ms for each of a dozen rows. For a worker thread.
    """
    pruned: Pruned | None = None
    heights: list[int] = []
    try:
        heights += (each.height for each in islice(past.changes_of(kh, upto), CHANGES_MAX))
    except Pruned as error:
        pruned = error
    heights.reverse()
    low, high = 0, len(heights)
    found: bytes | None = None
    while low < high:
        middle = (low + high) // 2
        try:
            (row,) = past.rows_at(heights[middle], [kh])
        except Pruned as error:
            pruned, row = error, None
        at = 0 if row is None or not row.value else decode_row(row.value).version
        if row is not None and at >= version:
            high = middle
            found = row.value if at == version else None
        else:
            low = middle + 1
    if found is not None:
        change = past.change_path(heights[low], kh)
        return Earlier(
            found, change.height, change.count, change.index, change.previous, change.path
        )
    if pruned is not None:
        raise pruned
    return None
