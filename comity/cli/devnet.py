"""``comity devnet``: a whole network on this machine, one process a node."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final

import trio
from cyclopts import Parameter

from comity import founding, keys, observing
from comity.cli import network, show
from comity.cli.ceremony import address_of
from comity.cli.observing import lay_observer
from comity.cli.options import OUTPUT, Output, UsageError, examples
from comity.cli.values import time_word
from comity.client import Client
from comity.errors import NotReachableError
from comity.files import refused
from comity.results import Height
from comity.servers import CERTIFICATE_SUFFIX, observer, servers_of
from comity.session import Server
from consensus import genesis as genesis_file
from consensus.committee import PORT_MAX
from consensus.errors import ComityError

START_SECONDS_MAX: Final = 60.0
STOP_SECONDS_MAX: Final = 15.0
LOG_NAME: Final = "node.log"
LOG_LINES: Final = 5
OBSERVERS_MAX: Final = 64
PORTS_PER_OBSERVER: Final = 2


@dataclass(slots=True)
class Running:
    """A node's process, and how clients reach it."""

    agency: str
    home: Path
    process: trio.Process
    server: Server


EXAMPLES: Final = examples(
    "comity devnet                     four nodes on free ports, then stop",
    "comity devnet mynet --stay        keep running; data stays in mynet",
    "comity devnet --size 7 --rules my/rules --stay",
    "comity devnet --observers 2 --stay   and two nodes that follow without a vote",
)


def devnet(
    folder: Path | None = None,
    /,
    *,
    plan: network.Plan = network.PLAN,
    base_port: Annotated[
        int | None, Parameter(help="First of three ports a node; else free ones.")
    ] = None,
    observers: Annotated[
        int, Parameter(show_default=True, help="Nodes that follow without a vote, besides.")
    ] = 0,
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
        if not 0 <= observers <= OBSERVERS_MAX:
            raise UsageError(
                f"--observers {observers} cannot be", hint=f"ask for 0 to {OBSERVERS_MAX}"
            )
        stack.enter_context(_alone(folder))
        if not (folder / founding.GENESIS_NAME).exists():
            size = len(network.names(plan.agencies, plan.size))
            more = size + PORTS_PER_OBSERVER * observers if observers else 0
            if base_port is None:
                base_port = network.free_base_port(size, more)
            made = network.make(folder, "devnet", plan, base_port)
            if observers:
                _add_observers(folder, made, observers, base_port + founding.PORTS_PER_NODE * size)
        elif plan != network.PLAN or base_port is not None or observers:
            raise UsageError(
                f"{folder} holds a network already, which is not founded again",
                hint=f"`comity devnet {folder} --stay` goes on with it; or name a new folder",
            )
        trio.run(_run, folder, stay, output)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a folder for this process: of two that begin at once, one goes on.

    The lock is on the folder itself, so it ends with the process, however that ends, and leaves
    nothing. Nodes that outlive their devnet have locks of their own (``_refuse_running``), as those
    on a file system without locks.

    Raises:
        FileError: it is no folder, or cannot be made.
        InUseError: another devnet has it.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    handle = -1
    try:
        handle = _opened(folder)
        _take(handle, folder)
        yield
    except BaseException:
        with suppress(OSError):  # what is in it stays
            for each in made:
                each.rmdir()
        raise
    finally:
        if handle >= 0:
            os.close(handle)


def _opened(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise refused(f"cannot use {folder} as a folder", error) from error


def _take(handle: int, folder: Path) -> None:
    from node.holders import holder_words

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _runs_already(folder, f"`comity devnet`{holder_words(folder)} has it") from error
    except OSError:  # a file system without locks
        return


def _add_observers(folder: Path, made: founding.Founding, count: int, port: int) -> None:
    """Give every member a door on ports from ``port`` up, and lay down observers that use them.

    Raises:
        DraftError: ports beyond 65535.
    """
    from node.network.tls import make_certificate

    size = len(made.members)
    if port + size + PORTS_PER_OBSERVER * count > PORT_MAX:
        raise UsageError(f"ports from {port} up do not all exist", hint="choose a lower port")
    doors = {each.name: f"{each.host}:{port + at}" for at, each in enumerate(made.members)}
    for agency, address in doors.items():
        (folder / agency / observing.DOORS_FOLDER).mkdir()
        with (folder / agency / founding.CONFIG_NAME).open("a", encoding="utf-8") as file:
            file.write(observing.door(address, count))
    port += size
    for number in range(1, count + 1):
        name = f"observer-{number}"
        new = observing.new_observer(
            made.genesis,
            name,
            doors,
            clients=f"127.0.0.1:{port}",
            telemetry=f"127.0.0.1:{port + 1}",
            recheck=False,
            make_certificate=make_certificate,
        )
        lay_observer(new, folder / name)
        for agency in doors:
            place = folder / agency / observing.DOORS_FOLDER / f"{name}{CERTIFICATE_SUFFIX}"
            place.write_bytes(new.certificate)
        port += PORTS_PER_OBSERVER


def _servers(folder: Path) -> dict[Path, Server]:
    """Return who is to run, by folder: members in the order of the committee, then observers.

    Raises:
        UsageError: a member's folder is not there, or an observer's not as it was made.
    """
    genesis = genesis_file.decode((folder / founding.GENESIS_NAME).read_bytes())
    found = {folder / each.agency: each for each in servers_of(genesis.committee)}
    for home in found:
        if not (home / founding.CONFIG_NAME).is_file():
            raise UsageError(
                f"{folder} has a genesis file and no folder of {home.name}'s node",
                hint="name a new folder, or one that this command or `comity network init` made",
            )
    for home in sorted(set(folder.glob("observer-*/")) - found.keys()):
        name = home.name
        try:
            config = tomllib.loads((home / founding.CONFIG_NAME).read_text(encoding="utf-8"))
            certificate = (home / f"{name}{CERTIFICATE_SUFFIX}").read_bytes()
            host, port = address_of(config["listen"]["clients"], "listen.clients")
            found[home] = replace(observer(certificate, host, port), agency=name)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{home} is no observer's folder: {error}", hint="move it out of the network's"
            ) from error
    return found


def _refuse_running(folder: Path, homes: Iterable[Path]) -> None:
    """Refuse to start nodes beside those that have the data: these would answer for them.

    Raises:
        InUseError: a node runs.
        ConfigError: a configuration cannot be read.
    """
    from node import config as configs
    from node.holders import holder_words
    from node.storage.readonly import is_in_use
    from node.storage.recovery import STORE_FOLDER
    from node.storage.store import LOCK_NAME

    for home in homes:
        config = configs.load(home / founding.CONFIG_NAME, os.environ)
        data = config.path(config.node.data)
        if is_in_use(data / STORE_FOLDER):
            who = holder_words(data / STORE_FOLDER / LOCK_NAME)
            raise _runs_already(folder, f"the node of {home.name}{who} uses {data}")


def _runs_already(folder: Path, how: str) -> ComityError:
    from node.errors import InUseError

    return InUseError(
        f"a network runs from {folder} already: {how}",
        hint=f"stop it, or use it as it is: `comity status --genesis {folder}`",
    )


async def _run(folder: Path, stay: bool, output: Output) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_signal, scope)
            async with started(folder) as nodes:
                heights = await certifying(folder, nodes)
                _report(folder, nodes, heights, stay, output)
                if stay:
                    await _watch(nodes)
            nursery.cancel_scope.cancel()


async def _until_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        async for _ in received:
            scope.cancel()


@asynccontextmanager
async def started(folder: Path) -> Any:
    """Run the nodes of a network; all have ended when the block ends.

    Raises:
        UsageError: a node's folder is not there, or not as it was made.
        InUseError: a node of it runs already.
    """
    async with AsyncExitStack() as stack:
        nodes: list[Running] = []
        stack.push_async_callback(_stop, nodes)
        servers = _servers(folder)
        _refuse_running(folder, servers)
        for home, server in servers.items():
            with (home / LOG_NAME).open("ab") as log:
                process = await trio.lowlevel.open_process(
                    [sys.executable, "-m", "comity.cli", "node", "run", str(home)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env={**keys.for_children(os.environ), "COMITY_LOG_FORMAT": "json"},
                )
            nodes.append(Running(server.agency, home, process, server))
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
    found: dict[str, Height] = {}

    async def ask(node: Running) -> None:
        async with Client.connect(
            genesis, servers=[node.server], patience_seconds=START_SECONDS_MAX
        ) as client:
            while node.agency not in found:
                heights = await client.statements(-1)
                if heights and heights[-1].height > 0:
                    found[node.agency] = heights[-1]
                else:
                    await trio.sleep(0.1)

    with trio.move_on_after(START_SECONDS_MAX):
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(ask, node)
            while len(found) < len(nodes):
                for node in nodes:
                    if node.process.poll() is not None:
                        raise _ended(node)
                await trio.sleep(0.05)
    if len(found) < len(nodes):
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


def _report(
    folder: Path,
    nodes: Sequence[Running],
    heights: dict[str, Height],
    stay: bool,
    output: Output,
) -> None:
    def told(node: Running) -> dict[str, Any]:
        return {"clients": _address(node.server), "height": heights[node.agency].height}

    value: dict[str, Any] = {
        "genesis": str(folder / founding.GENESIS_NAME),
        "nodes": {each.agency: told(each) for each in nodes if each.server.votes},
    }
    observers = {n.agency: {**told(n), "server": _named(n)} for n in nodes if not n.server.votes}
    if observers:
        value["observers"] = observers
    title = f"every node certifies; clients use --genesis {folder / founding.GENESIS_NAME}"
    shown = show.table("agency", "clients", "height", "time", "keys")
    for node in nodes:
        height = heights[node.agency]
        shown.add_row(
            node.agency if node.server.votes else f"{node.agency} (no vote)",
            _address(node.server),
            str(height.height),
            time_word(height.time_ms),
            str(node.home / "keys"),
        )
    lines = [f"read from an observer with --server {each['server']}" for each in observers.values()]
    lines += ["Ctrl-C stops it"] if stay else []
    show.emit(output, value, show.titled(title, shown, "\n".join(lines)))


def _address(server: Server) -> str:
    return f"{server.host}:{server.port}"


def _named(node: Running) -> str:
    """Return what names an observer among the servers of a client."""
    return f"{node.home / node.agency}{CERTIFICATE_SUFFIX}={_address(node.server)}"


COMMANDS: Final = ((devnet, EXAMPLES),)
"""What the command line offers of this module, with the end of each help text."""
