"""Approval policies of rule sets: how they are written, checked, and put into words.

    leaf     { role, where, count, distinct, not, not_agency, author, when }, or self for role
    branch   { all = [policy, ...] }  { any = [policy, ...] }  { of = 2, among = [policy, ...] }
             each with distinct and when, if wanted

In CBOR a leaf is ``[0, leaf]``, a branch ``[1, [needed, [policy, ...], ...]]`` with ``needed`` 0
for all and 1 for any. Source: docs/formats/rules.md.

Not here: judging them (``consensus.ledger.policies``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from consensus import codec
from consensus.codec import Shape, Value
from consensus.ledger.expr import SOURCE_CHARACTERS_MAX
from consensus.ledger.model import SLOTS_MAX, Branch, Expression, Leaf, Policy
from consensus.ledger.rules.definition import (
    POLICY_DEPTH_MAX,
    POLICY_NODES_MAX,
    BranchDef,
    LeafDef,
    PolicyDef,
)
from consensus.ledger.rules.schema import (
    Attr,
    Flag,
    Integer,
    Many,
    Place,
    Skip,
    Struct,
    Text,
    suggest,
)
from consensus.ledger.rules.scope import ActionScope
from consensus.ledger.rules.values import check_role
from consensus.ledger.types import Type

EXCLUDED_MAX: Final = 8
AUTHOR: Final = "author"
"""Stands for who acts under ``not`` and ``not_agency``."""
DISTINCT: Final = ("person", "agency")
_FORMS: Final = ("role", "self", "all", "any", "of")
_HINT: Final = (
    'write { role = "payments.supervisor" }, { self = "licence.holder" }, { all = [ … ] }, '
    "{ any = [ … ] } or "
)
_HINT_OF: Final = "{ of = 2, among = [ … ] }"
_BOOL: Final = Type("bool")

Excluded = Callable[[ActionScope, str, Place, bool], Expression]
"""Return what a path of ``self`` or ``not`` (True), or of ``not_agency`` (False), gives."""


_path: Final = Text(200)
_expression: Final = Text(4 * SOURCE_CHARACTERS_MAX)
_EITHER: Final = (Attr("distinct", Text(64), ""), Attr("when", _expression, ""))
LEAF: Final = Struct(
    LeafDef,
    (Attr("role", _path, ""),),
    more=(
        Attr("where", _expression, ""),
        Attr("count", Integer(1, SLOTS_MAX), 1),
        Attr("excluded", Many(_path, EXCLUDED_MAX), (), key="not"),
        Attr("excluded_agencies", Many(_path, EXCLUDED_MAX), (), key="not_agency"),
        Attr("author", Flag(), False),
        Attr("own", _path, "", key="self"),
        *_EITHER,
    ),
)


@dataclass(frozen=True, slots=True)
class PolicyNode:
    """A policy of at most ``depth`` levels, as a part of the structure of rule sets."""

    depth: int = POLICY_DEPTH_MAX

    @property
    def _inner(self) -> PolicyNode:
        return PolicyNode(self.depth - 1)

    def _branch(self) -> Struct:
        many = Many(self._inner, POLICY_NODES_MAX)
        return Struct(
            BranchDef,
            (Attr("needed", Integer(0, POLICY_NODES_MAX)), Attr("among", many)),
            more=_EITHER,
        )

    def read(self, value: Any, place: Place) -> PolicyDef:
        """Return what a TOML value says; raises Skip after reporting a fault."""
        if not isinstance(value, dict):
            found = f"{value!r} is" if isinstance(value, str) else "this is"
            raise place.refuse(f"{found} not a policy", _HINT + _HINT_OF)
        forms = [key for key in _FORMS if key in value]
        if len(forms) > 1:
            raise place.refuse(
                f"{' and '.join(forms)} do not go together", "put one of them inside the other"
            )
        if forms in (["role"], ["self"]):
            leaf: LeafDef = LEAF.read(value, place)
            return leaf
        if not forms:
            raise place.refuse("a policy says who approves", _HINT + _HINT_OF)
        return self._read_branch(value, forms[0], place)

    def _read_branch(self, value: dict[str, Any], form: str, place: Place) -> BranchDef:
        key = "among" if form == "of" else form
        known = (*dict.fromkeys((form, key)), "distinct", "when")
        for each in value:
            if each not in known:
                place.of(each).fault(f"unknown key {each}", suggest(each, known))
        if self.depth <= 1:
            raise place.of(form).refuse(f"a policy is nested at most {POLICY_DEPTH_MAX} deep")
        if key not in value:
            raise place.refuse(f"{key} is missing", f"write {_HINT_OF}")
        among = Many(self._inner, POLICY_NODES_MAX).read(value[key], place.of(key))
        if len(among) != len(value[key]):
            raise Skip
        if not among:
            raise place.of(key).refuse("nobody is listed", "leave out what asks for nobody")
        needed = {"all": 0, "any": 1}.get(form, 0)
        if form == "of":
            needed = Integer(1, POLICY_NODES_MAX).read(value["of"], place.of("of"))
        either = {
            attr.name: attr.node.read(value[attr.toml], place.of(attr.toml))
            for attr in _EITHER
            if attr.toml in value
        }
        return BranchDef(needed, among, **either, key=key)

    def shape(self) -> Shape:
        """Return the shape of the CBOR form."""
        forms = {0: codec.array(codec.integer(), LEAF.shape())}
        if self.depth > 1:
            forms[1] = codec.array(codec.integer(), self._branch().shape())
        return codec.tagged(forms)

    def pack(self, value: PolicyDef) -> Value:
        """Return the CBOR form."""
        if isinstance(value, LeafDef):
            return [0, LEAF.pack(value)]
        return [1, self._branch().pack(value)]

    def unpack(self, value: Value) -> PolicyDef:
        """Return what a CBOR value of this shape says."""
        number, packed = value
        found: PolicyDef = (self._branch() if number else LEAF).unpack(packed)
        return found


# --- compiling --------------------------------------------------------------------------------


def compile_policy(
    scope: ActionScope, definition: PolicyDef, place: Place, excluded: Excluded
) -> Policy:
    """Return a policy with its conditions compiled.

    Args:
        scope: with every load and intermediate value.
        definition: as it is written.
        place: where it stands.
        excluded: compiles a path of ``self``, ``not`` or ``not_agency``.

    Raises:
        Skip: after reporting what is wrong.
    """
    nodes = [*nodes_of(definition)]
    if len(nodes) > POLICY_NODES_MAX:
        raise place.refuse(
            f"{len(nodes)} leaves and branches, at most {POLICY_NODES_MAX} in a policy"
        )
    slots = sum(each.count for each in nodes if isinstance(each, LeafDef))
    if slots > SLOTS_MAX:
        raise place.refuse(f"{slots} approvals, at most {SLOTS_MAX} in a policy")
    return _Compiler(scope, excluded).run(definition, place, ())


def nodes_of(definition: PolicyDef) -> Iterator[PolicyDef]:
    """Yield a policy and every part of it."""
    yield definition
    if isinstance(definition, BranchDef):
        for each in definition.among:
            yield from nodes_of(each)


@dataclass(slots=True)
class _Compiler:
    scope: ActionScope
    excluded: Excluded
    leaves: int = 0
    scopes: int = 0

    def run(
        self, definition: PolicyDef, place: Place, around: tuple[tuple[int, str], ...]
    ) -> Policy:
        distinct = definition.distinct
        if distinct:
            if distinct not in DISTINCT:
                raise place.of("distinct").refuse(
                    f"{distinct!r} is not what people differ by", f"known: {', '.join(DISTINCT)}"
                )
            around = (*around, (self.scopes, distinct))
            self.scopes += 1
        when = None
        if definition.when:
            when = self.scope.expression(definition.when, place.of("when"), _BOOL)
        if isinstance(definition, LeafDef):
            return self._leaf(definition, place, around, when)
        key, count = definition.key, len(definition.among)
        if not count:
            raise place.of(key).refuse("nobody is listed", "leave out what asks for nobody")
        if definition.needed > count:
            raise place.of("of").refuse(
                f"{definition.needed} of {count} can never be had", f"write of = {count} or less"
            )
        among: list[Policy] = []
        for number, each in enumerate(definition.among):
            try:
                among.append(self.run(each, place.of(key, number), around))
            except Skip:
                continue
        if len(among) != count:
            raise Skip
        return Branch(definition.needed, tuple(among), distinct, when)

    def _leaf(
        self,
        definition: LeafDef,
        place: Place,
        scopes: tuple[tuple[int, str], ...],
        when: Expression | None,
    ) -> Leaf:
        index = self.leaves
        self.leaves += 1
        own = None
        if bool(definition.role) == bool(definition.own):
            raise place.refuse("whoever approves has either a role or a name", _HINT + _HINT_OF)
        if definition.own:
            if definition.count > 1:
                raise place.of("count").refuse("self names one person", "leave out count")
            own = self.excluded(self.scope, definition.own, place.of("self"), True)
        else:
            check_role(definition.role, place.of("role"))
        where = None
        if definition.where:
            where = self.scope.expression(definition.where, place.of("where"), _BOOL)
        if definition.author and AUTHOR in definition.excluded:
            raise place.of("author").refuse(
                "the author is both let in and kept out", f"leave out author, or not = [{AUTHOR!r}]"
            )
        return Leaf(
            index=index,
            role=definition.role,
            where=where,
            count=definition.count,
            distinct=definition.distinct,
            scopes=scopes,
            author=definition.author,
            not_paths=self._paths(definition.excluded, place.of("not"), person=True),
            not_agencies=self._paths(
                definition.excluded_agencies, place.of("not_agency"), person=False
            ),
            not_author_agency=AUTHOR in definition.excluded_agencies,
            when=when,
            self_path=own,
        )

    def _paths(self, paths: Sequence[str], place: Place, *, person: bool) -> tuple[Expression, ...]:
        return tuple(
            self.excluded(self.scope, text, place.of(number), person)
            for number, text in enumerate(paths)
            if text != AUTHOR
        )


# --- in words ---------------------------------------------------------------------------------


def in_words(policy: Policy) -> str:
    """Return a policy as a phrase for people."""
    if isinstance(policy, Leaf):
        return _leaf_in_words(policy)
    parts = [in_words(each) for each in policy.among]
    listed = "; ".join(parts)
    few = {0: "all of", 1: "one of"}.get(policy.needed, f"{policy.needed} of")
    words = f"{few} ({listed})" if len(parts) > 1 else listed
    return words + _conditions(policy)


def _leaf_in_words(leaf: Leaf) -> str:
    words = f"{leaf.count} with role {leaf.role}" if leaf.count > 1 else f"role {leaf.role}"
    if leaf.self_path is not None:
        words = f"{leaf.self_path.source} in person"
    if leaf.where is not None:
        words += f" where {leaf.where.source}"
    barred = [each.source for each in (*leaf.not_paths, *leaf.not_agencies)]
    barred += ["the author's agency"] if leaf.not_author_agency else []
    words += f", not {', '.join(barred)}" if barred else ""
    words += ", the author counts" if leaf.author else ""
    return words + _conditions(leaf)


def _conditions(policy: Policy) -> str:
    differ = {"person": ", different people", "agency": ", different agencies"}
    words = differ.get(policy.distinct, "")
    return words if policy.when is None else f"{words}, when {policy.when.source}"
