"""Months and dates as numbers, against the calendar of Python's library and written values."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.ledger.calendar import days_from_epoch, month_of_days, parse_date, parse_point
from consensus.ledger.types import DATE_MAX, DATE_MIN, MONTH_MAX, InputError

EPOCH = datetime.date(1970, 1, 1)
UNHURRIED = settings(max_examples=300, deadline=None, derandomize=True)


@UNHURRIED
@given(st.dates())
def test_a_date_is_the_day_and_lies_in_the_month_of_the_library(day: datetime.date) -> None:
    days = (day - EPOCH).days
    assert days_from_epoch(day.year, day.month, day.day) == days
    assert month_of_days(days) == day.year * 12 + day.month - 1
    assert parse_date(day.isoformat()) == (day.year, day.month, day.day)
    assert parse_point("date", day.isoformat()) == days
    assert parse_point("time", day.isoformat()) == days * 24 * 3600 * 1000
    assert parse_point("month", day.isoformat()[:7]) == day.year * 12 + day.month - 1


def test_every_first_and_last_day_of_a_month_of_ten_thousand_years_lies_in_it() -> None:
    """The first day of a month and the day before the next one's: no month has a hole."""
    first = DATE_MIN
    for month in range(MONTH_MAX + 1):
        year = month // 12
        leap = year % 400 == 0 or (year % 4 == 0 and year % 100 != 0)
        length = (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[month % 12]
        assert month_of_days(first) == month_of_days(first + length - 1) == month
        first += length
    assert first == DATE_MAX + 1


@pytest.mark.parametrize(
    ("base", "text", "number"),
    [
        ("month", "0000-01", 0),
        ("month", "2026-07", 24318),
        ("month", "9999-12", 119_999),
        ("date", "0000-01-01", -719_528),
        ("date", "0000-02-29", -719_469),
        ("date", "1969-12-31", -1),
        ("date", "2000-02-29", 11_016),
        ("date", "9999-12-31", 2_932_896),
        ("time", "1970-01-02", 86_400_000),
    ],
)
def test_a_written_point_has_the_number(base: str, text: str, number: int) -> None:
    assert parse_point(base, text) == number


@pytest.mark.parametrize(
    ("base", "text", "message"),
    [
        ("month", "2026-07-01", "expected a month"),
        ("date", "2026-07", "expected a date"),
        ("time", "2026-07", "expected a date"),
        ("month", "2026-13", "there is no date 2026-13"),
        ("month", "2026-00", "there is no date"),
        ("date", "2026-01-00", "there is no date"),
        ("date", "2026-04-31", "there is no date"),
        ("date", "1900-02-29", "there is no date"),
        ("date", "2026-1-1", "is not a date"),
        ("date", "2026-01-01 ", "is not a date"),
        ("date", "2026-01-01\n", "is not a date"),
        ("date", "२०२६-०१-०१", "is not a date"),
        ("date", "", "is not a date"),
    ],
)
def test_what_is_no_date_is_refused_with_the_reason(base: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_point(base, text)


@UNHURRIED
@given(st.integers(1, 9999), st.integers(0, 13), st.integers(0, 32))
def test_the_library_and_we_agree_which_days_there_are(year: int, month: int, day: int) -> None:
    try:
        expected: tuple[int, int, int] | None = datetime.date(year, month, day).timetuple()[:3]
    except ValueError:
        expected = None
    text = f"{year:04}-{month:02}-{day:02}"
    if expected is None:
        with pytest.raises(InputError, match=f"there is no date {text}"):
            parse_date(text)
    else:
        assert parse_date(text) == expected
