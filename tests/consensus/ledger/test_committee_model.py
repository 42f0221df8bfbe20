"""Changes of the committee against a model that shares no code with the ledger, and in vectors.

The model has lists of rows and works on decoded CBOR alone; it decides whether a change is possible
and what it makes. ``tests/vectors/committee.json`` has a history of three changes.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import cbor2
import pycddl
import pytest
from blake3 import blake3

from consensus.codec import Value
from consensus.ledger.codes import Code
from consensus.state.record import decode_single
from tests.consensus.ledger.governed import NOTICE_MS
from tests.consensus.ledger.members import Members, validator

ROOT = Path(__file__).parents[3]
VECTORS = ROOT / "tests/vectors/committee.json"
CDDL = (ROOT / "docs/protocol/ledger.cddl").read_text()
NEW = ("health", "police", "roads", "water")
FOUR = ("treasury", "registry", "services", "audit")


class Model:
    """The committee as rows of decoded CBOR, and every key there ever was."""

    def __init__(self, rows: list[list[Any]]) -> None:
        self.rows = rows
        self.used = {key for row in rows for key in row[1:3]}

    def after(self, changes: list[list[Any]]) -> list[list[Any]] | str:
        """Return the rows after changes, or the word for why not."""
        here = {row[0]: row for row in self.rows}
        for kind, agency, row in changes:
            if kind == "admit" and agency in here:
                return "MEMBER"
            if kind != "admit" and agency not in here:
                return "NOT_MEMBER"
            if kind == "replace" and row == here[agency]:
                return "UNCHANGED"
        made = []
        for row in self.rows:
            for kind, agency, new in changes:
                if agency == row[0]:
                    if kind == "replace":
                        made.append(new)
                    break
            else:
                made.append(row)
        made += [row for kind, _, row in changes if kind == "admit"]
        if len(made) < 4:
            return "TOO_FEW"
        for kind, agency, row in changes:
            if kind == "leave":
                continue
            before = here.get(agency, [None] * 8)
            for place in (1, 2):
                if row[place] != before[place] and row[place] in self.used:
                    return "KEY_USED"
        return made


def wanted(world: Members, dice: random.Random) -> tuple[list[list[Value]], list[list[Any]]]:
    """Return a change as an act has it, and as the model has it."""
    act: list[list[Value]] = []
    plain: list[list[Any]] = []
    for agency in dice.sample((*FOUR, *NEW), dice.randint(1, 3)):
        kind = dice.choice(("admit", "replace", "replace", "leave"))
        if kind == "leave":
            act.append(["leave", agency])
            plain.append(["leave", agency, None])
            continue
        generation = dice.randint(1, 9)
        row = validator(agency, generation)
        data = world.file(row, generation)
        if kind == "admit":
            act.append(["admit", agency, data, None, []])
        else:
            act.append(["replace", agency, data])
        plain.append([kind, agency, cbor2.loads(cbor2.dumps(row.to_value()))])
    return act, plain


def shaped(world: Members, rule: str, space: str, *components: Value) -> Any:
    """Return the decoded value of a leaf that has the shape of the grammar."""
    row = world.state.get(world.ledger.paths(space, list(components)))
    assert row is not None, components
    data = decode_single(row.value)[2]
    pycddl.Schema(f"start = {rule}\n{CDDL}").validate_cbor(data)
    return cbor2.loads(data)


@pytest.mark.parametrize("seed", range(6))
def test_random_changes_come_to_what_the_model_says(seed: int) -> None:
    dice = random.Random(seed)
    world = Members()
    for agency in NEW:
        expects = [("agency", [agency], 0)]
        added = world.do("admin", "charter.add_agency", agency, agency, expects=expects)
        assert added.code == Code.APPLIED
    model = Model(
        [cbor2.loads(cbor2.dumps(each.to_value())) for each in world.committee.validators]
    )
    number, epoch, agreed = 1, 1, 0
    for _ in range(25):
        act, plain = wanted(world, dice)
        said = model.after(plain)
        decision = world.agree(*act, number=number, cosigners=("chief_r", "chief_s", "chief_a"))
        if isinstance(said, str):
            detail: Any = decision.detail
            assert (decision.code, detail[0]) == (Code.REQUIREMENT, said)
            continue
        if decision.code == Code.NEEDS_APPROVAL:
            seats = [row[0] for row in model.rows]
            quorum = len(seats) - (len(seats) - 1) // 3
            assert decision.detail == [["agencies", quorum - sum(x in seats for x in FOUR)]]
            continue
        assert decision.code == Code.APPLIED, decision.detail
        result = world.pass_notice()
        assert result.next_committee is not None
        number, epoch, agreed = number + 1, epoch + 1, agreed + 1
        encoded = cbor2.dumps([epoch, said])
        tag = blake3(encoded, derive_key_context="comity 2026-11-21 committee v1").digest()
        assert result.next_committee.hash == tag
        model.rows = said
        model.used |= {key for row in said for key in row[1:3]}
        leaf = shaped(world, "seats-leaf", "committee")
        assert leaf == [epoch, [[row[0], row[2]] for row in said], number - 1, None]
        assert shaped(world, "members-leaf", "committee", "members") == [epoch, said]
        change = shaped(world, "committee-change-leaf", "committee", number - 1)
        assert (change[1], change[3], change[5]) == (1, epoch, plain)
    assert agreed >= 2


def history() -> dict[str, Any]:
    """Return what the vectors record: three changes, and what each came to."""
    world = Members()
    steps: list[dict[str, Any]] = []
    acts = (
        (world.joining("health", "chief_h"),),
        (world.replacing("registry"), ["leave", "audit"]),
        (world.replacing("registry", peer_host="new.example"),),
    )
    founded = world.committee
    for number, changes in enumerate(acts, 1):
        draft = world.draft_change(
            *changes, number=number, cosigners=("chief_r", "chief_s", "chief_a")
        )
        agreed = world.run(draft)
        assert agreed.decisions[0].code == Code.APPLIED, agreed.decisions[0].detail
        coming = shaped(world, "seats-leaf", "committee")
        result = world.pass_notice()
        assert result.next_committee is not None
        steps.append(
            {
                "changes": draft.inputs(0)[0][1].hex(),
                "decision": agreed.decisions[0].root.hex(),
                "from_ms": coming[3][1],
                "committee": cbor2.dumps(result.next_committee.to_value()).hex(),
                "hash": result.next_committee.hash.hex(),
                "writes": [[each.kh.hex(), each.vh.hex()] for each in result.writes],
            }
        )
    return {
        "chain": world.ledger.chain.hex(),
        "notice_ms": NOTICE_MS,
        "founded": cbor2.dumps(founded.to_value()).hex(),
        "steps": steps,
    }


def test_the_recorded_history_of_a_committee_is_what_the_ledger_makes() -> None:
    assert history() == json.loads(VECTORS.read_text())


def test_the_recorded_changes_have_the_shape_of_the_grammar() -> None:
    grammar = pycddl.Schema(f"start = committee-changes\n{CDDL}")
    steps = json.loads(VECTORS.read_text())["steps"]
    for step in steps:
        grammar.validate_cbor(bytes.fromhex(step["changes"]))
        made = bytes.fromhex(step["committee"])
        tag = blake3(made, derive_key_context="comity 2026-11-21 committee v1").hexdigest()
        assert tag == step["hash"]
    assert len(steps) == 3
