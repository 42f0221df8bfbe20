"""A node that is lost and restored elsewhere follows, and votes again under a key newly elected.

The whole way of ``docs/backup.md``: a backup under load, another machine with another address, a
new validator key, and the charter's act that names both. Who signed which height is read from the
certified log by a reader that shares no code with the product.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from comity import keys
from comity.ceremony import Address
from comity.founding import CONFIG_NAME, GENESIS_NAME, Member
from comity.joining import renewed
from consensus import genesis
from consensus.keyfile import KeyKind
from node.backup import making, restoring
from node.network.tls import make_certificate
from scripts.localmembers import Town
from scripts.ports import free_ports
from tests.network.harness import chain
from tests.network.harness.load import audit_file
from tests.network.town import (
    AGENT,
    NAMES,
    agreed,
    client,
    config_path,
    eventually,
    found_changing,
    kill,
    metric,
    start,
    status,
)
from tests.network.work import Books, working

pytestmark = [pytest.mark.process, pytest.mark.long]

ANNEX = "annex"
"""The new machine of the agency."""
OTHERS = tuple(name for name in NAMES if name != AGENT)
RATE = 4 * 2**20


@pytest.fixture
def own_town(tmp_path: Path) -> Iterator[Town]:
    town = found_changing(tmp_path / "network")
    with town.network as network:
        network.start_all()
        yield town


def new_machine(town: Town) -> Member:
    """Another machine: the agency's keys and configuration, other ports, no data."""
    network, old, new = town.network, town.home(AGENT), town.home(ANNEX)
    peer, clients, telemetry = free_ports(3)
    shutil.copytree(old / "keys", new / "keys")
    shutil.copy(old / GENESIS_NAME, new / GENESIS_NAME)
    text = (old / CONFIG_NAME).read_text()
    before = network.member(AGENT)
    own = f'telemetry = "127.0.0.1:{telemetry}"\npeers = "127.0.0.1:{peer}"\n'
    own += f'clients = "127.0.0.1:{clients}"'
    told = f'telemetry = "127.0.0.1:{before.telemetry_port}"'
    assert told in text
    (new / CONFIG_NAME).write_text(text.replace(told, own))
    member = Member(ANNEX, "The annex", "127.0.0.1", peer, clients, telemetry)
    network.members = [*network.members, member]
    return member


def next_key(town: Town, member: Member) -> bytes:
    """Make the next validator key on the new machine; return the file that asks for it."""
    folder = town.home(ANNEX) / "keys"
    rows = genesis.decode(town.network.genesis).committee.validators
    before = next(each for each in rows if each.agency == AGENT)
    address = Address("127.0.0.1", member.peer_port, "127.0.0.1", member.client_port)
    kept = {"node": town.pair(ANNEX, "node", KeyKind.NODE)}
    made = renewed(town.chain, before, address, kept, make_certificate=make_certificate)
    for name, pair in made.files.items():
        keys.create(folder / f"{name}.key", pair)
    return made.member


async def says(town: Town, agency: str, **wanted: object) -> None:
    async def it_does() -> bool:
        found = await status(town.network, agency)
        return all(found.get(key) == value for key, value in wanted.items())

    await eventually(it_does, f"{agency} says {wanted}")


async def test_a_restored_node_votes_again_under_a_key_newly_elected(
    own_town: Town, tmp_path: Path
) -> None:
    town, books = own_town.network, Books()
    backup = tmp_path / "social.tar"

    def back_up() -> None:
        making.make(config_path(town, AGENT), backup, lambda done, of: None, rate=RATE)

    async with working(town, books):
        await books.grown(10, "before the backup")
        await trio.to_thread.run_sync(back_up)
        await books.grown(10, "after it, signed by the key that will be lost")
        kill(town, AGENT)
        shutil.rmtree(own_town.home(AGENT) / "data")
        await books.grown(10, "without it")
    silent_from, _ = await agreed(town, *OTHERS)

    member = new_machine(own_town)
    restoring.restore(backup, config_path(town, ANNEX), lambda what, done, of: None, processes=0)
    async with working(town, books):
        await start(town, ANNEX)
        await says(own_town, ANNEX, votes=False, epoch=1)
        await books.grown(10, "beside the restored node")
        await agreed(town, *OTHERS, ANNEX, height=books.height)
        assert await metric(town, ANNEX, "comity_node_signing") == 0
        file = next_key(own_town, member)
        await own_town.change(["replace", AGENT, file], by=OTHERS, servers=OTHERS)
        await says(own_town, ANNEX, votes=True, epoch=2, problem=None)
        assert (await status(town, ANNEX))["restored_at"] > 0
        kill(town, OTHERS[0])
        await books.grown(10, "that the new key is needed for")
    await agreed(town, *OTHERS[1:], ANNEX, height=books.height)
    async with client(town, f"{AGENT}=127.0.0.1:{member.client_port}", *OTHERS[1:]) as reader:
        await books.check(reader)

    path = await audit_file(town, OTHERS[1], books.height, tmp_path)
    heights = (await trio.to_thread.run_sync(chain.read, path, town.genesis)).heights
    own = NAMES.index(AGENT)
    signed = [each.height for each in heights if own in each.signers]
    before = [each for each in signed if each <= silent_from]
    after = [each for each in signed if each > silent_from]
    assert before, "it signed before it was lost"
    assert after, "it signs in the end"
    assert {heights[each].epoch for each in after} == {2}
