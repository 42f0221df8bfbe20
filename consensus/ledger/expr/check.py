"""Tree of an expression -> its type, the paths it reads, and a closure that evaluates it.

One walk does all three, so nothing is evaluated that was not checked. Types are exact, except that
``int`` adapts to ``money``: amounts of two currencies never meet, and a sum with one is an amount.

Errors are absorbed as in CEL: ``false && error`` and ``error && false`` are false, ``true ||
error`` and ``error || true`` are true, ``all`` and ``exists`` likewise; otherwise the first error
stands. Source: CEL specification, "Logical Operators" and "Macros".

Not here: the grammar (``syntax``), which types go together (``typed``), what can be called
(``functions``), and which names exist (the caller's ``Scope``).
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final, Protocol, assert_never

from consensus.errors import RulesError
from consensus.ledger.expr import closures
from consensus.ledger.expr.closures import ARITHMETIC
from consensus.ledger.expr.functions import check_call
from consensus.ledger.expr.syntax import (
    Binary,
    Call,
    Choice,
    Dotted,
    Fault,
    Items,
    Literal,
    Logic,
    Node,
    Not,
    parse,
)
from consensus.ledger.expr.typed import (
    BOOL,
    BYTES,
    INT,
    NESTED,
    ORDERED,
    POINTS,
    TEXT,
    Fields,
    Name,
    Typed,
    arithmetic,
    assignable,
    common,
    constant,
    joined,
    mismatch_hint,
)
from consensus.ledger.model import Expression, Path
from consensus.ledger.types import LIST_ITEMS_MAX, Type


class Scope(Protocol):
    """What an expression may name."""

    @property
    def roots(self) -> Container[str]:
        """First parts of paths; a macro's variable must be another word."""
        ...

    def resolve(self, parts: Path, position: int) -> Name:
        """Return what a path stands for, or raise Fault."""
        ...


def compile_expression(
    source: str,
    scope: Scope,
    *,
    want: Type | None = None,
    optional: bool = False,
    where: str = "",
    line: int = 0,
) -> Expression:
    """Return the compiled expression.

    Args:
        source: its text.
        scope: what it may name.
        want: the type it must have; None accepts any.
        optional: a bare path to an absent value may give None instead of an error.
        where, line: its place, for errors.

    Raises:
        RulesError: syntax, types or names are wrong; says where and what to do.
    """
    try:
        node = parse(source)
        checker = _Checker(scope)
        if optional and isinstance(node, Dotted):
            typed = checker.path(node)
        else:
            typed = checker.value(node)
        _check_wanted(typed.type, want)
    except Fault as fault:
        row = source.count("\n", 0, fault.position)
        message = f"{fault.message} (at {_excerpt(source, fault.position)})"
        raise RulesError(
            message, where=where, line=line + row if line else 0, hint=fault.hint
        ) from fault
    return Expression(source, typed.type, typed.optional, tuple(checker.reads), typed.run)


def _check_wanted(have: Type, want: Type | None) -> None:
    if want is not None and not assignable(have, want):
        raise Fault(f"expected {want.text}, the expression is {have.text}", 0)


def _excerpt(source: str, position: int) -> str:
    return repr(source[position : position + 24]) if source[position:].strip() else "the end"


class _Checker:
    """Checks one expression; ``reads`` collects its paths in order of first appearance."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._locals: dict[str, Type | tuple[str, Fields]] = {}
        """What a macro binds: a value of a type, or a record of the list of that name."""
        self.reads: dict[Path, None] = {}

    # --- names

    def path(self, node: Dotted) -> Typed:
        """A name whose absent value is None."""
        typed = self._named(node)
        if typed.fields is not None:
            name = ".".join(node.parts)
            raise Fault(
                f"{name} is a list of records",
                node.position,
                hint=f"ask size({name}), {name}.exists(x, x.field == …) or {name}.all(x, …)",
            )
        return typed

    def items(self, node: Node) -> Typed:
        """Any expression, a list of records too."""
        if isinstance(node, Dotted):
            typed = self._named(node)
            if typed.fields is not None:
                return typed
        return self.value(node)

    def _named(self, node: Dotted) -> Typed:
        """Return what a name stands for; a list of records too."""
        parts = node.parts
        if parts[0] in self._locals:
            return self._local(node, self._locals[parts[0]])
        name = self._scope.resolve(parts, node.position)
        self.reads[parts] = None
        return _typed(name, parts)

    def _local(self, node: Dotted, bound: Type | tuple[str, Fields]) -> Typed:
        """Return the variable of a macro, or a field of the record that it stands for."""
        variable, *rest = node.parts
        if isinstance(bound, Type):
            if rest:
                raise Fault(f"{variable} has no fields", node.position)
            return Typed(bound, lambda env: env[variable], total=True)
        if len(rest) != 1:
            raise Fault(
                f"{'.'.join(node.parts)} is not a value",
                node.position,
                hint=f"name a field of {variable}, which is a record",
            )
        records, fields = bound
        name = fields(rest[0], node.position)
        self.reads[records, rest[0]] = None
        return _typed(name, node.parts)

    def value(self, node: Node) -> Typed:
        """Any expression; an absent value is an evaluation error."""
        match node:
            case Dotted():
                typed = self.path(node)
                if typed.optional:
                    run = closures.present(typed.run, typed.path)
                    return Typed(typed.type, run, total=False)
                return typed
            case Literal(_, literal):
                return constant(_LITERAL_TYPES[type(literal)], literal)
            case Not(_, operand):
                return self._not(operand)
            case Logic():
                return self._logic(node)
            case Binary():
                return self._binary(node)
            case Choice():
                return self._choice(node)
            case Items():
                return self._items(node)
            case Call():
                return check_call(self, node)
            case _:
                assert_never(node)

    def want(self, node: Node, want: Type, what: str) -> Typed:
        """An expression of the type ``want``; ``what`` names it in errors."""
        typed = self.value(node)
        if typed.type != want:
            raise Fault(f"{what} is {typed.type.text}, expected {want.text}", node.position)
        return typed

    # --- operators

    def _not(self, operand: Node) -> Typed:
        typed = self.want(operand, BOOL, "the operand of !")
        run = typed.run
        return Typed(BOOL, lambda env: not run(env), typed.total)

    def _logic(self, node: Logic) -> Typed:
        word = "&&" if node.conjunction else "||"
        items = [self.want(item, BOOL, f"an operand of {word}") for item in node.items]
        runs = tuple(item.run for item in items)
        # An error in the last item has nothing after it that could absorb it.
        simple = all(item.total for item in items[:-1])
        run = closures.logic(runs, conjunction=node.conjunction, total=simple)
        return Typed(BOOL, run, all(item.total for item in items))

    def _choice(self, node: Choice) -> Typed:
        condition = self.want(node.condition, BOOL, "the condition before ?")
        yes, no = self.value(node.yes), self.value(node.no)
        kind = joined(yes.type, no.type)
        if kind is None:
            raise Fault(f"one branch is {yes.type.text}, the other {no.type.text}", node.position)
        test, first, second = condition.run, yes.run, no.run
        return Typed(
            kind,
            lambda env: first(env) if test(env) else second(env),
            condition.total and yes.total and no.total,
        )

    def _binary(self, node: Binary) -> Typed:
        left, right = self.value(node.left), self.value(node.right)
        if node.operator == "in":
            return self._in(node, left, right)
        if node.operator in ARITHMETIC:
            return self._arithmetic(node, left, right)
        kind = joined(left.type, right.type) or _numbered(left, right) or _numbered(right, left)
        if kind is None:
            raise Fault(
                f"cannot compare {left.type.text} with {right.type.text}",
                node.position,
                hint=mismatch_hint(left.type, right.type),
            )
        if node.operator not in ("==", "!=") and kind.base not in ORDERED:
            raise Fault(f"{kind.text} has no order", node.position)
        total = left.total and right.total
        if right.constant:
            path = left.path if left.total else ()
            run = closures.compare_constant(node.operator, left.run, right.value, path)
        else:
            nested = kind.base in NESTED
            run = closures.compare(node.operator, left.run, right.run, nested=nested)
        return Typed(BOOL, run, total)

    def _in(self, node: Binary, left: Typed, right: Typed) -> Typed:
        if right.type.base != "list" or joined(left.type, right.type.item) is None:
            hint = mismatch_hint(left.type, right.type.item) if right.type.base == "list" else ""
            raise Fault(
                f"cannot look for {left.type.text} in {right.type.text}", node.position, hint=hint
            )
        run = closures.member(left.run, right.run, nested=left.type.base in NESTED)
        return Typed(BOOL, run, left.total and right.total)

    def _arithmetic(self, node: Binary, left: Typed, right: Typed) -> Typed:
        kind = arithmetic(node.operator, left.type, right.type)
        if kind is None:
            hint = mismatch_hint(left.type, right.type)
            if left.type == TEXT:
                hint = "text is not joined; keep parts apart"
            raise Fault(
                f"cannot compute {left.type.text} {node.operator} {right.type.text}",
                node.position,
                hint=hint,
            )
        operation, first, second = ARITHMETIC[node.operator], left.run, right.run
        if kind.base in POINTS:
            run = closures.ranged(kind, lambda env: operation(first(env), second(env)))
            return Typed(kind, run, total=False)
        if right.constant:
            fixed = right.value
            return Typed(kind, lambda env: operation(first(env), fixed), total=False)
        return Typed(kind, lambda env: operation(first(env), second(env)), total=False)

    def _items(self, node: Items) -> Typed:
        if not node.items:
            raise Fault("an empty list has no type", node.position)
        if len(node.items) > LIST_ITEMS_MAX:
            raise Fault(f"a list has at most {LIST_ITEMS_MAX} items", node.position)
        items = [self.value(item) for item in node.items]
        kind = common([item.type for item in items])
        if kind is None:
            raise Fault("the items of a list have one type", node.position)
        if kind.base == "list":
            raise Fault("a list holds no lists", node.position)
        list_type = Type("list", kind.text)
        if all(item.constant for item in items):
            return constant(list_type, [item.value for item in items])
        runs = tuple(item.run for item in items)
        return Typed(
            list_type, lambda env: [run(env) for run in runs], all(item.total for item in items)
        )

    # --- names that macros bind

    def macro(self, node: Call) -> Typed:
        """``all`` or ``exists``; its arguments are a list, a new name and a condition on it."""
        target, variable, body = node.arguments
        if self._locals:
            raise Fault("all and exists do not nest", node.position)
        items = self.items(target)
        if items.type.base != "list" and items.fields is None:
            raise Fault(f"{node.name} looks at a list, not {items.type.text}", node.position)
        if not isinstance(variable, Dotted) or len(variable.parts) != 1:
            raise Fault(f"{node.name} takes a variable and a condition", variable.position)
        name = variable.parts[0]
        if name in self._scope.roots:
            raise Fault(f"{name} already means something here", variable.position)
        self._locals = {
            name: items.type.item if items.fields is None else (items.path[0], items.fields)
        }
        condition = self.want(body, BOOL, f"the condition of {node.name}")
        self._locals = {}
        run = closures.macro(items.run, name, condition.run, decisive=node.name == "exists")
        return Typed(BOOL, run, items.total and condition.total)


def _typed(name: Name, parts: Path) -> Typed:
    return Typed(
        name.type,
        name.run or closures.getter(parts, fallible=name.fallible),
        not name.fallible,
        name.optional,
        parts,
        fields=name.fields,
    )


_LITERAL_TYPES: Final[dict[type, Type]] = {bool: BOOL, int: INT, str: TEXT, bytes: BYTES}


def _numbered(point: Typed, number: Typed) -> Type | None:
    """A month, date or time may be compared with its number, if that is written out."""
    if point.type.base in POINTS and number.constant and number.type == INT:
        return point.type
    return None
