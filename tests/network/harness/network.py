"""A network whose links go through relays, and whose nodes can have other programs and disks.

Not here: the faults themselves (``relay``, ``launch``, ``disk``).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from comity.founding import CONFIG_NAME
from scripts.localnet import LocalNetwork
from scripts.ports import free_ports
from tests.network.harness.relay import Relays
from tests.network.town import found_town

LAUNCH = "tests.network.harness.launch"


@contextmanager
def relayed_town(folder: Path) -> Iterator[tuple[LocalNetwork, Relays]]:
    """A network that is founded but not started, and the running relays between its nodes."""
    with found_town(folder) as town, relays_between(town) as relays:
        yield town, relays


def relays_between(network: LocalNetwork) -> Relays:
    """Have the nodes of a network that is not started dial relays; return these, not running."""
    pairs = list(itertools.combinations(network.agencies, 2))  # the lower index dials
    ports = dict(zip(pairs, free_ports(len(pairs)), strict=True))
    for dialer in network.agencies:
        lines = [
            f'{acceptor} = "127.0.0.1:{port}"'
            for (one, acceptor), port in ports.items()
            if one == dialer
        ]
        if lines:
            with (network.folder / dialer / CONFIG_NAME).open("a", encoding="utf-8") as file:
                file.write("\n".join(["", "[peers]", *lines, ""]))
    targets = {pair: (port, network.member(pair[1]).peer_port) for pair, port in ports.items()}
    return Relays(targets)


def with_clock(town: LocalNetwork, agency: str, offset_ms: int) -> None:
    """Have a node that is started from now on see another time of day, or the true one."""
    honest(town, agency)
    if offset_ms:
        town.programs[agency] = (LAUNCH, f"--clock={offset_ms}")


def as_liar(town: LocalNetwork, agency: str, seed: int) -> None:
    """Have a node that is started from now on lie to its peers."""
    town.programs[agency] = (LAUNCH, f"--lie={seed}")


def as_attacker(town: LocalNetwork, agency: str, name: str, seed: int = 1) -> None:
    """Have a node that is started from now on be an attacker of ``tests.byzantine``."""
    town.programs[agency] = (LAUNCH, f"--lie={seed}", f"--attack={name}")


def handicapped(town: LocalNetwork, agency: str, *options: str) -> None:
    """Have a node that is started from now on be as ``launch`` understands these options."""
    town.programs[agency] = (LAUNCH, *options)


def honest(town: LocalNetwork, agency: str) -> None:
    """Have a node that is started from now on be as it should be."""
    town.programs.pop(agency, None)
