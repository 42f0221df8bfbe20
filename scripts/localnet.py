"""A network of real node processes on loopback, for the benchmarks and the process tests.

Folders, keys and the genesis file are made anew in a given folder; nodes are started with
``comity node run``, in any order, killed and started again.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from consensus import genesis, keyfile
from consensus.committee import Committee, Validator
from consensus.genesis import Genesis, Limits, OpeningBalance, Principal, RoleGiven
from consensus.keyfile import KeyKind
from consensus.ledger.rules import encode_definition, load_toml
from node.network.tls import make_certificate

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who can sign from the start, with the secret seed of the key."""

    agency: str
    kind: int
    seed: bytes
    roles: Sequence[tuple[str, tuple[tuple[str, str], ...]]] = ()
    person: tuple[bytes, ...] | None = None

    @property
    def pair(self) -> keyfile.KeyPair:
        """The client key."""
        return keyfile.from_seed(KeyKind.CLIENT, self.seed)

    @property
    def id(self) -> bytes:
        """The principal's id."""
        return genesis.H_GENESIS(b"principal" + self.pair.public)


@dataclass(slots=True)
class LocalNetwork:
    """Four or more nodes under one folder; use as a context manager to stop them all."""

    folder: Path
    agencies: Sequence[str]
    ports: Sequence[int] = ()
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def genesis(self) -> bytes:
        """Bytes of the genesis file."""
        return (self.folder / "genesis.cbor").read_bytes()

    def telemetry(self, agency: str) -> int:
        """Port of a node's telemetry."""
        return self.ports[2 * len(self.agencies) + self.agencies.index(agency)]

    def start(self, agency: str) -> None:
        """Start one node's process."""
        log = (self.folder / agency / "node.log").open("ab")
        with log:
            self.processes[agency] = subprocess.Popen(
                [sys.executable, "-m", "node", str(self.folder / agency / "node.toml")],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def start_all(self) -> None:
        """Start every node and wait until all are ready."""
        for agency in self.agencies:
            self.start(agency)
        for agency in self.agencies:
            self.wait_ready(agency)

    def wait_ready(self, agency: str) -> None:
        """Wait until a node says that it is ready.

        Raises:
            RuntimeError: it stopped, or took longer than START_SECONDS_MAX.
        """
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            if self.processes[agency].poll() is not None:
                break
            if self.ready(agency):
                return
            time.sleep(0.05)
        text = (self.folder / agency / "node.log").read_text(errors="replace")
        raise RuntimeError(f"the node of {agency} did not become ready:\n{text[-3000:]}")

    def ready(self, agency: str) -> bool:
        """Whether a node says that it is ready."""
        return b" 200 " in self.http(agency, "/readyz").partition(b"\r\n")[0]

    def http(self, agency: str, path: str) -> bytes:
        """Return a telemetry page with its head; empty when nobody answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.telemetry(agency)), 2) as link:
                link.sendall(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
                parts = []
                while part := link.recv(65536):
                    parts.append(part)
        except OSError:
            return b""
        return b"".join(parts)

    def kill(self, agency: str, number: int = signal.SIGKILL) -> None:
        """Signal a node; for SIGKILL and SIGTERM wait for its end."""
        process = self.processes[agency]
        process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            process.wait(20)

    def stop(self) -> None:
        """End all processes, politely first."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)

    def __enter__(self) -> LocalNetwork:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def found(
    folder: Path,
    rules: Sequence[Path],
    people: Sequence[Person] = (),
    accounts: Sequence[OpeningBalance] = (),
    agencies: Sequence[str] = ("registry", "social", "treasury", "integrity"),
    tuning: str = "",
) -> LocalNetwork:
    """Make keys, configurations and the genesis file of a new network in ``folder``."""
    size = len(agencies)
    ports = free_ports(3 * size)
    validators = []
    for index, agency in enumerate(agencies):
        home = folder / agency
        (home / "keys").mkdir(parents=True)
        validator = keyfile.from_seed(KeyKind.VALIDATOR, secrets.token_bytes(32))
        node = keyfile.from_seed(KeyKind.NODE, secrets.token_bytes(32))
        for name, key in (("validator.key", validator), ("node.key", node)):
            descriptor = os.open(home / "keys" / name, os.O_CREAT | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(keyfile.pack(key))
        validators.append(
            Validator(
                agency,
                validator.public,
                node.public,
                make_certificate(node.seed, agency),
                "127.0.0.1",
                ports[index],
                "127.0.0.1",
                ports[size + index],
            )
        )
        (home / "node.toml").write_text(
            f'[node]\nagency = "{agency}"\ngenesis = "../genesis.cbor"\n\n'
            f'[listen]\ntelemetry = "127.0.0.1:{ports[2 * size + index]}"\n\n'
            f"[tuning]\n{tuning}\n",
            encoding="utf-8",
        )
    made = Genesis(
        network="local",
        time_ms=time.time_ns() // 1_000_000,
        executor=1,
        tree_depth=16,
        limits=Limits(),
        committee=Committee(genesis.EPOCH, tuple(validators)),
        agencies=tuple(genesis.Agency(agency, agency.title()) for agency in agencies),
        principals=tuple(
            Principal(each.id, each.agency, each.kind, None, each.person) for each in people
        ),
        keys=tuple((each.pair.public, each.id) for each in people),
        roles=tuple(
            RoleGiven(each.id, role, scope) for each in people for role, scope in each.roles
        ),
        rules=tuple(
            encode_definition(load_toml(path.read_text(encoding="utf-8"), str(path)))
            for path in rules
        ),
        accounts=tuple(accounts),
    )
    (folder / "genesis.cbor").write_bytes(made.encode())
    return LocalNetwork(folder, tuple(agencies), tuple(ports))
