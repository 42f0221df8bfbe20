"""Verification of a snapshot file, offline: nothing is opened but the file.

The chunks are independent of each other, so they are checked in as many processes as there are
cores; the first that is not right, in the order of the file, is the one that is named.

Not here: the checks (``consensus.snapshot``).
"""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from consensus.hotstuff.types import Statement
from consensus.snapshot import Checker, Counted, Cut, Piece, Reader, counted

PROCESSES_MAX: Final = 8
AHEAD_PER_WORKER: Final = 3
"""Chunks in memory for each process."""
ALONE_ENTRIES_MAX: Final = 20_000
"""Up to so many entries, starting processes takes longer than checking."""

Progress = Callable[[int, int], None]
"""``(done, of)`` in chunks."""

_checkers: list[Checker] = []
"""Of this process, where it is a worker."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A snapshot of which every chunk is what the certificate vouches for.

    Args:
        statement: of the height; a quorum of its epoch's committee signed it.
        key_count: entries of the whole state.
        entries, chunks: in this file.
        left_out: entries whose row is left out.
        whole: a node can begin from it.
    """

    network: str
    statement: Statement
    signers: tuple[str, ...]
    key_count: int
    entries: int
    chunks: int
    left_out: int
    whole: bool


def verify(
    file: Path, chain: bytes, progress: Progress, *, processes: int | None = None
) -> Verified:
    """Check a snapshot file to its end.

    Args:
        chain: hash of the genesis file.
        progress: is told after each chunk.
        processes: to check chunks in; None: one a core for a long file.

    Raises:
        DecodeError: malformed; says at which offset. VerificationError: says which chunk is not
            what the certificate vouches for.
        OSError: the file cannot be read.

    Cost: about 15 µs a record and core.
    """
    with file.open("rb") as opened:
        reader = Reader(opened.read, chain)
        certified = reader.certified
        of = len(certified.chunks())
        key_count = certified.manifest.key_count
        if processes is None:
            processes = 0 if key_count < ALONE_ENTRIES_MAX else os.cpu_count() or 1
        entries = chunks = left_out = 0
        for found in _checked(reader, min(processes, PROCESSES_MAX)):
            entries += found.entries
            left_out += found.left_out
            chunks += 1
            progress(chunks, max(of, chunks))
        reader.finish(entries)
    names = [each.agency for each in certified.committee.validators]
    return Verified(
        network=certified.head.network,
        statement=certified.statement,
        signers=tuple(names[index] for index, _ in certified.certificate.signatures),
        key_count=key_count,
        entries=entries,
        chunks=chunks,
        left_out=left_out,
        whole=certified.whole,
    )


def _checked(reader: Reader, processes: int) -> Iterator[Counted]:
    """Yield what each chunk holds, in the order of the file, once it is checked."""
    cut = reader.certified.cut
    if not processes:
        checker = Checker(cut)
        yield from (counted(checker.chunk(piece)) for piece in reader.pieces())
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, _begin, (cut,)) as pool:
        try:
            waiting: deque[Future[Counted]] = deque()
            for piece in reader.pieces():
                waiting.append(pool.submit(_check, piece))
                if len(waiting) > AHEAD_PER_WORKER * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin(cut: Cut) -> None:
    gc.disable()  # nothing here forms cycles
    _checkers.append(Checker(cut))


def _check(piece: Piece) -> Counted:
    return counted(_checkers[0].chunk(piece))
