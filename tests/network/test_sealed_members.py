"""Sealed values while the committee changes: keys rotate, members of an audience come and go.

What was sealed stays with its audience; what is sealed next, the nodes that have a seat then
acknowledge. Each part begins where the one before has ended.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from comity import Call, Client, keys
from comity.cli.app import run
from comity.drafting import Sealed
from comity.errors import DraftError
from comity.founding import Person
from comity.results import Decision
from consensus import genesis
from consensus.committee import Validator
from consensus.genesis import OFFICIAL, SYSTEM
from consensus.keyfile import KeyKind
from scripts import localmembers
from scripts.localmembers import Newcomer, Town
from scripts.localnet import ROOT
from tests.network.town import TUNING, agreed, data, eventually, kill, start, until

pytestmark = [pytest.mark.process, pytest.mark.long]

OFFICES = (("charter.privacy", ()),)
PEOPLE = (
    Person("clerk", "social", SYSTEM, (("files.clerk", ()),)),
    Person("reader", "treasury", OFFICIAL, OFFICES),
    Person("second", "treasury", OFFICIAL, OFFICES),
    Person("auditor", "integrity", OFFICIAL, (("files.auditor", ()), *OFFICES)),
)
BEFORE, AFTER = "DE02 1203 0000 0000 2020 51", "AT61 1904 3002 3457 3201"
FINDINGS = "the roof leaks over the archive"
SINCE = 24_312
JOINING = "harbour"
RULES = (
    Path(__file__)
    .with_name("sealed.toml")
    .read_text(encoding="utf-8")
    .replace(
        "[kinds.file]\n",
        "[kinds.file]\n"
        'fields.berth = { type = "text", sealed_for = ["harbour"], optional = true }\n',
    )
    + """
[actions.moor]
actor  = { role = "files.clerk" }
inputs = { file = "ref:file", berth = "sealed:harbour" }
load   = [ ["file", "file/{input.file}"] ]
set    = [ { record = "file", fields = { berth = "input.berth" } } ]
"""
)


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A running network of four with doors for observers, and files with sealed fields."""
    folder = tmp_path_factory.mktemp("sealed-members")
    (folder / "files.toml").write_text(RULES, encoding="utf-8")
    rules = [ROOT / "configs/rules/charter.toml", folder / "files.toml"]
    town = localmembers.found(folder / "network", rules, PEOPLE, tuning=TUNING)
    with town.network as network:
        network.start_all()
        yield town


@pytest.fixture(scope="module")
def joining(members: Town) -> Newcomer:
    """An agency that an audience names before it has a seat."""
    return members.add(JOINING, "joining", tuning=TUNING)


@asynccontextmanager
async def as_(members: Town, agency: str, name: str, *servers: str) -> AsyncIterator[Client]:
    key = members.network.key(agency, name)
    async with Client.connect(
        members.network.genesis, servers=servers or ("social",), key=key, patience_seconds=20
    ) as client:
        yield client


async def act(members: Town, action: str, **inputs: object) -> Decision:
    async with as_(members, "social", "clerk") as clerk:
        call = Call("files", action, inputs)
        return await clerk.transact(call, reads=await clerk.read_for(call))


async def opened(members: Town, number: int, **sealed: str) -> Decision:
    values = {name: Sealed(value) for name, value in sealed.items()}
    done = await act(members, "open", number=number, since=SINCE, **values)
    assert done.applied, done.detail
    return done


async def seen(members: Town, agency: str, name: str, number: int, *servers: str) -> dict[str, Any]:
    """What somebody sees of the sealed fields of a file: a value, or the word for its absence."""
    async with as_(members, agency, name, *servers) as client:
        found = await client.unseal(await client.get("record", "file", number))
        return {
            field: each.value if each.state == "open" else each.state
            for field, each in found.items()
        }


async def comes_to_be_seen(members: Town, *who: Any, **wanted: str) -> None:
    async def holds() -> bool:
        return await seen(members, *who) == wanted

    await eventually(holds, f"{who} see {wanted}")


def forget(members: Town, agency: str) -> None:
    """Have a node lose its sealed values while it does not run."""
    shutil.rmtree(data(members.network, agency) / "sealed")


def first_row(members: Town, agency: str) -> Validator:
    rows = genesis.decode(members.network.genesis).committee.validators
    return next(each for each in rows if each.agency == agency)


async def test_node_key_of_an_audience_changes(members: Town) -> None:
    town = members.network
    await opened(members, 1, iban=BEFORE, findings=FINDINGS)
    await opened(members, 2)
    async with as_(members, "social", "clerk") as clerk:
        call = Call("files", "suggest", {"file": [2], "findings": Sealed(FINDINGS)})
        proposed = await clerk.propose(call, reads=await clerk.read_for(call))
    pairs = {kind: keys.new_pair(kind) for kind in (KeyKind.VALIDATOR, KeyKind.NODE)}
    folder = members.home("treasury") / "keys"
    keys.create(folder / "validator-next.key", pairs[KeyKind.VALIDATOR])
    keys.create(folder / "node-next.key", pairs[KeyKind.NODE])
    new = localmembers.renewed(first_row(members, "treasury"), *pairs.values())
    change = members.replacement(new, *pairs.values())
    await members.change(change, by=("registry", "social", "integrity"))
    await agreed(town)
    assert await seen(members, "treasury", "reader", 1) == {"iban": BEFORE, "findings": FINDINGS}
    await opened(members, 3, iban=AFTER, findings=FINDINGS)
    assert await seen(members, "treasury", "reader", 3) == {"iban": AFTER, "findings": FINDINGS}
    async with as_(members, "integrity", "auditor") as auditor:
        assert (await auditor.approve(proposed.txid)).applied
        ended = await auditor.proposal(proposed.txid)
    assert ended.state == "stale"  # by a node key that is not of the committee any more
    assert ended.end is not None
    assert ended.end.why == ("NOT_DELIVERED", 0, [[0, "findings", "treasury"]])
    assert await seen(members, "integrity", "auditor", 2) == {}
    kill(town, "treasury")
    forget(members, "treasury")
    await start(town, "treasury")
    await comes_to_be_seen(members, "treasury", "reader", 3, iban="absent", findings=FINDINGS)


async def test_agency_of_an_audience_joins(members: Town, joining: Newcomer) -> None:
    town = members.network
    await opened(members, 4)
    with pytest.raises(DraftError, match="harbour"):
        await act(members, "moor", file=[4], berth=Sealed("pier 7"))
    refused = await act(members, "moor", file=[4], berth=bytes(32))
    assert (refused.code, refused.detail) == ("NOT_DELIVERED", [[0, "berth", JOINING]])
    await start(town, JOINING)
    await members.change(members.admission(joining), by=("social", "treasury", "integrity"))
    await agreed(town)
    done = await act(members, "moor", file=[4], berth=Sealed("pier 7"))
    assert done.applied, done.detail
    assert await seen(members, JOINING, "chief", 4) == {"berth": "pier 7"}
    assert await seen(members, "treasury", "reader", 4) == {"berth": "sealed"}


async def test_agency_of_an_audience_leaves_and_another_takes_its_place(members: Town) -> None:
    """What was sealed for it alone is with its successor before its node has gone."""
    town = members.network
    await opened(members, 5, iban=BEFORE, findings=FINDINGS)
    kept = data(town, "integrity") / "sealed" / "keys"
    before = kept.stat().st_size
    for action, agency, other in (
        ("name_successor", "treasury", "successor"),
        ("accept_succession", "integrity", "predecessor"),
    ):
        inputs = {"agency": agency, other: "integrity" if agency == "treasury" else "treasury"}
        call = Call("charter", action, inputs)
        async with as_(members, agency, "chief") as chief:
            cosigners = [town.key("social", "chief")]
            done = await chief.transact(call, reads=await chief.read_for(call), cosigners=cosigners)
            assert done.applied, done.detail
    await until(lambda: kept.stat().st_size > before, "the values of treasury are at integrity")
    await members.change(["leave", "treasury"], by=("registry", "social", "integrity", JOINING))
    kill(town, "treasury")
    both = {"iban": BEFORE, "findings": FINDINGS}
    assert await seen(members, "integrity", "auditor", 5) == both
    assert await seen(members, "treasury", "reader", 5) == both  # it acts for integrity now
    await opened(members, 6, iban=AFTER, findings=FINDINGS)
    assert await seen(members, "integrity", "auditor", 6) == {"iban": AFTER, "findings": FINDINGS}
    refused = await act(members, "note", file=[6], findings=bytes(32))
    assert refused.detail == [[0, "findings", "integrity"], [0, "findings", "treasury"]]


async def test_agency_of_an_audience_leaves_and_nobody_takes_its_place(members: Town) -> None:
    await opened(members, 7, iban=BEFORE)
    moored = await act(members, "moor", file=[7], berth=Sealed("pier 9"))
    assert moored.applied, moored.detail
    newcomer = members.add("court", "joining", tuning=TUNING)
    await start(members.network, "court")
    by = ("registry", "social", "integrity")
    await members.change(members.admission(newcomer), by=by)
    await members.change(["leave", JOINING], by=(*by, JOINING))
    assert await seen(members, "integrity", "auditor", 7) == {"iban": BEFORE, "berth": "sealed"}
    assert await seen(members, JOINING, "chief", 7) == {"iban": "sealed", "berth": "absent"}
    refused = await act(members, "moor", file=[7], berth=bytes(32))
    assert (refused.code, refused.detail) == ("NOT_DELIVERED", [[0, "berth", JOINING]])


def test_evidence_of_all_of_it_needs_the_genesis_hash_alone(
    members: Town, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was decided in the first epoch and in the last, under five committees."""
    chain, genesis_file = members.chain.hex(), str(members.network.folder / "genesis.cbor")
    txids = {name: trio.run(_txid_of, members, number) for name, number in EVER.items()}

    def told(*words: str) -> Any:
        capsys.readouterr()
        assert run((*words, "--json")) == 0, (words, capsys.readouterr())
        return json.loads(capsys.readouterr().out)

    key = str(members.network.key_file("social", "clerk"))
    clerk = ("--genesis", genesis_file, "--server", "social", "--key", key)
    for name, txid in txids.items():
        file = str(tmp_path / name)
        told("bundle", txid, "-o", f"{file}.bundle", *clerk)
        told("receipt", txid, "-o", f"{file}.receipt", *clerk)
        for form in ("bundle", "receipt"):
            found = told("verify", f"{file}.{form}", "--genesis", chain)
            assert (found["valid"], found["txid"]) == (True, f"0x{txid}")
    kill(members.network, "social")
    home = members.home("social")
    audited = told("audit", str(home / "data"), "--genesis", genesis_file)
    assert audited["holds"]
    told("snapshot", "export", "--node", str(home), "-o", str(tmp_path / "all"))
    found = told("snapshot", "verify", str(tmp_path / "all"), "--genesis", chain)
    assert found["whole"]
    assert "treasury" not in found["signers"]
    plain = [each.encode() for each in (BEFORE, AFTER, FINDINGS, "pier 7", "pier 9")]
    for path in tmp_path.iterdir():
        assert not [each for each in plain if each in path.read_bytes()], path.name


EVER: Final = {"first": 1, "last": 7}
"""Files that were opened in the first epoch, and in one of the last."""


async def _txid_of(members: Town, number: int) -> str:
    async with as_(members, "social", "clerk") as clerk:
        history = await clerk.history("record", "file", number, transactions=True)
        made = history.versions[0].transactions
        assert made is not None
        return made[0].hex()
