"""What a running node shows of its secrets to others on the machine: nothing."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from consensus.keyfile import FILE_BYTES_MAX, MEMORY_KIB_MIN, KeyKind, from_seed, seal
from node import hardening, keyfiles
from node.errors import DataAccessError, KeyAccessError
from node.keyfiles import load
from node.signing import main
from scripts import localnet
from tests.consensus.ledger.test_succession import GENESIS

ROOT = Path(__file__).resolve().parents[2]
PASSPHRASE = "correct horse battery staple"
WAIT_SECONDS_MAX = 60.0
AT_START = """
import ctypes, os, resource, sys
from node import hardening
hardening.protect(os.environ)
dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)  # PR_GET_DUMPABLE
names = sorted(name for name in os.environ if "COMITY_KEY" in name)
print(resource.getrlimit(resource.RLIMIT_CORE), dumpable, names, os.environ["COMITY_KEPT"])
"""


# --- folders and files --------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "warned"), [(0o700, False), (0o750, True), (0o770, True)])
def test_a_data_folder_that_others_can_look_into_is_warned_of(
    tmp_path: Path, mode: int, warned: bool
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(mode)
    found = hardening.check_folder(folder)
    assert (found is not None) is warned
    assert found is None or f"{mode:04o}" in found


@pytest.mark.parametrize("mode", [0o777, 0o702, 0o1777])
def test_a_data_folder_that_anybody_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(DataAccessError, match=f"{mode:04o}") as caught:
        hardening.check_folder(folder)
    assert "chmod 700" in caught.value.hint


def test_a_data_folder_that_is_not_there_yet_is_no_fault_and_a_file_is_one(tmp_path: Path) -> None:
    assert hardening.check_folder(tmp_path / "none") is None
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataAccessError, match="not a folder"):
        hardening.check_folder(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_folders_and_key_files_of_another_user_are_refused(tmp_path: Path) -> None:
    folder, key = tmp_path / "data", tmp_path / "node.key"
    folder.mkdir(mode=0o700)
    keyfiles.create(key, b"key")
    os.chown(folder, 12345, 12345)
    os.chown(key, 12345, 12345)
    with pytest.raises(DataAccessError, match="user 12345") as caught:
        hardening.check_folder(folder)
    assert "as the node's user" in caught.value.hint
    with pytest.raises(KeyAccessError, match="belongs to user 12345"):
        keyfiles.read_bytes(key)


def test_a_key_in_a_folder_where_anybody_may_replace_it_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    keyfiles.create(folder / "node.key", b"key")
    folder.chmod(0o777)
    with pytest.raises(KeyAccessError, match="another file in the place") as caught:
        keyfiles.read_bytes(folder / "node.key")
    assert f"chmod 700 {folder}" in caught.value.hint
    folder.chmod(0o1777)
    assert keyfiles.read_bytes(folder / "node.key") == b"key"


def test_a_link_to_a_key_is_judged_by_the_file_it_leads_to(tmp_path: Path) -> None:
    link, key = tmp_path / "link.key", tmp_path / "node.key"
    keyfiles.create(key, b"key")
    link.symlink_to(key)
    assert keyfiles.read_bytes(link) == b"key"
    key.chmod(0o644)
    with pytest.raises(KeyAccessError, match="mode 0644"):
        keyfiles.read_bytes(link)
    key.unlink()
    with pytest.raises(KeyAccessError, match="cannot open"):
        keyfiles.read_bytes(link)
    with pytest.raises(KeyAccessError, match="exists"):
        keyfiles.create(link, b"another")


# --- a running node -----------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_protected_process_has_no_core_files_no_passphrase_and_its_memory_to_itself() -> None:
    names = {"COMITY_KEY_PASSPHRASE": PASSPHRASE, "COMITY_KEY_FILE": "x", "COMITY_KEPT": "kept"}
    done = subprocess.run(
        [sys.executable, "-c", AT_START],
        env={**os.environ, **names},
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.strip() == "(0, 0) 0 [] kept"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A node alone of a network, that listens, and its folder."""
    network = localnet.found(tmp_path / "network", [ROOT / "configs" / "rules" / "charter.toml"])
    home = tmp_path / "network" / network.agencies[0]
    process = subprocess.Popen(
        [sys.executable, "-m", "node", str(home / "node.toml")],
        env={**os.environ, "COMITY_KEY_PASSPHRASE": PASSPHRASE, "COMITY_LOG_LEVEL": "debug"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
    )
    try:
        yield process, home
    finally:
        process.kill()
        process.communicate()


def forms(secret: bytes) -> list[bytes]:
    """How a secret could stand somewhere."""
    text = secret.hex()
    return [
        secret,
        text.encode(),
        text.upper().encode(),
        base64.b64encode(secret).rstrip(b"="),
        base64.urlsafe_b64encode(secret).rstrip(b"="),
        repr(secret).encode()[2:-1],
    ]


def core_limits(place: Path) -> list[str]:
    """Soft and hard limit of the size of a core file."""
    lines = (place / "limits").read_text().splitlines()
    [found] = [line for line in lines if line.startswith("Max core file size")]
    return found.split()[4:6]


def workers_of(parent: int, command: bytes) -> list[Path]:
    """Children of a process, once there is one and all run a program of their own."""
    give_up = time.monotonic() + WAIT_SECONDS_MAX
    while time.monotonic() < give_up:
        lists = Path(f"/proc/{parent}/task").glob("*/children")
        found = [Path("/proc", child) for path in lists for child in path.read_text().split()]
        if found and all((each / "cmdline").read_bytes() not in (b"", command) for each in found):
            return found
        os.sched_yield()
    pytest.fail("the node has no workers")


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="what others see is in /proc")
def test_a_running_node_shows_no_secret_and_writes_none(
    node: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, home = node
    keys = home / "keys"
    assert process.stdout is not None
    said = b""
    while b"listening" not in said and b"started" not in said:
        line = process.stdout.readline()
        assert line, said.decode()
        said += line
    place = Path(f"/proc/{process.pid}")
    command = (place / "cmdline").read_bytes()
    assert core_limits(place) == ["0", "0"]
    assert (place / "mem").stat().st_uid == 0, "a process that is not dumpable is root's to look at"
    inherited = b""
    for worker in workers_of(process.pid, command):
        command += (worker / "cmdline").read_bytes()
        inherited += (worker / "environ").read_bytes()
        assert core_limits(worker) == ["0", "0"]
    process.send_signal(signal.SIGTERM)
    said += process.stdout.read()
    assert process.wait() == 0, said.decode()
    secrets = [PASSPHRASE.encode()]
    for name, kind in (("validator", KeyKind.VALIDATOR), ("node", KeyKind.NODE)):
        secrets += forms(load(keys / f"{name}.key", kind).seed)
    sealed = keyfiles.read_bytes(keys / "sealed.key").split()[-1]
    assert len(sealed) < FILE_BYTES_MAX
    secrets += forms(bytes.fromhex(sealed.decode()))
    written = b"".join(
        path.read_bytes() for path in home.rglob("*") if path.is_file() and path.parent != keys
    )
    for secret in secrets:
        for where in (said, command, inherited, written):
            assert secret not in where
    for path in (home / "data").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, f"{path} is open to others"


SIGNER = """
import sys
from pathlib import Path
from node.signing.main import run
run(Path(sys.argv[1]))
"""
FAULT = """
import sys
from node.telemetry import logs
log = logs.configure("debug", sys.argv[1], "registry")
def open_it(passphrase):
    raise ValueError("it does not open")
try:
    open_it(sys.stdin.readline())
except ValueError:
    log.error("failed", exc_info=True)
"""


@pytest.mark.parametrize("style", ["json", "text"])
def test_what_a_log_says_of_an_exception_shows_no_value(style: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAULT, style],
        input=PASSPHRASE.encode(),
        capture_output=True,
        check=True,
        cwd=ROOT,
    )
    assert b"it does not open" in done.stderr
    assert PASSPHRASE.encode() not in done.stderr + done.stdout


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="what others see is in /proc")
def test_a_running_signer_shows_no_secret_and_writes_none(tmp_path: Path) -> None:
    key = from_seed(KeyKind.VALIDATOR, bytes(range(32)))
    folder = tmp_path / "signer"
    folder.mkdir(mode=0o700)
    sealed = seal(
        key, PASSPHRASE, salt=bytes(16), nonce=bytes(24), operations=1, memory_kib=MEMORY_KIB_MIN
    )
    keyfiles.create(folder / "validator.key", sealed)
    keyfiles.create(folder / "words", PASSPHRASE.encode() + b"\n")
    (folder / "genesis.cbor").write_bytes(GENESIS.encode())
    config = folder / "signer.toml"
    config.write_text(
        '[signer]\ngenesis = "genesis.cbor"\nsocket = "s"\nkey = "validator.key"\n'
        f'client_user = "{os.geteuid()}"\nmark = "mark"\npassphrase_file = "words"\n'
        '[log]\nlevel = "debug"\n'
    )
    main.init(config)
    process = subprocess.Popen(
        [sys.executable, "-c", SIGNER, str(config)],
        env={**os.environ, "COMITY_KEY_PASSPHRASE": PASSPHRASE},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert b"started" in said, said.decode()
        place = Path(f"/proc/{process.pid}")
        assert core_limits(place) == ["0", "0"]
        command = (place / "cmdline").read_bytes()
        process.send_signal(signal.SIGTERM)
        said += process.stdout.read()
        assert process.wait() == 0, said.decode()
    finally:
        process.kill()
        process.communicate()
    written = b"".join(
        path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("validator.key", "words")
    )
    for secret in (*forms(key.seed), PASSPHRASE.encode()):
        for where in (said, command, written):
            assert secret not in where
