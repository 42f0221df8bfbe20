"""The page of capacity says what the formulas give, and the formulas what is written of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts import capacity_model, disk_benchmark

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "capacity.md").read_text(encoding="utf-8")
MINUS = "\N{MINUS SIGN}"


def numbers(line: str) -> list[float]:
    plain = line.replace(",", "").replace(MINUS, "-")
    return [float(each) for each in re.findall(r"[-+]?[0-9]+(?:\.[0-9]+)?", plain)]


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def measured() -> dict[tuple[int, int], list[float]]:
    """Figures of the table by validators and delay: rate, p50, p99, main process, workers."""
    rows = re.findall(r"^\| (\d+) \| (\d+)(?: ms)? \| (.+)\|$", section("Measured"), re.MULTILINE)
    return {(int(size), int(delay)): numbers(rest) for size, delay, rest in rows}


def test_the_rates_of_the_page_are_those_of_the_formula() -> None:
    rows = re.findall(r"^\| (?:4|7|10) \| .+%.*\|$", section("Validators"), re.MULTILINE)
    assert len(rows) == 3
    for row in rows:
        size, rate, model, off = numbers(row)
        node, workers = measured()[int(size), 0][3:]
        assert rate == measured()[int(size), 0][0]
        assert model == pytest.approx(
            capacity_model.shared_per_s(2, int(size), node, workers), 0.01
        )
        assert off == pytest.approx((model / rate - 1) * 100, abs=1)
        assert 105 + 12 * size == pytest.approx(node, rel=0.05)


def test_the_delays_of_the_page_are_those_of_the_formula() -> None:
    rows = re.findall(r"^\| (\d+) ms \| (.+)\|$", section("Distance"), re.MULTILINE)
    assert len(rows) == 3
    for delay, rest in rows:
        took, near, relays, apart, model, off = numbers(rest)
        assert took == measured()[4, int(delay)][1]
        assert near == measured()[4, 0][1]
        assert near + relays + apart == model
        assert model == capacity_model.latency_ms(near + relays, int(delay))
        assert off == pytest.approx((model / took - 1) * 100, abs=1)


def test_the_formulas_by_hand() -> None:
    """Two cores, four validators that take 100 and 90 µs, and a client of 40: 800 µs a decision."""
    assert capacity_model.shared_per_s(2, 4, 100, 90, 40) == pytest.approx(0.85 * 2500)
    assert capacity_model.apart_per_s(100, 400, 1) == 2500
    assert capacity_model.apart_per_s(100, 400, 8) == 10_000
    assert capacity_model.latency_ms(40, 10) == 90


def test_cases_are_compared_with_the_relays_where_those_were_measured() -> None:
    rate = {"tx_per_s": 1000, "node_us_per_tx": 100, "workers_us_per_tx": 90}
    figures = {
        "name": "capacity",
        "delay_0_ms": {**rate, "light_p50_ms": 40},
        "relays_0_ms": {**rate, "light_p50_ms": 60},
        "delay_10_ms": {**rate, "light_p50_ms": 100},
        "validators_7": {**rate, "light_p50_ms": 80},
        "seconds": 8.0,
        "machine": {"cores": 2},
    }
    found = {name: (what, model) for name, what, _, model in capacity_model.compared(figures)}
    assert found["delay_10_ms"] == ("light_p50_ms", 110)
    assert set(found) == {"delay_0_ms", "delay_10_ms", "validators_7"}


@pytest.mark.long
def test_what_decisions_leave_on_the_disk_is_what_the_page_says() -> None:
    found = disk_benchmark.figures(0.5)
    row = r"^\|[^|]*\|[^|]*\| ([\d,]+) \|"
    rows = re.findall(row, section("Disk"), re.MULTILINE)
    disk = [int(each.replace(",", "")) for each in rows]
    loads = ("transfers_1", "transfers_10", "transfers_500", "disburse_500")
    expected = [found[name]["disk_bytes"] for name in loads]
    assert disk == pytest.approx([*expected, found["idle"]["disk_bytes_per_height"]], rel=0.3)
