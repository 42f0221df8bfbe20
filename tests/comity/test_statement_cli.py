"""``comity statement``: shown, written as a text, read back and checked without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from consensus.evidence import tlog
from consensus.protocol import Status
from node.api import heights
from node.api.reading import CannotAnswer
from tests.comity.shell import Shell, shell
from tests.consensus.test_tlog import independent

__all__ = ["shell"]


def test_a_statement_is_shown_with_its_hash(shell: Shell) -> None:
    shell.note(1)
    shell.note(2)
    said = shell("statement", "1", "--json")
    assert said.status == 0
    stated = shell.twin.statements[1]
    assert said.json["hash"] == "0x" + stated.hash.hex()
    assert said.json["certified_at"] > 1
    assert said.json["signers"] == [0, 1, 2]
    people = shell("statement", "1").out
    assert stated.hash.hex() in people
    assert "by 3 validators" in people
    section = page().split("## `comity statement`")[1].split("\n## ")[0]
    assert all(f"`{name}`" in section for name in said.json)


def page() -> str:
    return (Path(__file__).parents[2] / "docs/commands.md").read_text(encoding="utf-8")


def test_a_text_is_written_and_checked_offline(shell: Shell) -> None:
    shell.note(1)
    shell.note(2)
    said = shell("statement", "1", "--tlog", "-o", "1.tlog-proof", "--json")
    assert (said.status, said.json["height"]) == (0, 1)
    data = Path("1.tlog-proof").read_bytes()
    assert said.json["text"].encode() == data
    keys = [each.key for each in shell.twin.genesis.committee.validators]
    assert independent(data, shell.twin.chain, keys, 3)[3] == 1
    printed = shell("statement", "1", "--tlog").out
    assert printed.split("\n")[0] == "comity/tlog-proof@v1"
    checked = shell("statement", "1.tlog-proof", "--server", "nobody", "--json")
    assert checked.status == 0
    assert checked.json["hash"] == "0x" + shell.twin.statements[1].hash.hex()


def test_what_is_not_so_is_refused(shell: Shell) -> None:
    shell.note(1)
    shell.note(2)
    assert shell("statement", "1", "--tlog", "-o", "1.tlog-proof").status == 0
    again = shell("statement", "1", "--tlog", "-o", "1.tlog-proof")
    assert again.status == 2
    text = Path("1.tlog-proof").read_text(encoding="utf-8")
    Path("bad.tlog-proof").write_text(text.replace("index 1", "index 0"), encoding="utf-8")
    said = shell("statement", "bad.tlog-proof")
    assert said.status == 2
    assert "contradict" in said.err
    lines = text.split("\n")
    signed = lines[-2]
    forged = signed[:-8] + ("A" if signed[-8] != "A" else "B") + signed[-7:]
    Path("forged.tlog-proof").write_text(text.replace(signed, forged), encoding="utf-8")
    assert shell("statement", "forged.tlog-proof").status == 1
    for words in (("nowhere",), ("1", "-o", "x"), ("nowhere", "--tlog"), ("9" * 30,)):
        assert shell("statement", *words).status == 2
    Path("long.tlog-proof").write_bytes(b"x" * (tlog.TEXT_BYTES_MAX + 9))
    assert shell("statement", "long.tlog-proof").status == 2


def test_the_newest_height_waits_for_a_later_one(shell: Shell) -> None:
    shell.note(1)
    newest = shell.twin.height
    for height, status, said in (
        (newest, Status.UNAVAILABLE, "no certificate of a height above"),
        (newest + 1, Status.UNAVAILABLE, "is not certified yet"),
        (newest + 65, Status.NOT_FOUND, "there is no height"),
    ):
        with pytest.raises(CannotAnswer, match=said) as caught:
            heights.past(shell.twin, height)
        assert caught.value.status == status
    assert shell("statement", str(newest), "--patience", "0.2").status == 3
