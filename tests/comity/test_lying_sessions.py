"""A node that lies about itself, or says what nobody asked: the client turns to another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from comity import NotReachableError, StaleAnswerError
from consensus.answers import Answer
from consensus.errors import DecodeError, ProofError, RemoteProtocolError
from consensus.hashing import ZERO
from consensus.hotstuff.types import Statement
from consensus.protocol import Event, Status
from tests.comity.test_lies import PAY, event, prepared, result
from tests.comity.twin import VALIDATORS, Twin, certify, harness

# --- heights --------------------------------------------------------------------------------------


def is_heights(value: Any) -> bool:
    return type(value) is list and bool(value) and all(type(each) is int for each in value)


@pytest.mark.parametrize(
    "shown", [[1], [3], [2, 4], [3, 2], [2, 2], [2, 3, 4]], ids=lambda shown: str(shown)
)
async def test_heights_that_were_not_asked_for_are_refused(shown: list[int]) -> None:
    async with harness() as h:
        await prepared(h)
        h.lies["north"] = result(lambda _: shown, is_heights)
        async with h.client(patience_seconds=1.0) as client:
            with pytest.raises(ProofError):
                await client.statements(2, 2)


async def test_old_heights_shown_as_the_newest_are_refused() -> None:
    async with harness() as h:
        await prepared(h)
        async with h.client(patience_seconds=1.0) as client:
            newest = (await client.statements(-1))[0].height
            assert newest == h.twin.height
            h.lies["north"] = result(lambda _: [newest - 1], is_heights)
            h.cut()
            with pytest.raises((StaleAnswerError, ProofError)):
                await client.statements(-1)
            h.lies["north"] = result(lambda _: [], is_heights)
            h.cut()
            with pytest.raises(StaleAnswerError):
                await client.statements(-1)
            h.lies["north"] = result(
                lambda _: [], lambda value: bool(value) and type(value[0]) is list
            )
            h.cut()
            with pytest.raises(StaleAnswerError):
                await client.decisions(newest)


# --- the session ----------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [2, 3])
async def test_node_of_another_network_or_key_is_refused_at_the_greeting(part: int) -> None:
    def change(row: list[Any]) -> list[Any]:
        row[part] = b"z" * 32
        return row

    async with harness() as h:
        h.lies["north"] = event(Event.GREETING, change)
        async with h.client(patience_seconds=0.5) as client:
            with pytest.raises(NotReachableError, match=r"another (network|key)"):
                await client.status()


async def test_submission_answered_without_a_decision_is_refused() -> None:
    async with harness() as h:
        h.twin.paused = True

        def lie(answer: Answer) -> list[Answer]:
            return [answer]

        h.lies["north"] = lie
        async with h.client(servers=["north", "east"], patience_seconds=3.0) as client:
            draft = await client.draft(PAY)
            h.lies["north"] = lambda a: (
                [a] if a.request_id == 0 else [Answer(a.request_id, Status.OK, [])]
            )
            h.cut()
            h.twin.paused = False
            assert (await client.submit(client.sign(draft))).applied
            assert "east" in h.dialled


@pytest.mark.parametrize(
    "garbage",
    [
        Answer(0, Status.EVENT, [99]),
        Answer(0, Status.EVENT, []),
        Answer(0, Status.EVENT, None),
        Answer(0, Status.OK, []),
        Answer(0, Status.EVENT, [Event.RECEIPTS, 1, 1, [], [[7, 0, 0, 0, b"\x00"]]]),
        Answer(0, Status.BUSY, "not a problem"),
    ],
    ids=["unknown", "empty", "null", "ok", "receipt", "problem"],
)
async def test_garbage_events_cost_the_node_its_connection_and_nothing_else(
    garbage: Answer,
) -> None:
    async with harness() as h:
        await prepared(h)
        h.lies["north"] = lambda a: [a] if a.request_id == 0 else [garbage, a]
        async with h.client(servers=["north", "east"]) as client:
            assert (await client.get("record", "note", 1)).present
            assert "east" in h.dialled


def test_forged_statements_of_this_file_would_verify_if_signed_by_a_quorum() -> None:
    """The lies above fail for the reason they name, not because the forging is clumsy."""
    from comity.verify import Trust

    twin = Twin()
    statement = replace(twin.statements[1], state_root=b"f" * 32)
    found = Trust(twin.chain, twin.genesis.committee).certificate(certify(statement)).statement
    assert isinstance(found, Statement)
    assert found.state_root == b"f" * 32
    assert len(VALIDATORS) == 4
    assert ZERO != b"f" * 32
    assert issubclass(DecodeError, RemoteProtocolError)
