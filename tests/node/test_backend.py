"""What clients are told: refusals of their submissions, places of decisions, proofs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from consensus.answers import StatementEvidence
from consensus.errors import ComityError, CopyError, DecodeError, SignatureError
from consensus.ledger.batch import Item
from consensus.protocol import Item as ItemKind
from consensus.protocol import StateKey, Status
from node.api.backend import Admitted, BehindError, Rejected, Submission
from node.backend import BUSY_RETRY_MS, PATIENCE_SECONDS, Backend
from node.verifier import VerifierBusy, WorkerFailed
from tests.node.machines import GENESIS, Machine, Town, running, transaction
from tests.node.machines import inline_threads as inline_threads

pytestmark = pytest.mark.usefixtures("inline_threads")


class Checks:
    """A verifier that says what the test wants."""

    def __init__(self) -> None:
        self.verdicts: list[Item | ComityError] = []
        self.fails: ComityError | None = None

    async def check_items(self, data: Sequence[bytes]) -> list[Item | ComityError]:
        await trio.lowlevel.checkpoint()
        if self.fails is not None:
            raise self.fails
        return self.verdicts


def backend_of(machine: Machine, checks: Checks, reason: list[str]) -> Backend:
    engine = machine.engine
    return Backend(
        engine.ledger,
        GENESIS.committee,
        engine.execution,
        engine.chronicle,
        engine.dissemination,
        checks,  # type: ignore[arg-type]
        engine.store,
        lambda: {"height": machine.height},
        lambda: Rejected(Status.UNAVAILABLE, "UNAVAILABLE", reason[0]) if reason else None,
        machine.metrics,
        engine.past,
    )


def asked(*sequences: int) -> list[Submission]:
    return [Submission(ItemKind.ENVELOPE, bytes([number]), b"") for number in sequences]


async def test_submissions_are_admitted_or_refused_each_with_its_reason(
    tmp_path: Path, autojump_clock: object
) -> None:
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town):
        checks, reason = Checks(), list[str]()
        backend = backend_of(machine, checks, reason)
        one, two = transaction(1), transaction(2)
        checks.verdicts = [
            one,
            DecodeError("not canonical"),
            SignatureError("does not verify"),
            CopyError("does not match the body"),
            WorkerFailed("no worker could check this"),
            one,
        ]
        found = await backend.submit(asked(1, 2, 3, 4, 5, 6))
        admitted, malformed, forged, torn, failed, again = found
        assert admitted == again == Admitted((one.txid,), {})
        assert isinstance(malformed, Rejected)
        assert isinstance(forged, Rejected)
        assert isinstance(failed, Rejected)
        assert (malformed.status, malformed.message) == (Status.MALFORMED, "not canonical")
        assert (forged.status, forged.code) == (Status.BAD_SIGNATURE, "BAD_SIGNATURE")
        assert forged.hint == "sign with the key that the transaction names, for this network"
        assert isinstance(torn, Rejected)
        assert (torn.status, torn.message) == (Status.MALFORMED, "does not match the body")
        assert torn.hint == "send the private part that was signed, unchanged"
        assert (failed.status, failed.retry_after_ms) == (Status.UNAVAILABLE, BUSY_RETRY_MS)

        # A busy verifier refuses the whole turn, and the node lives on.
        checks.fails = VerifierBusy("8192 requests wait to be checked")
        busy = await backend.submit(asked(1, 2))
        assert [each.status for each in busy if isinstance(each, Rejected)] == [Status.BUSY] * 2
        assert machine.metrics.busy._value.get() == 2
        checks.fails = WorkerFailed("the verifier has stopped")
        (stopped,) = await backend.submit(asked(1))
        assert isinstance(stopped, Rejected)
        assert stopped.status is Status.UNAVAILABLE
        checks.fails = None

        # What is decided is answered with its place and not pooled again.
        await town.until(lambda: backend.find(one.txid) is not None)
        checks.verdicts = [one, two]
        decided, fresh = await backend.submit(asked(1, 2))
        place = backend.find(one.txid)
        assert place is not None
        assert decided == Admitted((one.txid,), {0: place})
        assert fresh == Admitted((two.txid,), {})
        assert one.txid not in machine.engine.dissemination.pool

        reason.append("this node's disk has failed")
        (refused,) = await backend.submit(asked(3))
        assert isinstance(refused, Rejected)
        assert refused.status is Status.UNAVAILABLE
        assert refused.message == reason[0]
        assert backend.status() == {"height": machine.height}


async def test_a_read_is_proved_under_a_height_that_was_waited_for(
    tmp_path: Path, autojump_clock: object
) -> None:
    town = Town(tmp_path)
    machine = town.machines[0]
    key = StateKey("agency", ("agency-0",))
    missing = StateKey("agency", ("nobody",))
    async with running(town):
        backend = backend_of(machine, Checks(), [])
        await town.until_certified(1)
        goal = machine.height + 2
        found: list[Any] = []

        async def read() -> None:
            found.extend(await backend.prove(goal, [lambda _read: [key, missing]]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            town.submit(0)
            while not found:
                await trio.sleep(0.01)
                backend.advanced()
        (proved,) = found
        assert goal <= proved.height <= machine.height
        assert proved.rows[0] is not None
        assert proved.rows[1] is None
        evidence = backend.evidence(proved.height)
        assert isinstance(evidence, StatementEvidence)

        begin = trio.current_time()
        with pytest.raises(BehindError):
            await backend.prove(machine.height + 10_000, [lambda _read: [key]])
        assert trio.current_time() - begin == pytest.approx(PATIENCE_SECONDS)
        assert backend.evidence(machine.height + 1) is None
        assert backend.block(-1) is None
        assert backend.list_records("unheard-of", None, 10) is None
        assert [each.domain for each in backend.rule_sets(None)] == ["charter"]
        assert backend.rule_sets("nothing") == []
