"""What changes from one rule set to another, in words: parts, callers, and whose powers.

Lines begin with ``+`` for what comes, ``-`` for what goes. Every part that differs in its text has
a line, if only that some key of it changed.

Not here: what on a running network it touches (the command line).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from consensus.ledger.model import Rulebook, RuleSet
from consensus.ledger.rules.compile import compile_all
from consensus.ledger.rules.definition import ActionDef, Definition, KindDef, ParamDef
from consensus.ledger.rules.emergency import FORM
from consensus.ledger.rules.report import ActionSummary, KindSummary, Summary, describe
from consensus.ledger.rules.rolenames import roles_in
from consensus.ledger.rules.succession import check_successor, moved_actions


@dataclass(frozen=True, slots=True)
class Change:
    """What changes in one part: ``rule set``, ``parameter most``, ``kind person``, …"""

    part: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """From one rule set to another of its domain.

    Args:
        changes: part by part.
        moved: actions whose callers get ``RULES_MOVED``, with the reason.
        powers: what roles may do more or less, as lines.
        faults: why the new one may not follow the old one; empty if it may.
    """

    domain: str
    old: int
    new: int
    changes: tuple[Change, ...]
    moved: Mapping[str, str]
    powers: tuple[str, ...]
    faults: tuple[str, ...]


_SUMMARIES: Final = {
    "actor": "who",
    "approvals": "approvals",
    "reversible": "reversible",
    "inputs": "inputs",
    "load": "reads",
    "objections": "objections",
    "require": "requires",
    "effects": "does",
    "lets": "does",
}
"""Key of an action -> what of its summary says it in words."""


def difference(old: Definition, new: Definition, others: Sequence[Definition]) -> Difference:
    """Return what changes from ``old`` to ``new``, two rule sets of one domain.

    Args:
        others: rule sets of the other domains.

    Raises:
        RulesError: one does not compile with the others.
    """
    neighbours = [each for each in others if each.domain != old.domain]
    was, now = _compiled(old, neighbours), _compiled(new, neighbours)
    changes = [
        _head(old, new),
        *_each("parameter", dict(old.params), dict(new.params), _param),
        *_each("kind", dict(old.kinds), dict(new.kinds), _kinds(was, now)),
        *_each("account family", dict(old.accounts), dict(new.accounts), _plainly),
        *_each("action", dict(old.actions), dict(new.actions), _actions(was, now)),
    ]
    return Difference(
        old.domain,
        old.number,
        new.number,
        tuple(each for each in changes if each.lines),
        _moved(old, new, was, now),
        tuple(_powers(was, now)),
        tuple(error.message for error in check_successor(was, now))
        if was.encoded != now.encoded
        else (),
    )


def _compiled(definition: Definition, others: Sequence[Definition]) -> RuleSet:
    book, reports = compile_all([*others, definition])
    for report in reports:
        for problem in report.problems:
            raise problem.again()
    return book.rule_sets[definition.domain]


def _each(
    what: str, old: Mapping[str, Any], new: Mapping[str, Any], compare: Callable[..., list[str]]
) -> list[Change]:
    changes = []
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            changes.append(Change(f"{what} {name}", ("+ it is new",)))
        elif name not in new:
            changes.append(Change(f"{what} {name}", ("- it is gone",)))
        elif old[name] != new[name]:
            lines = compare(old[name], new[name], name)
            changes.append(Change(f"{what} {name}", tuple(lines)))
    return changes


def _head(old: Definition, new: Definition) -> Change:
    lines = [] if old.legal_basis == new.legal_basis else [
        f"- legal basis: {old.legal_basis}", f"+ legal basis: {new.legal_basis}"
    ]  # fmt: skip
    reads = [
        [f"{domain}: {entry}" for domain, entries in each.uses for entry in entries]
        for each in (old, new)
    ]
    lines += _lines("reads elsewhere", *reads)
    lines += _lines("others may read", old.exports, new.exports)
    covered = ("domain", "number", "legal_basis", "uses", "exports")
    parts = ("params", "kinds", "accounts", "actions", "where", "lines")
    lines += _rest(old, new, (*covered, *parts))
    return Change("rule set", tuple(lines))


def _param(old: ParamDef, new: ParamDef, name: str) -> list[str]:
    dated = [[f"from {each.start}: {each.value}" for each in one.values] for one in (old, new)]
    return [*_rest(old, new, ("values",)), *_lines("value", *dated)]


def _plainly(old: Any, new: Any, name: str) -> list[str]:
    return _rest(old, new, ())


def _kinds(was: RuleSet, now: RuleSet) -> Callable[[KindDef, KindDef, str], list[str]]:
    before, after = _summaries(was), _summaries(now)

    def compare(old: KindDef, new: KindDef, name: str) -> list[str]:
        one: KindSummary = next(each for each in before.kinds if each.name == name)
        two: KindSummary = next(each for each in after.kinds if each.name == name)
        lines = [*_lines("field", one.fields, two.fields), *_lines("step", one.steps, two.steps)]
        if old.status is not None and new.status is not None:
            lines += _rest(old.status, new.status, ("steps",))
        return lines + _rest(old, new, ("fields", "status", "index")) or ["  its details changed"]

    return compare


def _actions(was: RuleSet, now: RuleSet) -> Callable[[ActionDef, ActionDef, str], list[str]]:
    before, after = _summaries(was), _summaries(now)

    def compare(old: ActionDef, new: ActionDef, name: str) -> list[str]:
        one: ActionSummary = next(each for each in before.actions if each.name == name)
        two: ActionSummary = next(each for each in after.actions if each.name == name)
        lines: list[str] = []
        for key, word in dict.fromkeys((k, w) for k, w in _SUMMARIES.items()):
            if getattr(old, key) == getattr(new, key):
                continue
            said = _lines(word, _rows(getattr(one, word)), _rows(getattr(two, word)))
            if key == "effects":
                said += _lines("writes", one.details, two.details)
            if key == "require":
                said += _lines("says", *([f"{r.code}: {r.say}" for r in d.require]
                                         for d in (old, new)))  # fmt: skip
            lines += [each for each in said or [f"  {key}: its details changed"]
                      if each not in lines]  # fmt: skip
        if old.emergency != new.emergency:
            lines += _lines("in an emergency", _form(before, name), _form(after, name))
        return lines + _rest(old, new, (*_SUMMARIES, "emergency"))

    return compare


def _form(summary: Summary, name: str) -> list[str]:
    """Return the emergency form of an action in words; empty if it has none."""
    for each in summary.actions:
        if each.name == name + FORM:
            approvals = f"approved by {each.approvals}" if each.approvals else "approved by nobody"
            return [each.who, approvals, f"reviewed by {each.review}"]
    return []


def _summaries(rules: RuleSet) -> Summary:
    (summary,) = describe(Rulebook({rules.domain: rules}))
    return summary


def _rows(value: str | Sequence[str]) -> Sequence[str]:
    return ([value] if value else []) if isinstance(value, str) else value


def _rest(old: Any, new: Any, covered: Sequence[str]) -> list[str]:
    """Return lines on the keys of a part that differ and are not ``covered``."""
    lines: list[str] = []
    for field in fields(old):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if field.name in covered or before == after:
            continue
        if all(isinstance(each, tuple) for each in (before, after)):
            lines += _lines(field.name, [*map(_word, before)], [*map(_word, after)])
        else:
            lines += [f"- {field.name}: {_word(before)}", f"+ {field.name}: {_word(after)}"]
    return lines


def _word(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(_word(each) for each in value)
    if value is None or value == "":
        return "none"
    return str(value) if isinstance(value, str | int) else repr(value)


def _lines(word: str, before: Sequence[str], after: Sequence[str]) -> list[str]:
    gone = [f"- {word}: {each}" for each in before if each not in after]
    come = [f"+ {word}: {each}" for each in after if each not in before]
    if not gone and not come and list(before) != list(after):
        return [f"  {word}: in another order"]
    return gone + come


# --- whom it touches --------------------------------------------------------------------------


def _moved(old: Definition, new: Definition, was: RuleSet, now: RuleSet) -> dict[str, str]:
    texts = dict(old.actions), dict(new.actions)
    moved = moved_actions(was, now)
    return {
        name: "what it rests on changed"
        if how == "changed" and texts[0][name] == texts[1][name]
        else how
        for name, how in moved.items()
    }


def _powers(was: RuleSet, now: RuleSet) -> list[str]:
    """Return what changes for holders of roles: acting and approving."""
    lines: list[str] = []
    before, after = _may(was), _may(now)
    for role in sorted(before.keys() | after.keys()):
        gone = sorted(before.get(role, frozenset()) - after.get(role, frozenset()))
        come = sorted(after.get(role, frozenset()) - before.get(role, frozenset()))
        lines += [f"- {role} no longer: {', '.join(gone)}"] if gone else []
        lines += [f"+ {role} now: {', '.join(come)}"] if come else []
    for name in sorted(was.actions.keys() & now.actions.keys()):
        one, two = was.actions[name].actor, now.actions[name].actor
        if one.role and one.role == two.role and _source(one) != _source(two):
            lines.append(f"  {one.role} in other cases: {name}")
    return lines


def _may(rules: RuleSet) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for name, action in rules.actions.items():
        if action.actor.role:
            found.setdefault(action.actor.role, set()).add(name)
        for role in roles_in(action.approvals):
            found.setdefault(role, set()).add(f"approve {name}")
        for role in roles_in(action.objections):
            found.setdefault(role, set()).add(f"object to {name}")
        if action.reversible is not None:
            found.setdefault(action.reversible.role, set()).add(f"take back {name}")
            agreed = action.reversible.approvals
            for role in roles_in(None if agreed is None else agreed.policy):
                found.setdefault(role, set()).add(f"approve taking back {name}")
        if action.review is not None:
            found.setdefault(action.review.role, set()).add(f"review {name}")
    return {role: frozenset(names) for role, names in found.items()}


def _source(actor: Any) -> tuple[str, ...]:
    conditions = (actor.where, *actor.not_paths, *actor.not_agencies)
    return tuple(each.source for each in conditions if each is not None)
