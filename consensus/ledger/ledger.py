"""What is common to all blocks of a network: its chain, its limits, compiled rule sets.

Rule sets lie in the state, each under its number; the head of a domain says which is active from
when, by chain time. Compiling costs milliseconds, so compiled rule books are kept, and what is to
come is compiled when it is activated: the block that crosses the time only switches. From block to
block the rules in force are kept while the leaves they rest on have the same value hashes, and
until the next date on which a rule set or a parameter changes.

Not here: who activates rule sets (``kernel.rulesets``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from consensus import codec
from consensus.codec import INT64_MAX, INT64_MIN, Value
from consensus.committee import Committee
from consensus.errors import LocalProtocolError
from consensus.genesis import Genesis, Limits, chain_id
from consensus.hashing import ZERO
from consensus.ledger.attached import split_attached
from consensus.ledger.authority import Authority
from consensus.ledger.effects import Active
from consensus.ledger.governing import named_definition
from consensus.ledger.layout import EXECUTOR_HEAD, Paths, RulesHead
from consensus.ledger.model import Rulebook
from consensus.ledger.records import KeptRecords, RowLike
from consensus.ledger.rules import compile_rulebook
from consensus.ledger.versions import EXECUTORS
from consensus.ledger.view import RulesInForce, Source
from consensus.state.record import decode_single

RULEBOOKS_MAX: Final = 8
"""Compiled rule books kept beside those in force and to come; activations are rare."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The rule sets in force in ``from_ms <= t < until_ms``, compiled, and by domain.

    ``reads`` are the leaves this rests on, key path to value hash. In this time the parameters of
    actions do not change either; ``actives`` are those the executor has met. ``ahead`` are the rule
    books of the times at which a rule set is due, so that nothing is left to compile then.
    ``executor`` is the number of the behaviour in force, 0 where the source does not say.
    """

    book: Rulebook
    in_force: dict[str, RulesInForce]
    reads: dict[bytes, bytes]
    from_ms: int
    until_ms: int
    ahead: tuple[Rulebook, ...] = ()
    executor: int = 0
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

    ``chain`` is the hash of the genesis file; ``limits`` and ``committee`` come from it, and the
    state says which committee came after. ``nodes`` are the node keys of that first committee; set
    to None, deliveries of sealed values are not judged: of a draft they come last. This release has
    the behaviours ``executors``.
    """

    chain: bytes
    limits: Limits
    committee: Committee
    executors: tuple[int, ...] = EXECUTORS
    nodes: Mapping[str, bytes] | None = field(init=False)
    paths: Paths = field(init=False)
    authority: Authority = field(init=False, default_factory=Authority)
    records: KeptRecords = field(init=False, default_factory=KeptRecords)
    _books: dict[tuple[bytes, ...], Rulebook] = field(init=False, default_factory=dict)
    _rules: Rules | None = field(init=False, default=None)
    _activated: tuple[bytes, list[list[int]]] = field(init=False, default=(b"", []))
    """When which executors come into force, and the hash of the leaf that says so."""

    def __post_init__(self) -> None:
        self.paths = Paths(self.chain)
        self.nodes = {each.agency: each.node_key for each in self.committee.validators}

    def apart(self) -> Ledger:
        """Return a ledger of the same network that has judged nothing, with the rules compiled."""
        other = Ledger(self.chain, self.limits, self.committee, self.executors)
        other.nodes = self.nodes
        other._books.update(self._books)
        if self._rules is not None:
            for book in (self._rules.book, *self._rules.ahead):
                other._books[tuple(each.encoded for each in book.rule_sets.values())] = book
        return other

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

        heads = [RulesHead(*value([domain])) for domain in value([])]
        versions = RulesHead(EXECUTOR_HEAD, [], 0, [], 0)
        if source.get(self.paths.executor) is not None:  # a witness has none
            versions = RulesHead(*value([EXECUTOR_HEAD]))
        dates = [from_ms for head in (*heads, versions) for _, from_ms in head.active]

        def sets_at(then_ms: int) -> dict[str, tuple[int, bytes, RowLike]]:
            numbers = {head.domain: head.number_at(then_ms) for head in heads}
            return {name: (n, *read([name, n])) for name, n in numbers.items() if n}

        def book_of(sets: dict[str, tuple[int, bytes, RowLike]]) -> Rulebook:
            return self.compiled([split_attached(row.value)[1] for _, _, row in sets.values()])

        now = sets_at(time_ms)
        in_force = {name: RulesInForce(n, kh, row.vh) for name, (n, kh, row) in now.items()}
        book = book_of(now)
        times = sorted({date for date in dates if date > time_ms})
        ahead = tuple(book_of(sets_at(then_ms)) for then_ms in times)
        for rule_set in book.rule_sets.values():
            for action in rule_set.actions.values():
                dates += action.schedule.starts
        from_ms = max((date for date in dates if date <= time_ms), default=INT64_MIN)
        until_ms = min((date for date in dates if date > time_ms), default=INT64_MAX)
        executor = versions.number_at(time_ms)
        return Rules(book, in_force, reads, from_ms, until_ms, ahead, executor)

    def executors_from(self, source: Source, time_ms: int) -> list[tuple[int, int]]:
        """Return the executor in force at ``time_ms`` and those to come: number, from when.

        Empty where the source does not say. Cost: one row.
        """
        row = source.get(self.paths.executor)
        if row is None:
            return []
        if row.vh != self._activated[0]:
            head = RulesHead(*codec.parse(decode_single(row.value)[2], "rules"))
            self._activated = row.vh, head.active
        active = self._activated[1]
        return [
            (number, from_ms)
            for at, (number, from_ms) in enumerate(active)
            if at + 1 == len(active) or active[at + 1][1] > time_ms
        ]

    def lacking(self, source: Source, time_ms: int) -> tuple[int, int] | None:
        """Return the first executor, in force or to come, that this release does not have."""
        for number, from_ms in self.executors_from(source, time_ms):
            if number not in self.executors:
                return number, from_ms
        return None

    def compiled(self, texts: Sequence[bytes]) -> Rulebook:
        """Return the rule book of rule sets, one a domain, in ascending order of domains.

        Raises:
            RulesError: they do not go together.

        Cost: milliseconds where they are new to this process.
        """
        key = tuple(texts)
        book = self._books.pop(key, None) or self._kept(key)
        if book is None:
            book = compile_rulebook([named_definition(text) for text in texts])
        if len(self._books) >= RULEBOOKS_MAX:
            del self._books[next(iter(self._books))]
        self._books[key] = book  # what was used last comes last
        return book

    def _kept(self, key: tuple[bytes, ...]) -> Rulebook | None:
        """Return the rule book of these rule sets if it is in force or to come."""
        books = () if self._rules is None else (self._rules.book, *self._rules.ahead)
        for book in books:
            if tuple(each.encoded for each in book.rule_sets.values()) == key:
                return book
        return None


def of_genesis(genesis: Genesis) -> Ledger:
    """Return the ledger of the network that a genesis file founds."""
    return Ledger(chain_id(genesis.encode()), genesis.limits, genesis.committee)
