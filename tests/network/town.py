"""A network of four agencies for the process tests, and ways to look at its nodes.

Not here: the load (``work``), the hostile side of sockets (``wire``).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import trio

from comity import Client
from comity.founding import CONFIG_NAME, Person
from comity.keys import Key
from consensus.genesis import OFFICIAL, SYSTEM, OpeningBalance
from consensus.keyfile import KeyKind, KeyPair
from node import keyfiles
from scripts import localmembers
from scripts.localnet import AGENCIES, ROOT, LocalNetwork, found
from tests import forking

T = TypeVar("T")

RULES = [ROOT / "configs/rules/charter.toml", Path(__file__).with_name("desk.toml")]
NAMES = tuple(AGENCIES)
AGENT = "social"
"""The agency whose node is stopped where any would do."""
CLERKS = 4
WALLETS = 16
"""Wallets that the load pays between; as many more are left to other tests."""
OPENING = 1_000_000
PATIENCE_SECONDS = 40.0
"""A condition that has not come true after this long fails its test."""
POLL_SECONDS = 0.03
CLERK = (("desk.clerk", ()),)
PEOPLE = (
    *(Person(f"clerk{i}", "treasury", SYSTEM, CLERK) for i in range(CLERKS)),
    Person("official", "social", OFFICIAL, CLERK),
    Person("auditor", "integrity", OFFICIAL, (("desk.auditor", ()),)),
    Person("visitor", "registry", OFFICIAL),
)
TUNING = "timeout_base_ms = 500\ntimeout_max_ms = 1500\nheartbeat_ms = 1000\nflush_blocks = 2"
"""Shorter than the defaults, so that what depends on rounds and flushes happens often."""


def found_town(folder: Path, tuning: str = TUNING) -> LocalNetwork:
    """Found a network: clerks who pay and write, an auditor who holds, a visitor without roles."""
    return found(folder, RULES, PEOPLE, _wallets(), tuning=tuning)


def found_changing(folder: Path) -> localmembers.Town:
    """Found the same network with a chief at each agency, who agree on changes."""
    return localmembers.found(folder, RULES, PEOPLE, _wallets(), tuning=TUNING)


def _wallets() -> list[OpeningBalance]:
    return [OpeningBalance("wallet", (number,), OPENING) for number in range(2 * WALLETS)]


def home(town: LocalNetwork, agency: str) -> Path:
    """The folder of one agency's node."""
    return town.folder / agency


def data(town: LocalNetwork, agency: str) -> Path:
    """The data folder of one agency's node."""
    return town.folder / agency / "data"


def pair(town: LocalNetwork, agency: str, name: str, kind: KeyKind) -> KeyPair:
    """The key pair in one of an agency's key files, as a thief would have it."""
    return keyfiles.load(town.key_file(agency, name), kind)


@asynccontextmanager
async def client(
    town: LocalNetwork,
    *agencies: str,
    key: Key | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> AsyncIterator[Client]:
    """A client of some agencies' nodes or of all; the first clerk's if no key is given."""
    async with Client.connect(
        town.genesis,
        servers=agencies or None,
        key=key or town.key("treasury", "clerk0"),
        patience_seconds=patience_seconds,
    ) as found_client:
        yield found_client


async def until(condition: Callable[[], object], what: str) -> None:
    """Return once ``condition`` holds; fail after PATIENCE_SECONDS."""

    async def holds() -> object:
        return condition()

    await eventually(holds, what)


async def eventually(condition: Callable[[], Awaitable[T | None]], what: str) -> T:
    """Return what ``condition`` returns once it is true; fail after PATIENCE_SECONDS."""
    with trio.move_on_after(PATIENCE_SECONDS):
        while True:
            value = await condition()
            if value:
                return value
            await trio.sleep(POLL_SECONDS)
    raise AssertionError(f"in {PATIENCE_SECONDS:g} s it never came to this: {what}")


async def page(town: LocalNetwork, agency: str, path: str) -> bytes:
    """The body of a telemetry page; empty when the node does not answer."""
    whole = await trio.to_thread.run_sync(town.http, agency, path)
    return whole.partition(b"\r\n\r\n")[2]


async def status(town: LocalNetwork, agency: str) -> dict[str, Any]:
    """What a node says of itself; empty when it does not answer."""
    body = await page(town, agency, "/readyz")
    return json.loads(body) if body else {}


async def metric(town: LocalNetwork, agency: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that carry these labels."""
    total = 0.0
    for line in (await page(town, agency, "/metrics")).decode().splitlines():
        sample, _, value = line.rpartition(" ")
        head, _, rest = sample.partition("{")
        if head == name and all(f'{k}="{v}"' in rest for k, v in labels.items()):
            total += float(value)
    return total


async def start(town: LocalNetwork, *agencies: str) -> None:
    """Start nodes and wait until they are ready."""
    for agency in agencies:
        town.start(agency)
    for agency in agencies:
        await ready(town, agency)


async def ready(town: LocalNetwork, agency: str) -> None:
    """Wait until a node is ready."""
    await trio.to_thread.run_sync(town.wait_ready, agency)


async def agreed(town: LocalNetwork, *agencies: str, height: int = 0) -> tuple[int, str]:
    """Wait until nodes have certified one same height, at least ``height``; return it and the root.

    Fails at once if two of them have different state roots for one height.
    """
    names = agencies or town.agencies
    seen: dict[int, dict[str, str]] = {}

    async def same() -> tuple[int, str] | None:
        for agency in names:
            said = await status(town, agency)
            if said and said["certified"] >= height:
                seen.setdefault(said["certified"], {})[agency] = said["state_root"]
        for certified, roots in seen.items():
            assert len(set(roots.values())) == 1, f"height {certified} has two states: {roots}"
            if len(roots) == len(names):
                return certified, next(iter(roots.values()))
        return None

    return await eventually(same, f"{', '.join(names)} at one height from {height} on")


async def leader(town: LocalNetwork) -> str:
    """The agency that leads the round in which most nodes are now (round-robin by round)."""
    rounds = [said["round"] for a in town.agencies if (said := await status(town, a))]
    return str(town.agencies[max(rounds) % len(town.agencies)])


def run_node(config: Path, *, seconds: float = 20.0) -> tuple[int, str]:
    """Run a node that is expected to end by itself; return its exit status and what it wrote."""
    done = subprocess.run(
        [sys.executable, "-m", "node", str(config)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    return done.returncode, done.stdout


def fork_node(config: Path, *, seconds: float = 20.0) -> tuple[int, str]:
    """Do what ``run_node`` does, without importing everything anew."""
    log = config.with_name("refusal.log")
    process = forking.origin().start(config, log)
    try:
        return process.wait(seconds), log.read_text(encoding="utf-8")
    finally:
        process.kill()


async def refused(
    config: Path, run: Callable[[Path], tuple[int, str]] = fork_node
) -> tuple[str, str]:
    """Run a node that must refuse to start; return its one error line and its hint.

    It exits with 1, and says no more than that: no traceback.
    """
    status, said = await trio.to_thread.run_sync(run, config)
    assert status == 1, f"exit status {status}: {said}"
    assert "Traceback" not in said, said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    hints = [line for line in said.splitlines() if line.startswith("hint: ")]
    assert len(errors) == 1, said
    return errors[0].removeprefix("error: "), hints[0].removeprefix("hint: ") if hints else ""


def memory_bytes(town: LocalNetwork, agency: str) -> int:
    """The resident size of a node's main process."""
    pages = int(Path(f"/proc/{town.processes[agency].pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def config_path(town: LocalNetwork, agency: str) -> Path:
    """The configuration file of one agency's node."""
    return town.folder / agency / CONFIG_NAME


def kill(town: LocalNetwork, *agencies: str) -> None:
    """Kill nodes with SIGKILL, all before waiting for any."""
    for agency in agencies:
        town.processes[agency].send_signal(signal.SIGKILL)
    for agency in agencies:
        town.processes[agency].wait(10)


def children(pids: Sequence[int]) -> list[int]:
    """Processes whose parent is one of ``pids``."""
    found_pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) in pids:
                found_pids.append(int(entry.name))
    return found_pids
