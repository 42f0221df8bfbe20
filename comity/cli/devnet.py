"""``comity devnet``: a whole network on this machine, one process a node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import trio
from cyclopts import Parameter

from comity import founding, keys
from comity.cli import network, show
from comity.cli.options import OUTPUT, Output, UsageError, examples
from comity.cli.values import time_word
from comity.client import Client
from comity.errors import NotReachableError
from comity.results import Height
from consensus import genesis as genesis_file
from consensus.committee import Validator

START_SECONDS_MAX: Final = 60.0
STOP_SECONDS_MAX: Final = 15.0
LOG_NAME: Final = "node.log"
LOG_LINES: Final = 5


@dataclass(slots=True)
class Running:
    """A node's process."""

    agency: str
    home: Path
    process: trio.Process


EXAMPLES: Final = examples(
    "comity devnet                     four nodes on free ports, then stop",
    "comity devnet mynet --stay        keep running; data stays in mynet",
    "comity devnet --size 7 --rules my/rules --stay",
)


def devnet(
    folder: Path | None = None,
    /,
    *,
    plan: network.Plan = network.PLAN,
    base_port: Annotated[
        int | None, Parameter(help="First of three ports a node; else free ones.")
    ] = None,
    stay: Annotated[bool, Parameter(help="Keep it running until Ctrl-C.")] = False,
    output: Output = OUTPUT,
) -> None:
    """Start a network on this machine, wait until every node certifies, stop it again.

    Args:
        folder: of a network made before, or to be made; a temporary one when left out.
    """
    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comity-")))
        if not (folder / founding.GENESIS_NAME).exists():
            if base_port is None:
                base_port = network.free_base_port(len(network.names(plan.agencies, plan.size)))
            network.make(folder, "devnet", plan, base_port)
        elif plan != network.PLAN or base_port is not None:
            raise UsageError(
                f"{folder} holds a network already; it cannot be founded another way",
                hint="leave the options away, or name a new folder",
            )
        trio.run(_run, folder, stay, output)


async def _run(folder: Path, stay: bool, output: Output) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_signal, scope)
            async with started(folder) as nodes:
                heights = await certifying(folder, nodes)
                _report(folder, heights, stay, output)
                if stay:
                    await _watch(nodes)
            nursery.cancel_scope.cancel()


async def _until_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        async for _ in received:
            scope.cancel()


@asynccontextmanager
async def started(folder: Path) -> Any:
    """Run the nodes of a network; all have ended when the block ends."""
    genesis = genesis_file.decode((folder / founding.GENESIS_NAME).read_bytes())
    async with AsyncExitStack() as stack:
        nodes: list[Running] = []
        stack.push_async_callback(_stop, nodes)
        for validator in genesis.committee.validators:
            home = folder / validator.agency
            with (home / LOG_NAME).open("ab") as log:
                process = await trio.lowlevel.open_process(
                    [sys.executable, "-m", "comity.cli", "node", "run", str(home)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env={**keys.for_children(os.environ), "COMITY_LOG_FORMAT": "json"},
                )
            nodes.append(Running(validator.agency, home, process))
        yield nodes


async def _stop(nodes: Sequence[Running]) -> None:
    with trio.CancelScope(shield=True):
        for node in nodes:
            if node.process.poll() is None:
                node.process.terminate()
        with trio.move_on_after(STOP_SECONDS_MAX):
            for node in nodes:
                await node.process.wait()
        for node in nodes:
            if node.process.poll() is None:
                node.process.kill()
                await node.process.wait()


async def certifying(folder: Path, nodes: Sequence[Running]) -> dict[str, Height]:
    """Wait until every node proves a certified height; return them by agency.

    Raises:
        NotReachableError: a node ended or took too long; shows the end of its log.
    """
    genesis = (folder / founding.GENESIS_NAME).read_bytes()
    validators = genesis_file.decode(genesis).committee.validators
    found: dict[str, Height] = {}

    async def ask(validator: Validator) -> None:
        async with Client.connect(
            genesis, servers=[validator.agency], patience_seconds=START_SECONDS_MAX
        ) as client:
            while validator.agency not in found:
                heights = await client.statements(-1)
                if heights and heights[-1].height > 0:
                    found[validator.agency] = heights[-1]
                else:
                    await trio.sleep(0.1)

    with trio.move_on_after(START_SECONDS_MAX):
        async with trio.open_nursery() as nursery:
            for validator in validators:
                nursery.start_soon(ask, validator)
            while len(found) < len(validators):
                for node in nodes:
                    if node.process.poll() is not None:
                        raise _ended(node)
                await trio.sleep(0.05)
    if len(found) < len(validators):
        late = next(node for node in nodes if node.agency not in found)
        raise NotReachableError(
            f"the node of {late.agency} certified nothing in {START_SECONDS_MAX:g} s",
            hint=f"read {late.home / LOG_NAME}",
        )
    return found


def _ended(node: Running) -> NotReachableError:
    lines = (node.home / LOG_NAME).read_text(encoding="utf-8", errors="replace").splitlines()
    tail = "\n".join(lines[-LOG_LINES:])
    status = node.process.returncode
    return NotReachableError(
        f"the node of {node.agency} ended with status {status}:\n{tail}",
        hint=f"read {node.home / LOG_NAME}",
    )


async def _watch(nodes: Sequence[Running]) -> None:
    """Say of each node that ends by itself that it has; the others go on.

    Raises:
        NotReachableError: none is left.
    """
    left = list(nodes)
    while True:
        for node in [each for each in left if each.process.poll() is not None]:
            left.remove(node)
            if not left:
                raise _ended(node)
            said = (
                f"the node of {node.agency} ended with status {node.process.returncode}; "
                f"the others go on. `comity node run {node.home}` starts it again"
            )
            show.err().print(said, markup=False, soft_wrap=True)
        await trio.sleep(0.2)


def _report(folder: Path, heights: dict[str, Height], stay: bool, output: Output) -> None:
    genesis = genesis_file.decode((folder / founding.GENESIS_NAME).read_bytes())
    value = {
        "genesis": str(folder / founding.GENESIS_NAME),
        "nodes": {
            v.agency: {
                "clients": f"{v.client_host}:{v.client_port}",
                "height": heights[v.agency].height,
            }
            for v in genesis.committee.validators
        },
    }
    title = f"every node certifies; clients use --genesis {folder / founding.GENESIS_NAME}"
    shown = show.table("agency", "clients", "height", "time", "keys")
    for v in genesis.committee.validators:
        height = heights[v.agency]
        shown.add_row(
            v.agency,
            f"{v.client_host}:{v.client_port}",
            str(height.height),
            time_word(height.time_ms),
            str(folder / v.agency / "keys"),
        )
    show.emit(output, value, show.titled(title, shown, "Ctrl-C stops it" if stay else ""))


COMMANDS: Final = ((devnet, EXAMPLES),)
"""What the command line offers of this module, with the end of each help text."""
