"""Results on a terminal: tables for people, one JSON value for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from comity.cli.options import Output
from comity.cli.values import place_word, plain, time_word, word
from comity.results import Decision, Entry, Holds

STYLES = {"applied": "green", "refused": "red", "proposed": "yellow"}


WIDTH: Final = 160
"""Columns of tables that do not go to a terminal."""


def out() -> Console:
    """Return the console of results."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)


def err() -> Console:
    """Return the console of errors and progress."""
    return Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else WIDTH)


def emit(output: Output, value: Any, show: Any) -> None:
    """Print ``value`` as JSON, or ``show`` (a rich renderable) for people."""
    if output.json:
        print(json.dumps(plain(value), ensure_ascii=False, indent=2))
    else:
        out().print(show)


def table(*columns: str, title: str = "") -> Table:
    """Return an empty table."""
    found = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        found.add_column(column, overflow="fold")
    return found


def pairs(rows: Iterable[tuple[str, Any]], title: str = "") -> Table:
    """Return a table of names and values."""
    found = Table(title=title or None, title_justify="left", box=None, show_header=False)
    found.add_column(style="cyan", no_wrap=True)
    found.add_column(overflow="fold")
    for name, value in rows:
        found.add_row(name, value if isinstance(value, Text) else Text(word(value)))
    return found


def decision_value(decision: Decision) -> dict[str, Any]:
    """Return a decision for JSON."""
    return {
        "txid": decision.txid,
        "state": decision.state,
        "code": decision.code,
        "call": decision.call,
        "detail": decision.detail,
        "height": decision.height,
        "index": decision.index,
        "time_ms": decision.time_ms,
        "rules": [list(row) for row in decision.rules],
        "leaves": decision.leaves,
    }


def decision_table(decision: Decision) -> Table:
    """Return a decision for people."""
    outcome = Text(decision.state, style=STYLES[decision.state])
    if decision.code != "APPLIED":
        outcome.append(f" {decision.code}")
    rows: list[tuple[str, Any]] = [("outcome", outcome)]
    if decision.detail is not None:
        rows.append(("detail", decision.detail))
    if decision.call is not None:
        rows.append(("failed call", decision.call))
    rows.append(("transaction", decision.txid))
    rows.append(("position", f"height {decision.height}, index {decision.index}"))
    rows.append(("time", time_word(decision.time_ms)))
    for domain, number, _ in decision.rules:
        rows.append(("rules", f"{domain}#{number}"))
    return pairs(rows)


def entry_value(entry: Entry) -> dict[str, Any]:
    """Return an entry for JSON."""
    found: dict[str, Any] = {
        "place": place_word(entry.key.namespace, entry.key.components),
        "present": entry.present,
        "version": entry.version,
        "changed": entry.changed,
        "height": entry.height,
        "time_ms": entry.time_ms,
    }
    if entry.key.namespace == "record":
        found["fields"] = dict(entry.fields)
        found["versions"] = dict(entry.versions)
    else:
        found["value"] = entry.value
    return found


def entry_table(entry: Entry) -> Table:
    """Return an entry for people."""
    where = place_word(entry.key.namespace, entry.key.components)
    shown_at = f"as of height {entry.height}, {time_word(entry.time_ms)}"
    if not entry.present:
        return pairs([("", Text("absent", style="yellow")), ("proved", shown_at)], where)
    rows: list[tuple[str, Any]] = []
    if entry.key.namespace == "record":
        rows += [
            (name, f"{word(value, short=True)}  v{entry.versions[name]}")
            for name, value in entry.fields.items()
        ]
    else:
        rows.append(("value", word(entry.value, short=True)))
    rows.append(("version", f"{entry.version}, changed at height {entry.changed}"))
    rows.append(("proved", shown_at))
    return pairs(rows, where)


def holds_value(holds: Holds) -> dict[str, Any]:
    """Return holds for JSON."""
    return {
        "target": place_word(holds.target.namespace, holds.target.components),
        "height": holds.height,
        "time_ms": holds.time_ms,
        "holds": [
            {
                "id": each.id,
                "scopes": list(each.scopes),
                "placed_ms": each.placed_ms,
                "until_ms": each.until_ms,
                "agency": each.agency,
                "principal": each.principal,
                "state": each.state,
                "reason": each.reason,
            }
            for each in holds.holds
        ],
    }


def holds_table(holds: Holds) -> Table:
    """Return holds for people."""
    where = place_word(holds.target.namespace, holds.target.components)
    shown_at = f"as of height {holds.height}, {time_word(holds.time_ms)}"
    if not holds.holds:
        return pairs([("", "no hold"), ("proved", f"complete {shown_at}")], where)
    found = table(
        "scopes", "agency", "placed", "until", "reason", "id", title=f"{where}, {shown_at}"
    )
    for each in holds.holds:
        until = "released" if each.until_ms is None else time_word(each.until_ms)
        found.add_row(
            " ".join(each.scopes),
            each.agency,
            time_word(each.placed_ms),
            until,
            each.reason,
            each.id.hex()[:16],
        )
    return found


def decisions_table(rows: Sequence[Decision]) -> Table:
    """Return several decisions for people."""
    found = table("height", "index", "time", "outcome", "actions", "transaction")
    for each in rows:
        outcome = Text(each.code.lower() if each.applied else each.code, style=STYLES[each.state])
        found.add_row(
            str(each.height),
            str(each.index),
            time_word(each.time_ms),
            outcome,
            " ".join(f"{domain}#{number}" for domain, number, _ in each.rules),
            each.txid.hex(),
        )
    return found
