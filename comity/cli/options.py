"""Options that many commands share, and what follows from them."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from getpass import getpass
from pathlib import Path
from typing import Annotated, Final, TypeVar

import trio
from cyclopts import Parameter

from comity import keys
from comity.client import Client
from comity.errors import DraftError
from comity.founding import GENESIS_NAME
from comity.keys import Key

T = TypeVar("T")

GENESIS_VARIABLE: Final = "COMITY_GENESIS"
SERVERS_VARIABLE: Final = "COMITY_SERVERS"
PATIENCE_SECONDS: Final = 10.0


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Output:
    """How results and errors are shown."""

    json: Annotated[bool, Parameter(negative="", help="Print JSON for programs.")] = False
    debug: Annotated[bool, Parameter(negative="", help="Show tracebacks of errors.")] = False


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Reach:
    """Which network, through which nodes, as whom."""

    genesis: Annotated[
        Path | None,
        Parameter(help="Genesis file or its folder; else COMITY_GENESIS, else ./genesis.cbor."),
    ] = None
    server: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            help="Agency whose node to ask, as name or name=host:port; may be repeated. "
            "Else COMITY_SERVERS, else all.",
        ),
    ] = ()
    key: Annotated[Path | None, Parameter(help="Key file; else COMITY_KEY_FILE.")] = None
    patience: Annotated[float, Parameter(help="Seconds until giving up on the nodes.")] = (
        PATIENCE_SECONDS
    )


OUTPUT: Final = Output()
REACH: Final = Reach()


def genesis_bytes(reach: Reach) -> bytes:
    """Return the genesis file.

    Raises:
        DraftError: it cannot be found or read.
    """
    named = os.environ.get(GENESIS_VARIABLE, "")
    path = reach.genesis or (Path(named) if named else Path(GENESIS_NAME))
    if path.is_dir():
        path = path / GENESIS_NAME
    try:
        return path.read_bytes()
    except OSError as error:
        raise DraftError(
            f"cannot read the genesis file {path}: {error.strerror}",
            hint=f"name it with --genesis or {GENESIS_VARIABLE}",
        ) from error


def ask_passphrase(path: Path) -> str | None:
    """Ask the person for the passphrase of a key file; None when nobody is there."""
    if not sys.stdin.isatty():
        return None
    return getpass(f"Passphrase of {path}: ")


def own_key(reach: Reach) -> Key | None:
    """Return the key to act with, None for an anonymous connection."""
    return keys.from_environment(os.environ, reach.key, ask=ask_passphrase)


def with_client(reach: Reach, work: Callable[[Client], Awaitable[T]]) -> T:
    """Return what ``work`` makes of a client."""
    genesis = genesis_bytes(reach)
    key = own_key(reach)
    named = tuple(each for each in os.environ.get(SERVERS_VARIABLE, "").split(",") if each)
    servers = reach.server or named or None

    async def run() -> T:
        async with Client.connect(
            genesis, servers=servers, key=key, patience_seconds=reach.patience
        ) as client:
            return await work(client)

    return trio.run(run)
