"""``comity network``: found a network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from comity import founding
from comity.cli.options import OUTPUT, Output
from comity.cli.show import emit, pairs
from comity.founding import Founding
from consensus.genesis import OpeningBalance
from consensus.ledger.rules import compile_rulebook, decode_definition

AGENCIES: Final = ("treasury", "registry", "benefits", "audit")
RULES: Final = Path("configs/rules")
BASE_PORT: Final = 7400

app = App(name="network", help="Found a network.")


@app.command
def init(
    *,
    folder: Annotated[Path, Parameter(name=["--output", "-o"])] = Path("network"),
    name: str = "devnet",
    agencies: tuple[str, ...] = AGENCIES,
    rules: Path = RULES,
    plan: Path | None = None,
    base_port: int = BASE_PORT,
    tree_depth: int = 16,
    output: Output = OUTPUT,
) -> None:
    """Make keys, certificates, the genesis file and a folder for each agency.

    Whoever runs this holds every key at first: for development and tests.

    Args:
        folder: new or empty; gets the genesis file and one folder an agency.
        name: of the network.
        agencies: four or more, each as name or name=host.
        rules: folder of rule sets in TOML, the charter among them.
        plan: TOML file of people and accounts; without it each agency gets an officer with
            every role.
        base_port: first of three ports a node: peers, clients, telemetry.
        tree_depth: depth of the state tree in bits, even; 16 up to about 300,000 records.
    """
    made = make(folder, name, agencies, rules, plan, base_port, tree_depth)
    value = {
        "network": name,
        "chain": made.chain,
        "genesis": str(folder / founding.GENESIS_NAME),
        "agencies": [m.name for m in made.members],
        "nodes": [str(folder / m.name / founding.CONFIG_NAME) for m in made.members],
    }
    emit(output, value, pairs(value.items()))


def make(
    folder: Path,
    name: str,
    agencies: Sequence[str],
    rules: Path,
    plan: Path | None,
    base_port: int,
    tree_depth: int,
) -> Founding:
    """Found a network in ``folder`` and return it."""
    from node.network.tls import make_certificate

    members = founding.members_of(agencies, base_port)
    encoded = founding.read_rules(rules)
    if plan is None:
        book = compile_rulebook([decode_definition(each) for each in encoded])
        people = founding.everybody(members, book)
        accounts: list[OpeningBalance] = []
    else:
        people, accounts = founding.read_plan(plan)
    made = founding.found(
        name,
        members,
        encoded,
        people,
        accounts,
        time_ms=time.time_ns() // 1_000_000,
        make_certificate=make_certificate,
        tree_depth=tree_depth,
    )
    founding.write(made, folder)
    return made
