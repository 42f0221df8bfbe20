"""``comity keys``: make and look at key files, and put them under a passphrase."""

from __future__ import annotations

import os
from getpass import getpass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from comity import keys
from comity.cli.options import OUTPUT, Output, UsageError, ask_passphrase, examples
from comity.cli.show import emit, pairs
from comity.errors import KeyUnusableError
from comity.keys import AskPassphrase
from consensus import genesis as genesis_file
from consensus import keyfile
from consensus.errors import DecodeError, KeyFileError
from consensus.genesis import GENESIS_NAME, Genesis
from consensus.keyfile import KeyKind

app = App(name="keys", help="Make and look at key files.")

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
        "comity keys check my.key", "comity keys check keys/node.key --genesis genesis.cbor"
    )
)
def check(
    file: Path,
    /,
    *,
    passphrase_file: PassphraseFile = None,
    genesis: Annotated[
        Path | None, Parameter(help="Genesis file or its folder: say whose key it is there.")
    ] = None,
    output: Output = OUTPUT,
) -> None:
    """Open a key file as its user would: modes, passphrase, and that its parts fit together.

    Args:
        file: a key file.
    """
    sealed = _describe(file).sealed
    pair = keys.open_pair(file, ask=_asks(passphrase_file))
    value: dict[str, Any] = {
        "file": str(file),
        "kind": pair.kind.value,
        "public": pair.public,
        "sealed": sealed,
        "opens": True,
    }
    if genesis is not None:
        value["named_for"] = _named_for(_genesis(genesis), pair.kind, pair.public)
    emit(output, value, pairs(value.items()))


def _asks(passphrase_file: Path | None) -> AskPassphrase:
    if passphrase_file is not None:
        return lambda _: keys.read_passphrase(passphrase_file)
    return keys.given_in(os.environ) or ask_passphrase


def _ask_twice(prompt: str) -> str:
    chosen = getpass(prompt)
    if chosen != getpass("The same again: "):
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


def _named_for(found: Genesis, kind: KeyKind, public: bytes) -> list[str]:
    """Return whose key it is by a genesis file: agencies of a node, or nobody."""
    return [
        each.agency
        for each in found.committee.validators
        if public == {KeyKind.VALIDATOR: each.key, KeyKind.NODE: each.node_key}.get(kind)
    ]


def _show(output: Output, file: Path, kind: KeyKind, public: bytes, sealed: bool) -> None:
    value = {"file": str(file), "kind": kind.value, "public": public, "sealed": sealed}
    emit(output, value, pairs(value.items()))
