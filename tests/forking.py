"""Node processes made by forking one that has imported everything: for tests that start many.

A node takes longer to import than to start. One *origin* process imports ``node.main`` once; each
node is a fork of it, with a session, a log and signals of its own, and does from there on what
``python -m node`` does. What is told about processes (pids, signals, exit statuses) is the same.

Nodes forked of one origin share their hash seed. Tests that are about starting itself start the
program (``tests.network.test_service``, one in ``test_configuration``, ``test_walk``).
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from consensus.errors import ComityError

ROOT: Final = Path(__file__).resolve().parent.parent
MESSAGE_BYTES_MAX: Final = 65_536
_ORIGINS: Final[list[Origin]] = []


class Forked:
    """A node's process, with the part of ``subprocess.Popen`` that tests use."""

    def __init__(self, origin: Origin, pid: int) -> None:
        self._origin = origin
        self.pid = pid
        self.returncode: int | None = None
        self._handle = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Return how it ended, or None while it runs."""
        if self.returncode is None and select.select([self._handle], [], [], 0)[0]:
            self.returncode = self._origin.ask({"ended": self.pid})
            os.close(self._handle)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return how."""
        if self.poll() is None and not select.select([self._handle], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("node", timeout or 0.0)
        found = self.poll()
        return 0 if found is None else found

    def send_signal(self, number: int) -> None:
        """Signal it, unless it has ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._handle, number)

    def terminate(self) -> None:
        """Ask it to stop."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


class Origin:
    """The process that is forked. Close it after all nodes."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._turn = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forking", str(theirs.fileno())],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def start(self, config: Path, log: Path) -> Forked:
        """Start the node of a configuration file."""
        return Forked(self, self.ask({"config": str(config), "log": str(log)}))

    def ask(self, question: dict[str, Any]) -> int:
        """Return the answer to a question: a pid, or an exit status."""
        with self._turn:
            self._ours.send(json.dumps(question).encode())
            return int(self._ours.recv(MESSAGE_BYTES_MAX))

    def close(self) -> None:
        """End the origin; it ends when it is asked nothing more."""
        self._ours.close()
        self._process.wait(10)


@contextmanager
def shared() -> Iterator[None]:
    """Have ``origin`` return one origin for the length of the block."""
    try:
        yield
    finally:
        while _ORIGINS:
            _ORIGINS.pop().close()


def origin() -> Origin:
    """Return the origin of this process, which is started when it is first asked for."""
    if not _ORIGINS:
        _ORIGINS.append(Origin())
    return _ORIGINS[0]


def _serve(link: socket.socket) -> None:
    import node.main

    gc.collect()
    gc.freeze()  # what is shared stays shared
    while question := link.recv(MESSAGE_BYTES_MAX):
        asked = json.loads(question)
        if "ended" in asked:
            _, status = os.waitpid(asked["ended"], 0)
            link.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        pid = os.fork()
        if pid == 0:
            link.close()
            _become(node.main.run, asked["config"], asked["log"])
        link.send(str(pid).encode())


def _become(run: Any, config: str, log: str) -> None:
    """Be a node, and end as ``python -m node`` would."""
    status = 1
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for source, target in ((nothing, 0), (out, 1), (out, 2)):
            os.dup2(source, target)
        gc.unfreeze()
        sys.argv = ["node", config]
        try:
            run(Path(config))
            status = 0
        except ComityError as error:
            sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")
        except BaseException:
            sys.excepthook(*sys.exc_info())
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
