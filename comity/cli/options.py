"""Options that many commands share, and what follows from them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

from cyclopts import Parameter

from comity import keys
from comity.errors import DraftError, ForkError, RequestError
from comity.keys import Key
from comity.words import word
from consensus.errors import ComityError, DecodeError
from consensus.genesis import GENESIS_NAME, chain_id, decode
from consensus.protocol import Status

if TYPE_CHECKING:
    from comity.client import Client

T = TypeVar("T")

GENESIS_VARIABLE: Final = "COMITY_GENESIS"
SERVERS_VARIABLE: Final = "COMITY_SERVERS"
WARN_VARIABLE: Final = "COMITY_WARN_DAYS"
PATIENCE_SECONDS: Final = 10.0
PATIENCE_SECONDS_MAX: Final = 86_400.0
WARN_DAYS: Final = 30
"""Whoever is not told otherwise warns so many days ahead."""
WARN_DAYS_MAX: Final = 36_525
HASH: Final = re.compile(r"(?:0x)?([0-9a-fA-F]{64})")
"""A hash, key or id as people write it."""
WAIT_SECONDS: Final = 1.0
"""How long a command waits for a node before a person is told that it does."""
WAIT_LOOK_SECONDS: Final = 0.1
WARN_SECONDS_MAX: Final = 3.0
"""How long a command that has done its work may take to look what ends."""


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
            help="Agency whose node to ask, as name or name=host:port, or an observer by its "
            "certificate, as court.crt=host:port; may be repeated. Else COMITY_SERVERS, else all.",
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


class NotInForceError(RequestError):
    """A node lets nobody act with this key: never registered, replaced, revoked, or suspended."""


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


def chain_of(word: str) -> bytes:
    """Return a network's hash, from hex or from its genesis file.

    Raises:
        UsageError: it is neither.
    """
    found = HASH.fullmatch(word)
    if found is not None:
        return bytes.fromhex(found[1])
    if not Path(word).exists():
        raise UsageError(
            f"{word!r} is neither a hash nor a file",
            hint="give the network's hash (64 hex digits), as you compared it with the agencies, "
            "or its genesis file",
        )
    return chain_id(genesis_bytes(Reach(genesis=Path(word))))


def files_in(folder: Path | None, option: str = "--with") -> list[Path]:
    """Return the rule sets in a folder; none where none is named.

    Raises:
        UsageError: it is no folder.
    """
    if folder is None:
        return []
    if not folder.is_dir():
        raise UsageError(
            f"there is no folder {folder} of rule sets", hint=f"name one with {option}"
        )
    return sorted(folder.glob("*.toml"))


def refuse_existing(file: Path) -> None:
    """Refuse to write over a file.

    Raises:
        UsageError: it is there.
    """
    if file.exists():
        raise UsageError(f"{file} exists", hint="name another file; nothing is overwritten")


@contextmanager
def naming(file: Path, hint: str) -> Iterator[None]:
    """Name the file that is not what it should be; ``hint`` is what to do.

    Raises:
        DecodeError: it is not.
    """
    try:
        yield
    except DecodeError as error:
        if error.hint != DecodeError.advice:
            raise
        raise DecodeError(f"{file}: {error.message}", hint=hint) from error


def ask_passphrase(path: Path) -> str | None:
    """Ask the person for the passphrase of a key file; None when nobody is there."""
    if not sys.stdin.isatty():
        return None
    return getpass(f"Passphrase of {path}: ")


def own_key(reach: Reach) -> Key | None:
    """Return the key to act with, None for an anonymous connection."""
    return keys.from_environment(os.environ, reach.key, ask=ask_passphrase)


def warn_days(environment: Mapping[str, str]) -> int:
    """Return how many days ahead this person is warned of what ends.

    Raises:
        UsageError: the variable is no number of days.
    """
    text = environment.get(WARN_VARIABLE, str(WARN_DAYS))
    if not (text.isascii() and text.isdigit() and int(text[:9]) <= WARN_DAYS_MAX):
        raise UsageError(
            f"{WARN_VARIABLE} is {text!r}", hint=f"give days, 0 (never) to {WARN_DAYS_MAX}"
        )
    return int(text)


async def warn_of_ends(client: Client, days: int) -> None:
    """Say on standard error what of the client's key and roles ends soon; nothing else comes of it.

    What cannot be asked, or not in time, is not warned of: the command has done its work.
    """
    if client.key is None or not days:
        return
    import trio

    from comity.endings import endings, soon

    with trio.move_on_after(WARN_SECONDS_MAX):
        try:
            found = await client.authority(listed=False)
        except ForkError:
            raise
        except ComityError:
            return
        for each in soon(endings(found), found.time_ms, days):
            said = f"warning: your {each.words(found.time_ms)}; {each.advice}."
            print(said, file=sys.stderr)


def with_client(
    reach: Reach, work: Callable[[Client], Awaitable[T]], *, warns: bool | None = None
) -> T:
    """Return what ``work`` makes of a client that acts with the key of the person.

    Args:
        warns: whether it says what of the key and its roles ends soon; None: where a person looks.
    """
    genesis = genesis_bytes(reach)
    key = own_key(reach)
    days = warn_days(os.environ)
    warns = sys.stderr.isatty() if warns is None else warns

    async def then_warn(client: Client) -> T:
        found = await work(client)
        if warns:
            await warn_of_ends(client, days)
        return found

    return with_key(reach, key, then_warn, genesis)


def with_key(
    reach: Reach, key: Key | None, work: Callable[[Client], Awaitable[T]], genesis: bytes
) -> T:
    """Return what ``work`` makes of a client that acts with ``key``, anonymous without one.

    Args:
        genesis: bytes of the genesis file.

    Raises:
        NotInForceError: DENIED, and the network has the key in force for nobody.
    """
    import trio

    from comity.client import Client

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
            try:
                return await _watched(client, work, reach.patience)
            except RequestError as error:
                if error.reason != Status.DENIED.name:
                    raise
                raise await _denied(client, error) from error

    if not 0 < reach.patience <= PATIENCE_SECONDS_MAX:
        raise UsageError(f"--patience is more than 0 and at most {PATIENCE_SECONDS_MAX:g} seconds")
    return trio.run(run)


async def _watched(
    client: Client, work: Callable[[Client], Awaitable[T]], patience_seconds: float
) -> T:
    """Return what ``work`` makes of a client; a person at a terminal is told if it has to wait."""
    import trio

    if not sys.stderr.isatty():
        return await work(client)

    async def watch() -> None:
        await trio.sleep(WAIT_SECONDS)
        while not (why := client._network.unanswered):  # noqa: ASYNC110 (no event tells)
            await trio.sleep(WAIT_LOOK_SECONDS)
        _tell_waiting(why, patience_seconds)

    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        try:
            return await work(client)
        except Exception as error:
            failure = error  # raised below as it is, in no group
        finally:
            nursery.cancel_scope.cancel()
    raise failure


def _tell_waiting(why: str, patience_seconds: float) -> None:
    print(
        f"no node answers yet ({why}); trying for {patience_seconds:g} s (--patience), "
        "Ctrl-C ends it",
        file=sys.stderr,
    )


async def _denied(client: Client, error: RequestError) -> RequestError:
    """Return what a node denied, in words for whoever has this key, or none."""
    act_with = f"--key or {keys.FILE_VARIABLE}"
    problem, key = error.problem, client.key
    if key is None:
        hint = f"act with a key: {act_with}"
        return RequestError(error.status, replace(problem, message="this needs a key", hint=hint))
    if not await _in_force(client, key):
        said = "this key may not do that: it is in force for nobody in this network"
        hint = (
            "ask your agency's administrator to register it, or what became of it "
            f"(`comity get key/{word(key.public)}`); or act with another one: {act_with}"
        )
        return NotInForceError(error.status, replace(problem, message=said, hint=hint))
    hint = problem.hint or "`comity access` says who may read what, and by which rule"
    return RequestError(error.status, replace(problem, hint=hint))


async def _in_force(client: Client, key: Key) -> bool:
    """Return whether a node lets this key ask for itself, as it lets everybody's that is in force.

    What cannot be asked, or not in time, is not held against the key.
    """
    import trio

    with trio.move_on_after(WARN_SECONDS_MAX):
        try:
            await client.get("key", key.public)
        except RequestError as error:
            return error.reason != Status.DENIED.name
        except ForkError:
            raise
        except ComityError:
            return True
    return True
