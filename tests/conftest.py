"""For all tests: nodes of local networks are forked of one process that has imported everything."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from comity import founding
from scripts import localnet
from scripts.localnet import LocalNetwork
from tests.forking import Origin

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background by a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what is tested hears Ctrl-C


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what is long, but for ``scripts/long``."""
    if "LONG_RUNS" not in os.environ:
        skip = pytest.mark.skip(reason="scripts/long runs it")
        for item in items:
            if item.get_closest_marker("long") is not None:
                item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def forked_nodes() -> Iterator[None]:
    """Start nodes by forking; the origin itself is started by the first of them."""
    origins: list[Origin] = []
    plain = LocalNetwork.start

    def start(network: LocalNetwork, agency: str) -> None:
        if agency in network.programs:
            plain(network, agency)
            return
        if not origins:
            origins.append(Origin())
        home: Path = network.folder / agency
        process = origins[0].start(home / founding.CONFIG_NAME, home / localnet.LOG_NAME)
        network.processes[agency] = process  # type: ignore[assignment]  # as far as it is used

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalNetwork, "start", start)
        yield
    for each in origins:
        each.close()
