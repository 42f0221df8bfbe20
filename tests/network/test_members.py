"""The committee of a real network changes under load: a member joins, one leaves, keys change.

An observer that checks every signature again follows throughout. The books are kept as everywhere:
what clerks were told must stand in the end, at every node. The suite runs the first part, and
``scripts/long`` all of it: each part begins where the one before has ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import trio

from comity import RequestError, keys
from consensus import genesis
from consensus.committee import Validator
from consensus.keyfile import KeyKind
from scripts import localmembers
from scripts.localmembers import Newcomer, Town
from tests.network.town import (
    NAMES,
    TUNING,
    agreed,
    client,
    config_path,
    data,
    eventually,
    found_changing,
    kill,
    metric,
    ready,
    start,
    status,
)
from tests.network.work import Books, working

pytestmark = [pytest.mark.process, pytest.mark.story]

JOINING, OBSERVER, LEAVING, TURNING = "harbour", "court", "registry", "treasury"
OLD = (*NAMES,)


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A running network of four with doors for observers."""
    folder = tmp_path_factory.mktemp("members") / "network"
    town = found_changing(folder)
    with town.network as network:
        network.start_all()
        yield town


@pytest.fixture(scope="module")
def books() -> Books:
    """What the load was told in this network, over all tests."""
    return Books()


@pytest.fixture(scope="module")
def joining(members: Town) -> Newcomer:
    """An agency that follows and is to join."""
    return members.add(JOINING, "joining", tuning=TUNING)


async def said(members: Town, agency: str, **wanted: Any) -> dict[str, Any]:
    """Wait until a node says these things of itself."""

    async def holds() -> dict[str, Any] | None:
        found = await status(members.network, agency)
        return found if all(found.get(key) == value for key, value in wanted.items()) else None

    return await eventually(holds, f"{agency} says {wanted}")


def first_row(members: Town, agency: str) -> Validator:
    rows = genesis.decode(members.network.genesis).committee.validators
    return next(each for each in rows if each.agency == agency)


async def test_a_member_joins_under_load_and_its_vote_is_needed(
    members: Town, joining: Newcomer, books: Books
) -> None:
    town = members.network
    members.add(OBSERVER, "observer", tuning=TUNING, recheck=True)
    await start(town, JOINING, OBSERVER)
    for each in (JOINING, OBSERVER):
        await said(members, each, votes=False, validator=None, epoch=1)
    async with working(town, books):
        await books.grown(20, "with an observer")
        committee = await members.change(
            members.admission(joining), by=("social", "treasury", "integrity")
        )
        assert [each.agency for each in committee.validators] == [*OLD, JOINING]
        await books.grown(20, "in the next epoch")
        for each in (*OLD, JOINING):
            await said(members, each, votes=True, epoch=2, problem=None)
        await said(members, OBSERVER, votes=False, epoch=2, problem=None)
        kill(town, "social")
        await books.grown(20, f"that {JOINING} is needed for")
    await start(town, "social")
    await agreed(town, *OLD, JOINING, OBSERVER, height=books.height)
    assert await metric(town, JOINING, "comity_node_signing") == 1
    assert await metric(town, OBSERVER, "comity_node_signing") == 0
    assert await metric(town, OBSERVER, "comity_verifier_signatures_total") >= books.count
    assert not list(data(town, OBSERVER).glob("signer*"))
    for each in OLD:
        await said(members, each, observers=[OBSERVER])
        assert await metric(town, each, "comity_observers_connected") == 1
    async with client(town) as reader:
        await books.check(reader)


@pytest.mark.long
async def test_keys_change_without_a_restart(members: Town, books: Books) -> None:
    town = members.network
    pairs = {kind: keys.new_pair(kind) for kind in (KeyKind.VALIDATOR, KeyKind.NODE)}
    folder = members.home(TURNING) / "keys"
    keys.create(folder / "validator-next.key", pairs[KeyKind.VALIDATOR])
    keys.create(folder / "node-next.key", pairs[KeyKind.NODE])
    new = localmembers.renewed(first_row(members, TURNING), *pairs.values())
    pid = town.processes[TURNING].pid
    async with working(town, books):
        change = members.replacement(new, *pairs.values())
        await members.change(change, by=("registry", "social", "integrity", JOINING))
        await books.grown(20, "after the keys")
        await said(members, TURNING, votes=True, epoch=3, problem=None)
    assert town.processes[TURNING].pid == pid
    marks = sorted(path.name for path in data(town, TURNING).glob("signer*.mark"))
    assert marks == [f"signer-{new.key.hex()[:16]}.mark", "signer.mark"]
    kill(town, "social")
    async with working(town, books):
        await books.grown(10, "that the new key is needed for")
    await start(town, "social")
    await agreed(town, *OLD, JOINING, OBSERVER, height=books.height)


@pytest.mark.long
async def test_who_has_left_serves_proofs_and_takes_nothing(members: Town, books: Books) -> None:
    town = members.network
    async with working(town, books):
        await members.change(["leave", LEAVING], by=("social", "treasury", "integrity", JOINING))
        await books.grown(20, f"without {LEAVING}")
    rest = [each for each in OLD if each != LEAVING]
    gone = await said(members, LEAVING, votes=False, epoch=4, validator=None)
    assert "NO_VOTE_ANY_MORE" in gone["problem"]
    told = books.decisions[min(books.decisions, key=lambda txid: books.decisions[txid].height)]
    async with client(town, LEAVING) as reader:
        assert await reader.decision(told.txid) == told
    height, _ = await agreed(town, *rest, JOINING, OBSERVER, height=books.height)
    assert gone["certified"] < height
    async with client(town, LEAVING, patience_seconds=2.0) as clerk:
        with pytest.raises(RequestError) as refused:
            await books.pay_once(clerk)
    assert refused.value.reason == "NO_VOTE"
    assert "harbour (127.0.0.1:" in refused.value.hint
    config = config_path(town, LEAVING)
    doors = "".join(f'{each} = "127.0.0.1:{members.doors[each]}"\n' for each in rest)
    config.write_text(f"{config.read_text()}\n[follow]\n{doors}")
    for each in rest:
        members.admit(each, LEAVING, first_row(members, LEAVING).certificate)
    kill(town, LEAVING)
    town.start(LEAVING)
    await ready(town, LEAVING)
    await agreed(town, *rest, LEAVING, JOINING, OBSERVER, height=height)


@pytest.mark.long
async def test_who_was_away_for_epochs_comes_back(members: Town, books: Books) -> None:
    """It knows a committee of which one member has gone and one has changed its keys."""
    town = members.network
    kill(town, "social")
    port = town.member("integrity").client_port
    moved = replace(first_row(members, "integrity"), client_host="localhost", client_port=port)
    async with working(town, books):
        await members.change(
            members.replacement(moved),
            by=("treasury", "integrity", JOINING),
            servers=("integrity",),
        )
        await books.grown(10, "while it is away")
        await start(town, "social")
        await said(members, "social", votes=True, epoch=5, problem=None)
    await agreed(town, "social", "treasury", "integrity", JOINING, height=books.height)
    async with client(town, "social") as reader, trio.open_nursery():
        await books.check(reader)
