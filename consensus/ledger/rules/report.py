"""What people see of rule sets: every problem and note of a text, and summaries of a rule book.

A *problem* keeps a rule set from being accepted. A *note* is something an author should look at.

Not here: colours and tables (the command line).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

from consensus.errors import RulesError
from consensus.ledger.accounts import EXPIRIES_MAX
from consensus.ledger.calendar import DAY_MS
from consensus.ledger.kernel.catalogue import CHARTER
from consensus.ledger.model import (
    Action,
    Assign,
    Create,
    Effect,
    Index,
    Kind,
    Move,
    OpenAccount,
    PlaceHold,
    Post,
    ReleaseHold,
    Reserve,
    ReviewDue,
    Rulebook,
    RuleSet,
    Void,
    Waterfall,
)
from consensus.ledger.rules.compile import compile_all
from consensus.ledger.rules.definition import Definition
from consensus.ledger.rules.emergency import FORM
from consensus.ledger.rules.forms import DEFINITION_BYTES_MAX, read_toml
from consensus.ledger.rules.lockout import locked_out
from consensus.ledger.rules.policies import in_words
from consensus.ledger.rules.rolenames import doubtful
from consensus.ledger.rules.schema import Report
from consensus.ledger.rules.succession import check_successor
from consensus.ledger.rules.unreachable import unreachable
from consensus.ledger.terms import Reversible


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault: the rule set is refused. ``line`` is 1-based, 0 when unknown."""

    where: str
    line: int
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something to look at. ``line`` is 1-based, 0 when unknown."""

    where: str
    line: int
    message: str


@dataclass(frozen=True, slots=True)
class ActionSummary:
    """One action in words."""

    name: str
    summary: str
    who: str
    protective: bool
    inputs: tuple[str, ...]
    reads: tuple[str, ...]
    requires: tuple[str, ...]
    does: tuple[str, ...]
    approvals: str
    """Who must approve; empty: nobody."""
    reversible: str = ""
    """Who may take it back, and how long; empty: nobody."""
    objections: str = ""
    """Who may object to a proposal of it; empty: who could approve it."""
    review: str = ""
    """Of an emergency form: who reviews its use, and how soon."""
    details: tuple[str, ...] = ()
    """What its effects write, and on which terms they hold, beside what ``does`` says."""


@dataclass(frozen=True, slots=True)
class KindSummary:
    """One kind in words: ``fields`` with their types, ``steps`` as ``a -> b, c``."""

    name: str
    fields: tuple[str, ...]
    steps: tuple[str, ...]
    exported: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """One domain in words."""

    domain: str
    number: int
    legal_basis: str
    kinds: tuple[KindSummary, ...]
    accounts: tuple[str, ...]
    params: tuple[str, ...]
    uses: tuple[str, ...]
    actions: tuple[ActionSummary, ...]


def check_text(text: str, where: str, others: Sequence[Definition] = ()) -> list[Problem | Note]:
    """Return everything to say about a rule set, problems first, each in order of lines.

    Args:
        text: the rule set in TOML.
        where: its file name.
        others: the active rule sets of the other domains; one of the same domain is its
            predecessor, and must let it follow.
    """
    definition, report = read_toml(text, where)
    if definition is None:
        return [*_problems(report.problems)]
    neighbours = [each for each in others if each.domain != definition.domain]
    rulebook, reports = compile_all([*neighbours, definition])
    problems = [
        problem for each in reports for problem in each.problems if each.lines is definition.lines
    ]
    compiled = rulebook.rule_sets.get(definition.domain)
    if compiled is None or problems:
        return [*_problems(problems)]
    if len(compiled.encoded) > DEFINITION_BYTES_MAX:
        size = f"{len(compiled.encoded)} bytes encoded, at most {DEFINITION_BYTES_MAX}"
        return [Problem(where, 0, size, "divide the domain")]
    # Another domain may only now be at fault: it used what this one no longer exports.
    elsewhere = [problem for each in reports for problem in each.problems]
    before = [each for each in others if each.domain == definition.domain]
    for old in before:
        was = compile_all([*neighbours, old])[0].rule_sets.get(old.domain)
        if was is not None and was.encoded != compiled.encoded:
            elsewhere += check_successor(was, compiled, definition)
    notes = sorted(_notes(compiled, definition), key=lambda note: note.line)
    return [*_problems(elsewhere), *notes]


def _problems(errors: Sequence[RulesError]) -> list[Problem]:
    found = []
    for error in errors:
        prefix = ":".join(part for part in (error.where, str(error.line or "")) if part)
        message = error.message.removeprefix(f"{prefix}: ")
        found.append(Problem(error.where, error.line, message, error.hint))
    return sorted(found, key=lambda problem: problem.line)


# --- notes ------------------------------------------------------------------------------------


def _notes(rules: RuleSet, definition: Definition) -> list[Note]:
    report = Report(definition.where, definition.lines)
    notes: list[Note] = []

    def note(message: str, *path: str | int) -> None:
        notes.append(Note(definition.where, report.line(path), message))

    for action in rules.actions.values():
        _note_action(action, note)
    for name, written in definition.actions:
        for each in unreachable(rules.actions[name], written.approvals):
            note(each.message, "actions", name, "approvals", *each.path)
        if written.emergency is not None:
            for each in unreachable(rules.actions[name + FORM], written.emergency.approvals):
                note(each.message, "actions", name, "emergency", "approvals", *each.path)
    for name, role, other in doubtful(rules):
        note(f"{role} is much like {other}: is it meant?", "actions", name)
    _note_domain(rules, definition, note)
    if rules.domain == CHARTER and (why := locked_out(rules)):
        note(f"no other charter could ever follow this one: {why}")
    return notes


def _note_action(action: Action, note: Callable[..., None]) -> None:
    here = ("actions", action.name)
    if action.kernel:
        return
    named = {path[1] for path in action.reads if path[0] == "input"}
    for each in action.inputs:
        if each.name not in named:
            note(f"input {each.name} is never used", *here, "inputs", each.name)
    if not action.effects:
        note(f"action {action.name} changes nothing: it only leaves a decision", *here)
    if action.protective:
        return
    reserves = [each for each in action.effects if isinstance(each, Reserve)]
    for number, effect in enumerate(reserves):
        if effect.expires is not None and ("now",) in effect.expires.reads:
            note(
                "every reservation ends at a moment of its own, and an account takes "
                f"{EXPIRIES_MAX} of these ahead; let many end on one date",
                *here, "reserve", number, "expires",
            )  # fmt: skip
    if unread := _unread(action):
        note(
            f"whoever calls {action.name} may not read {', '.join(unread)}, "
            "so cannot look at what the act rests on; add a read rule",
            *here, "actor",
        )  # fmt: skip
    covered = {path[0] for path in action.depends} | {
        effect.load for effect in action.effects if isinstance(effect, Assign)
    }
    missing: dict[str, None] = {}
    for requirement in action.require:
        for path in requirement.that.reads:
            if len(path) == 2 and (path in action.depends or path[0] in covered):
                continue
            if any(
                path[0] == load.name and load.kind and load.listing is None for load in action.loads
            ):
                missing[".".join(path)] = None
    if missing:
        note(
            f"conditions read {', '.join(missing)}, judged as at execution; "
            "list under depends what the author must have seen",
            *here,
        )


def _unread(action: Action) -> list[str]:
    """Return the kinds that an action loads and that no read rule lets its actor see."""
    actor, found = action.actor, dict[str, None]()
    for load in action.loads:
        readers = None if load.kind is None else load.kind.readers
        if load.kind is None or readers is None:
            continue
        if not any(
            rule.anyone
            or (rule.own is not None if actor.self_path is not None else bool(rule.agency))
            or actor.role in rule.roles
            for rule in readers.rules
        ):
            found[load.kind.name] = None
    return list(found)


def _note_domain(rules: RuleSet, definition: Definition, note: Callable[..., None]) -> None:
    made = {
        effect.kind.name
        for action in rules.actions.values()
        for effect in action.effects
        if isinstance(effect, Create)
    }
    entered = {
        (effect.kind.name, effect.status)
        for action in rules.actions.values()
        for effect in action.effects
        if isinstance(effect, Assign)
    }
    for kind in rules.kinds.values():
        if kind.name not in made:
            note(f"no action makes records of kind {kind.name}", "kinds", kind.name)
        for status in kind.steps:
            if status != kind.start and (kind.name, status) not in entered:
                note(
                    f"no action moves {kind.name} to {status}",
                    "kinds", kind.name, "status", "steps", status,
                )  # fmt: skip
    read = {path[1] for action in rules.actions.values() for path in action.reads
            if path[0] == "params"}  # fmt: skip
    for name in rules.params:
        if name not in read:
            note(f"parameter {name} is never read", "params", name)


# --- summaries --------------------------------------------------------------------------------


def describe(rulebook: Rulebook) -> list[Summary]:
    """Return a summary of every domain, in ascending order of names."""
    return [_summary(rulebook.rule_sets[name]) for name in sorted(rulebook.rule_sets)]


def _summary(rules: RuleSet) -> Summary:
    return Summary(
        domain=rules.domain,
        number=rules.number,
        legal_basis=rules.legal_basis,
        kinds=tuple(_kind(each) for each in rules.kinds.values()),
        accounts=tuple(
            f"{each.name} ({each.currency}), debited by {', '.join(each.debit_by)}"
            for each in rules.families.values()
        ),
        params=tuple(
            f"{each.name}: {each.type.text}, {len(each.values)} dated by {each.selector}"
            for each in rules.params.values()
        ),
        uses=tuple(f"{domain}: {', '.join(entries)}" for domain, entries in rules.uses),
        actions=tuple(_action(each) for each in rules.actions.values()),
    )


def _kind(kind: Kind) -> KindSummary:
    fields = []
    for each in kind.fields.values():
        words = [f"{each.name}: {each.type.text}"]
        words += ["optional"] if each.optional else []
        words += [f"sealed for {', '.join(each.sealed_for)}"] if each.sealed_for else []
        words += [f"shown with {each.group}"] if each.group else []
        words += [_indexed(index) for index in kind.indexes if index.field == each.name]
        fields.append(", ".join(words))
    fields += [f"status: {_indexed(each)}" for each in kind.indexes if each.field == "status"]
    steps = tuple(
        f"{name} -> {', '.join(targets) or 'end'}" for name, targets in kind.steps.items()
    )
    return KindSummary(kind.name, tuple(fields), steps, kind.exported)


def _indexed(index: Index) -> str:
    return "indexed" + (f" while {index.condition.source}" if index.condition else "")


def _action(action: Action) -> ActionSummary:
    actor = action.actor
    who = f"role {actor.role}" if actor.role else "the person whose record it is"
    if actor.self_path is not None:
        who += f" ({actor.self_path.source})"
    if actor.where is not None:
        who += f" where {actor.where.source}"
    for each in (*actor.not_paths, *actor.not_agencies):
        who += f", not {each.source}"
    loads = {load.name: load for load in action.loads}
    reads = [
        f"{name}{'?' * load.optional} = {load.reference.source}" for name, load in loads.items()
    ]
    return ActionSummary(
        name=action.name,
        summary=action.summary,
        who=who,
        protective=action.protective,
        inputs=tuple(f"{i.name}: {i.type.text}{'?' * i.optional}" for i in action.inputs),
        reads=tuple(reads),
        requires=tuple(f"{each.code}: {each.that.source}" for each in action.require),
        does=(
            *(_conditional(each) for each in action.effects),
            *(f"where {each.name} = {each.value.source}" for each in action.lets),
        ),
        approvals="" if action.approvals is None else in_words(action.approvals),
        objections="" if action.objections is None else in_words(action.objections),
        reversible="" if action.reversible is None else _terms(action.reversible),
        review="" if action.review is None else _review(action.review),
        details=tuple(line for each in action.effects for line in _details(each)),
    )


def _review(due: ReviewDue) -> str:
    return f"role {due.role} within {due.within_ms // DAY_MS} days"


def _details(effect: Effect) -> list[str]:
    """Return what an effect writes, field by field, and how long its hold lasts."""
    match effect:
        case Create() | Assign():
            what = effect.kind.name if isinstance(effect, Create) else effect.load
            lines = [f"{what}.{name} = {value.source}" for name, value in effect.assignments]
            basis = effect.basis or ()
            return lines + [f"{what} rests on {'.'.join(path)}" for path in basis]
        case PlaceHold():
            until = "until released" if effect.until is None else f"until {effect.until.source}"
            said = [until] + [f"under {effect.legal}"] * bool(effect.legal)
            said += [f"because of {effect.reason!r}"] * bool(effect.reason)
            return ["the hold lasts " + ", ".join(said)]
        case ReleaseHold():
            return [f"the hold is {effect.hold.source}"]
    return []


def _terms(reversible: Reversible) -> str:
    said = f"role {reversible.role} within {reversible.within_days} days"
    if reversible.shortfall is not None:
        said += f", debts in {reversible.shortfall.source}"
    said += ", slots free again" if reversible.free else ""
    agreed = reversible.approvals
    return said if agreed is None else f"{said}, approved by {in_words(agreed.policy)}"


def _conditional(effect: Effect) -> str:
    when = "" if effect.when is None else f" when {effect.when.source}"
    return _effect(effect) + when


def _effect(effect: Effect) -> str:
    match effect:
        case Create():
            return f"makes {effect.id.source if effect.id else f'{effect.kind.name}/{{tx}}'}"
        case Assign():
            parts = [f"status {effect.status}"] if effect.status else []
            parts += [name for name, _ in effect.assignments]
            parts += ["basis"] if effect.basis is not None else []
            return f"sets {', '.join(parts)} of {effect.load} ({effect.kind.name})"
        case Move():
            return (
                f"moves {effect.amount.source} from {effect.source.source} "
                f"to {effect.target.source}"
            )
        case Reserve():
            until = f" until {effect.expires.source}" if effect.expires is not None else ""
            return (
                f"reserves {effect.amount.source} of {effect.source.source} "
                f"as {effect.id.source}{until}"
            )
        case Post():
            what = "" if effect.amount is None else f"{effect.amount.source} of "
            rest = ", keeping the rest reserved" if effect.keep else ""
            return (
                f"posts {what}{effect.id.source} from {effect.source.source} "
                f"to {effect.target.source}{rest}"
            )
        case Void():
            return f"voids {effect.id.source} of {effect.source.source}"
        case Waterfall():
            rest = "" if effect.rest is None else f", the rest to {effect.rest.source}"
            return (
                f"pays {effect.amount.source} from {effect.source.source} in the order of "
                f"{effect.each}, each up to {effect.up_to.source} to {effect.target.source}{rest}"
            )
        case OpenAccount():
            return f"opens {effect.account.source}"
        case PlaceHold():
            targets = ", ".join(each.source for each in effect.targets)
            return f"holds {targets} ({', '.join(effect.scopes)})"
        case ReleaseHold():
            return f"releases a hold of {effect.target.source}"
        case _:
            assert_never(effect)
