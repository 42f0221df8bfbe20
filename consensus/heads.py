"""The heads of untrusted CBOR, walked through without making anything of them.

A parser makes an object of each item, and of an empty array of one byte one of 64 bytes: a file of
64 MiB could ask for 4 GiB. What may be long is therefore counted first. The same walk finds the
first byte at which something is wrong, for whoever has to look at a file that no parser takes.

Not here: values, shapes, and what is canonical (``codec``). Source: RFC 8949 §3.
"""

from __future__ import annotations

from typing import Final, NamedTuple

UNCOUNTED_BYTES: Final = 2**20
"""What is no longer than this is not counted: its items fit 64 MiB, however many there are."""
LOOKED_AT_MAX: Final = 2**17
"""Heads among which a fault is looked for; 30 ms."""


class Fault(NamedTuple):
    """Where bytes stop being CBOR as it is accepted here, and why."""

    offset: int
    why: str

    def __str__(self) -> str:
        return f"{self.why} at byte {self.offset}"


def first_fault(data: bytes, depth_max: int, heads_max: int = LOOKED_AT_MAX) -> Fault | None:
    """Return what is first wrong with the heads of one item that fills ``data``.

    None: nothing among the first ``heads_max``. The keys of maps are not compared.
    """
    found = _walk(data, depth_max, heads_max)
    return found if isinstance(found, Fault) else None


def is_crowded(data: bytes, depth_max: int, items_max: int) -> bool:
    """Return whether ``data`` has more items than ``items_max``, before anything is wrong with it.

    Cost: about 0.2 µs an item, so at most that of ``items_max``; nothing for short data.
    """
    if len(data) <= UNCOUNTED_BYTES:
        return False
    found = _walk(data, depth_max, items_max + 1)
    return not isinstance(found, Fault) and found > items_max


def _walk(data: bytes, depth_max: int, heads_max: int) -> Fault | int:
    """Return the first fault; without one the number of heads, at most ``heads_max``."""
    size, at, count = len(data), 0, 0
    due = 1
    outer: list[int] = []
    while due or outer:
        if not due:
            due = outer.pop()
            continue
        if count == heads_max:
            return count
        if at >= size:
            return Fault(at, "it ends too early")
        due -= 1
        count += 1
        begin, head = at, data[at]
        at += 1
        argument = head & 31
        if argument > 23:
            if argument > 27:
                return Fault(begin, "a length that is left open, or a head that means nothing")
            width = 1 << (argument - 24)
            if at + width > size:
                return Fault(begin, "it ends too early")
            argument = int.from_bytes(data[at : at + width], "big")
            at += width
        major = head >> 5
        if major < 2:
            continue
        if major == 6:
            return Fault(begin, "a tag")
        if major == 7:
            if head not in _SIMPLE:
                return Fault(begin, "a number with a point, or a simple value")
            continue
        if major == 5:
            argument *= 2
        if argument > size - at:
            what = "bytes" if major < 4 else "items"
            return Fault(begin, f"{what} announced: {argument}, bytes left: {size - at}")
        if major < 4:
            at += argument
            if major == 3 and not _is_text(data[at - argument : at]):
                return Fault(begin, "text that is no UTF-8")
            continue
        outer.append(due)
        due = argument
        if len(outer) > depth_max:
            return Fault(begin, f"arrays inside arrays, more than {depth_max} deep")
    return Fault(at, f"bytes too many: {size - at}") if at < size else count


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


_SIMPLE: Final = frozenset({0xF4, 0xF5, 0xF6})
"""False, true and null."""
