"""One process signs with a validator key: links, copies, read-only files, and kill -9."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from consensus import keyfile
from consensus.keyfile import KeyKind
from node import config, holders, main
from node.errors import InUseError, KeyAccessError
from node.keylock import KeyLock, KeyPlace
from node.keyring import Keyring
from node.runtime import Node
from scripts import localnet

RULES = Path(__file__).resolve().parents[2] / "configs" / "rules"
HOLDS = (
    "import sys; from pathlib import Path; from node.keylock import KeyLock, KeyPlace\n"
    "held = [KeyLock(Path(sys.argv[1])), KeyPlace(bytes.fromhex(sys.argv[2]))]\n"
    "print('held', flush=True); sys.stdin.read()"
)


def new_key(path: Path) -> keyfile.KeyPair:
    """A key of its own for every test: the place of a key is the machine's."""
    pair = keyfile.from_seed(KeyKind.VALIDATOR, os.urandom(32))
    path.write_bytes(keyfile.pack(pair))
    path.chmod(0o400)
    return pair


@pytest.fixture
def key(tmp_path: Path) -> tuple[Path, keyfile.KeyPair]:
    return tmp_path / "validator.key", new_key(tmp_path / "validator.key")


@contextmanager
def holding(path: Path, public: bytes) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that signs with a key, as far as locks can tell."""
    words = [sys.executable, "-c", HOLDS, str(path), public.hex()]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"held\n"
        yield process
    finally:
        process.kill()
        process.wait(10)
        process.stdin.close()
        process.stdout.close()


def test_every_name_of_a_key_file_is_the_same_lock_and_the_holder_is_named(
    key: tuple[Path, keyfile.KeyPair], tmp_path: Path
) -> None:
    path, pair = key
    os.link(path, tmp_path / "link")
    (tmp_path / "symbolic").symlink_to(path)
    with holding(path, pair.public) as other:
        for name in ("validator.key", "link", "symbolic"):
            with pytest.raises(InUseError) as caught:
                KeyLock(tmp_path / name)
            assert f"(process {other.pid}, python" in caught.value.message
            assert str(tmp_path / name) in caught.value.message
            assert "never sign in two places" in caught.value.hint


def test_a_copy_on_this_machine_is_found_out_and_another_key_is_not(
    key: tuple[Path, keyfile.KeyPair], tmp_path: Path
) -> None:
    path, pair = key
    shutil.copy(path, tmp_path / "copy")
    with holding(path, pair.public) as other:
        ring = Keyring(None, {})
        copied = ring.load(tmp_path / "copy", KeyKind.VALIDATOR)
        with pytest.raises(InUseError) as caught:
            ring.hold(copied)
        assert f"(process {other.pid}, python" in caught.value.message
        assert pair.public.hex() in caught.value.message
        # the copy's own file was let go of again
        KeyLock(tmp_path / "copy").close()
        (tmp_path / "more").mkdir()
        third = new_key(tmp_path / "more" / "k")
        ring.load(tmp_path / "more" / "k", KeyKind.VALIDATOR)
        assert ring.hold(third) == ""
        ring.release()


def test_after_kill_9_nothing_is_left_behind(key: tuple[Path, keyfile.KeyPair]) -> None:
    path, pair = key
    with holding(path, pair.public) as other:
        other.send_signal(signal.SIGKILL)
        other.wait(10)
        KeyLock(path).close()
        KeyPlace(pair.public).close()


def test_a_key_on_a_read_only_file_system_is_locked_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        pair = new_key(folder / "k")
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        with pytest.raises(OSError, match="Read-only"):
            (folder / "other").touch()
        with holding(folder / "k", pair.public), pytest.raises(InUseError):
            KeyLock(folder / "k")
        KeyLock(folder / "k").close()
    finally:
        subprocess.run(["umount", folder], check=True)


def test_what_cannot_be_locked_is_refused_in_words(
    key: tuple[Path, keyfile.KeyPair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyAccessError, match="cannot open the key file"):
        KeyLock(tmp_path / "gone")

    def without_locks(handle: int, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("node.keylock.fcntl.flock", without_locks)
    with pytest.raises(KeyAccessError, match="No locks available") as caught:
        KeyLock(key[0])
    assert "local disk" in caught.value.hint


def test_a_stranger_in_the_place_is_told_of_and_keeps_nobody_from_signing(
    key: tuple[Path, keyfile.KeyPair],
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    path, pair = key
    code = (
        "import os, socket, sys; os.setuid(12345); s = socket.socket(socket.AF_UNIX);"
        "s.bind(chr(0) + 'comity validator key ' + sys.argv[1]); s.listen(1);"
        "print('held', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-I", "-c", code, pair.public.hex()]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == b"held\n"
        ring = Keyring(None, {})
        ring.load(path, KeyKind.VALIDATOR)
        told = ring.hold(pair)
        ring.release()
        assert re.fullmatch(rf"user 12345 \(process {stranger.pid}, python\S*\)", told)
        stranger.kill()


def test_who_holds_a_lock_is_not_known_where_the_kernel_does_not_say(
    key: tuple[Path, keyfile.KeyPair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, pair = key
    assert holders.holder_words(path) == "", "nobody"
    assert holders.holder_words(tmp_path / "gone") == ""
    assert holders.process_words(0) == holders.process_words(-1) == ""
    with holding(path, pair.public):
        assert holders.holder_words(path)
        monkeypatch.setattr(holders, "LOCKS", tmp_path / "hidden")
        with pytest.raises(InUseError, match=r"^another process signs with the key file"):
            KeyLock(path)


# --- nodes ----------------------------------------------------------------------------------------


def opened(place: Path, data: str, **node: Any) -> Node:
    found = config.load(place, {"COMITY_NODE_DATA": data})
    section = msgspec.structs.replace(found.node, **node)
    return Node(msgspec.structs.replace(found, node=section), structlog.get_logger())


def test_two_nodes_with_one_key_file_do_not_both_sign(tmp_path: Path) -> None:
    network = localnet.found(tmp_path / "network", [RULES / "charter.toml"])
    home = tmp_path / "network" / network.agencies[0]
    first = opened(home / "node.toml", str(tmp_path / "one"))
    try:
        with pytest.raises(InUseError, match="signs with the key file"):
            opened(home / "node.toml", str(tmp_path / "two"))
        # whoever only looks, follows or checks needs no lock
        follower = opened(home / "node.toml", str(tmp_path / "three"), votes=False)
        follower.engine.close()
        assert any("keys: those of" in line for line in main.check(home / "node.toml"))
        # once more in the same process: the next epoch's engine
        first._keyring.hold(first._keyring.load(home / "keys/validator.key", KeyKind.VALIDATOR))
    finally:
        first.engine.close()
    second = opened(home / "node.toml", str(tmp_path / "two"))
    second.engine.close()


def test_a_node_and_a_signer_with_one_key_file_do_not_both_sign(tmp_path: Path) -> None:
    network = localnet.found(tmp_path / "network", [RULES / "charter.toml"])
    home = tmp_path / "network" / network.agencies[0]
    signer = KeyLock(home / "keys" / "validator.key")  # as ``node.signing.stores`` takes it
    with pytest.raises(InUseError):
        opened(home / "node.toml", str(tmp_path / "one"))
    signer.close()
