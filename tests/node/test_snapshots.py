"""Snapshots of a node's store: written, and begun from, with nothing taken on trust."""

from __future__ import annotations

import io
import stat
from dataclasses import replace
from pathlib import Path

import lmdb
import pytest

from comity import keys
from consensus import codec, keyfile
from consensus.errors import DecodeError, ProofError
from consensus.hotstuff.types import SignKind
from consensus.keyfile import KeyKind
from consensus.ledger.layout import Paths
from consensus.snapshot import Counted, Reader, check_all
from consensus.state.history import HistoryTree
from consensus.state.snapshot import encode_chunk
from consensus.state.state import State
from node import opening
from node.chronicle import Chronicle
from node.errors import (
    DamagedStoreError,
    ForeignDataError,
    PromisesLostError,
    SigningRefusedError,
    SnapshotError,
)
from node.flushing import META_NUMBERS
from node.listed import index_entries, index_key
from node.opening import MARK_FILE
from node.register import Register
from node.snapshots import begin, source
from node.snapshots.export import WHOLE, Selection, export
from node.snapshots.filling import listed
from node.snapshots.importing import import_file
from node.storage.recovery import Recovered, open_signer, recover
from node.storage.store import Store
from tests.consensus.ledger import world as worlds
from tests.consensus.ledger.world import token
from tests.snapshots import (
    NUMBERS,
    CertifiedState,
    certify,
    crowded_state,
    history_nodes,
    town_state,
)

TOWN = town_state()
GENESIS = TOWN.genesis.encode()
AGENCIES = [each.agency for each in TOWN.genesis.committee.validators]
OUTSIDER = 3
"""The validator that signed neither the certificate nor the one in its block."""


def silent(done: int, of: int) -> None:
    pass


def exported(folder: Path, state: CertifiedState = TOWN, selection: Selection = WHOLE) -> Path:
    target = folder / "made.snapshot"
    export(state.store(folder / "state"), state.genesis.encode(), target, silent, selection)
    return target


def read(file: Path, chain: bytes = TOWN.chain) -> Counted:
    return check_all(Reader(io.BytesIO(file.read_bytes()).read, chain))


def configured(folder: Path, index: int) -> Path:
    """The configuration of a node that has its keys and no data."""
    agency = AGENCIES[index]
    (folder / "keys").mkdir(parents=True)
    (folder / "genesis.cbor").write_bytes(GENESIS)
    for kind, name in ((KeyKind.VALIDATOR, "validator"), (KeyKind.NODE, "node")):
        seed = worlds._seed(f"{name} {agency}".encode())
        keys.create(folder / "keys" / f"{name}.key", keyfile.from_seed(kind, seed))
    config = folder / "node.toml"
    config.write_text(f'[node]\nagency = "{agency}"\ngenesis = "genesis.cbor"\n')
    return config


def pair_of(index: int) -> keyfile.KeyPair:
    return keyfile.from_seed(
        KeyKind.VALIDATOR, worlds._seed(f"validator {AGENCIES[index]}".encode())
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return exported(tmp_path)


# --- export -------------------------------------------------------------------------------------


def test_a_store_is_written_whole_for_the_owner_alone(file: Path) -> None:
    assert read(file) == Counted(len(TOWN.rows), 0)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in file.parent.iterdir() if "partial" in each.name] == []


def test_a_file_that_is_there_is_never_overwritten(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(SnapshotError, match="exists"):
        export(file.parent / "state", GENESIS, file, silent)
    assert file.read_bytes() == before


def test_a_store_that_is_not_what_is_certified_makes_no_snapshot(tmp_path: Path) -> None:
    folder = TOWN.store(tmp_path / "state")
    with lmdb.open(str(folder), max_dbs=16) as environment:
        table = environment.open_db(b"state")
        with environment.begin(write=True) as txn:
            txn.delete(next(iter(TOWN.rows)), db=table)
    with pytest.raises(DamagedStoreError, match="not what is certified"):
        export(folder, GENESIS, tmp_path / "made", silent)
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "made.partial").exists()


def test_the_store_of_another_network_or_none_is_refused(tmp_path: Path) -> None:
    other = replace(TOWN.genesis, network="other").encode()
    with pytest.raises(ForeignDataError):
        export(TOWN.store(tmp_path / "state"), other, tmp_path / "made", silent)
    with pytest.raises(SnapshotError, match="no store"):
        export(tmp_path / "nowhere", GENESIS, tmp_path / "made", silent)
    Store.open(tmp_path / "blank", chain=TOWN.chain, map_bytes=1 << 24).close()
    with pytest.raises(SnapshotError, match="no certified height"):
        export(tmp_path / "blank", GENESIS, tmp_path / "made", silent)


def test_a_crowded_prefix_is_split_when_it_is_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "CHUNK_BYTES_SPLIT", 2_000)
    state = crowded_state()
    made = exported(tmp_path, state)
    assert read(made, state.chain).entries == len(state.rows)
    certified = Reader(io.BytesIO(made.read_bytes()).read, state.chain)
    longest = max(len(piece.data) for piece in certified.pieces())
    assert longest < 20_000  # that of the charter's page
    assert longest < len(encode_chunk(state.chunk(1))) // 2


def test_an_auditors_copy_holds_whole_prefixes_and_never_the_salt_pool(tmp_path: Path) -> None:
    made = exported(tmp_path, selection=Selection(prefixes=("01", "1110")))
    found = Reader(io.BytesIO(made.read_bytes()).read, TOWN.chain)
    inside = [kh for kh in TOWN.rows if kh[0] >> 6 == 1 or kh[0] >> 4 == 14]
    pool = Paths(TOWN.chain).pool
    assert check_all(found) == Counted(len(inside), int(pool in inside))
    assert not found.certified.whole
    everything = exported(tmp_path / "all", selection=Selection(prefixes=("0", "1")))
    assert read(everything) == Counted(len(TOWN.rows), 1)


def test_an_auditors_copy_of_a_kind_leaves_all_other_rows_out(tmp_path: Path) -> None:
    made = exported(tmp_path, selection=Selection(kinds=("file",)))
    records = [row for row in TOWN.rows.values() if row.value[:1] == b"\x01"]
    assert read(made) == Counted(len(TOWN.rows), len(TOWN.rows) - len(records) - 1)


def test_a_prefix_longer_than_the_upper_tree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="longer than the 4"):
        exported(tmp_path, selection=Selection(prefixes=("010101",)))


# --- import -------------------------------------------------------------------------------------


def test_an_imported_store_is_the_state_with_an_index_made_from_its_rows(
    tmp_path: Path, file: Path
) -> None:
    config = configured(tmp_path / "home", OUTSIDER)
    found = import_file(file, config, silent)
    assert (found.height, found.entries, found.votes) == (12, len(TOWN.rows), False)
    folder = tmp_path / "home" / "data"
    assert sorted(each.name for each in folder.iterdir()) == ["state"]
    store = Store.open(folder / "state", chain=TOWN.chain, map_bytes=1 << 26)
    try:
        assert State(store.state, TOWN.depth, 12).root == TOWN.statement.state_root
        view = store.view
        assert {kh: view.get(kh) for kh in TOWN.rows} == TOWN.rows
        assert codec.parse(view.meta(META_NUMBERS) or b"") == list(NUMBERS)
        history = HistoryTree(opening.StoreNodes(store), 13)
        before = HistoryTree(opening.StoreNodes(TOWN_NODES), 12)
        before.append(TOWN.statement.hash)
        assert history.root() == before.root()
        tip = opening.stored_tip(store, TOWN.block)
        assert (tip.block, tip.commit_cert) == (TOWN.block, TOWN.certificate)
        listed = {key: kh for key, kh in view.records(b"", count_max=1000) if key[0] > 4}
        assert listed[index_key("file", ["f"])] == Paths(TOWN.chain)("record", ["file", "f"])
        assert index_key("principal", [token("ada")]) in listed
        opened = list(Register(store).open_for("desk.send", TOWN.block.time_ms, b""))
        assert len(opened) == 1
        assert list(Register(store).of_agency("treasury", 0, b""))
    finally:
        store.close()


def test_what_is_listed_is_what_a_flush_of_the_same_rows_lists() -> None:
    paths = Paths(TOWN.chain)
    rows = [(kh, row) for kh, row in sorted(TOWN.rows.items()) if row.value]
    expected = dict(index_entries(rows, lambda kh: False, paths))
    found = {key: kh for key, kh in listed(paths, TOWN.chunk(1)) if key[0] > 4}
    assert found == expected
    assert len(found) > 20


def test_what_came_before_a_snapshot_is_said_to_be_absent(tmp_path: Path, file: Path) -> None:
    config = configured(tmp_path / "home", OUTSIDER)
    import_file(file, config, silent)
    folder = tmp_path / "home" / "data" / "state"
    store = Store.open(folder, chain=TOWN.chain, map_bytes=1 << 26)
    try:
        history = HistoryTree(opening.StoreNodes(store), 13)
        chronicle = Chronicle(store, history, TOWN.block)
        assert chronicle.certified == chronicle.provable() == 12
        assert chronicle.evidence(12) is not None
        assert chronicle.past(12) is not None
        assert chronicle.ordered(12) == (TOWN.block, TOWN.certificate)
        for height in (0, 5, 11):
            assert chronicle.evidence(height) is None
            assert chronicle.past(height) is None
            assert chronicle.ordered(height) is None
        for height in (5, 12):
            assert chronicle.block(height) is None
        assert chronicle.find(b"t" * 32) is None
        assert chronicle.decisions_of(b"t" * 32) == []
    finally:
        store.close()


class _Nodes:
    """The history below the snapshot, as the test world makes it."""

    def __init__(self) -> None:
        self.view = self
        self._nodes = {(level, index): hash_ for level, index, hash_ in history_nodes(12)}

    def history(self, level: int, index: int) -> bytes | None:
        return self._nodes.get((level, index))


TOWN_NODES = _Nodes()


def opened(config: Path, index: int) -> Recovered:
    """Recover, and open the signer, as a start does."""
    folder = config.parent / "data"
    recovered = recover(folder, chain=TOWN.chain, map_bytes=1 << 26)
    try:
        open_signer(recovered, pair_of(index), folder / MARK_FILE, chain=TOWN.chain).close()
    except BaseException:
        recovered.close()
        raise
    return recovered


def test_without_a_word_for_its_key_an_imported_node_does_not_vote(
    tmp_path: Path, file: Path
) -> None:
    config = configured(tmp_path / "home", OUTSIDER)
    import_file(file, config, silent)
    with pytest.raises(PromisesLostError, match="no mark"):
        opened(config, OUTSIDER)


def test_a_new_key_gets_a_mark_that_signs_nothing_up_to_the_snapshot(
    tmp_path: Path, file: Path
) -> None:
    config = configured(tmp_path / "home", OUTSIDER)
    assert import_file(file, config, silent, new_key=True).votes
    recovered = opened(config, OUTSIDER)
    try:
        folder = config.parent / "data"
        signer = open_signer(recovered, pair_of(OUTSIDER), folder / MARK_FILE, chain=TOWN.chain)
        round_ = TOWN.statement.round
        with pytest.raises(SigningRefusedError):
            signer.sign(SignKind.COMMIT_VOTE, 1, round_, b"another statement")
        assert signer.sign(SignKind.COMMIT_VOTE, 1, round_ + 1, b"a later statement")
        signer.close()
    finally:
        recovered.close()


def test_a_key_that_voted_on_the_block_before_is_not_new(tmp_path: Path) -> None:
    made = exported(tmp_path, certify(TOWN.genesis, TOWN.rows, voters=(1, 2, 3)))
    config = configured(tmp_path / "home", OUTSIDER)
    with pytest.raises(PromisesLostError, match="a vote of this key for round 12"):
        import_file(made, config, silent, new_key=True)


def test_a_key_that_signed_the_certificate_is_not_new(tmp_path: Path, file: Path) -> None:
    config = configured(tmp_path / "home", 0)
    with pytest.raises(PromisesLostError, match="commit vote of this key for round 13"):
        import_file(file, config, silent, new_key=True)
    assert not (tmp_path / "home" / "data").exists()


def test_a_data_folder_that_holds_anything_is_left_alone(tmp_path: Path, file: Path) -> None:
    config = configured(tmp_path / "home", OUTSIDER)
    (tmp_path / "home" / "data").mkdir()
    (tmp_path / "home" / "data" / MARK_FILE).write_bytes(b"promises")
    with pytest.raises(SnapshotError, match="not empty"):
        import_file(file, config, silent)
    assert (tmp_path / "home" / "data" / MARK_FILE).read_bytes() == b"promises"


def test_a_forged_file_leaves_nothing_behind(tmp_path: Path, file: Path) -> None:
    config = configured(tmp_path / "home", OUTSIDER)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(ProofError, match="chunk 0: the row of key"):
        import_file(file, config, silent)
    file.write_bytes(bytes(data[: len(data) // 2]))
    with pytest.raises(DecodeError, match="the file ends inside"):
        import_file(file, config, silent)
    assert list((tmp_path / "home" / "data").iterdir()) == []


def test_an_auditors_copy_begins_no_node(tmp_path: Path) -> None:
    made = exported(tmp_path, selection=Selection(kinds=("file",)))
    with pytest.raises(SnapshotError, match="copy of a part"):
        import_file(made, configured(tmp_path / "home", OUTSIDER), silent)


# --- taking the place of an older store -----------------------------------------------------------


def filled(folder: Path) -> None:
    """A data folder with a store, and a whole new one beside it."""
    Store.open(folder / "state", chain=TOWN.chain, map_bytes=1 << 24).close()
    TOWN.store(folder / begin.NEW_FOLDER)


def height(folder: Path) -> int:
    store = Store.open(folder / "state", chain=TOWN.chain, map_bytes=1 << 26)
    store.close()
    return store.view.height


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_crash_while_stores_change_places_leaves_one_whole_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    filled(tmp_path)
    done: list[Path] = []
    rename = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(self)
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing)
        if renames < 2:
            with pytest.raises(KeyboardInterrupt):
                begin.put_in_place(tmp_path)
        else:
            begin.put_in_place(tmp_path)
    begin.mend(tmp_path)
    assert height(tmp_path) == (-1 if renames == 0 else 12)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["state"]


def test_the_promises_of_a_used_key_are_not_touched_by_mending(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / MARK_FILE).write_bytes(b"promises")
    (tmp_path / "log").mkdir()
    begin.put_in_place(tmp_path)
    begin.mend(tmp_path)
    assert (tmp_path / MARK_FILE).read_bytes() == b"promises"
    assert (tmp_path / "log").is_dir()
