"""Backups of a node's data and back again: whole or nothing, never a key, never a second vote.

The node's store is made by ``scripts.chainmaker``; nodes that run are in ``tests.network``.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import pycddl
import pytest
from blake3 import blake3

from comity import keys
from comity.cli.app import DONE, REFUSED, USAGE, run
from comity.cli.values import parse_moment
from consensus import codec, keyfile
from consensus.errors import ComityError
from consensus.keyfile import KeyKind
from consensus.release import VERSION
from node.backup import making, manifest, restored, restoring, sinks
from node.backup.errors import BackupError, DamagedBackupError
from node.backup.manifest import MANIFEST_NAME, NAMES
from node.backup.restored import FILE_NAME, META_RESTORED, STAGING_FOLDER
from node.backup.sinks import Pace
from node.errors import (
    DamagedStoreError,
    ForeignDataError,
    NewerFormatError,
    StorageError,
)
from node.storage import readonly
from node.storage.store import Store
from tests.comity.twin import AGENCIES
from tests.consensus.audit.ledger import HEIGHT, honest
from tests.node.backup.test_verifying import change, data_of_a_node, first_key, flip

GENESIS = honest().genesis
SEEDS = (1, 2, 3, 4)
"""Of the validators' keys, as the twin makes them."""


def silent(done: int, of: int) -> None:
    pass


def quiet(what: str, done: int, of: int) -> None:
    pass


def configured(folder: Path, index: int = 0, genesis: bytes = GENESIS) -> Path:
    """A node's folder: genesis file, configuration, its validator key, and no data."""
    folder.mkdir(parents=True)
    (folder / "genesis.cbor").write_bytes(genesis)
    pair = keyfile.from_seed(KeyKind.VALIDATOR, bytes([SEEDS[index]]) * 32)
    (folder / "keys").mkdir(mode=0o700)
    keys.create(folder / "keys" / "validator.key", pair)
    config = folder / "node.toml"
    config.write_text(f'[node]\nagency = "{AGENCIES[index]}"\ngenesis = "genesis.cbor"\n')
    return config


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A node with data."""
    path = configured(tmp_path / "node")
    data = path.parent / "data"
    data.mkdir(mode=0o700)
    shutil.copytree(data_of_a_node() / "state", data / "state")
    (data / "reads.log").write_bytes(b"whom it showed what")
    for name in ("signer.mark", "signer.mark.lock"):
        (data / name).write_bytes(b"promises")
    return path


@pytest.fixture(params=["monday", "monday.tar"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


def make(config: Path, target: Path, **options: object) -> manifest.Manifest:
    return making.make(config, target, silent, rate=0, **options).manifest  # type: ignore[arg-type]


def restore(backup: Path, config: Path, **options: object) -> restoring.Put:
    return restoring.restore(backup, config, quiet, processes=0, **options)  # type: ignore[arg-type]


def unpacked(target: Path) -> Path:
    """The folder of a backup."""
    if target.is_dir():
        return target
    folder = target.with_suffix(".unpacked")
    with tarfile.open(target) as tar:
        tar.extractall(folder)
    return folder


def left(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir()) if folder.exists() else []


# --- what is in one -----------------------------------------------------------------------------


def test_a_backup_goes_back_into_an_empty_folder_and_is_what_was_certified(
    config: Path, target: Path, tmp_path: Path
) -> None:
    told = make(config, target)
    assert (told.height, told.agency, told.software) == (HEIGHT, AGENCIES[0], VERSION)
    assert told.state_root == honest().statement.state_root
    elsewhere = configured(tmp_path / "other" / "place")
    found = restore(target, elsewhere)
    assert found.verified.height == HEIGHT
    assert found.verified.certificate.statement == honest().statement
    data = elsewhere.parent / "data"
    assert left(data) == ["reads.log", FILE_NAME, "state"]
    assert (data / "reads.log").read_bytes() == b"whom it showed what"
    for each in [data, *data.rglob("*")]:
        assert stat.S_IMODE(each.stat().st_mode) & 0o077 == 0, each
    environment, view = readonly.open_store(data / "state", chain=honest().chain)
    assert view.decisions(3) is not None
    assert view.height == HEIGHT
    environment.close()


def test_no_key_no_mark_and_no_log_is_ever_in_it(config: Path, target: Path) -> None:
    log = config.parent / "data" / "log"
    log.mkdir()
    (log / "00000000000000000000.log").write_bytes(b"what was promised")
    make(config, target)
    folder = unpacked(target)
    files = sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())
    assert files == ["genesis.cbor", MANIFEST_NAME, "reads.log", "state/data.mdb"]
    seed = bytes([SEEDS[0]]) * 32
    for each in files:
        content = (folder / each).read_bytes()
        assert seed not in content
        assert b"what was promised" not in content
        assert b"promises" not in content


def test_digests_are_plain_blake3_and_the_file_is_for_its_owner_alone(
    config: Path, target: Path
) -> None:
    told = make(config, target)
    folder = unpacked(target)
    for part in told.files:
        data = (folder / part.name).read_bytes()
        assert (len(data), blake3(data).digest()) == (part.size, part.digest)
    assert blake3((folder / MANIFEST_NAME).read_bytes()).digest() == told.digest
    assert stat.S_IMODE(target.stat().st_mode) & 0o077 == 0


def test_what_the_node_has_dropped_does_not_come_along(config: Path, target: Path) -> None:
    secret = b"an input that its author wrote"

    def forget(name: bytes) -> None:
        change(
            config.parent / "data" / "state",
            lambda txn, opened: txn.put(b"x" * 32, name * 400, db=opened["private"]),
        )

    forget(secret)
    change(
        config.parent / "data" / "state",
        lambda txn, opened: txn.delete(b"x" * 32, db=opened["private"]),
    )
    assert secret in (config.parent / "data" / "state" / "data.mdb").read_bytes()
    make(config, target)
    assert secret not in (unpacked(target) / "state" / "data.mdb").read_bytes()


def test_manifest_and_record_of_a_restore_are_pinned(config: Path, target: Path) -> None:
    value = codec.parse(make(config, target).encode())
    assert sorted(value) == sorted(
        "magic version software store network chain agency taken_ms epoch height first time_ms "
        "block_id state_root key_count certificate private_from horizon sealed_keys files".split()
    )
    assert (value["magic"], value["version"], value["store"]) == ("comity backup", 1, 1)
    assert [row[0] for row in value["files"]] == ["genesis.cbor", "state/data.mdb", "reads.log"]
    record = restored.Restored(b"c" * 32, "a", 7, b"b" * 32, 9, (b"k" * 32,))
    assert codec.parse(record.encode()) == {
        "magic": "comity restored",
        "version": 1,
        "chain": b"c" * 32,
        "agency": "a",
        "height": 7,
        "backup": b"b" * 32,
        "restored_ms": 9,
        "keys": [b"k" * 32],
    }
    assert restored.decode(record.encode(), "x") == record
    cddl = Path("docs/protocol/backup.cddl").read_text(encoding="utf-8")
    for start, data in (
        ("backup-manifest", make(config, target.with_name("b")).encode()),
        ("restored", record.encode()),
    ):
        schema = pycddl.Schema(f"start = {start}\n{cddl}")
        schema.validate_cbor(data)
        with pytest.raises(pycddl.ValidationError):
            schema.validate_cbor(codec.encode({**codec.parse(data), "more": 1}))


# --- whole or nothing ---------------------------------------------------------------------------


@contextmanager
def small_disk(limit: int) -> Iterator[None]:
    """No file grows beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("limit", [9_000, 30_000])
def test_a_full_disk_leaves_no_backup_behind(
    config: Path, target: Path, tmp_path: Path, limit: int
) -> None:
    before = left(tmp_path)
    with small_disk(limit), pytest.raises(OSError, match="too large"):
        make(config, target)
    assert left(tmp_path) == before
    make(config, target)


def test_a_full_disk_leaves_the_folder_empty_as_it_was(
    config: Path, target: Path, tmp_path: Path
) -> None:
    make(config, target)
    elsewhere = configured(tmp_path / "other")
    with small_disk(30_000), pytest.raises(OSError, match="too large"):
        restore(target, elsewhere)
    assert left(elsewhere.parent / "data") == []
    assert restore(target, elsewhere).verified.height == HEIGHT


def unlocked(sink: sinks.Sink) -> None:
    """What the end of its process does to a sink."""
    os.close(sink._lock if isinstance(sink, sinks.FolderSink) else sink._handle)


class Interrupted(BaseException):
    """Ctrl-C, or the end of the process."""


def test_an_interrupted_backup_is_none_and_is_cleared_by_the_next(
    config: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after SIGKILL: nothing is tidied up."""
    with monkeypatch.context() as patch:
        for sink in (sinks.FolderSink, sinks.TarSink):
            patch.setattr(sink, "discard", unlocked)

        def stop(*_: object) -> bytes:
            raise Interrupted

        patch.setattr(making, "_manifest", stop)
        with pytest.raises(Interrupted):
            make(config, target)
    assert not target.exists()
    partial = target.with_name(target.name + ".partial")
    assert partial.exists()
    with pytest.raises(BackupError, match="interrupted"):
        restore(partial, config)
    assert make(config, target).height == HEIGHT
    assert not partial.exists()


def test_two_backups_of_one_name_do_not_meet(config: Path, target: Path) -> None:
    sink = sinks.sink_for(target, Pace(0))
    with pytest.raises(BackupError, match="being made by another"):
        make(config, target)
    sink.discard()
    make(config, target)
    before = target.stat().st_mtime_ns
    with pytest.raises(BackupError, match="exists"):
        make(config, target)
    assert target.stat().st_mtime_ns == before


@pytest.mark.parametrize("stage", ["_copy_all", "_compare", "_note", "_place"])
def test_a_restore_that_is_killed_leaves_a_folder_in_which_no_node_starts(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    make(config, tmp_path / "monday")
    elsewhere = configured(tmp_path / "other")
    data = elsewhere.parent / "data"
    with monkeypatch.context() as patch:

        def stop(*_: object) -> None:
            raise Interrupted

        patch.setattr(restoring, stage, stop)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(Interrupted):
            restore(tmp_path / "monday", elsewhere)
    assert (data / STAGING_FOLDER).exists()
    with pytest.raises(BackupError, match="interrupted"):
        restored.refuse_unfinished(data)
    assert restore(tmp_path / "monday", elsewhere).verified.height == HEIGHT
    restored.refuse_unfinished(data)
    assert not (data / STAGING_FOLDER).exists()


def test_writing_is_paced() -> None:
    slept: list[float] = []
    clock = [0.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    pace = Pace(1000, lambda: clock[0], sleep)
    for _ in range(5):
        pace.spent(500)
    assert clock[0] == pytest.approx(2.5)
    clock[0] += 100  # what was not used is not caught up with
    pace.spent(1000)
    pace.spent(1000)
    assert clock[0] == pytest.approx(104.5)
    Pace(0, lambda: clock[0], sleep).spent(10**9)
    assert clock[0] == pytest.approx(104.5)


# --- what is refused ----------------------------------------------------------------------------


def test_a_store_that_is_not_what_is_certified_makes_no_backup(
    config: Path, target: Path, tmp_path: Path
) -> None:
    store = config.parent / "data" / "state"
    change(store, flip("state", first_key(store, "state", number=5), 20))
    before = left(tmp_path)
    with pytest.raises(DamagedStoreError, match="state"):
        make(config, target)
    assert left(tmp_path) == before


@pytest.mark.parametrize("name", ["genesis.cbor", "state/data.mdb", "reads.log", MANIFEST_NAME])
@pytest.mark.parametrize("spoil", ["flip", "cut", "longer", "gone", "link"])
def test_a_damaged_backup_is_refused_and_leaves_nothing(
    config: Path, tmp_path: Path, name: str, spoil: str
) -> None:
    make(config, tmp_path / "monday")
    path = tmp_path / "monday" / name
    data = path.read_bytes()
    match spoil:
        case "flip":
            path.write_bytes(data[:9] + bytes([data[9] ^ 1]) + data[10:])
        case "cut":
            path.write_bytes(data[:-1])
        case "longer":
            path.write_bytes(data + b"!")
        case "gone":
            path.unlink()
        case "link":
            path.rename(tmp_path / "aside")
            path.symlink_to(tmp_path / "aside")
    if name == "genesis.cbor":  # the configuration's is what counts
        return
    elsewhere = configured(tmp_path / "other")
    with pytest.raises((DamagedBackupError, ForeignDataError, OSError)):
        restore(tmp_path / "monday", elsewhere)
    assert left(elsewhere.parent / "data") == []


def test_a_manifest_that_lies_about_its_height_is_refused(config: Path, tmp_path: Path) -> None:
    make(config, tmp_path / "monday")
    path = tmp_path / "monday" / MANIFEST_NAME
    value = codec.parse(path.read_bytes())
    value["height"] += 1
    path.write_bytes(codec.encode(value))
    elsewhere = configured(tmp_path / "other")
    with pytest.raises(DamagedBackupError, match="another height"):
        restore(tmp_path / "monday", elsewhere)
    assert left(elsewhere.parent / "data") == []


def test_a_forged_state_with_right_digests_is_refused(config: Path, tmp_path: Path) -> None:
    make(config, tmp_path / "monday")
    store = tmp_path / "monday" / "state"
    key = first_key(store, "state", number=5)
    change(store, flip("state", key, -1))
    for name in ("lock.mdb", "lock"):
        (store / name).unlink(missing_ok=True)
    path = tmp_path / "monday" / MANIFEST_NAME
    value = codec.parse(path.read_bytes())
    data = (store / "data.mdb").read_bytes()
    value["files"][1] = ["state/data.mdb", len(data), blake3(data).digest()]
    path.write_bytes(codec.encode(value))
    elsewhere = configured(tmp_path / "other")
    with pytest.raises(DamagedStoreError, match=key.hex()):
        restore(tmp_path / "monday", elsewhere)
    assert left(elsewhere.parent / "data") == []


def test_a_backup_of_another_network_agency_or_release_is_refused(
    config: Path, target: Path, tmp_path: Path
) -> None:
    make(config, target)
    foreign = configured(tmp_path / "foreign", genesis=GENESIS.replace(b"twin", b"twix"))
    with pytest.raises(ForeignDataError, match="network twin"):
        restore(target, foreign)
    other = configured(tmp_path / "other", index=1)
    with pytest.raises(BackupError, match=f"a node of {AGENCIES[0]}"):
        restore(target, other)
    with pytest.raises(BackupError, match="not empty"):
        restore(target, config)
    assert left(foreign.parent / "data") == left(other.parent / "data") == []
    value = {"magic": manifest.MAGIC, "version": 2, "what": "we do not know"}
    with pytest.raises(NewerFormatError, match="format 2"):
        manifest.decode(codec.encode(value))


def test_a_tar_file_with_anything_else_in_it_is_refused(config: Path, tmp_path: Path) -> None:
    target = tmp_path / "monday.tar"
    make(config, target)
    for number, name in enumerate(("../evil", "/etc/evil", "keys/validator.key")):
        spoiled = tmp_path / f"spoiled{number}.tar"
        shutil.copy(target, spoiled)
        with tarfile.open(spoiled, "a") as tar:
            tar.addfile(tarfile.TarInfo(name))
        with pytest.raises(DamagedBackupError, match="which no backup has"):
            restore(spoiled, configured(tmp_path / f"other{number}"))
    (tmp_path / "noise.tar").write_bytes(b"\x55" * 4096)
    with pytest.raises(DamagedBackupError):
        restore(tmp_path / "noise.tar", configured(tmp_path / "last"))


def test_a_node_without_anything_certified_has_no_backup(tmp_path: Path, target: Path) -> None:
    config = configured(tmp_path / "node")
    with pytest.raises(StorageError, match="no store"):
        make(config, target)
    Store.open(config.parent / "data" / "state", chain=honest().chain, map_bytes=1 << 24).close()
    with pytest.raises(BackupError, match="no certified height"):
        make(config, target)
    assert not target.exists()


# --- sealed values ------------------------------------------------------------------------------


def sealed(config: Path) -> None:
    folder = config.parent / "data" / "sealed" / "values"
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), max_dbs=4) as environment:
        table = environment.open_db(b"values")
        with environment.begin(write=True) as txn:
            txn.put(b"c" * 32, b"box", db=table)
    (folder.parent / "keys").write_bytes(b"slot" * 26)


def test_sealed_values_come_along_only_with_their_keys_apart(
    config: Path, target: Path, tmp_path: Path
) -> None:
    with pytest.raises(BackupError, match="no sealed values"):
        make(config, target, sealed_keys=tmp_path / "apart")
    sealed(config)
    assert not make(config, target.with_name("without-" + target.name)).has_sealed
    apart = tmp_path / "apart"
    told = make(config, target, sealed_keys=apart)
    assert told.sealed_keys == blake3(b"slot" * 26).digest()
    assert stat.S_IMODE(apart.stat().st_mode) == 0o600
    inside = unpacked(target)
    assert not any(
        b"slot" * 26 in each.read_bytes() for each in inside.rglob("*") if each.is_file()
    )
    one, two, three = (configured(tmp_path / name) for name in ("one", "two", "three"))
    assert not restore(target, one).sealed
    assert not (one.parent / "data" / "sealed").exists()
    assert restore(target, two, sealed_keys=apart).sealed
    assert (two.parent / "data" / "sealed" / "keys").read_bytes() == b"slot" * 26
    with lmdb.open(str(two.parent / "data" / "sealed" / "values"), max_dbs=4) as environment:
        table = environment.open_db(b"values")
        with environment.begin() as txn:
            assert txn.get(b"c" * 32, db=table) == b"box"
    (tmp_path / "wrong").write_bytes(b"x")
    with pytest.raises(BackupError, match="not the file"):
        restore(target, three, sealed_keys=tmp_path / "wrong")


# --- the record ---------------------------------------------------------------------------------


def test_the_record_names_the_keys_and_lies_twice(config: Path, tmp_path: Path) -> None:
    make(config, tmp_path / "monday")
    own = keyfile.from_seed(KeyKind.VALIDATOR, bytes([SEEDS[0]]) * 32).public
    new = keyfile.from_seed(KeyKind.VALIDATOR, b"\x77" * 32)
    elsewhere = configured(tmp_path / "other")
    (elsewhere.parent / "keys" / "validator.key").unlink()
    assert restore(tmp_path / "monday", elsewhere).restored.keys == (own,)
    third = configured(tmp_path / "third")
    (third.parent / "keys" / "validator.key").unlink()
    keys.create(third.parent / "keys" / "validator.key", new)
    found = restore(tmp_path / "monday", third)
    assert found.restored.keys == tuple(sorted([own, new.public]))
    assert found.barred
    fourth = configured(tmp_path / "fourth")
    keys.create(fourth.parent / "keys" / "validator-next.key", new)
    told = restore(tmp_path / "monday", fourth, new_key=True)
    assert (told.restored.keys, told.barred) == ((own,), False)
    data = third.parent / "data"
    chain = honest().chain
    for loss in ("nothing", "file", "store"):
        store = Store.open(data / "state", chain=chain)
        if loss == "file":
            (data / FILE_NAME).rename(data / "aside")
        if loss == "store":
            (data / "aside").rename(data / FILE_NAME)
            store.close()
            change(
                data / "state",
                lambda txn, opened: txn.delete(META_RESTORED, db=opened["meta"]),
            )
            store = Store.open(data / "state", chain=chain)
        record = restored.found(data, store.view)
        assert record is not None
        assert record.keys == found.restored.keys
        assert record.height == HEIGHT
        store.close()
    (data / FILE_NAME).write_bytes(b"nonsense")
    store = Store.open(data / "state", chain=chain)
    with pytest.raises(DamagedStoreError, match="restored"):
        restored.found(data, store.view)
    store.close()


# --- the commands -------------------------------------------------------------------------------


def command(capture: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, object]]:
    capture.readouterr()
    status = run([*words, "--json"])
    out, err = capture.readouterr()
    assert "Traceback" not in out + err
    return status, json.loads(out)


def test_the_commands_say_what_they_did(
    config: Path, target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = command(capsys, "node", "backup", str(config), "-o", str(target))
    assert (status, said["height"], said["destroy_by"]) == (DONE, HEIGHT, None)
    config.write_text(config.read_text() + "\n[retention]\nprivate_days = 30\n")
    status, later = command(capsys, "node", "backup", str(config), "-o", str(tmp_path / "later"))
    made, gone = (
        parse_moment(str(later[each]).replace(" ", "T"), "t") for each in ("time", "destroy_by")
    )
    assert (status, gone - made) == (DONE, 30 * 86_400_000)
    elsewhere = configured(tmp_path / "other")
    status, put = command(capsys, "node", "restore", str(target), str(elsewhere.parent))
    assert (status, put["height"], put["backup"]) == (DONE, HEIGHT, said["backup"])
    status, found = command(capsys, "node", "verify-store", str(elsewhere))
    assert (status, found["state_root"]) == (DONE, "0x" + honest().statement.state_root.hex())
    genesis = str(elsewhere.parent / "genesis.cbor")
    folder = str(unpacked(target))
    status, found = command(capsys, "node", "verify-store", folder, "--genesis", genesis)
    assert (status, found["backup"]) == (DONE, said["backup"])
    assert run(["node", "verify-store", str(elsewhere)]) == DONE
    assert "VALID" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "status", "what"),
    [
        (["backup", "nowhere.toml", "-o", "x"], USAGE, "cannot read"),
        (["backup", "{config}", "-o", "no/such/folder"], USAGE, "there is no folder"),
        (["backup", "{config}", "-o", "{config}"], USAGE, "exists"),
        (["backup", "{config}", "-o", "x", "--rate", "-1"], USAGE, "--rate"),
        (["backup", "{config}"], USAGE, "output"),
        (["restore", "nowhere", "{config}"], USAGE, "there is no backup"),
        (["restore", "{config}", "{config}"], REFUSED, "cannot be read"),
        (["restore", "{folder}", "{config}"], REFUSED, "no backup"),
        (["verify-store", "nowhere"], USAGE, "there is no"),
        (["verify-store", "{folder}/keys", "--genesis", "{folder}"], USAGE, "no store"),
        (["verify-store", "{data}", "--genesis", "nowhere"], USAGE, "genesis"),
    ],
)
def test_wrong_input_gets_one_sentence_of_what_and_one_of_what_to_do(
    config: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    status: int,
    what: str,
) -> None:
    monkeypatch.chdir(config.parent)
    places = {"config": config, "folder": config.parent, "data": config.parent / "data"}
    found, said = command(capsys, "node", *[each.format(**places) for each in words])
    assert found == status, said
    assert what in str(said["error"])
    assert said["hint"]


def test_a_damaged_store_is_said_with_its_place(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(config.parent / "data" / "state", flip("decisions", (3).to_bytes(8, "big"), 60))
    status, said = command(capsys, "node", "verify-store", str(config))
    assert (status, said["code"]) == (REFUSED, "STORE_DAMAGED")
    assert "table decisions, height 3" in str(said["error"])


# --- beside a node ------------------------------------------------------------------------------


def test_a_killed_backup_does_not_keep_the_pages_of_a_running_node(
    config: Path, tmp_path: Path
) -> None:
    """Its place among LMDB's readers is given free by the next flush."""
    store = config.parent / "data" / "state"
    reader = (
        "import lmdb, sys, time\n"
        f"e = lmdb.open({str(store)!r}, readonly=True, max_dbs=24)\n"
        "t = e.begin()\nprint('reading', flush=True)\ntime.sleep(60)\n"
    )
    opened = Store.open(store, chain=honest().chain)
    try:
        process = subprocess.Popen(
            [os.sys.executable, "-c", reader], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        count = opened._environment.info()["num_readers"]
        table = opened._environment.readers()
        assert str(process.pid) in table
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        process.stdout.close()
        opened.write(flush_of(opened))
        assert str(process.pid) not in opened._environment.readers()
        assert opened._environment.info()["num_readers"] <= count
    finally:
        opened.close()


def flush_of(store: Store) -> object:
    from node.storage.flush import FlushBatch

    return FlushBatch(height=store.height, meta=[(b"x", b"y")])


def test_every_error_of_backups_owns_its_advice() -> None:
    for error in (BackupError, DamagedBackupError):
        assert issubclass(error, ComityError)
        assert error("x").hint
    assert NAMES[0] == "genesis.cbor"
