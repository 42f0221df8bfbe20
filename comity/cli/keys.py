"""``comity keys``: make and look at key files, and put them under a passphrase."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Sequence
from getpass import GetPassWarning, getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import App, Parameter

from comity import keys
from comity.cli.options import (
    OUTPUT,
    REACH,
    WARN_DAYS_MAX,
    NotInForceError,
    Output,
    Reach,
    UsageError,
    ask_passphrase,
    examples,
    genesis_bytes,
    warn_days,
    with_key,
)
from comity.cli.show import emit, pairs
from comity.errors import KeyUnusableError
from comity.keys import AskPassphrase, Key
from consensus import genesis as genesis_file
from consensus import keyfile
from consensus.errors import DecodeError, KeyFileError
from consensus.genesis import GENESIS_NAME, Genesis
from consensus.keyfile import KeyKind

if TYPE_CHECKING:
    from comity.authority import Authority
    from comity.client import Client
    from comity.endings import Ending
    from consensus.committee import Committee

app = App(name="keys", help="Make and look at key files.")

NO_TERMINAL_HINT: Final = (
    "name a file with it: --passphrase-file to make a key, --new-passphrase-file to change one"
)

PassphraseFile = Annotated[
    Path | None,
    Parameter(help="File that holds the passphrase, one line; else it is asked for."),
]


@app.command(
    help_epilogue=examples(
        "comity keys new my.key",
        "comity keys new --seal my.key",
        "comity keys new --kind validator --passphrase-file pass keys/validator.key",
    )
)
def new(
    file: Path,
    /,
    *,
    kind: Annotated[
        KeyKind, Parameter(show_default=True, help="What the key is for.")
    ] = KeyKind.CLIENT,
    seal: Annotated[bool, Parameter(help="Ask for a passphrase and seal.")] = False,
    passphrase_file: Annotated[
        Path | None, Parameter(help="Seal with the passphrase in this file, one line.")
    ] = None,
    output: Output = OUTPUT,
) -> None:
    """Make a key file, readable by you alone.

    Args:
        file: to be made; never overwritten.
    """
    passphrase = None
    if passphrase_file is not None:
        passphrase = keys.read_passphrase(passphrase_file)
    elif seal:
        passphrase = _ask_twice("Passphrase: ")
    pair = keys.new_pair(kind)
    keys.create(file, pair, passphrase)
    _show(output, file, kind, pair.public, passphrase is not None)


@app.command(help_epilogue=examples("comity keys show my.key"))
def show(file: Path, /, *, output: Output = OUTPUT) -> None:
    """Show the public part of a key file; needs no passphrase.

    Args:
        file: a key file.
    """
    info = _describe(file)
    _show(output, file, info.kind, info.public, info.sealed)


@app.command(
    help_epilogue=examples(
        "comity keys passphrase keys/validator.key",
        "comity keys passphrase keys/node.key --new-passphrase-file /etc/comity/passphrase",
        "comity keys passphrase my.key --remove",
    )
)
def passphrase(
    file: Path,
    /,
    *,
    passphrase_file: Annotated[
        Path | None,
        Parameter(
            help="File that holds the passphrase of now; else COMITY_KEY_PASSPHRASE or "
            "COMITY_KEY_PASSPHRASE_FILE, else it is asked for."
        ),
    ] = None,
    new_passphrase_file: Annotated[
        Path | None, Parameter(help="File that holds the new one; else it is asked for.")
    ] = None,
    remove: Annotated[bool, Parameter(help="Leave the key open, under no passphrase.")] = False,
    output: Output = OUTPUT,
) -> None:
    """Put a key under a passphrase, under another one, or under none. The key stays the same.

    Copies and backups of the file still open with the passphrase that they were made with.

    Args:
        file: a key file, of any kind.
    """
    if remove and new_passphrase_file is not None:
        raise UsageError(
            "--remove and --new-passphrase-file contradict each other", hint="give one of them"
        )
    pair = keys.open_pair(file, ask=_asks(passphrase_file))
    chosen = None
    if new_passphrase_file is not None:
        chosen = keys.read_passphrase(new_passphrase_file)
    elif not remove:
        chosen = _ask_twice("New passphrase: ")
    keys.replace(file, pair, chosen)
    _show(output, file, pair.kind, pair.public, chosen is not None)


@app.command(
    help_epilogue=examples(
        "comity keys check my.key",
        "comity keys check keys/node.key --genesis genesis.cbor",
        "comity keys check my.key --network --warn-days 60 --json | jq .ends",
    )
)
def check(
    file: Path,
    /,
    *,
    passphrase_file: PassphraseFile = None,
    network: Annotated[
        bool, Parameter(help="Ask the network too: what of the key, its roles and grants ends.")
    ] = False,
    days: Annotated[
        int | None,
        Parameter(
            name="--warn-days",
            help="How many days ahead to warn of what ends; else COMITY_WARN_DAYS, else 30; 0: do "
            "not.",
        ),
    ] = None,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Open a key file as its user would: modes, passphrase, and that its parts fit together.

    With --genesis it says whose key it is there. Exit status 1 where something ends soon.

    Args:
        file: a key file.
    """
    if reach.key is not None:
        raise UsageError("--key names another key", hint="name the file alone")
    days = warn_days(os.environ) if days is None else days
    if not 0 <= days <= WARN_DAYS_MAX:
        raise UsageError(
            f"--warn-days {days} is not 0 to {WARN_DAYS_MAX}", hint="give days; 0 is never"
        )
    sealed = _describe(file).sealed
    pair = keys.open_pair(file, ask=_asks(passphrase_file))
    value: dict[str, Any] = {
        "file": str(file),
        "kind": pair.kind.value,
        "public": pair.public,
        "sealed": sealed,
        "opens": True,
    }
    from comity.endings import endings, soon

    warned: list[str] = []
    found: Sequence[Ending] = ()
    now_ms = time.time_ns() // 1_000_000
    if network and pair.kind is KeyKind.CLIENT:
        try:
            held = with_key(reach, Key(pair), _authority, genesis_bytes(reach))
        except NotInForceError as error:
            nobody = "in force for nobody in this network"
            value |= {"principal": None, "agency": None, "fault": nobody}
            warned.append(f"this key is {nobody}; {error.hint}")
        else:
            fault = held.fault or None
            value |= {"principal": held.principal, "agency": held.agency, "fault": fault}
            found, now_ms = endings(held), held.time_ms
    elif network or reach.genesis is not None:
        committee = _genesis(reach.genesis).committee if reach.genesis is not None else None
        if network:
            committee = with_key(reach, None, _committee, genesis_bytes(reach))
        found = _named(value, pair.kind, pair.public, committee)
    if network or found:
        value["ends"] = [_ending_value(each) for each in found]
    near = soon(found, now_ms, days)
    rows = [(name, each) for name, each in value.items() if name != "ends" and each is not None]
    rows += [("ends", each.words(now_ms)) for each in found]
    emit(output, value, pairs(rows))
    warned += [f"{each.words(now_ms)}; {each.advice}" for each in near]
    for said in warned if not output.json else ():
        print(f"warning: {said}.", file=sys.stderr)
    return 1 if near or value.get("fault") else 0


async def _committee(client: Client) -> Committee:
    return await client.committee()


async def _authority(client: Client) -> Authority:
    return await client.authority()


def _named(
    value: dict[str, Any], kind: KeyKind, public: bytes, committee: Committee | None
) -> list[Ending]:
    """Say for which agencies a committee names a key; return when their certificates end."""
    if committee is None:
        return []
    value["named_for"] = _named_for(committee, kind, public)
    from comity.endings import certificates

    whose = value["named_for"] if kind is KeyKind.NODE else []
    return [each for each in certificates(committee) if each.name in whose]


def _ending_value(found: Ending) -> dict[str, Any]:
    return {
        "what": found.what,
        "name": found.name,
        "until_ms": found.until_ms,
        "why": found.why,
    }


def _asks(passphrase_file: Path | None) -> AskPassphrase:
    if passphrase_file is not None:
        return lambda _: keys.read_passphrase(passphrase_file)
    return keys.given_in(os.environ) or ask_passphrase


def _ask_twice(prompt: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", GetPassWarning)  # rather than show what is typed
            chosen = getpass(prompt)
            again = getpass("The same again: ")
    except (GetPassWarning, EOFError) as error:
        raise UsageError(
            "there is no terminal at which a passphrase could be typed", hint=NO_TERMINAL_HINT
        ) from error
    if chosen != again:
        raise UsageError("the two passphrases differ", hint="try again")
    return chosen


def _describe(file: Path) -> keyfile.KeyInfo:
    try:
        return keyfile.describe(keys.read_file(file))
    except KeyFileError as error:
        raise KeyUnusableError(f"{file}: {error.message}", hint=error.hint) from error


def _genesis(path: Path) -> Genesis:
    place = path / GENESIS_NAME if path.is_dir() else path
    try:
        return genesis_file.decode(place.read_bytes())
    except (OSError, DecodeError) as error:
        what = getattr(error, "strerror", None) or error
        raise UsageError(
            f"cannot use the genesis file {place}: {what}", hint="name it with --genesis"
        ) from error


def _named_for(committee: Committee, kind: KeyKind, public: bytes) -> list[str]:
    """Return whose key it is by a committee: agencies of a node, or nobody."""
    return [
        each.agency
        for each in committee.validators
        if public == {KeyKind.VALIDATOR: each.key, KeyKind.NODE: each.node_key}.get(kind)
    ]


def _show(output: Output, file: Path, kind: KeyKind, public: bytes, sealed: bool) -> None:
    value = {"file": str(file), "kind": kind.value, "public": public, "sealed": sealed}
    emit(output, value, pairs(value.items()))
