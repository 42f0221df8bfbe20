"""What the service manager hears: by a socket of its own, as sd_notify(3) says."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from node.telemetry.notify import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


def heard(manager: socket.socket) -> list[list[str]]:
    found = []
    while True:
        try:
            found.append(manager.recv(4096).decode().split("\n"))
        except BlockingIOError:
            return found


async def test_the_manager_hears_of_start_life_and_end(
    manager: socket.socket, autojump_clock: trio.testing.MockClock
) -> None:
    told = Notifier({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "6000000"})
    with trio.move_on_after(5):
        await told.beat()
    assert heard(manager) == [["WATCHDOG=1", "STATUS=starting"]] * 3
    told.started(lambda: "ready; certified 7")
    told.stopping()
    assert heard(manager) == [["READY=1", "STATUS=ready; certified 7"], ["STOPPING=1"]]
    with trio.move_on_after(1):
        await told.beat()
    assert heard(manager) == [["WATCHDOG=1", "STATUS=ready; certified 7"]]


async def test_the_watchdog_waits_while_the_data_is_opened_in_one_piece(
    manager: socket.socket,
) -> None:
    """An hour of opening is not allowed for, and what was asked for comes back afterwards."""
    told = Notifier({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "120000000"})
    with told.patiently():
        assert heard(manager) == [["WATCHDOG_USEC=900000000", "WATCHDOG=1"]]
    assert heard(manager) == [["WATCHDOG_USEC=120000000", "WATCHDOG=1"]]
    with pytest.raises(OSError, match="disk"), told.patiently():
        raise OSError("disk")
    assert heard(manager)[-1] == ["WATCHDOG_USEC=120000000", "WATCHDOG=1"]
    with Notifier({"NOTIFY_SOCKET": manager.getsockname()}).patiently():
        assert heard(manager) == []


@pytest.mark.parametrize("microseconds", ["", "0", "-5", "soon", "9" * 30])
async def test_without_a_watchdog_only_the_status_is_renewed(
    manager: socket.socket, microseconds: str, autojump_clock: trio.testing.MockClock
) -> None:
    told = Notifier({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": microseconds})
    with trio.move_on_after(25):
        await told.beat()
    assert len(heard(manager)) == 3


async def test_an_abstract_socket_is_found(autojump_clock: trio.testing.MockClock) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0comity-test-{os.getpid()}")
        listening.setblocking(False)
        Notifier({"NOTIFY_SOCKET": f"@comity-test-{os.getpid()}"}).stopping()
        assert heard(listening) == [["STOPPING=1"]]


async def test_without_a_manager_nothing_is_sent_and_nothing_waits() -> None:
    told = Notifier({})
    told.started(lambda: "ready")
    await told.beat()
    told.stopping()


async def test_a_manager_that_is_gone_or_reads_nothing_harms_nobody(
    manager: socket.socket, autojump_clock: trio.testing.MockClock
) -> None:
    Notifier({"NOTIFY_SOCKET": "/nonexistent/socket"}).stopping()
    told = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    with trio.move_on_after(100_000):
        await told.beat()
    assert 0 < len(heard(manager)) < 10_000
