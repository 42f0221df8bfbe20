"""``comity feed``: copies of what a key may read, in PostgreSQL or in Parquet files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from rich.text import Text

from comity.cli.options import OUTPUT, REACH, Output, Reach, UsageError, examples, with_client
from comity.cli.show import emit, err, pairs
from comity.client import Client
from comity.feeding.errors import FeedSetupError
from comity.feeding.following import Bounds, Follower, Progress, Sink
from consensus.committee import parse_address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from comity.feeding.checking import Copy

app = App(name="feed", help="Keep a copy of what a key may read, for reports and analysis.")
check = App(name="check", help="Prove a copy against the network, by a path of its own.")
app.command(check)

DsnFile = Annotated[
    Path | None,
    Parameter(
        help="File that holds a connection string of libpq; nobody but its owner may read it."
    ),
]
Service = Annotated[str, Parameter(help="Instead: a service of libpq's pg_service.conf.")]
Schema = Annotated[str, Parameter(show_default=True, help="Schema that the copy is kept in.")]
Folder = Annotated[Path, Parameter(name=["--output", "-o"], help="Folder of the copy.")]
Once = Annotated[bool, Parameter(help="End with the height that is the newest now.")]
Until = Annotated[int | None, Parameter(help="End with this height.")]
CheckedFrom = Annotated[int, Parameter(name="--from", help="First height to be checked.")]
CheckedUntil = Annotated[int | None, Parameter(help="Last height to be checked.")]
First = Annotated[
    int,
    Parameter(name="--from", help="Where a new copy begins; the founding, unless it says so."),
]
Metrics = Annotated[
    str, Parameter(help="Show Prometheus metrics at this address, as 127.0.0.1:9470.")
]


@app.command(
    help_epilogue=examples(
        "comity feed postgres --dsn-file reports.dsn --key reporter.key",
        "comity feed postgres --service reports --schema comity --once",
    )
)
def postgres(
    *,
    dsn_file: DsnFile = None,
    service: Service = "",
    schema: Schema = "comity",
    first: First = 0,
    once: Once = False,
    until: Until = None,
    metrics: Metrics = "",
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> None:
    """Project what the key may read into PostgreSQL, from the founding on or where it stopped."""
    with _needs("psycopg", "postgres"):
        from comity.feeding.postgres import Postgres, target
    _run(Postgres(target(dsn_file, service, schema)), first, once, until, metrics, reach, output)


@app.command(
    help_epilogue=examples(
        "comity feed parquet -o reports --key reporter.key --once",
        "comity feed parquet -o reports --key reporter.key",
    )
)
def parquet(
    *,
    to: Folder,
    first: First = 0,
    once: Once = False,
    until: Until = None,
    metrics: Metrics = "",
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> None:
    """Write what the key may read into Parquet files, from the founding on or where it stopped."""
    with _needs("pyarrow", "parquet"):
        from comity.feeding.parquet import Parquet
    _run(Parquet(to), first, once, until, metrics, reach, output)


@check.command(
    name="parquet",
    help_epilogue=examples("comity feed check parquet -o reports --key auditor.key"),
)
def check_parquet(
    *,
    to: Folder,
    first: CheckedFrom = 0,
    until: CheckedUntil = None,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Prove a copy in Parquet files against certificates, decisions and proofs of every row.

    Exit status 1, and the first difference, if it is not what the network proves.
    """
    with _needs("pyarrow", "parquet"):
        from comity.feeding.check_parquet import ParquetCopy
    return _prove(lambda: ParquetCopy(to), first, until, reach, output)


@check.command(
    name="postgres",
    help_epilogue=examples(
        "comity feed check postgres --dsn-file reports.dsn --key auditor.key",
        "comity feed check postgres --service reports --from 100000 --until 200000",
    ),
)
def check_postgres(
    *,
    dsn_file: DsnFile = None,
    service: Service = "",
    schema: Schema = "comity",
    first: CheckedFrom = 0,
    until: CheckedUntil = None,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Prove a copy in PostgreSQL against certificates, decisions and proofs of every row.

    Exit status 1, and the first difference, if it is not what the network proves.
    """
    with _needs("psycopg", "postgres"):
        from comity.feeding.check_postgres import PostgresCopy
        from comity.feeding.postgres import target
    where = target(dsn_file, service, schema)
    return _prove(lambda: PostgresCopy(where), first, until, reach, output)


@contextmanager
def _needs(package: str, extra: str) -> Iterator[None]:
    """Say which extra is missing where a package cannot be imported."""
    try:
        yield
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise FeedSetupError(
            f"the package {package} is not installed", hint=f"run `pip install 'comity[{extra}]'`"
        ) from error


def _run(
    sink: Sink,
    first: int,
    once: bool,
    until: int | None,
    metrics: str,
    reach: Reach,
    output: Output,
) -> None:
    if once and until is not None:
        raise UsageError("--once and --until are two ends", hint="give one of them")
    for option, height in (("--from", first), ("--until", until)):
        if height is not None and height < 0:
            raise UsageError(f"{option} {height} is no height", hint="heights count from 0")
    bounds = Bounds(first, -1 if once else until, reach.patience)
    console = err()

    def told(words: str) -> None:
        if not output.json:
            console.print(Text(f"{words}."), soft_wrap=True)

    async def work(client: Client) -> Progress:
        follower = Follower(client, sink, bounds, told)
        if metrics:
            _serve(metrics, follower.progress)
        await follower.run()
        return follower.progress

    found = with_client(reach, work)
    value = {"height": found.height, "heights": found.heights, "rows": found.rows}
    emit(output, value, pairs(value.items()))


def _serve(address: str, progress: Progress) -> None:
    from prometheus_client import CollectorRegistry, Gauge, start_http_server

    found = parse_address(address)
    if found is None:
        raise UsageError(f"{address!r} is no address", hint="write it as 127.0.0.1:9470")
    registry = CollectorRegistry()
    shown: tuple[tuple[str, str, Callable[[], float]], ...] = (
        ("height", "Height that is written last.", lambda: progress.height),
        ("lag_heights", "Certified heights known and not written.", lambda: progress.lag_heights),
        ("lag_seconds", "Chain time between written and newest.", lambda: progress.lag_ms / 1000),
        ("rows", "Rows written by this run.", lambda: progress.rows),
        ("retries", "How often the copy or the network was away.", lambda: progress.retries),
    )
    for name, words, read in shown:
        Gauge(f"comity_feed_{name}", words, registry=registry).set_function(read)
    try:
        start_http_server(found[1], found[0], registry)
    except OSError as error:
        said = f"cannot listen at {address}: {error.strerror}"
        raise FeedSetupError(said, hint="name an address that is free") from error


def _prove(
    copy: Callable[[], Copy], first: int, last: int | None, reach: Reach, output: Output
) -> int:
    from comity.feeding.checking import check as prove

    console = err()

    def told(words: str) -> None:
        if not output.json:
            console.print(Text(f"{words}."), soft_wrap=True)

    async def work(client: Client) -> dict[str, object]:
        found = copy()
        try:
            return (await prove(client, found, first, last, told)).to_value()
        finally:
            found.close()

    value = with_client(reach, work)
    emit(output, value, pairs(value.items()))
    return 0 if value["divergence"] is None else 1
