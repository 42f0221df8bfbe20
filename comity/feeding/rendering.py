"""Values as a check expects them in a copy: from the rule sets' own text, not from the feed.

Not here: what is compared with what (``checking``).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any, Final

from comity.client import Client
from comity.results import Entry
from comity.words import id_word, place_word
from consensus.ledger import rules
from consensus.ledger.layout import SCOPE_MASKS, Paths
from consensus.ledger.rules import Definition
from consensus.ledger.rules.definition import FieldDef, KindDef
from consensus.protocol import StateKey

_SYSTEM_COLUMNS: Final = {"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid", "chain_date"}
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_YEAR_ZERO_DAYS: Final = 366


class Unknown(Exception):
    """Something of a kind, family or state that no rule set has."""


class Rendering:
    """Knows the rule sets and says how a copy should show what is proved."""

    def __init__(self) -> None:
        self._definitions: list[tuple[int, int | None, Definition]] = []
        self._kinds: dict[str, KindDef] = {}
        self._currencies: dict[str, str] = {}
        self._actions: dict[tuple[tuple[str, int], ...], dict[tuple[str, bytes], str]] = {}

    async def load(self, client: Client) -> None:
        """Learn every rule set that ever was to be in force."""
        heads = await client.get("rules")
        for domain in heads.value:
            for each in reversed((await client.rule_history(domain)).numbers):
                if each.from_ms is None:
                    continue
                found = await client.rule_set(domain, each.number)
                if found is None:
                    raise Unknown(f"rule set {domain}#{each.number}")
                self._definitions.append((each.from_ms, each.until_ms, found.definition))
                self._kinds |= dict(found.definition.kinds)
                self._currencies |= {
                    name: family.currency for name, family in found.definition.accounts
                }

    def action(self, domain: str, action_id: bytes, time_ms: int) -> str:
        """Return ``domain.action`` of an action's id, as it was in force at a time."""
        together = [
            each
            for from_ms, until_ms, each in self._definitions
            if from_ms <= time_ms and (until_ms is None or time_ms < until_ms)
        ]
        key = tuple((each.domain, each.number) for each in together)
        if key not in self._actions:
            book = rules.compile_rulebook(together)
            self._actions[key] = {
                (name, action.action_id): action.name
                for name, rule_set in book.rule_sets.items()
                for action in rule_set.actions.values()
            }
        return f"{domain}.{self._actions[key].get((domain, action_id), '?')}"

    def currency(self, family: str) -> str | None:
        """Return the currency of a family of accounts."""
        return self._currencies.get(family)

    def place(self, table: str, id_: str, kh: bytes, paths: Paths) -> StateKey | None:
        """Return the place of plain words, if the key path says that it is it."""
        parts: list[Any] = [_component(each) for each in id_.split("/")] if id_ else []
        kind = table.removeprefix("kind_")
        tried = [StateKey("record", (kind, *parts))]
        if table == "holds":
            tried = [StateKey("hold", tuple(parts))]
        elif table == "accounts":
            tried = [StateKey("account", (name, *parts)) for name in self._currencies]
        for key in tried:
            if paths(key.namespace, key.components) == kh:
                return key
        return None

    # --- versions -------------------------------------------------------------------------------

    def version(self, table: str, entry: Entry) -> dict[str, Any]:
        """Return the columns of a version that is proved.

        Raises:
            Unknown: no rule set has its kind.
        """
        components = entry.key.components
        if entry.key.namespace == "record":
            if table != f"kind_{components[0]}":
                raise Unknown(f"it is a record of kind {components[0]}")
            return self._record(entry)
        if entry.key.namespace == "account":
            _, balance, reserved, held, *_ = entry.value
            return {
                "_id": self.text(id_word(components[1:])),
                "family": components[0],
                "currency": self.currency(components[0]),
                "balance": balance,
                "reserved": reserved,
                "held": _scopes(held),
            }
        _, targets, scopes, placed, until, principal, agency, domain, state, legal, why = (
            entry.value
        )
        return {
            "_id": self.text(id_word(components)),
            "_version": entry.version,
            "targets": [self.text(place_word(space, parts)) for space, parts in targets],
            "scopes": _scopes(scopes),
            "placed": placed,
            "ends": until,
            "principal": principal,
            "agency": agency,
            "domain": domain,
            "state": ("unconfirmed", "confirmed", "released")[state],
            "legal": self.text(legal),
            "reason": self.text(why),
        }

    def _record(self, entry: Entry) -> dict[str, Any]:
        name, *id_ = entry.key.components
        kind = self._kind(name)
        leaves = entry.fields
        creators = [row for row in leaves["by"] or () if row[0] == "created"]
        found: dict[str, Any] = {
            "_id": self.text(id_word(id_)),
            "_version": entry.version,
            "_definition": entry.definition,
            "_created_by": creators[0][1] if creators else None,
            "_created_agency": creators[0][2] if creators else None,
            "_by": self.json(leaves["by"] or []),
            "_basis": self.json(leaves["basis"]),
            "_held": _scopes(leaves["~holds"]) if "~holds" in leaves else None,
            "_versions": dict(entry.versions),
        }
        if kind.status is not None:
            found["status"] = leaves["status"]
        for field, declared in kind.fields:
            found[self._column(kind, field)] = self._field(kind, field, declared, entry)
        return found

    def sealed(self, entry: Entry) -> Iterator[tuple[str, str]]:
        """Yield the columns of a record's sealed fields that it has, each with its leaf."""
        kind = self._kind(entry.key.components[0])
        for field, declared in kind.fields:
            if declared.sealed_for and declared.since <= entry.definition:
                yield self._column(kind, field), declared.group or field

    def _kind(self, name: str) -> KindDef:
        if name not in self._kinds:
            raise Unknown(f"there is no kind {name}")
        return self._kinds[name]

    def _column(self, kind: KindDef, field: str) -> str:
        taken = {name for name, _ in kind.fields} - {field} | _SYSTEM_COLUMNS
        column = field
        while column in taken:
            column = f"{column}_"
        return column

    def _field(self, kind: KindDef, field: str, declared: FieldDef, entry: Entry) -> Any:
        if declared.since > entry.definition:
            return None
        leaf = declared.group or field
        value = entry.fields.get(leaf)
        if declared.group and value is not None:
            members = [
                name
                for name, each in kind.fields
                if each.group == declared.group and each.since <= entry.definition
            ]
            value = value[members.index(field)]
        if value is None:
            return None
        if declared.sealed_for:
            return "sealed"
        base, _, rest = declared.type.partition(":")
        if base == "list":
            return [self._scalar(rest.partition(":")[0], each) for each in value]
        return self._scalar(base, value)

    def _scalar(self, base: str, value: Any) -> Any:
        if base == "ref":
            return self.text(id_word(value))
        if base == "text":
            return self.text(value)
        if base == "commitment":
            return "sealed"
        if base != "month":
            return value
        year, month = value // 12, value % 12 + 1
        if year:
            return date(year, month, 1).toordinal() - _EPOCH_ORDINAL
        same = date(4, month, 1).toordinal() - date(4, 1, 1).toordinal()
        return same + 1 - _YEAR_ZERO_DAYS - _EPOCH_ORDINAL

    # --- words ----------------------------------------------------------------------------------

    def text(self, value: str) -> str:
        """Return text as a database can hold it."""
        return "\u2400".join(value.split("\x00"))

    def json(self, value: Any) -> Any:
        """Return what JSON of a value says when it is read again."""
        match value:
            case bytes():
                return "0x" + value.hex()
            case str():
                return self.text(value)
            case list() | tuple():
                return [self.json(each) for each in value]
            case _:
                return value


def _scopes(mask: int) -> list[str]:
    return [name for name in SCOPE_MASKS if SCOPE_MASKS[name] & mask]


def _component(words: str) -> Any:
    if words.startswith("0x"):
        try:
            return bytes.fromhex(words[2:])
        except ValueError:
            return words
    if words.lstrip("-").isdigit():
        return int(words)
    if words.startswith("[") and words.endswith("]") and "[" not in words[1:]:
        return [_component(each) for each in words[1:-1].split("/")]
    return words.strip('"')
