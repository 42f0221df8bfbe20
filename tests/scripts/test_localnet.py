"""Founding a local network: what lies where, and how its end is told."""

from __future__ import annotations

import io
import tomllib
from pathlib import Path

import pytest
from rich.console import Console

from comity import founding
from comity.founding import Person
from consensus import genesis as genesis_file
from consensus.genesis import OFFICIAL, OpeningBalance
from consensus.ledger.rules import compile_rulebook, decode_definition
from scripts import localnet
from scripts.demo_parts import cast
from scripts.demo_parts.story import WrongError, tell_wrong
from scripts.localnet import ROOT

RULES = sorted((ROOT / "configs" / "rules").glob("*.toml"))


def test_founded_network_has_titles_people_accounts_and_tuning(tmp_path: Path) -> None:
    person = Person("officer", "treasury", OFFICIAL, (("payments.officer", (("region", "all"),)),))
    made = localnet.found(
        tmp_path / "net",
        RULES,
        [person],
        [OpeningBalance("programme", (), 500)],
        tuning="heartbeat_ms = 1000",
        network="town",
    )
    genesis = genesis_file.decode(made.genesis)
    assert genesis.network == "town"
    assert [(each.name, each.title) for each in genesis.agencies] == [
        ("registry", "Civil Registry"),
        ("social", "Social Services"),
        ("treasury", "Treasury"),
        ("integrity", "Integrity Office"),
    ]
    assert dict(genesis.keys)[made.key("treasury", "officer").public] == genesis.principals[0].id
    assert [each.balance for each in genesis.accounts] == [500]
    for member in made.members:
        config = tomllib.loads((made.folder / member.name / "node.toml").read_text("utf-8"))
        assert config["tuning"] == {"heartbeat_ms": 1000}
        assert config["listen"]["telemetry"] == f"127.0.0.1:{member.telemetry_port}"
    assert len({port for m in made.members for port in (m.peer_port, m.client_port)}) == 8


def test_nothing_runs_before_it_is_started(tmp_path: Path) -> None:
    made = localnet.found(tmp_path / "net", RULES)
    assert not any(made.running(agency) for agency in made.agencies)
    assert made.http("treasury", "/readyz") == b""
    made.stop()


def test_error_that_ends_the_use_tells_of_a_node_that_had_ended(tmp_path: Path) -> None:
    made = localnet.found(tmp_path / "net", RULES)
    made.programs = {"registry": ("this_module_is_missing",)}

    def use() -> None:
        with made:
            made.start("registry")
            assert made.processes["registry"].wait(30) == 1
            raise WrongError("all is well", "[two]", "one")

    with pytest.raises(WrongError) as caught:
        use()
    (note,) = caught.value.__notes__
    assert "the node of registry had ended with status 1" in note
    assert "No module named this_module_is_missing" in note
    out = io.StringIO()
    tell_wrong(Console(file=out, width=40), caught.value)
    for each in ("✗ all is well", "expected [two]", "seen     one", note):
        assert each in out.getvalue()


def test_plan_of_the_demonstration_gives_only_roles_that_a_rule_set_asks_for() -> None:
    people, accounts = founding.read_plan(cast.PLAN)
    book = compile_rulebook([decode_definition(each) for each in founding.read_rules(cast.RULES)])
    assert {role for each in people for role, _ in each.roles} <= set(founding.roles_of(book))
    assert {each.agency for each in people} == set(localnet.AGENCIES)
    assert sum(each.balance for each in accounts) == 11_000_000
