"""``comity rules test``: cases as they are recorded, differ, and are malformed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.comity.shell import Shell, idle_shell

__all__ = ["idle_shell"]

CONFIGS = Path(__file__).parents[2] / "configs"
RULES = str(CONFIGS / "rules")
PAYMENTS = str(CONFIGS / "rules" / "payments.toml")
RECORDED = CONFIGS / "cases" / "payments.toml"


def run(shell: Shell, cases: str, *more: str) -> tuple[int, dict[str, list[str]]]:
    """Run a file of cases; return the exit status and the differences by case."""
    said = shell("rules", "test", PAYMENTS, cases, "--with", RULES, "--json", *more)
    return said.status, {row["case"]: row["differences"] for row in said.json}


def changed(*changes: tuple[str, str]) -> str:
    """Write the recorded cases with texts replaced; return the file's name."""
    text = RECORDED.read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    Path("cases.toml").write_text(text)
    return "cases.toml"


def test_the_recorded_cases_hold(idle_shell: Shell) -> None:
    status, found = run(idle_shell, str(RECORDED))
    assert (status, set(map(tuple, found.values()))) == (0, {()})
    assert len(found) == 5


def test_what_differs_is_shown_and_the_exit_status_is_1(idle_shell: Shell) -> None:
    cases = changed(('outcome = "APPLIED"', 'outcome = "HELD"'), ("amount = -25000", "amount = -1"))
    status, found = run(idle_shell, cases)
    assert status == 1
    assert found["a month is paid"] == [
        '- outcome: "HELD"',
        '+ outcome: "APPLIED"',
        '- moves: { account = ["programme"], amount = -1 }',
        '+ moves: { account = ["programme"], amount = -25000 }',
    ]
    said = idle_shell("rules", "test", PAYMENTS, cases, "--with", RULES)
    assert "differs" in said.out


def test_a_change_of_the_rules_shows_in_the_cases(idle_shell: Shell) -> None:
    text = Path(PAYMENTS).read_text().replace("ent.status == 'active'", "ent.status == 'ended'")
    Path("payments.toml").write_text(text)
    said = idle_shell("rules", "test", "payments.toml", str(RECORDED), "--with", RULES, "--json")
    assert said.status == 1
    differences = said.json[0]["differences"]
    assert '+ outcome: "REQUIREMENT"' in differences
    assert differences[-1] == '  detail: ["NOT_ACTIVE", "the entitlement is not active"]'


def test_recording_gives_the_file_that_was_recorded(idle_shell: Shell) -> None:
    bare = [
        line
        for line in RECORDED.read_text().splitlines()
        if not line.startswith(("outcome", "detail", "writes", "moves"))
    ]
    Path("bare.toml").write_text("\n".join(bare))
    status, found = run(idle_shell, "bare.toml")
    assert status == 1
    assert found["a month is paid"][0] == "no outcome is recorded; it is APPLIED"
    run(idle_shell, "bare.toml", "--record", "new.toml")
    assert Path("new.toml").read_text() == RECORDED.read_text()
    assert run(idle_shell, "new.toml")[0] == 0


@pytest.mark.parametrize("taken", ["cases.toml", "payments.toml", "a/folder"])
def test_recording_writes_over_nothing(idle_shell: Shell, taken: str) -> None:
    """Not over the cases either: what came is read before it is kept."""
    cases = changed(('outcome = "APPLIED"', 'outcome = "HELD"'))
    Path("payments.toml").write_text("a rule set that nobody has elsewhere")
    Path("a/folder").mkdir(parents=True)
    before = {each: each.read_bytes() for each in Path().rglob("*") if each.is_file()}
    said = idle_shell("rules", "test", PAYMENTS, cases, "--with", RULES, "--record", taken)
    assert (said.status, said.out) == (2, "")
    assert f"{taken} exists" in said.err
    assert "name another file" in said.err
    assert {each: each.read_bytes() for each in Path().rglob("*") if each.is_file()} == before


def test_fresh_ids_protective_acts_and_times(idle_shell: Shell) -> None:
    Path("notes.toml").write_text(
        """\
domain = "notes"
number = 1
legal_basis = "Act"
[kinds.note]
fields.due = { type = "date", optional = true }
fields.text = { type = "text", open = true }
status = { start = "open", steps = { open = ["shut"] }, stops = ["shut"] }
[actions.write]
actor  = { role = "notes.clerk" }
inputs = { due = "date?", text = "text" }
require = [ { code = "LATE", that = "now < time('2026-01-03')", say = "too late" } ]
create = [ { kind = "note", id = "{tx}", set = { due = "input.due", text = "input.text" } } ]
[actions.shut]
phase  = "protective"
actor  = { role = "notes.clerk" }
inputs = { note = "ref:note" }
load   = [ ["note", "note/{input.note}"] ]
set    = [ { record = "note", status = "shut" } ]
"""
    )
    Path("cases.toml").write_text(
        """\
time = 2026-01-02T00:00:00Z
[people.clerk]
agency = "a"
roles = { "notes.clerk" = {} }
[[records]]
kind = "note"
id = [7]
fields = { text = "given" }
[[cases]]
name = "writes"
by = "clerk"
call = "notes.write"
inputs = { due = 2026-02-01, text = 'a "quoted" text' }
outcome = "APPLIED"
writes = [ { place = ["record", "note", "{tx}"], fields = { due = "2026-02-01", status = "open", text = 'a "quoted" text' } } ]
[[cases]]
name = "too late"
at = "2026-01-03T00:00:00Z"
by = "clerk"
call = "notes.write"
inputs = { text = "x" }
outcome = "REQUIREMENT"
detail = ["LATE", "too late"]
[[cases]]
name = "shuts"
by = "clerk"
call = "notes.shut"
inputs = { note = [7] }
outcome = "APPLIED"
writes = [ { place = ["record", "note", 7], fields = { status = "shut" } } ]
"""  # noqa: E501  as it is written
    )
    words = ("rules", "test", "notes.toml", "cases.toml", "--with", RULES, "--json")
    rows = idle_shell(*words).json
    assert [row["differences"] for row in rows] == [[], [], []]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('by = "paymaster"', 'by = "nobody"'), "nobody is called 'nobody'"),
        (('"payments.disburse"', '"payments.disbourse"'), "did you mean disburse?"),
        (('period = "2026-11"', "period = true"), "period"),
    ],
)
def test_a_case_that_cannot_be_drafted_says_why(
    idle_shell: Shell, change: tuple[str, str], said: str
) -> None:
    status, found = run(idle_shell, changed(change))
    assert status == 1
    assert said in found["a month is paid"][0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("balance = 50000", 'balance = "much"'), "cases.toml:"),
        (("[people.paymaster]", "[people.paymaster]\nage = 7"), "unknown field `age`"),
        (('kind   = "person"', 'kind   = "persona"'), "no rule set has a kind 'persona'"),
        (('given_name = "Anna"', 'name = "Anna"'), "person has no field 'name'"),
        (('region = "north" }\n', "region = 4 }\n"), ""),
        (("time = ", "time: "), "mend the file"),
        (('time = "2026-11-21T12:00:00Z"', 'time = "noon"'), "is no time"),
        (('"no month is paid twice"', '"a month is paid"'), "two cases are called"),
    ],
)
def test_a_file_that_is_malformed_is_exit_status_2(
    idle_shell: Shell, change: tuple[str, str], said: str
) -> None:
    found = idle_shell("rules", "test", PAYMENTS, changed(change), "--with", RULES)
    assert found.status == 2
    assert said in found.err


def test_without_a_charter_nothing_runs(idle_shell: Shell) -> None:
    said = idle_shell("rules", "test", PAYMENTS, str(RECORDED))
    assert said.status == 2
    assert "there is no charter" in said.err


def test_an_act_before_that_is_refused_is_said(idle_shell: Shell) -> None:
    before = ('period = "2026-11" } }]', 'period = "1999-11" } }]')
    status, found = run(idle_shell, changed(before))
    assert status == 1
    assert found["no month is paid twice"][0].startswith(
        "payments.disburse before 'no month is paid twice' is refused: REQUIREMENT"
    )


# --- acts taken back --------------------------------------------------------------------------

PAY = 'by = "paymaster", call = "payments.disburse", inputs = { entitlement = ["#ben"], period = "2026-11" }'  # noqa: E501


def taken_back(case: str) -> str:
    """Write the recorded file with one case instead of its own; return the file's name."""
    head = RECORDED.read_text().partition("[[cases]]")[0]
    Path("back.toml").write_text(f'{head}[[cases]]\nname = "back"\n{case}\n')
    return "back.toml"


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ('by = "paymaster"', "neither call nor reverse, or both"),
        (f'before = [{{ {PAY}, reverse = "x" }}]\nby = "a"\ncall = "x.y"', "or both"),
        ('by = "paymaster"\nreverse = "paid"', "no act before is called 'paid'"),
        (f'before = [{{ {PAY}, as = "paid" }}]\nby = "a"\nreverse = "pay"', "no act before is"),
        (
            f'before = [{{ by = "a", reverse = "paid" }}, {{ {PAY}, as = "paid" }}]\n'
            'by = "a"\nreverse = "paid"',
            "no act before is called 'paid'",
        ),
        (
            f'before = [{{ {PAY}, as = "paid" }}]\nby = "a"\nreverse = "paid"\n'
            "inputs = { x = 1 }",
            "it takes none",
        ),
        (
            f'before = [{{ {PAY}, as = "p" }}, {{ {PAY}, as = "p" }}]\nby = "a"\nreverse = "p"',
            "cannot be called 'p'",
        ),
        (f'before = [{{ {PAY}, as = "#ben" }}]\nby = "a"\ncall = "x.y"', "cannot be called"),
        (f'before = [{{ {PAY}, name = "p" }}]\nby = "a"\ncall = "x.y"', "unknown field `name`"),
    ],
)
def test_a_reversal_that_is_malformed_is_exit_status_2(
    idle_shell: Shell, case: str, said: str
) -> None:
    found = idle_shell("rules", "test", PAYMENTS, taken_back(case), "--with", RULES)
    assert found.status == 2
    assert said in " ".join(found.err.split())


BENEFITS = CONFIGS / "programmes" / "child_benefit"


def test_reversals_are_recorded_as_they_are_written(idle_shell: Shell) -> None:
    rules, cases = BENEFITS / "rules", BENEFITS / "cases" / "benefits.toml"
    words = ("rules", "test", str(rules / "benefits.toml"), str(cases), "--with", str(rules))
    assert idle_shell(*words, "--record", "new.toml").status == 0
    text = Path("new.toml").read_text()
    assert '{ by = "mona", reverse = "paid", as = "back" }' in text
    assert '\nby = "mona"\nreverse = "back"\n' in text
    again = ("rules", "test", str(rules / "benefits.toml"), "new.toml", "--with", str(rules))
    assert idle_shell(*again).status == 0


def test_what_a_named_act_made_is_named_in_inputs_and_results(idle_shell: Shell) -> None:
    Path("slips.toml").write_text(
        """\
domain = "slips"
number = 1
legal_basis = "Act"
[kinds.slip]
fields.text = { type = "text", open = true }
[actions.write]
actor  = { role = "slips.clerk" }
inputs = { text = "text" }
create = [ { kind = "slip", id = "{tx}", set = { text = "input.text" } } ]
reversible = { by = "slips.chief", within_days = 3 }
[actions.amend]
actor  = { role = "slips.clerk" }
inputs = { slip = "ref:slip", text = "text" }
load   = [ ["slip", "slip/{input.slip}"] ]
set    = [ { record = "slip", fields = { text = "input.text" } } ]
reversible = { by = "slips.chief", within_days = 3 }
"""
    )
    Path("cases.toml").write_text(
        """\
time = 2026-01-02T00:00:00Z
[people.clerk]
agency = "a"
roles = { "slips.clerk" = {}, "slips.chief" = {} }
[[cases]]
name = "amends"
before = [ { by = "clerk", call = "slips.write", inputs = { text = "x" }, as = "first" } ]
by = "clerk"
call = "slips.amend"
inputs = { slip = ["{first}"], text = "y" }
outcome = "APPLIED"
writes = [ { place = ["record", "slip", "{first}"], fields = { text = "y" } } ]
[[cases]]
name = "gets its text back"
before = [ { by = "clerk", call = "slips.write", inputs = { text = "x" }, as = "first" },
           { by = "clerk", call = "slips.amend", inputs = { slip = ["{first}"], text = "y" }, as = "second" } ]
by = "clerk"
reverse = "second"
outcome = "APPLIED"
writes = [ { place = ["corrections", "{second.txid}"] }, { place = ["record", "slip", "{first}"], fields = { text = "x" } } ]
[[cases]]
name = "is not unwritten since it was amended"
before = [ { by = "clerk", call = "slips.write", inputs = { text = "x" }, as = "first" },
           { by = "clerk", call = "slips.amend", inputs = { slip = ["{first}"], text = "y" } } ]
by = "clerk"
reverse = "first"
outcome = "STALE"
detail = [["slip", ["{first}"]], 2, ["text"]]
"""  # noqa: E501  as it is written
    )
    words = ("rules", "test", "slips.toml", "cases.toml", "--with", str(BENEFITS / "rules"))
    found = idle_shell(*words, "--json").json
    assert [row["differences"] for row in found] == [[], [], []]
