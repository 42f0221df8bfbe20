"""Writes tests/vectors/disclosure.json: ``python -m tests.consensus.evidence.vectors``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from consensus import codec
from consensus.errors import ComityError
from consensus.evidence.disclosure import Disclosed, verify
from tests.consensus.evidence import forgeries
from tests.consensus.evidence.opened import Town

PATH = Path(__file__).parents[2] / "vectors/disclosure.json"
CUTS = (1, 2, 17, 18, 60, 200, 900)
FLIPS = range(0, 3000, 31)


def splice(base: bytes, changed: bytes) -> dict[str, Any]:
    """Return where two files differ, and what is there in the second."""
    start = 0
    while start < min(len(base), len(changed)) and base[start] == changed[start]:
        start += 1
    end = 0
    longest = min(len(base), len(changed)) - start
    while end < longest and base[-1 - end] == changed[-1 - end]:
        end += 1
    inserted = changed[start : len(changed) - end]
    return {"at": start, "remove": len(base) - end - start, "insert": inserted.hex()}


def shown(found: Disclosed) -> dict[str, Any]:
    """Return what a file shows, as JSON has it."""
    return {
        "height": found.height,
        "time_ms": found.time_ms,
        "items": [
            {
                "disclosure": plain(list(item.disclosure)),
                "current": item.current,
                "height": item.height,
                "fields": [[each.name, each.version, plain(each.value)] for each in item.fields],
                "sealed": [
                    [each.name, place, plain(value)]
                    for each in item.fields
                    for place, value in each.revealed.items()
                ],
            }
            for item in found.items
        ],
    }


def plain(value: Any) -> Any:
    """Return a value as JSON has it: bytes as ``h:…``."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, bytes):
        return f"h:{value.hex()}"
    return [plain(each) for each in value] if isinstance(value, list) else value


def invalid(files: dict[str, bytes], chain: bytes) -> list[dict[str, Any]]:
    """Return every forgery, cuts, and flipped bytes, with the error that each has."""
    changed: list[tuple[str, str, bytes]] = [
        (each.name, each.base, codec.encode(each.edit(codec.parse(files[each.base]))))
        for each in forgeries.FORGERIES
    ]
    whole = files["present"]
    changed += [(f"cut at {at}", "present", whole[:at]) for at in CUTS]
    changed += [("a byte too many", "present", whole + b"\0"), ("twice", "present", whole * 2)]
    changed += [
        (f"byte {at} flipped", "present", forgeries.flip(whole, at))
        for at in FLIPS
        if at < len(whole)
    ]
    rows = []
    for name, base, data in changed:
        try:
            verify(data, chain)
        except ComityError as error:
            row = {"name": name, "base": base, **splice(files[base], data)}
            rows.append({**row, "error": type(error).__name__, "why": error.message})
        else:
            raise AssertionError(name)
    return rows


def build() -> dict[str, Any]:
    """Return the vectors."""
    files, chain = forgeries.files(), Town().chain
    return {
        "chain": chain.hex(),
        "valid": [
            {"name": name, "file": data.hex(), "shows": shown(verify(data, chain))}
            for name, data in files.items()
        ],
        "invalid": invalid(files, chain),
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(build(), indent=1) + "\n", encoding="utf-8")
