"""What size, distance and cores do to a network, by two formulas; and how far measurements are off.

    python -m scripts.capacity_model capacity.json      (of scripts/bench capacity --json)

Latency of a lone transaction, D milliseconds one way between any two validators:

    L(D) = L(0) + 5 D

one D until the batch is at the leader, one on average until the leader's next block (a block comes
every 2 D), and three from the block to its certificate: proposal, vote, commit vote. L(0) is all
that is no distance: processors, disks, links.

Transactions a second where n validators and the clients share C cores:

    X = U C / (n (m + w) + c)

m and w are the processor time that the main process and the workers of one validator take for a
transaction, c what its client takes; U is the share of the cores that work, the rest is waited
away. On machines of their own nothing is shared, and two things bound each validator:

    X = min(1 / m, V / w)         V verifier processes, each on a core of its own

Not here: disks and lines, which docs/capacity.md adds up.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

DELAYS_PER_DECISION: Final = 5
USED_SHARE: Final = 0.85
"""U, as it comes out best for 4, 7 and 10 validators on two cores."""
CLIENT_US: Final = 53.0
"""c of a transfer, from docs/performance.md."""


def latency_ms(near_ms: float, delay_ms: float) -> float:
    """Return L(D)."""
    return near_ms + DELAYS_PER_DECISION * delay_ms


def shared_per_s(
    cores: int, size: int, node_us: float, workers_us: float, client_us: float = CLIENT_US
) -> float:
    """Return X on one machine."""
    return USED_SHARE * cores * 1e6 / (size * (node_us + workers_us) + client_us)


def apart_per_s(node_us: float, workers_us: float, verifiers: int) -> float:
    """Return the bound of validators on machines of their own."""
    return min(1e6 / node_us, verifiers * 1e6 / workers_us)


def compared(figures: Mapping[str, Any]) -> list[tuple[str, str, float, float]]:
    """Return ``(case, what, measured, by the formula)`` of what was measured.

    Distances are counted from the relays without delay, where those were measured.
    """
    cores = figures["machine"]["cores"]
    near = figures.get("relays_0_ms", figures["delay_0_ms"])["light_p50_ms"]
    found = []
    for name, each in figures.items():
        what, _, rest = name.partition("_")
        if what == "delay" and name != "delay_0_ms":
            model = latency_ms(near, int(rest.removesuffix("_ms")))
            found.append((name, "light_p50_ms", each["light_p50_ms"], model))
        elif what == "validators" or name == "delay_0_ms":
            size = int(rest) if what == "validators" else 4
            model = shared_per_s(cores, size, each["node_us_per_tx"], each["workers_us_per_tx"])
            found.append((name, "tx_per_s", each["tx_per_s"], model))
    return found


def main() -> int:
    """Print measured figures, those of the formulas, and by how much these are off."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="JSON of scripts/bench capacity")
    figures = json.loads(parser.parse_args().file.read_text(encoding="utf-8"))
    for name, what, measured, model in compared(figures):
        off = (model / measured - 1) * 100
        print(f"{name:16} {what:14} {measured:10,.1f} {model:10,.1f} {off:+6.0f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
