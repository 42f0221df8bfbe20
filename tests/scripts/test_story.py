"""What the demonstration tells: a claim that is not so ends it, and the summary counts the rest."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from scripts.demo_parts.story import Story, WrongError, money


def told() -> tuple[Story, io.StringIO]:
    out = io.StringIO()
    story = Story(Console(file=out, width=100))
    story.scene("Scene", "what it shows")
    return story, out


def test_claim_is_printed_only_when_it_is_so() -> None:
    story, out = told()
    story.claim("two and two are four", seen=2 + 2, expected=4)
    assert "✓ two and two are four" in out.getvalue()
    with pytest.raises(WrongError) as caught:
        story.claim("two and two are five", seen=2 + 2, expected=5)
    assert (caught.value.claim, caught.value.expected, caught.value.seen) == (
        "two and two are five",
        "5",
        "4",
    )
    assert "five" not in out.getvalue()
    assert story.claims == 1


@pytest.mark.parametrize(("seen", "fine"), [(0, False), (1, True), (3, True), (4, False)])
def test_figure_is_claimed_only_within_its_bounds(seen: int, fine: bool) -> None:
    story, _ = told()
    if fine:
        story.within("in bounds", seen=seen, low=1, high=3)
    else:
        with pytest.raises(WrongError):
            story.within("in bounds", seen=seen, low=1, high=3)
    assert story.claims == fine


def test_brackets_in_what_is_told_are_shown_as_they_are() -> None:
    story, out = told()
    story.claim("[bold] is a word", seen=True)
    assert "[bold] is a word" in out.getvalue()


def test_summary_has_every_scene_with_its_claims_and_figures() -> None:
    story, out = told()
    story.claim("one", seen=1, expected=1)
    story.figure("500 a second")
    story.scene("Another", "something else")
    story.claim("two", seen=2, expected=2)
    story.claim("three", seen=3, expected=3)
    before = len(out.getvalue())
    story.summary()
    rows = [line.split() for line in out.getvalue()[before:].splitlines() if line.strip()]
    shown = [row for row in rows if row[0] in ("what", "something", "all")]
    assert shown[0][:4] == ["what", "it", "shows", "1"]
    assert shown[0][-3:] == ["500", "a", "second"]
    assert shown[1][:3] == ["something", "else", "2"]
    assert shown[2][:4] == ["all", "of", "it", "3"]


def test_money_is_shown_in_whole_units_and_cents() -> None:
    assert money(11_000_005) == "110,000.05 USD"
