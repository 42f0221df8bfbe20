"""A store checked from end to end: whatever byte is changed, its table, key and height are told.

The stores are made by ``scripts.chainmaker``, which has the validators' keys; what is changed is
changed through LMDB, behind the back of everything that is checked.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import lmdb
import pytest

from consensus import codec
from node.backup import verifying
from node.backup.errors import DamagedRowError
from node.errors import DamagedStoreError, ForeignDataError, InUseError, NewerFormatError
from node.storage import tables
from node.storage.disk import SYSTEM_DISK
from node.storage.readonly import NoDataError
from tests.consensus.audit.ledger import HEIGHT, honest, made

Handles = dict[str, Any]
Damage = Callable[[Any, Handles], None]
AT = 3
"""A height with transactions and a certificate of its own."""
TRANSACTIONS = 13


@cache
def data_of_a_node() -> Path:
    """A data folder, to be copied."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made().store(folder)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    shutil.copytree(data_of_a_node() / "state", tmp_path / "data" / "state")
    return tmp_path / "data" / "state"


def verify(store: Path, processes: int = 0) -> verifying.Verified:
    return verifying.verify(store, honest().genesis, verifying.no_progress, processes=processes)


def change(store: Path, work: Damage) -> None:
    environment = lmdb.open(str(store), max_dbs=tables.TABLES_MAX)
    names = tables.Tables.__dataclass_fields__
    opened = {name: environment.open_db(name.encode()) for name in names}
    with environment.begin(write=True) as txn:
        work(txn, opened)
    environment.close()


def key_at(height: int) -> bytes:
    return height.to_bytes(8, "big")


def flip(table: str, key: bytes, place: int) -> Damage:
    def work(txn: Any, opened: Handles) -> None:
        value = bytearray(txn.get(key, db=opened[table]))
        value[place] ^= 1
        txn.put(key, bytes(value), db=opened[table])

    return work


def drop(table: str, key: bytes) -> Damage:
    def work(txn: Any, opened: Handles) -> None:
        assert txn.delete(key, db=opened[table])

    return work


def first_key(store: Path, table: str, beginning: bytes = b"", number: int = 0) -> bytes:
    with (
        lmdb.open(str(store), max_dbs=tables.TABLES_MAX, readonly=True) as environment,
        environment.begin() as txn,
        txn.cursor(environment.open_db(table.encode(), txn, create=False)) as cursor,
    ):
        cursor.set_range(beginning) if beginning else cursor.first()
        for _ in range(number):
            cursor.next()
        return bytes(cursor.key())


def damaged(store: Path) -> DamagedRowError:
    with pytest.raises(DamagedRowError) as caught:
        verify(store)
    assert caught.value.table in caught.value.message
    assert caught.value.code == "STORE_DAMAGED"
    assert caught.value.hint
    return caught.value


def test_a_whole_store_is_valid_and_what_is_in_it_is_told(store: Path) -> None:
    before = (store / "data.mdb").read_bytes()
    told: list[tuple[int, int]] = []
    found = verifying.verify(
        store, honest().genesis, lambda done, of: told.append((done, of)), processes=0
    )
    assert (found.height, found.first, found.horizon) == (HEIGHT, 0, 0)
    assert found.certificate.statement == honest().statement
    assert found.key_count == honest().state.key_count
    assert found.transactions == TRANSACTIONS
    assert told[-1][0] == told[-1][1] == found.key_count + HEIGHT + 1
    assert (store / "data.mdb").read_bytes() == before


@pytest.mark.parametrize(
    ("table", "place"),
    [
        ("blocks", 40),
        ("blocks", -40),
        ("certs", 80),
        ("certs", -10),
        ("decisions", 30),
        ("decisions", 60),
        ("decisions", -3),
        ("changes", 5),
        ("changes", -1),
        ("replaced", -1),
    ],
)
def test_a_changed_byte_of_a_height_is_named(store: Path, table: str, place: int) -> None:
    change(store, flip(table, key_at(AT), place))
    found = damaged(store)
    assert (found.table, found.height) == (table, AT)


@pytest.mark.parametrize("table", ["blocks", "decisions", "changes", "replaced"])
def test_a_missing_row_of_a_height_is_named(store: Path, table: str) -> None:
    change(store, drop(table, key_at(AT)))
    found = damaged(store)
    assert (found.table, found.height) == (table, AT)


def test_the_newest_height_must_have_its_certificate(store: Path) -> None:
    change(store, drop("certs", key_at(HEIGHT)))
    assert (damaged(store).table, damaged(store).height) == ("certs", HEIGHT)


@pytest.mark.parametrize("place", [8, 20, 60, -1])
def test_a_changed_byte_of_a_row_of_the_state_is_named_by_its_key(store: Path, place: int) -> None:
    key = first_key(store, "state", number=7)
    change(store, flip("state", key, place))
    found = damaged(store)
    assert (found.table, found.key) == ("state", key)


def test_a_row_that_says_another_height_is_found_by_the_change_records(store: Path) -> None:
    key = first_key(store, "state", number=7)
    change(store, flip("state", key, 7))
    found = damaged(store)
    assert (found.table, found.key) == ("state", key)


def test_a_row_of_the_state_that_is_gone_is_named(store: Path) -> None:
    key = first_key(store, "state", number=9)
    change(store, drop("state", key))
    found = damaged(store)
    assert (found.table, found.key) == ("state", key)
    assert "missing" in found.what


def test_a_row_that_was_never_written_is_named(store: Path) -> None:
    key = first_key(store, "state", number=3)

    def work(txn: Any, opened: Handles) -> None:
        row = txn.get(key, db=opened["state"])
        txn.put(b"\x11" * 32, row, db=opened["state"])

    change(store, work)
    assert damaged(store).key == b"\x11" * 32


@pytest.mark.parametrize("table", ["batches", "private", "txs", "index", "batch_at"])
def test_what_blocks_lead_to_is_missed_when_it_is_gone_or_changed(store: Path, table: str) -> None:
    key = first_key(store, table)
    change(store, flip(table, key, -1))
    assert (damaged(store).table, damaged(store).key) == (table, key)
    if table != "private":
        change(store, drop(table, key))
        assert (damaged(store).table, damaged(store).key) == (table, key)


def test_dropped_private_parts_are_no_damage(store: Path) -> None:
    change(store, drop("private", first_key(store, "private")))
    assert verify(store).height == HEIGHT


def test_what_only_serves_proofs_is_checked_too(store: Path) -> None:
    node = b"\0" + key_at(2)
    change(store, flip("history", node, 5))
    assert (damaged(store).table, damaged(store).key) == ("history", node)
    change(store, drop("history", node))
    assert (damaged(store).table, damaged(store).key) == ("history", node)


def test_meta_is_looked_at(store: Path) -> None:
    change(store, lambda txn, opened: txn.put(b"batch numbers", b"\x01", db=opened["meta"]))
    assert damaged(store).table == "meta"


def test_workers_find_the_same_first_damage(store: Path) -> None:
    assert verify(store, 1) == verify(store)
    change(store, flip("decisions", key_at(AT), 60))
    change(store, flip("changes", key_at(AT - 1), 5))
    alone = damaged(store)
    with pytest.raises(DamagedRowError) as caught:
        verify(store, 1)
    assert caught.value.message == alone.message
    assert (alone.table, alone.height) == ("changes", AT - 1)


def test_what_is_no_store_of_this_network_is_refused(store: Path, tmp_path: Path) -> None:
    other = honest().genesis.replace(b"twin", b"twix")
    with pytest.raises(ForeignDataError):
        verifying.verify(store, other, verifying.no_progress, processes=0)
    with pytest.raises(NoDataError):
        verifying.verify(tmp_path / "no", honest().genesis, verifying.no_progress)
    lock = SYSTEM_DISK.lock(store / "lock")
    assert lock is not None
    try:
        with pytest.raises(InUseError, match="a node runs"):
            verify(store)
    finally:
        SYSTEM_DISK.close(lock)
    newer = (tables.FORMAT_VERSION + 1).to_bytes(4, "big")
    change(store, lambda txn, opened: txn.put(b"_format", newer, db=opened["meta"]))
    with pytest.raises(NewerFormatError):
        verify(store)


def test_a_file_that_was_cut_is_refused_before_it_is_read(store: Path) -> None:
    data = (store / "data.mdb").read_bytes()
    (store / "data.mdb").write_bytes(data[: len(data) // 2])
    with pytest.raises(DamagedStoreError):
        verify(store)


def test_decisions_that_are_valid_by_themselves_but_not_those_of_the_block(store: Path) -> None:
    def work(txn: Any, opened: Handles) -> None:
        rows = codec.parse(txn.get(key_at(AT), db=opened["decisions"]))
        txn.put(key_at(AT), codec.encode(rows[:-1]), db=opened["decisions"])

    change(store, work)
    assert "results root" in damaged(store).what
