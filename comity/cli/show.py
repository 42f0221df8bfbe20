"""Results on a terminal: tables for people, one JSON value for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from comity.cli.options import Output
from comity.cli.refusals import sentence
from comity.cli.streams import write_json
from comity.cli.values import date_word, plain, time_word
from comity.results import Decision, Entry, Holds, Listing
from comity.words import id_word, nearest, place_word, visible, word
from consensus.codec import Value
from consensus.errors import DecodeError
from consensus.ledger import layout
from consensus.ledger.kernel.committee import decode_changes
from consensus.ledger.model import Kind, Rulebook
from consensus.ledger.types import CHANGES, Type
from consensus.place import StateKey
from consensus.state.record import HOLDS

STYLES: Final = {"applied": "green", "refused": "red", "proposed": "yellow"}
HOLD_STATES: Final = ("unconfirmed", "confirmed", "released")
STATUS_WORDS: Final = {
    "agency": ("active", "suspended"),
    "grant": ("active", "revoked"),
    "key": ("active",),
    "principal": ("active", "suspended"),
    "role": ("active", "revoked"),
}
KERNEL_SHAPES: Final[dict[str, Any]] = {
    "agency": layout.Agency,
    "grant": layout.Grant,
    "hold": layout.Hold,
    "key": layout.Key,
    "principal": layout.Principal,
    "reservation": layout.Reservation,
    "review": layout.Review,
    "role": layout.Role,
}
HOLDS_HEAD: Final = 2
"""Items of the leaf that counts the holds on a target."""
RESERVATION_STATES: Final = ("reserved", "posted", "voided")
INPUT_BYTES_MAX: Final = 64
"""Bytes of an input that are shown in full; what is longer is a rule set or evidence."""
WHOLE: Final = ("grant", "id", "proposal", "review", "transaction")
"""Columns that people copy from: whole on one line where the lines are not a terminal's."""
Actions = Mapping[bytes, str]
"""Names of the actions in force by their id."""
WIDTH: Final = 160
"""Columns of tables that do not go to a terminal."""


class _Console(Console):
    """A console that shows texts of others and never obeys them."""

    _inside = False
    """Parts of what is rendered are left as they are: longer ones would be cut to their places."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        if self._inside:
            yield from super().render(renderable, options)
            return
        self._inside = True
        try:
            for each in super().render(renderable, options):
                yield each if each.control else Segment(visible(each.text), each.style)
        finally:
            self._inside = False


def out() -> Console:
    """Return the console of results."""
    return _Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)


def err() -> Console:
    """Return the console of errors and progress."""
    return _Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else WIDTH)


def emit(output: Output, value: Any, show: Any) -> None:
    """Print ``value`` as JSON, or ``show`` (a rich renderable) for people."""
    if output.json:
        write_json(plain(value), indent=2)
    else:
        out().print(show)


def line(value: Any) -> None:
    """Print one JSON value on one line, for programs that follow."""
    write_json(plain(value))


def table(*columns: str) -> Table:
    """Return an empty table."""
    found = Table(box=None, pad_edge=False)
    for column in columns:
        whole = column in WHOLE and not sys.stdout.isatty()
        found.add_column(column, overflow="fold", no_wrap=whole)
    return found


def pairs(rows: Iterable[tuple[str, Any]]) -> Table:
    """Return a table of names and values."""
    found = Table(box=None, pad_edge=False, show_header=False)
    found.add_column(style="cyan", no_wrap=True)
    found.add_column(overflow="fold")
    for name, value in rows:
        found.add_row(name, value if isinstance(value, Text) else Text(word(value)))
    return found


def titled(title: str, body: Any, foot: str = "") -> Group:
    """Return something under a line of its own, which is never broken into the table's width."""
    rows = [Text(title, style="bold"), body]
    return Group(*rows, Text(foot)) if foot else Group(*rows)


def decision_value(decision: Decision) -> dict[str, Any]:
    """Return a decision for JSON."""
    return {
        "txid": decision.txid,
        "state": decision.state,
        "code": decision.code,
        "call": decision.call,
        "detail": decision.detail,
        "message": sentence(decision.code, decision.detail),
        "height": decision.height,
        "index": decision.index,
        "time_ms": decision.time_ms,
        "rules": [list(row) for row in decision.rules],
        "leaves": decision.leaves,
    }


def names_in(book: Rulebook) -> dict[bytes, str]:
    """Return the names of actions by their id, which is a hash of all that they are."""
    return {
        action.action_id: action.name
        for rule_set in book.rule_sets.values()
        for action in rule_set.actions.values()
    }


def decision_table(decision: Decision, actions: Actions) -> Table:
    """Return a decision for people."""
    outcome = Text(decision.state, style=STYLES[decision.state])
    if decision.state == "refused":
        outcome.append(f" {decision.code}")
    rows: list[tuple[str, Any]] = [("outcome", outcome)]
    why = sentence(decision.code, decision.detail)
    if why:
        rows.append(("because", why))
    if decision.call is not None and len(decision.rules) > 1:
        rows.append(("failed call", decision.call))
    rows += [("action", name) for name in _action_names(decision, actions)]
    rows += _approvals(decision)
    rows.append(("transaction", decision.txid))
    rows.append(("position", f"height {decision.height}, index {decision.index}"))
    rows.append(("time", time_word(decision.time_ms)))
    return pairs(rows)


def _approvals(decision: Decision) -> list[tuple[str, Any]]:
    """Return who approved, in which role, as far as the decision shows it."""
    authority = decision.leaves.get("authority")
    if not authority or len(authority) < 4:
        return []
    author, _, approvers, filled = authority
    rows = dict.fromkeys((at, power[0]) for _, _, at, power in filled)
    people = (author, *approvers)
    return [("approved by", f"{word(people[at][0], short=True)} as {role}") for at, role in rows]


def _action_names(decision: Decision, actions: Actions) -> list[str]:
    found = []
    for domain, number, action_id in decision.rules:
        name = actions.get(action_id)
        found.append(f"{domain}.{name} (rules {number})" if name else f"{domain} (rules {number})")
    return found


def listing_value(
    page: Listing, fields: Sequence[Mapping[str, Value]] | None = None
) -> dict[str, Any]:
    """Return a list for JSON; ``fields`` are those of each record that were asked for."""
    return {
        "kind": page.kind,
        "by": None if page.index is None else {page.index: page.value},
        "proved": page.proved,
        "height": page.height,
        "time_ms": page.time_ms,
        "total": page.total,
        "ids": page.ids,
        "fields": fields,
        "next": _cursor_word(page),
    }


def listing_table(
    page: Listing,
    value: str,
    fields: Sequence[Mapping[str, Value]] | None = None,
    kind: Kind | None = None,
) -> Group | Text:
    """Return a list for people.

    Args:
        page: what is listed.
        value: of an index, as it was written.
        fields: of each record, where some were asked for.
        kind: of the records, then.
    """
    places = [place_word("record", (page.kind, *id_)) for id_ in page.ids]
    if page.index is None:
        title = (
            f"{page.kind}: {len(places)} from one node's index at height {page.height}, not proved"
        )
    else:
        many = (
            f"all {page.total}" if len(places) == page.total else f"{len(places)} of {page.total}"
        )
        title = f"{page.kind} by {page.index} {value}: {many} at height {page.height}, proved"
    more = _cursor_word(page)
    foot = "" if more is None else f"more: --after '{more}'"
    if not places:
        return Text(title)
    if not fields:
        return titled(title, Text("\n".join(places), overflow="fold"), foot)
    shown = table(page.kind, *fields[0])
    types = {} if kind is None else {name: each.type for name, each in kind.fields.items()}
    for where, row in zip(places, fields, strict=True):
        words = [typed_word(each, types.get(name)) for name, each in row.items()]
        shown.add_row(where, *words)
    return titled(title, shown, foot)


def _cursor_word(page: Listing) -> str | None:
    if page.next is None:
        return None
    if page.index is None:
        return id_word(page.next)
    return "@".join(map(str, page.next))


def entry_value(entry: Entry, book: Rulebook | None) -> dict[str, Any]:
    """Return an entry for JSON; ``book`` tells how much of an account may be spent."""
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
    if entry.key.namespace == "account" and entry.present:
        found["balance"], found["reserved"] = entry.value[1], entry.reserved
        found["available"] = _available(entry, book)
    return found


def _available(entry: Entry, book: Rulebook | None) -> int | None:
    """Return what of an account may be debited or reserved; None where its floor is not known."""
    family = None if book is None else book.families.get(str(entry.key.components[0]))
    if family is None:
        return None
    return int(entry.value[1]) - entry.reserved - family.floor


def entry_table(
    entry: Entry, book: Rulebook | None, sealed: Mapping[str, str] | None = None
) -> Group:
    """Return an entry for people; ``book`` tells what its numbers mean.

    Args:
        sealed: what is shown of sealed fields, by leaf.
    """
    rows: list[tuple[str, Any]]
    where = place_word(entry.key.namespace, entry.key.components)
    shown_at = f"height {entry.height}, {time_word(entry.time_ms)}"
    if not entry.present:
        unknown = unknown_kind(entry.key, book)
        rows = [("kind", unknown)] if unknown else []
        return titled(f"{where}: absent", pairs([*rows, ("proved at", shown_at)]))
    rows = [
        *(
            _record_rows(entry, book, [*entry.fields], sealed or {}, versions=True)
            if entry.key.namespace == "record"
            else _kernel_rows(entry, book)
        ),
        ("version", f"{entry.version}, changed at height {entry.changed}"),
        ("proved at", shown_at),
    ]
    return titled(where, pairs(rows))


def unknown_kind(key: StateKey, book: Rulebook | None) -> str:
    """Return what is to be said where no rules in force have the kind of a place; else ""."""
    if key.namespace != "record" or book is None or key.components[0] in book.kinds:
        return ""
    meant = nearest(str(key.components[0]), book.kinds)
    return "no rules in force have it" + (f"; {meant}" if meant else "")


def entry_rows(entry: Entry, book: Rulebook | None, names: Sequence[str]) -> list[tuple[str, str]]:
    """Return what an entry says, as words: of a record the fields ``names``, of others all."""
    if entry.key.namespace == "record":
        found = _record_rows(entry, book, names, {})
    else:
        found = _kernel_rows(entry, book)
    return [(name, said if isinstance(said, str) else word(said)) for name, said in found]


def _record_rows(
    entry: Entry,
    book: Rulebook | None,
    names: Sequence[str],
    sealed: Mapping[str, str],
    *,
    versions: bool = False,
) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    kind = None if book is None else book.kinds.get(str(entry.key.components[0]))
    for name, value in entry.fields.items():
        if name not in names:
            continue
        field = None if kind is None else kind.fields.get(name)
        said = typed_word(value, None if field is None else field.type)
        said = sealed.get(name, said)
        if name == HOLDS:
            rows.append(("holds", scopes_word(value)))
            continue
        if name == "by" and isinstance(value, list):
            said = ", ".join(f"{step} by {agency}" for step, _, agency in value)
        rows.append((name, f"{said}  (v{entry.versions[name]})" if versions else said))
    return rows


def typed_word(value: Value, kind: Type | None) -> str:
    """Return a field's value for people, on one line, as it is written as an input if it can be."""
    if isinstance(value, list) and kind is not None and kind.base == "list":
        return "[" + ", ".join(typed_word(each, kind.item) for each in value) + "]"
    if not isinstance(value, int) or kind is None:
        return word(value, short=True)
    match kind.base:
        case "month":
            return f"{value // 12:04}-{value % 12 + 1:02}"
        case "date":
            return date_word(value)
        case "time":
            return time_word(value)
        case "money":
            return f"{value} {kind.argument} (minor units)"
    return word(value)


def input_word(value: Value, kind: Type | None) -> str:
    """Return an input for whoever is to consent to it: times and months in words, ids in full."""
    if isinstance(value, bytes) and kind is not None and kind.base == CHANGES:
        return changes_word(value)
    if isinstance(value, bytes) and len(value) > INPUT_BYTES_MAX:
        return f"{len(value)} bytes, {word(value, short=True)}"
    if isinstance(value, int | list) and kind is not None and kind.base not in ("ref", "sealed"):
        return typed_word(value, kind)
    return word(value)


def changes_word(data: bytes) -> str:
    """Return changes of the committee for whoever is to consent to them."""
    from comity.members import wanted_words

    try:
        return "\n".join(wanted_words(decode_changes(data)))
    except DecodeError as error:
        return f"not in order: {error.message}"


def _principal_word(kind: int) -> str:
    from comity.authority import KINDS

    return KINDS[kind]


def _kernel_rows(entry: Entry, book: Rulebook | None) -> list[tuple[str, Any]]:
    if entry.key.namespace == "account":
        return _account_rows(entry, book)
    if entry.key.namespace == "holds" and len(entry.value) == HOLDS_HEAD:
        count, mask = entry.value
        return [("holds", word(count)), ("scopes", scopes_word(mask))]
    shape = KERNEL_SHAPES.get(entry.key.namespace)
    if shape is None or len(entry.value) != len(shape._fields):
        return [("value", word(entry.value, short=True))]
    rows = []
    for name, value in zip(shape._fields, entry.value, strict=True):
        if name.endswith("_ms"):
            rows.append((name.removesuffix("_ms"), "-" if value is None else time_word(value)))
        elif name in ("held", "scopes"):
            rows.append((name, scopes_word(value)))
        elif name == "state" and entry.key.namespace == "reservation":
            rows.append((name, _state_word(entry)))
        elif name == "kind" and entry.key.namespace == "principal":
            rows.append((name, _principal_word(value)))
        elif name == "status":
            rows.append((name, _status_word(entry, value)))
        else:
            rows.append((name, word(value, short=True)))
    return rows


def _account_rows(entry: Entry, book: Rulebook | None) -> list[tuple[str, Any]]:
    """Return an account as of the entry's time: what has expired is not reserved any more."""
    account = layout.Balance(*entry.value)
    family = None if book is None else book.families.get(str(account.id[0]))

    def said(amount: int) -> str:
        return (
            word(amount) if family is None else typed_word(amount, Type("money", family.currency))
        )

    rows: list[tuple[str, Any]] = [
        ("id", word(account.id, short=True)),
        ("balance", said(account.balance)),
        ("reserved", said(entry.reserved)),
    ]
    for until_ms, amount in account.expiring:
        if until_ms > entry.time_ms:
            rows.append((f"  until {time_word(until_ms)}", said(amount)))
    available = _available(entry, book)
    if available is not None:
        rows.append(("available", said(available)))
    return [*rows, ("held", scopes_word(account.held))]


def _state_word(entry: Entry) -> str:
    """Return what became of a reservation; one that expired has not been written since."""
    found = layout.Reservation(*entry.value)
    if found.state == layout.RESERVED and not found.lasts(entry.time_ms):
        return "expired"
    return RESERVATION_STATES[found.state]


def _status_word(entry: Entry, status: int) -> str:
    """Return what a status says; a key that was replaced ends by itself, so it goes by the time."""
    if entry.key.namespace == "key":
        return layout.Key(*entry.value).fault(entry.time_ms) or STATUS_WORDS["key"][layout.ACTIVE]
    return STATUS_WORDS[entry.key.namespace][status]


def scopes_word(mask: int) -> str:
    """Return scopes of holds for people."""
    return ", ".join(name for name, bit in layout.SCOPE_MASKS.items() if mask & bit) or "none"


def holds_value(holds: Holds) -> dict[str, Any]:
    """Return holds for JSON."""
    return {
        "target": place_word(holds.target.namespace, holds.target.components),
        "height": holds.height,
        "time_ms": holds.time_ms,
        "holds": [
            {
                "id": each.id,
                "targets": [place_word(at.namespace, at.components) for at in each.targets],
                "scopes": list(each.scopes),
                "placed_ms": each.placed_ms,
                "until_ms": each.until_ms,
                "agency": each.agency,
                "principal": each.principal,
                "domain": each.domain,
                "state": each.state,
                "legal": each.legal,
                "reason": each.reason,
            }
            for each in holds.holds
        ],
    }


def holds_table(holds: Holds) -> Group:
    """Return holds for people."""
    where = place_word(holds.target.namespace, holds.target.components)
    shown_at = f"proved complete at height {holds.height}, {time_word(holds.time_ms)}"
    if not holds.holds:
        return titled(f"{where}: no hold", Text(shown_at))
    found = table("scopes", "agency", "state", "placed", "until", "rests on", "reason", "id")
    for each in holds.holds:
        until = "open" if each.until_ms is None else time_word(each.until_ms)
        found.add_row(
            " ".join(each.scopes),
            each.agency,
            HOLD_STATES[each.state],
            time_word(each.placed_ms),
            until,
            each.legal,
            each.reason,
            word(each.id),
        )
    return titled(where, found, shown_at)


def decisions_table(rows: Sequence[Decision], actions: Actions) -> Table:
    """Return several decisions for people."""
    found = table("height", "index", "time", "outcome", "actions", "transaction")
    for each in rows:
        outcome = Text(each.code.lower() if each.applied else each.code, style=STYLES[each.state])
        found.add_row(
            str(each.height),
            str(each.index),
            time_word(each.time_ms),
            outcome,
            "\n".join(_action_names(each, actions)),
            word(each.txid),
        )
    return found
