"""Tree of an expression -> its type, the paths it reads, and a closure that evaluates it.

One walk does all three, so nothing is evaluated that was not checked. Types are exact, except that
``int`` adapts to ``money``: amounts of two currencies never meet, and a sum with one is an amount.

Errors are absorbed as in CEL: ``false && error`` and ``error && false`` are false, ``true ||
error`` and ``error || true`` are true, ``all`` and ``exists`` likewise; otherwise the first error
stands. Source: CEL specification, "Logical Operators" and "Macros".

Not here: the grammar (``syntax``), and which names exist (the caller's ``Scope``).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any, Final, Protocol

from consensus.codec import Value
from consensus.errors import RulesError
from consensus.ledger.expr import closures
from consensus.ledger.expr.closures import ARITHMETIC, Run
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
from consensus.ledger.model import (
    LIST_ITEMS_MAX,
    Env,
    EvaluationError,
    Expression,
    InputError,
    Path,
    Type,
)

BOOL: Final = Type("bool")
INT: Final = Type("int")
TEXT: Final = Type("text")
BYTES: Final = Type("bytes")

NOT_SUPPORTED: Final = "not supported by this version"
LATER: Final = ("muldiv", "month_add", "days_add", "month_of")
_POINTS: Final = ("month", "date", "time")
"""Types with a distance: point - point is an int, point + int a point."""
_ORDERED: Final = ("int", "money", "text", "bytes", *_POINTS)
_HIDDEN: Final = ("sealed", "commitment")
_NESTED: Final = ("ref", "list")


@dataclass(frozen=True, slots=True)
class Name:
    """What a path stands for."""

    type: Type
    optional: bool = False
    """The value may be None."""
    fallible: bool = False
    """The value may be missing altogether (a parameter before its first date, a scope)."""


class Scope(Protocol):
    """What an expression may name."""

    @property
    def roots(self) -> Container[str]:
        """First parts of paths; a macro's variable must be another word."""
        ...

    def resolve(self, parts: Path, position: int) -> Name:
        """Return what a path stands for, or raise Fault."""
        ...


def assignable(have: Type, want: Type) -> bool:
    """True if a value of type ``have`` may be stored as ``want``."""
    if have == want:
        return True
    match want.base:
        case "money":
            return have.base == "int"
        case "commitment":
            return have.base == "sealed"
        case "ref":
            return have.base == "ref" and not want.argument
        case "list":
            return have.base == "list" and assignable(have.item, want.item)
    return False


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


@dataclass(frozen=True, slots=True)
class _Typed:
    type: Type
    run: Run
    total: bool
    """It cannot raise EvaluationError."""
    optional: bool = False
    path: Path = ()
    constant: bool = False
    value: Value = None


class _Checker:
    """Checks one expression; ``reads`` collects its paths in order of first appearance."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._locals: dict[str, Type] = {}
        self.reads: dict[Path, None] = {}

    # --- names

    def path(self, node: Dotted) -> _Typed:
        """A name whose absent value is None."""
        parts = node.parts
        if parts[0] in self._locals:
            if len(parts) > 1:
                raise Fault(f"{parts[0]} has no fields", node.position)
            variable = parts[0]
            return _Typed(self._locals[variable], lambda env: env[variable], total=True)
        name = self._scope.resolve(parts, node.position)
        self.reads[parts] = None
        return _Typed(
            name.type,
            closures.getter(parts, fallible=name.fallible),
            not name.fallible,
            name.optional,
            parts,
        )

    def value(self, node: Node) -> _Typed:
        """Any expression; an absent value is an evaluation error."""
        match node:
            case Dotted():
                typed = self.path(node)
                if typed.optional:
                    run = closures.present(typed.run, typed.path)
                    return _Typed(typed.type, run, total=False)
                return typed
            case Literal(_, constant):
                return _Typed(
                    _LITERAL_TYPES[type(constant)],
                    lambda env: constant,
                    total=True,
                    constant=True,
                    value=constant,
                )
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
                return self._call(node)

    def _want(self, node: Node, want: Type, what: str) -> _Typed:
        typed = self.value(node)
        if typed.type != want:
            raise Fault(f"{what} is {typed.type.text}, expected {want.text}", node.position)
        return typed

    # --- operators

    def _not(self, operand: Node) -> _Typed:
        typed = self._want(operand, BOOL, "the operand of !")
        run = typed.run
        return _Typed(BOOL, lambda env: not run(env), typed.total)

    def _logic(self, node: Logic) -> _Typed:
        word = "&&" if node.conjunction else "||"
        items = [self._want(item, BOOL, f"an operand of {word}") for item in node.items]
        runs = tuple(item.run for item in items)
        # An error in the last item has nothing after it that could absorb it.
        simple = all(item.total for item in items[:-1])
        run = closures.logic(runs, conjunction=node.conjunction, total=simple)
        return _Typed(BOOL, run, all(item.total for item in items))

    def _choice(self, node: Choice) -> _Typed:
        condition = self._want(node.condition, BOOL, "the condition before ?")
        yes, no = self.value(node.yes), self.value(node.no)
        kind = _joined(yes.type, no.type)
        if kind is None:
            raise Fault(f"one branch is {yes.type.text}, the other {no.type.text}", node.position)
        test, first, second = condition.run, yes.run, no.run
        return _Typed(
            kind,
            lambda env: first(env) if test(env) else second(env),
            condition.total and yes.total and no.total,
        )

    def _binary(self, node: Binary) -> _Typed:
        left, right = self.value(node.left), self.value(node.right)
        if node.operator == "in":
            return self._in(node, left, right)
        if node.operator in ARITHMETIC:
            return self._arithmetic(node, left, right)
        kind = _joined(left.type, right.type)
        if left.type.base in _POINTS and right.constant and right.type == INT:
            kind = left.type  # a month, date or time may be compared with its number
        if kind is None:
            raise Fault(f"cannot compare {left.type.text} with {right.type.text}", node.position)
        if node.operator not in ("==", "!=") and kind.base not in _ORDERED:
            raise Fault(f"{kind.text} has no order", node.position)
        total = left.total and right.total
        if right.constant:
            path = left.path if left.total else ()
            run = closures.compare_constant(node.operator, left.run, right.value, path)
        else:
            nested = kind.base in _NESTED
            run = closures.compare(node.operator, left.run, right.run, nested=nested)
        return _Typed(BOOL, run, total)

    def _in(self, node: Binary, left: _Typed, right: _Typed) -> _Typed:
        if right.type.base != "list" or _joined(left.type, right.type.item) is None:
            raise Fault(f"cannot look for {left.type.text} in {right.type.text}", node.position)
        run = closures.member(left.run, right.run, nested=left.type.base in _NESTED)
        return _Typed(BOOL, run, left.total and right.total)

    def _arithmetic(self, node: Binary, left: _Typed, right: _Typed) -> _Typed:
        kind = _arithmetic_type(node.operator, left.type, right.type)
        if kind is None:
            hint = "text is not joined; keep parts apart" if left.type == TEXT else ""
            raise Fault(
                f"cannot compute {left.type.text} {node.operator} {right.type.text}",
                node.position,
                hint=hint,
            )
        operation, first, second = ARITHMETIC[node.operator], left.run, right.run
        if kind.base in _POINTS:
            check = kind.check

            def run(env: Env) -> int:
                result = operation(first(env), second(env))
                try:
                    check(result)
                except InputError as error:
                    raise EvaluationError(error.reason) from None
                return result

            return _Typed(kind, run, total=False)
        if right.constant:
            constant = right.value
            return _Typed(kind, lambda env: operation(first(env), constant), total=False)
        return _Typed(kind, lambda env: operation(first(env), second(env)), total=False)

    def _items(self, node: Items) -> _Typed:
        if not node.items:
            raise Fault("an empty list has no type", node.position)
        if len(node.items) > LIST_ITEMS_MAX:
            raise Fault(f"a list has at most {LIST_ITEMS_MAX} items", node.position)
        items = [self.value(item) for item in node.items]
        kind: Type | None = items[0].type
        for item in items[1:]:
            kind = _joined(kind, item.type) if kind is not None else None
        if kind is None:
            raise Fault("the items of a list have one type", node.position)
        if kind.base == "list":
            raise Fault("a list holds no lists", node.position)
        list_type = Type("list", kind.text)
        if all(item.constant for item in items):
            constant = [item.value for item in items]
            return _Typed(
                list_type, lambda env: constant, total=True, constant=True, value=constant
            )
        runs = tuple(item.run for item in items)
        return _Typed(
            list_type, lambda env: [run(env) for run in runs], all(item.total for item in items)
        )

    # --- functions

    def _call(self, node: Call) -> _Typed:
        if node.name in LATER:
            raise Fault(f"{node.name} is {NOT_SUPPORTED}", node.position)
        handler = _FUNCTIONS.get((node.name, node.method))
        if handler is None:
            if (node.name, not node.method) in _FUNCTIONS:
                form = f"{node.name}(value, …)" if node.method else f"value.{node.name}(…)"
                raise Fault(f"{node.name} is written {form}", node.position)
            known = ", ".join(sorted(dict.fromkeys(name for name, _ in _FUNCTIONS)))
            raise Fault(f"there is no function {node.name}", node.position, hint=f"known: {known}")
        count, function = handler
        if count is not None and len(node.arguments) != count:
            raise Fault(
                f"{node.name} takes {count - node.method} argument{'s'[: count - node.method > 1]}",
                node.position,
            )
        return function(self, node)

    def _has(self, node: Call) -> _Typed:
        path = node.arguments[0]
        if not isinstance(path, Dotted) or len(path.parts) < 2:
            raise Fault("has() takes a field such as person.residence", path.position)
        typed = self.path(path)
        run = typed.run
        if typed.total:
            return _Typed(BOOL, lambda env: run(env) is not None, total=True)

        def present(env: Env) -> bool:
            try:
                return run(env) is not None
            except EvaluationError:
                return False

        return _Typed(BOOL, present, total=True)

    def _size(self, node: Call) -> _Typed:
        typed = self.value(node.arguments[0])
        if typed.type.base not in ("text", "bytes", "list"):
            raise Fault(f"{typed.type.text} has no size", node.position)
        run = typed.run
        return _Typed(INT, lambda env: len(run(env)), typed.total)

    def _extreme(self, node: Call) -> _Typed:
        if len(node.arguments) < 2:
            raise Fault(f"{node.name} takes two or more arguments", node.position)
        items = [self.value(argument) for argument in node.arguments]
        kind: Type | None = items[0].type
        for item in items[1:]:
            kind = _joined(kind, item.type) if kind is not None else None
        if kind is None or kind.base not in ("int", "money", *_POINTS):
            raise Fault(f"{node.name} takes numbers or dates of one type", node.position)
        choose: Callable[..., Any] = min if node.name == "min" else max
        runs = tuple(item.run for item in items)
        return _Typed(
            kind, lambda env: choose([run(env) for run in runs]), all(item.total for item in items)
        )

    def _item(self, node: Call) -> _Typed:
        items = self.value(node.arguments[0])
        if items.type.base != "list":
            raise Fault(f"item takes a list, not {items.type.text}", node.position)
        index = self._want(node.arguments[1], INT, "the index")
        get_items, get_index = items.run, index.run

        def run(env: Env) -> Value:
            found, at = get_items(env), get_index(env)
            if not 0 <= at < len(found):
                raise EvaluationError(f"item {at} of a list of {len(found)}")
            return found[at]

        return _Typed(items.type.item, run, total=False)

    def _text_method(self, node: Call) -> _Typed:
        text = self._want(node.arguments[0], TEXT, f"what {node.name} looks at")
        part = self._want(node.arguments[1], TEXT, f"the argument of {node.name}")
        get_text, get_part, method = text.run, part.run, _TEXT_METHODS[node.name]
        return _Typed(
            BOOL, lambda env: method(get_text(env), get_part(env)), text.total and part.total
        )

    def _macro(self, node: Call) -> _Typed:
        target, variable, body = node.arguments
        if self._locals:
            raise Fault("all and exists do not nest", node.position)
        items = self.value(target)
        if items.type.base != "list":
            raise Fault(f"{node.name} looks at a list, not {items.type.text}", node.position)
        if not isinstance(variable, Dotted) or len(variable.parts) != 1:
            raise Fault(f"{node.name} takes a variable and a condition", variable.position)
        name = variable.parts[0]
        if name in self._scope.roots:
            raise Fault(f"{name} already means something here", variable.position)
        self._locals = {name: items.type.item}
        condition = self._want(body, BOOL, f"the condition of {node.name}")
        self._locals = {}
        run = closures.macro(items.run, name, condition.run, decisive=node.name == "exists")
        return _Typed(BOOL, run, items.total and condition.total)


_LITERAL_TYPES: Final[dict[type, Type]] = {bool: BOOL, int: INT, str: TEXT, bytes: BYTES}
_TEXT_METHODS: Final[dict[str, Callable[[str, str], bool]]] = {
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": operator.contains,
}
_Function = Callable[[_Checker, Call], _Typed]
_FUNCTIONS: Final[dict[tuple[str, bool], tuple[int | None, _Function]]] = {
    ("has", False): (1, _Checker._has),
    ("size", False): (1, _Checker._size),
    ("size", True): (1, _Checker._size),
    ("min", False): (None, _Checker._extreme),
    ("max", False): (None, _Checker._extreme),
    ("item", False): (2, _Checker._item),
    ("startsWith", True): (2, _Checker._text_method),
    ("endsWith", True): (2, _Checker._text_method),
    ("contains", True): (2, _Checker._text_method),
    ("all", True): (3, _Checker._macro),
    ("exists", True): (3, _Checker._macro),
}
"""(name, as a method) -> number of arguments with the target, and what checks the call."""


# --- types ------------------------------------------------------------------------------------


def _joined(left: Type, right: Type) -> Type | None:
    """Return the type that values of both may share, or None."""
    if left == right:
        return left
    pair = {left.base, right.base}
    if pair == {"int", "money"}:
        return left if left.base == "money" else right
    if pair <= {*_HIDDEN}:
        return Type("commitment")
    if pair == {"ref"} and not (left.argument and right.argument):
        return Type("ref")
    if pair == {"list"}:
        item = _joined(left.item, right.item)
        return None if item is None else Type("list", item.text)
    return None


def _arithmetic_type(sign: str, left: Type, right: Type) -> Type | None:
    if left.base in _POINTS or right.base in _POINTS:
        if sign == "-" and left == right:
            return INT
        if right.base == "int" and sign in "+-":
            return left
        return right if left.base == "int" and sign == "+" else None
    kind = _joined(left, right)
    if kind is None or kind.base not in ("int", "money"):
        return None
    if kind.base == "int":
        return kind
    both = left.base == right.base
    match sign:
        case "*":
            return None if both else kind
        case "/":
            return INT if both else (kind if left.base == "money" else None)
        case "%":
            return kind if left.base == "money" else None
    return kind
