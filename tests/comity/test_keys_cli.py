"""``comity keys`` on key files: passphrases put on, changed, taken off, and every wrong input."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from comity import keys
from comity.cli.app import run
from consensus import keyfile
from consensus.keyfile import KeyKind, KeyPair
from tests.comity.shell import Said, Shell, idle_shell

__all__ = ["idle_shell"]

PAIR = keyfile.from_seed(KeyKind.VALIDATOR, bytes(range(32)))

Words = Callable[..., Said]


@pytest.fixture
def words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Words:
    """Runs ``comity keys …`` in an empty folder, with nobody to ask and passphrases that are
    stretched in no time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keyfile.seal, "__kwdefaults__", {"operations": 1, "memory_kib": 8})
    for name in ("COMITY_KEY_PASSPHRASE", "COMITY_KEY_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: str) -> Said:
        capsys.readouterr()
        status = run(["keys", *arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Said(status, out, " ".join(err.split()))

    return call


def made(name: str, passphrase: str | None = None, pair: KeyPair = PAIR) -> Path:
    keys.create(Path(name), pair, passphrase)
    return Path(name)


def line(name: str, text: str) -> str:
    Path(name).write_text(text + "\n")
    Path(name).chmod(0o600)
    return name


def opens(path: Path, passphrase: str | None) -> bool:
    try:
        return keyfile.read(path.read_bytes(), passphrase) == PAIR
    except keyfile.PassphraseError:
        return False


def answers(monkeypatch: pytest.MonkeyPatch, *given: str) -> Iterator[str]:
    rest = iter(given)
    monkeypatch.setattr("comity.cli.keys.getpass", lambda prompt: next(rest))
    return rest


def test_a_passphrase_is_put_on_changed_and_taken_off_and_the_key_stays(words: Words) -> None:
    path = made("v.key")
    said = words("passphrase", "v.key", "--new-passphrase-file", line("one", "first"), "--json")
    assert (said.status, said.json["sealed"], said.json["public"]) == (
        0,
        True,
        f"0x{PAIR.public.hex()}",
    )
    assert opens(path, "first")
    assert not opens(path, None)
    new = line("two", "second")
    said = words("passphrase", "v.key", "--passphrase-file", "one", "--new-passphrase-file", new)
    assert said.status == 0
    assert (opens(path, "first"), opens(path, "second")) == (False, True)
    said = words("passphrase", "v.key", "--passphrase-file", "two", "--remove", "--json")
    assert (said.status, said.json["sealed"]) == (0, False)
    assert opens(path, None)
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(each.name for each in Path().iterdir()) == ["one", "two", "v.key"]


def test_a_new_passphrase_is_asked_for_twice(words: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made("v.key")
    answers(monkeypatch, "one", "another")
    said = words("passphrase", "v.key")
    assert (said.status, "differ" in said.err) == (2, True)
    assert opens(path, None), "nothing has changed"
    answers(monkeypatch, "one", "one")
    assert words("passphrase", "v.key").status == 0
    assert opens(path, "one")


@pytest.mark.parametrize("command", ["check", "passphrase"])
def test_a_wrong_or_missing_passphrase_changes_nothing(words: Words, command: str) -> None:
    path = made("v.key", "right")
    before = path.read_bytes()
    rest = ["--remove"] if command == "passphrase" else []
    said = words(command, "v.key", "--passphrase-file", line("bad", "wrong"), *rest)
    assert (said.status, "v.key: the passphrase does not open the key file" in said.err) == (
        2,
        True,
    )
    said = words(command, "v.key", *rest)
    assert (said.status, "no passphrase was given" in said.err) == (2, True)
    assert "COMITY_KEY_PASSPHRASE" in said.err
    assert path.read_bytes() == before


def test_the_environment_gives_the_passphrase_or_names_its_file(
    words: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    made("v.key", "right")
    monkeypatch.setenv("COMITY_KEY_PASSPHRASE_FILE", line("pass", "right"))
    assert words("check", "v.key").status == 0
    monkeypatch.setenv("COMITY_KEY_PASSPHRASE", "wrong")
    assert words("check", "v.key").status == 2, "the variable goes before the file"


def test_check_tells_what_a_key_is_and_whose(words: Words) -> None:
    made("v.key", "right")
    said = words("check", "v.key", "--passphrase-file", line("pass", "right"), "--json")
    assert said.json == {
        "file": "v.key",
        "kind": "validator",
        "public": f"0x{PAIR.public.hex()}",
        "sealed": True,
        "opens": True,
    }


def test_a_vaults_line_of_text_is_a_key_and_can_be_sealed(words: Words) -> None:
    path = Path("sealed.key")
    line("sealed.key", "comity sealed key 1\n" + "ab" * 32)
    assert words("show", "sealed.key", "--json").json["kind"] == "vault"
    said = words("passphrase", "sealed.key", "--new-passphrase-file", line("one", "first"))
    assert said.status == 0
    assert keyfile.read(path.read_bytes(), "first").seed == b"\xab" * 32


@pytest.mark.parametrize("kind", sorted(set(KeyKind) - {KeyKind.CLIENT}))
@pytest.mark.parametrize("named", ["option", "environment"])
def test_a_key_of_another_kind_is_not_acted_with(
    idle_shell: Shell, monkeypatch: pytest.MonkeyPatch, kind: KeyKind, named: str
) -> None:
    pair = keyfile.from_seed(kind, bytes([50]) * 32)  # the official's, had it been a client key
    sealed = keyfile.seal(pair, "x", salt=bytes(16), nonce=bytes(24), operations=1, memory_kib=8)
    monkeypatch.setattr("comity.cli.options.ask_passphrase", lambda path: pytest.fail("asked"))
    for name, data in (("open.key", keyfile.pack(pair)), ("under.key", sealed)):
        Path(name).touch(0o600)
        Path(name).write_bytes(data)
        option = ["--key", name] if named == "option" else []
        if not option:
            monkeypatch.setenv("COMITY_KEY_FILE", name)
        said = idle_shell("get", "note/1", *option, "--json")
        wanted = f"{name} holds a {kind} key, a client key is needed"
        assert (said.status, said.json["error"]) == (2, wanted)
        assert "--key or COMITY_KEY_FILE" in said.json["hint"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "gone.key"], "cannot read gone.key: No such file or directory"),
        (["show", "gone.key"], "cannot read gone.key: No such file or directory"),
        (["passphrase", "gone.key", "--remove"], "cannot read gone.key: No such file or directory"),
        (["check", "."], "cannot read .: Is a directory"),
        (["check", "wide.key"], "wide.key can be read by others"),
        (["check", "text.key"], "text.key is no key file"),
        (["show", "node.toml"], "node.toml is no key file"),
        (["show", "genesis.cbor"], "genesis.cbor is no key file"),
        (["show", "cut.key"], "cut.key: key file: not CBOR"),
        (["check", "v.key", "--genesis", "gone"], "cannot use the genesis file gone"),
        (["check", "v.key", "--genesis", "text.key"], "cannot use the genesis file text.key"),
        (["new", "v.key"], "v.key exists already"),
        (["new", "no/v.key"], "cannot write no/v.key: No such file or directory"),
        (["new", "x.key", "--passphrase-file", "gone"], "cannot read gone"),
        (["new", "x.key", "--passphrase-file", "wide.pass"], "wide.pass can be read by others"),
        (["new", "x.key", "--passphrase-file", "empty"], "empty: a passphrase is one line"),
        (["passphrase", "v.key", "--new-passphrase-file", "gone"], "cannot read gone"),
        (["passphrase", "v.key", "--remove", "--new-passphrase-file", "empty"], "contradict"),
    ],
)
def test_bad_input_is_one_sentence_of_what_and_one_of_what_to_do(
    words: Words, arguments: list[str], said: str
) -> None:
    made("v.key")
    made("wide.key").chmod(0o644)
    line("text.key", "no key at all")
    Path("node.toml").write_text("# comity keys new made a comity key\n" * 1000)
    Path("node.toml").chmod(0o644)
    Path("genesis.cbor").write_bytes(b"\xa2\x65magic\x6ecomity genesis\x67version\x01")
    Path("genesis.cbor").chmod(0o644)
    whole = made("cut.key").read_bytes()
    Path("cut.key").write_bytes(whole[:-3])
    line("wide.pass", "x")
    Path("wide.pass").chmod(0o640)
    line("empty", "")
    before = {each.name: each.read_bytes() for each in Path().iterdir()}
    found = words(*arguments)
    assert (found.status, said in found.err) == (2, True), found.err
    as_json = words(*arguments, "--json").json
    assert as_json["status"] == 2
    assert as_json["hint"]
    assert {each.name: each.read_bytes() for each in Path().iterdir()} == before


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_what_is_no_key_file_is_called_that_before_anything_is_asked_of_it(
    idle_shell: Shell, mode: int
) -> None:
    Path("node.toml").write_text("[node]\nagency = 'registry'\n")
    Path("node.toml").chmod(mode)
    said = idle_shell("get", "note/1", "--key", "node.toml", "--json")
    assert (said.status, said.json["error"]) == (2, "node.toml is no key file")
    assert "`comity keys new`" in said.json["hint"]
    assert "chmod" not in said.json["hint"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of another user")
def test_another_users_key_is_refused_and_roots_may_be_used(words: Words) -> None:
    path = made("v.key")
    os.chown(path, 12345, 12345)
    said = words("check", "v.key")
    assert (said.status, "belongs to another user" in said.err) == (2, True)
