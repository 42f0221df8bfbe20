"""What a disclosure file shows, in words and for JSON; and ``comity verify`` of one.

Not here: the checks (``consensus.evidence.disclosure``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.text import Text

from comity.cli import show
from comity.cli.options import Output
from comity.cli.values import time_word
from comity.words import place_word, word
from consensus.codec import Value
from consensus.errors import VerificationError
from consensus.evidence.disclosure import Disclosed, Field, Shown, verify
from consensus.evidence.stages import FailedError
from consensus.ledger.disclosures import PARTY, PRINCIPAL
from consensus.ledger.model import WHOLE


def verify_disclosure(
    data: bytes,
    chain: bytes,
    output: Output,
    *,
    reader: str | None = None,
    strict: bool = False,
    oldest_ms: int | None = None,
) -> int:
    """Say what a disclosure file proves; return the exit status.

    Args:
        reader: who looks at it, as ``agency:NAME``, ``principal:0x…`` or a name.
        strict: a file for others, or that is over, is not valid.
        oldest_ms: chain time before which it must not stand.

    Raises:
        DecodeError: it is malformed.
    """
    try:
        found = verify(data, chain)
    except VerificationError as error:
        hint = FailedError.advice if error.hint == error.advice else error.hint
        return _invalid(output, error.message, hint)
    if oldest_ms is not None and found.time_ms < oldest_ms:
        said = f"it is as of {time_word(found.time_ms)}, older than you allow"
        return _invalid(output, said, "ask for it anew with `comity disclosed`")
    warnings = _warnings(found, reader)
    if strict and warnings:
        return _invalid(output, warnings[0], "without --strict this is a warning")
    if strict and reader is None:
        named = audience_word(found.items[0].disclosure.audience)
        said = f"it is meant for {named}, and you have not said who you are"
        return _invalid(output, said, "say it with --as")
    show.emit(output, _value(found, warnings), _report(found, warnings))
    return 0


def _invalid(output: Output, message: str, hint: str) -> int:
    rows = [("because", message), ("", hint)]
    value = {"valid": False, "message": message, "hint": hint}
    show.emit(output, value, show.titled("NOT VALID", show.pairs(rows)))
    return 1


def _warnings(found: Disclosed, reader: str | None) -> list[str]:
    warnings: list[str] = []
    now_ms = time.time_ns() // 1_000_000
    for item in found.items:
        act = item.disclosure
        if reader is not None and not _is_reader(act.audience, reader):
            warnings.append(f"it is meant for {audience_word(act.audience)}, not for {reader}")
        if not act.lasts(now_ms):
            warnings.append(f"it was to be used until {time_word(act.until_ms)}")
    return list(dict.fromkeys(warnings))


def _is_reader(audience: Sequence[Value], reader: str) -> bool:
    what, who = audience
    names = [f"0x{who.hex()}", who.hex()] if what == PRINCIPAL else [str(who)]
    return reader in (*names, *(f"{what}:{each}" for each in names))


def audience_word(audience: Sequence[Value], *, short: bool = False) -> str:
    """Return an audience as people write it."""
    what, who = audience
    return str(who) if what == PARTY else f"{what} {word(who, short=short)}"


def revealed(shown: Field) -> Value:
    """Return the value of what is shown, with sealed values in the place of their commitments."""
    if WHOLE in shown.revealed:
        return shown.revealed[WHOLE]
    if not shown.revealed:
        return shown.value
    return [shown.revealed.get(at, each) for at, each in enumerate(shown.value)]


def disclosure_rows(item: Shown) -> list[tuple[str, Any]]:
    """Return what one disclosure opened, for people."""
    act = item.disclosure
    place = place_word("record", [act.kind, *act.record])
    shown = f"{place} v{act.version}" + ("" if item.current else ", which has changed since")
    return [
        ("record", shown),
        *((f"  {each.name}", f"{word(revealed(each))}  (v{each.version})") for each in item.fields),
        ("opened to", audience_word(act.audience)),
        ("for", act.purpose),
        ("on", act.legal),
        ("by", f"principal {word(act.principal, short=True)} of {act.agency}"),
        ("at", f"{time_word(act.made_ms)}, until {time_word(act.until_ms)}"),
        ("disclosure", word(act.id)),
    ]


def disclosure_value(item: Shown) -> dict[str, Any]:
    """Return what one disclosure opened, for JSON."""
    act = item.disclosure
    return {
        "id": act.id,
        "kind": act.kind,
        "record": act.record,
        "version": act.version,
        "current": item.current,
        "fields": {each.name: revealed(each) for each in item.fields},
        "field_versions": {each.name: each.version for each in item.fields},
        "audience": act.audience,
        "purpose": act.purpose,
        "legal": act.legal,
        "made_ms": act.made_ms,
        "until_ms": act.until_ms,
        "principal": act.principal,
        "agency": act.agency,
    }


def _report(found: Disclosed, warnings: Sequence[str]) -> Any:
    rows: list[tuple[str, Any]] = []
    for item in found.items:
        rows += disclosure_rows(item)
    rows.append(("as of", f"height {found.height}, {time_word(found.time_ms)}"))
    rows += [("warning", Text(each, style="yellow")) for each in warnings]
    count = "a disclosure" if len(found.items) == 1 else f"{len(found.items)} disclosures"
    return show.titled(f"VALID   {count} on network {found.network}", show.pairs(rows))


def _value(found: Disclosed, warnings: Sequence[str]) -> dict[str, Any]:
    return {
        "valid": True,
        "network": found.network,
        "height": found.height,
        "time_ms": found.time_ms,
        "disclosures": [disclosure_value(each) for each in found.items],
        "warnings": list(warnings),
    }
