"""Kinds, account families and actions of every rule set that was ever in force, proved.

Decisions name an action by its hash, and old records were laid out by old definitions, so a copy
that begins at the founding needs them all. Rule sets are compiled as they were in force together.

Not here: how a table looks (``tables``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from comity.changes import ChangedHeight
from comity.client import Client
from comity.feeding.errors import CopyDamagedError
from comity.feeding.tables import FIXED, Table, table_of
from comity.rulesets import Adopted
from consensus.ledger import rules
from consensus.ledger.model import AccountFamily, Kind
from consensus.ledger.rules import Definition

ACTIVATED: Final = "activated"


@dataclass(slots=True)
class Catalogue:
    """What is known of rule sets; ``load`` learns what there is."""

    kinds: dict[str, Kind] = field(default_factory=dict)
    families: dict[str, AccountFamily] = field(default_factory=dict)
    actions: dict[tuple[str, bytes], str] = field(default_factory=dict)
    """Name of an action by domain and action id."""
    _definitions: dict[tuple[str, int], Definition] = field(default_factory=dict)
    _compiled: dict[tuple[tuple[str, int], ...], None] = field(default_factory=dict)

    def tables(self) -> tuple[Table, ...]:
        """Return all tables of a copy."""
        return (*FIXED, *(table_of(kind) for kind in self.kinds.values()))

    def lacks(self, height: ChangedHeight) -> bool:
        """Return whether a height speaks of rules that are not known."""
        for entry in height.entries.values():
            if entry.present and not self._knows(
                entry.key.namespace, entry.key.components[0], entry.definition
            ):
                return True
        return any(
            (domain, action_id) not in self.actions
            for decision in height.height.decisions or ()
            for domain, _, action_id in decision.rules
        )

    def _knows(self, space: str, name: object, definition: int) -> bool:
        if space == "record":
            kind = self.kinds.get(str(name))
            return kind is not None and definition <= len(kind.places)
        return space != "account" or name in self.families

    async def load(self, client: Client) -> None:
        """Learn every rule set that was, is or will be in force, as of the newest height.

        Raises:
            ComityError: the network does not tell.
        """
        root = await client.get("rules")
        adopted: list[Adopted] = []
        for domain in root.value or ():
            history = await client.rule_history(domain)
            adopted += [each for each in history.numbers if each.state == ACTIVATED]
        for each in adopted:
            place = (each.domain, each.number)
            if place not in self._definitions:
                found = await client.rule_set(*place)
                if found is None:
                    raise CopyDamagedError(f"rule set {each.domain}#{each.number} is gone")
                self._definitions[place] = found.definition
        for moment in sorted({each.from_ms for each in adopted if each.from_ms is not None}):
            self._compile(
                tuple((each.domain, each.number) for each in adopted if each.in_force(moment))
            )

    def _compile(self, together: tuple[tuple[str, int], ...]) -> None:
        if together in self._compiled:
            return
        self._compiled[together] = None
        book = rules.compile_rulebook([self._definitions[place] for place in together])
        for kind in book.kinds.values():
            known = self.kinds.get(kind.name)
            if known is None or kind.definition >= known.definition:
                self.kinds[kind.name] = kind
        self.families.update(book.families)
        for domain, rule_set in book.rule_sets.items():
            for name, action in rule_set.actions.items():
                self.actions[domain, action.action_id] = name
