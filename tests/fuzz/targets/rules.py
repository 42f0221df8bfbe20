"""The rule-set compiler: texts as people write them, encoded definitions as they lie on the chain,
and single expressions.
"""

from __future__ import annotations

from consensus.errors import DecodeError, RulesError
from consensus.ledger.expr.syntax import Fault, parse
from consensus.ledger.rules import (
    check_text,
    compile_rulebook,
    decode_definition,
    describe,
    encode_definition,
    load_toml,
)
from tests.consensus.ledger.test_executor_hostile import LAB
from tests.consensus.ledger.world import TEXTS
from tests.fuzz.target import Target, vectors

RULES = vectors("rules")
KEYS = (
    "[actions.a]", "[kinds.k]", "[kinds.k.fields]", "[accounts.main]", "[params]", "[roles]",
    "domain = ", "number = ", "summary = ", "who = ", "requires = ", "inputs = ", "reads = ",
    "effects = ", "create = ", "set = ", "move = ", "policy = ", "reversible = ", "fields = ",
    "text", "integer", "money", "date", "time", "ref:", "list:", "optional", '"', '"""', "{", "}",
)  # fmt: skip
SYNTAX = (
    "size(", ".all(x, ", ".exists(x, ", "has(", "&&", "||", "==", "<=", " in ", " ? ", " : ", "-",
    "9223372036854775807", "true", "null", '"a"', "'b'", "[1, 2]", "input.amount", "now", "\\u0000",
)  # fmt: skip


def rules_text(data: bytes) -> None:
    """A text is refused, with the first fault's line; or it is checked, compiled and described."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise RulesError(f"not UTF-8: {error.reason}") from error
    for each in check_text(text, "rules.toml"):
        assert 0 <= each.line <= text.count("\n") + 1, "a line that the text does not have"
    definition = load_toml(text)
    encoded = encode_definition(definition)
    assert encode_definition(decode_definition(encoded)) == encoded, "encoded and read, it differs"
    describe(compile_rulebook([definition]))


def rules_encoded(data: bytes) -> None:
    compile_rulebook([decode_definition(data)])


def expression(data: bytes) -> None:
    parse(data.decode("utf-8", "replace"))


TARGETS = [
    Target("rules-text", rules_text, [text.encode() for text in (LAB, *TEXTS)], (RulesError,),
           words=KEYS, bytes_max=8192),
    Target("rules-encoded", rules_encoded, [bytes.fromhex(row["encoded"]) for row in RULES],
           (DecodeError, RulesError)),
    Target("expression", expression,
           [row[0].encode() for row in vectors("expressions")["rows"]], (Fault,),
           words=SYNTAX, bytes_max=1024),
]  # fmt: skip
