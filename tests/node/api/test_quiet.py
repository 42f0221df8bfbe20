"""Quiet refusals: whole on the chain, all alike to people without read rights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pycddl
import pytest

from comity import Call, decisions
from comity.results import Entry
from consensus import codec
from consensus.ledger import decision as ledger
from consensus.ledger.rules import compile_rulebook, encode_definition, load_toml
from consensus.protocol import StateKey
from tests.comity.twin import CITIZEN, CITIZEN_TOKEN, Twin, harness
from tests.node.api.care import AUDITOR, CHIEF, CLERK, RULES, WORKER, Acts, absent, founded

GRAMMAR = (Path(__file__).parents[3] / "docs/protocol/ledger.cddl").read_text()
CODE_LEAF = pycddl.Schema("start = code-leaf\n" + GRAMMAR)
CLAIM = """
[actions.claim]
QUIET
actor  = { self = "case.person" }
inputs = { number = "int", region = "text", points = "int" }
load   = [ ["case", "case/{input.number}"] ]
require = [ { code = "NORTH", that = "case.region == 'north'", say = "only in the north" },
            { code = "FEW", that = "input.points < 10", say = "fewer than ten" } ]
set    = [ { record = "case", fields = { region = "input.region" } } ]
"""


def rules(quiet: str = "quiet = true") -> str:
    return RULES + CLAIM.replace("QUIET", quiet)


def claim(points: int = 1) -> Call:
    return Call("care", "claim", {"number": 1, "region": "north", "points": points})


def case(version: int = 1) -> Entry:
    return Entry(StateKey("record", ("case", 1)), 0, 0, version, present=True)


def opened(quiet: str = "quiet = true") -> Twin:
    """A network with a case of the citizen in the north."""
    twin = Twin(founded(rules(quiet)))
    acts = Acts(twin)
    acts.do(WORKER, "open", 1, [CITIZEN_TOKEN], "north", expects=absent("case", [1]))
    return twin


async def refused(client: Any, points: int, version: int) -> Any:
    return await client.transact(claim(points), reads=[case(version)])


async def test_refusals_of_a_quiet_action_look_alike_to_their_author() -> None:
    twin = opened()
    async with harness(twin) as h, h.client(CITIZEN) as client:
        told = [await refused(client, *each) for each in ((1, 7), (99, 1))]
        for found in told:
            assert (found.state, found.code, found.call, found.detail) == (
                "refused", "REFUSED", None, None,
            )  # fmt: skip
            assert found.leaves == {}
        assert len({each.closed for each in told}) == 1
        whole = [twin.results[each.height][each.index] for each in told]
        assert [each.code.name for each in whole] == ["STALE", "REQUIREMENT"]
        assert [each.root for each in whole] == [each.root for each in told]
        for each in whole:
            CODE_LEAF.validate_cbor(each.leaves["code"])
            assert codec.parse(each.leaves["code"])[3:] == [True]
            assert ledger.decode(each.encode()).root == each.root
        lengths = {len(codec.encode(each.record.encode())) for each in told}
        assert len(lengths) == 1


async def test_hold_on_the_own_case_is_not_learned_of_by_acting() -> None:
    twin = opened()
    acts = Acts(twin)
    acts.sequences[CHIEF.public] = 50
    acts.do(CHIEF, "watch", 1, protective=True)
    async with harness(twin) as h, h.client(CITIZEN) as client:
        found = await refused(client, 1, 1)
        asked = await client.simulate(claim(), reads=[case()])
        if found.state == "refused":
            assert found.code == "REFUSED"
        assert (asked.code, asked.findings, asked.hidden) == (None, (), True)


@pytest.mark.parametrize(
    ("key", "code"), [(WORKER, "STALE"), (AUDITOR, "STALE"), (CHIEF, "REFUSED"), (CLERK, "REFUSED")]
)
async def test_reason_is_open_to_those_who_may_read_what_was_judged(key: Any, code: str) -> None:
    twin = opened()
    async with harness(twin) as h:
        async with h.client(CITIZEN) as client:
            done = await refused(client, 1, 7)
        async with h.client(key) as client:
            assert (await client.decision(done.txid)).code == code
            heights = await client.decisions(done.height)
            assert [each.code for each in heights[0].decisions or ()] == [code]


async def test_what_is_not_quiet_and_what_comes_before_authority_is_told() -> None:
    async with harness(opened("")) as h, h.client(CITIZEN) as client:
        assert (await refused(client, 1, 7)).code == "STALE"
    async with harness(opened()) as h:
        async with h.client(CLERK) as client:
            assert (await refused(client, 1, 1)).code == "NOT_AUTHORIZED"
        async with h.client(CITIZEN) as client:
            done = await refused(client, 1, 1)
            assert (done.state, done.code) == ("applied", "APPLIED")


async def test_dry_run_of_a_quiet_act_tells_those_alone_who_may_read() -> None:
    async with harness(opened("")) as h, h.client(CITIZEN) as client:
        assert (await client.simulate(claim(), reads=[case(7)])).code == "STALE"
    async with harness(opened()) as h, h.client(CITIZEN) as client:
        told = [
            await client.simulate(claim(points), reads=[case(version)])
            for points, version in ((1, 1), (1, 7), (99, 1))
        ]
        for found in told:
            assert (found.state, found.findings, found.hidden) == (None, (), True)


async def test_default_rights_of_citizens_do_not_open_a_quiet_reason() -> None:
    text = rules().replace('class = "restricted"\n', "")
    start, end = text.index('read = [ { role = "care.*"'), text.index("[kinds.visit]")
    plain = text[:start] + "\n" + text[end:]
    twin = Twin(founded(plain))
    Acts(twin).do(WORKER, "open", 1, [CITIZEN_TOKEN], "north", expects=absent("case", [1]))
    async with harness(twin) as h:
        async with h.client(CITIZEN) as client:
            entry = await client.get("record", "case", 1)
            assert entry.fields["region"] == "north"
            done = await refused(client, 1, 7)
            assert done.code == "REFUSED"
        async with h.client(CLERK) as client:
            assert (await client.decision(done.txid)).code == "STALE"


# --- the language -------------------------------------------------------------------------------


def test_quiet_is_a_part_of_the_action_and_of_its_identity() -> None:
    loud, quiet = (load_toml(rules(each)) for each in ("", "quiet = true"))
    books = [compile_rulebook([each]) for each in (loud, quiet)]
    actions = [each.rule_sets["care"].actions["claim"] for each in books]
    assert [each.quiet for each in actions] == [False, True]
    assert actions[0].action_id != actions[1].action_id
    assert encode_definition(load_toml(rules("quiet = false"))) == encode_definition(loud)


def test_marks_of_decisions_without_quiet_actions_are_as_before() -> None:
    twin = opened("")
    (decision,) = twin.results[twin.height]
    assert codec.parse(decision.leaves["code"]) == [0, None, None]
    assert decisions.read(decision.encode()).code == "APPLIED"
