"""Fixed bytes of what a node keeps on disk: as written down, and as the product writes and reads.

The vectors were written with struct, cbor2 and blake3 alone. Where the format can be put together
by hand, it is done here once more. Changing one needs an ADR: nodes in service hold these bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cbor2
import lmdb
import pytest
from blake3 import blake3

from consensus import keyfile
from consensus.errors import DecodeError, LocalProtocolError
from consensus.hotstuff import wire
from consensus.hotstuff.types import SignKind
from consensus.keyfile import KeyKind
from consensus.ledger.layout import Paths
from consensus.ledger.view import join_attached, split_attached
from consensus.state import record, salted
from consensus.state.history import HistoryTree, MemoryNodes
from consensus.state.record import StoredRecord
from consensus.state.state import Row
from node.chronicle import Chronicle, Height
from node.errors import PromisesLostError, SigningRefusedError
from node.flushing import META_NUMBERS
from node.listed import index_entries
from node.signer import SignedBody, Signer
from node.storage import kinds, segment
from node.storage.flush import BatchData, BlockData, FlushBatch
from node.storage.kinds import AtHeight, BatchPart, Kind
from node.storage.log import Log
from node.storage.store import Store
from tests.node.storage.memory_disk import MemoryDisk

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "storage.json").read_text()
)
LOG, MARK, ROWS, STORE, HEIGHT = (
    VECTORS[name] for name in ("log", "mark", "rows", "store", "height")
)
H = bytes.fromhex
CHAIN = H(LOG["chain"])
LOG_ID = H(LOG["log_id"])
FOLDER = Path("/data/log")
MARK_PATH = Path("/data/mark")
KEY = keyfile.from_seed(KeyKind.VALIDATOR, H(MARK["seed"]))
SLOT_BYTES = 128 * 1024
RESERVE_BYTES = 4096

segments = pytest.mark.parametrize("row", LOG["segments"], ids=lambda row: row["name"])
records = pytest.mark.parametrize("row", ROWS["records"], ids=lambda row: row["name"])
singles = pytest.mark.parametrize("row", ROWS["singles"], ids=lambda row: row["name"])
slots = pytest.mark.parametrize("row", MARK["slots"], ids=lambda row: row["name"])


def plain(value: Any) -> Any:
    """What a vector's JSON stands for: ``h:…`` is hex of bytes."""
    if isinstance(value, str) and value.startswith("h:"):
        return H(value[2:])
    return [plain(item) for item in value] if isinstance(value, list) else value


def hashed(purpose: str, data: bytes) -> bytes:
    return blake3(data, derive_key_context=f"comity 2026-11-21 {purpose} v1").digest()


# --- log --------------------------------------------------------------------------------------


def content_of(row: dict[str, Any]) -> bytes:
    """The bytes of a segment, without room taken in advance."""
    parts = [H(row["header"])]
    for group in row["groups"]:
        parts.append(H(group["header"]))
        parts += [H(entry["head"]) + H(entry["payload"]) for entry in group["entries"]]
    return b"".join(parts)


def entries_of(row: dict[str, Any]) -> list[tuple[int, int, bytes]]:
    return [
        (entry["offset"], entry["kind"], H(entry["payload"]))
        for group in row["groups"]
        for entry in group["entries"]
    ]


def opened(disk: MemoryDisk) -> tuple[Log, list[tuple[int, int, bytes]]]:
    seen: list[tuple[int, int, bytes]] = []
    log = Log.open(
        FOLDER,
        lambda *entry: seen.append(entry),
        chain=CHAIN,
        disk=disk,
        reserve_bytes=RESERVE_BYTES,
    )
    return log, seen


def on_disk(contents: dict[Path, bytes]) -> MemoryDisk:
    disk = MemoryDisk()
    for path, content in contents.items():
        disk.write(disk.create(path), content, 0)
    return disk.copy()


@segments
def test_a_segments_header_is_put_together_by_hand(row: dict[str, Any]) -> None:
    fields = (
        b"COMITYLG"
        + (1).to_bytes(4, "big")
        + bytes(4)
        + row["base"].to_bytes(8, "big")
        + LOG_ID
        + CHAIN
        + row["first_bytes"].to_bytes(8, "big")
    )
    header = H(row["header"])
    assert header == fields + hashed("log segment header", fields)[:16]
    assert len(header) == 96
    assert row["name"] == f"{row['base']:020d}.log"
    expected = segment.Header(row["base"], LOG_ID, CHAIN, row["first_bytes"])
    assert segment.read_header(header, row["name"]) == expected
    assert expected.pack() == header


@segments
def test_entries_and_group_headers_are_put_together_by_hand(row: dict[str, Any]) -> None:
    key = hashed("log entry", LOG_ID + row["base"].to_bytes(8, "big"))

    def head(offset: int, kind: int, payload: bytes) -> bytes:
        length = struct.pack(">I", len(payload))
        checked = struct.pack(">Q", offset) + length + bytes([kind]) + payload
        return length + bytes([kind]) + blake3(checked, key=key).digest()[:16]

    offset = row["base"] + 96
    for group in row["groups"]:
        payload = H("c047524f55500d0a") + struct.pack(">Q", group["synced"])
        assert group["offset"] == offset
        assert H(group["header"]) == head(offset, 0, payload) + payload
        offset += 37
        for entry in group["entries"]:
            payload = H(entry["payload"])
            assert entry["offset"] == offset
            assert H(entry["head"]) == head(offset, entry["kind"], payload)
            offset += 21 + len(payload)
    assert offset == row["end"] == row["base"] + len(content_of(row))


def test_the_log_writes_these_segments_and_these_alone() -> None:
    disk = MemoryDisk()
    log, _seen = opened(disk)
    first, second = LOG["segments"]
    for group in first["groups"]:
        for entry in group["entries"]:
            assert log.append(entry["kind"], H(entry["payload"])) == entry["offset"]
        log.sync()
    [carried] = second["groups"][0]["entries"]
    assert log.rotate([(carried["kind"], H(carried["payload"]))]) == [carried["offset"]]
    [entry] = second["groups"][1]["entries"]
    log.append(entry["kind"], H(entry["payload"]))
    log.close()
    files = {path.name: bytes(inode.durable) for path, inode in disk.durable_names.items()}
    assert files[first["name"]] == content_of(first)
    content = content_of(second)
    assert files[second["name"]].startswith(content)
    assert not files[second["name"]][len(content) :].strip(b"\0")
    assert set(files) == {first["name"], second["name"]}


def test_the_log_reads_these_segments_back() -> None:
    disk = on_disk({FOLDER / row["name"]: content_of(row) for row in LOG["segments"]})
    log, seen = opened(disk)
    assert seen == [entry for row in LOG["segments"] for entry in entries_of(row)]
    assert (log.identity, log.created, log.cut_bytes) == (LOG_ID, False, 0)
    assert log.end == log.synced == LOG["segments"][-1]["end"]
    assert all(log.read(offset) == (kind, payload) for offset, kind, payload in seen)


def test_segments_follow_each_other_and_hold_every_kind() -> None:
    assert all(here["end"] == after["base"] for here, after in pairwise(LOG["segments"]))
    found = {kind for row in LOG["segments"] for _offset, kind, _payload in entries_of(row)}
    assert found == set(range(1, 7)) == {int(kind) for kind in Kind} - {0}


@segments
def test_payloads_have_their_kinds_heads(row: dict[str, Any]) -> None:
    for _offset, kind, payload in entries_of(row):
        match kind:
            case 1 | 2:
                digest, data = payload[:32], payload[32:]
                assert BatchPart.unpack(payload) == BatchPart(digest, data)
                made = (kinds.batch if kind == 1 else kinds.private)(digest, data)
                if kind == 1:
                    assert hashed("batch digest", data) == digest
            case 3 | 5:
                height, block_id, data = int.from_bytes(payload[:8]), payload[8:40], payload[40:]
                assert AtHeight.unpack(payload) == AtHeight(height, block_id, data)
                make = kinds.block if kind == 3 else kinds.commit_cert
                made = make(height, block_id, data)
                if kind == 3:
                    assert hashed("block id", data) == block_id
            case 6:
                first = int.from_bytes(payload[:4])
                one, other = cbor2.loads(payload[4 : 4 + first]), cbor2.loads(payload[4 + first :])
                assert one[0] == other[0]
                assert one != other
                made = kinds.evidence(payload)
            case _:
                assert kind == 4
                made = kinds.safety(payload)
        assert made == (kind, payload)


# --- the signer's mark ------------------------------------------------------------------------


def signer_of(disk: MemoryDisk, *, fresh: bool, log_end: int) -> Signer:
    return Signer.open(
        KEY, MARK_PATH, chain=CHAIN, log_identity=LOG_ID, log_end=log_end, fresh=fresh, disk=disk
    )


@slots
def test_a_slot_is_put_together_by_hand(row: dict[str, Any]) -> None:
    content = cbor2.dumps(plain(row["value"]), canonical=True)
    fields = struct.pack(">8sIIQ", b"COMITYMK", 1, len(content), row["sequence"])
    assert H(row["bytes"]) == fields + hashed("signer mark slot", fields + content) + content
    assert row["position"] == (0, SLOT_BYTES)[row["sequence"] % 2]
    commit_votes = [item[3] for item in plain(MARK["signed"]) if item[0] == 4]
    digests = {hashed("signer commit vote", body) for body in commit_votes}
    assert all(digest in digests for _epoch, _round, digest in plain(row["value"])[7])


def test_the_signer_writes_these_slots_in_turn() -> None:
    fresh, signed, settled, _lost = MARK["slots"]
    disk = MemoryDisk()

    def shows(row: dict[str, Any]) -> None:
        content = bytes(disk.files[MARK_PATH].durable)
        assert len(content) == 2 * SLOT_BYTES
        expected = H(row["bytes"])
        assert content[row["position"] : row["position"] + len(expected)] == expected

    signer = signer_of(disk, fresh=True, log_end=fresh["value"][3])
    shows(fresh)
    for kind, epoch, round_, body in plain(MARK["signed"]):
        signer.sign(SignKind(kind), epoch, round_, body)
    signer.write_mark(signed["value"][3])
    shows(fresh)
    shows(signed)
    signer.settle(*settled["value"][6])
    signer.write_mark(settled["value"][3])
    shows(signed)
    shows(settled)


def mark_file(row: dict[str, Any]) -> MemoryDisk:
    slot = bytes(row["position"]) + H(row["bytes"])
    return on_disk({MARK_PATH: slot.ljust(2 * SLOT_BYTES, b"\0")})


@pytest.mark.parametrize("row", MARK["slots"][:3], ids=lambda row: row["name"])
def test_the_signer_reads_a_slot_back(row: dict[str, Any]) -> None:
    value = plain(row["value"])
    signer = signer_of(mark_file(row), fresh=False, log_end=value[3])
    assert cbor2.loads(signer.mark_bytes()) == value
    bodies = tuple(SignedBody(SignKind(kind), *rest) for kind, *rest in value[5])
    assert signer.recovered_bodies() == bodies
    for item in bodies:
        signer.sign(item.kind, item.epoch, item.round, item.body)
        with pytest.raises(SigningRefusedError):
            signer.sign(item.kind, item.epoch, item.round, item.body + b"\0")


def test_the_signer_refuses_to_sign_with_a_mark_of_lost_promises() -> None:
    row = MARK["slots"][3]
    with pytest.raises(PromisesLostError):
        signer_of(mark_file(row), fresh=False, log_end=row["value"][3])


# --- rows of the state ------------------------------------------------------------------------


def stored(row: dict[str, Any]) -> StoredRecord:
    leaves = row["leaves"]
    stem = b"".join(cbor2.dumps(plain(row[part])) for part in ("kind", "definition", "id"))
    return StoredRecord(
        stem,
        row["version"],
        tuple(leaf["name"] for leaf in leaves),
        tuple(leaf["version"] for leaf in leaves),
        b"".join(H(leaf["salt"]) for leaf in leaves),
        b"".join(H(leaf["hash"]) for leaf in leaves),
        tuple(H(leaf["value"]) for leaf in leaves),
        H(row["decoys"]),
    )


@records
def test_a_records_row_is_put_together_by_hand(row: dict[str, Any]) -> None:
    leaves = row["leaves"]
    stem = b"".join(cbor2.dumps(plain(row[part])) for part in ("kind", "definition", "id"))
    names = cbor2.dumps([leaf["name"] for leaf in leaves])
    decoys = H(row["decoys"])
    numbers = struct.pack(">HHH", len(stem), len(names), len(decoys) // 32)
    parts = [b"\x01", numbers, row["version"].to_bytes(8, "big"), stem, names]
    parts += [leaf["version"].to_bytes(8, "big") for leaf in leaves]
    parts += [len(H(leaf["value"])).to_bytes(4, "big") for leaf in leaves]
    parts += [H(leaf["salt"]) for leaf in leaves]
    parts += [H(leaf["hash"]) for leaf in leaves]
    parts += [decoys, *(H(leaf["value"]) for leaf in leaves)]
    assert H(row["row"]) == b"".join(parts)


@records
def test_a_records_row_is_written_and_read(row: dict[str, Any]) -> None:
    assert record.encode_row(stored(row)) == H(row["row"])
    found = record.decode_row(H(row["row"]))
    assert found == stored(row)
    assert (found.kind, found.definition, found.id) == (
        row["kind"],
        row["definition"],
        plain(row["id"]),
    )
    assert found.root() == H(row["vh"])
    assert record.is_record_row(H(row["row"]))


@records
def test_a_records_leaves_hash_to_what_its_row_keeps(row: dict[str, Any]) -> None:
    for leaf in row["leaves"]:
        value = hashed("value", H(leaf["salt"]) + H(leaf["value"]))
        named = cbor2.dumps([H(row["kh"]), leaf["name"], leaf["version"]])
        assert hashed("field", named + value).hex() == leaf["hash"]


@records
def test_a_records_row_that_is_cut_or_longer_is_refused(row: dict[str, Any]) -> None:
    data = H(row["row"])
    for wrong in (data[:-1], data + b"\0", b"\x03" + data[1:], data[:14]):
        with pytest.raises((LocalProtocolError, DecodeError)):
            record.decode_row(wrong)


@singles
def test_a_single_leafs_row_is_put_together_written_and_read(row: dict[str, Any]) -> None:
    version, salt, value = row["version"], H(row["salt"]), H(row["value"])
    single = version.to_bytes(8, "big") + salt + value
    assert record.encode_single(version, salt, value) == single
    assert record.decode_single(single) == (version, salt, value)
    named = cbor2.dumps([H(row["kh"]), "", version])
    assert hashed("field", named + hashed("value", salt + value)).hex() == row["vh"]
    assert salted.single_leaf(H(row["kh"]), version, salt, value).hex() == row["vh"]
    if "attached" in row:
        attached = H(row["attached"])
        assert H(row["row"]) == b"\x02" + single + attached
        assert join_attached(single, attached) == H(row["row"])
        assert split_attached(H(row["row"])) == (cbor2.loads(value), attached)
    else:
        assert H(row["row"]) == single
        assert single[0] == 0


# --- tables of the store ----------------------------------------------------------------------

BY_NAME = {row["name"]: row for row in ROWS["records"] + ROWS["singles"]}


def rows_of(names: Iterable[str]) -> list[tuple[bytes, Row]]:
    found = [BY_NAME[name] for name in names]
    return [(H(row["kh"]), Row(H(row["vh"]), row["height"], H(row["row"]))) for row in found]


def rows_in(block: dict[str, Any]) -> list[dict[str, Any]]:
    return [BY_NAME[name] for name in block["rows"]]


def flush_of(step: dict[str, Any]) -> FlushBatch:
    rows = rows_of(step["rows"])
    blocks = [
        BlockData(
            block["height"],
            plain(block["block"]),
            plain(block["decisions"]),
            plain(block["changes"]),
            plain(block["certificate"]),
            [(txid, index) for txid, index in plain(block["transactions"])],
            [BatchData(*plain(batch)) for batch in block["batches"]],
            dict(rows_of(block.get("rows", ()))),
        )
        for block in step["blocks"]
    ]
    pairs = {
        name: [tuple(item) for item in plain(step[name])]
        for name in ("history", "index", "aside", "meta")
    }
    return FlushBatch(
        step["height"],
        rows=rows,
        blocks=blocks,
        **pairs,
    )


def environment(folder: Path) -> lmdb.Environment:
    return lmdb.open(str(folder), map_size=2**22, max_dbs=16)


def test_the_store_writes_these_tables_and_these_alone(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state", chain=H(STORE["chain"]), map_bytes=2**22)
    for step in STORE["flushes"]:
        store.write(flush_of(step))
    store.close()
    with environment(tmp_path / "state") as raw, raw.begin() as main:
        names = [key.decode() for key, _value in main.cursor()]
    assert names == sorted(STORE["tables"])
    with environment(tmp_path / "state") as raw:
        for name in names:
            table = raw.open_db(name.encode())
            with raw.begin(db=table) as txn:
                found = [[key.hex(), value.hex()] for key, value in txn.cursor()]
            assert found == STORE["tables"][name], name


def test_the_store_reads_these_tables_back(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    with environment(folder) as raw:
        for name, pairs in STORE["tables"].items():
            table = raw.open_db(name.encode())
            with raw.begin(write=True, db=table) as txn:
                for key, value in pairs:
                    txn.put(H(key), H(value))
    store = Store.open(folder, chain=H(STORE["chain"]), map_bytes=2**22)
    view = store.view
    assert view.height == 2
    for row in BY_NAME.values():
        if any(row["kh"] == kh for kh, _value in STORE["tables"]["state"]):
            assert view.get(H(row["kh"])) == Row(H(row["vh"]), row["height"], H(row["row"]))
    first, second = (block for step in STORE["flushes"] for block in step["blocks"])
    for block in (first, second):
        height = block["height"]
        assert view.block(height) == plain(block["block"])
        assert view.decisions(height) == plain(block["decisions"])
        assert view.changes(height) == plain(block["changes"])
        assert view.certificate(height) == plain(block["certificate"])
        for digest, public, private in plain(block["batches"]):
            assert view.batch(digest) == (height, public)
            assert view.private(digest) == private
    repeated, once = (txid for txid, _index in plain(first["transactions"]))
    assert view.positions(repeated) == ((1, 0), (2, 1))
    assert view.positions(once) == ((1, 258),)
    assert view.history(1, 0) == b"\x72" * 32
    key = cbor2.dumps("entitlement") + cbor2.dumps(["E-17"])
    assert view.records(b"", count_max=9) == [(key, b"\x41" * 32)]
    assert view.aside(b"\x01") == b"\x02"
    assert view.horizon == 0
    with store.reading() as past:
        replaced = {row["name"]: past.replaced(2, H(row["kh"])) for row in rows_in(second)}
        assert [past.milestone(b"\x47" * 32, height) for height in (0, 1, 2)] == [2, 2, None]
    [(_, old)] = rows_of(["empty salt"])
    assert [row for row in replaced.values() if row is not None] == [old]
    assert replaced["empty salt"] == old
    assert cbor2.loads(view.meta(META_NUMBERS) or b"") == [3, 0, 2**33, 1]
    store.close()


def test_a_new_record_enters_the_index_under_its_kind_and_id() -> None:
    [(key, kh)] = plain(STORE["flushes"][1]["index"])
    batch = flush_of(STORE["flushes"][1])
    assert index_entries(batch.rows, lambda _kh: False, Paths(bytes(32))) == [(key, kh)]
    assert index_entries(batch.rows, lambda _kh: True, Paths(bytes(32))) == []


# --- rows of a height -------------------------------------------------------------------------


def test_the_rows_of_a_height_are_put_together_by_hand() -> None:
    block, statement = H(HEIGHT["block"]), H(HEIGHT["statement"])
    assert cbor2.dumps([block, statement]).hex() == HEIGHT["block_row"]
    decided = [[H(part) for part in row] for row in HEIGHT["decided"]]
    assert cbor2.dumps(decided).hex() == HEIGHT["decisions_row"]
    changed = [H(kh) + H(vh) + struct.pack(">q", before) for kh, vh, before in HEIGHT["changed"]]
    assert b"".join(changed).hex() == HEIGHT["changes_row"]


def test_a_certified_height_is_flushed_as_these_rows_and_read_from_them(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state", chain=CHAIN, map_bytes=2**22)
    store.write(FlushBatch(0))
    certificate = wire.decode_commit_cert(H(HEIGHT["certificate"]))
    block = wire.decode_block(H(HEIGHT["block"]))
    txids, authors, roots, decisions = (
        [H(row[column]) for row in HEIGHT["decided"]] for column in range(4)
    )
    genesis = wire.decode_block(entries_of(LOG["segments"][0])[2][2][40:])
    chronicle = Chronicle(store, HistoryTree(MemoryNodes()), genesis)
    chronicle.add(
        Height(
            block=block,
            statement=certificate.statement,
            txids=txids,
            authors=authors,
            roots=roots,
            decisions=decisions,
            codes={},
            changes=H(HEIGHT["changes_row"]),
            batches=[],
            since=0.0,
        )
    )
    chronicle.certify(block.id, certificate)
    [data] = chronicle.to_flush(1)
    assert data.block.hex() == HEIGHT["block_row"]
    assert data.decisions.hex() == HEIGHT["decisions_row"]
    assert data.changes.hex() == HEIGHT["changes_row"]
    assert data.certificate == H(HEIGHT["certificate"])
    assert list(data.transactions) == [(txids[0], 0), (txids[1], 1)]
    store.write(FlushBatch(1, blocks=[data]))
    again = Chronicle(store, HistoryTree(MemoryNodes()), block)
    assert again.ordered(1) == (block, certificate)
    found = again.block(1)
    assert found is not None
    assert (found.txids, found.roots, found.decisions) == (txids, roots, decisions)
    place = again.find(txids[1])
    assert place is not None
    assert (place.height, place.index, place.author) == (1, 1, authors[1])
    store.close()
