"""What people read when the network refused."""

from __future__ import annotations

import pytest

from comity.cli.refusals import sentence
from consensus.codec import Value

WHO = b"\xab" * 32


def leaf(more: int = 1, distinct: str = "", *reasons: Value) -> Value:
    return ["role", "desk.supervisor", more, distinct, list(reasons)]


@pytest.mark.parametrize(
    ("detail", "words"),
    [
        ([leaf()], "one with the role desk.supervisor"),
        ([leaf(2, "person")], "2 with the role desk.supervisor (different people)"),
        ([leaf(1, "agency")], "one with the role desk.supervisor (different agencies)"),
        (
            [leaf(), ["role", "a.b", 1, "", []]],
            "one with the role desk.supervisor, and one with the role a.b",
        ),
        (
            [["of", 1, [leaf(), ["role", "a.b", 3, "", []]]]],
            "1 of (one with the role desk.supervisor | 3 with the role a.b)",
        ),
        ([["of", 1, []]], "an approval that nobody can give"),
        ([["when", "x > 0"]], "whether one is needed cannot be said: x > 0 has no value"),
        ([leaf(), ["limit"]], "the policy is too hard to satisfy"),
        ([leaf(1, "", [WHO, ["author"]])], "does not count: authors do not approve their own acts"),
        ([leaf(1, "", [WHO, ["role", "a.b", "missing"]])], "count: the role a.b is missing"),
        ([leaf(1, "", [WHO, ["twice"]])], "does not count: it approves already"),
        ([leaf(1, "", [WHO, ["distinct", "person"]])], "it is the same person as another"),
        ([leaf(1, "", [WHO, ["not_agency", "author"]])], "it is of the author's agency"),
        ([leaf(1, "", [WHO, ["key", "compromised"]])], "the key is compromised"),
        ([leaf(1, "", [WHO, ["suspended", "agency"]])], "the agency is suspended"),
        ([leaf(1, "", [WHO, ["not", "file.owner"]])], "not"),
    ],
)  # fmt: skip
def test_missing_approvals_are_said_in_words(detail: Value, words: str) -> None:
    said = sentence("NEEDS_APPROVAL", detail)
    assert said.startswith("approvals are missing: ")
    assert words in said


def test_detail_of_another_shape_is_shown_as_it_is() -> None:
    assert "7" in sentence("NEEDS_APPROVAL", 7)
