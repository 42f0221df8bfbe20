"""The condition language: what it accepts, what it means, what it refuses and how it says so."""

from __future__ import annotations

from typing import Any

import pytest

from consensus.errors import RulesError
from consensus.ledger.expr import DEPTH_MAX, SOURCE_CHARACTERS_MAX, Name, compile_expression
from consensus.ledger.model import EvaluationError, Expression
from consensus.ledger.types import Type
from tests.consensus.ledger.expressions import Names

USD, EUR = Type("money", "USD"), Type("money", "EUR")
SCOPE = Names(
    {
        ("now",): Name(Type("time")),
        ("input", "days"): Name(Type("int")),
        ("input", "period"): Name(Type("month")),
        ("input", "note"): Name(Type("text"), optional=True),
        ("input", "names"): Name(Type("list", "text")),
        ("ent", "status"): Name(Type("text")),
        ("ent", "monthly"): Name(USD),
        ("ent", "euros"): Name(EUR),
        ("ent", "ended"): Name(Type("time"), optional=True),
        ("ent", "child"): Name(Type("ref", "child")),
        ("ent", "person"): Name(Type("ref", "person")),
        ("ent", "anyone"): Name(Type("ref")),
        ("ent", "secret"): Name(Type("sealed", "treasury")),
        ("ent", "proof"): Name(Type("commitment")),
        ("params", "large"): Name(Type("int"), fallible=True),
        ("params", "rates"): Name(Type("list", "int"), fallible=True),
        ("who", "scope", "region"): Name(Type("text"), fallible=True),
    }
)


def environment(**ent: Any) -> dict[str, Any]:
    fields = {
        "status": "active", "monthly": 25000, "euros": 1, "ended": None, "child": ["c"],
        "person": ["p"], "anyone": ["p"], "secret": b"s" * 32, "proof": b"p" * 32,
    }  # fmt: skip
    return {
        "now": 1_000,
        "input": {"days": 3, "period": 24312, "note": None, "names": ["a", "bb"]},
        "ent": fields | ent,
        "params": {"large": 20000, "rates": [5, 6, 7]},
        "who": {"scope": {"region": "north"}},
    }


def compiled(source: str, **options: Any) -> Expression:
    return compile_expression(source, SCOPE, **options)


def value(source: str, **ent: Any) -> Any:
    return compiled(source).evaluate(environment(**ent))


def refusal(source: str, **options: Any) -> RulesError:
    with pytest.raises(RulesError) as caught:
        compiled(source, **options)
    return caught.value


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("ent.status == 'active'", True),
        ("ent.status != 'active'", False),
        ("ent.monthly > params.large", True),
        ("ent.monthly * 2 + 1", 50001),
        ("2 + 3 * 4", 14),
        ("(2 + 3) * 4", 20),
        ("10 - 3 - 2", 5),
        ("-7 / 2", -3),
        ("-7 % 2", -1),
        ("-9223372036854775808", -(2**63)),
        ("0x1F", 31),
        ("min(4, 2, 3)", 2),
        ("max(input.days, 10)", 10),
        ("item(params.rates, 1)", 6),
        ("size('Zoë😀')", 4),
        ("input.names.size()", 2),
        ("'bb' in input.names", True),
        ("!('c' in input.names)", True),
        ("input.names.exists(n, size(n) == 2)", True),
        ("input.names.all(n, n.startsWith('a'))", False),
        ("'abc'.endsWith('bc') && 'abc'.contains('b')", True),
        ("has(ent.ended)", False),
        ("has(ent.ended) ? ent.ended : now", 1_000),
        ("has(params.large)", True),
        ("has(who.scope.region)", True),
        ('who.scope.region == "north"', True),
        ("now - 400", 600),
        ("input.period + 1", 24313),
        ("input.period - input.period", 0),
        ("input.period >= 24312", True),
        ("ent.monthly / ent.monthly", 1),
        ("ent.proof == ent.secret", False),
        ("[1, input.days] == [1, 3]", True),
        ("[ent.monthly] == [25000]", True),
        ("ent.anyone == ent.person", True),
        ("ent.anyone == ent.child", False),
        ("ent.child in [ent.child]", True),
        ("ent.anyone in [ent.child, ent.child]", False),
        ("true || false && false", True),
        ("true ? 1 : false ? 2 : 3", 1),
        ("b'\\x00A' == b'\\x00\\x41'", True),
        ("'\\u00e9' == 'é'", True),
    ],
)
def test_expression_has_the_value(source: str, expected: Any) -> None:
    assert value(source) == expected


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("ent.monthly + 1", USD),
        ("1 + ent.monthly", USD),
        ("ent.monthly * input.days", USD),
        ("ent.monthly % 100", USD),
        ("ent.monthly / 12", USD),
        ("ent.monthly / ent.monthly", Type("int")),
        ("true ? ent.monthly : 0", USD),
        ("input.period - input.period", Type("int")),
        ("input.period - 1", Type("month")),
        ("now + 5", Type("time")),
        ("[1, 2]", Type("list", "int")),
        ("[ent.monthly, 1]", Type("list", "money:USD")),
        ("item(params.rates, 0)", Type("int")),
        ("min(ent.monthly, 5)", USD),
    ],
)
def test_expression_has_the_type(source: str, kind: Type) -> None:
    assert compiled(source).type == kind


def test_reads_list_each_path_once_in_order_of_appearance() -> None:
    found = compiled("ent.status == 'a' && input.days > 1 && has(ent.ended) && ent.status != 'b'")
    assert found.reads == (("ent", "status"), ("input", "days"), ("ent", "ended"))


@pytest.mark.parametrize(
    "source",
    [
        "1 / 0",
        "1 % 0",
        "9223372036854775807 + 1",
        "-9223372036854775808 - 1",
        "4611686018427387904 * 2",
        "-9223372036854775808 / -1",
        "item(params.rates, 3)",
        "item(params.rates, -1)",
        "ent.ended",
        "size(input.note)",
        "input.period - 30000",
        "now + 9223372036854775807",
        "true && 1 / 0 == 1",
        "1 / 0 == 1 && true",
        "1 / 0 == 1 || false",
        "[1, 0].all(x, 1 / x == 1)",
        "[0, 2].exists(x, 1 / x == 1)",
        "1 / 0 == 1 ? 1 : 2",
    ],
)
def test_evaluation_fails_instead_of_giving_a_wrong_value(source: str) -> None:
    with pytest.raises(EvaluationError):
        value(source)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("false && 1 / 0 == 1", False),
        ("1 / 0 == 1 && false", False),
        ("1 / 0 == 1 && true && false", False),
        ("true || 1 / 0 == 1", True),
        ("1 / 0 == 1 || true", True),
        ("1 / 0 == 1 || false || true", True),
        ("[0, 1].exists(x, 1 / x == 1)", True),
        ("[0, 2].all(x, 1 / x == 1)", False),
        ("ent.ended > now || true", True),
        ("has(ent.ended) && ent.ended > now", False),
    ],
)
def test_an_error_is_absorbed_where_it_cannot_change_the_result(
    source: str, expected: bool
) -> None:
    assert value(source) is expected


def test_the_first_error_of_several_is_reported() -> None:
    with pytest.raises(EvaluationError, match="division by zero"):
        value("1 / 0 == 1 && item(params.rates, 9) == 1")


def test_missing_parameter_and_scope_are_evaluation_errors() -> None:
    env = environment() | {"params": {}, "who": {"scope": {}}}
    for source in ("params.large > 1", "who.scope.region == 'north'"):
        with pytest.raises(EvaluationError, match="has no value"):
            compiled(source).evaluate(env)
    assert compiled("has(params.large)").evaluate(env) is False


def test_a_bare_optional_path_is_copied_as_absent_only_when_asked() -> None:
    kept = compiled("ent.ended", optional=True)
    assert kept.optional
    assert kept.evaluate(environment()) is None
    with pytest.raises(EvaluationError, match=r"ent\.ended has no value"):
        compiled("ent.ended").evaluate(environment())


def test_references_are_compared_by_the_types_of_their_components_too() -> None:
    for source in ("ent.anyone == ent.person", "ent.anyone in [ent.person]"):
        assert value(source, anyone=[1], person=[True]) is False
        assert value(source, anyone=[1], person=[1]) is True


def test_evaluation_does_not_change_the_environment() -> None:
    env = environment()
    compiled("input.names.exists(n, n == 'a')").evaluate(env)
    assert env == environment()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "expected a value, found the end"),
        ("1 +", "expected a value, found the end"),
        ("(1", "expected '\\)'"),
        ("1 2", "expected the end"),
        ("ent.status = 'a'", "unexpected '='"),
        ("true & false", "unexpected '&'"),
        ("'open", 'unexpected "\'"'),
        ("1.5 > 1", "no floating-point"),
        ("1e3", "no floating-point"),
        ("1u", "no unsigned"),
        ("-input.days", "minus stands only before a number"),
        ("--1", "minus stands only before a number"),
        ("9223372036854775808", "does not fit 64 bits"),
        ("null", "there is no null"),
        ("params.rates[0]", "not indexed"),
        ("'a\\q'", "unknown escape"),
        ("'e\u0301'", "not in Unicode NFC"),
        ("'\\ud800'", "unknown escape"),
        ("b'é'", "bytes hold ASCII"),
        ("[1, 2][0]", "not indexed"),
        ("params.rates.[0]", "expected a name after the dot"),
        ("(1).x", "only records and inputs have fields"),
        ("f(1)", "there is no function f"),
        ("startsWith('a', 'b')", "is written value.startsWith"),
        ("1.min(2)", "min is written min"),
        ("has(1)", "has\\(\\) takes a field"),
        ("has(now)", "has\\(\\) takes a field"),
        ("has(ent.status, 1)", "takes 1 argument"),
        ("item(params.rates)", "takes 2 arguments"),
        ("min(1)", "two or more"),
        ("min('a', 'b')", "numbers or dates"),
        ("size(1)", "has no size"),
        ("item(1, 1)", "takes a list"),
        ("item(params.rates, 'a')", "the index is text"),
        ("1.startsWith('a')", "is int, expected text"),
        ("input.days.startsWith('a')", "is int, expected text"),
        ("input.names.exists(n, input.names.all(m, m == n))", "do not nest"),
        ("input.names.exists(ent, true)", "already means something"),
        ("input.names.exists(1, true)", "takes a variable"),
        ("input.names.exists(n, 1)", "the condition of exists is int"),
        ("input.names.exists(n, n.x == 1)", "n has no fields"),
        ("input.days.exists(n, true)", "looks at a list"),
        ("n == 1", "unknown n"),
        ("[]", "an empty list has no type"),
        ("[1, 'a']", "one type"),
        ("[[1]]", "holds no lists"),
        (f"[{', '.join(['1'] * 65)}]", "a list has at most 64 items"),
        ("[1] == ['a']", "cannot compare list:int with list:text"),
        ("ent.child in [ent.person]", "cannot look for ref:child in list:ref:person"),
        ("!1", "the operand of ! is int"),
        ("1 && true", "an operand of && is int"),
        ("1 ? 2 : 3", "the condition before \\? is int"),
        ("true ? 1 : 'a'", "one branch is int, the other text"),
        ("ent.status == 1", "cannot compare text with int"),
        ("ent.child == ent.person", "cannot compare ref:child with ref:person"),
        ("ent.monthly == ent.euros", "cannot compare money:USD with money:EUR"),
        ("ent.monthly + ent.euros", "cannot compute money:USD \\+ money:EUR"),
        ("ent.monthly * ent.monthly", "cannot compute"),
        ("1 / ent.monthly", "cannot compute"),
        ("1 % ent.monthly", "cannot compute"),
        ("1 - input.period", "cannot compute"),
        ("now + now", "cannot compute"),
        ("now > input.period", "cannot compare"),
        ("input.period > input.days", "cannot compare"),
        ("'a' + 'b'", "cannot compute text \\+ text"),
        ("true < false", "bool has no order"),
        ("[1] < [2]", "has no order"),
        ("1 in 'abc'", "cannot look for"),
        ("'a' in [1]", "cannot look for"),
        ("1 < 2 < 3", "cannot compare bool with int"),
    ],
)
def test_bad_expression_is_refused_with_a_reason(source: str, message: str) -> None:
    error = refusal(source)
    assert error.code == "BAD_RULES"
    with pytest.raises(RulesError, match=message):
        raise error


def test_result_of_another_type_than_wanted_is_refused() -> None:
    assert "expected bool, the expression is int" in refusal("1", want=Type("bool")).message
    assert "expected money:EUR" in refusal("ent.monthly", want=EUR).message
    assert "expected int" in refusal("ent.monthly", want=Type("int")).message
    compiled("input.days", want=USD)
    compiled("ent.secret", want=Type("commitment"))
    compiled("ent.child", want=Type("ref"))
    compiled("[1, 2]", want=Type("list", "money:USD"))
    assert "expected ref:child" in refusal("ent.anyone", want=Type("ref", "child")).message
    assert "expected list:int" in refusal("[ent.monthly]", want=Type("list", "int")).message
    assert "expected sealed" in refusal("ent.proof", want=Type("sealed", "treasury")).message


def test_error_names_file_line_and_the_spot() -> None:
    error = refusal("true &&\n  ent.status == 3", where="rules.toml", line=7)
    assert error.line == 8
    assert error.message.startswith("rules.toml:8: cannot compare text with int (at '== 3')")


@pytest.mark.parametrize("opening", ["!", "(", "[", "true ? 1 : ", "size("])
def test_nesting_beyond_the_limit_is_refused_however_deep(opening: str) -> None:
    for count in (DEPTH_MAX + 1, SOURCE_CHARACTERS_MAX // len(opening) - 1):
        assert "nested deeper" in refusal(opening * count).message


def test_chains_are_bounded_but_long_conjunctions_are_flat() -> None:
    assert "nested deeper" in refusal("1" + " + 1" * DEPTH_MAX).message
    assert value("1" + " + 1" * (DEPTH_MAX - 1)) == DEPTH_MAX
    assert value("true" + " && true" * 150) is True


def test_longest_source_is_accepted_and_one_more_character_is_not() -> None:
    padded = "true" + " " * (SOURCE_CHARACTERS_MAX - 4)
    assert value(padded) is True
    assert "2001 characters" in refusal(padded + " ").message


def test_nothing_of_the_source_is_executed_as_python() -> None:
    for source in ("__import__('os')", "().__class__", "ent.__class__", "lambda: 1", "x := 1"):
        refusal(source)
