"""``comity keys``: make and look at key files."""

from __future__ import annotations

from getpass import getpass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from comity import keys
from comity.cli.options import OUTPUT, Output, UsageError, examples
from comity.cli.show import emit, pairs
from consensus import keyfile
from consensus.keyfile import KeyKind

app = App(name="keys", help="Make and look at key files.")


@app.command(help_epilogue=examples("comity keys new my.key", "comity keys new --seal my.key"))
def new(
    file: Path,
    /,
    *,
    kind: Annotated[
        KeyKind, Parameter(show_default=True, help="What the key is for.")
    ] = KeyKind.CLIENT,
    seal: Annotated[bool, Parameter(help="Ask for a passphrase and seal.")] = False,
    output: Output = OUTPUT,
) -> None:
    """Make a key file, readable by you alone.

    Args:
        file: to be made; never overwritten.
    """
    passphrase = None
    if seal:
        passphrase = getpass("Passphrase: ")
        if passphrase != getpass("The same again: "):
            raise UsageError("the two passphrases differ", hint="try again")
    pair = keys.new_pair(kind)
    keys.create(file, pair, passphrase)
    _show(output, file, kind, pair.public, passphrase is not None)


@app.command(help_epilogue=examples("comity keys show my.key"))
def show(file: Path, /, *, output: Output = OUTPUT) -> None:
    """Show the public part of a key file; needs no passphrase.

    Args:
        file: a key file.
    """
    info = keyfile.describe(keys.read_file(file))
    _show(output, file, info.kind, info.public, info.sealed)


def _show(output: Output, file: Path, kind: KeyKind, public: bytes, sealed: bool) -> None:
    value = {"file": str(file), "kind": kind.value, "public": public, "sealed": sealed}
    emit(output, value, pairs(value.items()))
