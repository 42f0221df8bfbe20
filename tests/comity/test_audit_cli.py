"""``comity audit`` as people use it: what is said when all holds and when something does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from comity.auditing.running import Wanted, audit
from comity.cli.app import run
from comity.founding import CONFIG_NAME, GENESIS_NAME
from consensus.audit.stream import Splitter
from tests.consensus.audit.ledger import HEIGHT, honest, lied, made, statement_of

FIELDS = (
    "holds chain from to certified statement time_ms heights certificates votes transactions"
    " signatures decisions powers approvals cosigners totals moves writes rows seconds"
    " decisions_per_second processes"
).split()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stopped node's folder with an audit file beside it; nothing is named by the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COMITY_GENESIS", raising=False)
    node = tmp_path / "treasury"
    made().store(node / "data")
    (node / GENESIS_NAME).write_bytes(honest().genesis)
    (node / CONFIG_NAME).write_text(f'[node]\nagency = "north"\ngenesis = "{GENESIS_NAME}"\n')
    (tmp_path / "all.audit").write_bytes(honest().stream())
    return tmp_path


class Said:
    """Runs a command and keeps what it said."""

    def __init__(self, capture: pytest.CaptureFixture[str], *words: str) -> None:
        capture.readouterr()
        self.status = run(("audit", *words, "--jobs", "0"))
        self.out, self.err = capture.readouterr()
        assert "Traceback" not in self.out + self.err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


HASH = honest().chain.hex()


@pytest.mark.parametrize(
    "words",
    [
        ("treasury",),
        ("treasury/node.toml",),
        ("treasury/data", "--genesis", "treasury/genesis.cbor"),
        ("treasury/data", "--genesis", "treasury"),
        ("all.audit", "--genesis", HASH),
        ("all.audit", "--genesis", f"0x{HASH}"),
        ("all.audit", "--genesis", "treasury/genesis.cbor"),
    ],
    ids=" ".join,
)
def test_every_form_of_source_is_audited(
    words: tuple[str, ...], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = Said(capsys, *words, "--json")
    assert said.status == 0
    assert list(said.json) == FIELDS
    assert (said.json["to"], said.json["certified"]) == (HEIGHT, HEIGHT)
    assert said.json["statement"] == "0x" + honest().statement.hash.hex()
    assert (said.json["rows"] is None) is words[0].endswith(".audit")


def test_people_are_told_what_was_gone_through(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = Said(capsys, "treasury")
    assert said.status == 0
    for word in ("HOLDS", "12 by own role", "INSUFFICIENT 1", "USD 1,000,000", "rows kept"):
        assert word in said.out


def test_checking_processes_find_the_same(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(("audit", "all.audit", "--genesis", HASH, "--jobs", "2", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["processes"], found["signatures"]) == (3, 13)


def test_a_divergence_is_explained_leaf_by_leaf(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heights = lied(honest(), 3, 1, "code", [0, None, None])
    Path("false.audit").write_bytes(honest().stream(heights))
    said = Said(capsys, "false.audit", "--genesis", HASH)
    assert said.status == 1
    for word in ("DIVERGES", "at height 3", "leaf code", "'floor'", "up to height 2 holds"):
        assert word in said.out
    found = Said(capsys, "false.audit", "--genesis", HASH, "--json").json
    assert (found["holds"], found["height"], found["transaction"]) == (False, 3, 1)
    assert found["check"] == "decision"
    assert found["differences"][0]["place"] == "leaf code"


def test_what_is_exported_is_audited_alike(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(capsys, "treasury", "--export", "part.audit", "--to", "5", "--json")
    assert said.status == 0
    assert (said.json["heights"], said.json["bytes"]) == (7, Path("part.audit").stat().st_size)
    assert Path("part.audit").stat().st_mode & 0o777 == 0o600
    splitter = Splitter()
    frames = list(splitter.feed(Path("part.audit").read_bytes()))
    assert audit(iter(frames), Wanted(honest().chain)).statement == honest().statement
    again = Said(capsys, "treasury", "--export", "part.audit")
    assert again.status == 2
    assert "already" in again.err


def test_a_kept_audit_goes_on(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = Said(capsys, "treasury", "--to", "2", "--keep", "kept", "--json").json
    assert (first["from"], first["to"]) == (0, 2)
    rest = Said(capsys, "all.audit", "--genesis", HASH, "--keep", "kept", "--json").json
    assert (rest["from"], rest["to"], rest["heights"]) == (3, HEIGHT, 4)
    nothing = Said(capsys, "treasury", "--keep", "kept", "--json")
    assert (nothing.status, nothing.json["heights"]) == (0, 0)


def test_a_known_statement_is_compared(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = statement_of(honest().recorded[2]).hash.hex()
    assert Said(capsys, "treasury", "--trust", f"2:{known}").status == 0
    said = Said(capsys, "treasury", "--trust", f"2:{HASH}")
    assert said.status == 1
    assert "trust" in said.out


BAD = {
    "no file": (("nowhere", "--genesis", HASH), "there is no nowhere"),
    "no genesis": (("all.audit",), "which network"),
    "a hash alone": (("treasury/data", "--genesis", HASH), "does not hold the genesis file"),
    "no hash": (("all.audit", "--genesis", "03ae"), "neither a hash nor a file"),
    "another network": (("all.audit", "--genesis", "00" * 32), "of the network"),
    "another genesis": (("treasury", "--genesis", "00" * 32), "another network"),
    "no audit file": (("treasury/genesis.cbor", "--genesis", HASH), "not an audit file"),
    "no store": ((".", "--genesis", "treasury/genesis.cbor"), "there is no store"),
    "a range": (("treasury", "--from", "5", "--to", "2"), "below"),
    "a height": (("treasury", "--from", "-1"), "no height"),
    "beyond": (("treasury", "--to", "99"), "ends at height 6, before height 99"),
    "a snapshot": (("treasury", "--snapshot", "all.audit"), "manifest"),
    "no snapshot": (("treasury", "--snapshot", "nowhere"), "nowhere"),
    "trust": (("treasury", "--trust", "x:y"), "HEIGHT:HASH"),
    "trust beyond": (("treasury", "--trust", f"99:{HASH}"), "which you trust"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_apart(name: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, expected = BAD[name]
    said = Said(capsys, *words)
    assert said.status == 2
    assert expected in " ".join(said.err.split())
    as_json = Said(capsys, *words, "--json").json
    assert as_json["status"] == 2


def test_a_cut_file_says_where(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Path("all.audit").read_bytes()
    Path("cut.audit").write_bytes(data[:-3])
    said = Said(capsys, "cut.audit", "--genesis", HASH)
    assert said.status == 2
    assert f"offset {len(data) - 3}" in said.err


def test_data_that_cannot_be_read_is_bad_input(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = home / "treasury" / "data" / "state" / "data.mdb"
    store.write_bytes(b"garbage" * 1000)
    said = Said(capsys, "treasury")
    assert said.status == 2
    shutil.rmtree(store.parent)
    assert Said(capsys, "treasury").status == 2


def test_jobs_are_bounded(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(("audit", "treasury", "--jobs", "1000")) == 2


def test_the_page_lists_the_fields(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs/commands.md").read_text(encoding="utf-8")
    section = page.split("## `comity audit`")[1].split("\n## ")[0]
    found = Said(capsys, "treasury", "--json").json
    heights = lied(honest(), 3, 1, "code", [0, None, None])
    Path("false.audit").write_bytes(honest().stream(heights))
    false = Said(capsys, "false.audit", "--genesis", HASH, "--json").json
    for field in (*found, *false, *false["differences"][0]):
        assert f"`{field}`" in section, field
