"""Worker processes: what they accept, what they remember, and what happens when they die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import cbor2
import msgspec
import pytest
import trio
import trio.testing

from consensus import codec
from consensus.errors import ComityError, CopyError, DecodeError, SignatureError
from consensus.genesis import Limits
from consensus.ledger import batch as batches
from consensus.ledger import group as groups
from consensus.ledger.transaction import Transaction, assemble
from node import verifier as pool
from node import verifier_worker as worker
from node.checked import CheckedBatch, from_batch
from node.verifier import Verifier, VerifierBusy, WorkerFailed
from node.verifier_worker import Answer, Job, Judge, Verdict
from tests.consensus.ledger.authors import (
    ANNA,
    BORIS,
    CHAIN,
    batch_of,
    draft,
    envelope,
    group_of,
    payments,
    signed,
)
from tests.freeing import freed

LIMITS = Limits()
WEAK_KEY = bytes([1]) + bytes(31)  # the neutral element: any message verifies under lax checks


def judge() -> Judge:
    return Judge(CHAIN, LIMITS)


def code_of(verdict: Verdict) -> int:
    """What was refused carries nothing that could be used."""
    if verdict.code != worker.ACCEPTED:
        assert (verdict.txids, verdict.digest) == (b"", b"")
    return verdict.code


# --- the judge, without a process -----------------------------------------------------------------


def test_good_batch_is_accepted_with_its_digest_header_and_txids() -> None:
    batch = batch_of(signed(ANNA, 1), signed(BORIS, 1, not_after_ms=9), origin=3, number=7)
    verdict = judge().judge_batch(batch.public, batch.private)
    assert verdict.code == worker.ACCEPTED
    assert (verdict.digest, verdict.origin, verdict.number, verdict.lane) == (batch.digest, 3, 7, 0)
    assert verdict.txids == batch.transactions[0].txid + batch.transactions[1].txid
    assert verdict.not_after_ms == batch.transactions[0].not_after_ms


def test_wrong_signature_rejects_the_whole_batch() -> None:
    good, bad = signed(ANNA, 1), signed(ANNA, 2)
    by_another = bad.signed([BORIS.sign(b"x")])
    of_another = bad.signed(good.signatures)
    for wrong in (by_another, of_another):
        batch = batch_of(good, wrong)
        assert code_of(judge().judge_batch(batch.public, batch.private)) == worker.BAD_SIGNATURE


def test_one_wrong_cosigner_is_enough() -> None:
    found = signed(ANNA, 1, cosigners=[BORIS])
    batch = batch_of(found.signed([found.signatures[0], found.signatures[0]]))
    assert code_of(judge().judge_batch(batch.public, batch.private)) == worker.BAD_SIGNATURE


def test_every_signature_of_a_group_is_checked() -> None:
    drafts = [draft(ANNA, 1, cosigners=[BORIS]), draft(ANNA, 2)]
    message = groups.group_message(CHAIN, 2, groups.group_root(drafts))
    single = BORIS.sign(drafts[0].message)
    good = groups.build(drafts, [(ANNA.key, ANNA.sign(message))], [[single], []])
    wrong_group = groups.build(drafts, [(ANNA.key, BORIS.sign(message))], [[single], []])
    wrong_single = groups.build(drafts, [(ANNA.key, ANNA.sign(message))], [[ANNA.sign(b"")], []])
    for group, code in (
        (good, worker.ACCEPTED),
        (wrong_group, worker.BAD_SIGNATURE),
        (wrong_single, worker.BAD_SIGNATURE),
    ):
        data = codec.encode(group.to_value())
        assert code_of(judge().judge_item(data)) == code
        batch = batch_of(group)
        assert code_of(judge().judge_batch(batch.public, batch.private)) == code


def test_weak_key_is_refused_although_the_equation_holds() -> None:
    unsigned = draft(ANNA, 1)
    value = cbor2.loads(unsigned.transaction.body)
    value[1] = WEAK_KEY
    body = cbor2.dumps(value)
    forged = bytes([1]) + bytes(63)  # R = neutral element, S = 0
    public = cbor2.dumps([[1, 0, 1, 0], [[body, [forged]]]])
    found = batches.decode_public(CHAIN, public, LIMITS)
    with pytest.raises(SignatureError):
        judge()._check_signatures(found.items)


def test_signature_made_for_another_network_is_refused() -> None:
    elsewhere = draft(ANNA, 1, chain=b"D" * 32)
    here = draft(ANNA, 1)
    batch = batch_of(here.transaction.signed([ANNA.sign(elsewhere.message)]))
    assert code_of(judge().judge_batch(batch.public, batch.private)) == worker.BAD_SIGNATURE


def test_bad_copy_is_told_from_a_malformed_batch() -> None:
    one, two = batch_of(signed(ANNA, 1)), batch_of(signed(ANNA, 2))
    assert code_of(judge().judge_batch(one.public, two.private)) == worker.BAD_COPY
    assert code_of(judge().judge_batch(one.public[:-1], one.private)) == worker.MALFORMED


def test_known_signature_is_not_checked_again() -> None:
    """Submitted here, and come back in a peer's batch: one check in this node."""
    it = judge()
    assert it.judge_item(envelope(ANNA, 1, cosigners=[BORIS])).code == worker.ACCEPTED
    assert it.signatures == 2
    batch = batch_of(signed(ANNA, 1, cosigners=[BORIS]), signed(ANNA, 2))
    assert it.judge_batch(batch.public, batch.private).code == worker.ACCEPTED
    assert it.signatures == 3


def test_remembered_signature_vouches_for_no_other() -> None:
    it = judge()
    good = signed(ANNA, 1, cosigners=[BORIS])
    assert it.judge_item(envelope(ANNA, 1, cosigners=[BORIS])).code == worker.ACCEPTED
    for slots in (good.signatures[::-1], [good.signatures[0], ANNA.sign(b"other")]):
        batch = batch_of(good.signed(slots))
        assert code_of(it.judge_batch(batch.public, batch.private)) == worker.BAD_SIGNATURE


def test_failed_signature_is_not_remembered() -> None:
    it = judge()
    batch = batch_of(signed(ANNA, 1).signed([ANNA.sign(b"other")]))
    for _ in range(2):
        assert code_of(it.judge_batch(batch.public, batch.private)) == worker.BAD_SIGNATURE
    assert it.signatures == 2


def test_memory_of_signatures_is_bounded() -> None:
    it = Judge(CHAIN, LIMITS, verified_max=3)
    for sequence in (1, 2, 3, 4, 4, 1):
        assert it.judge_item(envelope(ANNA, sequence)).code == worker.ACCEPTED
    assert it.signatures == 5  # 4 was remembered, 1 had been forgotten
    assert len(it._verified) == 3


def test_items_of_one_job_are_judged_by_themselves() -> None:
    good, bad = envelope(ANNA, 1), b"\xff"
    forged = assemble(draft(ANNA, 2), [BORIS.sign(b"")])
    answer = judge().answer(Job([good, bad, forged, good]))
    assert [code_of(verdict) for verdict in answer.verdicts] == [
        worker.ACCEPTED,
        worker.MALFORMED,
        worker.BAD_SIGNATURE,
        worker.ACCEPTED,
    ]
    assert answer.signatures == 2


# --- the process itself ---------------------------------------------------------------------------


def test_batches_of_one_job_are_judged_by_themselves_and_signatures_only_where_asked() -> None:
    good = batch_of(signed(ANNA, 1))
    forged = batch_of(signed(ANNA, 2).signed([BORIS.sign(b"")]))
    answer = judge().answer(
        Job(
            batches=[
                (good.public, good.private, True),
                (forged.public, forged.private, True),
                (forged.public, forged.private, False),
                (forged.public, good.private, False),
            ]
        )
    )
    codes = [worker.ACCEPTED, worker.BAD_SIGNATURE, worker.ACCEPTED, worker.BAD_COPY]
    assert [code_of(verdict) for verdict in answer.verdicts] == codes
    assert answer.verdicts[2].digest == forged.digest
    assert answer.signatures == 2


def test_worker_process_speaks_frames_and_ends_with_its_input() -> None:
    """Nothing a library prints can get between the frames; Ctrl-C is not for the worker."""
    setup = msgspec.msgpack.encode(worker.Setup(CHAIN, 2**20, 4096))
    job = msgspec.msgpack.encode(Job([envelope(ANNA, 1), b"\xff"]))
    sent = b"".join(worker.LENGTH.pack(len(each)) + each for each in (setup, job, job))
    root = Path(pool.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "node.verifier_worker"],
        input=sent + b"\x00\x00",
        capture_output=True,
        timeout=60,
        check=True,
        cwd=root,
    )
    out = done.stdout
    codes = []
    while out:
        (length,) = worker.LENGTH.unpack_from(out)
        answer = msgspec.msgpack.decode(out[4 : 4 + length], type=Answer)
        codes.append([verdict.code for verdict in answer.verdicts])
        out = out[4 + length :]
    assert codes == [[worker.ACCEPTED, worker.MALFORMED]] * 2


# --- the pool -------------------------------------------------------------------------------------


@asynccontextmanager
async def running(processes: int = 1, inline_bytes_max: int = 0) -> AsyncIterator[Verifier]:
    verifier = Verifier(CHAIN, LIMITS, processes=processes, inline_bytes_max=inline_bytes_max)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(verifier.run)
        yield verifier
        nursery.cancel_scope.cancel()


async def raises(kind: type[ComityError], check: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(kind):
        await check()


async def test_pool_answers_for_batches_and_items_alike() -> None:
    batch = batch_of(signed(ANNA, 1), group_of(payments(5, first=10), [ANNA]), origin=2, number=9)
    other = batch_of(signed(BORIS, 1))
    forged = batch_of(signed(ANNA, 3).signed([BORIS.sign(b"")]))
    group = group_of(payments(3, first=20), [ANNA])
    async with running() as verifier:
        assert await verifier.check_batch(batch.public, batch.private) == from_batch(batch)
        await raises(CopyError, lambda: verifier.check_batch(batch.public, other.private))
        await raises(DecodeError, lambda: verifier.check_batch(b"\x82", batch.private))
        await raises(SignatureError, lambda: verifier.check_batch(forged.public, forged.private))
        assert await verifier.check_item(envelope(ANNA, 1)) == signed(ANNA, 1)
        assert await verifier.check_item(codec.encode(group.to_value())) == group
        await raises(DecodeError, lambda: verifier.check_item(b""))
        found = await verifier.check_items([envelope(BORIS, 2), b"\xff", envelope(BORIS, 3)])
        assert found[0] == signed(BORIS, 2)
        assert isinstance(found[1], DecodeError)
        assert found[2] == signed(BORIS, 3)
        # One each for ANNA 1, group of 5, BORIS' forgery, group of 3, BORIS 2, BORIS 3; ANNA 1 in
        # the item was remembered, the bad copy and the malformed batch never got that far.
        assert verifier.signatures == 6
        assert verifier.restarts == 0


@pytest.mark.parametrize("inline_bytes_max", [0, 1 << 20])
async def test_what_is_refused_is_freed_by_reference_counts(inline_bytes_max: int) -> None:
    forged = assemble(unsigned := draft(ANNA, 1), [BORIS.sign(unsigned.message)])

    async def refused(verifier: Verifier) -> list[type]:
        found = await verifier.check_items([b"\xff", forged])
        return [type(each) for each in found]

    async with running(inline_bytes_max=inline_bytes_max) as verifier:
        await refused(verifier)
        with freed():
            types = await refused(verifier)
    assert types == [DecodeError, SignatureError]


async def test_batch_decodes_for_execution_without_hashing_again() -> None:
    batch = batch_of(signed(ANNA, 1, cosigners=[BORIS], reason="r"), signed(ANNA, 2))
    async with running() as verifier:
        checked = await verifier.check_batch(batch.public, batch.private)
    assert checked.decode(CHAIN).transactions == batch.transactions


async def test_requests_of_many_tasks_are_answered_each_with_its_own() -> None:
    found: dict[int, Transaction] = {}

    async def one(verifier: Verifier, sequence: int) -> None:
        item = await verifier.check_item(envelope(ANNA, sequence))
        assert isinstance(item, Transaction)
        found[sequence] = item

    async with running(processes=2) as verifier, trio.open_nursery() as nursery:
        for sequence in range(1, 301):
            nursery.start_soon(one, verifier, sequence)
    assert all(found[sequence].sequence == sequence for sequence in range(1, 301))


async def test_killed_worker_is_replaced_and_its_work_done_once_more() -> None:
    batch = batch_of(*[signed(ANNA, n) for n in range(1, 40)])
    other = batch_of(*[signed(BORIS, n) for n in range(1, 40)], number=2)
    found: list[CheckedBatch] = []

    async def check(public: bytes, private: bytes) -> None:
        found.append(await verifier.check_batch(public, private))

    async with running() as verifier:
        await verifier.check_item(envelope(ANNA, 1000))
        first = verifier.pids[0]
        os.kill(first, signal.SIGSTOP)  # so that it certainly dies with both batches in hand
        async with trio.open_nursery() as nursery:
            nursery.start_soon(check, batch.public, batch.private)
            nursery.start_soon(check, other.public, other.private)
            await trio.testing.wait_all_tasks_blocked()
            assert verifier.depth == 0
            os.kill(first, signal.SIGKILL)
        assert {each.digest for each in found} == {batch.digest, other.digest}
        assert verifier.restarts == 1
        assert verifier.pids != [first]


async def test_small_batches_go_to_a_worker_together_and_large_ones_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A node that comes round seldom hands over all that waits in a few turns."""
    made = [batch_of(signed(ANNA, n), number=n) for n in range(10, 30)]
    size = len(made[0].public) + len(made[0].private)
    verifier = Verifier(CHAIN, LIMITS, inline_bytes_max=0)
    async with trio.open_nursery() as nursery:
        for each in made:
            nursery.start_soon(verifier.check_batch, each.public, each.private)
        await trio.testing.wait_all_tasks_blocked()
        taken = []
        for limit in (size - 1, 10 * size + size // 2, 10 * size + size // 2):
            monkeypatch.setattr(pool, "BATCHES_BYTES_MAX", limit)
            taken.append(len(await verifier.take()))
        nursery.cancel_scope.cancel()
    assert taken == [1, 10, 9]


async def test_batches_that_went_together_are_answered_each_with_its_own() -> None:
    made = [batch_of(signed(ANNA, n), number=n) for n in range(1, 21)]
    found: dict[int, bytes] = {}

    async def check(at: int) -> None:
        found[at] = (await verifier.check_batch(made[at].public, made[at].private)).digest

    async with running() as verifier:
        await verifier.check_item(envelope(ANNA, 1000))
        [stopped] = verifier.pids
        os.kill(stopped, signal.SIGSTOP)
        async with trio.open_nursery() as nursery:
            for at in range(len(made)):
                nursery.start_soon(check, at)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(stopped, signal.SIGCONT)
        assert found == {at: each.digest for at, each in enumerate(made)}
        assert verifier.restarts == 0


async def test_idle_worker_that_dies_is_replaced_before_it_is_needed() -> None:
    async with running() as verifier:
        await verifier.check_item(envelope(ANNA, 1))
        os.kill(verifier.pids[0], signal.SIGKILL)
        assert await verifier.check_item(envelope(ANNA, 2)) == signed(ANNA, 2)
        assert verifier.restarts == 1


STANDINS = {
    "dies on poison": """
        if b"poison" in frame: raise SystemExit(3)
        answer = encode(w.Answer([w.Verdict(0, txids=part[:32]) for part in job.items], 1))
    """,
    "answers too few": "answer = encode(w.Answer([], 0))",
    "answers garbage": "answer = bytes([255]) * 9",
    "answers too much": "answer = bytes(17 * 1024 * 1024)",
}


def standin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, behaviour: str) -> None:
    """Put another program in the worker's place."""
    body = "\n".join("    " + line.strip() for line in STANDINS[behaviour].strip().splitlines())
    (tmp_path / "standin_worker.py").write_text(
        "import sys, msgspec\n"
        "from node import verifier_worker as w\n"
        "encode = msgspec.msgpack.encode\n"
        "w._read(sys.stdin.buffer)\n"
        "while (frame := w._read(sys.stdin.buffer)) is not None:\n"
        "    job = msgspec.msgpack.decode(frame, type=w.Job)\n"
        f"{body}\n"
        "    sys.stdout.buffer.write(w.LENGTH.pack(len(answer)) + answer)\n"
        "    sys.stdout.buffer.flush()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(pool, "WORKER_MODULE", "standin_worker")
    monkeypatch.setattr(pool, "RESTART_SECONDS", 0)


async def test_poison_is_refused_and_takes_nothing_else_along(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    standin(monkeypatch, tmp_path, "dies on poison")
    good = [envelope(ANNA, n) for n in range(1, 6)]
    monkeypatch.setattr(batches, "decode_item_trusted", lambda data, txids: data)
    async with running() as verifier:
        found = await verifier.check_items([*good[:3], b"poison", *good[3:]])
    assert [str(each) for each in [*found[:3], *found[4:]]] == [str(each) for each in good]
    assert isinstance(found[3], WorkerFailed)
    assert verifier.restarts == 2


@pytest.mark.parametrize("behaviour", ["answers too few", "answers garbage", "answers too much"])
async def test_worker_that_answers_nonsense_never_makes_anything_valid(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, behaviour: str
) -> None:
    standin(monkeypatch, tmp_path, behaviour)
    batch = batch_of(signed(ANNA, 1))
    async with running() as verifier:
        await raises(WorkerFailed, lambda: verifier.check_batch(batch.public, batch.private))
        assert verifier.restarts == 2


async def test_hanging_worker_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[object] = []

    async def check(data: bytes) -> None:
        found.append(await verifier.check_item(data))

    async with running() as verifier:
        await verifier.check_item(envelope(ANNA, 1))
        os.kill(verifier.pids[0], signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr(pool, "ANSWER_SECONDS_MAX", 0.01)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(check, envelope(ANNA, 2))
                await trio.testing.wait_all_tasks_blocked()
                patch.undo()
        assert found == [signed(ANNA, 2)]
        assert verifier.restarts == 1


async def test_full_queue_says_busy_and_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = Verifier(CHAIN, LIMITS, inline_bytes_max=0)  # not running: everything waits
    data = envelope(ANNA, 1)
    monkeypatch.setattr(pool, "REQUESTS_MAX", 3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(verifier.check_items, [data, data])
        await trio.testing.wait_all_tasks_blocked()
        await raises(VerifierBusy, lambda: verifier.check_items([data, data]))
        assert verifier.depth == 2
        monkeypatch.setattr(pool, "QUEUE_BYTES_MAX", 3 * len(data))
        await raises(VerifierBusy, lambda: verifier.check_batch(data, data))
        nursery.cancel_scope.cancel()


async def test_who_waits_when_the_pool_stops_is_told() -> None:
    verifier = Verifier(CHAIN, LIMITS, inline_bytes_max=0)
    failed: list[WorkerFailed] = []

    async def wait() -> None:
        try:
            await verifier.check_item(envelope(ANNA, 1))
        except WorkerFailed as error:
            failed.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await verifier.run()
    assert len(failed) == 1
    await raises(WorkerFailed, lambda: verifier.check_item(envelope(ANNA, 1)))


async def test_no_worker_outlives_the_pool() -> None:
    async with running(processes=2) as verifier:
        await verifier.check_item(envelope(ANNA, 1))
        pids = list(verifier.pids)
    assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
