"""Networks for the process tests: one shared, one for each module that breaks its own."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

import pytest

from scripts.localnet import LocalNetwork
from tests.network.town import found_town
from tests.network.work import Books


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(f"signal {number}")


@pytest.fixture(scope="session", autouse=True)
def stopping_on_sigterm() -> Iterator[None]:
    """Have fixtures stop their nodes when the test run itself is told to end."""
    before = signal.signal(signal.SIGTERM, _end)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="package")
def shared_town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    """The running network of all tests here that leave it as they find it."""
    with found_town(tmp_path_factory.mktemp("shared") / "network") as network:
        network.start_all()
        yield network


@pytest.fixture
def town(shared_town: LocalNetwork) -> LocalNetwork:
    """The shared network, whole again if an earlier test failed half-way."""
    dead = [agency for agency in shared_town.agencies if not shared_town.running(agency)]
    for agency in dead:
        shared_town.start(agency)
    for agency in shared_town.agencies:
        shared_town.kill(agency, signal.SIGCONT)
        shared_town.wait_ready(agency)
    return shared_town


@pytest.fixture(scope="package")
def books() -> Books:
    """What the load was told in the shared network, over all tests."""
    return Books()


@pytest.fixture(scope="module")
def own_town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    """A running network that only one module uses, and may leave broken."""
    with found_town(tmp_path_factory.mktemp("own") / "network") as network:
        network.start_all()
        yield network
