"""Four agencies, four real nodes on this machine, one benefits programme: what Comity promises.

Founds a network, loads a register of 2,000 people and 500 entitlements through ordinary
transactions, and plays six scenes with clients at different nodes. Then four more nodes play
another programme, with approvals, emergency powers and appeals. Every sentence with a tick has been
checked before it was printed; the first that is wrong ends the demonstration with status 1.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import cyclopts
import trio
from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

from comity.results import Decision
from consensus import genesis as genesis_file
from consensus.errors import ComityError
from scripts import benefits, register
from scripts.benefits import Case, Offices
from scripts.demo_parts import cast as casting
from scripts.demo_parts import conflicts, crashes, evidence, explore, judged, payday, powers
from scripts.demo_parts.cast import Cast
from scripts.demo_parts.explore import Line
from scripts.demo_parts.story import Story, WrongError, money, tell_wrong
from scripts.localnet import ENDING, ROOT, LocalNetwork, one_way_to_end
from scripts.programme import PROGRAMMES, read_script, tell

FOLDER: Final = ROOT / "demo"
PEOPLE: Final = 2_000
HOUSEHOLDS: Final = 500
SCENE_CASE, BASIS_CASE, POWERS_CASE, EXPLORE_CASE = 0, 4, 8, 16
"""Cases of single scenes, all of the north."""
POLL_SECONDS: Final = 0.2
INTERRUPTED: Final = 130
PROGRAMME: Final = "licences"
"""Shows approvals, proposals, emergency powers and appeals."""

app = cyclopts.App(name="demo", help=__doc__)


@app.default
def demo(
    *,
    stay: Annotated[bool, Parameter(negative="")] = False,
    folder: Path | None = None,
) -> int:
    """Play the demonstration.

    Args:
        stay: leave the network up afterwards and print commands to explore it; Ctrl-C ends it.
        folder: new or empty, for keys, logs and stores; a new one under demo/ when left out.
    """
    console = Console(width=None if sys.stdout.isatty() else 120)
    place = folder or FOLDER / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
    with one_way_to_end():
        try:
            _play(Story(console), place.resolve(), stay)
        except BaseException as error:
            return _ended(console, place, _first(error))
    _where(console, place)
    return 0


def _play(story: Story, folder: Path, stay: bool) -> None:
    story.scene("A network of four agencies", "Four agencies found a network and run a node each")
    story.tell(f"files of this run: {folder}")
    network = casting.found(folder)
    try:
        _start(story, network)
        commands = trio.run(_act, story, network)
        _another_programme(story, folder)
        story.summary()
        story.console.print(
            f"  [green]✓[/] {story.claims} claims, all true, in {story.seconds:.0f} s",
            highlight=False,
        )
        if stay:
            explore.show(story.console, network, commands)
            _stay(story.console, network)
    finally:
        with _undisturbed():
            network.stop()


def _another_programme(story: Story, folder: Path) -> None:
    """Play the programme of business licences on four more nodes, which are stopped again."""
    programme = PROGRAMMES / PROGRAMME
    script = read_script(programme / "story.toml")
    story.scene("Another programme, on nodes of its own", "Another programme is rules, not code")
    story.tell(script.summary)
    tell(script, programme / "rules", folder / PROGRAMME, story)


def _start(story: Story, network: LocalNetwork) -> None:
    with story.spinner("four nodes start"):
        network.start_all()
    for member in network.members:
        process = network.processes[member.name]
        story.tell(
            f"{member.title:<17} node of {member.name:<9} process {process.pid}, clients at "
            f"port {member.client_port}"
        )
    story.claim(
        "four nodes run, each in a process and a folder of its own, and say that they are ready",
        seen=(
            len({process.pid for process in network.processes.values()}),
            [network.ready(agency) for agency in network.agencies],
        ),
        expected=(len(network.agencies), [True] * len(network.agencies)),
    )
    chain = genesis_file.chain_id(network.genesis).hex()
    story.tell(f"the hash of the genesis file, which everybody trusts: {chain}")


async def _act(story: Story, network: LocalNetwork) -> list[Line]:
    """Play all scenes; return commands to look around with."""
    async with casting.assembled(network) as cast:
        people = register.people(PEOPLE)
        cases = await _load(story, cast, people)
        opening = sum(each.balance for each in genesis_file.decode(network.genesis).accounts)
        clerk = await conflicts.admit(story, cast, cases[SCENE_CASE])
        await conflicts.same_record(story, cast, cases[SCENE_CASE])
        cases[BASIS_CASE] = await conflicts.moved_basis(story, cast, cases[BASIS_CASE])
        await payday.payday(story, cast, cases, opening)
        refusals = await powers.refused(story, cast, cases[POWERS_CASE], clerk)
        await crashes.crashes(story, cast, people[2 * HOUSEHOLDS :])
        await evidence.portable(story, cast, cases[BASIS_CASE])
        await judged.judged(story, cast)
    return explore.lines(network, cases[EXPLORE_CASE], refusals[0])


async def _load(story: Story, cast: Cast, people: Sequence[register.Person]) -> list[Case]:
    """Load the register and the programme through transactions of seven offices."""
    story.scene(
        "Before: the offices load their registers",
        "A register comes in through ordinary transactions",
    )
    households = register.households(list(people), HOUSEHOLDS)
    nodes = cast.network.agencies
    offices = Offices(
        [(await cast.office(f"registry/intake-{i + 1}", n)).client for i, n in enumerate(nodes)],
        [(await cast.office(f"social/casework-{i}")).client for i in (1, 2)],
        [(await cast.office("treasury/paymaster")).client],
    )
    begun = time.monotonic()
    with story.progress(people=PEOPLE, households=HOUSEHOLDS, accounts=HOUSEHOLDS,
                        entitlements=HOUSEHOLDS) as advance:  # fmt: skip

        def told(what: str, decisions: Sequence[Decision]) -> None:
            cast.receipts.keep(decisions)
            advance[what](len(decisions))

        cases = await benefits.load(offices, people, households, told)
    took = time.monotonic() - begun
    count = len(cast.receipts.decisions)
    story.claim(
        f"{PEOPLE:,} people, {HOUSEHOLDS} households, accounts and entitlements each: {count:,} "
        f"ordinary transactions in signed groups, all applied, in {took:.1f} s",
        seen=(count, {each.code for each in cast.receipts.decisions}),
        expected=(PEOPLE + 3 * HOUSEHOLDS, {"APPLIED"}),
    )
    height, roots = await cast.same_root()
    story.claim(
        f"at height {height} all four nodes have one state root",
        seen=len(set(roots.values())),
        expected=1,
    )
    auditor = await cast.office("integrity/auditor")
    budget = (await auditor.entry("account", "programme")).value[1]
    monthly = sum(case.household.monthly for case in cases)
    story.tell(f"the programme's budget is {money(budget)}; a month of all costs {money(monthly)}")
    story.figure(f"{count:,} transactions loaded, {count / took:,.0f} a second")
    return cases


def _stay(console: Console, network: LocalNetwork) -> None:
    """Keep the network up until Ctrl-C; a node that ends is left alone, the others go on.

    Raises:
        RuntimeError: no node is left.
    """
    left = list(network.agencies)
    try:
        while left:
            for agency in [each for each in left if not network.running(each)]:
                left.remove(agency)
                text = (
                    f"  the node of {agency} ended; the others go on. "
                    f".venv/bin/comity node run {network.folder / agency} starts it again"
                )
                console.print(escape(text), highlight=False, soft_wrap=True)
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        return
    raise RuntimeError("no node is left; see node.log in their folders")


# --- how it ends --------------------------------------------------------------------------------


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Put signals that end the program off while the nodes are stopped."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _ended(console: Console, folder: Path, error: BaseException) -> int:
    """Say why the demonstration ended before its end; return the exit status."""
    console.print()
    status = 1
    match error:
        case KeyboardInterrupt():
            console.print("  ended before its end", highlight=False)
            status = INTERRUPTED
        case WrongError():
            tell_wrong(console, error)
        case ComityError():
            console.print(f"  [red]✗ {escape(error.message)}[/]", highlight=False)
            console.print(f"    {escape(error.hint)}", highlight=False)
        case RuntimeError():
            console.print(f"  [red]✗ {escape(str(error))}[/]", highlight=False)
        case _:
            raise error
    _where(console, folder)
    return status


def _where(console: Console, folder: Path) -> None:
    if folder.exists():
        text = f"  no node runs any more; keys, logs and stores are in {folder}"
        console.print(escape(text), highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(app())
