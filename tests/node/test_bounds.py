"""What a node holds for others at most, where no other test reaches a limit of docs/limits.md."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from consensus.errors import DecodeError, LocalProtocolError
from node import batches, chronicle, links, mempool, observers, origins
from node.api.limits import KEYS_REMEMBERED_MAX, ByteBudget
from node.batch_verdicts import Drop, Verify
from node.batches import BatchStore
from node.chronicle import Chronicle
from node.mempool import Busy
from node.storage import log as logs
from tests.consensus.ledger.authors import ANNA, BORIS
from tests.node.storage.memory_disk import MemoryDisk
from tests.node.storage.test_log import opened
from tests.node.test_batches import NOW, arrive, made, store
from tests.node.test_mempool import pool, signed

# Each limit is made small where the true one would take long to reach.


def test_byte_budgets_of_keys_are_bounded_and_the_oldest_is_forgotten() -> None:
    budget = ByteBudget(1, 10)
    for number in range(KEYS_REMEMBERED_MAX + 5):
        budget.spend(number, 11, 0.0)
    assert len(budget._spent) == KEYS_REMEMBERED_MAX
    assert budget.spend(KEYS_REMEMBERED_MAX + 4, 1, 0.0) == 2.0, "the newest is remembered"
    assert budget.spend(0, 1, 0.0) == 0.0, "the oldest begins anew"


def test_refused_batches_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "REFUSED_MAX", 3)
    it = store()
    said = [made(1, number) for number in range(1, 6)]
    for batch in said:
        request = it.offer(1, batch.public, batch.private, solicited=False)
        assert isinstance(request, Verify)
        it.failed(request, DecodeError("bad"), NOW)
    again = [it.offer(1, batch.public, batch.private, solicited=False) for batch in said]
    assert [type(each) for each in again] == [Verify, Verify, Drop, Drop, Drop]


def test_numbers_whose_digests_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origins, "NUMBERS_KEPT_MAX", 4)
    it: BatchStore = store()
    for number in range(1, 12):
        batch = made(1, number)
        arrive(it, batch)
    assert len(it._origins[1].digests) <= 4 + 1


def test_the_pool_takes_so_many_transactions_of_all_authors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mempool, "POOL_TRANSACTIONS_MAX", 10)
    it = pool()
    for sequence in range(1, 10):
        it.add(signed(ANNA, sequence), NOW)
    with pytest.raises(Busy, match="the pool of this node is full"):
        it.add(signed(BORIS, 1), NOW)
    it.add(signed(BORIS, 2, protective=True), NOW)  # a tenth is kept for these


def test_bytes_that_wait_for_the_logs_worker_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "BUFFER_BYTES_MAX", 1000)
    log, _ = opened(MemoryDisk())
    log.append(1, bytes(800))
    with pytest.raises(LocalProtocolError, match="buffer is full"):
        log.append(1, bytes(200))


def test_heights_that_wait_to_be_flushed_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronicle, "HEIGHTS_MAX", 2)
    kept = Chronicle.__new__(Chronicle)
    kept._executed, kept.executed = {}, 0
    heights = [SimpleNamespace(block=SimpleNamespace(height=number)) for number in (1, 2, 3)]
    for height in heights[:2]:
        kept.add(height)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError, match="too many heights"):
        kept.add(heights[2])  # type: ignore[arg-type]


def test_nodes_of_earlier_committees_are_known_up_to_a_bound_the_newest_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(links, "FORMER_MAX", 3)

    def committee(epoch: int) -> SimpleNamespace:
        keys = [bytes([epoch, place]) for place in range(2)]
        validators = [
            SimpleNamespace(agency=key.hex(), node_key=key, certificate=b"c" + key) for key in keys
        ]
        return SimpleNamespace(epoch=epoch, validators=validators)

    every = tuple(committee(epoch) for epoch in range(1, 6))
    identity = SimpleNamespace(committee=every[-1], committees=every)
    found = links._former(identity)  # type: ignore[arg-type]
    assert [(each.node_key, each.upto) for each in found] == [
        (bytes([4, 0]), 4), (bytes([4, 1]), 4), (bytes([3, 0]), 3),
    ]  # fmt: skip


def test_certificates_of_observers_are_looked_at_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(observers, "OBSERVERS_MAX", 3)
    for number in range(5):
        (tmp_path / f"{number}.crt").write_bytes(b"x")
    admissions = observers.Admissions(tmp_path, lambda _: pytest.fail("nobody is admitted"))
    assert [name for name, *_ in admissions._look()] == ["0.crt", "1.crt", "2.crt"]
