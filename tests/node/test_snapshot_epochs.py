"""Snapshots of later epochs: they show every committee, and a node begins in its epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from comity import keys, snapshots
from consensus import codec, genesis, keyfile
from consensus.answers import EpochStep
from consensus.errors import CertificateError, DecodeError, ProofError
from consensus.hotstuff import wire
from consensus.hotstuff.types import Vote
from consensus.keyfile import KeyKind
from consensus.snapshot import Manifest, Reader, decode_manifest, verify_manifest
from consensus.state.state import State
from node import epochs, execution, opening
from node.epochs import ended_of
from node.identity import Identity, Own
from node.keyfiles import NodeKey
from node.network.wire import Class
from node.signer import Signer
from node.snapshots import begin, serving
from node.snapshots.export import export
from node.snapshots.importing import fill, import_file
from node.snapshots.joining import Joiner
from node.snapshots.phase import node_key_for
from node.snapshots.serving import SnapshotServer
from node.storage.recovery import recover
from node.storage.store import Store
from node.telemetry.metrics import Metrics
from tests.consensus.ledger import members
from tests.elections import Elections, elected
from tests.node import machines, test_epochs
from tests.node.machines import Town, running
from tests.node.machines import inline_threads as inline_threads

CHAIN = elected().chain
GENESIS = elected().genesis
STEPS = tuple(elected().steps)


def silent(done: int, of: int) -> None:
    pass


def snapshot_of(chain: Elections, folder: Path) -> bytes:
    chain.store(folder)
    file = folder / "snapshot"
    export(folder / "state", GENESIS, file, silent)
    return file.read_bytes()


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return snapshot_of(elected(), tmp_path_factory.mktemp("newest"))


@pytest.fixture(scope="module")
def boundary(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """At the very height that ended the first epoch."""
    chain = Elections()
    chain.block()
    chain.change(chain.members.joining("health", "chief_h"), number=1)
    return snapshot_of(chain, tmp_path_factory.mktemp("boundary"))


def manifest_of(file: bytes) -> Manifest:
    return decode_manifest(codec.parse(_first(file)))


def _first(file: bytes) -> bytes:
    size = int.from_bytes(file[1:3], "big") + 3 if file[0] == 0x59 else None
    assert size is not None
    return file[:size]


def test_a_snapshot_shows_the_committees_up_to_the_one_of_the_next_height(
    newest: bytes, boundary: bytes
) -> None:
    certified = verify_manifest(manifest_of(newest), CHAIN)
    assert certified.manifest.epochs == STEPS
    assert [each.epoch for each in certified.committees] == [1, 2, 3, 4]
    assert certified.committee.epoch == 4
    certified = verify_manifest(manifest_of(boundary), CHAIN)
    assert certified.manifest.epochs == STEPS[:1]
    assert certified.committee.epoch == 1
    assert [each.epoch for each in certified.committees] == [1, 2]


def test_who_signed_is_said_by_the_names_of_that_epoch(newest: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(newest)
    found = snapshots.verify(file, CHAIN, silent, processes=0)
    assert found.signers == ("treasury", "services", "audit")
    assert found.statement.epoch == 4


FORGED: list[tuple[str, Callable[[Manifest], Manifest], type[Exception], str]] = [
    ("no steps", lambda m: replace(m, epochs=()), CertificateError, "epoch 4 is not known"),
    ("the last missing", lambda m: replace(m, epochs=STEPS[:2]), CertificateError, "not known"),
    ("the first missing", lambda m: replace(m, epochs=STEPS[1:]), CertificateError, "not join"),
    ("twice", lambda m: replace(m, epochs=(*STEPS, STEPS[2])), CertificateError, "not join"),
    ("exchanged", lambda m: replace(m, epochs=STEPS[::-1]), CertificateError, "not join"),
    (
        "another committee",
        lambda m: replace(m, epochs=(*STEPS[:2], EpochStep(STEPS[2].certificate, _other()))),
        CertificateError,
        "not the one that was elected",
    ),
    ("numbers of another", lambda m: replace(m, numbers=(0,) * 5), DecodeError, "one number"),
]


def _other() -> Any:
    epoch, rows = STEPS[2].committee
    return [epoch, [[*row[:7], row[7] % 9999 + 1] for row in rows]]


@pytest.mark.parametrize(("name", "forge", "error", "why"), FORGED, ids=[row[0] for row in FORGED])
def test_steps_that_do_not_lead_there_are_refused(
    newest: bytes, name: str, forge: Any, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        verify_manifest(decode_manifest(forge(manifest_of(newest)).encode()), CHAIN)


def test_the_end_of_an_epoch_comes_with_the_committee_that_it_elected(boundary: bytes) -> None:
    without = replace(manifest_of(boundary), epochs=())
    with pytest.raises(ProofError, match="do not lead to the committee of the next height"):
        verify_manifest(without, CHAIN)
    early = replace(manifest_of(boundary), epochs=STEPS[:2])
    with pytest.raises(ProofError, match="do not lead to the committee of the next height"):
        verify_manifest(early, CHAIN)


def test_a_manifest_has_one_form(newest: bytes) -> None:
    value = codec.parse(manifest_of(newest).encode())
    for changes, where in (
        ({"version": 1}, "manifest.version"), ({"version": 3}, "manifest.version"),
        ({"epochs": []}, "manifest.epochs"),
        ({"epochs": [STEPS[0].to_value()] * 1025}, "manifest.epochs"),
    ):  # fmt: skip
        with pytest.raises(DecodeError, match=where):
            decode_manifest(codec.encode({**value, **changes}))
    plain = {key: each for key, each in value.items() if key != "epochs"}
    with pytest.raises(DecodeError, match=r"manifest\.version"):
        decode_manifest(codec.encode(plain))


# --- beginning from one -------------------------------------------------------------------------


def configured(folder: Path, agency: str, generation: int = 1) -> Path:
    (folder / "keys").mkdir(parents=True)
    (folder / "genesis.cbor").write_bytes(GENESIS)
    for kind, name in ((KeyKind.VALIDATOR, "validator"), (KeyKind.NODE, "node")):
        seed = members.seed(f"{name} {agency} {generation}")
        keys.create(folder / "keys" / f"{name}.key", keyfile.from_seed(kind, seed))
    config = folder / "node.toml"
    config.write_text(f'[node]\nagency = "{agency}"\ngenesis = "genesis.cbor"\n')
    return config


@pytest.mark.parametrize("which", ["newest", "boundary"])
def test_an_admitted_agency_begins_in_the_epoch_of_the_snapshot(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    data: bytes = request.getfixturevalue(which)
    file = tmp_path / "file"
    file.write_bytes(data)
    config = configured(tmp_path / "home", "health")
    certified = verify_manifest(manifest_of(data), CHAIN)
    imported = import_file(file, config, silent, new_key=True)
    assert imported.height == certified.height
    folder = tmp_path / "home" / "data"
    ended = epochs.stored(folder, CHAIN)
    assert epochs.looked_up(folder, CHAIN) == ended
    assert ended == tuple(ended_of(each) for each in certified.manifest.epochs)
    recovered = recover(folder, chain=CHAIN)
    try:
        tip = opening.stored_tip(recovered.store, _first_block())
        opening.begin_epoch(recovered, tip, ended)
        record = wire.decode_record(recovered.found.safety or b"")
        assert record.epoch == len(ended) + 1
        assert record.commit_cert == ended[-1].certificate
        assert (record.last_vote, record.last_timeout) == (None, None)
        before = recovered.log.end
        opening.begin_epoch(recovered, tip, ended)
        assert recovered.log.end == before
    finally:
        recovered.close()


def _first_block() -> Any:
    return wire.decode_block(elected().recorded[0].block)


@pytest.fixture
def electing(monkeypatch: pytest.MonkeyPatch) -> None:
    test_epochs.ELECTED.clear()
    monkeypatch.setattr(execution, "BlockRun", test_epochs.ElectingRun)


@pytest.mark.usefixtures("inline_threads", "electing")
async def test_a_member_that_was_away_goes_on_from_a_snapshot_two_epochs_later(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    town = Town(tmp_path)
    late = town.machines[3]
    async with running(town):
        town.submit(0, 2)
        await town.until(lambda: late.height >= 3)
    for machine in town.machines:
        machine.lose()
    async with running(town, 0, 1, 2):
        for epoch in (2, 3):
            test_epochs.elect(town, 0, *((1, 2, 3, 0) if epoch == 2 else (0, 1, 2, 3)))
            await town.until(lambda: test_epochs.in_epoch(town, epoch, 0, 1, 2))  # noqa: B023
        reached = town.machines[0].height + 3
        await town.until(lambda: town.machines[0].engine.store.height >= reached)
    file = tmp_path / "file"
    export(town.machines[0].folder / "state", machines.GENESIS.encode(), file, silent)
    with file.open("rb") as opened:
        reader = Reader(opened.read, machines.CHAIN)
        assert reader.certified.statement.epoch == 3
        fill(reader, begin.room(late.folder), silent)
    begin.put_in_place(late.folder)
    for machine in town.machines[:3]:
        machine.lose()
    async with running(town):
        await town.until(lambda: test_epochs.in_epoch(town, 3))
        begun = town.machines[3].height
        town.submit(3, 2)
        await town.until(lambda: late.height >= begun + 4)
        await town.until(
            lambda: any(isinstance(each, Vote) and each.epoch == 3 for each in late.sent)
        )
    assert town.faults == []


# --- from peers, by whoever knows an earlier committee alone ------------------------------------


@dataclass
class Hub:
    """Links of one joiner with nodes of a later epoch: each side numbers by its own committee."""

    own: int
    """The joiner's number at the nodes that serve."""
    servers: dict[int, SnapshotServer] = field(default_factory=dict)
    """By their numbers at the joiner."""
    faults: list[str] = field(default_factory=list)
    joiner: Joiner | None = None

    @property
    def connected(self) -> frozenset[int]:
        return frozenset(self.servers)

    def send(self, peer: int, cls: Class, payload: bytes) -> bool:
        self.servers[peer].receive(self.own, payload)
        return True

    def close_link(self, peer: int, reason: str, code: str = "") -> None:
        self.faults.append(reason)

    def outward(self, peer: int) -> Any:
        hub = self

        class Links:
            def send(self, to: int, cls: Class, payload: bytes) -> bool:
                assert (to, cls) == (hub.own, Class.SYNC)
                assert hub.joiner is not None
                hub.joiner.received(peer, cls, payload)
                return True

        return Links()


def identity_of(agency: str, ended: int, generation: int = 1) -> Identity:
    """Who the node of an agency is that has followed so many ends of epochs."""
    named = [
        keyfile.from_seed(kind, members.seed(f"{name} {agency} {generation}")).public
        for kind, name in ((KeyKind.VALIDATOR, "validator"), (KeyKind.NODE, "node"))
    ]
    own = Own(agency, (named[0],), (named[1],))
    founded = genesis.decode(GENESIS)
    first = Identity(founded, CHAIN, own.place(founded.committee), (), own)
    return first.at(tuple(ended_of(each) for each in STEPS[:ended]))


def _same(state: State) -> State:
    return state


@pytest.mark.usefixtures("inline_threads")
async def test_a_node_epochs_behind_takes_its_state_from_peers_that_number_it_otherwise(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands in epoch 2, the others in 4: a member has left since, one has other keys."""
    monkeypatch.setattr(serving, "BOUNDARY_SECONDS_MAX", 0.01)
    late = identity_of("health", 1)
    newest = [each.agency for each in elected().committee.validators]
    before = [each.agency for each in late.committee.validators]
    assert (late.index, newest.index("health"), late.committee.epoch) == (4, 3, 2)
    hub = Hub(newest.index("health"))
    stores = []
    for agency in ("treasury", "services"):
        elected().store(tmp_path / agency)
        store = Store.open(tmp_path / agency / "state", chain=CHAIN, map_bytes=1 << 26)
        stores.append(store)
        working = State(store.state, late.genesis.tree_depth, store.height)
        theirs = replace(late, index=newest.index(agency), own=None, ended=())
        theirs = replace(theirs, ended=tuple(ended_of(each) for each in STEPS))
        server = SnapshotServer(
            theirs, store, partial(_same, working), hub.outward(before.index(agency)),
            lambda *a, **k: None, Metrics(),
        )  # fmt: skip
        assert server._places(hub.own) == {2: 4, 3: 4, 4: 3}
        hub.servers[before.index(agency)] = server
    folder = tmp_path / "own"
    folder.mkdir()
    pair = keyfile.from_seed(KeyKind.VALIDATOR, members.seed("validator health 1"))
    signer = Signer(pair, CHAIN)
    hub.joiner = Joiner(late, signer, folder, 3, structlog.get_logger(), Metrics())
    try:
        async with trio.open_nursery() as nursery:
            for each in hub.servers.values():
                nursery.start_soon(each.run)
            reached = await hub.joiner.run(hub)  # type: ignore[arg-type]
            nursery.cancel_scope.cancel()
    finally:
        for store in stores:
            store.close()
    assert (reached, hub.faults) == (elected().recorded[-1].height, [])
    now = late.at(epochs.stored(folder, CHAIN))
    assert (now.committee.epoch, now.index) == (4, 3)


def test_a_node_that_found_no_snapshot_calls_by_its_next_key() -> None:
    """By the one that was replaced while it was away, it is a former member to the others."""
    pairs = [keyfile.from_seed(KeyKind.NODE, bytes([each]) * 32) for each in (1, 2)]
    present, following = (NodeKey(each) for each in pairs)
    held = (present, following)
    assert [node_key_for(held, present, each) for each in range(3)] == [present, following, present]
    assert node_key_for((present,), present, 5) == present
    assert node_key_for(held, following, 1) == present
