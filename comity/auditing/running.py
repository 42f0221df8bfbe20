"""An audit from its first part to its result.

    source ─ parts ─► checkers (processes) ─ verdicts, in order ─► replay ─► space (flushed)

Heights go to the checkers in chunks, a bounded number ahead of the one that is executed; the
executing process waits for nothing else. What is executed is flushed to the auditor's own space
every few heights, so memory does not grow with the chain or the state.

Not here: where parts come from (``sources``), and how a result is shown (``comity.cli.audit``).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, Protocol

from comity.auditing.checkers import Checkers, Malformed, Task, Verdict, result_of
from comity.words import word
from consensus import genesis as genesis_file
from consensus.answers import EpochStep
from consensus.audit.divergence import DivergenceError, Problem
from consensus.audit.heights import Checked
from consensus.audit.replay import Counts, Origin, Replay, RowComparison
from consensus.audit.stream import (
    Frame,
    Header,
    Kind,
    height_in,
    parse_height,
    read_end,
    read_epoch,
    read_header,
    read_rows,
)
from consensus.errors import DecodeError, VerificationError
from consensus.evidence.trust import Chain
from consensus.hotstuff.types import Statement, genesis_block
from consensus.state.history import MemoryNodes, NodeSource
from consensus.state.state import Backend, MemoryBackend

CHUNK_BYTES: Final = 512 * 1024
CHUNK_HEIGHTS_MAX: Final = 64
FLUSH_HEIGHTS: Final = 64
FLUSH_BYTES: Final = 8 * 1024 * 1024
"""The space is flushed after so many heights, or so many bytes of them."""


class WrongNetworkError(DecodeError):
    """The data is of another network than the reader trusts."""

    code = "WRONG_CHAIN"
    advice = "compare the genesis hash with the other agencies'"


class Space(Protocol):
    """Where the executed state is kept."""

    @property
    def backend(self) -> Backend:
        """Rows that were flushed."""
        ...

    @property
    def nodes(self) -> NodeSource:
        """The history tree's nodes that were flushed."""
        ...

    def origin(self) -> Origin | None:
        """Return where an earlier audit stopped."""
        ...

    def note(self, block: bytes, statement: Statement, certificate: bytes | None) -> None:
        """Take note of a height that was executed."""
        ...

    def flush(self, replay: Replay) -> None:
        """Write what was executed since the last time."""
        ...


class MemorySpace:
    """A space in memory, for small networks and tests."""

    def __init__(self) -> None:
        self.backend = MemoryBackend()
        self.nodes = MemoryNodes()

    def origin(self) -> Origin | None:
        """Return None: nothing was kept."""
        return None

    def note(self, block: bytes, statement: Statement, certificate: bytes | None) -> None:
        """Keep nothing."""

    def flush(self, replay: Replay) -> None:
        """Put rows and nodes into the space."""
        self.backend.write(replay.state.pending(replay.height))
        self.nodes.write(replay.history.pending(replay.height))
        replay.state.flushed(replay.height)
        replay.history.flushed(replay.height)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to audit.

    Args:
        chain: hash of the genesis file that the reader trusts.
        first: the first height that is judged; those below, above what is kept, are only executed,
            to get at the state.
        last: the last one; None: as far as there are heights. It is exceeded up to the next one
            with a certificate.
        trusted: hashes of statements that the reader knows, by height.
    """

    chain: bytes
    first: int = 0
    last: int | None = None
    trusted: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """What an audit that found nothing wrong went through.

    ``certified`` is the newest height that a certificate vouches for: what is above it, up to
    ``last``, follows from its blocks and is not signed yet. ``rows``: of the kept state that were
    compared, None if there were none. ``totals``: by currency, at ``last``.
    """

    chain: bytes
    first: int
    last: int
    certified: int
    statement: Statement
    counts: Counts
    totals: Mapping[str, int]
    moved: int
    writes: int
    rows: int | None
    seconds: float
    processes: int

    @property
    def rate(self) -> float:
        """Decisions a second."""
        decisions = sum(self.counts.decisions.values())
        return decisions / self.seconds if self.seconds else 0.0


Progress = Callable[[int, int | None, int], None]
"""Is told ``(height, last height if known, decisions so far)``."""


def audit(
    frames: Iterator[Frame],
    wanted: Wanted,
    *,
    space: Space | None = None,
    processes: int = 0,
    progress: Progress = lambda height, last, decisions: None,
) -> Report:
    """Check what a source gives; return what was gone through.

    Args:
        frames: of a whole stream.
        space: keeps the state; None: in memory.
        processes: that check heights beside this one.

    Raises:
        DivergenceError: the first thing that is not as it must be.
        NotAuditableError: something that executing needs is not there.
        DecodeError: the data is malformed, of another network, or does not begin where it should.
        SourceError, OSError: the source cannot be read.

    Cost: about 60 µs a transfer and 100 a disbursement here, 90 in the checkers.
    """
    first_frame = next(frames, None)
    if first_frame is None:
        raise DecodeError("nothing is there", path="offset 0")
    header = read_header(first_frame)
    found = genesis_file.chain_id(header.genesis)
    if found != wanted.chain:
        said = f"the data is of the network {word(found)}, not of {word(wanted.chain)}"
        raise WrongNetworkError(said, hint=WrongNetworkError.advice)
    checkers = Checkers(header.genesis, processes)
    try:
        return _Run(header, wanted, space or MemorySpace(), checkers, progress).run(frames)
    finally:
        checkers.close()


_Chunk = tuple[list[Task], Future[list[Verdict]]]


class _Run:
    """One audit under way."""

    def __init__(
        self,
        header: Header,
        wanted: Wanted,
        space: Space,
        checkers: Checkers,
        progress: Progress,
    ) -> None:
        self._header = header
        self._wanted = wanted
        self._space = space
        self._checkers = checkers
        self._progress = progress
        founded = genesis_file.decode(header.genesis)
        origin = space.origin()
        self.replay = Replay(
            founded,
            origin=origin,
            backend=space.backend,
            nodes=space.nodes,
            trusted=wanted.trusted,
        )
        if origin is None:
            first = genesis_block(wanted.chain, founded.committee.hash, founded.time_ms)
            space.note(first.encoded, self.replay.tip.statement, None)
        self._start = self.replay.height
        if header.first > self._start + 1:
            raise DecodeError(
                f"the data begins at height {header.first}, and what leads to it is not known here",
                hint=f"go on from an audit kept up to height {header.first - 1} (--keep), or begin"
                " with heights from 0",
            )
        self._chunks: deque[_Chunk] = deque()
        self._tasks: list[Task] = []
        self._task_bytes = 0
        self._unflushed = 0
        self._unflushed_bytes = 0
        self._comparison: RowComparison | None = None
        self._rows: int | None = None
        self._trust = Chain(wanted.chain, founded.committee)
        self._step: EpochStep | None = None
        self._heights_seen = 0
        self._rows_seen = 0
        self._enough = False

    def run(self, frames: Iterator[Frame]) -> Report:
        """Go through all parts."""
        began = time.perf_counter()
        for frame in frames:
            match frame.kind:
                case Kind.HEIGHT:
                    self._end_rows()
                    self._heights_seen += 1
                    self._add(frame)
                case Kind.EPOCH:
                    self._end_rows()
                    self._begin_epoch(frame)
                case Kind.ROWS:
                    self._take_rows(frame)
                case Kind.END:
                    self._end_rows()
                    self._check_end(frame)
            if self._enough:
                break
        self._drain()
        self._flush()
        self._check_reached()
        self.replay.sum_up(self._space.backend)
        return self._report(time.perf_counter() - began)

    # --- heights ------------------------------------------------------------------------------

    def _add(self, frame: Frame) -> None:
        """Hand a height to the checkers, and execute what they are done with."""
        height = height_in(frame.payload)
        if height is not None and height < self._start:
            return  # what is kept leads beyond it
        judged = height is None or height >= self._wanted.first
        self._tasks.append(Task(frame.payload, f"offset {frame.offset}", judged, self._step))
        self._task_bytes += len(frame.payload)
        if self._task_bytes >= CHUNK_BYTES or len(self._tasks) >= CHUNK_HEIGHTS_MAX:
            self._submit()
        while len(self._chunks) > 2 * self._checkers.processes + 1 and not self._enough:
            self._take_chunk()

    def _begin_epoch(self, frame: Frame) -> None:
        """Take the committee that the heights which follow are checked by.

        It is followed from the genesis file by certificates alone. That it was decided, the
        statement of the height that ended the epoch has to show, which is executed here.
        """
        step = read_epoch(frame)
        try:
            self._trust.follow([step])
        except VerificationError as error:
            self._drain()
            said = f"what is shown of the end of an epoch does not hold: {error.message}"
            raise DivergenceError(self.replay.height, Problem("certificate", said)) from error
        self._step = step

    def _submit(self) -> None:
        if self._tasks:
            self._chunks.append((self._tasks, self._checkers.submit(self._tasks)))
            self._tasks, self._task_bytes = [], 0

    def _drain(self) -> None:
        """Execute everything that was handed out."""
        self._submit()
        while self._chunks and not self._enough:
            self._take_chunk()

    def _take_chunk(self) -> None:
        tasks, future = self._chunks.popleft()
        for task, verdict in zip(tasks, result_of(future), strict=False):
            if isinstance(verdict, Malformed):
                raise verdict.error()
            self._take(task, verdict)
            if self._enough:
                return
        last, counts = self._wanted.last, self.replay.counts
        known = self._header.last if last is None else last
        self._progress(self.replay.height, known, sum(counts.decisions.values()))

    def _take(self, task: Task, checked: Checked) -> None:
        replay = self.replay
        recorded = parse_height(task.payload)
        if recorded.height == self._start == replay.height:
            replay.confirm(recorded, checked)
            return
        statement = replay.take(recorded, checked, judged=task.signatures)
        self._space.note(recorded.block, statement, recorded.certificate)
        self._unflushed += 1
        self._unflushed_bytes += len(task.payload)
        if self._unflushed >= FLUSH_HEIGHTS or self._unflushed_bytes >= FLUSH_BYTES:
            self._flush()
        last = self._wanted.last
        self._enough = last is not None and replay.height >= last <= replay.certified

    def _flush(self) -> None:
        self._space.flush(self.replay)
        self._unflushed = self._unflushed_bytes = 0

    # --- rows of the state --------------------------------------------------------------------

    def _take_rows(self, frame: Frame) -> None:
        rows = read_rows(frame)
        self._rows_seen += len(rows)
        if self._comparison is None:
            self._drain()
            if self._enough:
                return
            self._flush()
            self._comparison = self.replay.comparison(self._space.backend)
        self._comparison.take(rows)

    def _end_rows(self) -> None:
        if self._comparison is not None:
            self._comparison.finish()
            self._rows, self._comparison = self._comparison.count, None

    # --- the end ------------------------------------------------------------------------------

    def _check_end(self, frame: Frame) -> None:
        end = read_end(frame)
        if (end.heights, end.rows) != (self._heights_seen, self._rows_seen):
            said = (
                f"{self._heights_seen} heights and {self._rows_seen} rows, not as many as it says"
            )
            raise DecodeError(said, path=f"offset {frame.offset}: end")

    def _check_reached(self) -> None:
        wanted, height = self._wanted, self.replay.height
        if wanted.last is not None and height < wanted.last:
            raise DecodeError(f"the data ends at height {height}, before height {wanted.last}")
        if height < wanted.first:
            raise DecodeError(f"the data ends at height {height}, before height {wanted.first}")
        for known in wanted.trusted:
            if not self._start <= known <= height:
                said = f"height {known}, which you trust, is not among {self._start} to {height}"
                raise DecodeError(said, hint="trust a height of the range that is audited")

    def _report(self, seconds: float) -> Report:
        replay = self.replay
        return Report(
            chain=replay.chain,
            first=max(self._wanted.first, self._start + (self._start > 0)),
            last=replay.height,
            certified=replay.certified,
            statement=replay.tip.statement,
            counts=replay.counts,
            totals=dict(sorted(replay.money.totals.items())),
            moved=replay.money.moved,
            writes=replay.writes,
            rows=self._rows,
            seconds=seconds,
            processes=self._checkers.processes,
        )
