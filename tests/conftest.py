"""For all tests: their order and ports, what they share, and nodes forked of one process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest

from comity import founding
from scripts import localnet
from scripts.localnet import LocalNetwork
from tests import forking, rulebooks

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background by a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what is tested hears Ctrl-C

ROOT = Path(__file__).resolve().parent.parent

FIRST = tuple(
    f"tests/{name}.py"
    for name in """
    network/test_faults network/test_hostile_clients network/test_snapshots
    network/test_hostile_burdens network/test_crashes network/test_signer network/test_stopping
    network/test_sealed network/test_members network/test_hostile_peers network/test_disk
    network/test_audits network/test_feeds network/test_configuration
    test_walk comity/test_devnet sim/test_seeds_0 sim/test_seeds_1 crashes/test_deaths
    scripts/test_programmes sim/test_marks node/test_snapshot_joining node/test_runtime
    byzantine/mutants/test_epochs test_watch comity/test_cli node/test_epochs
    consensus/ledger/test_executor_state
    """.split()
)
"""Files that take longest, so that no worker has a long one left when the others have ended."""

BETWEEN_NETWORKS = 8
"""Files of other tests between two of real networks: what one worker waits for passes while the
others compute, and few networks run at one time."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long", choices=("without", "with", "only"), default="without", help="long tests, or not"
    )


def pytest_collection(session: pytest.Session) -> None:
    """In a whole run, begin with a part of the files of this worker's own.

    All workers read all files; in a new checkout each compiles a part, and has the others' from
    the disk when it comes to them.
    """
    worker, workers = which_worker()
    if workers > 1 and session.config.args == session.config.getini("testpaths"):
        for path in sorted(ROOT.glob("tests/**/test_*.py"))[worker::workers]:
            with suppress(Exception, pytest.skip.Exception):  # collecting it will say so
                import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def which_worker() -> tuple[int, int]:
    """Return this worker's number, and how many there are."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return int(worker), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest files first, and those of real networks between others; leave out what is
    long, or with ``--long=only`` what is not: a story is told from its beginning.
    """
    first = {name: place for place, name in enumerate(FIRST)}
    files = sorted(
        {_file(item): None for item in items}, key=lambda name: first.get(name, len(first))
    )
    networks = [name for name in files if name.startswith("tests/network/")]
    others = [name for name in files if not name.startswith("tests/network/")]
    places = {name: place * (BETWEEN_NETWORKS + 1) for place, name in enumerate(networks)}
    places |= {name: place + place // BETWEEN_NETWORKS + 1 for place, name in enumerate(others)}
    items.sort(key=lambda item: places[_file(item)])
    long = [item for item in items if item.get_closest_marker("long") is not None]
    wanted = config.getoption("--long")
    if wanted == "only":
        stories = {item.path for item in long if item.get_closest_marker("story") is not None}
        run = [item for item in items if item in long or item.path in stories]
        config.hook.pytest_deselected(items=[item for item in items if item not in run])
        items[:] = run
    if wanted != "without":
        return
    skip = pytest.mark.skip(reason="scripts/long runs it")
    for item in long:
        item.add_marker(skip)


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


@pytest.fixture(scope="session", autouse=True)
def forked_nodes() -> Iterator[None]:
    """Start nodes by forking; the origin itself is started by the first of them."""
    plain = LocalNetwork.start

    def start(network: LocalNetwork, agency: str) -> None:
        if agency in network.programs:
            plain(network, agency)
            return
        home: Path = network.folder / agency
        process = forking.origin().start(home / founding.CONFIG_NAME, home / localnet.LOG_NAME)
        network.processes[agency] = process  # type: ignore[assignment]  # as far as it is used

    with forking.shared(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalNetwork, "start", start)
        yield


@pytest.fixture(scope="session", autouse=True)
def shared_rulebooks() -> Iterator[None]:
    """Compile the rules that many tests found their networks with only once."""
    with rulebooks.shared():
        yield
