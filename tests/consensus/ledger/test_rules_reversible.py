"""What ``reversible`` may say, and what the checker says when it may not."""

from __future__ import annotations

import pytest

from consensus.errors import RulesError
from consensus.ledger.rules import compile_rulebook, decode_definition, encode_definition, load_toml
from consensus.ledger.rules.difference import difference
from consensus.ledger.rules.rolenames import roles_of
from tests.consensus.ledger.test_reversal import LOANS, REVERSE
from tests.consensus.ledger.world import CHARTER, TEXTS

BILLS = """\
domain = "bills"
number = 1
legal_basis = "Bills Act"

[accounts.till]
currency = "USD"
debit_by = ["loans"]

[accounts.closed]
currency = "USD"
floor = -5

[accounts.pounds]
currency = "GBP"
floor = -5
debit_by = ["loans"]
"""
PAY = """
[actions.pay]
actor  = { role = "loans.clerk" }
inputs = { holder = "text" }
move   = [ { from = "account/fund", to = "account/%s", amount = "1" } ]
reversible = { by = "loans.chief", within_days = 90%s }
"""


def compiled(text: str) -> None:
    texts = (CHARTER + REVERSE, *TEXTS[1:], BILLS, text)
    definitions = [load_toml(each, f"{n}") for n, each in enumerate(texts)]
    for each in definitions:
        assert decode_definition(encode_definition(each)).actions == each.actions
    compile_rulebook(definitions)


def fault(text: str) -> str:
    with pytest.raises(RulesError) as caught:
        compiled(text)
    return caught.value.message


def paying(target: str, more: str = "") -> str:
    return LOANS + PAY % (target, more)


def test_terms_come_through_both_forms_and_change_the_action() -> None:
    def action(text: str) -> object:
        texts = (CHARTER + REVERSE, *TEXTS[1:], text)
        book = compile_rulebook([load_toml(each) for each in texts])
        found = book.action("loans", "lend")
        assert found is not None
        return found

    compiled(LOANS)
    lend = action(LOANS)
    assert lend.reversible.role == "loans.chief"  # type: ignore[attr-defined]
    assert lend.reversible.within_days == 90  # type: ignore[attr-defined]
    assert lend.reversible.free  # type: ignore[attr-defined]
    other = action(LOANS.replace("within_days = 90, shortfall", "within_days = 91, shortfall"))
    assert lend.action_id != other.action_id  # type: ignore[attr-defined]


def test_who_is_paid_must_be_somebody_the_domain_may_debit() -> None:
    compiled(paying("till"))
    assert "does not let domain loans debit closed" in fault(paying("closed"))


def test_nobody_in_a_waterfall_may_be_out_of_reach() -> None:
    text = LOANS.replace('rest = "account/wallet/bob" }', 'rest = "account/closed" }')
    assert "does not let domain loans debit closed" in fault(text)


@pytest.mark.parametrize(
    ("shortfall", "said"),
    [
        ("account/debt/{input.nobody}", "nobody"),
        ("account/nothing", "nothing"),
        ("debt/{input.holder}", "account"),
        ("account/closed", "does not let domain loans debit closed"),
        ("account/pounds", "pounds is in GBP, wallet in USD"),
        ("account/till", "till has the floor 0, so it can take no debt"),
    ],
)
def test_the_account_of_debts_fits_the_moves(shortfall: str, said: str) -> None:
    text = paying("wallet/{input.holder}", f', shortfall = "{shortfall}"')
    with pytest.raises(RulesError) as caught:
        compiled(text)
    assert said in caught.value.message
    assert "reversible" in text.splitlines()[caught.value.line - 1]


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        (
            'by = "loans.chief", within_days = 30 }',
            'by = "chief", within_days = 30 }',
            "not a role",
        ),
        ("within_days = 30 }", "within_days = 0 }", "outside 1 to 3660"),
        ("within_days = 30 }", "within_days = 3661 }", "outside 1 to 3660"),
        ("within_days = 30 }", 'within_days = 30, unique = "fre" }', "cannot be 'fre'"),
        ("within_days = 30 }", "within_days = 30, keep = true }", "unknown key keep"),
        (", within_days = 30 }", " }", "within_days is missing"),
        ("within_days = 30 }", "within_days = 30, approvals = {} }", "a policy says who approves"),
    ],
)
def test_a_wrong_key_is_named(was: str, now: str, said: str) -> None:
    assert said in fault(LOANS.replace(was, now, 1))


def test_without_moves_there_is_nothing_to_fall_short() -> None:
    text = (
        LOANS
        + """
[actions.extra]
actor  = { role = "loans.clerk" }
inputs = { name = "text" }
create = [ { kind = "slip", id = ["{input.name}"], set = { of = "input.name" } } ]
reversible = { by = "loans.chief", within_days = 9, shortfall = "account/debt/{input.name}" }
"""
    )
    assert "nothing is moved, so nothing can fall short" in fault(text)


def test_holds_are_not_taken_back_and_neither_is_nothing() -> None:
    hold = """
[actions.block]
actor  = { role = "loans.clerk" }
inputs = { name = "text" }
place_hold = [ { target = "slip/{input.name}", scopes = ["all"], reason = "why" } ]
reversible = { by = "loans.chief", within_days = 9 }
"""
    assert "places or releases holds is not reversible" in fault(LOANS + hold)
    reserves = """
[actions.set_aside]
actor  = { role = "loans.clerk" }
inputs = { name = "text" }
reserve = [ { id = ["x", "{input.name}"], from = "account/fund", amount = "1" } ]
reversible = { by = "loans.chief", within_days = 9 }
"""
    assert "reserves or voids is not reversible" in fault(LOANS + reserves)
    opens = """
[actions.open_debt]
actor  = { role = "loans.clerk" }
inputs = { name = "text" }
open   = [ { account = "account/debt/{input.name}" } ]
reversible = { by = "loans.chief", within_days = 9 }
"""
    assert "nothing that could be taken back" in fault(LOANS + opens)


def test_the_charter_has_no_terms_and_rule_sets_no_evidence() -> None:
    charter = CHARTER + REVERSE + 'reversible = { by = "charter.admin", within_days = 9 }\n'
    with pytest.raises(RulesError, match="the kernel decides reversible"):
        compile_rulebook([load_toml(each) for each in (charter, *TEXTS[1:])])
    text = LOANS.replace(
        'inputs = { name = "text" }', 'inputs = { name = "text", e = "evidence" }', 1
    )
    assert "there is no type 'evidence'" in fault(text)


def test_people_are_told_who_may_take_back_and_when_that_changes() -> None:
    new = LOANS.replace("number = 1", "number = 2", 1).replace(
        'by = "loans.chief", within_days = 90, shortfall',
        'by = "loans.head", within_days = 30, shortfall',
        1,
    )
    others = [load_toml(each) for each in (CHARTER + REVERSE, *TEXTS[1:])]
    found = difference(load_toml(LOANS), load_toml(new), others)
    [change] = found.changes
    terms = "debts in account/debt/{input.holder}, slots free again"
    assert change.lines == (
        f"- reversible: role loans.chief within 90 days, {terms}",
        f"+ reversible: role loans.head within 30 days, {terms}",
    )
    assert found.powers == (
        "- loans.chief no longer: take back lend",
        "+ loans.head now: take back lend",
    )
    agreed = LOANS.replace(
        'by = "loans.chief", within_days = 90, shortfall',
        'by = "loans.chief", approvals = { role = "loans.board" }, within_days = 90, shortfall',
        1,
    )
    found = difference(load_toml(LOANS), load_toml(agreed.replace("= 1", "= 2", 1)), others)
    assert found.powers == ("+ loans.board now: approve taking back lend",)
    book = compile_rulebook([load_toml(each) for each in (CHARTER + REVERSE, *TEXTS[1:], agreed)])
    lend = book.action("loans", "lend")
    assert lend is not None
    assert [*roles_of(lend)] == ["loans.clerk", "loans.chief", "loans.board"]
