"""Measure what distance between sites, and more validators, do: ``scripts/bench capacity``.

    delay_N_ms      four validators, N milliseconds one way between any two of them
    relays_0_ms     the same through relays that delay nothing: what the relays themselves take
    validators_N    so many of them, on this machine's loopback

Every case is a network of its own. It is driven at a hundred transactions a second, then as fast as
it goes. All validators, the clients and, where there is a delay, the relays share this machine's
processors: what a validator uses for a transaction is the figure that carries over to others.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from scripts.localnet import AGENCIES, LocalNetwork
from tests.network.harness.network import relays_between

DELAYS_MS: Final = (0, 10, 50, 150)
SIZES: Final = (4, 7, 10)
MORE: Final = ("health", "labour", "land", "justice", "transport", "education")

Case = Callable[[Path, Sequence[str], int | None, float], tuple[dict[str, Any], dict[str, Any]]]
"""Takes an empty folder, agencies, delay and seconds; gives the figures at full and light load."""


def measure(case: Case, seconds: float) -> dict[str, Any]:
    """Return the figures of every case.

    Args:
        seconds: how long each of the two loads lasts in each case.
    """
    names = (*AGENCIES, *MORE)
    cases: dict[str, tuple[Sequence[str], int | None]] = {
        f"delay_{delay}_ms": (names[:4], delay or None) for delay in DELAYS_MS
    }
    cases["relays_0_ms"] = (names[:4], 0)
    cases |= {f"validators_{size}": (names[:size], None) for size in SIZES if size > len(AGENCIES)}
    return {
        name: _figures(case, agencies, delay, seconds) for name, (agencies, delay) in cases.items()
    }


def _figures(
    case: Case, agencies: Sequence[str], delay_ms: int | None, seconds: float
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="comity-bench-", dir="/var/tmp") as temporary:
        full, light = case(Path(temporary) / "network", agencies, delay_ms, seconds)
    used = full["stages"]
    return {
        "tx_per_s": full["tx_per_s"],
        "full_p50_ms": full["p50_ms"],
        "light_p50_ms": light["p50_ms"],
        "light_p99_ms": light["p99_ms"],
        "node_us_per_tx": used["node_us_per_tx_and_replica"],
        "workers_us_per_tx": used["workers_us_per_tx_and_replica"],
        "memory_mib": full["memory_mib"],
    }


@contextmanager
def apart(network: LocalNetwork, delay_ms: int | None) -> Iterator[None]:
    """Have the nodes of a network that is not started be so far apart, one way; None: no relays."""
    if delay_ms is None:
        yield
        return
    with relays_between(network) as relays:
        for sender, receiver in itertools.permutations(network.agencies, 2):
            relays.slow(sender, receiver, delay_ms / 1000)
        yield
