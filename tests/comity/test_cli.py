"""The command line as its users meet it: what is typed, shown and returned."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from comity import keys
from comity.cli.acts import expectation
from comity.cli.app import REFUSED, USAGE, run
from comity.cli.options import UsageError
from consensus.genesis import chain_id
from node.storage.recovery import STORE_FOLDER
from node.storage.store import Store
from tests.comity.shell import Said, Shell, idle_shell, shell

__all__ = ["idle_shell", "shell"]

TXID = "ab" * 32
MODULE = sys.modules["comity.cli.app"]


# --- acting and reading -------------------------------------------------------------------------


def test_submit_shows_the_certified_decision(shell: Shell) -> None:
    said = shell("submit", "notes.write", "number=7", "text=hello", "amount=5")
    assert said.status == 0
    assert "applied" in said.out
    assert "notes.write (rules 1)" in said.out
    assert "note/7: absent" in said.err
    shown = shell("get", "note/7")
    assert shown.status == 0
    assert "hello" in shown.out
    assert "version" in shown.out


def test_submit_in_json_is_the_decision_alone(shell: Shell) -> None:
    said = shell.note(1)
    assert said.err == ""
    assert (said.json["state"], said.json["code"]) == ("applied", "APPLIED")
    again = shell("decision", said.json["txid"], "--json")
    assert again.json == said.json
    assert shell("decision", said.json["txid"].removeprefix("0x")).status == 0


def test_refusal_is_exit_status_1_with_its_reason_in_words(shell: Shell) -> None:
    shell.note(1)
    said = shell("submit", "notes.amend", "note=1", "text=x", "--expect", "note/1=0")
    assert said.status == 1
    assert "refused STALE" in said.out
    assert "note/1 is at version 1 now" in said.out
    refused = shell("submit", "notes.pay", "source=a", "target=b", "amount=0")
    assert refused.status == 1
    assert "the amount is positive (AMOUNT)" in refused.out
    assert shell("decision", _txid(refused.out)).status == 1


def _txid(out: str) -> str:
    return next(line.split()[1] for line in out.splitlines() if line.startswith("transaction"))


def test_dry_run_sends_nothing(shell: Shell) -> None:
    said = shell("submit", "notes.write", "number=1", "text=t", "amount=2", "--dry", "--json")
    assert said.json["inputs"] == {"number": 1, "text": "t", "amount": 2}
    assert said.json["expects"] == [["note/1", 0]]
    assert shell.twin.submissions == []
    assert (
        "not sent" in shell("submit", "notes.write", "number=1", "text=t", "amount=2", "--dry").out
    )


def test_inputs_come_from_a_file_too(shell: Shell) -> None:
    Path("note.json").write_text(json.dumps({"number": 3, "text": "from a file", "amount": 1}))
    assert shell("submit", "notes.write", "@note.json").status == 0
    assert shell("get", "note/3", "--json").json["fields"]["text"] == "from a file"


def test_absent_record_is_proved_and_exit_status_1(shell: Shell) -> None:
    said = shell("get", "note/99", "--json")
    assert (said.status, said.json["present"], said.json["version"]) == (1, False, 0)
    people = shell("get", "note/99").out
    assert "absent" in people
    assert "kind" not in people


def test_an_absent_record_of_a_kind_that_no_rules_have_is_told_apart(shell: Shell) -> None:
    mistyped = shell("get", "nte/99")
    assert (mistyped.status, "nte/99: absent" in mistyped.out) == (1, True)
    assert "no rules in force have it; did you mean note?" in mistyped.out
    assert "no rules in force have it" in shell("get", "xyz/99").out
    assert "did you mean" not in shell("get", "xyz/99").out


def test_several_places_make_an_array(shell: Shell) -> None:
    said = shell("get", "account/pot/a", "account/pot/b", "--json")
    assert said.status == 0
    assert [each["value"][1] for each in said.json] == [1_000_000, 0]
    assert "1000000" in shell("get", "account/pot/a", "account/pot/b").out


def test_list_pages(shell: Shell) -> None:
    for number in (1, 2, 3):
        shell.note(number)
    first = shell("list", "note", "--limit", "2", "--json").json
    assert (first["ids"], first["next"]) == ([[1], [2]], "2")
    second = shell("list", "note", "--after", first["next"], "--json").json
    assert (second["ids"], second["next"]) == ([[3]], None)
    assert "not proved" in shell("list", "note").out


def test_decisions_of_heights_and_refusals_alone(shell: Shell) -> None:
    shell.note(1)
    shell("submit", "notes.pay", "source=a", "target=b", "amount=0")
    said = shell("decisions", "--json")
    rows = said.json
    assert said.status == 0, said
    assert [row["code"] for row in rows] == ["APPLIED", "REQUIREMENT"]
    refused = shell("decisions", "--refused", "--json").json
    assert [row["code"] for row in refused] == ["REQUIREMENT"]
    one = shell("decisions", "--from", str(rows[0]["height"]), "--count", "1", "--json").json
    assert one == rows[:1]
    shown = shell("decisions").out
    assert "notes.write (rules 1)" in shown
    assert "no decision at the heights" in shell("decisions", "--from", "1", "--count", "1").out


def test_holds_are_complete_and_shown(shell: Shell) -> None:
    assert "no hold" in shell("holds", "note/1").out
    placed = shell(
        "submit", "charter.place_hold", 'targets=[["record", ["note", 1]]]',
        'scopes=["edit"]', "legal=Act", "--reason", "inquiry", "--key", "administrator.key",
    )  # fmt: skip
    assert placed.status == 0, placed
    said = shell("holds", "note/1", "--json").json
    assert (said["target"], len(said["holds"])) == ("note/1", 1)
    assert said["holds"][0]["scopes"] == ["edit"]
    assert "north" in shell("holds", "note/1").out
    shell_refused = shell("submit", "notes.write", "number=1", "text=t", "amount=1")
    assert shell_refused.status == 1
    assert "held by 0x" in shell_refused.out


def test_rules_status_committee_and_statements(shell: Shell) -> None:
    assert [row["domain"] for row in shell("rules", "show", "--json").json] == ["charter", "notes"]
    told = shell("rules", "show", "notes").out
    assert "pay" in told
    assert "by role " in told
    assert shell("status", "--json").json["agency"] == "north"
    assert "not proved" in shell("node", "status").out
    committee = shell("committee", "--json").json
    assert (committee["epoch"], committee["quorum"]) == (1, 3)
    shown = shell("committee").out
    assert "epoch 1: 3 of 4 signatures certify" in shown
    statements = shell("statements", "--last", "1", "--json").json
    assert [row["height"] for row in statements] == [shell.twin.height]


def test_stranger_is_told_to_bring_a_key(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMITY_KEY_FILE")
    said = shell("get", "note/1")
    assert said.status == 1
    assert said.err.startswith("error: this needs a key.")
    assert "act with a key: --key or COMITY_KEY_FILE" in said.err
    assert shell("status").status == 0


WORDS_OF_STRANGERS = [
    "get note/1", "authority", "submit notes.write number=1 text=t amount=5", "decisions --last 1"
]  # fmt: skip


@pytest.mark.parametrize("words", WORDS_OF_STRANGERS)
def test_a_key_that_is_nobodys_is_called_that_and_how_to_find_out(
    idle_shell: Shell, words: str
) -> None:
    public = keys.open_pair(Path("stranger.key")).public.hex()
    said = idle_shell(*words.split(), "--key", "stranger.key", "--json")
    assert (said.status, said.json["code"]) == (1, "DENIED")
    assert said.json["error"] == (
        "this key may not do that: it is in force for nobody in this network"
    )
    for part in ("administrator", f"`comity get key/0x{public}`", "--key or COMITY_KEY_FILE"):
        assert part in said.json["hint"]


def test_a_key_that_is_somebodys_is_not_called_nobodys(idle_shell: Shell) -> None:
    said = idle_shell("decisions", "--last", "1", "--key", "citizen.key", "--json")
    assert (said.status, said.json["code"]) == (1, "DENIED")
    assert said.json["error"] == "this key may not do that"
    said = idle_shell("get", "note/1", "--key", "citizen.key", "--json")
    assert said.status == 1
    assert "nobody" not in said.json["error"]
    assert "`comity access`" in said.json["hint"]


STEERING = "a\x1b[31mb\x1b]0;title\x07\x9b2J\u202etxt\u2066\x7f"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def test_texts_of_others_do_not_steer_the_terminal(shell: Shell) -> None:
    txid = shell.note(1, STEERING).json["txid"]
    for words in (
        ("get", "note/1"),
        ("get", "note/1", "--json"),
        ("history", "note/1"),
        ("list", "note", "--fields", "text"),
        ("submit", "notes.amend", "note=1", "text=b", "--dry"),
        ("receipt", txid, "-o", "note.receipt", "--text"),
        ("verify", "note.receipt", "--genesis", "genesis.cbor"),
        ("decisions",),
        ("submit", f"notes.{STEERING}"),
        ("submit", f"notes.{STEERING}", "--json"),
    ):
        said = shell(*words)
        assert OBEYED.findall(said.out + said.err) == [], words
    assert "a\\x1b[31mb\\x1b]0;title" in shell("get", "note/1").out
    assert "\\x9b2J\\u202etxt\\u2066\\x7f" in shell("get", "note/1").out
    assert shell("get", "note/1", "--json").json["fields"]["text"] == STEERING


# --- bad input ------------------------------------------------------------------------------------

BAD: list[tuple[str, int, str]] = [
    ("netwrk", 2, "there is no command 'netwrk'. Did you mean \"network\"?"),
    ("keys frob", 2, "there is no command 'frob'"),
    ("get", 2, "no place is named"),
    ("get note", 2, "names a kind and no id"),
    ("get note/[", 2, "brackets or quotes do not match"),
    ("get 7/note", 2, "does not begin with a kind"),
    ("get note//7", 2, "a part of an id is empty"),
    ("get note/0xzz", 2, "is not hex"),
    ("get note/7 --frob", 2, "Unknown option: --frob"),
    ("get note/7 --server nobody", 2, "no agency 'nobody' has a node"),
    ("get note/7 --genesis missing", 2, "cannot read the genesis file missing"),
    ("get note/7 --genesis official.key", 2, "is no genesis file"),
    ("get note/7 --key missing", 2, "cannot read missing"),
    ("get note/7 --key open.key", 2, "can be read by others"),
    ("get note/7 --key garbage.key", 2, "garbage.key"),
    ("get note/7 --patience 0", 2, "--patience is more than 0"),
    ("get note/7 --patience x", 2, "--patience"),
    ("get pool", 2, "names a kind and no id"),
    ("list note --limit 0", 2, "is not between 1 and 1000"),
    ("list note extra", 2, "'extra' is more than was expected"),
    ("list", 2, "KIND requires an argument"),
    ("list nothing", 2, "no domain has a kind 'nothing'"),
    ("holds note", 2, "names a kind and no id"),
    ("decision 00", 2, "is no transaction id"),
    (f"decision {TXID}", 1, "no decision on this transaction is here"),
    ("decisions --last 0", 2, "is not between 1 and 64"),
    ("decisions --last 65", 2, "is not between 1 and 64"),
    ("decisions --last 1 --from 1", 2, "exclude each other"),
    ("decisions --count 1", 2, "--count goes with --from"),
    ("decisions --from -1", 2, "--from"),
    ("statements --from 1 --count 0", 2, "is not between 1 and 64"),
    ("rules show nothing", 1, "no domain 'nothing' has rules here"),
    ("rules show note", 1, "did you mean notes?"),
    ("rules check", 2, "no file is named"),
    ("rules check missing.toml", 2, "missing.toml: No such file"),
    ("rules check binary.toml", 2, "is not text in UTF-8"),
    ("submit", 2, "ACTION requires an argument"),
    ("submit pay", 2, "is not domain.action"),
    ("submit notes.pax", 2, "did you mean pay?"),
    ("submit note.pay", 2, "did you mean notes?"),
    ("submit notes.pay frob", 2, "is not name=value"),
    ("submit notes.pay source=a source=b", 2, "is given twice"),
    ("submit notes.pay sorce=a target=b amount=1", 2, "did you mean source?"),
    ("submit notes.pay source=a", 2, "needs the input"),
    ("submit notes.pay source=a target=b amount=1.5", 2, "write minor units as digits"),
    ("submit notes.pay @missing.json", 2, "missing.json: No such file"),
    ("submit notes.pay @list.json", 2, "does not hold an object"),
    ("submit notes.pay @binary.toml", 2, "is not JSON"),
    ("submit notes.amend note=1 text=x --expect note/1", 2, "is not kind/id=version"),
    ("submit notes.pay source=a target=b amount=1 --under 12", 2, "is no id of a grant"),
    ("keys show missing.key", 2, "cannot read missing.key"),
    ("keys new official.key", 2, "exists already"),
    ("keys new no/such/folder.key", 2, "cannot write no/such/folder.key"),
    ("keys new a.key --kind other", 2, "--kind"),
    ("node check missing.toml", 2, "missing.toml"),
    ("node run missing.toml", 2, "missing.toml"),
    ("network init --rules missing", 2, "there is no folder missing of rule sets"),
    ("network init --rules empty", 2, "holds no rule sets"),
    ("network init --rules .", 2, "binary.toml is not text in UTF-8"),
    ("completion ksh", 2, "ksh"),
]


@pytest.mark.parametrize(("words", "status", "said"), BAD, ids=[row[0] or "-" for row in BAD])
def test_bad_input_is_one_clear_sentence(
    idle_shell: Shell, words: str, status: int, said: str
) -> None:
    Path("open.key").write_bytes(Path("official.key").read_bytes())
    Path("open.key").chmod(0o644)
    Path("garbage.key").write_bytes(b"garbage")
    Path("garbage.key").chmod(0o600)
    Path("binary.toml").write_bytes(b"\xff\xfe\x00")
    Path("list.json").write_text("[1]")
    Path("empty").mkdir()
    found = idle_shell(*words.split())
    assert (found.status, found.out) == (status, ""), found
    assert said in found.err
    lines = found.err.splitlines()
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("hint:  ")
    assert len(lines) == 2


def test_no_more_of_a_file_is_read_than_can_be_meant(
    idle_shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comity.files.TEXT_CHARACTERS_MAX", 1000)
    for words, what in (
        (("rules", "check", "/dev/zero"), "TOML"),
        (("submit", "notes.write", "@/dev/zero"), "JSON"),
    ):
        found = idle_shell(*words, "--json")
        assert (found.status, found.json["hint"]) == (2, f"name a file in {what}")
        assert found.json["error"] == "/dev/zero is longer than 1000 characters"


LONG = "x" * 65
WRONG_VALUES: list[tuple[str, str, str]] = [
    ("get agency", "'agency' names no id", "write agency/id"),
    ("rules check /dev/zero", "/dev/zero is longer than 67108864 characters", "a file in TOML"),
    ("get note/\udcff", "a word of the command is not text in UTF-8", "in UTF-8"),
    ("list \udcff", "a word of the command is not text in UTF-8", "in UTF-8"),
    ("get note/9223372036854775808", "9223372036854775808 is beyond 64 bits", 'as "…"'),
    ("get " + "/".join(["note", *"12345678901234567"]), "items, allowed 0..16", "too long"),
    ("list note --limit 0", "is not between 1 and 1000", "`comity list --help` has examples"),
    (f"list {LONG}", "65 bytes of text, allowed 1..64", "is empty, too long or beyond"),
    (f"proposals {LONG}", "65 bytes of text, allowed 1..64", "is empty, too long or beyond"),
    ("rules diff notes#x notes", "'notes#x' names no rule set", "DOMAIN#2"),
    ("rules test binary.toml binary.toml", "binary.toml is not text in UTF-8", "a file in TOML"),
    ("submit notes.pay source=a target=b amount=9223372036854775808", "is no money", "64 bits"),
    ("submit notes.write @big.json", "9223372036854775808 is beyond 64 bits", 'as "…"'),
    (f"get note/7 --purpose {LONG * 4}", "a purpose has at most 256 bytes", "in fewer words"),
    ("statement binary.toml", "binary.toml: tlog: offset 0: not UTF-8", "a whole file"),
    ("audit binary.toml --genesis genesis.cbor", "binary.toml: offset 0: not an aud", "--export`"),
    ("rules check rules.toml --with nowhere", "there is no folder nowhere", "--with"),
    ("rules test rules.toml rules.toml", "unknown field `domain`", "docs/rules.md"),
    ("submit notes.amend note=1 text=x --expect note/1=9223372036854775808", "is not kind/", "=2"),
    ("submit notes.amend note=1 text=x --expect account/x=1", "has no versions", "leave it out"),
    ("devnet .", ". has a genesis file and no folder of north's node", "name a new folder"),
]

NOT_THERE: list[tuple[str, str, str]] = [
    ("get committee/x/y --at 99", "height 99 is not certified yet", "the newest one is 1"),
    ("history note/1 --from 99", "height 99 is not certified yet", "the newest one is 1"),
    ("rules show notes 0", "there is no rule set notes#0", "`comity rules history notes` lists"),
    ("rules show notes -1", "there is no rule set notes#-1", "`comity rules history notes` lists"),
    ("rules diff notes#0 notes", "'notes#0' is neither a file nor a rule set here", "history"),
]
ROWS = [*((USAGE, *row) for row in WRONG_VALUES), *((REFUSED, *row) for row in NOT_THERE)]


@pytest.mark.parametrize(("status", "words", "said", "hint"), ROWS, ids=[r[1][:40] for r in ROWS])
def test_wrong_values_are_named_with_what_to_write_instead(
    idle_shell: Shell, status: int, words: str, said: str, hint: str
) -> None:
    Path("binary.toml").write_bytes(b"\xff\xfe\x00")
    Path("rules.toml").write_text('domain = "x"\n')
    Path("big.json").write_text('{"number": 9223372036854775808, "text": "a", "amount": 5}')
    found = idle_shell(*words.split())
    assert (found.status, found.out) == (status, ""), found
    error, advice = found.err.splitlines()
    assert said in error
    assert hint in advice


def test_places_of_the_kernel_without_an_id_are_shown(idle_shell: Shell) -> None:
    assert "absent" in idle_shell("get", "committee").out
    assert "[charter, notes]" in idle_shell("get", "rules").out


@pytest.mark.parametrize("words", ["get note", "netwrk", "decision 00", f"decision {TXID}"])
def test_errors_are_json_for_programs(idle_shell: Shell, words: str) -> None:
    found = idle_shell(*words.split(), "--json")
    assert set(found.json) == {"error", "code", "hint", "status"}
    assert found.json["status"] == found.status
    assert found.err == ""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (f"decision {TXID}", "NOT_FOUND"),
        ("decisions --last 1 --key stranger.key", "DENIED"),
    ],
)
def test_a_refusal_of_a_node_has_the_nodes_code(shell: Shell, words: str, code: str) -> None:
    found = shell(*words.split(), "--json")
    assert (found.json["code"], found.json["status"], found.status) == (code, 1, 1)


def test_unreachable_nodes_are_exit_status_3(
    idle_shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(idle_shell.folder)
    found = idle_shell("status", "--patience", "0.2", "--server", "north=127.0.0.1:1")
    assert found.status == 3
    assert "north at 127.0.0.1:1: nothing listens there" in found.err


def test_own_bugs_are_told_without_traceback(
    idle_shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(MODULE, "_load", broken)
    found = idle_shell("status")
    assert found.status == 1
    assert "an error of this program: ZeroDivisionError: oops" in found.err
    with pytest.raises(ZeroDivisionError):
        run(["status", "--debug"])


def test_interrupt_is_exit_status_130(idle_shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise BaseExceptionGroup("tasks", [BaseExceptionGroup("more", [KeyboardInterrupt()])])

    monkeypatch.setattr(MODULE, "_load", interrupted)
    found = idle_shell("status")
    assert (found.status, found.out, found.err) == (130, "", "")


# --- founding, keys, rules ------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]
RULES = ROOT / "configs" / "rules"


@pytest.mark.parametrize("size", [4, 5, 7])
def test_network_of_any_size_is_founded(idle_shell: Shell, size: int) -> None:
    said = idle_shell("network", "init", "--rules", str(RULES), "--size", str(size), "--json")
    assert said.status == 0, said
    assert len(said.json["nodes"]) == size
    ports = {node["clients"] for node in said.json["nodes"].values()}
    assert len(ports) == size
    for agency, node in said.json["nodes"].items():
        assert Path(node["config"]) == Path("network") / agency / "node.toml"
        for file in Path(node["keys"]).iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Path(said.json["genesis"]).exists()


def test_a_wrong_number_of_agencies_and_a_name_twice_have_hints_of_their_own(
    idle_shell: Shell,
) -> None:
    few = idle_shell("network", "init", "--rules", str(RULES), "--agencies", *"abc")
    many = idle_shell("network", "init", "--rules", str(RULES), "--size", "65")
    twice = idle_shell("network", "init", "--rules", str(RULES), "--agencies", *"abcc")
    assert "not a single faulty node" in few.err
    assert "64" in many.err.partition("hint")[2]
    assert "a name of its own" in twice.err


def test_agencies_are_named_in_one_go(idle_shell: Shell) -> None:
    words = ["network", "init", "--rules", str(RULES), "-o", "here", "--agencies", *"abcd"]
    said = idle_shell(*words)
    assert said.status == 0
    assert sorted(p.name for p in Path("here").iterdir()) == ["a", "b", "c", "d", "genesis.cbor"]
    assert "next: comity devnet here --stay" in said.out
    again = idle_shell(*words)
    assert (again.status, "here is not empty" in again.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--agencies", *"abc"], "3 agencies; a network has 4 to 64"),
        (["--size", "65"], "65 agencies"),
        (["--size", "-1"], "0 agencies"),
        (["--agencies", *"abcc"], "two agencies share one name"),
        (["--agencies", "a", "b", "c", "d d"], "'d d' is no name of an agency"),
        (["--agencies", "a", "b", "c", "_d"], "'_d' is no name of an agency"),
        (["--agencies", "a", "b", "c", "d" * 65], "d' is no name of an agency"),
        (["--agencies", *"abcd", "--size", "5"], "--size 5, but 4 agencies are named"),
        (["--tree-depth", "7"], "a tree of 7 bits cannot be"),
        (["--tree-depth", "40"], "a tree of 40 bits cannot be"),
        (["--base-port", "65530"], "ports from 65530 up do not all exist"),
        (["--base-port", "x"], "--base-port"),
        (["--plan", "missing"], "missing: No such file"),
        (["--plan", "bad.toml"], "bad.toml:1: Object contains unknown field `person`"),
        (["--plan", "outside.toml"], "outside.toml:3: '../../x' is no name of a key file"),
        (["--plan", "money.toml"], "money.toml:3: no rule set has an account family 'pot'"),
        (["--plan", "worse.toml"], "worse.toml:6: Object contains unknown field `rolls`"),
        (["--plan", "worst.toml"], "worst.toml:2: Expected `str`, got `int`"),
    ],
)
def test_network_that_cannot_be_is_refused_and_leaves_nothing(
    idle_shell: Shell, words: list[str], said: str
) -> None:
    Path("bad.toml").write_text("[[person]]\nname = 'a'")
    Path("worse.toml").write_text("\n\n[[people]]\nname = 'a'\nagency = 'b'\nrolls = []\n")
    Path("outside.toml").write_text("\n[[people]]\nname = '../../x'\nagency = 'treasury'\n")
    Path("money.toml").write_text("\n[[accounts]]\naccount = ['pot']\nbalance = 1\n")
    Path("worst.toml").write_text("[[people]]\nname = 1\n")
    found = idle_shell("network", "init", "--rules", str(RULES), *words)
    assert found.status == 2, found
    assert said in found.err
    assert not Path("network").exists()


@pytest.mark.parametrize("command", ["network init -o net", "devnet net"])
def test_a_plan_with_people_of_an_agency_that_is_not_named_is_refused(
    idle_shell: Shell, command: str
) -> None:
    Path("plan.toml").write_text(
        "[[people]]\nname = 'ada'\nagency = 'audit'\n[[people]]\nname = 'bo'\nagency = 'social'\n"
    )
    found = idle_shell(*command.split(), "--rules", str(RULES), "--plan", "plan.toml")
    assert found.status == 2, found
    assert (
        "plan.toml:6: bo is of agency 'social', which this network does not have "
        "(treasury, registry, benefits, audit)" in found.err
    )
    assert "name the agencies with --agencies" in found.err.partition("hint")[2]
    assert not Path("net").exists()


def test_devnet_refuses_to_found_a_network_anew(idle_shell: Shell) -> None:
    Path("net").mkdir()
    Path("net/genesis.cbor").write_bytes(Path("genesis.cbor").read_bytes())
    found = idle_shell("devnet", "net", "--size", "5")
    assert found.status == 2
    assert "net holds a network already" in found.err
    hint = found.err.partition("hint")[2]
    assert "`comity devnet net --stay` goes on with it" in hint
    assert "name a new folder" in hint


def test_devnet_leaves_a_network_that_runs_alone(idle_shell: Shell) -> None:
    assert idle_shell("network", "init", "-o", "net", "--rules", str(RULES)).status == 0
    data = Path("net/registry/data")
    data.mkdir(mode=0o700)
    chain = chain_id(Path("net/genesis.cbor").read_bytes())
    running = Store.open(data / STORE_FOLDER, chain=chain, map_bytes=2**22)
    try:
        found = idle_shell("devnet", "net", "--stay")
    finally:
        running.close()
    assert found.status == 1, found
    assert "a network runs from net already: the node of registry (process" in found.err
    assert f"uses {data.resolve()}" in found.err
    assert "stop it, or use it as it is: `comity status --genesis net`" in found.err
    assert found.out == ""
    assert list(Path("net").glob("*/node.log")) == []


def test_of_two_devnets_of_one_folder_that_begin_at_once_one_goes_on(
    idle_shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[Said] = []

    async def begun(*_: object) -> None:
        others.append(idle_shell("devnet", "new/net", "--rules", str(RULES)))

    monkeypatch.setattr("comity.cli.devnet._run", begun)
    for times in (1, 2):  # founding it, and going on with it
        assert (
            idle_shell("devnet", "new/net", *["--rules", str(RULES)][: 4 - 2 * times]).status == 0
        )
        assert len(others) == times
        assert others[-1].status == 1
        said = others[-1].err
        assert (
            f"a network runs from new/net already: `comity devnet` (process {os.getpid()}" in said
        )
        assert "stop it, or use it as it is: `comity status --genesis new/net`" in said
    kept = sorted(Path("new/net").rglob("*"))
    assert idle_shell("devnet", "new/other", "--rules", "nowhere").status == 2
    assert idle_shell("devnet", "newer/net", "--rules", "nowhere").status == 2
    assert [*Path("new").iterdir()] == [Path("new/net")]
    assert sorted(Path("new/net").rglob("*")) == kept
    assert not Path("newer").exists()


HOLDS = """
import sys, time
from pathlib import Path
from comity.cli.devnet import _alone
with _alone(Path(sys.argv[1])):
    print("has it", flush=True)
    time.sleep(600)
"""


@pytest.mark.process
def test_a_devnet_that_was_killed_leaves_its_folder_free(
    idle_shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def begun(*_: object) -> None: ...

    monkeypatch.setattr("comity.cli.devnet._run", begun)
    line = [sys.executable, "-c", HOLDS, str(Path("net").resolve())]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=ROOT) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "has it\n"
        taken = idle_shell("devnet", "net", "--rules", str(RULES))
        holder.kill()
    assert (taken.status, f"(process {holder.pid}" in taken.err) == (1, True)
    assert idle_shell("devnet", "net", "--rules", str(RULES)).status == 0


def test_keys_are_made_and_shown(idle_shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    made = idle_shell("keys", "new", "mine.key", "--json")
    assert made.status == 0
    assert stat.S_IMODE(os.stat("mine.key").st_mode) == 0o600
    assert idle_shell("keys", "show", "mine.key", "--json").json == made.json
    assert made.json["public"] in idle_shell("keys", "show", "mine.key").out
    monkeypatch.setattr("comity.cli.keys.getpass", lambda prompt: "a passphrase")
    sealed = idle_shell("keys", "new", "sealed.key", "--seal", "--json")
    assert sealed.json["sealed"] is True
    monkeypatch.setenv("COMITY_KEY_PASSPHRASE", "another")
    found = idle_shell("get", "note/1", "--key", "sealed.key")
    assert (found.status, "sealed.key" in found.err) == (2, True)


def test_passphrases_that_differ_make_no_key(
    idle_shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["one", "two"])
    monkeypatch.setattr("comity.cli.keys.getpass", lambda prompt: next(answers))
    found = idle_shell("keys", "new", "sealed.key", "--seal")
    assert (found.status, "differ" in found.err) == (2, True)
    assert not Path("sealed.key").exists()


def test_rules_are_checked_with_line_and_reason(idle_shell: Shell) -> None:
    good = sorted(str(path) for path in RULES.glob("*.toml"))
    assert "the rules hold" in idle_shell("rules", "check", *good).out
    [identity] = [path for path in good if path.endswith("identity.toml")]
    assert idle_shell("rules", "check", identity).out.strip() == "the rules hold"
    text = (RULES / "payments.toml").read_text()
    Path("payments.toml").write_text(text.replace("require = [", "requires = [", 1))
    found = idle_shell("rules", "check", "payments.toml", "--with", str(RULES), "--json")
    assert found.status == 1
    problem = next(row for row in found.json if row["kind"] == "problem")
    assert problem["line"] > 0
    assert "requires" in problem["what"]
    assert (
        "payments.toml" in idle_shell("rules", "check", "payments.toml", "--with", str(RULES)).out
    )


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_knows_the_commands(idle_shell: Shell, name: str) -> None:
    said = idle_shell("completion", name)
    assert said.status == 0
    assert "comity" in said.out


@pytest.mark.parametrize("version", ["9" * 20, "9" * 5000, "9223372036854775808", "", "two"])
def test_version_that_no_place_can_have_is_refused_in_words(version: str) -> None:
    """Python itself refuses to read more than 4,300 digits."""
    with pytest.raises(UsageError, match="is not kind/id=version"):
        expectation(f"note/7={version}")


@pytest.mark.parametrize("digits", ["9" * 20, "9" * 5000])
def test_height_that_no_network_has_is_refused_in_words(idle_shell: Shell, digits: str) -> None:
    said = idle_shell("statement", digits)
    assert (said.status, said.out) == (2, "")
    assert "is no height" in said.err
