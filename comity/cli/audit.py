"""``comity audit``: a whole range of a network's past, executed again.

Loads ``node`` when it reads a data folder or keeps what it executed.

Not here: the checks (``consensus.audit``), and how they are run (``comity.auditing``).
"""

from __future__ import annotations

import gc
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.console import Group
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from comity.auditing import sources
from comity.auditing.checkers import GC_ALLOCATIONS, PROCESSES_MAX, processes_default
from comity.auditing.fetching import Work, from_node
from comity.auditing.running import Report, Space, Wanted
from comity.auditing.running import audit as run_audit
from comity.cli import show
from comity.cli.options import (
    GENESIS_VARIABLE,
    HASH,
    OUTPUT,
    PATIENCE_SECONDS,
    Output,
    Reach,
    UsageError,
    chain_of,
    examples,
    naming,
    with_client,
)
from comity.cli.values import parse_trusted, time_word
from comity.files import saying
from comity.founding import CONFIG_NAME, GENESIS_NAME
from comity.words import word
from consensus import genesis as genesis_file
from consensus.audit.divergence import CHECKS, DivergenceError
from consensus.audit.stream import Frame

AUDIT_FILE: Final = "name a whole audit file, as `comity audit --export` makes it"
HOLDS: Final = 0
DIVERGES: Final = 1
_AGENCY: Final = re.compile(r"[^/.=]+(=.+)?")
"""What may name an agency's node, and is no path."""

Trust = Annotated[
    tuple[str, ...],
    Parameter(help="A statement you know, as HEIGHT:HASH; may be repeated."),
]


def audit(
    source: str,
    /,
    *,
    first: Annotated[
        int | None,
        Parameter(name="--from", help="First height that is judged; else all that is new."),
    ] = None,
    last: Annotated[
        int | None, Parameter(name="--to", help="Last height; else the newest.")
    ] = None,
    genesis: Annotated[
        str | None,
        Parameter(help="Genesis hash that you trust, or the file; else COMITY_GENESIS."),
    ] = None,
    trust: Trust = (),
    keep: Annotated[
        Path | None,
        Parameter(help="Folder that keeps what was executed; the next audit goes on from there."),
    ] = None,
    snapshot: Annotated[
        Path | None,
        Parameter(help="Begin with the state in this file instead of genesis."),
    ] = None,
    export: Annotated[
        Path | None, Parameter(help="Write the heights to this file instead of checking them.")
    ] = None,
    jobs: Annotated[
        int | None, Parameter(help="Processes that check signatures; one less than processors.")
    ] = None,
    key: Annotated[
        Path | None, Parameter(help="Key file to ask a node with; else COMITY_KEY_FILE.")
    ] = None,
    purpose: Annotated[
        str, Parameter(help="What for; a node records it where rules want reads recorded.")
    ] = "",
    patience: Annotated[
        float, Parameter(show_default=True, help="Seconds until giving up on a node.")
    ] = PATIENCE_SECONDS,
    output: Output = OUTPUT,
) -> int:
    """Check a range of a network's past by executing all of it again.

    Args:
        source: an audit file; a stopped node's folder, configuration or data, or a copy of it; or
            an agency whose running node is asked, as name or name=host:port.
    """
    if jobs is not None and not 0 <= jobs <= PROCESSES_MAX:
        raise UsageError(f"--jobs {jobs} is not between 0 and {PROCESSES_MAX}")
    for name, height in (("--from", first), ("--to", last)):
        if height is not None and not 0 <= height < 2**63:
            raise UsageError(f"{name} {height} is no height", hint="heights count from 0")
    if first is not None and last is not None and last < first:
        raise UsageError(f"--to {last} is below --from {first}")
    reach = Reach(None, (source,), key, purpose, patience)
    found = _source(source, genesis, reach)
    if export is not None:
        return _export(found, export, first or 0, last, output)
    trusted = dict(parse_trusted(each) for each in trust)
    with ExitStack() as stack:
        if found.genesis is None:
            stack.enter_context(naming(found.path, AUDIT_FILE))
        space = stack.enter_context(_space(keep, found.chain, snapshot))
        origin = space.origin()
        kept = 0 if origin is None else origin.tip.height
        wanted = Wanted(found.chain, first or 0, last, trusted)
        told = stack.enter_context(_progress(kept))
        gc.set_threshold(GC_ALLOCATIONS)
        try:
            report = run_audit(
                found.frames(kept, last, rows=True),
                wanted,
                space=space,
                processes=processes_default() if jobs is None else jobs,
                progress=told,
            )
        except DivergenceError as error:
            stack.close()
            show.emit(output, _divergence_value(error), _divergence_shown(error))
            return DIVERGES
    show.emit(output, _report_value(report), _report_shown(report))
    return HOLDS


# --- where the heights are ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Source:
    """Where heights are read: an audit file, a node's data with its genesis file, or a node."""

    chain: bytes
    path: Path
    genesis: Path | None
    """None: an audit file, which has its own."""
    reach: Reach | None = None
    """How to ask a running node."""

    def frames(self, first: int, last: int | None, *, rows: bool) -> Iterator[Frame]:
        """Yield the parts of a stream that has the heights from ``first`` on."""
        if self.genesis is None:
            return sources.from_file(self.path)
        if self.reach is not None:
            return from_node(
                partial(_with_client, replace(self.reach, genesis=self.genesis)),
                self.genesis.read_bytes(),
                first,
                last,
            )
        upto = "-" if last is None else str(last)
        words = [str(self.path), str(self.genesis), str(first), upto, "rows" if rows else "-"]
        return sources.from_process([sys.executable, "-m", "node.auditing", *words])


def _with_client(reach: Reach, work: Work) -> None:
    with_client(reach, work)


def _source(word: str, genesis: str | None, reach: Reach) -> _Source:
    path = Path(word)
    trusted = None if genesis is None else chain_of(genesis)
    if path.is_file() and path.name != CONFIG_NAME:
        known = genesis or _default_genesis()
        if known is None:
            raise UsageError(
                "which network do you trust the file to be of?",
                hint="give its hash or genesis file with --genesis",
            )
        return _Source(chain_of(known), path, None)
    asks = not path.exists()
    if asks and not _AGENCY.fullmatch(word):
        raise UsageError(f"there is no {path}", hint="name an audit file or a node's folder")
    data, configured = (path, None) if asks else _data(path)
    named = None if genesis is None or HASH.fullmatch(genesis) else Path(genesis)
    default = None if configured is not None else _default_genesis()
    file = named or configured or (None if default is None else Path(default))
    if file is None:
        said = "a data folder does not hold the genesis file"
        if asks:
            said = f"there is no {path}; to ask a node of that name the genesis file is needed"
        raise UsageError(said, hint="name the file with --genesis")
    file = file / GENESIS_NAME if file.is_dir() else file
    found = chain_of(str(file))
    if trusted is not None and found != trusted:
        raise UsageError(f"{file} is the genesis file of another network")
    if asks:
        members = genesis_file.decode(file.read_bytes()).committee.validators
        if word.partition("=")[0] not in [each.agency for each in members]:
            said = f"there is neither a file {word} nor an agency with a node of that name"
            names = ", ".join(each.agency for each in members)
            raise UsageError(said, hint=f"the members are {names}")
    return _Source(found, data, file, reach if asks else None)


def _data(path: Path) -> tuple[Path, Path | None]:
    """Return the data folder and the genesis file that a path stands for."""
    config = path / CONFIG_NAME if path.is_dir() else path
    if config.is_file():
        from node import config as node_config

        found = node_config.load(config, {})
        return found.path(found.node.data), found.path(found.node.genesis)
    inside = path / "data"
    return inside if (inside / "state").is_dir() else path, None


def _default_genesis() -> str | None:
    named = os.environ.get(GENESIS_VARIABLE, "")
    if named:
        return named
    return GENESIS_NAME if Path(GENESIS_NAME).is_file() else None


@contextmanager
def _space(keep: Path | None, chain: bytes, snapshot: Path | None) -> Iterator[Space]:
    """Give the space that keeps what is executed: a folder's, or one that goes again."""
    from node.auditspace import AuditSpace

    with ExitStack() as stack:
        if keep is None:
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix="comity-audit-"))
            folder = Path(name) / "state"
        else:
            folder = keep
        if snapshot is None:
            space = AuditSpace(folder, chain)
        elif folder.exists():
            raise UsageError(
                f"{folder} is there already, and a snapshot begins a new one",
                hint="go on from it without --snapshot, or name another folder",
            )
        else:
            with _progress(0, "row") as told:
                space = AuditSpace.begin(folder, chain, snapshot, lambda n, of: told(n, of, 0))
        stack.callback(space.close)
        yield space


def _export(source: _Source, path: Path, first: int, last: int | None, output: Output) -> int:
    """Write the parts of a source into one file, which appears when it is whole."""
    from comity.auditing.exporting import export as write

    with saying(f"cannot write {path}"), _progress(first) as told:
        heights, size = write(source.frames(first, last, rows=False), path, first, last, told)
    value = {"file": str(path), "chain": source.chain, "heights": heights, "bytes": size}
    rows = [
        ("file", str(path)),
        ("heights", f"{heights:,}"),
        ("bytes", f"{size:,}"),
        ("network", word(source.chain)),
        ("note", "nothing was checked; the file holds private parts of transactions"),
    ]
    show.emit(output, value, show.pairs(rows))
    return HOLDS


# --- what is shown ------------------------------------------------------------------------------


@contextmanager
def _progress(start: int, what: str = "height") -> Iterator[Any]:
    """Show how far it is, on a terminal."""
    console = show.err()
    if not console.is_terminal:
        yield lambda height, last, decisions: None
        return
    columns = (
        TextColumn(what),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("audit", total=None, completed=start, rate="")

        def told(height: int, last: int | None, decisions: int) -> None:
            seconds = bars.tasks[0].elapsed or 0.0
            rate = f"{decisions / seconds:,.0f} decisions/s" if seconds else ""
            bars.update(task, completed=height, total=last, rate=rate)

        yield told


def _divergence_value(error: DivergenceError) -> dict[str, Any]:
    problem = error.problem
    return {
        "holds": False,
        "height": error.height,
        "transaction": problem.index,
        "txid": problem.txid,
        "check": problem.check,
        "must_hold": CHECKS[problem.check],
        "message": problem.message,
        "differences": [
            {"place": each.place, "recorded": each.recorded, "found": each.found}
            for each in problem.differences
        ],
    }


def _divergence_shown(error: DivergenceError) -> Group:
    problem = error.problem
    rows: list[tuple[str, Any]] = [
        ("check", problem.check),
        ("must hold", CHECKS[problem.check]),
        ("found", problem.message),
    ]
    if problem.txid is not None:
        rows.append(("transaction", word(problem.txid)))
    if problem.index is not None:
        rows.append(("index", problem.index))
    rows.append(("below it", f"everything up to height {error.height - 1} holds"))
    title = Text.assemble(("DIVERGES ", "bold red"), f"at height {error.height}")
    parts: list[Any] = [title, show.pairs(rows)]
    if problem.differences:
        compared = show.table("where", "recorded", "found by executing")
        for each in problem.differences:
            compared.add_row(Text(each.place), Text(each.recorded), Text(each.found))
        parts.append(compared)
    return Group(*parts)


def _report_value(report: Report) -> dict[str, Any]:
    counts = report.counts
    return {
        "holds": True,
        "chain": report.chain,
        "from": report.first,
        "to": report.last,
        "certified": report.certified,
        "statement": report.statement.hash,
        "time_ms": report.statement.time_ms,
        "heights": counts.heights,
        "certificates": counts.certificates,
        "votes": counts.votes,
        "transactions": counts.transactions,
        "signatures": counts.signatures,
        "decisions": dict(sorted(counts.decisions.items())),
        "powers": dict(sorted(counts.powers.items())),
        "approvals": counts.approvals,
        "cosigners": counts.cosigners,
        "totals": dict(report.totals),
        "moves": report.moved,
        "writes": report.writes,
        "rows": report.rows,
        "seconds": round(report.seconds, 3),
        "decisions_per_second": round(report.rate),
        "processes": report.processes + 1,
    }


def _report_shown(report: Report) -> Group:
    counts = report.counts
    at = time_word(report.statement.time_ms)
    certified = f"height {report.certified}"
    if report.certified < report.last:
        many = report.last - report.certified
        certified += f"; no certificate vouches for the {many} above it yet"
    powers = ", ".join(f"{n:,} by {name}" for name, n in sorted(counts.powers.items()))
    rows: list[tuple[str, Any]] = [
        ("network", word(report.chain)),
        ("certified", certified),
        ("statement", f"{word(report.statement.hash)} of height {report.last}, {at}"),
        ("signed", f"{counts.certificates:,} heights by themselves, {counts.votes:,} votes"),
        ("transactions", f"{counts.transactions:,}, {counts.signatures:,} signatures"),
        ("decisions", _counted(counts.decisions)),
        ("authority", powers or "nothing was applied"),
        ("approved", f"{counts.approvals:,} approvals, {counts.cosigners:,} cosigners"),
        ("money", f"{_counted(report.totals) or 'none'}; {report.moved:,} movements"),
        ("versions", f"{report.writes:,} writes join without a gap"),
    ]
    if report.rows is not None:
        rows.append(("state", f"{report.rows:,} rows kept are those executed"))
    rate = f"{report.seconds:.1f} s, {report.rate:,.0f} decisions a second"
    rows.append(("took", f"{rate}, {report.processes + 1} processes"))
    title = Text.assemble(("HOLDS ", "bold green"), f"from height {report.first} to {report.last}")
    return Group(title, show.pairs(rows))


def _counted(counts: Any) -> str:
    return ", ".join(f"{name} {many:,}" for name, many in sorted(counts.items()))


EXAMPLES: Final = examples(
    "comity audit network/treasury                          a stopped node's folder",
    "comity audit copy/data --genesis genesis.cbor          a copy of its data",
    "comity audit 2026.audit --genesis 0x03ae... --json",
    "comity audit treasury --key auditor.key                a running node, asked for its blocks",
    "comity audit network/treasury --keep audited           goes on where it stopped before",
    "comity audit network/treasury --to 9000 --export 2026.audit",
)

COMMANDS: Final = ((audit, EXAMPLES),)
"""What the command line offers of this module, with the end of each help text."""
