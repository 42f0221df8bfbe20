"""``comity node inspect``: what is on disk is said, nothing changed, and a start does what it says.

The data is that of a node which ran beside three others and lost power. What a start would do is
compared with starts: the engine is opened on copies, whole and damaged in many ways.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from comity.cli.app import DONE, REFUSED, USAGE, run
from consensus import codec, keyfile
from consensus.errors import ComityError
from consensus.hotstuff import wire
from consensus.keyfile import KeyKind
from node import config as configs
from node.errors import InUseError
from node.inspecting import stored
from node.inspecting.main import Report, inspect
from node.sealed.vault import Erase, Vault
from node.storage.disk import SystemDisk
from node.storage.readonly import NoDataError
from tests.node import machines
from tests.node.machines import CHAIN, GENESIS, Machine, Town, pair_of, running
from tests.node.sealed import test_vault

MARK = "signer.mark"


@dataclass
class Stopped:
    """A node's folder: configuration, keys and data, to be copied."""

    folder: Path
    height: int
    """Of the store."""
    certified: int
    """Of what it had told."""

    def copy(self, folder: Path) -> Stopped:
        shutil.copytree(self.folder, folder)
        return replace(self, folder=folder)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """The segment that is written last."""
        return max((self.data / "log").glob("*.log"))

    def look(self, *, configured: bool = True, genesis: bool = True) -> Report:
        config = configs.load(self.folder / "node.toml", {}) if configured else None
        return inspect(self.data, config, GENESIS.encode() if genesis else None)

    def open(self) -> Machine:
        """Open a node on it, on the real disk."""
        machine = Machine(Town(self.folder / "town"), 0, self.data)
        machine.disk = SystemDisk()  # type: ignore[assignment]

        async def work() -> None:
            machine.open()

        trio.run(work)
        return machine

    def start(self) -> tuple[str, str]:
        """Start a node on it; return code and words of the refusal, or whether it votes."""
        try:
            machine = self.open()
        except ComityError as error:
            return error.code, error.message
        votes = machine.engine.votes
        machine.engine.close()
        return "votes" if votes else "follows", ""


def configured(folder: Path) -> None:
    (folder / "keys").mkdir(mode=0o700)
    for name, number, kind in (("validator", 40, KeyKind.VALIDATOR), ("node", 60, KeyKind.NODE)):
        path = folder / "keys" / f"{name}.key"
        path.write_bytes(keyfile.pack(pair_of(number, kind)))
        path.chmod(0o600)
    (folder / "genesis.cbor").write_bytes(GENESIS.encode())
    (folder / "node.toml").write_text(
        '[node]\nagency = "agency-0"\ngenesis = "genesis.cbor"\ndata = "data"\n'
    )


async def lived(folder: Path) -> Stopped:
    town = Town(folder / "town")
    machine = town.machines[0]
    async with running(town) as nursery:
        for turn in range(4):
            town.submit(turn, 2)
            await town.until_certified(2 * turn + 2)
        await town.until(lambda: machine.engine.store.height >= 4)
        height = machine.engine.store.height  # what it writes later is lost with the power
        shutil.copytree(machine.folder / "state", folder / "state")
        for turn in range(4):
            town.submit(turn, 1)
            await town.until_certified(height + turn + 1)
        machine.cut_power()
        await town.until(lambda: not machine.powered)
        nursery.cancel_scope.cancel()
    return laid_out(machine, folder / "state", folder / "home", height)


def laid_out(machine: Machine, state: Path, home: Path, height: int) -> Stopped:
    """Lay what is on a machine's disk, with the store of a moment, out in a folder of a node."""
    home.mkdir()
    configured(home)
    (home / "data").mkdir(mode=0o700)
    shutil.copytree(state, home / "data" / "state")
    for path, inode in machine.disk.files.items():
        target = home / "data" / path.relative_to(machine.folder)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        target.write_bytes(inode.shown)
    return Stopped(home, height, machine.height)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    with pytest.MonkeyPatch.context() as patch:
        machines.inline_threads.__wrapped__(patch)  # type: ignore[attr-defined]
        clock = trio.testing.MockClock(autojump_threshold=0)
        return trio.run(lived, tmp_path_factory.mktemp("lived"), clock=clock)


@pytest.fixture
def stopped(whole: Stopped, tmp_path: Path) -> Stopped:
    return whole.copy(tmp_path / "home")


@pytest.fixture(autouse=True)
def here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the store read in this process, which is sooner; but for tests of the other one."""
    if request.node.get_closest_marker("process") is None:

        def ask(folder: Path) -> Any:
            found = {"store": stored.store(folder), "sealed": stored.sealed(folder)}
            return json.loads(json.dumps(found))

        monkeypatch.setattr(stored, "ask", ask)


def contents(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(each.relative_to(folder)): (
            each.stat().st_mtime_ns,
            each.stat().st_mode,
            each.read_bytes() if each.is_file() else b"",
        )
        for each in sorted(folder.rglob("*"))
    }


# --- what it says ---------------------------------------------------------------------------------


@pytest.mark.process
def test_what_is_on_disk_is_what_the_node_had(stopped: Stopped) -> None:
    before = contents(stopped.folder)
    found = stopped.look()
    assert contents(stopped.folder) == before, "no byte, no name and no time was changed"
    assert found.store["height"] == stopped.height
    assert found.store["chain"] == CHAIN.hex()
    assert found.store["certificate"]["height"] <= stopped.height
    assert found.store["leaves"] > 0
    assert found.network == GENESIS.network
    assert found.record is not None
    assert found.record.epoch == 1
    assert found.record.last_vote is not None
    (mark,) = found.marks
    assert mark.file == MARK
    assert mark.key == pair_of(40, KeyKind.VALIDATOR).public
    assert mark.log_identity == found.log.identity
    assert mark.log_synced <= found.log.end
    # the mark is written after the log: it never speaks of more than the log does
    assert mark.last is not None
    assert mark.last["vote"] <= [1, found.record.last_vote.round]
    (seat,) = found.seats
    assert (seat.agency, seat.validator, seat.held) == ("agency-0", 0, "key file")
    assert [each.agency for each in found.committees[-1].validators] == [
        f"agency-{index}" for index in range(4)
    ]
    kinds = {name for part in found.log.segments for name in part.entries}
    assert kinds >= {"block", "safety", "batch", "private"}
    assert not found.log.damage


def test_a_start_replays_what_it_was_said_to(stopped: Stopped) -> None:
    start = stopped.look().start
    assert (start.starts, start.votes) == (True, True)
    assert start.replay is not None
    assert start.replay[0] == stopped.height + 1
    assert start.certified is not None
    assert start.certified >= stopped.certified
    machine = stopped.open()
    found = machine.engine._recovered.found
    machine.engine.close()
    assert found.safety is not None
    record = wire.decode_record(found.safety)
    heights = {each.value.height for each in found.blocks}
    assert min(heights) == start.replay[0]
    assert record.high_qc.height == start.replay[1]
    assert record.commit_cert is not None
    assert start.certified >= record.commit_cert.statement.height
    assert heights >= set(range(start.replay[0], start.replay[1] + 1))


# --- a start does what was said -------------------------------------------------------------------


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(bytes(data))


def end_of(stopped: Stopped) -> int:
    return stopped.look().log.end - int(stopped.log.name.removesuffix(".log"))


def torn(stopped: Stopped) -> None:
    end = end_of(stopped)
    with stopped.log.open("r+b") as file:
        file.seek(end)
        file.write(b"\x07" * 100)


def cut_log(stopped: Stopped) -> None:
    end = end_of(stopped)
    with stopped.log.open("r+b") as file:
        file.truncate(end - 40)


def half_log(stopped: Stopped) -> None:
    with stopped.log.open("r+b") as file:
        file.truncate(end_of(stopped) // 2)


def newer_mark(stopped: Stopped) -> None:
    """As a newer release might write it."""
    from consensus import hashing
    from node.storage import marks

    path = stopped.data / MARK
    fields = marks._FIELDS.pack(marks.MAGIC, 9, 1, 8)
    slot = fields + hashing.context("signer mark slot")(fields + b"x") + b"x"
    path.write_bytes(slot.ljust(marks.SLOT_BYTES, b"\0") * 2)


def other_key(stopped: Stopped) -> None:
    """The mark of another validator lies there."""
    from node.signer import Signer
    from node.storage.marks import SlotFile

    path = stopped.data / MARK
    path.unlink()
    other = Signer(pair_of(41, KeyKind.VALIDATOR), CHAIN)
    SlotFile.open(path, fresh=other.mark_bytes()).close()


def remove(*names: str) -> Callable[[Stopped], None]:
    def spoil(stopped: Stopped) -> None:
        for name in names:
            path = stopped.data / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return spoil


def restored(stopped: Stopped) -> None:
    record = {
        "magic": "comity restored", "version": 1, "chain": CHAIN, "agency": "agency-0",
        "height": 3, "backup": bytes(32), "restored_ms": 1,
        "keys": [pair_of(40, KeyKind.VALIDATOR).public],
    }  # fmt: skip
    (stopped.data / "restored").write_bytes(codec.encode(record))


DAMAGES: dict[str, tuple[Callable[[Stopped], None], str]] = {
    "nothing": (lambda stopped: None, "votes"),
    "a torn tail": (torn, "votes"),
    "a group is cut off": (cut_log, "PROMISES_LOST"),
    "half of the log": (half_log, "PROMISES_LOST"),
    "a byte in the middle": (lambda s: flip(s.log, end_of(s) // 2), "LOG_DAMAGED"),
    "a segment's header": (lambda s: flip(s.log, 20), "LOG_DAMAGED"),
    "no log": (remove("log"), "PROMISES_LOST"),
    "no mark": (remove(MARK), "PROMISES_LOST"),
    "noise for the mark": (
        lambda s: (s.data / MARK).write_bytes(b"\x55" * 262_144),  # type: ignore[func-returns-value]
        "MARK_DAMAGED",
    ),
    "a newer mark": (newer_mark, "NEWER_FORMAT"),
    "another key's mark": (other_key, "FOREIGN_DATA"),
    "no store": (remove("state"), "votes"),
    "all gone but the keys": (remove("state", "log", MARK), "votes"),
    "noise for the store": (
        lambda s: (s.data / "state" / "data.mdb").write_bytes(b"\x55" * 65_536),  # type: ignore[func-returns-value]
        "STORE_DAMAGED",
    ),
    "a restore under way": (lambda s: (s.data / "restoring").mkdir(), "BACKUP"),
    "restored from a backup": (restored, "follows"),
}


SOONER = ("a torn tail", "half of the log", "a byte in the middle", "no log", "no mark")
"""Those that stand for all where there is little time."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] * (name not in SOONER)) for name in DAMAGES],
)
def test_a_start_on_damaged_data_ends_as_was_said(name: str, stopped: Stopped) -> None:
    spoil, expected = DAMAGES[name]
    spoil(stopped)
    before = contents(stopped.folder)
    said = stopped.look().start
    assert contents(stopped.folder) == before
    told = said.code if not said.starts else ("votes" if said.votes else "follows")
    assert said.why
    assert told == expected
    code, words = stopped.start()
    assert code == expected
    assert words[:16] == said.why[: 16 * bool(words)], "in the same words, but for paths"


def test_damage_is_told_with_its_place_and_what_lies_behind_it_is_still_seen(
    stopped: Stopped,
) -> None:
    clean = stopped.look()
    at = end_of(stopped) // 2
    flip(stopped.log, at)
    found = stopped.look()
    (damage,) = found.log.damage
    base = int(stopped.log.name.removesuffix(".log"))
    assert damage.segment == stopped.log.name
    assert 0 <= base + at - damage.offset < 300_000
    assert damage.offset <= base + at
    with pytest.raises(ComityError) as caught:
        stopped.open()
    assert caught.value.offset == damage.offset  # type: ignore[attr-defined]
    before, after = clean.log.segments[-1].entries, found.log.segments[-1].entries
    assert 0 < sum(before.values()) - sum(after.values()) <= 4, "one group of entries is lost"
    assert found.record is not None
    assert found.record.behind_damage
    assert clean.record is not None
    assert found.record.last_vote == clean.record.last_vote


def test_a_torn_tail_is_measured(stopped: Stopped) -> None:
    torn(stopped)
    found = stopped.look()
    assert found.log.torn_bytes == 100
    assert found.start.cuts_bytes == 100
    size = stopped.log.stat().st_size
    base = int(stopped.log.name.removesuffix(".log"))
    assert found.log.reserved_bytes == size - (found.log.end - base) - 100


def test_a_store_that_is_cut_off_is_refused_in_words_and_the_rest_is_shown(
    stopped: Stopped,
) -> None:
    path = stopped.data / "state" / "data.mdb"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = stopped.look()
    assert found.store["problem"][0] == "STORE_DAMAGED"
    assert "is cut off" in found.store["problem"][1]
    assert found.record is not None
    assert found.marks[0].last
    assert (found.start.starts, found.start.code) == (False, "STORE_DAMAGED")


@pytest.mark.process
def test_pages_that_kill_their_reader_kill_only_the_process_that_reads(
    stopped: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = subprocess.run

    def dies(command: list[str], **given: Any) -> Any:
        assert command[1:3] == ["-m", "node.inspecting.stored"]
        return plain([sys.executable, "-c", "import os; os.kill(os.getpid(), 7)"], **given)

    monkeypatch.setattr(stored.subprocess, "run", dies)
    found = stopped.look()
    assert found.store["problem"] == [
        "STORE_DAMAGED", "reading it ends with SIGBUS: its pages are cut off or damaged"
    ]  # fmt: skip
    assert found.record is not None


def test_without_configuration_or_genesis_the_data_speaks_for_itself(stopped: Stopped) -> None:
    found = stopped.look(configured=False, genesis=False)
    assert found.chain == CHAIN
    assert found.network is None
    assert (found.start.starts, found.start.votes) == (True, None)
    assert "name the node's configuration" in found.start.why
    (seat,) = found.seats
    assert (seat.held, seat.agency) == (f"mark {MARK} alone", None)
    named = stopped.look(configured=False)
    assert named.seats[0].agency == "agency-0"


@pytest.mark.parametrize(
    ("change", "votes", "why"),
    [
        ("votes = false", False, "votes = false"),
        ('agency = "agency-1"', False, "votes by another key"),
        ('agency = "agency-9"', False, "agency-9 has no vote in epoch 1"),
        ('role = "observer"', False, "an observer"),
        ('[signer]\nsocket = "/run/s"\nkey = "{key}"', None, "if the signer at /run/s"),
        ('validator_key = "keys/gone.key"', False, "there is no key file"),
        ('validator_key = "genesis.cbor"', False, "genesis.cbor"),
    ],
)
def test_the_configuration_decides_who_votes(
    stopped: Stopped, change: str, votes: bool | None, why: str
) -> None:
    path = stopped.folder / "node.toml"
    key = pair_of(40, KeyKind.VALIDATOR).public.hex()
    lines = path.read_text().splitlines()
    name = change.partition(" ")[0]
    kept = [line for line in lines if not line.startswith(f"{name} ")]
    path.write_text("\n".join([*kept, change.replace("{key}", key)]) + "\n")
    start = stopped.look().start
    assert start.votes is votes
    assert why in start.why


def test_a_genesis_file_of_another_network_is_noticed(stopped: Stopped) -> None:
    other = replace(GENESIS, network="elsewhere").encode()
    found = inspect(stopped.data, None, other)
    assert (found.start.starts, found.start.code) == (False, "FOREIGN_DATA")
    assert CHAIN.hex() in found.start.why


def test_sealed_values_are_counted_and_none_is_read(tmp_path: Path) -> None:
    values = [test_vault.opening(number) for number in range(5)]

    async def seal() -> None:
        vault = Vault(tmp_path / "sealed", b"k" * 32, CHAIN)
        await vault.deliver([test_vault.delivered(each) for each in values])
        await vault.settle([test_vault.kept(each) for each in values[:3]], 10, lambda height: False)
        gone = Erase(test_vault.PLACE, 1, values[0].commitment, b"T" * 32)
        await vault.settle([gone], 11, lambda height: False)
        vault.close()

    trio.run(seal)
    before = contents(tmp_path)
    sealed = inspect(tmp_path, None, None).sealed
    assert contents(tmp_path) == before
    assert sealed is not None
    # one act erased the value, and with it those that had been in the same field up to its version
    assert (sealed["waiting"], sealed["kept"] + sealed["erased"]) == (2, 3)
    assert sealed["erased"] >= 1
    assert sealed["keys"] == 5 - sealed["erased"], "an erased value has no key"
    data = tmp_path / "sealed" / "values" / "data.mdb"
    data.write_bytes(b"\x55" * 9000)
    sealed = inspect(tmp_path, None, None).sealed
    assert sealed is not None
    assert "cannot read the sealed values" in sealed["problem"][1]


# --- a node that runs -----------------------------------------------------------------------------


def test_a_node_that_runs_is_refused_and_named_and_none_starts_meanwhile(stopped: Stopped) -> None:
    machine = stopped.open()
    try:
        with pytest.raises(InUseError) as caught:
            stopped.look()
        assert f"a node (process {os.getpid()}, " in caught.value.message
        assert "stop it first" in caught.value.hint
    finally:
        machine.engine.close()
    stopped.look()


def test_a_folder_that_is_not_there_or_empty(tmp_path: Path) -> None:
    with pytest.raises(NoDataError, match="there is no data folder"):
        inspect(tmp_path / "none", None, None)
    found = inspect(tmp_path, None, None)
    assert (found.store, found.log.present, found.record) == ({"present": False}, False, None)
    assert "the data folder is new" in found.start.notes[0]


def test_a_copy_without_locks_on_read_only_media_will_do(stopped: Stopped) -> None:
    for path in stopped.data.rglob("*lock*"):
        path.unlink()
    before = contents(stopped.folder)
    assert stopped.look().start.votes
    assert contents(stopped.folder) == before, "no lock file was made"


# --- the command ----------------------------------------------------------------------------------


def test_the_command_shows_it_to_people_and_programs(
    stopped: Stopped, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["node", "inspect", str(stopped.folder)]) == DONE
    text = capsys.readouterr().out
    for said in ("what a start would do", "executes again", "last vote", "agency-0", "torn tail"):
        assert said in text
    assert run(["node", "inspect", str(stopped.folder), "--json"]) == DONE
    value = json.loads(capsys.readouterr().out)
    assert value["start"]["votes"] is True
    assert value["store"]["height"] == stopped.height
    assert value["chain"] == "0x" + CHAIN.hex()
    assert value["committee"]["quorum"] == 3
    assert value["marks"][0]["last"]["vote"][0] == 1
    data = [str(stopped.data), "--genesis", str(stopped.folder / "genesis.cbor")]
    assert run(["node", "inspect", *data]) == DONE
    flip(stopped.log, end_of(stopped) // 2)
    capsys.readouterr()
    assert run(["node", "inspect", str(stopped.folder)]) == REFUSED
    assert "refuses (LOG_DAMAGED)" in capsys.readouterr().out
    assert run(["node", "inspect", str(stopped.folder / "nowhere")]) == USAGE
    assert "there is no" in capsys.readouterr().err
