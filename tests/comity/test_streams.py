"""The command in surroundings that nobody wishes for: streams closed or full, another encoding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from comity import keys
from comity.keys import new_pair
from consensus.keyfile import KeyKind

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
NAME = "schlüssel.key"


def comity(
    folder: Path,
    *words: str,
    shut: tuple[int, ...] = (),
    stdout: str | None = None,
    stderr: str | None = None,
    encoding: str = "utf-8",
) -> subprocess.CompletedProcess[bytes]:
    """Run a command with some streams shut, or into the files that are named."""
    close: Callable[[], None] = lambda: [os.close(each) for each in shut] and None  # noqa: E731
    out = subprocess.PIPE if stdout is None else os.open(stdout, os.O_WRONLY)
    err = subprocess.PIPE if stderr is None else os.open(stderr, os.O_WRONLY)
    try:
        return subprocess.run(
            [sys.executable, "-m", "comity.cli", *words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
            preexec_fn=close,
            timeout=60,
            check=False,
        )
    finally:
        for handle in (out, err):
            if handle != subprocess.PIPE:
                os.close(handle)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    keys.create(tmp_path / NAME, new_pair(KeyKind.CLIENT))
    return tmp_path


@pytest.mark.parametrize("shut", [(1,), (0, 1, 2)], ids=["out", "all"])
def test_a_command_without_a_stream_ends_as_it_would_with_it(
    folder: Path, shut: tuple[int, ...]
) -> None:
    for words, status in ((("keys", "show", NAME), 0), (("get", "note"), 2)):
        done = comity(folder, *words, shut=shut)
        assert done.returncode == status, done
        assert b"Traceback" not in done.stderr
        assert b"error of this program" not in done.stderr


def test_what_cannot_be_written_is_said_where_it_can(folder: Path) -> None:
    for words, said in (
        (("keys", "show", NAME), b"No space left on device"),
        (("get", "note"), b"names a kind and no id"),
    ):
        done = comity(folder, *words, "--json", stdout="/dev/full")
        assert done.returncode == 2, done
        assert said in done.stderr
        assert done.stderr.startswith(b"error: ")
        assert len(done.stderr.splitlines()) == 2
    nowhere = comity(folder, "get", "note", "--json", stdout="/dev/full", stderr="/dev/full")
    assert nowhere.returncode == 2


def test_characters_that_the_locale_has_not_are_escaped(folder: Path) -> None:
    done = comity(folder, "keys", "show", NAME, encoding="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"schl\\xfcssel.key" in done.stdout
    for encoding, name in (("ascii", NAME), ("latin-1", "sm\u00f6rg\u00e5s\U0001f600.key")):
        (folder / NAME).rename(folder / "key")
        (folder / "key").rename(folder / name)
        done = comity(folder, "keys", "show", name, "--json", encoding=encoding)
        assert json.loads(done.stdout)["file"] == name
        (folder / name).rename(folder / NAME)
