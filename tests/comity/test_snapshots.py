"""``comity snapshot``: what people type, and what they are told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comity import snapshots
from comity.cli.app import run
from consensus.errors import ProofError
from tests.snapshots import town_state

TOWN = town_state()
HASH = TOWN.chain.hex()
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def comity(capsys: pytest.CaptureFixture[str]) -> Run:
    def running(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return status, out, err

    return running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder, and beside it the genesis file."""
    TOWN.store(tmp_path / "data" / "state")
    (tmp_path / "genesis.cbor").write_bytes(TOWN.genesis.encode())
    return tmp_path / "data"


def written(data: Path, comity: Run, *words: object) -> Path:
    file = data.parent / "made.snapshot"
    genesis = data.parent / "genesis.cbor"
    said = comity("snapshot", "export", "--node", data, "--genesis", genesis, "-o", file, *words)
    assert said[0] == 0, said
    return file


def test_what_is_exported_is_verified_with_the_networks_hash_alone(data: Path, comity: Run) -> None:
    file = written(data, comity)
    status, out, _ = comity("snapshot", "verify", file, "--genesis", HASH)
    assert status == 0
    assert "VALID   the whole state of test at height 12" in out
    status, out, _ = comity("snapshot", "verify", file, "--genesis", f"0x{HASH}", "--json")
    value: dict[str, Any] = json.loads(out)
    assert value["height"] == 12
    assert value["state_root"] == "0x" + TOWN.statement.state_root.hex()
    assert value["signers"] == ["treasury", "registry", "services"]
    assert value["entries"] == value["key_count"] == len(TOWN.rows)
    assert (value["whole"], value["left_out"]) == (True, 0)
    genesis = data.parent / "genesis.cbor"
    assert comity("snapshot", "verify", file, "--genesis", genesis)[0] == 0


def test_a_part_says_that_it_is_one(data: Path, comity: Run) -> None:
    file = written(data, comity, "--prefix", "01", "--kind", "file", "--json")
    status, out, _ = comity("snapshot", "verify", file, "--genesis", HASH)
    assert status == 0
    assert "a certified part of the state" in out
    value = json.loads(comity("snapshot", "verify", file, "--genesis", HASH, "--json")[1])
    assert not value["whole"]
    assert value["entries"] == sum(kh[0] >> 6 == 1 for kh in TOWN.rows)


def test_a_forged_snapshot_ends_with_1_and_names_the_chunk(data: Path, comity: Run) -> None:
    file = written(data, comity)
    forged = bytearray(file.read_bytes())
    forged[-1] ^= 1
    file.write_bytes(bytes(forged))
    status, _, err = comity("snapshot", "verify", file, "--genesis", HASH)
    assert status == 1
    assert "chunk 0: the row of key" in err


def test_another_network_ends_with_1(data: Path, comity: Run) -> None:
    file = written(data, comity)
    status, _, err = comity("snapshot", "verify", file, "--genesis", "00" * 32)
    assert status == 1
    assert "another network" in err


@pytest.mark.parametrize("at", [0, 1, 3, 2000])
def test_a_file_that_is_cut_ends_with_2_and_says_where(data: Path, comity: Run, at: int) -> None:
    file = written(data, comity)
    file.write_bytes(file.read_bytes()[:at])
    status, out, _ = comity("snapshot", "verify", file, "--genesis", HASH, "--json")
    value = json.loads(out)
    assert (status, value["code"]) == (2, "MALFORMED")
    assert f"offset {0 if at == 0 else ''}" in value["error"]


def test_bad_words_end_with_2(data: Path, tmp_path: Path, comity: Run) -> None:
    file = written(data, comity)
    for words in (
        ("verify", tmp_path / "nowhere", "--genesis", HASH),
        ("verify", file, "--genesis", "9f2c"),
        ("verify", file),
        ("export", "--node", data, "-o", tmp_path / "x", "--genesis", tmp_path / "nowhere"),
        ("export", "--node", data, "-o", tmp_path / "x", "--prefix", "12"),
        ("import", file, "--node", tmp_path / "nowhere"),
    ):
        assert comity("snapshot", *words)[0] == 2, words


def test_many_processes_find_what_one_finds(data: Path, comity: Run) -> None:
    file = written(data, comity)
    done: list[tuple[int, int]] = []
    alone = snapshots.verify(file, TOWN.chain, lambda *each: done.append(each), processes=0)
    together = snapshots.verify(file, TOWN.chain, lambda *each: None, processes=2)
    assert alone == together
    assert done[-1] == (alone.chunks, alone.chunks)
    forged = bytearray(file.read_bytes())
    forged[-1] ^= 1
    file.write_bytes(bytes(forged))
    for processes in (0, 2):
        with pytest.raises(ProofError, match="chunk 0: the row of key"):
            snapshots.verify(file, TOWN.chain, lambda *each: None, processes=processes)


def test_verifying_imports_nothing_of_the_node_and_opens_no_socket(data: Path, comity: Run) -> None:
    file = written(data, comity)
    code = (
        "import sys, socket\n"
        "def refuse(*_): raise AssertionError('a socket')\n"
        "socket.socket.__init__ = refuse\n"
        "from comity.cli.app import run\n"
        f"status = run(['snapshot', 'verify', {str(file)!r}, '--genesis', '{HASH}'])\n"
        "loaded = [name for name in sys.modules if name.split('.')[0] in ('node', 'lmdb')]\n"
        "assert not loaded, loaded\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
