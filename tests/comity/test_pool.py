"""Whom a client dials once the committee has changed, and whom it submits to."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import trio

from comity.network import _unavailable
from comity.pool import Pool, servers_of
from comity.results import Refusal
from comity.session import Server
from consensus.committee import Committee, Validator
from consensus.protocol import Status


def row(name: str, number: int, port: int = 7000) -> Validator:
    key = bytes([number]) * 32
    return Validator(name, key, key, b"certificate", "10.0.0.1", port, "10.0.0.1", port + 1)


FIRST = Committee(1, tuple(row(name, at) for at, name in enumerate("abcd", 1)))
NEXT = Committee(2, (row("b", 2, 8000), row("c", 9), row("d", 4), row("e", 5)))


def pool(*servers: Server, grows: bool = False) -> tuple[Pool, Any]:
    trust: Any = SimpleNamespace(committee=FIRST)
    nursery: trio.Nursery = SimpleNamespace()  # type: ignore[assignment]
    dial: Any = None
    return Pool(servers or servers_of(FIRST), trust, None, nursery, dial, grows=grows), trust


def known(made: Pool) -> dict[str, tuple[str, int, int]]:
    places = [each.server for each in made._places]
    return {each.agency: (each.host, each.port, each.node_key[0]) for each in places}


def test_members_are_dialled_under_their_new_keys_and_at_their_new_address() -> None:
    made, trust = pool(grows=True)
    trust.committee = NEXT
    made._renew()
    assert known(made) == {
        "a": ("10.0.0.1", 7001, 1),  # it has left, and serves what it has
        "b": ("10.0.0.1", 8001, 2),
        "c": ("10.0.0.1", 7001, 9),
        "d": ("10.0.0.1", 7001, 4),
        "e": ("10.0.0.1", 7001, 5),
    }


def test_address_that_the_caller_named_stays_and_nobody_is_added_to_those_it_chose() -> None:
    b, c = servers_of(FIRST)[1:3]
    made, trust = pool(replace(b, host="localhost", port=99), replace(c, port=98))
    trust.committee = NEXT
    made._renew()
    assert known(made) == {"b": ("localhost", 99, 2), "c": ("10.0.0.1", 98, 9)}


def test_only_a_node_that_takes_nothing_at_all_is_passed_over_at_once() -> None:
    def deferred(status: int) -> Any:
        return SimpleNamespace(deferred=Refusal(None, status, "CODE", "no vote: submit to b", ""))

    error = _unavailable(deferred(int(Status.UNAVAILABLE)))
    assert error is not None
    assert error.message == "no vote: submit to b"
    assert _unavailable(deferred(Status.BUSY)) is None
    assert _unavailable(SimpleNamespace(deferred=None)) is None  # type: ignore[arg-type]
