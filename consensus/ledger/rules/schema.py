"""One description of a rule set's structure for both of its forms: TOML and canonical CBOR.

A node reads a TOML value (collecting every fault with its place), gives the CBOR shape, and turns
the value into CBOR and back. Tables become arrays of ``[name, value]``; those whose order means
nothing are sorted by name, so a definition has one encoding.

Not here: which nodes a rule set has (``definition``), and what is allowed in them (``compile``).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final, Protocol

from consensus import codec
from consensus.codec import Shape, Value
from consensus.errors import DecodeError, RulesError
from consensus.ledger.rules.lines import TomlPath, nearest


class Skip(Exception):
    """A fault was reported; the value is left out and reading goes on."""


@dataclass(slots=True)
class Report:
    """Collects what is wrong with one rule set."""

    where: str
    lines: Mapping[TomlPath, int]
    problems: list[RulesError] = field(default_factory=list)

    def line(self, path: TomlPath) -> int:
        """Return the line of a path, or of the nearest table around it; 0 when unknown."""
        return nearest(self.lines, path) or 0

    def add(self, path: TomlPath, message: str, hint: str = "") -> None:
        """Note a fault."""
        line = self.line(path)
        if not line and path:
            message = f"{'.'.join(map(str, path))}: {message}"
        self.problems.append(RulesError(message, where=self.where, line=line, hint=hint))


@dataclass(frozen=True, slots=True)
class Place:
    """A position inside a rule set."""

    report: Report
    path: TomlPath = ()

    def of(self, *parts: str | int) -> Place:
        """Return the place of something inside."""
        return Place(self.report, (*self.path, *parts))

    def fault(self, message: str, hint: str = "") -> None:
        """Note a fault here."""
        self.report.add(self.path, message, hint)

    def refuse(self, message: str, hint: str = "") -> Skip:
        """Note a fault here and return what to raise."""
        self.report.add(self.path, message, hint)
        return Skip()

    @property
    def line(self) -> int:
        """The line of this place; 0 when unknown."""
        return self.report.line(self.path)


def suggest(word: str, known: Sequence[str]) -> str:
    """Return a hint that names the nearest known word, or all if they are few."""
    near = get_close_matches(word, known, 1)
    if near:
        return f"did you mean {near[0]}?"
    return f"known here: {', '.join(known)}" if known else "none is declared"


class Node(Protocol):
    """A part of the structure."""

    def read(self, value: Any, place: Place) -> Any:
        """Return what a TOML value says; raises Skip after reporting a fault."""
        ...

    def shape(self) -> Shape:
        """Return the shape of the CBOR form."""
        ...

    def pack(self, value: Any) -> Value:
        """Return the CBOR form."""
        ...

    def unpack(self, value: Value) -> Any:
        """Return what a CBOR value of this shape says."""
        ...


def _named(value: Any) -> str:
    match value:
        case bool():
            return "true or false"
        case int():
            return "a number"
        case float():
            return "a number with a fraction"
        case str():
            return "text"
        case list():
            return "an array"
        case dict():
            return "a table"
    return "a date or time"


@dataclass(frozen=True, slots=True)
class Text:
    """Text of at most ``bytes_max`` UTF-8 bytes."""

    bytes_max: int

    def read(self, value: Any, place: Place) -> str:
        if not isinstance(value, str):
            raise place.refuse(f"expected text, found {_named(value)}", "put it in quotes")
        if len(value.encode()) > self.bytes_max:
            raise place.refuse(f"{len(value.encode())} bytes of text, at most {self.bytes_max}")
        if not unicodedata.is_normalized("NFC", value):
            raise place.refuse("the text is not in Unicode NFC", "save the file in NFC")
        return value

    def shape(self) -> Shape:
        return codec.text(self.bytes_max)

    def pack(self, value: str) -> Value:
        return value

    def unpack(self, value: Value) -> str:
        return str(value)


@dataclass(frozen=True, slots=True)
class Integer:
    """A number in ``low..high``."""

    low: int = codec.INT64_MIN
    high: int = codec.INT64_MAX

    def read(self, value: Any, place: Place) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise place.refuse(f"expected a whole number, found {_named(value)}")
        if not self.low <= value <= self.high:
            raise place.refuse(f"{value} is outside {self.low} to {self.high}")
        return value

    def shape(self) -> Shape:
        return codec.integer(self.low, self.high)

    def pack(self, value: int) -> Value:
        return value

    def unpack(self, value: Value) -> int:
        return int(value)


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    def read(self, value: Any, place: Place) -> bool:
        if not isinstance(value, bool):
            raise place.refuse(f"expected true or false, found {_named(value)}")
        return value

    def shape(self) -> Shape:
        return codec.boolean

    def pack(self, value: bool) -> Value:
        return value

    def unpack(self, value: Value) -> bool:
        return bool(value)


@dataclass(frozen=True, slots=True)
class Plain:
    """A parameter's value: number, true or false, text, or an array of these."""

    items_max: int

    def read(self, value: Any, place: Place) -> Any:
        if isinstance(value, list):
            if len(value) > self.items_max:
                raise place.refuse(f"{len(value)} items, at most {self.items_max}")
            return tuple(self._scalar(item, place.of(n)) for n, item in enumerate(value))
        return self._scalar(value, place)

    def _scalar(self, value: Any, place: Place) -> Any:
        if isinstance(value, bool):
            return value
        if isinstance(value, int):
            return Integer().read(value, place)
        if isinstance(value, str):
            return Text(4096).read(value, place)
        raise place.refuse(
            f"expected a number, true or false, text or an array, found {_named(value)}",
            "write dates and months in quotes",
        )

    def shape(self) -> Shape:
        scalar = codec.one_of([codec.boolean, codec.integer(), codec.text(4096)])
        return codec.one_of([codec.list_of(scalar, self.items_max), scalar])

    def pack(self, value: Any) -> Value:
        return list(value) if isinstance(value, tuple) else value

    def unpack(self, value: Value) -> Any:
        return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class Template:
    """Text, or an array of texts (the components of an id)."""

    components_max: int
    bytes_max: int = 512

    def read(self, value: Any, place: Place) -> str | tuple[str, ...]:
        if isinstance(value, list):
            many = Many(Text(self.bytes_max), self.components_max).read(value, place)
            return tuple(many)
        return Text(self.bytes_max).read(value, place)

    def shape(self) -> Shape:
        text = codec.text(self.bytes_max)
        return codec.one_of([codec.list_of(text, self.components_max), text])

    def pack(self, value: str | tuple[str, ...]) -> Value:
        return list(value) if isinstance(value, tuple) else value

    def unpack(self, value: Value) -> str | tuple[str, ...]:
        return tuple(value) if isinstance(value, list) else str(value)


@dataclass(frozen=True, slots=True)
class Many:
    """An array of at most ``items_max`` items."""

    node: Node
    items_max: int

    def read(self, value: Any, place: Place) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise place.refuse(f"expected an array, found {_named(value)}", "put it in [ ]")
        if len(value) > self.items_max:
            raise place.refuse(f"{len(value)} items, at most {self.items_max}")
        found: list[Any] = []
        for number, item in enumerate(value):
            try:
                found.append(self.node.read(item, place.of(number)))
            except Skip:
                continue
        return tuple(found)

    def shape(self) -> Shape:
        return codec.list_of(self.node.shape(), self.items_max)

    def pack(self, value: Sequence[Any]) -> Value:
        return [self.node.pack(item) for item in value]

    def unpack(self, value: Value) -> tuple[Any, ...]:
        return tuple(self.node.unpack(item) for item in value)


@dataclass(frozen=True, slots=True)
class Row:
    """An array with one item per node, e.g. ``["ent", "entitlement/{input.id}"]``."""

    nodes: tuple[Node, ...]
    form: str
    """How an author writes it, for errors."""

    def read(self, value: Any, place: Place) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != len(self.nodes):
            raise place.refuse(f"expected {self.form}")
        return tuple(
            node.read(item, place.of(n))
            for n, (node, item) in enumerate(zip(self.nodes, value, strict=True))
        )

    def shape(self) -> Shape:
        return codec.array(*(node.shape() for node in self.nodes))

    def pack(self, value: Sequence[Any]) -> Value:
        return [node.pack(item) for node, item in zip(self.nodes, value, strict=True)]

    def unpack(self, value: Value) -> tuple[Any, ...]:
        return tuple(node.unpack(item) for node, item in zip(self.nodes, value, strict=True))


@dataclass(frozen=True, slots=True)
class Table:
    """A table of named values -> ``((name, value), …)``."""

    node: Node
    items_max: int
    ordered: bool = False
    """True: the order of the file is kept because it means something."""

    def read(self, value: Any, place: Place) -> tuple[tuple[str, Any], ...]:
        if not isinstance(value, dict):
            raise place.refuse(f"expected a table, found {_named(value)}", "put it in { }")
        if len(value) > self.items_max:
            raise place.refuse(f"{len(value)} entries, at most {self.items_max}")
        found: list[tuple[str, Any]] = []
        for name, item in value.items():
            try:
                Text(NAME_BYTES_MAX).read(name, place.of(name))
                found.append((name, self.node.read(item, place.of(name))))
            except Skip:
                continue
        return tuple(found if self.ordered else sorted(found, key=lambda pair: pair[0]))

    def shape(self) -> Shape:
        pairs = codec.list_of(
            codec.array(codec.text(NAME_BYTES_MAX), self.node.shape()), self.items_max
        )

        def check(value: Value, path: str) -> int:
            size = pairs(value, path)
            names = [name for name, _ in value]
            if len(frozenset(names)) != len(names):
                raise DecodeError("a name occurs twice", path=path)
            if not self.ordered and names != sorted(names):
                raise DecodeError("names are not in ascending order", path=path)
            return size

        return check

    def pack(self, value: Sequence[tuple[str, Any]]) -> Value:
        return [[name, self.node.pack(item)] for name, item in value]

    def unpack(self, value: Value) -> tuple[tuple[str, Any], ...]:
        return tuple((name, self.node.unpack(item)) for name, item in value)


NAME_BYTES_MAX: Final = 64
REQUIRED: Final = object()


@dataclass(frozen=True, slots=True)
class Attr:
    """An attribute of a struct. ``key`` is its name in TOML where that differs."""

    name: str
    node: Node
    default: Any = REQUIRED
    """Value when the key is absent; None is null in CBOR."""
    key: str = ""

    @property
    def toml(self) -> str:
        """The key in TOML."""
        return self.key or self.name


@dataclass(frozen=True, slots=True)
class Variants:
    """An attribute gathered from several keys, each an array, in the order of the file.

    A key in ``single`` may also stand for one table.
    """

    name: str
    nodes: tuple[tuple[str, Struct], ...]
    items_max: int
    single: tuple[str, ...] = ()

    def read(self, table: Mapping[str, Any], place: Place) -> tuple[Any, ...]:
        """Read every key that is one of the variants'."""
        known = dict(self.nodes)
        found: list[Any] = []
        for key, value in table.items():
            if key in known:
                try:
                    if key in self.single and isinstance(value, dict):
                        found.append(known[key].read(value, place.of(key)))
                    else:
                        found += Many(known[key], self.items_max).read(value, place.of(key))
                except Skip:
                    continue
        if len(found) > self.items_max:
            place.fault(f"{len(found)} {self.name}, at most {self.items_max}")
        return tuple(found)

    def shape(self) -> Shape:
        """Return the shape of an array of ``[variant number, fields]``."""
        by_number = {
            number: codec.array(codec.integer(), node.shape())
            for number, (_, node) in enumerate(self.nodes)
        }
        return codec.list_of(codec.tagged(by_number), self.items_max)

    def pack(self, value: Sequence[Any]) -> Value:
        """Return the CBOR form."""
        numbers = {node.cls: number for number, (_, node) in enumerate(self.nodes)}
        return [
            [numbers[type(item)], self.nodes[numbers[type(item)]][1].pack(item)] for item in value
        ]

    def unpack(self, value: Value) -> tuple[Any, ...]:
        """Return what the CBOR form says."""
        return tuple(self.nodes[number][1].unpack(item) for number, item in value)


@dataclass(frozen=True, slots=True)
class Struct:
    """A table with known keys -> an instance of ``cls``; an array in CBOR, in declared order.

    What ``more`` lists may be left out: the array ends with an array of ``[key, value]`` of those
    that are there, ascending by key, or without one if none is. So a key that the language gains
    changes no bytes of what does not use it.
    """

    cls: type
    attrs: tuple[Attr | Variants, ...]
    more: tuple[Attr, ...] = ()
    """Attributes with a default."""
    prepare: Callable[[dict[str, Any], Place], dict[str, Any]] | None = None
    """Rewrites short forms of the TOML table before it is read."""
    short: str = ""
    """The key whose text alone may stand for the table."""

    def read(self, value: Any, place: Place) -> Any:
        if self.short and isinstance(value, str):
            value = {self.short: value}
        if not isinstance(value, dict):
            raise place.refuse(f"expected a table, found {_named(value)}", "put it in { }")
        if self.prepare is not None:
            value = self.prepare(value, place)
        known: list[str] = []
        for attr in (*self.attrs, *self.more):
            known += [attr.toml] if isinstance(attr, Attr) else [key for key, _ in attr.nodes]
        for key in value:
            if key not in known:
                place.of(key).fault(f"unknown key {key}", suggest(key, known))
        read: dict[str, Any] = {}
        complete = True
        for attr in (*self.attrs, *self.more):
            try:
                if isinstance(attr, Variants):
                    read[attr.name] = attr.read(value, place)
                elif attr.toml in value:
                    read[attr.name] = attr.node.read(value[attr.toml], place.of(attr.toml))
                elif attr.default is REQUIRED:
                    place.fault(f"{attr.toml} is missing")
                    complete = False
                else:
                    read[attr.name] = attr.default
            except Skip:
                complete = False
        if not complete:
            raise Skip
        return self.cls(**read)

    def shape(self) -> Shape:
        shapes: list[Shape] = []
        for attr in self.attrs:
            shape = attr.shape() if isinstance(attr, Variants) else attr.node.shape()
            null = isinstance(attr, Attr) and attr.default is None
            shapes.append(codec.optional(shape) if null else shape)
        plain = codec.array(*shapes)
        if not self.more:
            return plain
        known = {attr.toml: attr.node.shape() for attr in self.more}
        extended = codec.array(*shapes, _more_shape(known, self._is_absent))

        def check(value: Value, path: str) -> int:
            longer = type(value) is list and len(value) > len(shapes)
            return (extended if longer else plain)(value, path)

        return check

    def _is_absent(self, key: str, packed: Value) -> bool:
        attr = next(each for each in self.more if each.toml == key)
        return attr.default is not None and bool(packed == attr.node.pack(attr.default))

    def pack(self, value: Any) -> Value:
        packed: list[Value] = []
        for attr in self.attrs:
            item = getattr(value, attr.name)
            if isinstance(attr, Variants):
                packed.append(attr.pack(item))
            else:
                packed.append(None if item is None else attr.node.pack(item))
        more = [
            [attr.toml, attr.node.pack(getattr(value, attr.name))]
            for attr in sorted(self.more, key=lambda each: each.toml)
            if getattr(value, attr.name) != attr.default
        ]
        return [*packed, more] if more else packed

    def unpack(self, value: Value) -> Any:
        read: dict[str, Any] = {attr.name: attr.default for attr in self.more}
        for attr, item in zip(self.attrs, value, strict=False):
            if isinstance(attr, Variants):
                read[attr.name] = attr.unpack(item)
            else:
                read[attr.name] = None if item is None else attr.node.unpack(item)
        known = {attr.toml: attr for attr in self.more}
        for key, item in value[len(self.attrs)] if len(value) > len(self.attrs) else ():
            read[known[key].name] = known[key].node.unpack(item)
        return self.cls(**read)


def _more_shape(known: Mapping[str, Shape], is_absent: Callable[[str, Value], bool]) -> Shape:
    """Return the shape of an array of ``[key, value]``: known keys, ascending, not absent."""
    name = codec.text(NAME_BYTES_MAX)
    pairs = {key: codec.array(name, shape) for key, shape in known.items()}

    def pair(value: Value, path: str) -> int:
        key = value[0] if type(value) is list and value else None
        if type(key) is not str or key not in pairs:
            raise DecodeError("unknown key", path=path)
        size = pairs[key](value, path)
        if is_absent(key, value[1]):
            raise DecodeError("the value says nothing; leave it out", path=path)
        return size

    rows = codec.list_of(pair, len(known), low=1)

    def check(value: Value, path: str) -> int:
        size = rows(value, path)
        keys = [key for key, _ in value]
        if keys != sorted(dict.fromkeys(keys)):
            raise DecodeError("keys are not in ascending order", path=path)
        return size

    return check
