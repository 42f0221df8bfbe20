"""Networks for the process tests: one a module, stopped whatever happens."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

import pytest

from scripts.localnet import LocalNetwork
from tests.network.town import found_town


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(f"signal {number}")


@pytest.fixture(scope="session", autouse=True)
def stopping_on_sigterm() -> Iterator[None]:
    """Have fixtures stop their nodes when the test run itself is told to end."""
    before = signal.signal(signal.SIGTERM, _end)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    """A running network that the tests of one module share."""
    with found_town(tmp_path_factory.mktemp("town") / "network") as network:
        network.start_all()
        yield network
