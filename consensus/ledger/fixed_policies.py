"""Policies fixed when an act takes place: who must approve taking it back.

What a rule set says under ``approvals`` of ``reversible`` is resolved with the act, like its other
terms: which parts are asked for (``when``), whom ``self``, ``not`` and ``not_agency`` name, what
``where`` holds the approver's agency and scope against. What is left needs no record, no input and
no rule set, so whoever takes the act back is judged by what its decision says.

    policy  [0, role, count, [[key, value], ...]]       a leaf; keys ascending, of these:
                author         true
                distinct       "person" | "agency"
                not            [[path, value], ...]
                not_agency     [[path, value | null], ...], null: the author's
                self           [path, value]
                where          [[part of who, path, value], ...]
            [1, needed, "" | "person" | "agency", [policy, ...]]        as ``Branch``
            [2, condition]                              nobody fills it: that had no value

Paths and conditions are text for people. A value is null where there was none, or a long one.

Not here: their shape (``terms``), which ones can be fixed (``rules.reversible``), and judging them
(``policies``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from consensus import codec
from consensus.codec import Value, same
from consensus.ledger.model import Branch, Env, EvaluationError, Expression, Leaf, Policy
from consensus.ledger.terms import ASKS, NEVER, SOME
from consensus.ledger.types import ID_BYTES_MAX, Type

_AUTHOR: Final = "author"

Pins = Sequence[tuple[str, Expression]]
"""What ``where`` of a leaf asks of the approver: part of ``who``, and what that must equal."""


@dataclass(frozen=True, slots=True)
class Unfixed:
    """A policy to be fixed; ``pins`` are those of its leaves that have ``where``, by index."""

    policy: Policy
    pins: Mapping[int, Pins]

    def fix(self, env: Env) -> Value:
        """Return the policy as it is in ``env``, which has every load; None: nobody is asked."""
        return self._fix(self.policy, env)

    def _fix(self, policy: Policy, env: Env) -> Value:
        if policy.when is not None:
            try:
                if policy.when.evaluate(env) is not True:
                    return None
            except EvaluationError:
                return [NEVER, policy.when.source]
        if isinstance(policy, Leaf):
            return self._leaf(policy, env)
        parts = [self._fix(each, env) for each in policy.among]
        return [SOME, policy.needed, policy.distinct, [each for each in parts if each]]

    def _leaf(self, leaf: Leaf, env: Env) -> Value:
        excluded = [[each.source, _value(each, env)] for each in leaf.not_paths]
        agencies = [[each.source, _value(each, env)] for each in leaf.not_agencies]
        if leaf.not_author_agency:
            agencies.append([_AUTHOR, None])
        own = leaf.self_path
        pins = self.pins.get(leaf.index, ())
        keys: dict[str, Value] = {
            "author": leaf.author,
            "distinct": leaf.distinct,
            "not": excluded,
            "not_agency": agencies,
            "self": None if own is None else [own.source, _value(own, env)],
            "where": [[part, each.source, _value(each, env)] for part, each in pins],
        }
        more: list[Value] = [[key, value] for key, value in keys.items() if value]
        return [ASKS, leaf.role, leaf.count, more]


def _value(expression: Expression, env: Env) -> Value:
    """Return what an expression gives; None where it has no value, or one that is no name."""
    try:
        found = expression.evaluate(env)
    except EvaluationError:
        return None
    return found if len(codec.encode(found)) <= ID_BYTES_MAX else None


# --- judged ---------------------------------------------------------------------------------------


def policy_of(value: Value) -> Policy:
    """Return the policy that was fixed as ``value``."""
    return _Reader().policy(value, ())


class _Reader:
    """Numbers leaves and branches in the order in which they are written."""

    __slots__ = ("_leaves", "_scopes")

    def __init__(self) -> None:
        self._leaves = 0
        self._scopes = 0

    def policy(self, value: Any, around: tuple[tuple[int, str], ...]) -> Policy:
        """Return one part; ``around`` are the branches around it within which people differ."""
        if value[0] == NEVER:
            return self._leaf(["", 1, []], around, _without_value(value[1]))
        if value[0] == ASKS:
            return self._leaf(value[1:], around, None)
        distinct = value[2]
        around = self._within(distinct, around)
        parts = tuple(self.policy(each, around) for each in value[3])
        return Branch(value[1], parts, distinct, None)

    def _within(
        self, distinct: str, around: tuple[tuple[int, str], ...]
    ) -> tuple[tuple[int, str], ...]:
        if not distinct:
            return around
        self._scopes += 1
        return (*around, (self._scopes, distinct))

    def _leaf(
        self, value: Any, around: tuple[tuple[int, str], ...], when: Expression | None
    ) -> Leaf:
        role, count, more = value
        keys: dict[str, Any] = dict(more)
        distinct = keys.get("distinct", "")
        index = self._leaves
        self._leaves += 1
        own, agencies = keys.get("self"), keys.get("not_agency", [])
        return Leaf(
            index=index,
            role=role,
            where=_where(keys["where"]) if "where" in keys else None,
            count=count,
            distinct=distinct,
            scopes=self._within(distinct, around),
            author=bool(keys.get("author")),
            not_paths=tuple(_constant(*each) for each in keys.get("not", [])),
            not_agencies=tuple(_constant(*each) for each in agencies if each[0] != _AUTHOR),
            not_author_agency=any(each[0] == _AUTHOR for each in agencies),
            when=when,
            self_path=None if own is None else _constant(*own),
        )


def _constant(source: str, value: Value) -> Expression:
    return Expression(source, Type("bytes"), True, (), lambda _: value)


def _without_value(source: str) -> Expression:
    def evaluate(_: Env) -> Value:
        raise EvaluationError("it had no value when the act took place")

    return Expression(source, Type("bool"), False, (), evaluate)


def _where(pins: Sequence[Sequence[Any]]) -> Expression:
    source = " && ".join(f"who.{part} == {path}" for part, path, _ in pins)

    def evaluate(env: Env) -> Value:
        return all(
            value is not None and same(_part(env["who"], part), value) for part, _, value in pins
        )

    return Expression(source, Type("bool"), False, (), evaluate)


def _part(who: Mapping[str, Any], part: str) -> Value:
    name, _, scope = part.partition(".")
    found = who[name]
    return found.get(scope) if scope else found
