"""Where a node's passphrase comes from, in which order, and what it says when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from consensus import keyfile
from consensus.errors import KeyFileError, PassphraseError
from consensus.keyfile import KeyKind, KeyPair
from node.errors import KeyAccessError
from node.keyring import Keyring
from node.sealed.vault import load_key

SEED = bytes(range(32))
NODE = keyfile.from_seed(KeyKind.NODE, SEED)
VALIDATOR = keyfile.from_seed(KeyKind.VALIDATOR, SEED)


def private(path: Path, data: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def sealed(path: Path, passphrase: str, key: KeyPair = NODE) -> Path:
    """A file under a passphrase that costs nothing to open."""
    data = keyfile.seal(
        key, passphrase, salt=bytes(16), nonce=bytes(24), operations=1, memory_kib=8
    )
    return private(path, data)


def test_the_configured_file_comes_first_then_the_credential_the_variable_the_person(
    tmp_path: Path,
) -> None:
    for name in ("file", "credential", "variable", "person"):
        sealed(tmp_path / f"{name}.key", name)
    named = private(tmp_path / "pass", b"file\n")
    private(tmp_path / "credentials" / "passphrase", b"credential")
    everything = {
        "CREDENTIALS_DIRECTORY": str(tmp_path / "credentials"),
        "COMITY_NODE_PASSPHRASE": "variable",
    }
    without = [(named, dict(everything)), (None, dict(everything))]
    without += [(None, {"COMITY_NODE_PASSPHRASE": "variable"}), (None, {})]
    for source, (file, environment) in zip(
        ("file", "credential", "variable", "person"), without, strict=True
    ):
        ring = Keyring(file, environment, ask=lambda path: "person")
        assert ring.load(tmp_path / f"{source}.key", KeyKind.NODE) == NODE
        assert ring.opened == [tmp_path / f"{source}.key"]
        for other in {"file", "credential", "variable", "person"} - {source}:
            with pytest.raises(PassphraseError, match="does not open"):
                ring.load(tmp_path / f"{other}.key", KeyKind.NODE)


def test_the_variable_leaves_the_environment(tmp_path: Path) -> None:
    environment = {"COMITY_NODE_PASSPHRASE": "word", "PATH": "/bin"}
    Keyring(None, environment)
    assert environment == {"PATH": "/bin"}


def test_without_a_passphrase_the_error_names_every_way_to_give_one(tmp_path: Path) -> None:
    path = sealed(tmp_path / "node.key", "word")
    with pytest.raises(PassphraseError) as caught:
        Keyring(None, {}).load(path, KeyKind.NODE)
    assert caught.value.message == f"{path}: the key file is sealed and no passphrase was given"
    for way in ("passphrase_file", "credential", "COMITY_NODE_PASSPHRASE", "--remove"):
        assert way in caught.value.hint


def test_a_wrong_passphrase_is_blamed_on_where_it_came_from(tmp_path: Path) -> None:
    path = sealed(tmp_path / "node.key", "right")
    named = private(tmp_path / "pass", b"wrong")
    with pytest.raises(PassphraseError, match=f"does not open the key file; it came from {named}"):
        Keyring(named, {}).load(path, KeyKind.NODE)


def test_the_person_is_asked_once_for_all_files_and_a_key_is_opened_once(tmp_path: Path) -> None:
    asked: list[Path] = []

    def ask(path: Path) -> str:
        asked.append(path)
        return "word"

    node = sealed(tmp_path / "node.key", "word")
    validator = sealed(tmp_path / "validator.key", "word", VALIDATOR)
    ring = Keyring(None, {}, ask=ask)
    for _ in range(2):
        assert ring.load(node, KeyKind.NODE) == NODE
        assert ring.load(validator, KeyKind.VALIDATOR) == VALIDATOR
    assert asked == [node]
    assert ring.opened == [node, validator], "each was stretched once"


def test_a_file_that_was_exchanged_is_read_again(tmp_path: Path) -> None:
    path = private(tmp_path / "node.key", keyfile.pack(NODE))
    ring = Keyring(None, {})
    assert ring.load(path, KeyKind.NODE) == NODE
    other = keyfile.from_seed(KeyKind.NODE, bytes(32))
    private(path, keyfile.pack(other))
    assert ring.load(path, KeyKind.NODE) == other


def test_plain_files_need_no_passphrase_and_are_of_the_kind_that_is_needed(tmp_path: Path) -> None:
    path = private(tmp_path / "node.key", keyfile.pack(NODE))
    ring = Keyring(tmp_path / "there is none", {})
    assert ring.load(path, KeyKind.NODE) == NODE
    assert ring.opened == []
    with pytest.raises(KeyFileError, match="holds a node key, a validator key is needed"):
        ring.load(path, KeyKind.VALIDATOR)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_passphrase_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = sealed(tmp_path / "node.key", "word")
    named = private(tmp_path / "pass", b"word\n")
    named.chmod(mode)
    with pytest.raises(KeyAccessError, match=f"the passphrase file {named} has mode {mode:04o}"):
        Keyring(named, {}).load(path, KeyKind.NODE)


def test_a_passphrase_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = sealed(tmp_path / "node.key", "word")
    with pytest.raises(KeyAccessError, match=r"cannot open the passphrase file .*gone: No such"):
        Keyring(tmp_path / "gone", {}).load(path, KeyKind.NODE)


@pytest.mark.parametrize("data", [b"", b"\n", b"one\ntwo\n", b"\xff\n", b"x" * 1025])
def test_a_passphrase_file_holds_one_line_of_text(tmp_path: Path, data: bytes) -> None:
    path = sealed(tmp_path / "node.key", "word")
    with pytest.raises(PassphraseError, match="pass"):
        Keyring(private(tmp_path / "pass", data), {}).load(path, KeyKind.NODE)


def test_a_credential_may_show_the_groups_mode_of_an_access_list(tmp_path: Path) -> None:
    path = sealed(tmp_path / "node.key", "word")
    private(tmp_path / "given" / "passphrase", b"word\n").chmod(0o440)
    ring = Keyring(None, {"CREDENTIALS_DIRECTORY": str(tmp_path / "given")})
    assert ring.load(path, KeyKind.NODE) == NODE


def test_the_sealed_key_of_a_vault_may_be_under_the_passphrase_too(tmp_path: Path) -> None:
    path = tmp_path / "sealed.key"
    key = load_key(path, Keyring(None, {}))
    pair = keyfile.from_seed(KeyKind.VAULT, key)
    assert keyfile.read(path.read_bytes()) == pair, "the text form is a key file too"
    path.unlink()
    sealed(path, "word", pair)
    assert load_key(path, Keyring(None, {"COMITY_NODE_PASSPHRASE": "word"})) == key
    with pytest.raises(PassphraseError):
        load_key(path, Keyring(None, {"COMITY_NODE_PASSPHRASE": "other"}))
