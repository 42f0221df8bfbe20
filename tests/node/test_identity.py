"""Who a node takes the holder of a key for: by the state and chain time, as the ledger would."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from consensus.ledger.codes import Code
from node.backend import Backend
from node.telemetry.metrics import Metrics
from tests.consensus.ledger import test_key_rotation, test_succession
from tests.consensus.ledger.test_succession import accept, name
from tests.consensus.ledger.world import World, public_key, token


def backend_of(world: World) -> Backend:
    """A backend that knows the state of ``world`` and its time, and nothing else."""
    parts: list[Any] = [world.ledger, SimpleNamespace(epoch=1), SimpleNamespace(state=world.state)]
    told = SimpleNamespace(time_ms=lambda: world.now_ms, proposals=None)
    parts += [told, *[None] * 5, Metrics(), None]
    return Backend(*parts)


def test_replaced_key_reads_nothing_once_it_has_ended() -> None:
    world = World(test_key_rotation.GENESIS)
    until_ms = world.now_ms + 50_000
    assert test_key_rotation.rotate(world, until_ms).code == Code.APPLIED
    backend = backend_of(world)
    for key, time_ms, known in (
        ("clerk", until_ms - 1, True),
        ("clerk", until_ms, False),
        ("new", until_ms, True),
        ("nobody", until_ms, False),
    ):
        world.now_ms = time_ms
        found = backend.identity(public_key(key))
        assert (found is not None) is known, (key, time_ms)
        assert found is None or found.principal == token("clerk")


def test_who_is_of_an_agency_that_left_reads_for_its_successor() -> None:
    world = World(test_succession.GENESIS)
    backend = backend_of(world)
    assert name(world, "audit", "treasury").code == Code.APPLIED
    found = backend.identity(public_key("auditor"))
    assert found is not None
    assert found.agency == "audit"
    assert accept(world, "treasury", "audit").code == Code.APPLIED
    found = backend.identity(public_key("auditor"))
    assert found is not None
    assert found.agency == "treasury"
    assert world.do("admin", "charter.suspend_agency", "treasury").code == Code.APPLIED
    assert backend.identity(public_key("auditor")) is None
