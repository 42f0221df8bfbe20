"""Tables: a result is computed once, and again after the table was full."""

from __future__ import annotations

import pytest

from consensus.table import Table


def test_result_is_computed_once_until_the_table_is_full() -> None:
    asked: list[int] = []

    def square(number: int) -> int:
        asked.append(number)
        return number * number

    table = Table(square, 2)
    assert [table[number] for number in (3, 4, 3, 4)] == [9, 16, 9, 16]
    assert asked == [3, 4]
    assert table[5] == 25
    assert len(table) == 1
    assert table[3] == 9
    assert asked == [3, 4, 5, 3]


def test_nothing_is_kept_where_computing_fails() -> None:
    table = Table(int, 2)
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid"):
            table["x"]
    assert len(table) == 0
