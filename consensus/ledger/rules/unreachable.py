"""Approvals that nobody could ever give, as far as a rule set alone can tell.

What is known: conditions that read nothing, and what ``where`` asks of the approver in so many
words, joined by ``&&``: ``who.agency == 'audit'``, ``who.principal == input.officer``. Who is there
and holds which roles is not known here: silence does not mean that an approval can be had.

Not here: policies that are no policies (``policies``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from consensus.ledger.expr.syntax import Binary, Dotted, Literal, Logic, Node, parse
from consensus.ledger.model import Action, Branch, EvaluationError, Expression, Leaf, Policy
from consensus.ledger.rules.definition import BranchDef, PolicyDef
from consensus.ledger.rules.lines import TomlPath
from consensus.ledger.transaction import COSIGNERS_MAX

Pins = Mapping[str, list[bool | int | str | bytes | None]]
"""What a condition says that ``who`` is: each value it is compared with, None if that is not
written out."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a part of a policy. ``path`` leads there from the policy."""

    path: TomlPath
    message: str


def unreachable(action: Action, definition: PolicyDef | None) -> list[Finding]:
    """Return why nobody could ever satisfy an action's policy, or a part of it.

    Args:
        action: with its policy.
        definition: the same policy as it is written, None where there is none.
    """
    policy = action.approvals
    if policy is None or definition is None:
        return []
    where = action.actor.where
    reach = _Reach(_pins(where), [])
    least = reach.least(policy, definition, ())
    found = reach.findings
    if least is not None and least > COSIGNERS_MAX:
        message = f"at least {least} approvals: a transaction has at most {COSIGNERS_MAX} cosigners"
        found.append(Finding((), message + ", only a stored proposal gathers as many"))
    return found


@dataclass(slots=True)
class _Reach:
    author: Pins
    findings: list[Finding]

    def least(self, policy: Policy, definition: PolicyDef, path: TomlPath) -> int | None:
        """Return how many approvals are needed at least, None if no number will do."""
        if policy.when is not None and _constant(policy.when) is False:
            self.findings.append(Finding((*path, "when"), "this is never asked for"))
            return 0
        if isinstance(policy, Leaf):
            return self._leaf(policy, path)
        return self._branch(policy, cast(BranchDef, definition), path)

    def _leaf(self, leaf: Leaf, path: TomlPath) -> int | None:
        why = _impossible(leaf, self.author)
        if why is None:
            return leaf.count
        if leaf.when is None:
            self.findings.append(Finding(path, f"nobody can ever give this approval: {why}"))
        else:
            message = f"nobody can ever give this approval when it is asked for: {why}"
            self.findings.append(Finding(path, message))
        return None

    def _branch(self, branch: Branch, definition: BranchDef, path: TomlPath) -> int | None:
        possible: list[int] = []
        never = 0
        for number, (each, written) in enumerate(zip(branch.among, definition.among, strict=True)):
            count = self.least(each, written, (*path, definition.key, number))
            asked = each.when is None or _constant(each.when) is not False
            if not asked:
                never += 1
            elif count is not None:
                possible.append(count)
            elif not branch.needed and each.when is not None:
                possible.append(0)  # asked for only at times, and possible at others
        needed = branch.needed or len(branch.among) - never
        if len(possible) < needed:
            message = f"nobody can ever satisfy this: {needed} needed, {len(possible)} possible"
            self.findings.append(Finding(path, message))
            return None
        if branch.distinct == "agency" and needed == len(branch.among):
            for agency in _crowded(branch):
                message = f"nobody can ever satisfy this: two approvals of {agency} are asked for"
                self.findings.append(Finding(path, f"{message}, but the agencies differ"))
                return None
        return sum(sorted(possible)[:needed])


def _crowded(branch: Branch) -> Iterator[object]:
    """Yield agencies from which two leaves directly below ask for approvals without condition."""
    seen: list[object] = []
    for each in branch.among:
        if isinstance(each, Leaf) and each.when is None:
            for agency in _pins(each.where).get("agency", []):
                if agency is not None and agency in seen:
                    yield agency
                seen.append(agency)


def _impossible(leaf: Leaf, author: Pins) -> str | None:
    """Return why no assignment can ever fill a leaf, None if one may."""
    if leaf.where is not None and _constant(leaf.where) is False:
        return "where is always false"
    pins = _pins(leaf.where)
    for name, values in pins.items():
        written = dict.fromkeys(value for value in values if value is not None)
        if len(written) > 1:
            return f"who.{name} cannot be {' and '.join(map(repr, written))} at once"
    if any(role not in (None, leaf.role) for role in pins.get("role", [])):
        return f"who.role is always {leaf.role!r} here"
    if leaf.count > 1 and "principal" in pins:
        return f"where names one principal, and {leaf.count} are asked for"
    agencies = [agency for agency in pins.get("agency", []) if agency is not None]
    if not agencies:
        return None
    compared = any(what == "agency" for _, what in leaf.scopes)
    if compared and leaf.count > 1:
        return f"where names one agency, and {leaf.count} different ones are asked for"
    differs = (compared and not leaf.author) or leaf.not_author_agency
    if differs and any(agency in author.get("agency", []) for agency in agencies):
        return f"the author is of agency {agencies[0]!r} as well, and the agencies must differ"
    return None


def _constant(expression: Expression) -> bool | None:
    """Return the value of a condition that reads nothing, False if it has none; None if it reads
    anything."""
    if expression.reads:
        return None
    try:
        return expression.evaluate({}) is True
    except EvaluationError:
        return False


def _pins(where: Expression | None) -> Pins:
    """Return what a condition asks of ``who`` in so many words."""
    found: dict[str, list[bool | int | str | bytes | None]] = {}
    if where is None:
        return found
    for each in conjuncts(parse(where.source)):
        if not isinstance(each, Binary) or each.operator != "==":
            continue
        for one, other in ((each.left, each.right), (each.right, each.left)):
            if not isinstance(one, Dotted) or one.parts[0] != "who" or len(one.parts) != 2:
                continue
            if isinstance(other, Literal):
                found.setdefault(one.parts[1], []).append(other.value)
            elif isinstance(other, Dotted) and other.parts[0] != "who":
                found.setdefault(one.parts[1], []).append(None)
    return found


def conjuncts(tree: Node) -> Iterator[Node]:
    """Yield what a condition joins by ``&&``; itself if it joins nothing."""
    if isinstance(tree, Logic) and tree.conjunction:
        for each in tree.items:
            yield from conjuncts(each)
    else:
        yield tree
