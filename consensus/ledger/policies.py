"""Whether an act has the approvals its policy asks for: who approves, and which leaf each fills.

A policy is a tree: leaves ask for ``count`` holders of a role, or for the person whom a path names
(``self``), branches for some or all of what is below. Everything is judged at the moment of effect:
key, principal and agency of each approver, the role that the approver holds (grants pass on acting,
not approving), scope and conditions. A key that was replaced or revoked since keeps its approval;
one that others may hold loses it.

Then approvers are assigned to leaves. One principal fills one place of one leaf; under ``distinct``
no two are one person, or of one agency, nor the author's. The search is exact but for its bound:

- Leaves and branches are taken in the order they are written; of a branch the first ones that will
  do. Of those who may fill a leaf, those who may fill the fewest leaves come first, then in
  their order (the author, then as given), the next place always later than the one before.
- Where fewer people may fill leaves than are needed at least, nothing is tried. Otherwise every
  try of a candidate or of a part of a branch is a step. After STEPS_MAX the policy counts as
  not met, and the refusal says so.

Not here: whether an approver's signature is there (``node.verifier``), and when a stored proposal
is judged again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from consensus.codec import Value
from consensus.ledger.authority import Power, Standing, same_person
from consensus.ledger.codes import Code, Refused
from consensus.ledger.layout import ACTIVE
from consensus.ledger.model import Env, EvaluationError, Expression, Leaf, Policy
from consensus.ledger.persons import one_person
from consensus.ledger.view import View

STEPS_MAX: Final = 4096
"""Steps of the search for an assignment, and again of the one for what is missing."""
WHY_MAX: Final = 8
"""Approvers of whom a refusal says why they do not fill a leaf."""
PERSON: Final = "person"
AGENCY: Final = "agency"

PowerOf = Callable[[Standing, str], Power]


class Filling:
    """Somebody fills a place: ``approver`` 0 is the author, others count from 1."""

    __slots__ = ("approver", "leaf", "power")

    def __init__(self, leaf: int, approver: int, power: Power) -> None:
        self.leaf = leaf
        self.approver = approver
        self.power = power


class _TooLong(Exception):
    """The bound of the search is reached."""


class _Node:
    """A leaf or branch that is asked for in this call."""

    __slots__ = ("faults", "kids", "leaf", "needed", "options", "unknown")

    def __init__(self, leaf: Leaf | None, needed: int, kids: list[_Node], unknown: str) -> None:
        self.leaf = leaf
        self.needed = needed
        self.kids = kids
        self.unknown = unknown
        """A condition without a value: whether this is asked for cannot be said, so nothing will
        do."""
        self.options: list[int] = []
        """Who may fill the leaf, in the order in which they are tried."""
        self.faults: dict[int, Value] = {}
        """Why others may not."""


_Goal = tuple[_Node, int, int, Any]
"""A node, where to go on in it, how many are needed yet, and the goal after it."""


class Panel:
    """Those who approve one call.

    Args:
        view: of the transaction; what is read is recorded.
        policy: of the action.
        env: what conditions read, with every load.
        author: who acts.
        power: by which the author acts.
        approvers: who approves beside the author, in their order.
        power_of: gives what a principal has from a role.
    """

    __slots__ = (
        "_author",
        "_author_agencies",
        "_authors",
        "_env",
        "_filled",
        "_leaves",
        "_lost",
        "_people",
        "_power_of",
        "_powers",
        "_root",
        "_scoped",
        "_steps",
        "_taken",
        "_view",
        "_wild",
    )

    def __init__(
        self,
        view: View,
        policy: Policy,
        env: Env,
        author: Standing,
        power: Power,
        approvers: Sequence[Standing],
        power_of: PowerOf,
    ) -> None:
        self._view = view
        self._env = env
        self._author = author
        self._author_agencies = [author.agency.name, *(each.name for each in power.agencies)]
        self._power_of = power_of
        self._authors: dict[int, bool] = {}
        """Whether each approver is the author's person."""
        self._powers: dict[tuple[int, str], Power] = {}
        self._people: list[Standing] = [author, *approvers]
        self._lost = self._find_lost()
        self._leaves: list[tuple[_Node, Leaf]] = []
        self._root = self._node(policy)
        self._taken: dict[int, None] = {}
        self._scoped: dict[int, list[int]] = {}
        self._filled: dict[int, list[int]] = {}
        self._steps = 0
        self._wild = 0
        """Approvals that nobody has given, to find out how few are missing."""

    def judge(self) -> list[Filling]:
        """Return who fills which leaf.

        Raises:
            Refused: NEEDS_APPROVAL, with what is missing leaf by leaf.
        """
        root = self._root
        if root is None:
            return []
        self._find_options()
        least = _least(root)
        able = {at: None for node, _ in self._leaves for at in node.options}
        short = 1 if least is None else max(0, least - len(able))
        met = gave_up = False
        try:
            met = not short and self._search(STEPS_MAX)
        except _TooLong:
            gave_up = True
        if not met:
            missing = self._missing(root, range(max(short, 1), 1 + (least or 0)), gave_up=gave_up)
            raise Refused(Code.NEEDS_APPROVAL, missing)
        return [
            Filling(leaf.index, at, self._powers[at, leaf.role])
            for _, leaf in self._leaves
            for at in self._filled.get(leaf.index, ())
        ]

    def objection(self) -> list[Value]:
        """Return why the last of the approvers can fill no leaf now; empty if one can be filled.

        Places that others fill already do not count against it.
        """
        at = len(self._people) - 1
        if self._lost[at] is not None:
            return [self._lost[at]]
        self._find_options()
        mine = [leaf for node, leaf in self._leaves if at in node.options]
        if mine:
            rivals = [other for other in range(at) if self._stands_for(other, at, mine)]
            what = AGENCY if any(_strictest(leaf) == AGENCY for leaf in mine) else PERSON
            return [["distinct", what]] if rivals else []
        links: list[Value] = []
        for node, _ in self._leaves:
            if node.faults[at] not in links:
                links.append(node.faults[at])
        return links or [["not asked"]]

    def _stands_for(self, other: int, at: int, mine: Sequence[Leaf]) -> bool:
        """Return whether somebody beside ``other`` adds nothing: may fill no leaf that the other
        may not, is the same in all that is compared there, and never counts together with it."""
        theirs = [leaf for node, leaf in self._leaves if other in node.options]
        if any(leaf not in theirs for leaf in mine):
            return False
        compared = dict.fromkeys(what for leaf in mine for _, what in leaf.scopes)
        if not all(self._are_one(what, at, other) for what in compared):
            return False
        return all(
            any(scope in one.scopes for scope in two.scopes) for one in mine for two in theirs
        )

    # --- who may fill which leaf --------------------------------------------------------------

    def _find_lost(self) -> list[Value]:
        """Return why an approval counts for nothing at all, None of those that count."""
        lost: list[Value] = []
        seen: dict[bytes, None] = {}
        for standing in self._people:
            why = why_lost(standing)
            if why is None:
                if standing.principal.id in seen:
                    why = ["twice"]
                seen[standing.principal.id] = None
            lost.append(why)
        return lost

    def _node(self, policy: Policy) -> _Node | None:
        """Return the part of a policy that is asked for, None if nothing is."""
        unknown = ""
        if policy.when is not None:
            try:
                if policy.when.evaluate(self._env) is not True:
                    return None
            except EvaluationError:
                unknown = policy.when.source
        if isinstance(policy, Leaf):
            node = _Node(policy, policy.count, [], unknown)
            self._leaves.append((node, policy))
            return node
        kids = [kid for each in policy.among if (kid := self._node(each)) is not None]
        return _Node(None, 1 if unknown else policy.needed or len(kids), kids, unknown)

    def _find_options(self) -> None:
        leaves = self._leaves
        count = [0] * len(self._people)
        for node, leaf in leaves:
            for at in range(len(self._people)):
                if at == 0 and not leaf.author:
                    continue
                fault = self._fault(leaf, at)
                if fault is None:
                    node.options.append(at)
                    count[at] += 1
                else:
                    node.faults[at] = fault
        if max(count) > 1:
            for node, _ in leaves:
                node.options.sort(key=count.__getitem__)

    def _fault(self, leaf: Leaf, at: int) -> Value:
        """Return why somebody may not fill a leaf, None if they may."""
        if self._lost[at] is not None:
            return self._lost[at]
        standing, view = self._people[at], self._view
        if not leaf.author and self._is_author(at):
            return ["author"]
        power = self._powers[at, leaf.role] = self._power_of(standing, leaf.role)
        if power.missing:
            return power.missing[0]
        if leaf.self_path is not None:
            named = _value(leaf.self_path, self._env)
            if named is None or not standing.is_same(named):
                return ["self"]
        where = leaf.where
        if where is not None and _value(where, {**self._env, "who": power.who}) is not True:
            return ["where"]
        for path in leaf.not_paths:
            other = _value(path, self._env)
            if other is not None and same_person(view, standing, other):
                return ["not", path.source]
        agency = standing.agency
        for path in leaf.not_agencies:
            other = _value(path, self._env)
            name = other[0] if type(other) is list and len(other) == 1 else other
            if name is not None and agency.stands_for(name):
                return ["not_agency", path.source]
        if agency.name in self._author_agencies:
            if leaf.not_author_agency:
                return ["not_agency", "author"]
            if not leaf.author and any(what == AGENCY for _, what in leaf.scopes):
                return ["distinct", AGENCY]
        return None

    def _is_author(self, at: int) -> bool:
        known = self._authors.get(at)
        if known is None:
            known = one_person(self._people[at].principal, self._author.principal)
            self._authors[at] = known
        return known

    # --- the search ---------------------------------------------------------------------------

    def _search(self, steps: int, wild: int = 0) -> bool:
        root = self._root
        self._steps, self._wild = steps, wild
        self._taken, self._scoped, self._filled = {}, {}, {}
        return root is None or self._solve((root, 0, root.needed, None))

    def _solve(self, goal: _Goal | None) -> bool:
        """Return whether a goal and those after it can be reached; leaves what was taken so."""
        while goal is not None and not goal[2]:
            goal = goal[3]
        if goal is None:
            return True
        node, start, needed, rest = goal
        if node.unknown:
            return False
        if node.leaf is None:
            for at in range(start, len(node.kids) - needed + 1):
                self._step()
                kid = node.kids[at]
                if self._solve((kid, 0, kid.needed, (node, at + 1, needed - 1, rest))):
                    return True
            return False
        options = node.options
        if len(options) - start + self._wild < needed:
            return False
        for at in range(start, len(options)):
            self._step()
            if self._conflict(node.leaf, options[at]):
                continue
            self._take(node.leaf, options[at])
            if self._solve((node, at + 1, needed - 1, rest)):
                return True
            self._give_back(node.leaf, options[at])
        if self._wild:
            self._wild -= 1
            if self._solve((node, len(options), needed - 1, rest)):
                return True
            self._wild += 1
        return False

    def _step(self) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise _TooLong

    def _conflict(self, leaf: Leaf, at: int) -> bool:
        """Return whether somebody is taken, or too near to those taken beside whom it would be."""
        if at in self._taken:
            return True
        for scope, what in leaf.scopes:
            for other in self._scoped.get(scope, ()):
                if self._are_one(what, at, other):
                    return True
        return False

    def _are_one(self, what: str, at: int, other: int) -> bool:
        one, two = self._people[at], self._people[other]
        if what == AGENCY:
            return one.agency.name == two.agency.name
        return one_person(one.principal, two.principal)

    def _take(self, leaf: Leaf, at: int) -> None:
        self._taken[at] = None
        self._filled.setdefault(leaf.index, []).append(at)
        for scope, _ in leaf.scopes:
            self._scoped.setdefault(scope, []).append(at)

    def _give_back(self, leaf: Leaf, at: int) -> None:
        del self._taken[at]
        self._filled[leaf.index].pop()
        for scope, _ in leaf.scopes:
            self._scoped[scope].pop()

    # --- what is missing ----------------------------------------------------------------------

    def _missing(self, root: _Node, counts: range, *, gave_up: bool) -> list[Value]:
        """Return the detail of a refusal, for an assignment that leaves the fewest missing.

        Args:
            root: the policy as it is asked for.
            counts: how many may be missing.
            gave_up: whether the search reached its bound.
        """
        steps = STEPS_MAX
        found = False
        for wild in counts:
            try:
                found = self._search(steps, wild)
            except _TooLong:
                break
            if found:
                break
            steps = self._steps
        if not found:
            self._taken, self._scoped, self._filled = {}, {}, {}
        self._take_others()
        detail = self._lacking(root)
        missing: list[Value] = [] if detail is None else _flat(detail)
        return [*missing, ["limit"]] if gave_up else missing

    def _take_others(self) -> None:
        """Let those who are left fill what is empty, in the order of the leaves."""
        for node, leaf in self._leaves:
            for at in node.options:
                if len(self._filled.get(leaf.index, ())) == leaf.count:
                    break
                if not self._conflict(leaf, at):
                    self._take(leaf, at)

    def _lacking(self, node: _Node) -> list[Value] | None:
        """Return what a node lacks, None if it has everything."""
        if node.unknown:
            return ["when", node.unknown]
        leaf = node.leaf
        if leaf is not None:
            more = leaf.count - len(self._filled.get(leaf.index, ()))
            if not more:
                return None
            if leaf.self_path is not None:
                return ["self", leaf.self_path.source, self._reasons(node, leaf)]
            return ["role", leaf.role, more, _strictest(leaf), self._reasons(node, leaf)]
        parts = [self._lacking(kid) for kid in node.kids]
        lacking = [part for part in parts if part is not None]
        more = node.needed - (len(parts) - len(lacking))
        return ["of", more, list(lacking)] if more > 0 else None

    def _reasons(self, node: _Node, leaf: Leaf) -> list[Value]:
        """Return why those who fill nothing do not fill this leaf."""
        found: list[Value] = []
        for at, standing in enumerate(self._people):
            if at in self._taken or not standing.known or (at == 0 and not leaf.author):
                continue
            fault = node.faults.get(at)
            if fault is None:
                fault = ["distinct", _strictest(leaf)]
            found.append([standing.principal.id, fault])
        return found[:WHY_MAX]


def _strictest(leaf: Leaf) -> str:
    """Return how those who fill a leaf must differ from others, empty if it does not matter."""
    if any(what == AGENCY for _, what in leaf.scopes):
        return AGENCY
    return PERSON if leaf.scopes else ""


def _flat(detail: list[Value]) -> list[Value]:
    """Return what is missing as a list: all of it."""
    if detail[0] == "of" and detail[1] == len(detail[2]):
        return [each for part in detail[2] for each in _flat(part)]
    return [detail]


def _least(node: _Node) -> int | None:
    """Return how many approvals a node needs at least; None if no number will do."""
    if node.unknown:
        return None
    if node.leaf is not None:
        return node.needed
    found = sorted(least for kid in node.kids if (least := _least(kid)) is not None)
    return None if len(found) < node.needed else sum(found[: node.needed])


def why_lost(standing: Standing) -> Value:
    """Return why an approval counts no more, None if it does.

    What a key signed in its time stands after it was replaced or revoked, unless others may have
    signed with it.
    """
    if not standing.known:
        return ["key", "unknown"]
    if standing.fault is None:
        return None
    if standing.fault.code == Code.KEY_INACTIVE and standing.fault.detail[1] == "compromised":
        return ["key", "compromised"]
    if standing.principal.status != ACTIVE:
        return ["suspended", "principal"]
    return ["suspended", "agency"] if standing.agency.status != ACTIVE else None


def _value(expression: Expression, env: Mapping[str, Any]) -> Value:
    """Return what an expression gives, None where it has no value."""
    try:
        return expression.evaluate(env)
    except EvaluationError:
        return None
