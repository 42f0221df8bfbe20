"""``comity network init``: found a network of which one machine makes every key."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter
from rich.console import Group
from rich.text import Text

from comity import founding
from comity.ceremony import TREE_DEPTHS, notice_ms
from comity.cli.options import OUTPUT, Output, UsageError, examples
from comity.cli.show import emit, pairs, table
from comity.founding import Founding, Person
from consensus.genesis import Limits, OpeningBalance
from consensus.ledger.rules import compile_rulebook, decode_definition

AGENCIES: Final = ("treasury", "registry", "benefits", "audit")
RULES: Final = Path("configs/rules")
BASE_PORT: Final = 7400
FREE_PORTS: Final = range(20_000, 32_000)
"""Where free ports are looked for: below those that systems give to outgoing connections."""
FREE_TRIES_MAX: Final = 100
NAME_BYTES_MAX: Final = 64
"""Of a network; as the genesis file has it."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Plan:
    """What a new network is made of."""

    agencies: Annotated[
        tuple[str, ...],
        Parameter(
            consume_multiple=True,
            help="Names of four or more agencies, each name or name=host; "
            "else treasury, registry, benefits, audit.",
        ),
    ] = ()
    size: Annotated[
        int | None, Parameter(help="How many agencies, where they need no names of their own.")
    ] = None
    rules: Annotated[
        Path,
        Parameter(show_default=True, help="Folder of rule sets in TOML, the charter among them."),
    ] = RULES
    plan: Annotated[
        Path | None,
        Parameter(
            help="TOML file of people and accounts; without it each agency gets an officer with "
            "every role."
        ),
    ] = None
    tree_depth: Annotated[
        int,
        Parameter(
            show_default=True, help="Bits of the state tree, even; 16 up to about 300,000 records."
        ),
    ] = 16
    notice: Annotated[
        str,
        Parameter(
            show_default=True,
            help="Least time between the activation of a charter and its coming into force, as "
            "30s, 5m, 12h or 7d; of other rule sets too, unless the charter says otherwise.",
        ),
    ] = "7d"


PLAN: Final = Plan()

app = App(name="network", help="Found a network, join it, and change its members.")


@app.command(
    help_epilogue=examples(
        "comity network init",
        "comity network init --agencies tax police courts health roads --output five",
        "comity network init --size 7 --base-port 9000",
    )
)
def init(
    *,
    folder: Annotated[
        Path,
        Parameter(
            name=["--output", "-o"],
            show_default=True,
            help="New or empty folder; gets the genesis file and one folder an agency.",
        ),
    ] = Path("network"),
    name: Annotated[str, Parameter(show_default=True, help="Name of the network.")] = "devnet",
    plan: Plan = PLAN,
    base_port: Annotated[
        int,
        Parameter(
            show_default=True, help="First of three ports a node: peers, clients, telemetry."
        ),
    ] = BASE_PORT,
    output: Output = OUTPUT,
) -> None:
    """Make keys, certificates, the genesis file and a folder for each agency.

    Whoever runs this holds every key at first: for development and tests.
    """
    made = make(folder, name, plan, base_port)
    genesis = folder / founding.GENESIS_NAME
    value = {
        "network": name,
        "chain": made.chain,
        "genesis": str(genesis),
        "nodes": {
            m.name: {
                "config": str(folder / m.name / founding.CONFIG_NAME),
                "keys": str(folder / m.name / "keys"),
                "peers": f"{m.host}:{m.peer_port}",
                "clients": f"{m.host}:{m.client_port}",
                "telemetry": f"127.0.0.1:{m.telemetry_port}",
            }
            for m in made.members
        },
    }
    shown = table("agency", "clients", "peers", "configuration")
    for m in made.members:
        where = str(folder / m.name / founding.CONFIG_NAME)
        shown.add_row(m.name, f"{m.host}:{m.client_port}", f"{m.host}:{m.peer_port}", where)
    head = pairs([("network", name), ("genesis file", str(genesis)), ("its hash", made.chain)])
    steps = Text(f"next: comity devnet {folder} --stay, or comity node run of each folder")
    emit(output, value, Group(head, Text(), shown, Text(), steps))


def make(folder: Path, name: str, plan: Plan, base_port: int) -> Founding:
    """Found a network in ``folder`` and return it.

    Raises:
        UsageError: something asked for cannot be.
        RulesError: a rule set is refused.
    """
    from node.network.tls import make_certificate

    if plan.tree_depth not in TREE_DEPTHS:
        raise UsageError(
            f"a tree of {plan.tree_depth} bits cannot be", hint="use an even number from 4 to 24"
        )
    if not 0 < len(name.encode()) <= NAME_BYTES_MAX:
        raise UsageError(
            f"the network's name has {len(name.encode())} bytes, 1 to {NAME_BYTES_MAX} are allowed",
            hint="name it with --name",
        )
    members = founding.members_of(names(plan.agencies, plan.size), base_port)
    if not plan.rules.is_dir():
        raise UsageError(
            f"there is no folder {plan.rules} of rule sets", hint="name one with --rules"
        )
    encoded = founding.read_rules(plan.rules)
    book = compile_rulebook([decode_definition(each) for each in encoded])
    if plan.plan is None:
        people = founding.everybody(members, book)
        accounts: list[OpeningBalance] = []
    else:
        people, accounts = founding.read_plan(plan.plan)
        _check_agencies(plan.plan, people, [each.name for each in members])
        founding.check_accounts(plan.plan, accounts, book)
    made = founding.found(
        name,
        members,
        encoded,
        people,
        accounts,
        time_ms=time.time_ns() // 1_000_000,
        make_certificate=make_certificate,
        tree_depth=plan.tree_depth,
        limits=Limits(notice_ms=notice_ms(plan.notice)),
    )
    founding.write(made, folder)
    return made


def _check_agencies(plan: Path, people: Sequence[Person], known: Sequence[str]) -> None:
    for index, each in enumerate(people):
        if each.agency not in known:
            place = founding.places_of(plan)("people", index, "agency")
            raise UsageError(
                f"{place}: {each.name} is of agency {each.agency!r}, which this network does not "
                f"have ({', '.join(known)})",
                hint="name the agencies with --agencies",
            )


def names(agencies: Sequence[str], size: int | None) -> tuple[str, ...]:
    """Return the agencies' names: those given, or ``size`` made-up ones.

    Raises:
        UsageError: both are given and disagree.
    """
    if agencies:
        if size not in (None, len(agencies)):
            raise UsageError(
                f"--size {size}, but {len(agencies)} agencies are named", hint="leave out --size"
            )
        return tuple(agencies)
    count = len(AGENCIES) if size is None else max(size, 0)
    more = (f"agency-{number}" for number in range(len(AGENCIES) + 1, count + 1))
    return (*AGENCIES[:count], *more)


def free_base_port(size: int, more: int = 0) -> int:
    """Return the first of enough free ports in a row on this machine for ``size`` nodes.

    Args:
        more: further ports after those.

    Raises:
        UsageError: none were found.
    """
    count = size * founding.PORTS_PER_NODE + more
    draw = random.SystemRandom()
    for _ in range(FREE_TRIES_MAX):
        first = draw.randrange(FREE_PORTS.start, FREE_PORTS.stop - count)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise UsageError(f"{count} free ports in a row were not found", hint="name --base-port")


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
