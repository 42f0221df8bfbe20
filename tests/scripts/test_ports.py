"""Ports for networks of real nodes: programs that found networks at once never share one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from comity.cli.network import FREE_PORTS
from scripts import ports
from scripts.localnet import ROOT
from scripts.ports import free_ports

DRAW = "from scripts.ports import free_ports; print(*free_ports(900), flush=True); input()"


@pytest.fixture(autouse=True)
def claims_of_its_own() -> Iterator[None]:
    ports._claimed.let_go()
    yield
    ports._claimed.let_go()


def test_ports_are_distinct_and_lie_below_those_of_devnet_and_of_outgoing_connections() -> None:
    """Linux gives outgoing connections those from 32,768 (ip_local_port_range)."""
    found = free_ports(300)
    assert len(set(found)) == 300
    assert min(found) > 1_024
    assert max(found) < FREE_PORTS.start < FREE_PORTS.stop <= 32_768


def test_programs_that_draw_at_once_share_no_port() -> None:
    """Nobody listens on what was drawn, as between founding a network and starting its nodes."""
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", DRAW],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    try:
        drawn = [program.stdout.readline().split() for program in programs if program.stdout]
    finally:
        for program in programs:
            program.communicate("\n", timeout=30)
    assert [len(each) for each in drawn] == [900] * 3
    assert len({port for each in drawn for port in each}) == 2_700


def test_child_that_was_forked_draws_others() -> None:
    before = free_ports(10)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, " ".join(map(str, free_ports(10))).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, encoding="ascii") as pipe:
        drawn = [int(port) for port in pipe.read().split()]
    assert os.waitpid(child, 0)[1] == 0
    assert len(drawn) == 10
    assert not {*drawn} & {*before, *free_ports(10)}


def test_none_is_given_twice_before_the_others_are_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "PORTS", range(9_000, 9_030))
    monkeypatch.setattr(ports, "BLOCK", 10)
    first = free_ports(20)
    rest = free_ports(7)
    assert {*first, *rest} == {*range(9_000, 9_030)} - {9_000, 9_010, 9_020}
    with socket.create_server(("127.0.0.1", first[0])):
        again = free_ports(20)
    assert again == [*first[1:], rest[0]]


def test_more_ports_than_can_be_found_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "PORTS", range(9_100, 9_130))
    monkeypatch.setattr(ports, "BLOCK", 10)
    with pytest.raises(RuntimeError, match="28 free ports were not found"):
        free_ports(28)
    assert len(free_ports(27)) == 27
