"""What is common to all blocks of a network: its chain, its limits, compiled rule sets.

Rule sets lie in the state, each under its number; the head of a domain says which is active from
when, by chain time. Compiling costs milliseconds, so compiled rule books are kept by the roots of
their rule sets. From block to block the rules in force are kept while the leaves they rest on have
the same value hashes, and until the next date on which a rule set or a parameter changes.

Not here: who activates rule sets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from consensus import codec
from consensus.codec import INT64_MAX, INT64_MIN, Value
from consensus.errors import LocalProtocolError
from consensus.genesis import Genesis, Limits, chain_id
from consensus.hashing import ZERO
from consensus.ledger.authority import Authority
from consensus.ledger.effects import Active
from consensus.ledger.layout import Paths, RulesHead
from consensus.ledger.model import Rulebook
from consensus.ledger.rules import compile_rulebook, decode_definition
from consensus.ledger.view import RowLike, RulesInForce, Source, split_attached
from consensus.state.record import decode_single

RULEBOOKS_MAX: Final = 8
"""Compiled rule books kept; activations are rare."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The rule sets in force in ``from_ms <= t < until_ms``, compiled, and by domain.

    ``reads`` are the leaves this rests on, key path to value hash. In this time the parameters of
    actions do not change either; ``actives`` are those the executor has met.
    """

    book: Rulebook
    in_force: dict[str, RulesInForce]
    reads: dict[bytes, bytes]
    from_ms: int
    until_ms: int
    actives: dict[tuple[str, str], Active] = field(default_factory=dict)

    def lasts(self, source: Source, time_ms: int) -> bool:
        """Return whether these are the rules at ``time_ms`` by the state in ``source``."""
        if not self.from_ms <= time_ms < self.until_ms:
            return False
        for kh, vh in self.reads.items():
            row = source.get(kh)
            if row is None or row.vh != vh:
                return False
        return True


@dataclass(slots=True)
class Ledger:
    """What executing blocks of one network needs beside the state.

    ``chain`` is the hash of the genesis file, ``limits`` come from it.
    """

    chain: bytes
    limits: Limits
    paths: Paths = field(init=False)
    authority: Authority = field(init=False, default_factory=Authority)
    _books: dict[tuple[bytes, ...], Rulebook] = field(init=False, default_factory=dict)
    _rules: Rules | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.paths = Paths(self.chain)

    def rules(self, source: Source, time_ms: int) -> Rules:
        """Return the rule sets in force at ``time_ms`` by the state in ``source``.

        Raises:
            LocalProtocolError: the state lacks a rule set that its own leaves name.

        Cost: two rows a domain; milliseconds when a rule set is new to this process.
        """
        if self._rules is None or not self._rules.lasts(source, time_ms):
            self._rules = self._find_rules(source, time_ms)
            self.authority = Authority()  # powers rest on what the rules say of roles
        return self._rules

    def _find_rules(self, source: Source, time_ms: int) -> Rules:
        reads: dict[bytes, bytes] = {}

        def read(components: list[Value]) -> tuple[bytes, RowLike]:
            kh = self.paths("rules", components)
            row = source.get(kh)
            if row is None or row.vh == ZERO:
                raise LocalProtocolError("a leaf of the rules is missing from the state")
            reads[kh] = row.vh
            return kh, row

        def value(components: list[Value]) -> Value:
            _, _, data = decode_single(read(components)[1].value)
            return codec.parse(data, "rules")

        in_force: dict[str, RulesInForce] = {}
        roots: list[bytes] = []
        texts: list[bytes] = []
        dates: list[int] = []
        for domain in value([]):
            head = RulesHead(*value([domain]))
            dates += [from_ms for _, from_ms in head.active]
            number = head.number_at(time_ms)
            if not number:
                continue
            kh, row = read([domain, number])
            root, text = split_attached(row.value)
            in_force[domain] = RulesInForce(number, kh, row.vh)
            roots.append(root)
            texts.append(text)
        book = self._book(tuple(roots), texts)
        for rule_set in book.rule_sets.values():
            for action in rule_set.actions.values():
                dates += action.schedule.starts
        from_ms = max((date for date in dates if date <= time_ms), default=INT64_MIN)
        until_ms = min((date for date in dates if date > time_ms), default=INT64_MAX)
        return Rules(book, in_force, reads, from_ms, until_ms)

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
