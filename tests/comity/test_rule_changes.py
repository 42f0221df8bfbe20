"""Rule sets proposed, activated and read through clients and commands."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from comity import AbsentError, Call, DraftError
from consensus.errors import ProofError
from consensus.genesis import Principal, RoleGiven
from consensus.ledger.rules import (
    ACTION_PART,
    RULE_PARTS,
    encode_definition,
    load_toml,
    part_path,
)
from consensus.reads import RuleText
from node.api import reading
from tests.comity.shell import Shell, shell
from tests.comity.twin import (
    ADMINISTRATOR,
    CHARTER,
    OFFICIAL,
    RULES,
    START_MS,
    STRANGER,
    Harness,
    Twin,
    harness,
    make_genesis,
)

__all__ = ["shell"]

WEEK_MS = 7 * 86_400_000
SECOND = RULES.replace("number = 1", "number = 2").replace("input.amount > 0", "input.amount > 1")


@pytest.fixture
async def net() -> AsyncIterator[Harness]:
    async with harness(Twin()) as found:
        yield found


async def test_a_rule_set_is_proposed_activated_and_used(net: Harness) -> None:
    async with net.client(ADMINISTRATOR) as client, net.client(OFFICIAL) as official:
        before = await official.rules()
        proposed = await client.propose_rules(SECOND, reason="a new law")
        assert proposed.applied, proposed.detail
        shown = await client.rule_set("notes", 2)
        assert shown is not None
        assert (shown.adopted.state, shown.definition.number) == ("proposed", 2)
        from_ms = await client.now_ms() + WEEK_MS + 60_000
        assert (await client.activate_rules("notes", 2, from_ms)).applied
        net.twin.now_ms = from_ms
        net.twin.make_block()
        await official.statements(-1)
        pay = Call("notes", "pay", {"source": "a", "target": "b", "amount": 1})
        stale = await official.transact(pay)
        assert stale.code == "RULES_MOVED"
        after = await official.rules()
        assert [row.number for row in before.sets] == [1, 1]
        assert [row.number for row in after.sets] == [1, 2]
        assert (await official.transact(pay)).code == "REQUIREMENT"


async def test_rules_to_come_are_asked_for_again_when_they_are_due(net: Harness) -> None:
    async with net.client(ADMINISTRATOR) as client:
        await client.propose_rules(SECOND)
        from_ms = await client.now_ms() + WEEK_MS + 60_000
        await client.activate_rules("notes", 2, from_ms)
        known = await client.rules(refresh=True)
        assert known.until_ms == from_ms
        net.twin.now_ms = from_ms
        net.twin.make_block()
        await client.statements(-1)
        assert [row.number for row in (await client.rules()).sets] == [1, 2]


async def test_a_history_shows_every_number_and_who_did_what(net: Harness) -> None:
    async with net.client(ADMINISTRATOR) as client:
        proposed = await client.propose_rules(SECOND)
        await client.withdraw_rules("notes", 2)
        await client.propose_rules(SECOND.replace("number = 2", "number = 3"))
        await client.object_rules("notes", 3)
        found = await client.rule_history("notes")
    assert [each.number for each in found.numbers] == [3, 2, 1]
    third, second, first = found.numbers
    assert [step.what for step in third.steps] == ["proposed", "objected"]
    assert [step.what for step in second.steps] == ["proposed", "withdrawn"]
    assert (second.state, second.steps[0].txid) == ("withdrawn", proposed.txid)
    assert (first.from_ms, first.until_ms, first.steps) == (START_MS, None, ())
    assert first.in_force(START_MS)
    assert not second.in_force(START_MS)


async def test_what_was_never_proposed(net: Harness) -> None:
    async with net.client(ADMINISTRATOR) as client:
        assert await client.rule_set("notes", 9) is None
        with pytest.raises(AbsentError, match="ever proposed"):
            await client.rule_history("nothing")


async def test_a_text_that_is_not_the_proved_one_is_refused(
    net: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = reading.rules_answer
    lie = encode_definition(load_toml(SECOND.replace("number = 2", "number = 1")))

    def lying(proved):  # type: ignore[no-untyped-def]
        return replace(honest(proved), sets=(RuleText("notes", 1, lie),))

    async with net.client(ADMINISTRATOR) as client:
        await client.rules()
        monkeypatch.setattr(reading, "rules_answer", lying)
        with pytest.raises(ProofError, match="not what the state names"):
            await client.rule_set("notes", 1)


async def test_a_part_is_proved_under_the_root_that_the_state_holds(net: Harness) -> None:
    async with net.client(ADMINISTRATOR) as client:
        found = await client.rule_set("notes", 1)
        assert found is not None
        root = (await client.get("rules", "notes", 1)).value
    part = found.part(ACTION_PART, "pay")
    index, count, path = part_path(found.definition, ACTION_PART, "pay")
    assert (part.index, part.count, list(part.path), part.root) == (index, count, path, root)
    RULE_PARTS.verify_path(root, part.count, part.index, part.leaf, part.path)
    with pytest.raises(DraftError, match="no part 'nothing'"):
        found.part(ACTION_PART, "nothing")


async def test_an_activation_that_needs_approvals_is_stored_and_the_last_one_brings_it_about() -> (
    None
):
    consent = CHARTER.replace(
        '[actions.activate_rules]\nkernel = true\nactor = { role = "charter.administrator" }',
        '[actions.activate_rules]\nkernel = true\nactor = { role = "charter.administrator" }\n'
        'approvals = { role = "charter.administrator", distinct = "agency" }',
    )
    if "actions.approve]" not in consent:
        consent += '\n[actions.approve]\nkernel = true\nactor = { self = "who.principal" }\n'
    assert consent.count("distinct") == 1
    made, elsewhere = make_genesis(), bytes([109]) * 32
    genesis = replace(
        made,
        rules=tuple(encode_definition(load_toml(text)) for text in (consent, RULES)),
        principals=(*made.principals, Principal(elsewhere, "west", 0, b"w" * 32)),
        keys=(*made.keys, (STRANGER.public, elsewhere)),
        roles=(*made.roles, RoleGiven(elsewhere, "charter.administrator")),
    )
    async with (
        harness(Twin(genesis)) as net,
        net.client(ADMINISTRATOR) as client,
        net.client(STRANGER) as other,
    ):
        assert (await client.propose_rules(SECOND)).applied
        from_ms = await client.now_ms() + WEEK_MS + 60_000
        stored = await client.activate_rules("notes", 2, from_ms)
        assert (stored.state, stored.code) == ("proposed", "PROPOSED")
        assert (await client.rule_history("notes")).numbers[0].state == "proposed"
        assert (await other.approve(stored.txid)).applied
        assert (await client.rule_history("notes")).numbers[0].state == "activated"


# --- commands ---------------------------------------------------------------------------------


def test_commands_from_proposal_to_history(shell: Shell) -> None:
    Path("notes.toml").write_text(SECOND)
    key = ("--key", "administrator.key")
    said = shell("rules", "propose", "notes.toml", "--reason", "law", *key)
    assert (said.status, "applied" in said.out) == (0, True), said
    early = shell("rules", "activate", "notes", "2", "--from", str(START_MS), *key)
    assert (early.status, "NOTICE" in early.out) == (1, True)
    assert re.search(r"the notice ends at 20\d\d-\d\d-\d\d \d\d:\d\d:\d\dZ", early.out)
    assert "charter.activate_rules (rules 1)" in early.out
    late = str(START_MS + 2 * WEEK_MS)
    assert shell("rules", "activate", "notes", "2", "--from", late, *key).status == 0
    shown = shell("rules", "history", "notes")
    assert "to come" in shown.out
    assert "in force" in shown.out
    assert "the genesis file" in shown.out
    assert shell("rules", "object", "notes", "2", *key).status == 0
    rows = shell("rules", "history", "notes", "--json").json
    assert [(row["number"], row["state"]) for row in rows] == [(2, "activated"), (1, "activated")]
    assert [step[0] for step in rows[0]["steps"]] == ["proposed", "activated", "objected"]
    assert shell("rules", "show", "notes", "2", "--json").json["number"] == 2
    assert shell("rules", "show", "notes", "5").status == 1
    assert shell("rules", "withdraw", "notes", "2", *key).status == 1


def test_propose_shows_problems_with_their_lines_and_sends_nothing(shell: Shell) -> None:
    Path("notes.toml").write_text(SECOND.replace('role = "notes.writer"', 'role = "writer"', 1))
    said = shell("rules", "propose", "notes.toml", "--key", "administrator.key", "--json")
    assert said.status == 1
    assert said.json[0]["what"] == "'writer' is not a role"
    assert said.json[0]["line"] > 0
    assert shell.twin.submissions == []


def test_a_definition_is_an_input_of_submit_too(shell: Shell) -> None:
    Path("notes.toml").write_text(SECOND)
    words = ("charter.propose_rules", "domain=notes", "number=2", "rules=notes.toml")
    assert shell("submit", *words, "--key", "administrator.key").status == 0


def test_diff_of_files_and_of_rule_sets_on_the_chain(shell: Shell) -> None:
    Path("old.toml").write_text(RULES)
    Path("new.toml").write_text(SECOND)
    said = shell("rules", "diff", "old.toml", "new.toml")
    assert said.status == 0
    assert "requires: AMOUNT: input.amount > 1" in said.out
    assert "pay: changed" in said.out
    Path("notes.toml").write_text(SECOND)
    assert shell("rules", "propose", "notes.toml", "--key", "administrator.key").status == 0
    found = shell("rules", "diff", "notes", "notes#2", "--json").json
    assert (found["old"], found["new"], found["moved"]) == (1, 2, {"pay": "changed"})
    assert [gap.split()[0] for gap in found["gaps"]] == ["grants", "proposals"]
    assert shell("rules", "diff", "notes", "notes#1").out.startswith("notes: 1 to 1: nothing")
    for wrong, status in (("nothing", 1), ("notes#9", 1), ("notes#x", 2)):
        assert shell("rules", "diff", "notes", wrong).status == status
    assert shell("rules", "diff", "notes", "charter").status == 2
