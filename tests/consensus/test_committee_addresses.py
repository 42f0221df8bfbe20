"""Addresses of validators as people write them."""

from __future__ import annotations

import pytest

from consensus.committee import parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.3.0.5:7400", ("10.3.0.5", 7400)),
        ("node.tax.example:1", ("node.tax.example", 1)),
        ("[2001:db8::5]:65535", ("2001:db8::5", 65535)),
        ("a:00080", ("a", 80)),
    ],
)
def test_host_and_port_are_told_apart(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", "nowhere", ":7400", "a:", "a:0", "a:65536", "a:-1", "a:+1", "a: 1", "a:1_0", "a:x"),
        *("a:\u00b2", "a:\u0661", "a:" + "9" * 5000),
    ],
)
def test_what_is_no_address_is_none(text: str) -> None:
    assert parse_address(text) is None


def test_a_port_that_the_system_chooses_is_one_where_it_is_allowed() -> None:
    assert parse_address("127.0.0.1:0", port_min=0) == ("127.0.0.1", 0)
    assert parse_address("127.0.0.1:0") is None
