"""After a stop or crash: the store's height, and from the log exactly what lies above it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from consensus import keyfile
from consensus.errors import LocalProtocolError
from consensus.hotstuff.types import SignKind
from consensus.keyfile import KeyKind
from node.errors import (
    ForeignDataError,
    InUseError,
    NewerFormatError,
    PromisesLostError,
    SigningRefusedError,
)
from node.signer import Signer
from node.storage import kinds
from node.storage.flush import BatchData, BlockData, FlushBatch
from node.storage.kinds import AtHeight, Kind
from node.storage.recovery import Recovered, open_signer, recover
from node.storage.writer import LogWriter

CHAIN = bytes(range(32))
MAP_BYTES = 4 * 2**20
KEY = keyfile.from_seed(KeyKind.VALIDATOR, bytes(range(1, 33)))


def digest(name: str) -> bytes:
    return name.encode().ljust(32, b".")


def opened(folder: Path, *, chain: bytes = CHAIN) -> Recovered:
    return recover(folder, chain=chain, map_bytes=MAP_BYTES)


def restarted(recovered: Recovered, folder: Path) -> Recovered:
    recovered.close()
    return opened(folder)


def log(recovered: Recovered, *entries: kinds.Entry) -> list[int]:
    offsets = [recovered.log.append(kind, payload) for kind, payload in entries]
    recovered.log.sync()
    return offsets


def signer_of(recovered: Recovered, folder: Path) -> Signer:
    return open_signer(recovered, KEY, folder / "signer.mark", chain=CHAIN)


def certified(height: int, *batches: BatchData) -> BlockData:
    return BlockData(height, b"block", b"decisions", b"changes", None, (), batches)


def test_an_empty_folder_is_fresh(tmp_path: Path) -> None:
    recovered = opened(tmp_path / "data")
    assert recovered.fresh
    assert recovered.height == -1
    assert recovered.found.safety is None
    recovered.close()
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["log", "state"]


def test_what_the_log_holds_above_the_store_comes_back_in_order(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.store.write(FlushBatch(0))
    offsets = log(
        first,
        kinds.batch(digest("batch"), b"public"),
        kinds.private(digest("batch"), b"private"),
        kinds.block(1, digest("one"), b"block one"),
        kinds.safety(b"old record"),
        kinds.block(2, digest("two"), b"block two"),
        kinds.block(1, digest("rival"), b"rival of one"),
        kinds.commit_cert(1, digest("one"), b"certificate"),
        kinds.evidence(b"pair"),
        kinds.safety(b"new record"),
    )
    again = restarted(first, tmp_path)
    found = again.found
    assert again.height == 0
    assert found.safety == b"new record"
    assert [(item.offset, item.value) for item in found.blocks] == [
        (offsets[2], AtHeight(1, digest("one"), b"block one")),
        (offsets[4], AtHeight(2, digest("two"), b"block two")),
        (offsets[5], AtHeight(1, digest("rival"), b"rival of one")),
    ]
    assert [item.value for item in found.certificates] == [
        AtHeight(1, digest("one"), b"certificate")
    ]
    assert found.batches == {digest("batch"): offsets[0]}
    assert found.private == {digest("batch"): offsets[1]}
    assert again.log.read(offsets[0]) == (Kind.BATCH, digest("batch") + b"public")
    assert found.evidence == [b"pair"]
    assert not again.fresh
    again.close()


def test_what_the_store_has_is_left_out(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.store.write(FlushBatch(0))
    log(
        first,
        kinds.batch(digest("in store"), b"public"),
        kinds.private(digest("in store"), b"private"),
        kinds.batch(digest("waiting"), b"public"),
        kinds.block(1, digest("one"), b"block one"),
        kinds.commit_cert(1, digest("one"), b"certificate"),
        kinds.block(2, digest("two"), b"block two"),
        kinds.safety(b"record"),
    )
    flushed = BatchData(digest("in store"), b"public", b"private")
    first.store.write(FlushBatch(1, blocks=[certified(1, flushed)]))
    found = restarted(first, tmp_path).found
    assert [item.value.block_id for item in found.blocks] == [digest("two")]
    assert found.certificates == []
    assert list(found.batches) == [digest("waiting")]
    assert found.private == {}
    assert found.safety == b"record"


def test_a_block_logged_twice_comes_once_and_a_batch_at_its_newest_place(tmp_path: Path) -> None:
    first = opened(tmp_path)
    log(first, kinds.batch(digest("batch"), b"public"), kinds.block(1, digest("one"), b"block one"))
    newest, _ = log(
        first, kinds.batch(digest("batch"), b"public"), kinds.block(1, digest("one"), b"block one")
    )
    found = restarted(first, tmp_path).found
    assert len(found.blocks) == 1
    assert found.batches == {digest("batch"): newest}


def test_entries_after_a_rotation_and_dropped_segments_are_enough(tmp_path: Path) -> None:
    first = opened(tmp_path)
    log(first, kinds.block(1, digest("one"), b"block one"), kinds.safety(b"old"))
    first.store.write(FlushBatch(1, blocks=[certified(1)]))
    (record,) = first.log.rotate([kinds.safety(b"current")])
    first.log.drop_before(record)
    again = restarted(first, tmp_path)
    assert again.found.safety == b"current"
    assert not again.fresh
    assert again.found.blocks == []


def test_an_entry_of_an_unknown_kind_needs_newer_software(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.log.append(200, b"from the future")
    first.close()
    with pytest.raises(NewerFormatError, match="unknown kind 200"):
        opened(tmp_path)
    with pytest.raises(NewerFormatError):
        opened(tmp_path)


def test_an_entry_too_short_for_its_kind_is_our_own_bug(tmp_path: Path) -> None:
    for kind in (Kind.BATCH, Kind.PRIVATE, Kind.BLOCK, Kind.COMMIT_CERT):
        folder = tmp_path / kind.name
        first = opened(folder)
        first.log.append(kind, bytes(31))
        first.close()
        with pytest.raises(LocalProtocolError):
            opened(folder)


def test_another_network_or_process_is_refused(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.log.sync()
    first.close()
    with pytest.raises(ForeignDataError):
        opened(tmp_path, chain=bytes(32))
    again = opened(tmp_path)
    with pytest.raises(InUseError, match="another process"):
        opened(tmp_path)
    again.close()


# --- the signer at a start ------------------------------------------------------------------------


def test_a_fresh_node_signs_and_signs_on_after_a_restart(tmp_path: Path) -> None:
    first = opened(tmp_path)
    signer = signer_of(first, tmp_path)
    signer.sign(SignKind.VOTE, 1, 1, b"vote one")
    log(first, kinds.safety(b"record"))
    signer.write_mark(first.log.synced)
    signer.close()
    again = restarted(first, tmp_path)
    signer = signer_of(again, tmp_path)
    with pytest.raises(SigningRefusedError):
        signer.sign(SignKind.VOTE, 1, 1, b"another vote one")
    signer.sign(SignKind.VOTE, 1, 2, b"vote two")


def test_a_node_stopped_before_its_first_signature_is_still_fresh(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.store.write(FlushBatch(0))
    again = restarted(first, tmp_path)
    assert again.fresh
    signer_of(again, tmp_path).sign(SignKind.VOTE, 1, 1, b"vote")


def test_a_signature_that_only_the_mark_knows_is_given_back(tmp_path: Path) -> None:
    """The caller judges it against the safety record: nothing of the vote is in the log."""
    first = opened(tmp_path)
    signer = signer_of(first, tmp_path)
    signer.sign(SignKind.VOTE, 1, 7, b"vote seven")
    first.log.append(*kinds.safety(b"record with vote seven"))
    signer.write_mark(first.log.synced)
    signer.close()
    first.log._release()
    first.store.close()
    again = opened(tmp_path)
    assert again.found.safety is None
    (item,) = signer_of(again, tmp_path).recovered_bodies()
    assert (item.kind, item.epoch, item.round, item.body) == (SignKind.VOTE, 1, 7, b"vote seven")


@pytest.mark.parametrize("loss", ["cut", "log folder", "all but the mark"])
def test_a_log_that_lost_synced_promises_stops_signing(tmp_path: Path, loss: str) -> None:
    first = opened(tmp_path)
    signer = signer_of(first, tmp_path)
    for round_ in range(1, 4):
        signer.sign(SignKind.VOTE, 1, round_, b"vote")
        log(first, kinds.safety(b"record %d" % round_))
        signer.write_mark(first.log.synced)
    signer.close()
    first.close()
    segment = tmp_path / "log" / f"{0:020d}.log"
    match loss:
        case "cut":
            with segment.open("r+b") as file:
                file.truncate(200)
        case "log folder":
            segment.unlink()
        case _:
            segment.unlink()
            for path in (tmp_path / "state").iterdir():
                path.unlink()
    again = opened(tmp_path)
    with pytest.raises(PromisesLostError) as caught:
        signer_of(again, tmp_path)
    assert "new key" in caught.value.hint
    for number in range(50):
        log(again, kinds.block(number + 1, digest(str(number)), bytes(100)))
    later = restarted(again, tmp_path)
    with pytest.raises(PromisesLostError):
        signer_of(later, tmp_path)


def test_a_mark_that_is_gone_stops_signing(tmp_path: Path) -> None:
    first = opened(tmp_path)
    signer_of(first, tmp_path).close()
    log(first, kinds.safety(b"record"))
    (tmp_path / "signer.mark").unlink()
    with pytest.raises(PromisesLostError, match="no mark"):
        signer_of(restarted(first, tmp_path), tmp_path)


async def test_log_then_mark_are_synced_before_a_message_may_leave(tmp_path: Path) -> None:
    """The way a step is made durable; the mark tells only of what the log holds."""
    recovered = opened(tmp_path)
    signer = signer_of(recovered, tmp_path)
    log_writer = LogWriter(recovered.log)
    for round_ in range(1, 6):
        signer.sign(SignKind.VOTE, 1, round_, b"vote %d" % round_)
        mark = signer.snapshot()
        signer.sign(SignKind.TIMEOUT, 1, round_, b"not yet in the log")
        record = kinds.safety(b"record %d" % round_)
        await log_writer.persist([record], partial(signer.write_mark, mark=mark))
    signer.close()
    again = restarted(recovered, tmp_path)
    assert again.found.safety == b"record 5"
    bodies = signer_of(again, tmp_path).recovered_bodies()
    assert [(item.kind, item.round) for item in bodies] == [
        (SignKind.VOTE, 5),
        (SignKind.TIMEOUT, 4),
    ]
