"""What is common to all blocks of a network: its chain, its limits, compiled rule sets.

Rule sets lie in the state, each under its number; the head of a domain says which is active from
when, by chain time. Compiling costs milliseconds, so compiled rule books are kept by the roots of
their rule sets.

Not here: who activates rule sets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from consensus import codec
from consensus.errors import LocalProtocolError
from consensus.genesis import Genesis, Limits, chain_id
from consensus.hashing import ZERO
from consensus.ledger.layout import Paths, RulesHead
from consensus.ledger.model import Rulebook
from consensus.ledger.rules import compile_rulebook, decode_definition
from consensus.ledger.view import RowLike, Source, split_attached
from consensus.state.record import decode_single

RULEBOOKS_MAX: Final = 8
"""Compiled rule books kept; activations are rare."""


class RulesInForce(NamedTuple):
    """A rule set in force: its number, and where its leaf lies with which hash."""

    number: int
    kh: bytes
    vh: bytes


@dataclass(frozen=True, slots=True)
class Rules:
    """The rule sets in force at one time, compiled, and by domain."""

    book: Rulebook
    in_force: dict[str, RulesInForce]


@dataclass(slots=True)
class Ledger:
    """What executing blocks of one network needs beside the state.

    ``chain`` is the hash of the genesis file, ``limits`` come from it.
    """

    chain: bytes
    limits: Limits
    paths: Paths = field(init=False)
    _books: dict[tuple[bytes, ...], Rulebook] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.paths = Paths(self.chain)

    def rules(self, source: Source, time_ms: int) -> Rules:
        """Return the rule sets in force at ``time_ms`` by the state in ``source``.

        Raises:
            LocalProtocolError: the state lacks a rule set that its own leaves name.

        Cost: about 10 µs a domain; milliseconds when a rule set is new to this process.
        """
        in_force: dict[str, RulesInForce] = {}
        roots: list[bytes] = []
        texts: list[bytes] = []
        _, _, data = decode_single(_row(source, self.paths.rules).value)
        for domain in codec.parse(data, "domains"):
            _, _, data = decode_single(_row(source, self.paths("rules", [domain])).value)
            number = RulesHead(*codec.parse(data, "head")).number_at(time_ms)
            if not number:
                continue
            kh = self.paths("rules", [domain, number])
            row = _row(source, kh)
            root, text = split_attached(row.value)
            in_force[domain] = RulesInForce(number, kh, row.vh)
            roots.append(root)
            texts.append(text)
        return Rules(self._book(tuple(roots), texts), in_force)

    def _book(self, roots: tuple[bytes, ...], texts: list[bytes]) -> Rulebook:
        book = self._books.get(roots)
        if book is None:
            book = compile_rulebook([decode_definition(text) for text in texts])
            if len(self._books) >= RULEBOOKS_MAX:
                self._books.clear()
            self._books[roots] = book
        return book


def of_genesis(genesis: Genesis) -> Ledger:
    """Return the ledger of the network that a genesis file founds."""
    return Ledger(chain_id(genesis.encode()), genesis.limits)


def _row(source: Source, kh: bytes) -> RowLike:
    row = source.get(kh)
    if row is None or row.vh == ZERO:
        raise LocalProtocolError("a leaf of the rules is missing from the state")
    return row
