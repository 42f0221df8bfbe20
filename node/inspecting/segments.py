"""A stopped node's log, segment by segment: what is in it, where it ends, where it is damaged.

What a start would cut (a torn tail) and what it would refuse (damage) are told apart as
``Log.open`` does. Behind damage the entries are looked for from the next group header on, so as
much is seen as can be; no start would believe them.

Not here: what entries mean to a start (``forecast``).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from node.errors import DamagedLogError, NewerFormatError
from node.storage import segment
from node.storage.disk import SYSTEM_DISK
from node.storage.kinds import Kind
from node.storage.segment import Header, Window

OnEntry = Callable[[int, int, bytes, bool], None]
"""``(offset, kind, payload, whether it lies behind damage)``."""
ZEROS: Final = b"\0"
HEADER_DAMAGED: Final = "its header does not check"


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that were known to be on disk and are not what was written, from ``offset`` on."""

    offset: int
    segment: str
    what: str


@dataclass(frozen=True, slots=True)
class SegmentReport:
    """One file of the log. ``entries`` are counted by kind; ``end`` is where they end."""

    name: str
    start: int
    end: int
    size_bytes: int
    format: int | None
    entries: dict[str, int]


@dataclass(slots=True)
class LogReport:
    """The whole log.

    Args:
        identity, chain: as its first readable segment says; empty if none does.
        start, end: offsets of the first entry and of the next one, as a start would find them.
        torn_bytes: behind the end, of a group that was under way: a start cuts them.
        reserved_bytes: room taken in advance, zeros.
        damage: what a start would refuse; its first one counts.
        problem: why the log cannot be read any further, with its code; empty if it can.
        other_segments: names of segments that are of another log or network.
    """

    present: bool = False
    identity: bytes = b""
    chain: bytes = b""
    start: int = 0
    end: int = 0
    torn_bytes: int = 0
    reserved_bytes: int = 0
    segments: list[SegmentReport] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    other_segments: list[str] = field(default_factory=list)
    problem: tuple[str, str] | None = None


def read(folder: Path, on_entry: OnEntry) -> LogReport:
    """Return what the log in ``folder`` holds; entries are given as they come, in order.

    Cost: one pass over the files: about a second for a GiB.
    """
    report = LogReport()
    try:
        names = [name for name in SYSTEM_DISK.names(folder) if segment.is_segment(name)]
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            report.problem = ("LOG", f"cannot list {folder}: {error.strerror}")
        return report
    report.present = bool(names)
    for at, name in enumerate(names):
        following = segment.base_of(names[at + 1]) if at + 1 < len(names) else None
        try:
            _one(report, folder / name, following, on_entry)
        except OSError as error:
            report.problem = report.problem or ("LOG", f"cannot read {name}: {error.strerror}")
    if names:
        report.start = segment.base_of(names[0])
    return report


def _one(report: LogReport, path: Path, following: int | None, on_entry: OnEntry) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        name, size = path.name, os.fstat(handle).st_size
        try:
            header = segment.read_header(SYSTEM_DISK.read(handle, segment.HEADER_BYTES, 0), name)
        except DamagedLogError as error:
            report.damage.append(Damage(error.offset, name, HEADER_DAMAGED))
            report.segments.append(
                SegmentReport(name, segment.base_of(name), segment.base_of(name), size, None, {})
            )
            return
        except NewerFormatError as error:
            report.problem = report.problem or (error.code, error.message)
            return
        report.identity = report.identity or header.identity
        report.chain = report.chain or header.chain
        if (header.identity, header.chain) != (report.identity, report.chain):
            report.other_segments.append(name)
            return
        _entries(report, handle, header, name, size, following, on_entry)
    finally:
        os.close(handle)


def _entries(
    report: LogReport,
    handle: int,
    header: Header,
    name: str,
    size: int,
    following: int | None,
    on_entry: OnEntry,
) -> None:
    base, check = header.base, segment.checker(header.identity, header.base)
    limit = size if following is None else min(size, following - base)
    counts: Counter[str] = Counter()

    def walk(position: int, behind: bool) -> int:
        window = Window(SYSTEM_DISK, handle, limit)
        while position < limit:
            entry = segment.entry_at(window, base, position, check, limit)
            if entry is None:
                break
            kind, payload = entry
            if kind != segment.GROUP_KIND:
                counts[_kind_word(kind)] += 1
                on_entry(base + position, kind, payload, behind)
            position += segment.ENTRY_HEAD_BYTES + len(payload)
        return position

    stop = walk(segment.HEADER_BYTES, bool(report.damage))
    report.end = base + stop
    damaged = None
    if following is not None:
        damaged = "an entry does not check" if base + stop != following else None
    else:
        later = segment.later_synced(SYSTEM_DISK, handle, base, stop, check)
        if stop < header.first_bytes or later > base + stop:
            damaged = "an entry known to be synced does not check"
    end = stop
    if damaged is not None:
        report.damage.append(Damage(base + stop, name, damaged))
        while (again := segment.next_group(SYSTEM_DISK, handle, base, end, check)) is not None:
            if again >= limit:
                break
            end = walk(again, True)
    if following is None:
        last = _content_end(handle, end, size)
        report.torn_bytes = last - end if damaged is None else 0
        report.reserved_bytes = size - last
    report.segments.append(
        SegmentReport(name, base, base + end, size, segment.FORMAT_VERSION, dict(counts))
    )


def _content_end(handle: int, start: int, size: int) -> int:
    """Return the end of the last byte that is no zero, at or after ``start``."""
    end = start
    for position in range(start, size, segment.WINDOW_BYTES):
        chunk = SYSTEM_DISK.read(handle, segment.WINDOW_BYTES, position).rstrip(ZEROS)
        if chunk:
            end = position + len(chunk)
    return end


def _kind_word(kind: int) -> str:
    try:
        return Kind(kind).name.lower()
    except ValueError:
        return f"unknown {kind}"
