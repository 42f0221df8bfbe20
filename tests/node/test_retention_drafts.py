"""Private parts of proposals' drafts go once their time is long over, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lmdb
import nacl.bindings
import pytest
import trio

from comity import snapshots
from consensus import genesis
from consensus.audit.divergence import DivergenceError
from consensus.audit.replay import RowComparison
from consensus.audit.stream import StateRow
from consensus.errors import LocalProtocolError, ProofError
from consensus.genesis import Genesis
from consensus.ledger import decision as decisions
from consensus.ledger.attached import cut_attached
from consensus.ledger.codes import Code
from consensus.ledger.layout import Paths
from consensus.ledger.proposals import bared, decode_draft, is_bare
from consensus.ledger.stored import check_row
from consensus.ledger.transaction import Transaction, signed_message
from consensus.snapshot import Reader
from consensus.state.state import Row
from node import retention
from node.asking import Asking
from node.retention import Retention
from node.retracing import NotKept, Retracing
from node.snapshots.export import export
from node.snapshots.importing import fill
from node.storage import tables
from node.storage.flush import FlushBatch
from node.storage.store import Store
from tests.consensus.ledger import world as worlds
from tests.consensus.ledger.desk import Desk, desk_genesis
from tests.node import machines
from tests.node.machines import START_MS, Machine, Town, running
from tests.node.machines import inline_threads as inline_threads

pytestmark = pytest.mark.usefixtures("inline_threads")
PERIOD_MS = 20_000
LONG = b"a reason for which nobody needs to remember this payment"
SHORT = b"another reason, of what nobody approved in time"
OPEN = b"a reason of what is still open"


def make_genesis() -> Genesis:
    plain = machines.make_genesis()
    agencies = (*desk_genesis().agencies, *plain.agencies)
    return desk_genesis(committee=plain.committee, agencies=agencies, time_ms=START_MS - 1000)


class Office(Desk):
    """People who sign what they send to the machines; the state here is that of the beginning."""

    def __init__(self, town: Town) -> None:
        worlds.World.__init__(self, machines.GENESIS)
        self.town = town
        self.now_ms = town.now_ms()

    def send(self, transaction: Transaction) -> bytes:
        signatures = []
        for key in transaction.signers:
            name = next(each for each in PEOPLE if worlds.public_key(each) == key)
            _, secret = nacl.bindings.crypto_sign_seed_keypair(worlds._seed(name.encode()))
            message = signed_message(self.ledger.chain, transaction.txid)
            signatures.append(nacl.bindings.crypto_sign(message, secret)[:64])
        self.town.machines[0].engine.dissemination.add(transaction.signed(signatures))
        return transaction.txid

    def ahead(self, ms: int) -> int:
        return self.town.now_ms() + ms


PEOPLE = ("clerk", "officer", "auditor")


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Town:
    founded = make_genesis()
    monkeypatch.setattr(machines, "GENESIS", founded)
    monkeypatch.setattr(machines, "CHAIN", genesis.chain_id(founded.encode()))
    return Town(tmp_path)


def decided(machine: Machine, txid: bytes) -> list[Code]:
    """What came of a transaction, on one machine."""
    chronicle = machine.engine.chronicle
    found = []
    for height in range(1, chronicle.certified + 1):
        block = chronicle.block(height)
        if block is not None and txid in block.txids:
            rows = zip(block.txids, block.decisions, strict=True)
            found += [decisions.decode(data).code for id_, data in rows if id_ == txid]
    return found


def rows_with(folder: Path, wanted: bytes) -> list[str]:
    """Which tables of a store have the bytes somewhere."""
    found: dict[str, None] = {}
    with lmdb.open(str(folder), readonly=True, max_dbs=tables.TABLES_MAX, lock=False) as opened:
        names = tables.Tables.__dataclass_fields__
        for name in names:
            table = opened.open_db(name.encode(), create=False)
            with opened.begin(db=table) as txn, txn.cursor() as cursor:
                for key, value in cursor:
                    if wanted in key + value:
                        found[name] = None
    return list(found)


def in_log(machine: Machine, wanted: bytes) -> bool:
    return any(wanted in bytes(inode.shown) for inode in machine.disk.files.values())


def draft_row(machine: Machine, txid: bytes) -> bytes:
    row = machine.engine.store.view.get(machine.engine.ledger.paths("proposal", [txid, "draft"]))
    assert row is not None
    return row.value


def asking(machine: Machine) -> Asking:
    engine = machine.engine
    return Asking(
        engine.ledger.apart(),
        lambda: engine.execution.state,
        engine.chronicle.proposals,
        lambda: engine.chronicle.certified,
        engine.chronicle.time_ms,
        engine.execution.history.root,
    )


@pytest.mark.trio
async def test_drafts_lose_their_private_parts_and_all_nodes_go_on_alike(
    tmp_path: Path, town: Town, autojump_clock: trio.testing.MockClock
) -> None:
    old, keeper = town.machines[1], town.machines[2]
    for machine in town.machines:
        machine.retention_ms = 0 if machine is keeper else PERIOD_MS
    folders = [machine.folder / "state" for machine in (old, keeper)]
    async with running(town):
        office = Office(town)
        pay = ("payments.transfer", "a", "b", 1)
        soon = [
            office.propose("clerk", pay, not_after_ms=office.ahead(30_000), reason=reason.decode())
            for reason in (LONG, SHORT)
        ]
        seeds = [each.seed for each in soon]
        made, lapsed = (office.send(each) for each in soon)
        waits = office.propose(
            "clerk", pay, not_after_ms=office.ahead(300_000), reason=OPEN.decode()
        )
        office.send(waits)
        await town.until(lambda: all(decided(old, each) for each in (made, lapsed, waits.txid)))
        assert decided(old, made) == [Code.PROPOSED]
        approval = office.draft(
            "officer", ("charter.approve", made), not_after_ms=office.ahead(30_000)
        )
        office.send(approval)
        await town.until(lambda: len(decided(old, made)) == 2)
        assert decided(old, made) == [Code.PROPOSED, Code.APPLIED]
        place = old.engine.chronicle.find(made)
        assert place is not None
        await trio.sleep(25)  # those of its height are gone, but its time is not over
        await town.until(lambda: old.engine.retention.first > place.height + 1, 60)
        assert not is_bare(draft_row(old, made))
        await trio.sleep(40)
        gone = (made, lapsed)
        await town.until(lambda: all(is_bare(draft_row(old, each)) for each in gone), 60)
        assert not any(is_bare(draft_row(keeper, each)) for each in gone)
        assert not is_bare(draft_row(old, waits.txid))
        assert asking(old).draft(asking(old).proposal(made)) is None  # type: ignore[arg-type]
        assert asking(old).places(made) == []
        assert asking(keeper).draft(asking(keeper).proposal(made)) is not None  # type: ignore[arg-type]
        engine = old.engine
        root = engine.execution.history.root
        retracing = Retracing(engine.ledger, engine.chronicle, engine.past, root)
        with pytest.raises(NotKept):
            await retracing.prepare(place.height, place.index)
        # acts on what has ended come to the same everywhere; what is open can still take effect
        late = [
            office.draft(who, (f"charter.{act}", each), not_after_ms=office.ahead(30_000))
            for who, act, each in (
                ("officer", "approve", made), ("auditor", "approve", lapsed),
                ("clerk", "withdraw", lapsed), ("auditor", "approve", waits.txid),
            )
        ]  # fmt: skip
        for each in late:
            office.send(each)
        both = [(machine, each.txid) for machine in (old, keeper) for each in late]
        await town.until(lambda: all(decided(*each) for each in both))
        assert [decided(keeper, each.txid) for each in late] == [
            [Code.REQUIREMENT], [Code.REQUIREMENT], [Code.REQUIREMENT], [Code.APPLIED],
        ]  # fmt: skip
        assert decided(old, waits.txid)[-1] == Code.APPLIED
        await town.until(lambda: old.engine.store.height >= old.height)
    assert town.faults == []
    for secret in (LONG, SHORT, seeds[0], seeds[1]):
        assert rows_with(folders[0], secret) == []
        assert not in_log(old, secret)
        assert rows_with(folders[1], secret) == ["state", "private"]
    assert rows_with(folders[0], OPEN) == ["state"]
    check_copies(tmp_path, folders)
    for machine in town.machines:
        machine.lose()
    async with running(town):
        await town.until_certified(old.height + 2)
        assert is_bare(draft_row(old, made))
    assert town.faults == []


def check_copies(tmp_path: Path, folders: list[Path]) -> None:
    """Snapshots of both stores are right, and only one has what the other dropped."""
    found = []
    for number, folder in enumerate(folders):
        file = tmp_path / f"{number}.snapshot"
        export(folder, machines.GENESIS.encode(), file, lambda done, of: None)
        verified = snapshots.verify(file, machines.CHAIN, lambda done, of: None, processes=0)
        assert verified.whole
        found.append(LONG in file.read_bytes())
        with file.open("rb") as opened:
            fill(Reader(opened.read, machines.CHAIN), tmp_path / f"new-{number}", lambda d, o: None)
        assert ("state" in rows_with(tmp_path / f"new-{number}", LONG)) is bool(number)
    assert found == [False, True]


# --- rows of others -------------------------------------------------------------------------------


def proposed() -> tuple[Desk, Transaction, bytes, bytes, bytes]:
    """A proposal in a state: with kh, vh and row of its draft."""
    desk = Desk()
    made = desk.stored("clerk", ("payments.transfer", "a", "b", 1), reason=LONG.decode())
    kh = desk.ledger.paths("proposal", [made.txid, "draft"])
    row = desk.state.get(kh)
    assert row is not None
    return desk, made, kh, row.vh, row.value


def test_a_bare_row_is_right_only_after_the_time_of_the_draft() -> None:
    desk, made, kh, vh, row = proposed()
    paths = Paths(desk.ledger.chain)
    bare = bared(row)
    assert LONG in row
    assert LONG not in bare
    assert made.seed not in bare
    assert not is_bare(row)
    assert is_bare(bare)
    over_ms = made.not_after_ms + 1
    check_row(desk.ledger.chain, paths, kh, vh, row, over_ms)
    check_row(desk.ledger.chain, paths, kh, vh, bare, over_ms)
    for time_ms in (0, made.not_after_ms):
        with pytest.raises(ProofError, match="its time is not over yet"):
            check_row(desk.ledger.chain, paths, kh, vh, bare, time_ms)


def test_a_bare_row_has_the_body_of_its_own_transaction_and_nothing_else() -> None:
    desk, made, kh, vh, row = proposed()
    other = desk.stored("clerk", ("payments.transfer", "a", "b", 2))
    theirs = desk.state.get(desk.ledger.paths("proposal", [other.txid, "draft"]))
    assert theirs is not None
    head = row[: len(row) - len(cut_attached(row)[1])]
    attached = cut_attached(bared(row))[1]
    for forged in (
        head + cut_attached(bared(theirs.value))[1],
        head + attached + b"\x00",
        head + b"\x80",
        head + b"\x82" + attached[1:] + b"\x80",
        head + attached[:-1],
        head + b"\x81\x40",
    ):
        with pytest.raises(ProofError):
            check_row(
                desk.ledger.chain, Paths(desk.ledger.chain), kh, vh, forged, made.not_after_ms + 1
            )


def test_an_audit_takes_a_bare_row_for_the_whole_one_after_its_time_and_no_other() -> None:
    _, made, kh, vh, row = proposed()

    def compare(kept: bytes, own: bytes, time_ms: int, **other: Any) -> None:
        ours = StateRow(kh, 3, vh, own)
        comparison = RowComparison(9, iter([ours]), time_ms)
        comparison.take([replace(ours, value=kept, **other)])
        comparison.finish()

    over_ms = made.not_after_ms + 1
    compare(bared(row), row, over_ms)
    compare(row, row, 0)
    for kept, own, time_ms, other in (
        (bared(row), row, over_ms - 1, {}),
        (bared(row), row, over_ms, {"vh": b"v" * 32}),
        (bared(row), row, over_ms, {"changed_height": 4}),
        (bared(row) + b"\x00", row, over_ms, {}),
        (row, bared(row), over_ms, {}),
        (b"\x02", row, over_ms, {}),
        (bared(row), b"\x00" * 30, over_ms, {}),
    ):
        with pytest.raises(DivergenceError, match="not the one that the decisions lead to"):
            compare(kept, own, time_ms, **other)


def test_nobody_judges_a_draft_without_its_private_part() -> None:
    _, made, _, _, row = proposed()
    with pytest.raises(LocalProtocolError):
        decode_draft(made.txid, cut_attached(bared(row))[1])


async def test_a_step_takes_so_many_drafts_the_oldest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "DRAFTS_MAX", 2)
    desk, _, _, _, row = proposed()
    paths = Paths(desk.ledger.chain)
    ends = {bytes([number]) * 32: 1000 - number for number in range(5)}
    store = Store.open(tmp_path / "state", chain=bytes(32), map_bytes=2**22)
    rows = {paths("proposal", [txid, "draft"]): Row(b"v" * 32, 0, row) for txid in ends}
    index = [(b"\x04" + end.to_bytes(8, "big") + txid, b"\x01") for txid, end in ends.items()]
    store.write(FlushBatch(0, rows=sorted(rows.items()), index=index))
    block: Any = type("Block", (), {"time_ms": 999, "payload": ()})()
    kept = Retention(1, None, lambda height: block)
    taken = []
    while (step := kept.drafts(store.view, paths, 7)).unlisted:
        taken.append([1000 - int.from_bytes(key[1:9], "big") for key, _ in step.unlisted])
        assert [kh for kh, _ in step.rows] == [
            paths("proposal", [bytes([number]) * 32, "draft"]) for number in taken[-1]
        ]
        await store.flush(FlushBatch(0, bared=step.rows, index=step.unlisted))
    assert taken == [[4, 3], [2]]  # the last two end at that moment, or after it
    found = [store.view.get(kh) for kh in rows]
    assert [each is not None and is_bare(each.value) for each in found] == [
        False, False, True, True, True,
    ]  # fmt: skip
    assert {(each.vh, each.changed_height) for each in found if each} == {(b"v" * 32, 0)}
    assert Retention(0, None, lambda height: block).drafts(store.view, paths, 7).unlisted == []
    store.close()
