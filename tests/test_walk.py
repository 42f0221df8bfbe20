"""The walk in the README, and the exchange of a key in the manual, as typed, on real nodes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_docs import ROOT

LINE_SECONDS_MAX = 60
MARK = "@@@"

pytestmark = pytest.mark.process


def typed(page: Path, heading: str) -> list[tuple[str, list[str]]]:
    """The commands of a section, each with the output that is shown for it."""
    text = page.read_text(encoding="utf-8")
    section = text[text.index(f"## {heading}\n") :].split("\n## ")[0]
    shown: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                shown.append((line.removeprefix("$ "), []))
            else:
                shown[-1][1].append(line)
    return shown


def outcomes(lines: list[str]) -> list[str]:
    """What a command said that is the same in every run."""
    said = " ".join(line.strip() for line in lines)
    return re.findall(r"outcome +(applied|refused [A-Z_]+)", said) + re.findall(
        r"\dZ +([A-Z_]+) +[a-z]+\.", said
    )


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder like the repository, where the README's network runs in ``demo/walk``."""
    folder = tmp_path_factory.mktemp("walk")
    (folder / "configs").symlink_to(ROOT / "configs")
    (folder / "scripts").symlink_to(ROOT / "scripts")
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "comity").symlink_to(Path(sys.executable).parent / "comity")
    (setup, _), (devnet, _), *_ = typed(ROOT / "README.md", "A walk through a small network")
    assert setup == "./scripts/setup"
    log = folder / "devnet.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {devnet}"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        wait = [sys.executable, "-c", _UNTIL_STARTED, str(log), str(process.pid)]
        subprocess.run(wait, check=True, timeout=LINE_SECONDS_MAX * 2)
        yield folder
        process.send_signal(signal.SIGINT)
        assert process.wait(LINE_SECONDS_MAX) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(LINE_SECONDS_MAX)


_UNTIL_STARTED = """
import os, pathlib, sys, time
log, process = pathlib.Path(sys.argv[1]), int(sys.argv[2])
while "Ctrl-C" not in log.read_text():
    os.kill(process, 0)
    time.sleep(0.1)
"""


def run(folder: Path, commands: list[str]) -> list[list[str]]:
    """What each command prints, all typed into one shell."""
    script = "".join(f"{command}\necho {MARK}\n" for command in commands)
    environment = {**os.environ, "COLUMNS": "150", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=LINE_SECONDS_MAX * len(commands),
    )
    parts = [part.splitlines() for part in done.stdout.split(f"{MARK}\n")]
    assert len(parts) == len(commands) + 1, done.stderr
    return parts[:-1]


def test_the_walk_of_the_readme_goes_as_it_says(walk: Path) -> None:
    steps = typed(ROOT / "README.md", "A walk through a small network")[2:]
    commands = [command for command, _ in steps]
    decided = 0
    for (command, shown), said in zip(steps, run(walk, commands), strict=True):
        wanted = outcomes(shown)
        if command.startswith("comity submit"):
            wanted = wanted or ["applied"]
            decided += 1
        assert outcomes(said) == wanted, (command, said)
    assert decided == 13


def test_an_officials_key_is_exchanged_as_the_manual_says(walk: Path) -> None:
    place = walk / "demo" / "walk"
    steps = typed(ROOT / "docs" / "operating.md", "Exchanging a person's key")
    commands = [f"PATH={walk}/.venv/bin:$PATH", *(command for command, _ in steps)]
    said = run(place, commands)[1:]
    assert outcomes([line for lines in said for line in lines]) == ["applied"]
    pay = "comity submit payments.open_payee person=0x" + "cc" * 32 + " --key"
    tries = [f"{pay} treasury/keys/paymaster.key 2>&1", f"{pay} paymaster-new.key"]
    _, old, new = run(place, [commands[0], *tries])
    assert old[0].startswith("error: this key may not do that")
    assert outcomes(new) == ["refused NOT_FOUND"], "judged beyond the key: the person is unknown"
