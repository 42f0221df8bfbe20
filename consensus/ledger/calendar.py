"""Months, dates and instants as numbers: how they are written, and what one is in another.

A month is the count of months since the year 0, a date the days since 1970-01-01, an instant the
milliseconds since then, of the Gregorian calendar, which is extended backwards to the year 0. No
leap seconds, no time zones: who wants a local month says the offset.

Not here: the ranges of the types (``model``).
"""

from __future__ import annotations

import re
from typing import Final

from consensus.ledger.types import InputError

DAY_MS: Final = 86_400_000

_DATE: Final = re.compile(r"([0-9]{4})-([0-9]{2})(?:-([0-9]{2}))?")
_MONTH_DAYS: Final = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_CYCLE_DAYS: Final = 146_097
"""Days of 400 years, after which the calendar repeats."""
_EPOCH_DAYS: Final = 719_468
"""Days from 0000-03-01 to 1970-01-01; a year that begins in March has its leap day last."""


def days_from_epoch(year: int, month: int, day: int) -> int:
    """Return the days from 1970-01-01 to a date.

    Source: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil.
    """
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return era * _CYCLE_DAYS + day_of_era - _EPOCH_DAYS


def month_of_days(days: int) -> int:
    """Return the month, counted since the year 0, in which a day lies.

    Source: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    """
    era, day_of_era = divmod(days + _EPOCH_DAYS, _CYCLE_DAYS)
    leaps = day_of_era // 1_460 - day_of_era // 36_524 + day_of_era // 146_096
    year_of_era = (day_of_era - leaps) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    months_since_march = (5 * day_of_year + 2) // 153
    return (era * 400 + year_of_era) * 12 + months_since_march + 2


def first_day_of(month: int) -> int:
    """Return the first day of a month that is counted since the year 0."""
    return days_from_epoch(month // 12, month % 12 + 1, 1)


def parse_date(text: str) -> tuple[int, int, int | None]:
    """Return year, month and day (None in ``YYYY-MM``).

    Raises:
        InputError: another form, or there is no such day.
    """
    match = _DATE.fullmatch(text)
    if match is None:
        raise InputError(f"{text!r} is not a date, write YYYY-MM or YYYY-MM-DD")
    year, month = int(match.group(1)), int(match.group(2))
    day = int(match.group(3)) if match.group(3) else None
    leap = month == 2 and (year % 4 == 0) and (year % 100 != 0 or year % 400 == 0)
    known = 1 <= month <= 12 and (day is None or 1 <= day <= _MONTH_DAYS[month - 1] + leap)
    if not known:
        raise InputError(f"there is no date {text}")
    return year, month, day


def parse_point(base: str, text: str) -> int:
    """Return the number that stands for a month, a date, or the first moment (UTC) of a date.

    Args:
        base: ``month``, ``date`` or ``time``.
        text: ``YYYY-MM`` for a month, else ``YYYY-MM-DD``.

    Raises:
        InputError: another form, or there is no such day.
    """
    year, month, day = parse_date(text)
    if base == "month":
        if day is not None:
            raise InputError(f"expected a month as in 2026-01, found {text}")
        return year * 12 + month - 1
    if day is None:
        raise InputError(f"expected a date as in 2026-01-31, found {text}")
    days = days_from_epoch(year, month, day)
    return days * DAY_MS if base == "time" else days


def month_start_ms(month: int) -> int:
    """Return the first millisecond (UTC) of a month, counted from January of the year 0."""
    year, index = divmod(month, 12)
    return days_from_epoch(year, index + 1, 1) * DAY_MS
