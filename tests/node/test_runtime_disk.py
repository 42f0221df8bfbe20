"""A failing disk, a refusing signer, data put back from a backup: no vote, and it is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest
import trio

from consensus.hotstuff.types import SignKind
from consensus.protocol import StateKey
from node import flushing
from node.backend import Backend
from node.errors import PromisesLostError, StorageFailedError
from node.storage import kinds
from tests.node.machines import GENESIS, Machine, PowerDisk, Town, running
from tests.node.machines import inline_threads as inline_threads

pytestmark = pytest.mark.usefixtures("inline_threads")


class FullStore:
    """An LMDB environment on a full disk: whatever exists can be read, no commit succeeds."""

    def __init__(self, environment: lmdb.Environment) -> None:
        self._environment = environment

    def begin(self, **options: Any) -> Any:
        if options.get("write"):
            raise lmdb.DiskError("mdb_txn_commit: No space left on device")
        return self._environment.begin(**options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._environment, name)


def full_disk(machine: Machine) -> None:
    machine.disk.broken = frozenset({"write"})


def lying_disk(machine: Machine) -> None:
    """Writes succeed, syncs do not: PostgreSQL's fsyncgate."""
    machine.disk.broken = frozenset({"sync"})


def full_mark(machine: Machine) -> None:
    """The log takes everything, the mark nothing."""
    signer, failing = machine.engine.signer, machine.disk.crash(keep="all")
    failing.broken = frozenset({"write"})
    file = signer._file
    assert file is not None
    file._disk = failing


def full_store(machine: Machine) -> None:
    store = machine.engine.store
    store._environment = FullStore(store._environment)  # type: ignore[assignment]


def no_new_segment(machine: Machine) -> None:
    """Room is left in the segment, none for another."""
    machine.disk.broken = frozenset({"create"})


def backend_of(machine: Machine) -> Backend:
    engine = machine.engine
    return Backend(
        engine.ledger,
        GENESIS.committee,
        engine.execution,
        engine.chronicle,
        engine.dissemination,
        None,  # type: ignore[arg-type]  # nothing is submitted
        engine.store,
        dict,
        lambda: None,
        machine.metrics,
        engine.past,
    )


FAILURES = [full_disk, lying_disk, full_mark, full_store, no_new_segment]


@pytest.mark.parametrize("fail", FAILURES, ids=lambda fail: fail.__name__)
async def test_a_failed_disk_ends_signing_and_nothing_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: object,
    fail: Callable[[Machine], None],
) -> None:
    monkeypatch.setattr(flushing, "LOG_BYTES_ROTATE", 2_000)
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town) as nursery:
        town.submit(0, 2)
        await town.until_certified(3)
        fail(machine)
        for turn in range(4):
            town.submit(turn)
        await town.until(lambda: machine.engine.stopped is not None)
        engine, sent = machine.engine, len(machine.sent)
        assert engine.stopped is not None
        assert (engine.stopped.code, engine.stopped.storage) == ("STORAGE_FAILED", True)
        height = max(town.statements)
        town.submit(1)
        await town.until_certified(height + 3, 1, 2, 3)
        assert machine.powered
        assert len(machine.sent) == sent, "nothing signed leaves any more"

        # What is certified can be read, with proofs under it; nothing above it is shown.
        assert (
            engine.chronicle.executed == engine.chronicle.certified == engine.execution.state.height
        )
        backend = backend_of(machine)
        key = StateKey("agency", ("agency-0",))
        with trio.fail_after(1):
            (proved,) = await backend.prove(0, [lambda _read: [key]])
        assert proved.height == machine.height
        assert proved.rows[0] is not None
        assert backend.evidence(machine.height) is not None

        # It goes on helping others with what it has, and comes back once the disk is mended.
        machine.cut_power()
        await town.until(lambda: not machine.powered)
        machine.lose()
        await nursery.start(machine.run)
        town.submit(0)
        await town.until_certified(max(town.statements) + 2)
        assert machine.engine.stopped is None
    assert not town.faults


async def test_a_refusing_signer_ends_signing_and_a_failed_disk_is_told_after_it(
    tmp_path: Path, autojump_clock: object
) -> None:
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town):
        await town.until_certified(1)
        engine = machine.engine
        engine.signer.sign(SignKind.VOTE, 1, 1_000_000, b"a promise far ahead")
        town.submit(1, 2)
        await town.until(lambda: engine.stopped is not None)
        assert engine.stopped is not None
        assert (engine.stopped.code, engine.stopped.storage) == ("SIGNING_REFUSED", False)
        await town.until(lambda: engine.chronicle.executed == engine.chronicle.certified)
        await engine.finish()
        assert engine.store.height == engine.chronicle.certified
        await town.until_certified(engine.chronicle.certified + 3, 1, 2, 3)
        full_disk(machine)
        with pytest.raises(StorageFailedError):
            await engine.writer.persist([kinds.evidence(b"anything")])
        assert (engine.stopped.code, engine.stopped.storage) == ("STORAGE_FAILED", True)


# --- data put back from a backup ------------------------------------------------------------------


async def test_a_log_put_back_from_a_backup_is_refused_with_what_to_do(
    tmp_path: Path, autojump_clock: object
) -> None:
    """The mark tells of promises that the older log lacks."""
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town) as nursery:
        town.submit(0, 2)
        await town.until_certified(2)
        backup = machine.disk.crash()
        town.submit(1, 2)
        await town.until_certified(5)
        machine.cut_power()
        await town.until(lambda: not machine.powered)
        machine.lose()
        for path, inode in backup.files.items():
            if "log" in path.parts:
                machine.disk.files[path] = machine.disk.durable_names[path] = inode
        for path in [path for path in machine.disk.files if path not in backup.files]:
            del machine.disk.files[path]
        with pytest.raises(PromisesLostError, match="on disk when this key last signed") as caught:
            machine.open()
        assert "admit this validator again under a new key" in caught.value.hint
        with pytest.raises(PromisesLostError):  # the refusal is remembered
            machine.open()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("what", ["older", "empty"])
async def test_a_whole_folder_put_back_is_found_out_by_what_peers_show(
    tmp_path: Path, autojump_clock: object, what: str
) -> None:
    """Log, mark and store agree, and know nothing of later votes; the blocks it lacks do."""
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town) as nursery:
        town.submit(0, 2)
        await town.until_certified(2)
        machine.cut_power()
        await town.until(lambda: not machine.powered)
        machine.lose()
        backup = machine.disk.crash() if what == "older" else PowerDisk()
        store = machine.folder / "state"
        kept = tmp_path / "backup"
        shutil.copytree(store, kept)
        await nursery.start(machine.run)
        for turn in range(6):
            town.submit(turn % 4)
            await trio.sleep(0.1)
        machine.cut_power()
        await town.until(lambda: not machine.powered)
        machine.disk = backup
        town.forgetful.add(0)  # until it is shown what it forgot
        shutil.rmtree(store)
        if what == "older":
            shutil.copytree(kept, store)
        await nursery.start(machine.run)
        town.submit(1)
        await town.until(lambda: machine.engine.stopped is not None)
        assert machine.engine.stopped is not None
        assert machine.engine.stopped.code == "PROMISES_LOST"
        assert "new or was put back" in machine.engine.stopped.reason
        await town.until_certified(max(town.statements) + 2, 1, 2, 3)
