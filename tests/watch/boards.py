"""What the dashboards' own queries find in a real network: a panel that stays empty is a fault.

Not here: whether queries fit the catalogue (``tests/test_watch.py``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from scripts.localnet import ROOT
from tests.watch.prometheus import Prometheus

BOARDS = ROOT / "deploy" / "grafana"
VALUES = {"$__rate_interval": "10s", "$__range": "1m", "$agency": ".+", "$domain": ".+"}
QUIET = {
    "Alerts that fire",
    "Batches dropped, a second",
    "Holds placed and released, an hour",
    "How proposals ended, a day",
    "Refusals in the time shown, by domain and code",
    "Time to decision, one in twenty takes longer",
    "Time to decision, the middle one of a day",
}
"""Panels that show what happens rarely, and are empty while nothing of it has."""


def queries() -> Iterator[tuple[str, str]]:
    """Every query of every dashboard, for all agencies and domains, with where it stands."""
    for place in sorted(BOARDS.glob("*.json")):
        for panel in json.loads(place.read_text("utf-8"))["panels"]:
            for target in panel.get("targets") or ():
                expr = target["expr"].replace('agency="$agency"', 'agency=~"$agency"')
                for name, value in VALUES.items():
                    expr = expr.replace(name, value)
                yield f"{place.stem}: {panel['title']}", expr


def empty(prometheus: Prometheus) -> list[str]:
    """Panels that must show something and of which no query finds anything."""
    found: dict[str, bool] = {}
    for where, expr in queries():
        found[where] = found.get(where, False) or bool(prometheus.value(expr))
    return [
        where for where, any_ in found.items() if not any_ and where.partition(": ")[2] not in QUIET
    ]
