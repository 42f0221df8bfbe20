"""A PostgreSQL of its own for tests: a real one, in a temporary folder, over a Unix socket.

It runs as ``postgres`` where the tests run as root, which it refuses to be itself. Without the
programs of Debian's package ``postgresql`` its tests are skipped and say so.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import psycopg

PASSWORD: Final = "only-for-tests"
_PLACES: Final = "/usr/lib/postgresql"


def programs() -> Path | None:
    """Return the folder of the newest server's programs; None if there is none."""
    found = [*Path(_PLACES).glob("*/bin/initdb")]
    if not found:
        elsewhere = shutil.which("initdb")
        return None if elsewhere is None else Path(elsewhere).parent
    return max(found, key=lambda path: float(path.parent.parent.name)).parent


class Cluster:
    """A database server. ``stop`` ends it and removes its folder."""

    def __init__(self, bin_folder: Path) -> None:
        self._bin = bin_folder
        self.folder = Path(tempfile.mkdtemp(prefix="comity-pg-"))
        self._as: list[str] = []
        if os.getuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as = ["runuser", "-u", "postgres", "--"]
        self._data = self.folder / "data"
        words = self.folder / "words"
        self._run(["bash", "-c", f"umask 077; echo {PASSWORD} > {words}"])
        self._run(
            [
                str(bin_folder / "initdb"),
                *("-D", str(self._data), "-U", "owner", "-A", "scram-sha-256"),
                *("--pwfile", str(words), "-E", "UTF8", "--locale=C", "--no-sync"),
            ]
        )
        self.start()

    def _run(self, command: Sequence[str]) -> None:
        subprocess.run(
            [*self._as, *command], check=True, capture_output=True, timeout=60, cwd=self.folder
        )

    def _control(self, *words: str) -> None:
        self._run([str(self._bin / "pg_ctl"), "-D", str(self._data), "-w", "-t", "30", *words])

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        options = f"-k {self.folder} -c listen_addresses= -c fsync=off -c shared_buffers=16MB"
        self._control("-l", str(self.folder / "log"), "-o", options, "start")

    def halt(self, mode: str = "immediate") -> None:
        """Stop the server: at once, as a crash does, or as ``mode`` says."""
        self._control("-m", mode, "stop")

    def stop(self) -> None:
        """End everything."""
        try:
            self.halt()
        finally:
            shutil.rmtree(self.folder)

    def dsn(self, database: str = "postgres", user: str = "owner", word: str = PASSWORD) -> str:
        """Return a connection string."""
        return f"host={self.folder} dbname={database} user={user} password={word}"


def rows(dsn: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Return what a query finds."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query, values or None).fetchall()  # type: ignore[arg-type]


def execute(dsn: str, command: str) -> None:
    """Carry out a command of the database's own language."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(command)  # type: ignore[arg-type]
