"""Rule sets of tests' networks are read and compiled once in a process, not by every test.

Almost every test founds a network, and the texts of its rules are mostly the same; compiling them
was a tenth of what the suite costs. The tests of the compiler itself call it by its own name, which
stays what it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from functools import lru_cache
from unittest.mock import patch

from consensus.ledger import genesis_state, ledger, rules
from consensus.ledger.model import Rulebook, RuleSet
from consensus.ledger.rules import Definition, compile_rulebook, encode_definition, load_toml

KEPT_MAX = 256


@lru_cache(maxsize=KEPT_MAX)
def encoded(text: str) -> bytes:
    """Return the canonical form of a rule set that is written as TOML."""
    return encode_definition(load_toml(text))


@contextmanager
def shared() -> Iterator[None]:
    """Have what founds networks, executes blocks and reads rules compile none of them twice."""

    @lru_cache(maxsize=KEPT_MAX)
    def kept(definitions: tuple[Definition, ...], _where: tuple[str, ...]) -> Rulebook:
        return compile_rulebook(definitions)

    def compiled(definitions: Sequence[Definition]) -> Rulebook:
        if any(each.lines for each in definitions):  # its faults would name them
            return compile_rulebook(definitions)
        return _apart(kept(tuple(definitions), tuple(each.where for each in definitions)))

    with ExitStack() as patches:
        for module in (genesis_state, ledger, rules):
            patches.enter_context(patch.object(module, "compile_rulebook", compiled))
        yield


def _apart(book: Rulebook) -> Rulebook:
    """Return a rule book of the same rules: a test may take some of them away."""
    return Rulebook({name: _with_tables_of_its_own(each) for name, each in book.rule_sets.items()})


def _with_tables_of_its_own(rules: RuleSet) -> RuleSet:
    tables = {each.name: getattr(rules, each.name) for each in fields(rules)}
    return replace(rules, **{name: dict(t) for name, t in tables.items() if isinstance(t, dict)})
