"""From one number of a rule set to the next: what may change, and which actions move by it.

Records outlive rule sets. So a kind keeps its fields with their types, groups and audiences, a new
field is optional and carries the number of the definition that brings it, and an account family
keeps its currency.

Not here: activation and its notice (the kernel).
"""

from __future__ import annotations

from consensus.errors import RulesError
from consensus.ledger.model import Kind, RuleSet
from consensus.ledger.rules.definition import Definition
from consensus.ledger.rules.schema import Place, Report


def check_successor(
    old: RuleSet, new: RuleSet, definition: Definition | None = None
) -> list[RulesError]:
    """Return why ``new`` cannot follow ``old``; empty if it can.

    Args:
        old, new: rule sets of one domain.
        definition: of ``new``, for the lines of its errors.
    """
    where, lines = (definition.where, definition.lines) if definition else ("", {})
    report = Report(where, lines)
    place = Place(report)
    if new.domain != old.domain:
        place.of("domain").fault(f"{new.domain} cannot follow {old.domain}")
        return report.problems
    if new.number <= old.number:
        place.of("number").fault(
            f"number {new.number} does not follow {old.number}", f"write number = {old.number + 1}"
        )
    for name, kind in old.kinds.items():
        if name in new.kinds:
            _check_kind(kind, new.kinds[name], place.of("kinds", name))
        else:
            place.of("kinds").fault(
                f"kind {name} is gone", "keep it: its records remain; leave out its actions"
            )
    for name, family in old.families.items():
        here = place.of("accounts", name)
        if name not in new.families:
            place.of("accounts").fault(f"account family {name} is gone", "keep it")
        elif new.families[name].currency != family.currency:
            here.of("currency").fault(
                f"account family {name} holds {family.currency}", "make another family"
            )
    return report.problems


def _check_kind(old: Kind, new: Kind, place: Place) -> None:
    for name, field in old.fields.items():
        here = place.of("fields", name)
        if name not in new.fields:
            place.fault(f"field {name} is gone", "keep it, with optional = true if it is unused")
            continue
        now = new.fields[name]
        for word, before, after in (
            ("type", field.type.text, now.type.text),
            ("audience", ", ".join(field.sealed_for), ", ".join(now.sealed_for)),
            ("group", field.group, now.group),
            ("since", field.since, now.since),
        ):
            if before != after:
                here.fault(
                    f"the {word} of field {name} was {before or 'none'}, not {after or 'none'}",
                    "declare a new field",
                )
        if field.optional and not now.optional:
            here.fault(f"field {name} may be absent in records", "keep optional = true")
    kept = [name for name in new.fields if name in old.fields]
    if kept != [name for name in old.fields if name in new.fields]:
        place.fault("the fields changed their order", "append new fields at the end")
    for name, field in new.fields.items():
        if name not in old.fields and field.since != old.definition + 1:
            place.of("fields", name).fault(
                f"field {name} is new", f"add since = {old.definition + 1}"
            )
    _check_indexes(old, new, place)
    for status in old.steps:
        if status not in new.steps:
            place.of("status").fault(f"status {status} is gone", "keep it: records may have it")
    if old.start and not new.start:
        place.fault("the status is gone", "keep it: records have it")
    if new.start and not old.start:
        place.of("status").fault("existing records have no status", "make another kind")


def _check_indexes(old: Kind, new: Kind, place: Place) -> None:
    """Refuse an index that would not list every record: of a field that records may have already.

    Whatever else is in a record, a field that this number brings is absent from those that exist,
    and what is absent is not listed.
    """
    before = {index.field: index for index in old.indexes}
    for number, index in enumerate(new.indexes):
        here = place.of("index", number)
        if index.field not in before:
            if index.field in old.fields or index.field == "status":
                here.fault(
                    f"records that exist would be missing from an index by {index.field}",
                    "declare a new field with it (optional, since) and an action that sets it",
                )
            continue
        was, now = before[index.field].condition, index.condition
        if (was and was.source) != (now and now.source):
            here.fault(
                f"records are listed by {index.field} as the old `while` says",
                "keep it, or declare a new field with an index of its own",
            )


def moved_actions(old: RuleSet, new: RuleSet) -> dict[str, str]:
    """Return the actions whose callers get ``RULES_MOVED``: name -> added, removed or changed."""
    moved: dict[str, str] = {}
    for name in sorted(old.actions.keys() | new.actions.keys()):
        before, after = old.actions.get(name), new.actions.get(name)
        if before is None:
            moved[name] = "added"
        elif after is None:
            moved[name] = "removed"
        elif before.action_id != after.action_id:
            moved[name] = "changed"
    return moved
