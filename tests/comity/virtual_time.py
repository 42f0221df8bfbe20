"""Tests of a client and a server in memory run on a clock that waits for nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock


def run(main: Any, *, clock: Any = None, instruments: Any = ()) -> Any:
    """Run a test; the clock jumps to the next deadline whenever nothing else can go on."""
    clock = clock or MockClock(autojump_threshold=0)
    return trio.run(main, clock=clock, instruments=instruments)


def apply(folder: Path, items: Iterable[pytest.Item]) -> None:
    """Have the asynchronous tests directly in a folder run so."""
    for item in items:
        if item.path.parent == folder and item.get_closest_marker("trio") is not None:
            item.add_marker(pytest.mark.trio(run=run), append=False)
