"""The condition language against two independent CEL implementations, on what all three share.

Random well-typed expressions are evaluated by ``celpy`` (Python) and ``cel`` (Rust). Where the two
agree, on a value or on an error, this language must agree with them.
"""

from __future__ import annotations

from typing import Any

import cel
import celpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consensus.ledger.expr import Name, compile_expression
from consensus.ledger.model import EvaluationError
from consensus.ledger.types import Type
from tests.consensus.ledger.expressions import Names

ERROR = "evaluation error"
INPUT = {"a": Type("int"), "b": Type("int"), "s": Type("text"), "t": Type("text"),
         "l": Type("list", "int"), "p": Type("bool")}  # fmt: skip
SCOPE = Names({("input", name): Name(kind) for name, kind in INPUT.items()})
EDGES = [0, 1, -1, 2, 7, -7, 2**62, 2**63 - 1, -(2**63), -(2**63) + 1]
TEXTS = ["", "a", "ab", "ba", "é", "éa", "😀", "a😀b", "ß", "aé"]

_environment = celpy.Environment()


def literal_int(value: int) -> str:
    return str(value)


def quoted(value: str) -> str:
    return "'" + value + "'"


integers = st.one_of(st.sampled_from(EDGES), st.integers(-20, 20))
int_leaf = st.one_of(integers.map(literal_int), st.sampled_from(["input.a", "input.b"]))
text_leaf = st.one_of(st.sampled_from(TEXTS).map(quoted), st.sampled_from(["input.s", "input.t"]))
bool_leaf = st.sampled_from(["true", "false", "input.p"])
list_leaf = st.one_of(
    st.just("input.l"),
    st.lists(integers.map(literal_int), min_size=1, max_size=4).map(lambda i: f"[{', '.join(i)}]"),
)


def ints(depth: int) -> st.SearchStrategy[str]:
    if depth == 0:
        return int_leaf
    below = ints(depth - 1)
    return st.one_of(
        int_leaf,
        st.tuples(below, st.sampled_from("+-*/%"), below).map(" ".join).map("({})".format),
        st.tuples(bools(depth - 1), below, below).map(lambda c: f"({c[0]} ? {c[1]} : {c[2]})"),
        text_leaf.map("size({})".format),
        list_leaf.map("size({})".format),
    )


def bools(depth: int) -> st.SearchStrategy[str]:
    if depth == 0:
        return bool_leaf
    below, number = bools(depth - 1), ints(depth - 1)
    relation = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
    method = st.sampled_from(["startsWith", "endsWith", "contains"])
    return st.one_of(
        bool_leaf,
        st.tuples(number, relation, number).map(" ".join).map("({})".format),
        st.tuples(text_leaf, relation, text_leaf).map(" ".join).map("({})".format),
        st.tuples(below, st.sampled_from(["&&", "||"]), below).map(" ".join).map("({})".format),
        st.lists(below, min_size=3, max_size=4).map(" && ".join).map("({})".format),
        below.map("!{}".format),
        st.tuples(number, list_leaf).map(" in ".join).map("({})".format),
        st.tuples(list_leaf, list_leaf).map(" == ".join).map("({})".format),
        st.tuples(text_leaf, method, text_leaf).map(lambda c: f"{c[0]}.{c[1]}({c[2]})"),
        st.tuples(
            list_leaf, st.sampled_from(["all", "exists"]), relation, int_leaf,  # macros do not nest
            st.sampled_from(["x", "100 / x", "x + 1", "x % 3"]),
        ).map(lambda c: f"{c[0]}.{c[1]}(x, {c[4]} {c[2]} {c[3]})"),
    )  # fmt: skip


inputs = st.fixed_dictionaries(
    {
        "a": integers,
        "b": integers,
        "s": st.sampled_from(TEXTS),
        "t": st.sampled_from(TEXTS),
        "l": st.lists(st.integers(-3, 3), max_size=4),
        "p": st.booleans(),
    }
)


def plain(value: Any) -> Any:
    """An oracle's number types compare equal to int; bool must stay bool."""
    if isinstance(value, bool | celpy.celtypes.BoolType):
        return bool(value)
    return int(value) if isinstance(value, int) else value


def by_celpy(source: str, env: dict[str, Any]) -> Any:
    try:
        program = _environment.program(_environment.compile(source))
        return plain(program.evaluate({"input": celpy.json_to_cel(env["input"])}))
    except Exception:
        return ERROR


def by_cel(source: str, env: dict[str, Any]) -> Any:
    try:
        return plain(cel.evaluate(source, env))
    except Exception:
        return ERROR


def ours(source: str, env: dict[str, Any]) -> Any:
    try:
        return compile_expression(source, SCOPE).evaluate(env)
    except EvaluationError:
        return ERROR


def check(source: str, env: dict[str, Any]) -> bool:
    """Compare; return whether the oracles agreed, so that there was something to compare."""
    first, second = by_celpy(source, env), by_cel(source, env)
    if type(first) is not type(second) or first != second:
        return False
    found = ours(source, env)
    assert (type(found), found) == (type(first), first), source
    return True


QUICK = settings(
    max_examples=120, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip


@QUICK
@given(bools(3), inputs)
def test_conditions_agree_with_both_cel_implementations(source: str, given: dict[str, Any]) -> None:
    check(source, {"input": given})


@QUICK
@given(ints(3), inputs)
def test_numbers_agree_with_both_cel_implementations(source: str, given: dict[str, Any]) -> None:
    check(source, {"input": given})


COMMON = [
    "7 / -2 == -3",
    "-7 % 2 == -1",
    "7 % -2 == 1",
    "1 / 0 == 1",
    "1 % 0 == 1",
    "false && 1 / 0 == 1",
    "1 / 0 == 1 && false",
    "true || 1 / 0 == 1",
    "1 / 0 == 1 || true",
    "1 / 0 == 1 && true",
    "1 / 0 == 1 || false",
    "9223372036854775807 + 1 > 0",
    "-9223372036854775808 - 1 < 0",
    "9223372036854775807 * 2 > 0",
    "[1, 0].exists(x, 1 / x == 1)",
    "[0, 1].exists(x, 1 / x == 1)",
    "[0, 2].exists(x, 1 / x == 1)",
    "[0, 2].all(x, 1 / x == 1)",
    "[1, 0].all(x, 1 / x == 1)",
    "size('😀é') == 2",
    "'a' < 'é'",
    "3 in [1, 2, 3]",
    "true ? 1 / 1 == 1 : 1 / 0 == 1",
    "1 / 0 == 1 ? true : true",
    "'abc'.contains('')",
    "has(input.a)",
    "0x10 == 16",
    "b'ab' == b'\\x61b'",
    "1 + 2 * 3 - 4 / 2 == 5",
    "!true || true",
    "true || false && false",
    "1 < 2 == true",
    "true ? false : true ? true : true",
    "\"a\" == 'a'",
    "'\\u00e9' == 'é'",
    "'a\\'b\\n' != 'a'",
]


def test_the_oracles_agree_on_most_of_the_written_cases_and_so_do_we() -> None:
    env = {"input": {"a": 1, "b": 2, "s": "", "t": "", "l": [], "p": True}}
    agreed = [source for source in COMMON if check(source, env)]
    assert len(agreed) >= 25, sorted(set(COMMON) - set(agreed))


@pytest.mark.parametrize("operator", ["+", "-", "*", "/", "%"])
def test_arithmetic_agrees_at_the_edges_of_64_bits(operator: str) -> None:
    compared = 0
    for a in EDGES:
        for b in EDGES:
            env = {"input": {"a": a, "b": b, "s": "", "t": "", "l": [], "p": True}}
            compared += check(f"input.a {operator} input.b", env)
    assert compared >= 60
