"""Drafts tried out: every lack at once, who could mend it, nothing kept, nothing let slip."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comity import Call, simulating
from comity.cli.asking import simulation_value
from comity.cli.values import plain
from comity.errors import RequestError
from comity.results import Entry, Finding, Simulation
from consensus import codec
from consensus.ledger.rules import encode_definition, load_toml
from consensus.protocol import Simulate, StateKey, Status
from consensus.reads import Page
from tests.comity.shell import open_shell
from tests.comity.twin import (
    ADMINISTRATOR,
    CHARTER,
    CITIZEN,
    OFFICIAL,
    RULES,
    STRANGER,
    Twin,
    harness,
    make_genesis,
)
from tests.node.api.care import RULES as CARE_RULES
from tests.node.api.care import WORKER, Acts, absent, founded

MORE = """
[actions.settle]
actor = { role = "notes.writer" }
inputs = { note = "ref:note", amount = "money:USD" }
load = [ ["note", "note/{input.note}"] ]
depends = ["note.amount"]
require = [ { code = "SMALL", that = "input.amount < 100", say = "at most 99" },
            { code = "EVEN", that = "input.amount % 2 == 0", say = "an even amount" },
            { code = "OPEN", that = "note.status == 'open'", say = "the note is open" } ]
approvals = { role = "charter.administrator" }
set = [ { record = "note", status = "closed" } ]
move = [ { from = "account/pot/a", to = "account/pot/b", amount = "input.amount" } ]
"""
NOTE = StateKey("record", ("note", 7))
PAY = Call("notes", "pay", {"source": "a", "target": "b", "amount": 5})


def settle(amount: int) -> Call:
    return Call("notes", "settle", {"note": [7], "amount": amount})


def town() -> Twin:
    rules = tuple(encode_definition(load_toml(text)) for text in (CHARTER, RULES + MORE))
    return Twin(replace(make_genesis(), rules=rules))


async def with_note(client: Any) -> Entry:
    """Write note 7 and change it: two versions; return it as it was first."""
    inputs = {"number": 7, "text": "one", "amount": 3}
    call = Call("notes", "write", inputs)
    assert (await client.transact(call, reads=await client.read_for(call))).applied
    first: Entry = await client.get("record", "note", 7)
    amend = Call("notes", "amend", {"note": [7], "text": "two"})
    assert (await client.transact(amend, reads=[first])).applied
    return first


async def test_everything_that_is_lacking_is_told_at_once() -> None:
    async with harness(town()) as h, h.client(OFFICIAL) as client:
        await with_note(client)
        hold = {"targets": [["record", ["note", 7]]], "scopes": ["edit"], "legal": "Act"}
        async with h.client(ADMINISTRATOR) as other:
            call = Call("charter", "place_hold", {**hold, "until": None})
            assert (await other.transact(call)).applied
        stale = Entry(NOTE, 0, 0, 9, present=True)
        found = await client.simulate(settle(101), reads=[stale])
        assert [each.code for each in found.findings] == [
            "STALE",
            "HELD",
            "REQUIREMENT",
            "REQUIREMENT",
            "NEEDS_APPROVAL",
        ]
        assert [each.detail[0] for each in found.failing] == ["SMALL", "EVEN"]
        assert (found.state, found.code) == ("refused", "STALE")
        assert found.detail == found.moved[0].detail
        assert len(found.holds) == 1
        assert [row[:3] for row in found.missing] == [["role", "charter.administrator", 1]]
        assert [h.principal for h in found.holders["charter.administrator"]] == [bytes([102]) * 32]
        assert not found.complete
        assert not found.hidden


async def test_outcome_is_what_the_executor_would_decide() -> None:
    async with harness(town()) as h, h.client(OFFICIAL) as client:
        for amount, expected in ((5, "APPLIED"), (0, "REQUIREMENT"), (9_999_999, "INSUFFICIENT")):
            call = Call("notes", "pay", {"source": "a", "target": "b", "amount": amount})
            tried = await client.simulate(call)
            real = await client.transact(call)
            assert tried.code == real.code == expected
            assert (tried.state, tried.call, tried.detail) == (real.state, real.call, real.detail)
            assert [each.code for each in tried.findings] == [expected] * (expected != "APPLIED")


async def test_nothing_is_kept_and_no_number_is_spent() -> None:
    async with harness(town()) as h, h.client(OFFICIAL) as client:
        before = (h.twin.state.root, h.twin.state.height)
        for _ in range(3):
            assert (await client.simulate(PAY)).code == "APPLIED"
        assert (h.twin.state.root, h.twin.state.height) == before
        assert (await client.get("account", "pot", "b")).value[1] == 0
        assert (await client.transact(PAY)).applied
        assert not h.twin.pool


async def test_draft_that_is_tried_out_can_be_signed_afterwards() -> None:
    async with harness(town()) as h, h.client(OFFICIAL) as client:
        draft = await client.draft(PAY)
        assert (await client.requirements(draft)).code == "APPLIED"
        done = await client.submit(client.sign(draft))
        assert done.applied
        again = await client.requirements(draft)
        assert again.of("SEQUENCE_SPENT")


async def test_later_calls_see_what_earlier_ones_would_do() -> None:
    pays = [Call("notes", "pay", {"source": "b", "target": "a", "amount": n}) for n in (0, 4)]
    async with harness(town()) as h, h.client(OFFICIAL) as client:
        both = await client.simulate(PAY, replace(pays[1]))
        assert (both.code, both.findings) == ("APPLIED", ())
        found = await client.simulate(pays[0], pays[1])
        assert [(each.code, each.call) for each in found.findings] == [
            ("REQUIREMENT", 0),
            ("INSUFFICIENT", 1),
        ]
        assert not found.complete


async def test_whoever_may_not_act_is_told_no_more_than_that() -> None:
    async with harness(town()) as h, h.client(ADMINISTRATOR) as client:
        found = await client.simulate(settle(101), reads=[Entry(NOTE, 0, 0, 1, present=True)])
        assert [each.code for each in found.findings] == ["NOT_AUTHORIZED"]  # not that it is absent
        async with h.client(OFFICIAL) as writer:
            await with_note(writer)
        found = await client.simulate(settle(101), reads=[Entry(NOTE, 0, 0, 1, present=True)])
        assert [each.code for each in found.findings] == ["NOT_AUTHORIZED"]


async def test_only_acts_of_the_own_key_are_tried_out() -> None:
    async with harness(town()) as h, h.client(OFFICIAL) as client:
        draft = await client.draft(PAY)
        for key in (ADMINISTRATOR, CITIZEN, STRANGER, None):
            async with h.client(key) as other:
                with pytest.raises(RequestError) as caught:
                    await other.requirements(draft)
                assert caught.value.status == Status.DENIED


async def test_malformed_draft_is_told_and_the_connection_goes_on() -> None:
    async with harness(town()) as h, h.client(OFFICIAL) as client:
        draft = await client.draft(PAY)
        whole = codec.parse(simulating.request(draft).envelope)
        whole[2][1] = b"s" * 31
        bad = Simulate(codec.encode(whole))
        with pytest.raises(RequestError) as caught:
            await client._network.ask(bad, lambda result, _: result)
        assert caught.value.status == Status.MALFORMED
        assert (await client.simulate(PAY)).code == "APPLIED"


# --- cosigners and proposals --------------------------------------------------------------------


async def test_cosigners_count_without_having_signed() -> None:
    async with harness(town()) as h, h.client(OFFICIAL) as client:
        await with_note(client)
        reads = [await client.get("record", "note", 7)]
        alone = await client.simulate(settle(50), reads=reads)
        assert [each.code for each in alone.findings] == ["NEEDS_APPROVAL"]
        both = await client.simulate(settle(50), reads=reads, cosigners=[ADMINISTRATOR.public])
        assert (both.state, both.findings, both.complete) == ("applied", (), True)
        other = await client.simulate(settle(50), reads=reads, cosigners=[CITIZEN.public])
        (missing,) = other.missing
        assert missing[:3] == ["role", "charter.administrator", 1]
        assert missing[4]  # and why the one who is there does not fill it
        unknown = await client.simulate(settle(50), reads=reads, cosigners=[bytes(range(32))])
        assert unknown.state == "refused"


async def test_draft_for_a_proposal_says_what_it_needs_for_its_effect() -> None:
    async with harness(town()) as h, h.client(OFFICIAL) as client:
        await with_note(client)
        reads = [await client.get("record", "note", 7)]
        sound = await client.simulate(settle(50), reads=reads, propose=True)
        assert (sound.state, sound.code, sound.complete) == ("proposed", "PROPOSED", True)
        assert [each.code for each in sound.findings] == ["NEEDS_APPROVAL"]
        poor = await client.simulate(settle(98), settle(98), reads=reads, propose=True)
        assert poor.state == "proposed"
        assert "STALE" in [each.code for each in poor.findings] or poor.failing
        odd = await client.simulate(settle(101), reads=reads, propose=True)
        assert odd.state == "proposed"
        assert [each.code for each in odd.findings] == [
            "REQUIREMENT",
            "REQUIREMENT",
            "NEEDS_APPROVAL",
        ]
        assert not odd.complete
        signed = await client.simulate(
            settle(50), reads=reads, cosigners=[ADMINISTRATOR.public], propose=True
        )
        assert (signed.state, signed.findings) == ("proposed", ())
        assert (await client.proposals("north", "open")).proposals == ()


async def test_effects_of_a_draft_for_a_proposal_are_tried_without_its_approvals() -> None:
    text = RULES + MORE.replace("input.amount < 100", "input.amount < 9_000_000".replace("_", ""))
    rules = tuple(encode_definition(load_toml(each)) for each in (CHARTER, text))
    async with harness(Twin(replace(make_genesis(), rules=rules))) as h, h.client() as client:
        await with_note(client)
        reads = [await client.get("record", "note", 7)]
        found = await client.simulate(settle(8_000_000), reads=reads, propose=True)
        assert [each.code for each in found.findings] == ["NEEDS_APPROVAL", "INSUFFICIENT"]
        direct = await client.simulate(settle(8_000_000), reads=reads)
        assert [each.code for each in direct.findings] == ["NEEDS_APPROVAL"]
        assert (found.complete, direct.complete) == (True, False)


def test_command_takes_a_cosigner_by_key_or_by_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sh = open_shell(Keyed(genesis=town().genesis), tmp_path, monkeypatch, capsys)
    assert sh.note(7).status == 0
    words = ("simulate", "notes.settle", "note=7", "amount=50", "--json")
    assert sh(*words).json["code"] == "NEEDS_APPROVAL"
    for name in (ADMINISTRATOR.public.hex(), (bytes([102]) * 32).hex()):
        said = sh(*words, "--cosigner", name)
        assert (said.status, said.json["state"]) == (0, "applied")
    said = sh(*words, "--cosigner", "12")
    assert said.status == 2
    assert "no public key or id" in said.out + said.err, (said.out, said.err)
    said = sh(*words, "--cosigner", OFFICIAL.public.hex())
    assert said.status == 2


def test_command_says_what_a_proposal_would_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sh = open_shell(town(), tmp_path, monkeypatch, capsys)
    assert sh.note(7).status == 0
    words = ("requirements", "notes.settle", "note=7", "amount=50")
    said = sh(*words)
    assert (said.status, "would be stored" in said.out) == (1, False)
    said = sh(*words, "--propose")
    assert (said.status, "would be stored" in said.out) == (0, True)
    assert "NEEDS_APPROVAL" in said.out
    assert sh(*words, "--propose", "--json").json["state"] == "proposed"


class Keyed(Twin):
    """A twin whose node-local index has the keys."""

    def list_records(self, kind: str, after: Any, limit: int) -> Any:
        keys = [(key,) for key, _ in self.genesis.keys]
        return Page(self.height, tuple(keys), None) if kind == "key" else None


# --- under the caller's read rights -----------------------------------------------------------

CARE = """
[actions.weigh]
actor  = { role = "care.worker" }
inputs = { number = "int" }
load   = [ ["case", "case/{input.number}"] ]
require = [ { code = "NORTH", that = "case.region == 'north'", say = "only in the north" } ]
set    = [ { record = "case", fields = { region = "case.region" } } ]
"""


def weigh(number: int) -> Call:
    return Call("care", "weigh", {"number": number})


async def tried(client: Any, number: int, version: int = 1) -> Simulation:
    entry = Entry(StateKey("record", ("case", number)), 0, 0, version, present=version > 0)
    found: Simulation = await client.simulate(weigh(number), reads=[entry])
    return found


async def test_what_may_not_be_read_is_not_told_and_absence_looks_the_same() -> None:
    twin = Twin(founded(CARE_RULES + CARE))
    acts = Acts(twin)
    acts.do(WORKER, "open", 1, [b"p" * 32], "north", expects=absent("case", [1]))
    acts.do(WORKER, "open", 2, [b"p" * 32], "south", expects=absent("case", [2]))
    async with harness(twin) as h, h.client(WORKER) as client:
        own = await tried(client, 1)
        assert (own.code, own.findings, own.hidden) == ("APPLIED", (), False)
        moved = await tried(client, 1, 7)
        assert [each.code for each in moved.findings] == ["STALE"]
        others = [await tried(client, number, version) for number, version in ((2, 1), (77, 1))]
        for found in others:
            assert (found.state, found.code, found.detail) == (None, None, None)
            assert (found.findings, found.hidden, found.complete) == ((), True, False)


async def test_what_no_record_has_a_part_in_is_told_all_the_same() -> None:
    base = founded(CARE_RULES + CARE)
    twin = Twin(base)
    async with harness(twin) as h, h.client(WORKER) as client:
        draft = await client.draft(weigh(5), reads=[], not_after_ms=1)
        found = await client.requirements(draft)
        assert [each.code for each in found.findings] == ["EXPIRED"]
        assert found.hidden


async def test_holders_are_named_to_those_who_may_see_who_has_which_role() -> None:
    rules = RULES.replace(
        'actor = { self = "input.person" }',
        'actor = { self = "input.person" }\napprovals = { role = "notes.writer" }',
    )
    genesis = replace(
        make_genesis(), rules=tuple(encode_definition(load_toml(each)) for each in (CHARTER, rules))
    )
    twin = Twin(genesis)
    async with harness(twin) as h:
        async with h.client(OFFICIAL) as client:
            enter = Call("notes", "enter", {"token": bytes([7]) * 32, "name": "Ann"})
            assert (await client.transact(enter, reads=await client.read_for(enter))).applied
        async with h.client(CITIZEN) as client:
            call = Call("notes", "rename", {"person": [bytes([7]) * 32], "name": "Anna"})
            found = await client.simulate(call, reads=await client.read_for(call))
            assert [each.code for each in found.findings] == ["NEEDS_APPROVAL"]
            assert found.holders == {"notes.writer": ()}


def test_values_for_programs_are_plain() -> None:
    found = Simulation(
        3, 4, "refused", "REQUIREMENT", 0, ["A", "b"], (Finding("REQUIREMENT", 0, ["A", "b"]),),
        False, False, {},
    )  # fmt: skip
    shown = json.loads(json.dumps(plain(simulation_value(found))))
    assert shown["findings"][0]["message"]
    assert (found.missing, found.holds, found.moved) == ([], (), ())
