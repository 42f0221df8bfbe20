"""Reading a stopped node's data for an audit: nothing is written, damage is said, never fatal."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lmdb
import pytest

from comity.auditing import sources
from comity.auditing.running import Report, Wanted, audit
from comity.auditing.sources import SourceError
from comity.cli import app as cli
from consensus import codec
from consensus.audit.divergence import DivergenceError
from consensus.audit.stream import Failed, Frame, Kind, Splitter, read_failed
from consensus.errors import ComityError, DecodeError, ProofError
from consensus.hotstuff import wire
from consensus.ledger.batch import digest
from consensus.ledger.layout import Paths
from consensus.ledger.view import single_write
from consensus.state.record import decode_single, encode_single
from consensus.state.state import State
from node import auditing
from node.auditspace import AuditSpace
from node.errors import DamagedStoreError
from node.snapshots.export import WHOLE, Selection, export
from node.storage import kinds
from node.storage.log import Log
from node.storage.store import Store
from scripts import chainmaker
from tests.consensus.audit.ledger import HEIGHT, Notes, honest, made

Handles = dict[str, Any]
Change = Callable[[Any, Handles], None]
TABLES = ("state", "blocks", "batches", "private", "decisions", "certs", "changes", "meta")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made().store(tmp_path / "data")
    return tmp_path / "data"


def stream(
    folder: Path, genesis: bytes | None = None, first: int = 0, last: int | None = None
) -> list[Frame]:
    sink = io.BytesIO()
    auditing.write(sink, folder, genesis or honest().genesis, first, last, True)
    splitter = Splitter()
    found = list(splitter.feed(sink.getvalue()))
    splitter.finish()
    return found


def failed(frames: list[Frame]) -> Failed:
    assert frames[-1].kind is Kind.FAILED
    return read_failed(frames[-1])


def audited(folder: Path) -> Report:
    return audit(iter(stream(folder)), Wanted(honest().chain))


def change(folder: Path, work: Change) -> None:
    """Change a stopped node's store behind its back."""
    environment = lmdb.open(str(folder / "state"), max_dbs=16)
    opened = {name: environment.open_db(name.encode()) for name in TABLES}
    with environment.begin(write=True) as txn:
        work(txn, opened)
    environment.close()


def pot(txn: Any, opened: Handles) -> tuple[bytes, bytes, int]:
    """Key and row of the account that holds most."""
    found = []
    with txn.cursor(opened["state"]) as cursor:
        for kh, row in cursor:
            _, _, value = decode_single(row[40:])
            if value[:3] == b"\x84\x82\x63":  # ["pot", ...
                found.append((bytes(kh), bytes(row), int(codec.parse(value)[1])))
    return max(found, key=lambda each: each[2])


# --- what is there ------------------------------------------------------------------------------


def test_a_store_is_audited_with_its_rows_and_not_touched(folder: Path) -> None:
    before = {each: each.stat().st_mtime_ns for each in folder.rglob("*")}
    contents = (folder / "state" / "data.mdb").read_bytes()
    report = audited(folder)
    assert (report.last, report.certified) == (HEIGHT, HEIGHT)
    assert report.rows == made().state.key_count
    assert (folder / "state" / "data.mdb").read_bytes() == contents
    assert {each: each.stat().st_mtime_ns for each in folder.rglob("*")} == before


def test_a_copy_without_locks_on_read_only_media_will_do(folder: Path) -> None:
    for name in ("lock.mdb", "lock"):
        (folder / "state" / name).unlink(missing_ok=True)
    (folder / "state").chmod(0o500)
    try:
        assert audited(folder).last == HEIGHT
    finally:
        (folder / "state").chmod(0o700)


def test_a_range_goes_on_to_the_next_certificate(folder: Path) -> None:
    heights = [frame for frame in stream(folder, first=2, last=5) if frame.kind is Kind.HEIGHT]
    assert len(heights) == 5


def test_heights_that_only_the_log_has_follow_those_of_the_store(tmp_path: Path) -> None:
    folder = logged(tmp_path, honest())
    report = audited(folder)
    assert (report.last, report.certified) == (HEIGHT, HEIGHT)
    assert report.statement == honest().statement
    assert report.rows is not None


def logged(folder: Path, chain: Notes, stored: int = 3) -> Path:
    """A data folder whose store ends early; the log has the rest, and a block nobody certified."""
    part = Notes()
    part.block([part.pay(10), part.pay(20), part.write(1)])
    part.block([part.amend(1, 1), part.amend(1, 2), part.pay(1)])
    part.block([part.pay(5), part.pay(10**9), part.pay(6)])
    assert part.recorded == chain.recorded[: stored + 1]
    part.store(folder)
    entries = []
    stray = chain.recorded[2]
    for each in [stray, *chain.recorded[stored + 1 :]]:
        block = wire.decode_block(each.block)
        entries.append(kinds.block(block.height, block.id, each.block))
        for public, private in each.batches:
            assert public is not None
            assert private is not None
            entries += [
                kinds.batch(digest(public), public),
                kinds.private(digest(public), private),
            ]
        if each.certificate is not None:
            entries.append(kinds.commit_cert(block.height, block.id, each.certificate))
    log = Log.open(folder / "log", lambda offset, kind, payload: None, chain=chain.chain)
    for kind, payload in entries:
        log.append(kind, payload)
        log.sync()
    log.close()
    return folder


def test_a_torn_end_of_the_log_is_passed_over_and_damage_before_it_is_not(tmp_path: Path) -> None:
    folder = logged(tmp_path, honest())
    [segment] = list((folder / "log").glob("*.log"))
    data = segment.read_bytes().rstrip(b"\0")
    segment.write_bytes(data[:-20])  # the header that a clean stop writes last
    assert audited(folder).last == HEIGHT
    segment.write_bytes(data[:400] + bytes([data[400] ^ 1]) + data[401:])
    assert failed(stream(folder)).code == "LOG_DAMAGED"


# --- damage -------------------------------------------------------------------------------------


def test_a_wrong_state_row_is_named(folder: Path) -> None:
    def richer(txn: Any, opened: Handles) -> None:
        kh, row, balance = pot(txn, opened)
        version, salt, value = decode_single(row[40:])
        rich = codec.encode([["pot", "a"], balance + 10**6, *codec.parse(value)[2:]])
        txn.put(kh, row[:40] + encode_single(version, salt, rich), db=opened["state"])

    change(folder, richer)
    with pytest.raises(DivergenceError) as caught:
        audited(folder)
    assert (caught.value.height, caught.value.problem.check) == (HEIGHT, "state")
    assert "not the one that the decisions lead to" in caught.value.message
    assert [each.place for each in caught.value.problem.differences] == ["row"]


def test_a_missing_and_an_added_row_are_named(folder: Path) -> None:
    def fewer(txn: Any, opened: Handles) -> None:
        txn.delete(pot(txn, opened)[0], db=opened["state"])

    change(folder, fewer)
    with pytest.raises(DivergenceError, match="is missing from the state kept"):
        audited(folder)


def test_an_added_row_is_named(folder: Path) -> None:
    def more(txn: Any, opened: Handles) -> None:
        txn.put(b"\x00" * 32, bytes(60), db=opened["state"])

    change(folder, more)
    with pytest.raises(DivergenceError, match="that no decision made"):
        audited(folder)


def test_a_dropped_block_and_a_dropped_batch_are_named(folder: Path) -> None:
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    height = (4).to_bytes(8, "big")

    def no_block(txn: Any, opened: Handles) -> None:
        txn.delete(height, db=opened["blocks"])

    def no_batch(txn: Any, opened: Handles) -> None:
        block = wire.decode_block(honest().recorded[2].block)
        txn.delete(block.payload[0].digest, db=opened["batches"])

    change(folder, no_block)
    with pytest.raises(DivergenceError, match="height 4: the height is missing"):
        audited(folder)
    change(copy, no_batch)
    with pytest.raises(DivergenceError, match=r"height 2: batch 0 .* is missing"):
        audited(copy)


def test_a_row_that_is_no_block_is_malformed(folder: Path) -> None:
    for data in (b"x", codec.encode([b"x", b"y"]), codec.encode([1, 2])):
        change(folder, partial(put, "blocks", 2, data))
        assert failed(stream(folder)).code == "MALFORMED"
        assert "height 2" in failed(stream(folder)).message or data[:1] == b"\x82"


def put(table: str, height: int, data: bytes, txn: Any, opened: Handles) -> None:
    txn.put(height.to_bytes(8, "big"), data, db=opened[table])


def test_a_cut_store_is_refused_before_it_is_mapped(folder: Path) -> None:
    data = folder / "state" / "data.mdb"
    size = data.stat().st_size
    os.truncate(data, size // 2)
    found = failed(stream(folder))
    assert found.code == "STORE_DAMAGED"
    os.truncate(data, 100)
    assert failed(stream(folder)).code in ("STORE_DAMAGED", "NO_DATA")


def test_garbage_in_place_of_a_store_is_refused(folder: Path) -> None:
    data = folder / "state" / "data.mdb"
    data.write_bytes(b"garbage" * 10_000)
    assert failed(stream(folder)).code == "STORE_DAMAGED"
    shutil.rmtree(folder)
    assert failed(stream(folder)).code == "NO_DATA"


def test_pages_of_garbage_end_the_reader_and_not_the_audit(folder: Path) -> None:
    """LMDB trusts its pages; whoever reads bad ones may be killed, so a process of its own does."""
    data = folder / "state" / "data.mdb"
    draw = random.Random(4)
    kept = bytearray(data.read_bytes())
    for page in range(2, len(kept) // 4096):
        kept[page * 4096 : page * 4096 + 4096] = draw.randbytes(4096)
    data.write_bytes(bytes(kept))
    genesis = folder.parent / "genesis.cbor"
    genesis.write_bytes(honest().genesis)
    words = [str(folder), str(genesis), "0", "-", "rows"]
    with pytest.raises((SourceError, DecodeError, DivergenceError)):
        audit(sources.from_process(python(words)), Wanted(honest().chain))


def python(words: list[str]) -> list[str]:
    return [sys.executable, "-m", "node.auditing", *words]


def test_a_folder_in_which_a_node_runs_is_left_alone(folder: Path) -> None:
    store = Store.open(folder / "state", chain=honest().chain)
    try:
        assert failed(stream(folder)).code == "IN_USE"
    finally:
        store.close()
    assert audited(folder).last == HEIGHT


def test_the_data_of_another_network_is_refused(folder: Path) -> None:
    other = codec.parse(honest().genesis)
    other["network"] = "another"
    assert failed(stream(folder, codec.encode(other))).code == "FOREIGN_DATA"


# --- what is kept -------------------------------------------------------------------------------


def spaced(folder: Path) -> Iterator[AuditSpace]:
    space = AuditSpace(folder, honest().chain)
    yield space
    space.close()


def test_a_kept_audit_goes_on_and_ends_as_one_in_one_piece(tmp_path: Path) -> None:
    frames = [*honest_frames()]
    for last in (2, 4, None):
        for space in spaced(tmp_path / "kept"):
            report = audit(iter(frames), Wanted(honest().chain, last=last), space=space)
    whole = audit(iter(frames), Wanted(honest().chain))
    assert report.statement == whole.statement
    assert report.totals == whole.totals
    assert report.first == 5
    assert report.counts.heights == 2


def honest_frames() -> Iterator[Frame]:
    splitter = Splitter()
    yield from splitter.feed(honest().stream())
    splitter.finish()


def begun() -> Notes:
    """The honest chain up to height 3."""
    part = Notes()
    part.block([part.pay(10), part.pay(20), part.write(1)])
    part.block([part.amend(1, 1), part.amend(1, 2), part.pay(1)])
    part.block([part.pay(5), part.pay(10**9), part.pay(6)])
    return part


def snapshot_at_3(folder: Path, selection: Selection = WHOLE, part: Notes | None = None) -> Path:
    """A snapshot of height 3."""
    part = begun() if part is None else part
    part.store(folder / "node")
    file = folder / "three.snapshot"
    export(folder / "node" / "state", part.genesis, file, lambda done, of: None, selection)
    return file


def test_an_audit_begins_with_a_snapshot(tmp_path: Path) -> None:
    file = snapshot_at_3(tmp_path)
    chain = honest().chain
    space = AuditSpace.begin(tmp_path / "kept", chain, file, lambda done, of: None)
    heights = [each for each in honest().recorded if each.height >= 3]
    data = honest().stream(heights, first=3)
    splitter = Splitter()
    report = audit(iter([*splitter.feed(data)]), Wanted(chain), space=space)
    space.close()
    assert (report.first, report.last) == (4, HEIGHT)
    assert report.statement == honest().statement
    assert report.totals == {"USD": 1_000_000}
    for again in spaced(tmp_path / "kept"):
        origin = again.origin()
        assert origin is not None
        assert origin.tip.height == HEIGHT


def forged_at_3(folder: Path, kind: str, id_: list[Any], value: Any) -> tuple[Path, Notes]:
    """A snapshot that a quorum signed, with a leaf in it that no decision wrote; and its chain."""
    leaf = codec.encode(value)
    row = single_write(Paths(honest().chain)(kind, id_), leaf, b"s" * 16, b"p" * 32)
    apply = State.apply

    def lied(state: State, writes: Any) -> Any:
        kept = [each for each in writes if each[0] != row.kh]
        return apply(state, [*kept, row] if state.height == 2 else writes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(State, "apply", lied)
        patch.setattr(chainmaker, "listed", lambda paths, chunk: [])
        part = begun()
        return snapshot_at_3(folder, part=part), part


def test_a_state_that_a_quorum_made_up_is_a_finding_with_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _, part = forged_at_3(tmp_path, "account", ["pot", "a"], [["pot", "a"], "x", 0, 0])
    heights = [part.block([], failed=1), *honest().recorded[5:]]
    Path("rest.audit").write_bytes(honest().stream(heights, first=4))
    words = ("audit", "rest.audit", "--genesis", honest().chain.hex(), "--jobs", "0", "--json")
    first = ("--to", "4", "--snapshot", "three.snapshot")
    assert cli.run((*words, *first, "--keep", "kept")) == 0  # an empty block reads no account
    capsys.readouterr()
    assert cli.run((*words, "--keep", "kept")) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["holds"], found["height"], found["check"]) == (False, 5, "state")
    assert "the certified state that the audit began with" in found["message"]


def test_a_made_up_row_that_cannot_be_listed_is_no_error_of_this_program(tmp_path: Path) -> None:
    txid = b"t" * 32
    value = [txid, txid, txid, 5, False, 0, 0, 0, [], [], None]
    file, _ = forged_at_3(tmp_path, "proposal", [txid], value)
    with pytest.raises(ProofError, match="a row is certified that no executor writes"):
        AuditSpace.begin(tmp_path / "kept", honest().chain, file, lambda done, of: None)
    assert not (tmp_path / "kept").exists()


def test_a_snapshot_that_is_not_right_begins_nothing(tmp_path: Path) -> None:
    file = snapshot_at_3(tmp_path)
    data = file.read_bytes()
    (tmp_path / "bad").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    for name, chain in (("bad", honest().chain), (file.name, bytes(32))):
        with pytest.raises(ComityError):
            AuditSpace.begin(tmp_path / "kept", chain, tmp_path / name, lambda done, of: None)
        assert not (tmp_path / "kept").exists()


def test_a_folder_that_holds_something_else_is_no_kept_audit(folder: Path) -> None:
    for space in spaced(folder / "state"):
        with pytest.raises(DamagedStoreError, match="something else"):
            space.origin()
