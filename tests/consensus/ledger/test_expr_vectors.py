"""What expressions mean, fixed for every implementation.

The values were made without the product: by two CEL packages (by celpy alone where a macro absorbs
an error, which the other does not), and by ``fractions`` and ``datetime``. Null stands for an
expression without a value.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from consensus.ledger.expr import Name, compile_expression
from consensus.ledger.expr.functions import FUNCTIONS
from consensus.ledger.model import EvaluationError
from consensus.ledger.types import Type
from tests.consensus.ledger.expressions import Names

FILE = Path(__file__).parents[2] / "vectors/expressions.json"
VECTORS = json.loads(FILE.read_text(encoding="utf-8"))
SCOPE = Names(
    {
        ("input", name): Name(Type(*kind.split(":", 1)), optional=value is None)
        for name, (kind, value) in VECTORS["inputs"].items()
    }
)
INPUT = {name: value for name, (_, value) in VECTORS["inputs"].items()}


@pytest.mark.parametrize(("source", "kind", "expected"), VECTORS["rows"])
def test_expression_has_the_recorded_type_and_value(source: str, kind: str, expected: Any) -> None:
    found = compile_expression(source, SCOPE)
    assert found.type.text == kind
    if expected is None:
        with pytest.raises(EvaluationError):
            found.evaluate({"input": INPUT})
        return
    value = found.evaluate({"input": INPUT})
    assert (type(value), value) == (type(expected), expected)


def test_the_vectors_use_every_function() -> None:
    sources = [source for source, _, _ in VECTORS["rows"]]
    called = {name for name, _ in FUNCTIONS if any(f"{name}(" in source for source in sources)}
    assert called == {name for name, _ in FUNCTIONS}
