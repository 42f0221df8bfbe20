"""Disclosing through the client: the file it gets, who else gets it, and who may list what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio

from comity import Call, Client, DraftError, NotReachableError, RequestError
from comity.disclosing import Wanted
from comity.keys import Key
from consensus import codec, genesis
from consensus.answers import Answer
from consensus.codec import Value
from consensus.errors import ComityError, DecodeError
from consensus.evidence.disclosure import verify
from consensus.evidence.verify import verify as verify_bundle
from consensus.genesis import Genesis, Principal, RoleGiven
from consensus.ledger.disclosures import Disclosure
from consensus.ledger.rules import encode_definition, load_toml
from consensus.protocol import GetDisclosed, Status, decode_request, encode_request
from tests.comity import twin as stage
from tests.comity.twin import ADMINISTRATOR, CITIZEN, OFFICIAL, Harness, Twin, key_of

AUDITOR = key_of(60)
COLLEAGUE = key_of(61)
NEIGHBOUR = key_of(62)
CITIZEN_ID = [stage.CITIZEN_TOKEN]
HOUR_MS = 3_600_000
COURT = ["party", "District Court"]
DISCLOSE = """
[actions.disclose]
kernel = true
actor = { self = "who.principal" }
"""
RULES = stage.RULES.replace("[actions.enter]", """
[kinds.secret]
fields.owner = { type = "ref", kind = "person" }
fields.code  = { type = "int" }
read  = [ { role = "notes.writer" }, { self = "owner" } ]
class = "restricted"
log_reads = true

[kinds.envelope]
fields.pin  = { type = "commitment", group = "inside" }
fields.size = { type = "int", group = "inside" }
fields.seal = { type = "commitment" }

[kinds.form]
fields.a = { type = "int" }
fields.b = { type = "int" }
fields.c = { type = "int" }
fields.d = { type = "int" }
fields.e = { type = "int" }
fields.f = { type = "int" }
fields.g = { type = "int" }
fields.h = { type = "int" }

[actions.fill]
actor = { role = "notes.writer" }
inputs = { number = "int", first = "int" }
create = [ { kind = "form", id = ["{input.number}"], set = { a = "input.first", b = "12", \
c = "13", d = "14", e = "15", f = "16", g = "17", h = "18" } } ]

[actions.enclose]
actor = { role = "notes.writer" }
inputs = { number = "int", pin = "commitment", seal = "commitment" }
create = [ { kind = "envelope", id = ["{input.number}"], \
set = { pin = "input.pin", size = "3", seal = "input.seal" } } ]

[actions.hide]
actor = { role = "notes.writer" }
inputs = { number = "int", owner = "ref:person", code = "int" }
create = [ { kind = "secret", id = ["{input.number}"], \
set = { owner = "input.owner", code = "input.code" } } ]

[actions.enter]""", 1)  # fmt: skip


def make_genesis() -> Genesis:
    """The twin's network with the act, an auditor, a colleague elsewhere and another citizen."""
    base = stage.make_genesis()
    ids = {AUDITOR: bytes([104]) * 32, COLLEAGUE: bytes([105]) * 32, NEIGHBOUR: bytes([106]) * 32}
    return replace(
        base,
        principals=(
            *base.principals,
            Principal(ids[AUDITOR], "west", genesis.OFFICIAL, b"u" * 32),
            Principal(ids[COLLEAGUE], "east", genesis.OFFICIAL, b"c" * 32),
            Principal(ids[NEIGHBOUR], "east", genesis.CITIZEN, None, (bytes([8]) * 32,)),
        ),
        keys=(*base.keys, *((key.public, id_) for key, id_ in ids.items())),
        roles=(*base.roles, RoleGiven(ids[AUDITOR], "charter.auditor")),
        rules=tuple(
            encode_definition(load_toml(each)) for each in (stage.CHARTER + DISCLOSE, RULES)
        ),
    )


GENESIS = make_genesis()
COLLEAGUE_ID = bytes([105]) * 32


@pytest.fixture
async def network() -> Any:
    """A network in which the citizen is registered, and has a note and a secret."""
    async with stage.harness(Twin(GENESIS)) as made:
        async with made.client() as client:
            await act(client, "enter", token=stage.CITIZEN_TOKEN, name="Ann")
            await act(client, "enter", token=bytes([8]) * 32, name="Bob")
            await act(client, "write", number=1, text="a long story", amount=7, owner=CITIZEN_ID)
            await act(client, "hide", number=1, owner=CITIZEN_ID, code=4711)
        yield made


async def act(client: Client, action: str, **inputs: Value) -> None:
    call = Call("notes", action, inputs)
    done = await client.transact(call, reads=await client.read_for(call))
    assert done.applied, done.detail


async def disclose(
    client: Client, wanted: Wanted | None = None, to: list[Value] | None = None, hours: int = 1
) -> Any:
    """Open the amount of the note to the court, unless said otherwise."""
    return await client.disclose(
        wanted or Wanted("note", [1], ["amount"]),
        to=to or COURT,
        purpose="a court asks",
        legal="Courts Act s 4",
        until_ms=await client.now_ms() + hours * HOUR_MS,
    )


def chain() -> bytes:
    return genesis.chain_id(GENESIS.encode())


# --- the file ----------------------------------------------------------------------------------


async def test_the_file_opens_what_was_named_and_checks_with_the_genesis_hash_alone(
    network: Harness,
) -> None:
    async with network.client() as client:
        made = await disclose(client)
    assert made.decision.applied
    found = verify(made.opened.file, chain())
    assert found == made.opened.disclosed
    (item,) = found.items
    assert item.disclosure[1:8] == (
        "note", [1], 1, ["amount"], COURT, "a court asks", "Courts Act s 4",
    )  # fmt: skip
    assert [(each.name, each.version, each.value) for each in item.fields] == [("amount", 1, 7)]
    assert item.current
    assert found.network == "twin"
    assert b"a long story" not in made.opened.file
    assert b"text" not in made.opened.file
    assert stage.CITIZEN_TOKEN not in made.opened.file


async def test_it_is_there_only_after_the_act_is_certified(network: Harness) -> None:
    async with network.client() as client:
        network.twin.paused = True
        with trio.move_on_after(0.3) as scope:
            await disclose(client)
        assert scope.cancelled_caught
        made = await client.my_disclosures()
        assert made.disclosures == ()
        network.twin.paused = False
        network.twin.bell.set()


async def test_several_records_are_opened_in_one_file_all_or_none(network: Harness) -> None:
    async with network.client() as client:
        until = await client.now_ms() + HOUR_MS
        words = {"to": COURT, "purpose": "why", "legal": "law", "until_ms": until}
        both = [Wanted("note", [1], ["text"]), Wanted("person", CITIZEN_ID, ["name"])]
        made = await client.disclose(*both, **words)
        items = verify(made.opened.file, chain()).items
        assert sorted(each.fields[0].value for each in items) == ["Ann", "a long story"]
        again = await client.disclosed(*(each.disclosure.id for each in items))
        assert again.disclosed.items == items
        none = await client.disclose(both[0], Wanted("note", [99], ["text"]), **words)
        assert none.decision.code == "NOT_FOUND"
        assert none.opened is None
        assert len((await client.my_disclosures()).disclosures) == 2


async def test_an_earlier_version_is_shown_as_it_was(network: Harness) -> None:
    async with network.client() as client:
        await act(client, "amend", note=[1], text="another story")
        made = await disclose(client, Wanted("note", [1], ["amount", "text"], version=1))
        (item,) = verify(made.opened.file, chain()).items
        assert [each.value for each in item.fields] == [7, "a long story"]
        assert not item.current
        assert b"another story" not in made.opened.file


async def test_what_was_present_is_still_opened_when_the_record_has_moved_on(
    network: Harness,
) -> None:
    async with network.client() as client:
        made = await disclose(client, Wanted("note", [1], ["text"]))
        first = made.opened.disclosed
        await act(client, "amend", note=[1], text="another story")
        later = (await client.disclosed(first.items[0].disclosure.id)).disclosed
        assert first.items[0].current
        assert not later.items[0].current
        assert later.items[0].fields == first.items[0].fields
        assert later.height > first.height


async def test_a_field_of_a_group_and_unknown_ones(network: Harness) -> None:
    async with network.client() as client:
        with pytest.raises(DraftError, match="no field 'colour'"):
            await disclose(client, Wanted("note", [1], ["colour"]))
        with pytest.raises(DraftError, match="no domain has a kind 'letter'"):
            await disclose(client, Wanted("letter", [1], ["text"]))
        with pytest.raises(DraftError, match="no field is named"):
            await disclose(client, Wanted("note", [1], []))


async def test_a_refusal_is_a_result_and_opens_nothing(network: Harness) -> None:
    async with network.client() as client:
        made = await disclose(client, hours=24 * 366)
        assert (made.decision.code, made.opened) == ("BAD_INPUT", None)


# --- for whom it is ----------------------------------------------------------------------------


async def ids(network: Harness, to: list[Value], wanted: Wanted | None = None) -> bytes:
    """Return the id of a disclosure that the official makes."""
    async with network.client() as client:
        made = await disclose(client, wanted, to)
    found: bytes = made.opened.disclosed.items[0].disclosure.id
    return found


async def denied(network: Harness, key: Key | None, ask: Any) -> str:
    """Return with which status a node answers somebody."""
    async with network.client(key) as client:
        try:
            await ask(client)
        except RequestError as error:
            return error.reason
        except NotReachableError as error:
            return error.code
    return "OK"


@pytest.mark.parametrize(
    ("to", "key", "status"),
    [
        (["principal", COLLEAGUE_ID], COLLEAGUE, "OK"),
        (["agency", "east"], COLLEAGUE, "OK"),
        (["agency", "east"], OFFICIAL, "OK"),  # who made it
        (["agency", "east"], CITIZEN, "DENIED"),  # is of the agency, but a citizen
        (["agency", "east"], ADMINISTRATOR, "DENIED"),
        (["agency", "west"], COLLEAGUE, "DENIED"),
        (["agency", "east"], AUDITOR, "DENIED"),  # sees that there is one, not what it opens
        (COURT, COLLEAGUE, "DENIED"),
        (COURT, None, "DENIED"),
    ],
)
async def test_what_it_opens_goes_to_its_audience_and_to_who_made_it(
    network: Harness, to: list[Value], key: Key | None, status: str
) -> None:
    id_ = await ids(network, to, Wanted("secret", [1], ["code"]))
    assert await denied(network, key, lambda client: client.disclosed(id_)) == status


async def test_the_audience_gets_what_its_read_rights_do_not_give(network: Harness) -> None:
    id_ = await ids(network, ["principal", COLLEAGUE_ID], Wanted("secret", [1], ["code"]))
    place = ("record", "secret", 1)
    assert await denied(network, COLLEAGUE, lambda client: client.get(*place)) == "DENIED"
    async with network.client(COLLEAGUE) as client:
        opened = await client.disclosed(id_)
    assert opened.disclosed.items[0].fields[0].value == 4711


async def test_it_is_over_for_the_audience_at_its_end(network: Harness) -> None:
    id_ = await ids(network, ["principal", COLLEAGUE_ID])
    network.twin.now_ms += 2 * HOUR_MS
    network.twin.make_block()
    assert await denied(network, COLLEAGUE, lambda client: client.disclosed(id_)) == "DENIED"
    assert await denied(network, OFFICIAL, lambda client: client.disclosed(id_)) == "OK"


def test_a_request_for_none_or_for_one_twice_is_malformed() -> None:
    for ids in ([], [bytes(32), bytes(32)], [bytes(31)], [bytes([n]) * 32 for n in range(65)]):
        with pytest.raises(DecodeError):
            decode_request(codec.encode([1, "disclosed", [0, ids]]))
    request = GetDisclosed(7, (bytes(32), b"1" * 32))
    assert decode_request(encode_request(1, request)) == (1, request)


async def test_what_there_is_not_is_not_found(network: Harness) -> None:
    ask = lambda client: client.disclosed(bytes(32))  # noqa: E731
    assert await denied(network, OFFICIAL, ask) == "NOT_FOUND"


async def test_a_citizen_discloses_the_own_record_and_no_other(network: Harness) -> None:
    async with network.client(CITIZEN) as client:
        own = await disclose(client, Wanted("secret", [1], ["code"]))
        assert own.opened.disclosed.items[0].fields[0].value == 4711
    async with network.client(NEIGHBOUR) as client:
        other = await disclose(client, Wanted("secret", [1], ["code"]))
        assert other.decision.code == "NOT_AUTHORIZED"


# --- who may list ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "status"),
    [
        (CITIZEN, "OK"),
        (AUDITOR, "OK"),
        (OFFICIAL, "DENIED"),  # who made it sees it among the own ones
        (COLLEAGUE, "DENIED"),
        (ADMINISTRATOR, "DENIED"),
        (NEIGHBOUR, "DENIED"),
        (None, "DENIED"),
    ],
)
async def test_disclosures_of_a_record_are_for_whom_it_concerns_and_for_auditors(
    network: Harness, key: Key | None, status: str
) -> None:
    await ids(network, COURT, Wanted("secret", [1], ["code"]))
    await ids(network, COURT)
    for ask in (
        lambda client: client.disclosures_of("secret", 1),
        lambda client: client.disclosures_of("note", 1),
        lambda client: client.disclosures_about(CITIZEN_ID),
    ):
        assert await denied(network, key, ask) == status


async def test_whom_it_concerns_sees_who_saw_what_and_why(network: Harness) -> None:
    await ids(network, COURT, Wanted("secret", [1], ["code"]))
    await ids(network, ["agency", "east"], Wanted("person", [bytes([8]) * 32], ["name"]))
    await ids(network, COURT, Wanted("person", CITIZEN_ID, ["name"]))
    async with network.client(CITIZEN) as client:
        found = await client.my_disclosures()
        about = await client.disclosures_about(CITIZEN_ID)
    assert found.disclosures == about.disclosures
    assert [(each.kind, each.leaves, each.purpose) for each in found.disclosures] == [
        ("secret", ["code"], "a court asks"),
        ("person", ["name"], "a court asks"),
    ]
    assert all(isinstance(each, Disclosure) for each in found.disclosures)


async def test_ones_own_are_those_made_and_those_received(network: Harness) -> None:
    made = await ids(network, ["agency", "east"])
    async with network.client(COLLEAGUE) as client:
        received = await client.my_disclosures()
    async with network.client(OFFICIAL) as client:
        own = await client.my_disclosures()
    assert [each.id for each in received.disclosures] == [made]
    assert [each.id for each in own.disclosures] == [made]
    assert received.heights[made] <= received.height


async def test_what_a_decision_wrote_about_a_disclosure_stays_closed_to_others(
    network: Harness,
) -> None:
    async with network.client() as client:
        made = await disclose(client)
    leaves = {}
    for name, key in {"author": OFFICIAL, "auditor": AUDITOR, "other": ADMINISTRATOR}.items():
        async with network.client(key) as client:
            leaves[name] = (await client.decision(made.decision.txid)).leaves
    assert "writes:charter" in leaves["auditor"]
    assert "writes:charter" not in leaves["other"]
    assert "writes:charter" not in leaves["author"]  # it names whom the record concerns


async def test_an_act_of_disclosing_is_judged_again_from_its_bundle(network: Harness) -> None:
    """By an auditor, who may see how many disclosures there were before."""
    async with network.client() as client:
        await disclose(client)
        made = await disclose(client)
        none = await disclose(client, Wanted("note", [9], ["amount"]))
    async with network.client(AUDITOR) as auditor:
        for decision in (made.decision, none.decision):
            found = verify_bundle(await auditor.bundle(decision.txid), chain())
            assert found.judged
            assert found.decision.code.name == decision.code
    async with network.client(COLLEAGUE) as other:
        with pytest.raises(RequestError, match="may not read"):
            await other.bundle(made.decision.txid)


async def test_reading_what_is_opened_is_recorded_where_rules_want_it(network: Harness) -> None:
    id_ = await ids(network, ["agency", "east"], Wanted("secret", [1], ["code"]))
    before = len(network.twin.reads)
    async with network.client(COLLEAGUE, purpose="case 12") as client:
        await client.disclosed(id_)
    (place, reading), *rest = network.twin.reads[before:]
    assert not rest
    assert place.components == ("secret", 1)
    assert (reading.method, reading.purpose, reading.agency) == ("disclosed", "case 12", "east")
    network.twin.unrecordable = True
    assert await denied(network, COLLEAGUE, lambda client: client.disclosed(id_)) == "NOT_REACHABLE"


# --- lies --------------------------------------------------------------------------------------


async def test_a_node_that_opens_another_value_is_found_out(network: Harness) -> None:
    def lie(answer: Answer) -> list[Answer]:
        result = answer.result
        if answer.status == Status.OK and type(result) is list and len(result) == 5:
            result[4][0][4][2] = 8  # the amount
        return [answer]

    id_ = await ids(network, COURT)
    network.lies["north"] = lie
    async with network.client(patience_seconds=0.5) as client:
        with pytest.raises(ComityError) as error:
            await client.disclosed(id_)
    assert "is not what the state holds" in error.value.message
