"""Nodes at work open snapshots of the same height, and of nothing that is not certified."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from consensus.snapshot import decode_manifest, verify_manifest
from node.network.wire import Class
from node.snapshots import serving, wire
from node.snapshots.wire import Ask, Offer
from tests.node.machines import CHAIN, Town, inline_threads, running

__all__ = ["inline_threads"]

pytestmark = pytest.mark.usefixtures("inline_threads")


def offers_of(town: Town) -> list[tuple[int, Offer]]:
    """What is offered to anybody from now on, by whom."""
    found: list[tuple[int, Offer]] = []

    def tap(sender: int, peer: int, cls: Class, payload: bytes) -> bool:
        if cls is Class.SYNC and wire.is_known(payload):
            message = wire.decode(payload)
            if isinstance(message, Offer):
                found.append((sender, message))
        return True

    town.taps.append(tap)
    return found


async def test_under_load_nodes_offer_the_same_certified_height(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    town = Town(tmp_path)
    async with running(town) as nursery:
        found = offers_of(town)
        for round_ in range(40):
            town.submit(round_ % 4)
            if round_ == 10:
                for each in (0, 1, 2):
                    town.machines[each].engine.take(3, Class.SYNC, wire.encode(Ask()))
            await trio.sleep(0.1)
        await town.until(lambda: len(found) == 3)
        certified = [verify_manifest(decode_manifest(offer.manifest), CHAIN) for _, offer in found]
        heights = {each.height for each in certified}
        assert len(heights) == 1
        assert heights.pop() % serving.BOUNDARY_HEIGHTS == 0
        assert len({each.statement.encode() for each in certified}) == 1
        assert all(offer.proof is not None for _, offer in found)  # machine 3 has signed
        nursery.cancel_scope.cancel()


async def test_an_idle_node_offers_the_height_it_has(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    town = Town(tmp_path)
    async with running(town) as nursery:
        found = offers_of(town)
        town.submit(0)
        await town.until_certified(2)
        await trio.sleep(3)
        town.machines[0].engine.take(3, Class.SYNC, wire.encode(Ask()))
        await town.until(lambda: bool(found))
        certified = verify_manifest(decode_manifest(found[0][1].manifest), CHAIN)
        assert 0 < certified.height <= town.machines[0].height
        nursery.cancel_scope.cancel()
