"""Two signers while a validator key is exchanged: each is asked in the epochs that name its key."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consensus import keyfile
from consensus.committee import Committee
from consensus.keyfile import KeyKind
from node import config as configs
from node.config import ConfigError
from node.epochs import Ended
from node.identity import Identity, load_keys
from node.keyring import Keyring
from node.main import check_signer
from node.opening import signer_of
from node.remote_signer import RemoteKey
from node.silent import SilentSigner
from node.storage.disk import SYSTEM_DISK
from tests.node.machines import CHAIN, GENESIS, pair_of

FIRST, NEXT, OTHER = (pair_of(number, KeyKind.VALIDATOR).public for number in (40, 90, 91))


def configured(folder: Path, **signer: str) -> configs.Config:
    path = folder / "node.key"
    if not path.exists():
        path.write_bytes(keyfile.pack(pair_of(60, KeyKind.NODE)))
        path.chmod(0o600)
    rows = "".join(f'{name} = "{value}"\n' for name, value in signer.items())
    text = f'[node]\nagency = "agency-0"\ngenesis = "g"\nnode_key = "node.key"\n[signer]\n{rows}'
    (folder / "node.toml").write_text(text)
    return configs.load(folder / "node.toml", {})


def elected(identity: Identity, key: bytes) -> Identity:
    """The same node one epoch later, in which its agency votes by a key."""
    before = identity.committee
    rows = (replace(before.validators[0], key=key), *before.validators[1:])
    certificate: Any = None  # which nobody looks at here
    ended = Ended(certificate, Committee(before.epoch + 1, rows))
    return identity.at((*identity.ended, ended))


def test_the_signer_is_asked_whose_key_the_epochs_committee_names(tmp_path: Path) -> None:
    config = configured(
        tmp_path, socket="now", key=FIRST.hex(), socket_next="next", key_next=f"0x{NEXT.hex()}"
    )
    keys = load_keys(config, Keyring(None, {}))
    assert keys.validators == (
        RemoteKey(FIRST, tmp_path / "now"),
        RemoteKey(NEXT, tmp_path / "next"),
    )
    own = keys.own("agency-0")
    identity = Identity(GENESIS, CHAIN, own.place(GENESIS.committee), (), own)
    asked: list[str] = []

    def remote(key: RemoteKey) -> Any:
        asked.append(key.socket.name)

    nothing: Any = None
    for key in (FIRST, NEXT, FIRST, OTHER):
        identity = identity if key == FIRST and not identity.ended else elected(identity, key)
        found = signer_of(nothing, keys.validators, identity, tmp_path, SYSTEM_DISK, remote)
    assert asked == ["now", "next", "now"]
    assert isinstance(found, SilentSigner), "a key that is another machine's"


def test_a_key_in_a_file_is_exchanged_for_one_of_a_signer(tmp_path: Path) -> None:
    config = configured(tmp_path, socket_next="next", key_next=NEXT.hex())
    (tmp_path / "keys").mkdir()
    own = tmp_path / "keys" / "validator.key"
    own.write_bytes(keyfile.pack(pair_of(40, KeyKind.VALIDATOR)))
    own.chmod(0o600)
    following, present = load_keys(config, Keyring(None, {})).validators
    assert isinstance(present, keyfile.KeyPair)
    assert present.public == FIRST
    assert following == RemoteKey(NEXT, tmp_path / "next")


@pytest.mark.parametrize(
    ("signer", "said"),
    [
        ({"key": FIRST.hex()}, "socket = ''"),
        ({"socket": "now", "key": FIRST.hex(), "socket_next": "next"}, "key_next = ''"),
        ({"socket": "now", "key": FIRST.hex(), "key_next": NEXT.hex()}, "socket_next = ''"),
        ({"socket": "now", "key": FIRST.hex()[:-1]}, "key = "),
    ],
)
def test_half_of_a_pair_is_refused(tmp_path: Path, signer: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load_keys(configured(tmp_path, **signer), Keyring(None, {}))
    assert "comity signer check" in caught.value.hint


def test_a_check_tries_both_signers(tmp_path: Path) -> None:
    config = configured(
        tmp_path, socket="now", key=FIRST.hex(), socket_next="next", key_next=NEXT.hex()
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "now"))
        listening.listen()
        assert check_signer(config, "socket") == f"signer: answers at {tmp_path / 'now'}"
        with pytest.raises(ConfigError, match=r"\[signer\] socket_next: nobody answers"):
            check_signer(config, "socket_next")
        (tmp_path / "next").symlink_to(tmp_path / "now")
        said = check_signer(config, "socket_next")
        assert said == f"signer of the next key: answers at {tmp_path / 'next'}"
