"""Key files on disk: private, whole, never overwritten."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from consensus import keyfile, signing
from consensus.errors import KeyFileError, LocalProtocolError, PassphraseError
from consensus.keyfile import KeyKind
from node import keyfiles
from node.errors import KeyAccessError
from node.keyfiles import NodeKey

NODE = keyfile.from_seed(KeyKind.NODE, bytes(range(32)))


def test_a_made_file_has_mode_0600_whatever_the_umask_and_loads_again(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    old = os.umask(0)
    try:
        keyfiles.create(path, keyfile.pack(NODE))
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert keyfiles.load(path, KeyKind.NODE) == NODE
    assert list(tmp_path.iterdir()) == [path], "no draft is left behind"


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    path.write_bytes(b"precious")
    with pytest.raises(KeyAccessError, match="never overwritten"):
        keyfiles.create(path, keyfile.pack(NODE))
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(KeyAccessError, match="cannot write"):
        keyfiles.create(tmp_path / "no" / "node.key", b"")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o777])
def test_a_file_that_others_may_use_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "node.key"
    path.write_bytes(keyfile.pack(NODE))
    path.chmod(mode)
    with pytest.raises(KeyAccessError, match=f"{mode:04o}") as caught:
        keyfiles.load(path, KeyKind.NODE)
    assert f"chmod 600 {path}" in caught.value.hint


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_file_is_accepted(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "node.key"
    path.write_bytes(keyfile.pack(NODE))
    path.chmod(mode)
    assert keyfiles.load(path, KeyKind.NODE) == NODE


def test_absent_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyAccessError, match="cannot open"):
        keyfiles.load(tmp_path / "none", KeyKind.NODE)
    with pytest.raises(KeyAccessError, match="regular file"):
        keyfiles.load(tmp_path, KeyKind.NODE)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    with pytest.raises(KeyAccessError, match="regular file"):
        keyfiles.load(fifo, KeyKind.NODE)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    keyfiles.create(path, keyfile.pack(NODE))
    with pytest.raises(KeyFileError, match="holds a node key, a validator key is needed"):
        keyfiles.load(path, KeyKind.VALIDATOR)


def test_a_sealed_file_needs_its_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    data = keyfile.seal(NODE, "secret", salt=bytes(16), nonce=bytes(24), operations=1, memory_kib=8)
    keyfiles.create(path, data)
    assert keyfiles.load(path, KeyKind.NODE, "secret") == NODE
    with pytest.raises(PassphraseError):
        keyfiles.load(path, KeyKind.NODE)


def test_a_long_file_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    path.write_bytes(bytes(10**6))
    path.chmod(0o600)
    assert len(keyfiles.read_bytes(path)) == keyfile.FILE_BYTES_MAX + 1
    with pytest.raises(KeyFileError):
        keyfiles.load(path, KeyKind.NODE)


def test_a_node_key_signs_for_links_and_sessions_and_nothing_of_consensus(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    keyfiles.create(path, keyfile.pack(NODE))
    key = NodeKey.load(path)
    assert (key.public, key.seed) == (NODE.public, NODE.seed)
    chain = bytes(32)
    for tag in (signing.TAG_SESSION, signing.TAG_LINK, signing.TAG_DELIVERY, signing.TAG_BUNDLE):
        signature = key.sign(tag, chain, b"body")
        signing.verify(key.public, tag + chain + b"body", signature)
    for tag in (signing.TAG_VOTE, signing.TAG_COMMIT_VOTE, signing.TAG_TRANSACTION):
        with pytest.raises(LocalProtocolError):
            key.sign(tag, chain, b"body")
    with pytest.raises(LocalProtocolError):
        NodeKey(keyfile.from_seed(KeyKind.VALIDATOR, bytes(32)))
