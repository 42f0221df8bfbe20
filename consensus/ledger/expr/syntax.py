"""Text of an expression -> tree. The grammar is CEL's, less what this language leaves out.

    expr      = or [ "?" or ":" expr ]
    or        = and { "||" and }          and = relation { "&&" relation }
    relation  = sum { ("==" | "!=" | "<" | "<=" | ">" | ">=" | "in") sum }
    sum       = product { ("+" | "-") product }
    product   = unary { ("*" | "/" | "%") unary }
    unary     = "!" unary | "-" integer | member
    member    = primary { "." name [ "(" arguments ")" ] }
    primary   = name [ "(" arguments ")" ] | "(" expr ")" | "[" arguments "]" | literal

A tree is at most 24 deep and comes from at most 2,000 characters, so every walk over it is bounded.
Source: CEL specification, "Syntax" (github.com/google/cel-spec). Left out: floats, unsigned
integers, null, maps, message construction, indexing, raw and triple-quoted strings, comments.

Not here: what names, operators and functions mean (``check``).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final, NoReturn

from consensus.codec import INT64_MAX, INT64_MIN

SOURCE_CHARACTERS_MAX: Final = 2000
DEPTH_MAX: Final = 24
OPERATORS: Final = {
    "==": 1, "!=": 1, "<": 1, "<=": 1, ">": 1, ">=": 1, "in": 1,
    "+": 2, "-": 2,
    "*": 3, "/": 3, "%": 3,
}  # fmt: skip
"""Binary operators and how tightly they bind."""


class Fault(Exception):
    """The expression is refused. ``position`` is a character offset into its source."""

    def __init__(self, message: str, position: int, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.position = position
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Literal:
    """``true``, ``12``, ``'text'`` or ``b'bytes'``."""

    position: int
    value: bool | int | str | bytes
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Dotted:
    """A name, or names joined by dots: ``ent.status``."""

    position: int
    parts: tuple[str, ...]
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Not:
    """``!operand``."""

    position: int
    operand: Node
    depth: int


@dataclass(frozen=True, slots=True)
class Logic:
    """``&&`` or ``||`` over two or more items."""

    position: int
    conjunction: bool
    items: tuple[Node, ...]
    depth: int


@dataclass(frozen=True, slots=True)
class Binary:
    """``left operator right``."""

    position: int
    operator: str
    left: Node
    right: Node
    depth: int


@dataclass(frozen=True, slots=True)
class Choice:
    """``condition ? yes : no``."""

    position: int
    condition: Node
    yes: Node
    no: Node
    depth: int


@dataclass(frozen=True, slots=True)
class Items:
    """``[a, b]``."""

    position: int
    items: tuple[Node, ...]
    depth: int


@dataclass(frozen=True, slots=True)
class Call:
    """``name(arguments)``, or ``target.name(arguments)`` with the target first."""

    position: int
    name: str
    method: bool
    arguments: tuple[Node, ...]
    depth: int


Node = Literal | Dotted | Not | Logic | Binary | Choice | Items | Call


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int


_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    |(?P<float>[0-9]+\.[0-9]+|[0-9]+[eE][-+]?[0-9]+|\.[0-9]+)
    |(?P<unsigned>(?:0[xX][0-9a-fA-F]+|[0-9]+)[uU]\b)
    |(?P<int>0[xX][0-9a-fA-F]+|[0-9]+)
    |(?P<string>[bB]?(?:"(?:[^"\\\r\n]|\\.)*"|'(?:[^'\\\r\n]|\\.)*'))
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<op>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]])""",
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPES: Final = {"\\": "\\", "'": "'", '"': '"', "n": "\n", "r": "\r", "t": "\t"}


def parse(source: str) -> Node:
    """Return the tree of an expression.

    Raises:
        Fault: too long, too deep, or not of this language.
    """
    if len(source) > SOURCE_CHARACTERS_MAX:
        raise Fault(
            f"the expression has {len(source)} characters, at most {SOURCE_CHARACTERS_MAX}", 0
        )
    parser = _Parser(_tokens(source))
    node = parser.expression()
    parser.expect_end()
    return node


def _tokens(source: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while position < len(source):
        match = _TOKEN.match(source, position)
        if match is None:
            character = source[position]
            hint = "use == to compare" if character == "=" else ""
            if character in "&|":
                hint = f"write {character}{character}"
            elif character in "\"'":
                hint = "close the text with the same quote on the same line"
            raise Fault(f"unexpected {character!r}", position, hint=hint)
        kind = match.lastgroup or ""
        if kind == "float":
            raise Fault("there are no floating-point numbers", position, hint="use integers")
        if kind == "unsigned":
            raise Fault("there are no unsigned integers", position, hint="drop the u")
        if kind != "space":
            tokens.append(_Token(kind, match.group(), position))
        position = match.end()
    tokens.append(_Token("end", "", len(source)))
    return tokens


class _Parser:
    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._nesting = 0

    # --- tokens

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _is(self, text: str) -> bool:
        token = self._next
        return token.text == text and token.kind in ("op", "name")

    def _take(self) -> _Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _expect(self, text: str) -> None:
        if not self._is(text):
            self._unexpected(f"expected {text!r}")
        self._take()

    def expect_end(self) -> None:
        if self._next.kind != "end":
            self._unexpected("expected the end of the expression")

    def _unexpected(self, wanted: str) -> NoReturn:
        token = self._next
        found = "the end" if token.kind == "end" else repr(token.text)
        hint = ""
        if token.text == "[":
            hint = "use item(list, index)"
        raise Fault(f"{wanted}, found {found}", token.position, hint=hint)

    def _deeper(self) -> None:
        self._nesting += 1
        if self._nesting > DEPTH_MAX:
            raise Fault(f"nested deeper than {DEPTH_MAX}", self._next.position)

    def _depth(self, position: int, *nodes: Node) -> int:
        depth = 1 + max((node.depth for node in nodes), default=0)
        if depth > DEPTH_MAX:
            raise Fault(f"nested deeper than {DEPTH_MAX}", position)
        return depth

    # --- grammar

    def expression(self) -> Node:
        self._deeper()
        node = self._logic(conjunction=False)
        if self._is("?"):
            position = self._take().position
            yes = self._logic(conjunction=False)
            self._expect(":")
            no = self.expression()
            node = Choice(position, node, yes, no, self._depth(position, node, yes, no))
        self._nesting -= 1
        return node

    def _logic(self, *, conjunction: bool) -> Node:
        operator = "&&" if conjunction else "||"
        position = self._next.position
        items: list[Node] = []
        while True:
            items.append(self._binary(1) if conjunction else self._logic(conjunction=True))
            if not self._is(operator):
                break
            self._take()
        if len(items) == 1:
            return items[0]
        return Logic(position, conjunction, tuple(items), self._depth(position, *items))

    def _binary(self, level: int) -> Node:
        node = self._unary() if level == 3 else self._binary(level + 1)
        while self._next.kind in ("op", "name") and OPERATORS.get(self._next.text) == level:
            token = self._take()
            right = self._unary() if level == 3 else self._binary(level + 1)
            depth = self._depth(token.position, node, right)
            node = Binary(token.position, token.text, node, right, depth)
        return node

    def _unary(self) -> Node:
        position = self._next.position
        if self._is("!"):
            self._take()
            self._deeper()
            operand = self._unary()
            self._nesting -= 1
            return Not(position, operand, self._depth(position, operand))
        if self._is("-"):
            self._take()
            if self._next.kind != "int":
                raise Fault(
                    "minus stands only before a number", position, hint="write 0 - x for -x"
                )
            return Literal(position, _integer(self._take(), negative=True))
        return self._member()

    def _member(self) -> Node:
        node = self._primary()
        while self._is("."):
            self._take()
            name = self._name("a name after the dot")
            if self._is("("):
                arguments = (node, *self._arguments("(", ")"))
                depth = self._depth(name.position, *arguments)
                node = Call(name.position, name.text, True, arguments, depth)
            elif isinstance(node, Dotted):
                node = Dotted(node.position, (*node.parts, name.text))
            else:
                raise Fault("only records and inputs have fields", name.position)
        if self._is("["):
            raise Fault("lists are not indexed", self._next.position, hint="use item(list, index)")
        return node

    def _name(self, what: str) -> _Token:
        token = self._next
        if token.kind != "name" or token.text in ("true", "false", "null", "in"):
            self._unexpected(f"expected {what}")
        return self._take()

    def _primary(self) -> Node:
        token = self._next
        match token.kind:
            case "int":
                return Literal(token.position, _integer(self._take(), negative=False))
            case "string":
                return Literal(token.position, _string(self._take()))
            case "name" if token.text in ("true", "false"):
                self._take()
                return Literal(token.position, token.text == "true")
            case "name" if token.text == "null":
                raise Fault("there is no null", token.position, hint="ask has(record.field)")
            case "name":
                self._name("a value")
                if self._is("("):
                    arguments = self._arguments("(", ")")
                    depth = self._depth(token.position, *arguments)
                    return Call(token.position, token.text, False, arguments, depth)
                return Dotted(token.position, (token.text,))
        if self._is("("):
            self._take()
            node = self.expression()
            self._expect(")")
            return node
        if self._is("["):
            items = self._arguments("[", "]")
            return Items(token.position, items, self._depth(token.position, *items))
        return self._unexpected("expected a value")

    def _arguments(self, opening: str, closing: str) -> tuple[Node, ...]:
        self._expect(opening)
        found: list[Node] = []
        if not self._is(closing):
            found.append(self.expression())
            while self._is(","):
                self._take()
                found.append(self.expression())
        self._expect(closing)
        return tuple(found)


def _integer(token: _Token, *, negative: bool) -> int:
    text = token.text
    value = int(text, 16) if text[:2] in ("0x", "0X") else int(text)
    value = -value if negative else value
    if not INT64_MIN <= value <= INT64_MAX:
        raise Fault("the number does not fit 64 bits", token.position)
    return value


def _string(token: _Token) -> str | bytes:
    """Return the value of a text or bytes literal."""
    raw = token.text[0] in "bB"
    body = token.text[2:-1] if raw else token.text[1:-1]

    def replace(match: re.Match[str]) -> str:
        escape = match.group(1)
        if len(escape) == 5 and not raw and not 0xD800 <= int(escape[1:], 16) <= 0xDFFF:
            return chr(int(escape[1:], 16))
        if len(escape) == 3 and raw:
            return chr(int(escape[1:], 16))
        if escape not in _ESCAPES:
            raise Fault(f"unknown escape \\{escape}", token.position + match.start() + 1)
        return _ESCAPES[escape]

    if raw and not body.isascii():
        raise Fault("bytes hold ASCII and \\xHH", token.position)
    value = _ESCAPE.sub(replace, body)
    if raw:
        return value.encode("latin-1")
    if not unicodedata.is_normalized("NFC", value):
        raise Fault("the text is not in Unicode NFC", token.position)
    return value
