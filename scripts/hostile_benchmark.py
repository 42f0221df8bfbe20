"""What others still get while somebody is a burden to one node (``bench hostile``).

Four nodes; authors submit transfers to the three that are not attacked, undisturbed and then under
each attack in turn (``tests/network/harness/siege.py``). An attack is a process of its own, on the
same processors: what it takes itself is part of what others lose here.
Attacks by a peer use the keys of a member whose node is stopped; their measure is the rate without
that node.

Not here: the attacks; breaches, which end at once (``tests/network``).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from comity.client import Client
from comity.keys import Key
from scripts.benchmark_load import Load, drive, transfer
from scripts.localnet import ROOT, LocalNetwork

VICTIM = "treasury"
STOLEN = "registry"
CLIENT_ATTACKS = (
    "handshakes", "silent", "trickle", "statuses", "proofs", "unread", "forgeries", "authors",
    "scrapes", "strangers",
)  # fmt: skip
PEER_ATTACKS = ("votes", "blocks", "batches")
CHUNK = 32
IN_FLIGHT = 2
NICE = 19
"""Of the attacker: its machine is elsewhere in life, and it must not take ours."""
WARM_UP_SECONDS = 1.0


def others(agencies: Sequence[str], *but: str) -> list[str]:
    """Return all agencies but some."""
    return [each for each in agencies if each not in but]


@contextmanager
def siege(network: LocalNetwork, attack: str, keys: Sequence[Path]) -> Iterator[None]:
    """Attack the victim for the length of the block."""
    words = [
        "nice",
        "-n",
        str(NICE),
        sys.executable,
        "-m",
        "tests.network.harness.siege",
        attack,
        str(network.folder),
    ]
    process = subprocess.Popen(
        [*words, VICTIM, *map(str, keys)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
        if process.poll() is not None:
            raise SystemExit(f"the attack {attack} ended by itself")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


async def rate(
    network: LocalNetwork, servers: Sequence[str], keys: Sequence[Key], seconds: float, used: int
) -> float:
    """Return transfers a second that are certified for authors at some nodes."""
    per_lane = int(seconds * 6)
    async with trio.open_nursery() as nursery:
        clients: list[Client] = []
        for server, key in zip(servers, keys, strict=False):
            context = Client.connect(network.genesis, servers=[server], key=key)
            clients.append(await nursery.start(_held, context))
        rules = await clients[0].rules()
        load = Load(clients[0].chain, keys, rules.book, rules.time_ms, used)
        lanes = [
            [
                [load.single(author, transfer(author * 1009 + n * CHUNK + i)) for i in range(CHUNK)]
                for n in range(per_lane)
            ]
            for author in range(len(keys))
        ]
        driven = await drive(clients, lanes, seconds, IN_FLIGHT)
        nursery.cancel_scope.cancel()
    return driven.count / driven.seconds


async def _held(context: Any, *, task_status: trio.TaskStatus[Client]) -> None:
    async with context as client:
        task_status.started(client)
        await trio.sleep_forever()


def memory_mib(network: LocalNetwork) -> float:
    """Return the private pages of the victim's main process."""
    pid = network.processes[VICTIM].pid
    resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(
    network: LocalNetwork,
    keys: Sequence[Key],
    hostile: Sequence[Path],
    seconds: float,
    attacks: Sequence[str] = (),
    show: Callable[[str, dict[str, float]], None] = lambda name, figures: None,
) -> dict[str, Any]:
    """Measure every attack, or those named.

    Args:
        keys: of the authors who work.
        hostile: key files of those who attack.
        seconds: of each measurement.
        show: is told each row as it is there.
    """
    wanted = attacks or (*CLIENT_ATTACKS, *PEER_ATTACKS)
    figures: dict[str, Any] = {}
    used = 0

    def one(servers: Sequence[str]) -> float:
        nonlocal used
        used += int(seconds * 6) * CHUNK
        return trio.run(rate, network, servers, keys, seconds, used)

    for group in (CLIENT_ATTACKS, PEER_ATTACKS):
        chosen = [attack for attack in group if attack in wanted]
        if not chosen:
            continue
        gone = (STOLEN,) if group is PEER_ATTACKS else ()
        if gone:
            network.kill(STOLEN)
        servers = others(network.agencies, VICTIM, *gone)
        one(servers)
        for attack in chosen:
            before = one(servers)
            with siege(network, attack, hostile):
                trio.run(trio.sleep, WARM_UP_SECONDS)
                under = one(servers)
                memory = memory_mib(network)
            figures[attack] = {
                "undisturbed_tx_per_s": round(before, 1),
                "tx_per_s": round(under, 1),
                "ratio": round(under / before, 2),
                "victim_mib": round(memory, 1),
            }
            show(attack, figures[attack])
    return {
        "tx_per_s": min(row["tx_per_s"] for row in figures.values()),
        "ratio_min": min(row["ratio"] for row in figures.values()),
        "attacks": figures,
    }
