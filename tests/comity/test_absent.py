"""What a command is told to look at, or to act on, and is not there: one exit status for all.

What the ledger does not have is 1: a record, proposal, principal, rule set or height, whether a
proof says so, a node, or a certified refusal. Words that the rules in force do not know, and files
that are not there, are 2: the command line cannot be carried out as it was written. A list of
nothing is done: 0. Every command that asks the network is in one of the tables.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from comity.cli.app import DONE, REFUSED, USAGE
from consensus.ledger.rules import encode_definition, load_toml
from tests.comity.shell import Shell, open_shell
from tests.comity.test_commands_page import COMMANDS
from tests.comity.twin import RULES, Twin, make_genesis

ROOT = Path(__file__).parents[2]
CHARTER = ROOT / "configs" / "rules" / "charter.toml"
ID = "0x" + "c" * 64
OPEN = "--field text --to party:Court --purpose p --legal l --until 2027-01-01 -o new"

ABSENT = [
    "network leave nobody",
    "network object 7",
    "rules show nothing",
    "rules show notes 7",
    "rules show notes 0",
    "rules activate nothing 1 --from 2027-01-01T00:00Z",
    "rules activate notes 7 --from 2027-01-01T00:00Z",
    "rules object notes 7",
    "rules withdraw notes 7",
    "rules history nothing",
    "rules diff nothing notes",
    "rules diff notes notes#7",
    "feed parquet --from 99 --once -o new",
    "submit notes.close note=7",
    "simulate notes.close note=7",
    "requirements notes.close note=7",
    "propose notes.close note=7",
    f"reverse {ID} --yes",
    "get note/7",
    "get nothing/7",
    "get account/pot/nobody",
    "get note/7 --at 0",
    "get note/7 --at 99",
    "get note/7 --at 2020-01-01",
    "history note/7",
    "history note/7 --from 99",
    f"decision {ID}",
    "statement 99",
    f"authority {ID}",
    f"access {ID} note/7",
    f"proposal {ID}",
    "proposals nobody",
    f"approve {ID}",
    f"object {ID} because",
    f"withdraw {ID}",
    f"redraft {ID} --yes",
    f"disclose note 7 {OPEN}",
    f"disclosed {ID} -o new",
    f"review {ID} --justified",
    "erase note/7 secret --agency north --legal l",
    f"bundle {ID} -o new",
    f"receipt {ID} -o new",
]
"""Lines that name one thing which the ledger does not have."""

WORDS = [
    "network propose-member nothing.member",
    "network rotate nowhere",
    "rules propose nothing.toml",
    "rules diff nothing.toml notes",
    "rules diff notes#x notes",
    "submit nothing.close note=7",
    "submit notes.nothing note=7",
    "submit notes.close nothing=7",
    "simulate notes.nothing",
    "requirements notes.nothing",
    "propose notes.nothing",
    "cosign nothing.cbor",
    "send nothing.cbor",
    "get note/7 --server nobody",
    "list nothing",
    "list nothing --by owner=7",
    "list nothing --fields text",
    "list note --by text=7",
    "list note --fields nothing",
    f"disclose nothing 7 {OPEN}",
    f"disclose note 7 {OPEN.replace('text', 'nothing')}",
    "erase nothing/7 secret --agency north --legal l",
    "erase note/7 nothing --agency north --legal l",
    "reviews nothing.chief",
    "audit nobody --genesis genesis.cbor",
]
"""Lines with a word that the rules in force do not know, or a file or server that is not there."""

NOTHING = [
    "list note",
    "list note --by owner=" + ID,
    "holds note/7",
    "holds domain/nothing",
    "decisions --from 99",
    "statements --from 99",
    "reads note/7",
    "pending",
    "proposals north",
    "disclosures",
]
"""Lists, which may be empty."""

ASK_FOR_NOTHING = {
    "network members",
    "network admit",
    "status",
    "node status",
    "committee",
    "keys check",
    "feed postgres",
    "feed check parquet",
    "feed check postgres",
}
"""Commands that ask the network and name nothing in it which would have to be there."""


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """A shell on a ledger under the whole charter, which all tests here share."""
    return open_shell(_twin(), tmp_path, monkeypatch, capsys)


@cache
def _twin() -> Twin:
    secret = 'fields.secret = { type = "text", sealed_for = ["north"], optional = true }'
    rules = RULES.replace("[kinds.note]", f"[kinds.note]\n{secret}")
    texts = (CHARTER.read_text(encoding="utf-8"), rules)
    encoded = tuple(encode_definition(load_toml(text)) for text in texts)
    return Twin(replace(make_genesis(), rules=encoded))


@pytest.mark.parametrize("line", ABSENT)
def test_what_the_ledger_does_not_have_is_status_1(shell: Shell, line: str) -> None:
    found = shell(*line.split(), "--json")
    assert found.status == REFUSED, found
    said = found.json
    assert said.get("code", "NOT_FOUND") != "USAGE", said
    if "error" in said:
        assert (said["status"], said["code"]) == (REFUSED, "NOT_FOUND"), said
        assert said["hint"]
    assert not Path("new").is_file()


@pytest.mark.parametrize("line", WORDS)
def test_words_and_files_that_nobody_knows_are_status_2(shell: Shell, line: str) -> None:
    found = shell(*line.split(), "--json")
    assert found.status == USAGE, found
    assert found.json["status"] == USAGE
    assert found.json["hint"]


@pytest.mark.parametrize("line", NOTHING)
def test_a_list_of_nothing_is_status_0(shell: Shell, line: str) -> None:
    found = shell(*line.split(), "--json")
    assert found.status == DONE, found


@pytest.mark.parametrize(
    ("words", "said", "do"),
    [
        ("nothing/7 secret", "no domain has a kind 'nothing'", "there are note, person"),
        ("note/7 secrte", "note has no field 'secrte'", "did you mean secret?"),
        ("note/7 secret text", "text is not sealed", "sealed are secret"),
        ("person/7 name", "name is not sealed", "person has no sealed field"),
    ],
)
def test_what_is_not_sealed_is_not_sent_to_be_erased(
    shell: Shell, words: str, said: str, do: str
) -> None:
    sent = len(shell.twin.submissions)
    found = shell("erase", *words.split(), "--agency", "north", "--legal", "l", "--json")
    assert (found.status, found.json["code"]) == (USAGE, "BAD_DRAFT")
    assert said in found.json["error"]
    assert do in found.json["hint"]
    assert len(shell.twin.submissions) == sent
    named_twice = shell(*"erase note/7 secret secret --agency north --legal l --json".split())
    assert named_twice.json["state"] == "refused"
    assert named_twice.json["code"] != "BAD_INPUT"
    assert len(shell.twin.submissions) == sent + 1


def test_every_command_that_asks_the_network_is_in_a_table() -> None:
    asking = {name for name in COMMANDS if _asks(name)}
    lines = [f"{line} " for line in (*ABSENT, *WORDS, *NOTHING, *ASK_FOR_NOTHING)]
    told = {name for name in asking if any(line.startswith(f"{name} ") for line in lines)}
    assert asking - told == set()


def _asks(name: str) -> bool:
    collection = COMMANDS[name].assemble_argument_collection(parse_docstring=True)
    return any("--patience" in argument.names for argument in collection)
