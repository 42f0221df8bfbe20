"""Sealed values over real processes: delivered, searched for, fetched, erased.

The network is one of its own: nodes outside the audience are searched whole, data and output, for
values and salts that they must never have had.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from comity import Call, Client
from comity.drafting import Sealed
from comity.errors import DraftError, NotReachableError, RequestError
from comity.founding import Person
from comity.results import Decision
from comity.session import Server
from consensus.genesis import OFFICIAL, SYSTEM
from consensus.sealed import Item
from scripts.localnet import ROOT, LocalNetwork, found
from tests.network.town import TUNING, agreed, eventually, kill, start

pytestmark = pytest.mark.process

PRIVACY = (("charter.privacy", ()),)
PEOPLE = (
    Person("clerk", "social", SYSTEM, (("files.clerk", ()),)),
    Person("reader", "treasury", OFFICIAL, PRIVACY),
    Person("second", "treasury", OFFICIAL, PRIVACY),
    Person("auditor", "integrity", OFFICIAL, (("files.auditor", ()),)),
    Person("outsider", "registry", OFFICIAL, PRIVACY),
)
IBAN = "DE02 1203 0000 0000 2020 51"
FINDINGS = "the roof leaks over the archive"
SINCE = 24_312
LEGAL = "request 7 under s 17"
OUTSIDE = ("registry", "social")
"""Agencies that are in no audience."""


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    """A running network for files with sealed fields."""
    rules = [ROOT / "configs/rules/charter.toml", Path(__file__).with_name("sealed.toml")]
    folder = tmp_path_factory.mktemp("sealed") / "network"
    with found(folder, rules, PEOPLE, tuning=TUNING) as network:
        network.start_all()
        yield network


@pytest.fixture
def salts(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The salts that clients of this process make."""
    made: list[bytes] = []

    def noted(*parts: Any) -> Any:
        made.append(parts[4])
        return Item(*parts)

    monkeypatch.setattr("comity.sealing.Item", noted)
    return made


@asynccontextmanager
async def as_(town: LocalNetwork, agency: str, name: str, *servers: str) -> AsyncIterator[Client]:
    key = town.key(agency, name)
    async with Client.connect(
        town.genesis, servers=servers or (agency,), key=key, patience_seconds=20
    ) as client:
        yield client


async def act(client: Client, action: str, **inputs: object) -> Decision:
    call = Call("files", action, inputs)
    return await client.transact(call, reads=await client.read_for(call))


async def opened(town: LocalNetwork, number: int, **sealed: str) -> None:
    async with as_(town, "social", "clerk") as clerk:
        values = {name: Sealed(value) for name, value in sealed.items()}
        done = await act(clerk, "open", number=number, since=SINCE, **values)
        assert done.applied, done.detail


async def seen(town: LocalNetwork, agency: str, name: str, number: int) -> dict[str, object]:
    """What somebody sees of the sealed fields of a file: a value, or the word for its absence."""
    async with as_(town, agency, name) as client:
        found = await client.unseal(await client.get("record", "file", number))
        return {
            field: each.value if each.state == "open" else each.state
            for field, each in found.items()
        }


def holding(town: LocalNetwork, agency: str, *secrets: bytes) -> list[str]:
    """The files of an agency's folder in which one of the secrets stands, keys of people aside."""
    folder = town.folder / agency
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and any(secret in path.read_bytes() for secret in secrets)
    ]


async def test_value_reaches_its_audience_and_stands_nowhere_in_the_clear(
    town: LocalNetwork, salts: list[bytes]
) -> None:
    await opened(town, 1, iban=IBAN, findings=FINDINGS)
    assert await seen(town, "treasury", "reader", 1) == {"iban": IBAN, "findings": FINDINGS}
    assert await seen(town, "integrity", "auditor", 1) == {"iban": "sealed", "findings": FINDINGS}
    assert await seen(town, "registry", "outsider", 1) == {"iban": "sealed", "findings": "sealed"}
    assert [len(each) for each in salts] == [32, 32]
    secrets = [IBAN.encode(), FINDINGS.encode(), *salts]
    for agency in town.agencies:
        assert holding(town, agency, *secrets) == []  # encrypted, where it is at all
    for agency in OUTSIDE:
        values = town.folder / agency / "data" / "sealed" / "keys"
        assert values.stat().st_size == 0
    assert (town.folder / "treasury" / "keys" / "sealed.key").stat().st_mode & 0o777 == 0o600


async def test_audience_of_which_an_agency_has_no_node_any_more_sees_the_value_all_the_same(
    town: LocalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opened(town, 12, iban=IBAN, findings=FINDINGS)
    known = Client._known_servers

    def left(self: Client) -> dict[str, Server]:
        return {name: each for name, each in known(self).items() if name != "treasury"}

    monkeypatch.setattr(Client, "_known_servers", left)
    assert await seen(town, "integrity", "auditor", 12) == {"iban": "sealed", "findings": FINDINGS}
    assert await seen(town, "treasury", "reader", 12) == {"iban": "absent", "findings": FINDINGS}
    with pytest.raises(DraftError, match="treasury has no node in the committee"):
        await opened(town, 13, iban=IBAN)


async def test_what_is_shown_is_recorded_whatever_the_rules_say(town: LocalNetwork) -> None:
    await opened(town, 2, findings=FINDINGS)
    await seen(town, "integrity", "auditor", 2)
    async with as_(town, "integrity", "auditor") as client:
        [reading] = await client.reads_of("record", "file", 2)
        assert (reading.method, reading.agency) == ("sealed", "integrity")


async def test_values_survive_the_death_of_all_nodes(town: LocalNetwork) -> None:
    await opened(town, 3, iban=IBAN)
    kill(town, *town.agencies)
    await start(town, *town.agencies)
    assert await seen(town, "treasury", "reader", 3) == {"iban": IBAN}


async def test_value_in_a_proposal_waits_and_is_kept_when_it_takes_effect(
    town: LocalNetwork,
) -> None:
    await opened(town, 4)
    async with as_(town, "social", "clerk") as clerk:
        call = Call("files", "suggest", {"file": [4], "findings": Sealed(FINDINGS)})
        stored = await clerk.propose(call, reads=await clerk.read_for(call))
        assert stored.state == "proposed", stored.detail
    async with as_(town, "integrity", "auditor") as auditor:
        assert (await auditor.approve(stored.txid)).applied
    assert await seen(town, "integrity", "auditor", 4) == {"findings": FINDINGS}


async def test_node_that_lost_its_values_gets_them_from_the_others_of_the_audience(
    town: LocalNetwork,
) -> None:
    await opened(town, 5, iban=IBAN, findings=FINDINGS)
    await agreed(town)
    kill(town, "integrity")
    shutil.rmtree(town.folder / "integrity" / "data" / "sealed")
    await start(town, "integrity")
    fetched = {"iban": "sealed", "findings": FINDINGS}
    keys = town.folder / "integrity" / "data" / "sealed" / "keys"

    async def again() -> bool:
        assert await seen(town, "integrity", "auditor", 5) == fetched
        return keys.stat().st_size > 0

    await eventually(again, "the link with treasury is up, and the value is fetched")
    kill(town, "treasury")
    try:
        assert await seen(town, "integrity", "auditor", 5) == fetched  # it has its own again
    finally:
        await start(town, "treasury")


async def test_erasure_reaches_every_node_of_the_audience_one_that_was_down_too(
    town: LocalNetwork,
) -> None:
    await opened(town, 6, iban=IBAN, findings="first")
    async with as_(town, "social", "clerk") as clerk:
        noted = await act(clerk, "note", file=[6], findings=Sealed(FINDINGS))
        assert noted.applied, noted.detail
        before = await clerk.get("record", "file", 6)
    await agreed(town, height=noted.height)
    kill(town, "integrity")
    async with as_(town, "treasury", "reader") as reader:
        second = town.key("treasury", "second")
        done = await reader.erase("treasury", "file", [6], ["findings"], LEGAL, cosigners=[second])
        assert done.applied, done.detail
        found = await reader.unseal(await reader.get("record", "file", 6))
        assert (found["findings"].state, found["findings"].txid) == ("erased", done.txid)
        assert found["iban"].value == IBAN
        assert (await reader.get("record", "file", 6)).value == before.value
        shown = await reader.get("erasure", "file", 6, "findings")
        assert (shown.value[1], shown.value[6]) == (2, LEGAL)
    await start(town, "integrity")
    await agreed(town, height=done.height)
    assert await seen(town, "integrity", "auditor", 6) == {"iban": "sealed", "findings": "erased"}
    kill(town, *town.agencies)
    await start(town, *town.agencies)
    assert (await seen(town, "integrity", "auditor", 6))["findings"] == "erased"
    async with as_(town, "social", "clerk") as clerk:
        again = await act(clerk, "note", file=[6], findings=Sealed("after"))
        assert again.applied, again.detail
    assert (await seen(town, "integrity", "auditor", 6))["findings"] == "after"


async def test_erasure_takes_a_second_person_and_an_agency_of_the_audience(
    town: LocalNetwork,
) -> None:
    await opened(town, 7, findings=FINDINGS)
    async with as_(town, "treasury", "reader") as reader:
        alone = await reader.erase("treasury", "file", [7], ["findings"], LEGAL)
        assert alone.code == "NEEDS_APPROVAL"
    async with as_(town, "registry", "outsider") as outsider:
        second = town.key("treasury", "second")
        refused = await outsider.erase(
            "registry", "file", [7], ["findings"], LEGAL, cosigners=[second]
        )
        assert (refused.code, refused.detail) == ("NOT_AUTHORIZED", [["agency", "registry"]])
    assert await seen(town, "integrity", "auditor", 7) == {"findings": FINDINGS}


async def test_without_a_node_of_the_audience_nothing_is_submitted(town: LocalNetwork) -> None:
    kill(town, "integrity")
    try:
        key = town.key("social", "clerk")
        async with Client.connect(
            town.genesis, servers=["social"], key=key, patience_seconds=1
        ) as clerk:
            call = Call("files", "open", {"number": 8, "since": SINCE, "findings": Sealed("x")})
            with pytest.raises(NotReachableError):
                await clerk.draft(call)
            assert not (await clerk.get("record", "file", 8)).present
    finally:
        await start(town, "integrity")


async def test_commitment_without_delivery_is_a_certified_refusal(town: LocalNetwork) -> None:
    async with as_(town, "social", "clerk") as clerk:
        done = await act(clerk, "open", number=9, since=SINCE, iban=bytes(32))
        assert (done.code, done.detail) == ("NOT_DELIVERED", [[0, "iban", "treasury"]])


async def test_draft_is_tried_out_without_delivery(town: LocalNetwork) -> None:
    async with as_(town, "social", "clerk") as clerk:
        call = Call("files", "open", {"number": 10, "since": SINCE, "iban": Sealed(IBAN)})
        found = await clerk.simulate(call, reads=await clerk.read_for(call))
        assert (found.code, found.findings) == ("APPLIED", ())


async def test_node_outside_the_audience_takes_no_value(town: LocalNetwork) -> None:
    async with as_(town, "social", "clerk") as clerk:
        key = town.key("social", "clerk")
        book = (await clerk.rules()).book
        call = Call("files", "open", {"number": 11, "since": SINCE, "iban": Sealed(IBAN)})
        servers = await clerk._servers(["registry"])

        async def elsewhere(names: object) -> dict[str, object]:
            return {"treasury": servers["registry"]}

        clerk._servers = elsewhere  # type: ignore[method-assign, assignment]
        with pytest.raises(RequestError, match="does not seal iban for registry"):
            await clerk._seal(book, [call], key.public, 999, await clerk.now_ms() + 1000)
    assert holding(town, "registry", IBAN.encode()) == []
