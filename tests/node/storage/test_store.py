"""The store: a flush is all or nothing, readers see whole heights, and the map grows safely."""

from __future__ import annotations

import random
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest
import trio

from consensus.errors import LocalProtocolError
from consensus.state.state import MemoryBackend, Row, State
from node.errors import (
    DamagedStoreError,
    ForeignDataError,
    NewerFormatError,
    StorageFailedError,
)
from node.storage import flush, tables
from node.storage.flush import BatchData, BlockData, FlushBatch
from node.storage.store import Store, _resident_bytes

CHAIN = bytes(range(32))
MAP_BYTES = 4 * 2**20


def key(number: int) -> bytes:
    return random.Random(number).randbytes(32)


def block(
    height: int,
    *,
    certificate: bytes | None = None,
    transactions: tuple[tuple[bytes, int], ...] = (),
    batches: tuple[BatchData, ...] = (),
) -> BlockData:
    return BlockData(
        height,
        b"block %d" % height,
        b"decisions %d" % height,
        b"changes %d" % height,
        certificate,
        transactions,
        batches,
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "state", chain=CHAIN, map_bytes=MAP_BYTES)
    yield opened
    opened.close()


def reopened(store: Store, tmp_path: Path) -> Store:
    store.close()
    return Store.open(tmp_path / "state", chain=CHAIN, map_bytes=MAP_BYTES)


# --- what goes in comes out -----------------------------------------------------------------------


def test_a_new_store_is_blank(store: Store) -> None:
    assert store.height == -1
    assert store.state.get(key(1)) is None
    assert list(store.state.entries()) == []
    assert store.view.newest_certificate() is None


def test_everything_of_a_flush_is_found_again_after_reopening(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state", chain=CHAIN, map_bytes=MAP_BYTES)
    store.write(FlushBatch(0, rows=[(key(1), Row(key(2), 0, b"value"))]))
    batch = BatchData(key(3), b"public", b"private")
    lacking = BatchData(key(4), b"other", None)
    store.write(
        FlushBatch(
            2,
            rows=[(key(5), Row(key(6), 2, b"")), (key(1), Row(bytes(32), 1, b"gone"))],
            blocks=[
                block(1, transactions=((key(7), 0), (key(8), 1)), batches=(batch, lacking)),
                block(2, certificate=b"certificate", transactions=((key(9), 0),)),
            ],
            history=[(0, 1, key(10)), (1, 0, key(11))],
            index=[(b"person\0a", key(5)), (b"person\0b", key(1))],
            aside=[(b"replaced", b"opening")],
            meta=[(b"epoch", b"\1")],
        )
    )
    view = reopened(store, tmp_path).view
    assert view.height == 2
    assert view.get(key(1)) == Row(bytes(32), 1, b"gone")
    assert view.get(key(5)) == Row(key(6), 2, b"")
    assert (view.block(1), view.block(2), view.block(3)) == (b"block 1", b"block 2", None)
    assert view.decisions(2) == b"decisions 2"
    assert view.changes(1) == b"changes 1"
    assert (view.certificate(1), view.certificate(2)) == (None, b"certificate")
    assert view.certificate_from(1) == (2, b"certificate")
    assert view.certificate_from(3) is None
    assert view.newest_certificate() == (2, b"certificate")
    assert view.positions(key(8)) == ((1, 1),)
    assert view.positions(key(99)) == ()
    assert view.batch(key(3)) == (1, b"public")
    assert view.private(key(3)) == b"private"
    assert (view.has_batch(key(4)), view.private(key(4))) == (True, None)
    assert (view.history(0, 1), view.history(1, 0), view.history(1, 1)) == (key(10), key(11), None)
    assert view.records(b"person", count_max=9) == [(b"person\0a", key(5)), (b"person\0b", key(1))]
    assert (view.aside(b"replaced"), view.meta(b"epoch")) == (b"opening", b"\1")


def test_batches_of_a_height_are_listed_in_payload_order(store: Store) -> None:
    batches = tuple(BatchData(key(number), b"public", None) for number in (9, 3, 4))
    store.write(FlushBatch(2, blocks=[block(1), block(2, batches=batches)]))
    with store._environment.begin() as txn, txn.cursor(store._opened.batch_at) as cursor:
        found = [(bytes(at), bytes(digest)) for at, digest in cursor]
    height = b"\0" * 7 + b"\2"
    assert found == [
        (height + b"\0\0\0\0", key(9)),
        (height + b"\0\0\0\1", key(3)),
        (height + b"\0\0\0\2", key(4)),
    ]


def test_used_bytes_grow_with_what_is_kept(store: Store) -> None:
    before = store.used_bytes
    store.write(FlushBatch(0, rows=[(key(1), Row(key(2), 0, bytes(100_000)))]))
    assert store.used_bytes >= before + 100_000


def test_pages_and_entries_equal_those_of_the_reference_backend(store: Store) -> None:
    rows = [(key(n), Row(key(-n), n % 7, bytes(n % 5))) for n in range(1, 400)]
    store.write(FlushBatch(0, rows=rows))
    reference = MemoryBackend(rows)
    assert list(store.state.entries()) == list(reference.entries())
    bounds = sorted(
        [bytes(32), b"\xff" * 32, *[kh for kh, _ in rows[:20]], *map(key, range(9, 19))]
    )
    for low in [b"", *bounds]:
        assert store.state.page(low, None) == reference.page(low, None)
        for high in bounds:
            assert store.state.page(low, high) == reference.page(low, high)


def test_the_working_state_has_the_same_root_over_either_backend(store: Store) -> None:
    rows = [(key(n), Row(key(-n), 0, b"v%d" % n)) for n in range(1, 200)]
    store.write(FlushBatch(0, rows=rows))
    ours, reference = State(store.state, 4), State(MemoryBackend(rows), 4)
    assert ours.root == reference.root
    writes = [(key(n), key(1000 + n), b"new") for n in range(150, 260)]
    assert ours.apply(writes) == reference.apply(writes)


def test_records_are_paged_within_their_prefix(store: Store) -> None:
    names = [b"a/%02d" % n for n in range(25)] + [b"b/00", b"A/00"]
    store.write(FlushBatch(0, index=[(name, key(0)) for name in names]))
    seen: list[bytes] = []
    while True:
        after = seen[-1] if seen else b""
        page = store.view.records(b"a/", after=after, count_max=10)
        seen += [name for name, _ in page]
        if len(page) < 10:
            break
    assert seen == names[:25]
    store.write(FlushBatch(0, index=[(b"a/03", None), (b"never there", None)]))
    assert len(store.view.records(b"a/", count_max=100)) == 24
    assert len(store.view.records(b"", count_max=100)) == 26


def test_a_transaction_may_have_several_positions_and_their_number_is_bounded(
    store: Store,
) -> None:
    txid = key(1)
    heights = range(1, 31)
    for height in heights:
        other = key(1000 + height)
        store.write(
            FlushBatch(height, blocks=[block(height, transactions=((txid, 3), (other, 4)))])
        )
    found = store.view.positions(txid)
    assert found == ((1, 3), *[(height, 3) for height in heights[-15:]])
    assert store.view.positions(key(1007)) == ((7, 4),)


def test_positions_within_one_flush_are_joined(store: Store) -> None:
    store.write(
        FlushBatch(
            2,
            blocks=[
                block(1, transactions=((key(1), 0), (key(1), 1))),
                block(2, transactions=((key(1), 5), (key(2), 6))),
            ],
        )
    )
    assert store.view.positions(key(1)) == ((1, 0), (1, 1), (2, 5))
    assert store.view.positions(key(2)) == ((2, 6),)


# --- one transaction ------------------------------------------------------------------------------


def test_a_flush_that_fails_in_the_middle_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(FlushBatch(0, rows=[(key(1), Row(key(2), 0, b"old"))]))

    def fail(*_arguments: object) -> None:
        raise lmdb.DiskError("injected")

    monkeypatch.setattr(flush, "_change", fail)
    with pytest.raises(StorageFailedError, match="injected"):
        store.write(FlushBatch(1, rows=[(key(1), Row(key(3), 1, b"new"))], blocks=[block(1)]))
    monkeypatch.undo()
    with pytest.raises(StorageFailedError, match="injected"):
        store.write(FlushBatch(1, blocks=[block(1)]))
    assert store.failed is not None
    assert store.state.get(key(1)) == Row(key(2), 0, b"old"), "reads go on"
    again = reopened(store, tmp_path)
    assert (again.height, again.view.block(1)) == (0, None)
    assert again.state.get(key(1)) == Row(key(2), 0, b"old")


def test_a_flush_killed_before_its_commit_leaves_nothing(tmp_path: Path) -> None:
    """The same by dropping the transaction, as the death of the process does."""
    store = Store.open(tmp_path / "state", chain=CHAIN, map_bytes=MAP_BYTES)
    store.write(FlushBatch(0))
    txn = store._environment.begin(write=True)
    flush.write(txn, store._opened, FlushBatch(1, blocks=[block(1)]))
    txn.abort()
    assert reopened(store, tmp_path).height == 0


@pytest.mark.parametrize(
    "batch",
    [
        FlushBatch(4),
        FlushBatch(6),
        FlushBatch(6, blocks=[block(7)]),
        FlushBatch(7, blocks=[block(7)]),
        FlushBatch(6, blocks=[block(5), block(6)]),
        FlushBatch(7, blocks=[block(6), block(8)]),
        FlushBatch(8, blocks=[block(6), block(8)]),
        FlushBatch(5, meta=[(b"_height", b"")]),
        FlushBatch(5, rows=[(b"short", Row(bytes(32), 5, b""))]),
        FlushBatch(5, rows=[(bytes(32), Row(b"short", 5, b""))]),
        FlushBatch(5, index=[(b"", b"x")]),
        FlushBatch(5, index=[(bytes(512), b"x")]),
    ],
)
def test_a_batch_that_does_not_follow_is_our_own_bug_and_changes_nothing(
    store: Store, batch: FlushBatch
) -> None:
    store.write(FlushBatch(5, blocks=[block(height) for height in range(1, 6)]))
    with pytest.raises(LocalProtocolError):
        store.write(batch)
    assert store.height == 5
    assert store.view.block(6) is None
    store.write(FlushBatch(6, blocks=[block(6)]))


def test_a_store_at_genesis_may_jump_to_a_snapshot(store: Store) -> None:
    store.write(FlushBatch(0, rows=[(key(1), Row(key(2), 0, b""))]))
    store.write(FlushBatch(0, rows=[(key(3), Row(key(4), 800, b""))]))
    store.write(FlushBatch(812, meta=[(b"snapshot", b"done")]))
    store.write(FlushBatch(813, blocks=[block(813)]))
    assert store.height == 813


def test_the_store_never_runs_in_a_mode_without_sync(store: Store) -> None:
    flags = store._environment.flags()
    assert flags["sync"]
    assert flags["metasync"]
    assert not flags["map_async"]
    assert not flags["writemap"]


# --- readers beside the writer --------------------------------------------------------------------


async def test_the_main_view_reads_the_old_height_until_the_flush_has_returned(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(key(n), Row(bytes(32), 0, b"old")) for n in range(100)]
    store.write(FlushBatch(0, rows=rows))
    written, go_on = threading.Event(), threading.Event()
    real = flush.write

    def slow(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        written.set()
        go_on.wait(5)

    monkeypatch.setattr(flush, "write", slow)
    after = [(kh, Row(bytes(32), 1, b"new")) for kh, _ in rows]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.flush, FlushBatch(1, rows=after, blocks=[block(1)]))
        await trio.to_thread.run_sync(written.wait)
        assert {store.state.get(kh) for kh, _ in rows} == {Row(bytes(32), 0, b"old")}
        assert store.height == 0
        go_on.set()
    assert {store.state.get(kh) for kh, _ in rows} == {Row(bytes(32), 1, b"new")}
    assert store.height == 1


async def test_flushes_asked_for_at_once_are_served_one_after_the_other(store: Store) -> None:
    store.write(FlushBatch(0))
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(store.flush, FlushBatch(0, meta=[(b"name", b"value")]))
    assert store.view.meta(b"name") == b"value"


async def test_a_cancelled_caller_does_not_stop_the_flush(store: Store) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.flush(FlushBatch(0, meta=[(b"name", b"value")]))
    assert store.view.meta(b"name") == b"value"


# --- the map --------------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_full_map_grows_and_the_flush_is_whole(tmp_path: Path, asynchronous: bool) -> None:
    store = Store.open(tmp_path / "state", chain=CHAIN, map_bytes=256 * 1024)
    rows = [(key(n), Row(key(-n), 0, bytes(2000))) for n in range(1500)]
    batch = FlushBatch(0, rows=rows)
    if asynchronous:
        trio.run(store.flush, batch)
    else:
        store.write(batch)
    assert store._environment.info()["map_size"] >= 3_000_000
    assert sum(1 for _ in store.state.entries()) == 1500
    again = reopened(store, tmp_path)
    assert sum(1 for _ in again.state.entries()) == 1500
    again.close()


def test_a_file_of_which_too_much_is_resident_is_mapped_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path / "state", chain=CHAIN, map_bytes=2**26)
    rows = [(key(n), Row(key(-n), 0, bytes(5000))) for n in range(5000)]
    store.write(FlushBatch(0, rows=rows))
    assert sum(1 for _ in store.view.entries()) == 5000
    whole = _resident_bytes()
    monkeypatch.setattr("node.storage.store.RESIDENT_BYTES_MAX", whole - 2**20)
    store.write(FlushBatch(0, meta=[(b"name", b"value")]))
    assert _resident_bytes() < whole - 15 * 2**20
    assert store.view.meta(b"name") == b"value"
    assert sum(1 for _ in store.state.entries()) == 5000
    assert _resident_bytes() < whole - 15 * 2**20
    assert store.state.get(key(1)) == rows[1][1]
    store.close()


def test_where_the_system_does_not_tell_the_map_stays(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.storage.store._MEMORY_FILE", tmp_path / "absent")
    monkeypatch.setattr("node.storage.store.RESIDENT_BYTES_MAX", 0)
    monkeypatch.setattr(store, "_map", None)
    store.write(FlushBatch(0, meta=[(b"name", b"value")]))
    assert store.view.meta(b"name") == b"value"


def test_a_map_at_its_limit_fails_the_store_and_keeps_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.storage.store.MAP_BYTES_MAX", 300 * 1024)
    store = Store.open(tmp_path / "state", chain=CHAIN, map_bytes=256 * 1024)
    store.write(FlushBatch(0, rows=[(key(1), Row(key(2), 0, b"kept"))]))
    rows = [(key(n), Row(key(-n), 0, bytes(2000))) for n in range(1000)]
    with pytest.raises(StorageFailedError, match="reached"):
        store.write(FlushBatch(0, rows=rows))
    assert store.state.get(key(1)) == Row(key(2), 0, b"kept")
    assert store.height == 0
    store.close()


# --- opening --------------------------------------------------------------------------------------


def test_the_store_of_another_network_is_refused(store: Store, tmp_path: Path) -> None:
    store.close()
    with pytest.raises(ForeignDataError):
        Store.open(tmp_path / "state", chain=bytes(32), map_bytes=MAP_BYTES)
    Store.open(tmp_path / "state", chain=CHAIN, map_bytes=MAP_BYTES)


def test_a_newer_format_is_refused_with_a_hint(store: Store, tmp_path: Path) -> None:
    with store._environment.begin(write=True) as txn:
        txn.put(tables.META_FORMAT, (2).to_bytes(4, "big"), db=store._opened.meta)
    with pytest.raises(NewerFormatError, match="format 2") as caught:
        reopened(store, tmp_path)
    assert "newer" in caught.value.hint


def test_a_store_that_does_not_say_what_it_is_is_damaged(store: Store, tmp_path: Path) -> None:
    store.write(FlushBatch(0, rows=[(key(1), Row(key(2), 0, b""))]))
    with store._environment.begin(write=True) as txn:
        txn.delete(tables.META_CHAIN, db=store._opened.meta)
    with pytest.raises(DamagedStoreError, match="format and network"):
        reopened(store, tmp_path)


def test_a_file_that_is_no_database_is_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "data.mdb").write_bytes(b"rubbish" * 10_000)
    with pytest.raises(DamagedStoreError):
        Store.open(folder, chain=CHAIN)


def test_a_full_disk_is_not_taken_for_damage(tmp_path: Path) -> None:
    """Nobody is told to remove a store because there was no room to open it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(StorageFailedError, match="File too large") as caught:
            Store.open(tmp_path / "state", chain=CHAIN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "free or replace the disk" in caught.value.hint


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageFailedError, match="cannot open"):
        Store.open(tmp_path / "file" / "state", chain=CHAIN)


def test_files_are_private(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    assert folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
