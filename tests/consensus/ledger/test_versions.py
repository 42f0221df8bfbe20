"""Executors: the next one comes by the charter and chain time, the first one stays as it was."""

from __future__ import annotations

import json
from pathlib import Path

import cbor2
import pycddl
import pytest

from consensus.errors import LocalProtocolError
from consensus.ledger import decision as decisions
from consensus.ledger.codes import Code
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.layout import ACTIVATED, EXECUTOR_HEAD, OBJECTED
from consensus.ledger.transaction import Draft, Transaction
from consensus.ledger.versions import EXECUTORS
from tests.consensus.ledger.governed import (
    GOVERNED,
    NOTICE_MS,
    Governed,
    founding,
)
from tests.consensus.ledger.world import BENEFITS, IDENTITY, PAYMENTS, START_MS

ROOT = Path(__file__).parents[3]
CDDL = (ROOT / "docs/protocol/ledger.cddl").read_text()
VECTORS = json.loads((ROOT / "tests/vectors/executors.json").read_text())
CHARTER = (
    GOVERNED
    + """
[actions.activate_executor]
kernel = true
actor = { role = "charter.chief" }
"""
)


def governed() -> Governed:
    return Governed(founding((CHARTER, IDENTITY, BENEFITS, PAYMENTS)))


def activate(world: Governed, number: int, from_ms: int, *cosigners: str) -> decisions.Decision:
    call = ("charter.activate_executor", number, from_ms)
    expects = [("rules", [EXECUTOR_HEAD], world.version(EXECUTOR_HEAD))]
    return world.one(world.draft("chief_t", call, expects=expects, cosigners=cosigners))


def come(world: Governed, number: int = 2) -> int:
    """Activate an executor as soon as may be; return its time."""
    from_ms = world.now_ms + 1000 + NOTICE_MS
    done = activate(world, number, from_ms, "chief_r", "chief_s")
    assert done.code == Code.APPLIED, (done.code, done.detail)
    return from_ms


def unknown(world: Governed, domain: str = "payments") -> Transaction:
    return world.draft("clerk", Draft(domain, "refund", bytes(32), [], bytes(32), False))


def test_the_first_executor_is_in_force_from_the_start() -> None:
    world = governed()
    adoption = world.adoption(EXECUTOR_HEAD, 1)
    assert (adoption.state, adoption.from_ms, adoption.until_ms) == (ACTIVATED, START_MS, None)
    assert world.run().executor == 1


def test_the_next_one_is_in_force_from_its_time_on() -> None:
    world = governed()
    from_ms = come(world)
    world.wait_until(from_ms - 1)
    before = world.run(unknown(world))
    world.wait_until(from_ms)
    after = world.run(unknown(world))
    assert (before.executor, after.executor) == (1, 2)
    assert before.decisions[0].detail == ["payments", "refund"]
    assert after.decisions[0].detail == ["payments", "refund", 1]
    assert world.one(unknown(world, "nothing")).detail == ["nothing", "refund", 0]
    assert world.adoption(EXECUTOR_HEAD, 1).until_ms == from_ms


def test_decisions_name_the_executor_unless_it_is_the_first() -> None:
    world = governed()
    first = world.one(unknown(world))
    world.wait_until(come(world))
    second = world.one(unknown(world))
    assert (first.header.executor, len(cbor2.loads(first.header_cbor))) == (1, 6)
    assert (second.header.executor, cbor2.loads(second.header_cbor)[6]) == (2, 2)
    for made, rule in ((first, "decision-header"), (second, "later-decision-header")):
        pycddl.Schema(f"start = {rule}\n{CDDL}").validate_cbor(made.header_cbor)
        again = decisions.decode(made.encode())
        assert (again.root, again.header) == (made.root, made.header)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_each_executor_does_what_its_vector_says(executor: int) -> None:
    world = governed()
    if executor > 1:
        world.wait_until(come(world))
    made = world.one(unknown(world))
    assert made.leaves["code"].hex() == VECTORS[str(executor)]["unknown_action"]


def test_an_executor_takes_a_quorum_the_notice_and_its_turn() -> None:
    world = governed()
    from_ms = world.now_ms + 100_000
    assert activate(world, 2, from_ms, "chief_r").detail == [["agencies", 1]]
    early = activate(world, 2, world.now_ms + NOTICE_MS, "chief_r", "chief_s")
    assert early.detail[0] == "NOTICE"
    assert activate(world, 3, from_ms).detail == ["NUMBER", "the next executor is 2"]
    come(world)
    again = activate(world, 2, from_ms, "chief_r", "chief_s")
    assert again.detail == ["SCHEDULED", "executor 2 is still to come"]


def test_agencies_object_to_an_executor_and_it_may_come_later() -> None:
    world = governed()
    from_ms = come(world)
    for name in ("chief_r", "chief_a"):
        assert world.object(EXECUTOR_HEAD, 2, name).code == Code.APPLIED
    assert world.adoption(EXECUTOR_HEAD, 2).state == OBJECTED
    assert world.adoption(EXECUTOR_HEAD, 1).until_ms is None
    world.wait_until(from_ms)
    assert world.run().executor == 1
    world.wait_until(come(world))
    assert world.run().executor == 2
    assert [step[0] for step in world.adoption(EXECUTOR_HEAD, 2).steps] == [
        "activated",
        "objected",
        "objected",
        "activated",
    ]


def test_software_that_lacks_the_executor_in_force_stops() -> None:
    world = governed()
    world.wait_until(come(world))
    world.run()
    world.wait_until(come(world, 3))
    with pytest.raises(LocalProtocolError, match="executor 3 is in force"):
        world.run()


def test_a_block_is_executed_by_the_one_in_force_alone() -> None:
    world = governed()
    with pytest.raises(LocalProtocolError, match="executor 2 is not the one in force"):
        BlockRun(world.ledger, world.state, BlockContext(1, 1, START_MS + 1, 2), [])


def test_the_executor_is_no_domain() -> None:
    world = governed()
    text = BENEFITS.replace('domain = "benefits"', f'domain = "{EXECUTOR_HEAD}"')
    text = text.replace("number = 1", "number = 2")
    assert world.propose(text).detail[0] == "RULES"
    refused = world.activate(EXECUTOR_HEAD, 1)
    assert refused.detail == ["NOT_OPEN", "it is activated already"]
