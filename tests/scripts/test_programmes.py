"""The programmes: their rules hold, their cases come out as recorded, their stories come true."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from rich.console import Console

from comity.cli.rule_tests import run_cases
from comity.errors import DraftError
from consensus.ledger.rules import Problem, check_text, load_toml
from scripts.demo_parts.story import Story, WrongError
from scripts.programme import PROGRAMMES, Script, moment, read_script, tell

NAMES = sorted(each.name for each in PROGRAMMES.iterdir())


def rules_of(name: str) -> list[Path]:
    """The rule sets of a programme; those it shares are links."""
    return sorted((PROGRAMMES / name / "rules").glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_the_rules_of_a_programme_hold_without_a_note(name: str) -> None:
    texts = {each: each.read_text(encoding="utf-8") for each in rules_of(name)}
    definitions = {each: load_toml(text) for each, text in texts.items()}
    for file, text in texts.items():
        if file.is_symlink():
            continue
        others = [definition for each, definition in definitions.items() if each != file]
        found = check_text(text, file.name, others)
        assert [each for each in found if isinstance(each, Problem)] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_cases_of_a_programme_come_out_as_recorded(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = PROGRAMMES / name
    files = sorted((folder / "cases").glob("*.toml"))
    assert files
    for cases in files:
        status = run_cases(folder / "rules" / cases.name, cases, beside=folder / "rules")
        assert status == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_the_story_of_a_programme_comes_true_on_real_nodes(name: str, tmp_path: Path) -> None:
    script = read_script(PROGRAMMES / name / "story.toml")
    story = Story(Console(quiet=True))
    tell(script, PROGRAMMES / name / "rules", tmp_path / "network", story)
    assert story.claims >= sum(len(scene.steps) for scene in script.scenes)


@pytest.mark.parametrize(
    "text",
    [
        "summary = 3",
        'summary = "s"\npeople = {}\nscenes = []\nother = 1',
        "summary =",
        'summary = "s"\npeople = {}\n[[scenes]]\ntitle = "t"\nsteps = [{ say = "x", does = "y" }]',
    ],
)
def test_a_story_of_another_form_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "story.toml").write_text(text, encoding="utf-8")
    with pytest.raises(DraftError):
        read_script(tmp_path / "story.toml")


def test_a_story_that_comes_otherwise_ends_with_what_was_seen(tmp_path: Path) -> None:
    script = read_script(PROGRAMMES / "licences" / "story.toml")
    first = script.scenes[0].steps[0]
    wrong = Script(
        script.summary,
        script.people,
        [
            type(script.scenes[0])(
                "t", [type(first)("nobody", look=["record", "person", "#nobody"])]
            )
        ],
        script.accounts,
        script.agencies,
    )
    with pytest.raises(WrongError) as error:
        tell(wrong, PROGRAMMES / "licences/rules", tmp_path / "n", Story(Console(quiet=True)))
    assert (error.value.claim, error.value.seen) == ("nobody", "absent")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("month", 2026 * 12 + 11),
        ("month+1", 2027 * 12),
        ("first", 20788),  # 2026-12-01
        ("first+1", 20819),
        ("last", 20818),
        ("last+2", 20877),  # 2027-02-28
        ("time", 1798718400000),
        ("time+30", 1798718400000 + 30 * 86_400_000),
    ],
)
def test_times_of_a_story_count_from_when_it_began(word: str, value: int) -> None:
    began = datetime.datetime(2026, 12, 31, 12, tzinfo=datetime.UTC)
    assert moment(word, began) == value


@pytest.mark.parametrize("word", ["", "day", "month-1", "month+", "time+1000", "last+1 "])
def test_no_other_words_are_times(word: str) -> None:
    with pytest.raises(DraftError):
        moment(word, datetime.datetime(2026, 12, 31, tzinfo=datetime.UTC))
