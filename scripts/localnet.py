"""A network of real node processes on loopback, for the demonstration, benchmarks and tests.

A network is founded in a folder of its own by ``comity.founding``; its nodes are started in any
order, killed and started again.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, MappingProxyType, TracebackType
from typing import Final

from comity import founding, keys
from comity.founding import Member, Person
from comity.keys import Key
from consensus.genesis import Limits, OpeningBalance
from node.network.tls import make_certificate
from scripts.ports import free_ports

ROOT: Final = Path(__file__).resolve().parent.parent
AGENCIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "registry": "Civil Registry",
        "social": "Social Services",
        "treasury": "Treasury",
        "integrity": "Integrity Office",
    }
)
"""Names and titles of the members."""
LOG_NAME: Final = "node.log"
START_SECONDS_MAX: Final = 30.0
STOP_SECONDS_MAX: Final = 15.0
POLL_SECONDS: Final = 0.05
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a program."""


@dataclass(slots=True)
class LocalNetwork:
    """Nodes under one folder; use as a context manager to stop them all."""

    folder: Path
    members: Sequence[Member]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    programs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Modules with options that are run for an agency in place of ``node``."""

    @property
    def agencies(self) -> tuple[str, ...]:
        """Names of the members."""
        return tuple(member.name for member in self.members)

    @property
    def genesis(self) -> bytes:
        """Bytes of the genesis file."""
        return (self.folder / founding.GENESIS_NAME).read_bytes()

    def member(self, agency: str) -> Member:
        """Return a member by name."""
        return next(member for member in self.members if member.name == agency)

    def key(self, agency: str, person: str) -> Key:
        """Return somebody's key."""
        return keys.load(self.key_file(agency, person))

    def key_file(self, agency: str, person: str) -> Path:
        """Return where somebody's key lies."""
        return self.folder / agency / "keys" / f"{person}.key"

    def log(self, agency: str) -> str:
        """Return what a node has written to its log."""
        return (self.folder / agency / LOG_NAME).read_text(encoding="utf-8", errors="replace")

    def running(self, agency: str) -> bool:
        """Whether a node's process lives."""
        process = self.processes.get(agency)
        return process is not None and process.poll() is None

    def start(self, agency: str) -> None:
        """Start one node's process, in a session of its own: Ctrl-C is its starter's business."""
        home = self.folder / agency
        program = self.programs.get(agency, ("node",))
        with (home / LOG_NAME).open("ab") as log:
            self.processes[agency] = subprocess.Popen(
                [sys.executable, "-m", *program, str(home / founding.CONFIG_NAME)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start_all(self) -> None:
        """Start every node and wait until all are ready.

        Raises:
            RuntimeError: as ``wait_ready``.
        """
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
        while time.monotonic() < deadline and self.running(agency):
            if self.ready(agency):
                return
            time.sleep(POLL_SECONDS)
        raise self.not_ready(agency)

    def not_ready(self, agency: str) -> RuntimeError:
        """Return what to raise of a node that does not become ready; shows its log's end."""
        return RuntimeError(f"the node of {agency} did not become ready; {self._log_end(agency)}")

    def _log_end(self, agency: str) -> str:
        path = self.folder / agency / LOG_NAME
        return f"{path} ends with:\n{self.log(agency)[-3000:]}"

    def ready(self, agency: str) -> bool:
        """Whether a node says that it is ready."""
        return b" 200 " in self.http(agency, "/readyz").partition(b"\r\n")[0]

    def http(self, agency: str, path: str) -> bytes:
        """Return a telemetry page with its head; empty when nobody answers."""
        address = ("127.0.0.1", self.member(agency).telemetry_port)
        try:
            with socket.create_connection(address, 2) as link:
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
            process.wait(STOP_SECONDS_MAX)

    def stop(self) -> None:
        """End all processes, politely first."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        deadline = time.monotonic() + STOP_SECONDS_MAX
        for process in self.processes.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_SECONDS_MAX)

    def __enter__(self) -> LocalNetwork:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop all nodes; an error that ends the use tells of nodes that had stopped before."""
        if error is not None:
            for agency, process in self.processes.items():
                if (status := process.poll()) is not None:
                    end = self._log_end(agency)
                    error.add_note(f"the node of {agency} had ended with status {status}; {end}")
        self.stop()


def found(
    folder: Path,
    rules: Sequence[Path],
    people: Sequence[Person] = (),
    accounts: Sequence[OpeningBalance] = (),
    agencies: Sequence[str] = tuple(AGENCIES),
    tuning: str = "",
    network: str = "local",
    limits: Limits | None = None,
) -> LocalNetwork:
    """Make keys, configurations and the genesis file of a new network.

    Args:
        folder: empty, or to be made.
        rules: files of rule sets, the charter among them.
        people: who can sign from the start; ``LocalNetwork.key`` gives their keys.
        accounts: that exist from the start.
        agencies: names of four or more; titles are those of AGENCIES.
        tuning: lines for the section ``[tuning]`` of every node's configuration.
        network: its name.
        limits: of the genesis file; None: the defaults.
    """
    size = len(agencies)
    ports = free_ports(founding.PORTS_PER_NODE * size)
    members = [
        Member(name, AGENCIES.get(name, name.title()), "127.0.0.1", *ports[i::size])
        for i, name in enumerate(agencies)
    ]
    made = founding.found(
        network,
        members,
        founding.encode_rules(rules),
        people,
        accounts,
        time_ms=time.time_ns() // 1_000_000,
        make_certificate=make_certificate,
        limits=limits,
    )
    founding.write(made, folder)
    if tuning:
        for member in members:
            with (folder / member.name / founding.CONFIG_NAME).open("a", encoding="utf-8") as file:
                file.write(f"\n[tuning]\n{tuning}\n")
    return LocalNetwork(folder, members)


@contextmanager
def one_way_to_end() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end a program as Ctrl-C does, which stops the nodes it started."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)

    before = {number: signal.getsignal(number) for number in ENDING}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in ENDING[1:]:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
