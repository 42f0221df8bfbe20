"""Bounded tables of what a pure function gave, so that it need not be asked again.

A table changes only what a result costs: its key is all that the function sees.

Not here: what is worth a table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Table(dict[K, V]):
    """``table[key]`` is ``make(key)``, kept; the table is emptied when it is full.

    Args:
        make: a pure function.
        entries_max: entries kept.
    """

    __slots__ = ("entries_max", "make")

    def __init__(self, make: Callable[[K], V], entries_max: int) -> None:
        self.make = make
        self.entries_max = entries_max

    def __missing__(self, key: K) -> V:
        value = self.make(key)
        if len(self) >= self.entries_max:
            self.clear()
        self[key] = value
        return value
