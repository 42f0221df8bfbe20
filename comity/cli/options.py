"""Options that many commands share, and what follows from them."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

from cyclopts import Parameter

from comity import keys
from comity.errors import DraftError, RequestError
from comity.keys import Key
from consensus.errors import DecodeError
from consensus.genesis import GENESIS_NAME, decode
from consensus.protocol import Status

if TYPE_CHECKING:
    from comity.client import Client

T = TypeVar("T")

GENESIS_VARIABLE: Final = "COMITY_GENESIS"
SERVERS_VARIABLE: Final = "COMITY_SERVERS"
PATIENCE_SECONDS: Final = 10.0
PATIENCE_SECONDS_MAX: Final = 86_400.0


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Output:
    """How results and errors are shown."""

    json: Annotated[bool, Parameter(help="Print JSON for programs.")] = False
    debug: Annotated[bool, Parameter(help="Show tracebacks of errors.")] = False


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
            help="Agency whose node to ask, as name or name=host:port; may be repeated. "
            "Else COMITY_SERVERS, else all.",
        ),
    ] = ()
    key: Annotated[Path | None, Parameter(help="Key file; else COMITY_KEY_FILE.")] = None
    purpose: Annotated[
        str, Parameter(help="What for; recorded where rules want reads recorded.")
    ] = ""
    patience: Annotated[
        float, Parameter(show_default=True, help="Seconds until giving up on the nodes.")
    ] = PATIENCE_SECONDS


class UsageError(DraftError):
    """What was typed does not have the form it should have."""

    code = "USAGE"
    advice = "`comity COMMAND --help` has examples"


OUTPUT: Final = Output()
REACH: Final = Reach()


def examples(*lines: str) -> str:
    """Return the end of a help text."""
    return "\n".join(["Examples:", *(f"  {line}" for line in lines)])


def genesis_bytes(reach: Reach) -> bytes:
    """Return the genesis file.

    Raises:
        UsageError: it cannot be found or read, or is none.
    """
    named = os.environ.get(GENESIS_VARIABLE, "")
    path = reach.genesis or (Path(named) if named else Path(GENESIS_NAME))
    if path.is_dir():
        path = path / GENESIS_NAME
    hint = f"name it with --genesis or {GENESIS_VARIABLE}"
    try:
        data = path.read_bytes()
        decode(data)
    except OSError as error:
        said = f"cannot read the genesis file {path}: {error.strerror}"
        raise UsageError(said, hint=hint) from error
    except DecodeError as error:
        raise UsageError(f"{path} is no genesis file: {error.message}", hint=hint) from error
    return data


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
    import trio

    from comity.client import Client

    genesis = genesis_bytes(reach)
    key = own_key(reach)
    named = tuple(each for each in os.environ.get(SERVERS_VARIABLE, "").split(",") if each)
    servers = reach.server or named or None

    async def run() -> T:
        async with Client.connect(
            genesis,
            servers=servers,
            key=key,
            patience_seconds=reach.patience,
            purpose=reach.purpose,
        ) as client:
            return await work(client)

    if not 0 < reach.patience <= PATIENCE_SECONDS_MAX:
        raise UsageError(f"--patience is more than 0 and at most {PATIENCE_SECONDS_MAX:g} seconds")
    try:
        return trio.run(run)
    except RequestError as error:
        if error.reason == Status.DENIED.name and key is None:
            error.hint = f"act with a key: --key or {keys.FILE_VARIABLE}"
        elif error.reason == Status.DENIED.name and not error.hint:
            error.hint = "`comity access` says who may read what, and by which rule"
        raise
