"""``comity snapshot``: the certified state of one height as a file.

``verify`` is for anybody: it opens nothing but the file. ``export`` and ``import`` are for the
operator of a node and load ``node`` when they are called.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter
from rich.console import Group
from rich.text import Text

from comity import snapshots
from comity.cli.bars import bar
from comity.cli.node import CONFIG
from comity.cli.options import (
    OUTPUT,
    Output,
    Reach,
    UsageError,
    chain_of,
    examples,
    genesis_bytes,
    naming,
)
from comity.cli.show import emit, pairs
from comity.cli.values import time_word

app = App(name="snapshot", help="The certified state of one height, as a file.")

WHOLE: Final = "name a whole snapshot, as `comity snapshot export` makes it"
_BITS: Final = re.compile(r"[01]{1,16}")


@app.command(
    help_epilogue=examples(
        "comity snapshot export --node network/treasury -o monday.snapshot",
        "comity snapshot export --node network/treasury --prefix 0110 -o part.snapshot",
        "comity snapshot export --node network/treasury --kind payment -o payments.snapshot",
    )
)
def export(
    *,
    node: Annotated[
        Path, Parameter(show_default=True, help="The node's configuration, its folder or its data.")
    ] = CONFIG,
    to: Annotated[Path, Parameter(name=["--output", "-o"], help="The file to be made.")],
    genesis: Annotated[
        Path | None,
        Parameter(help="Genesis file; needed only where --node is a data folder alone."),
    ] = None,
    prefix: Annotated[
        tuple[str, ...],
        Parameter(
            help="A copy for an auditor: only what lies under key paths that begin with these "
            "bits, such as 0110; may be repeated."
        ),
    ] = (),
    kind: Annotated[
        tuple[str, ...],
        Parameter(
            help="A copy for an auditor: rows of records of this kind only; of others only that "
            "they are there. May be repeated."
        ),
    ] = (),
    output: Output = OUTPUT,
) -> None:
    """Write a snapshot of a node's newest stored height; the node may be running.

    The file holds everything a validator holds: values, salts and the drafts of open proposals.
    """
    from node.snapshots.export import Selection
    from node.snapshots.export import export as write

    for each in prefix:
        if not _BITS.fullmatch(each):
            raise UsageError(f"{each!r} is no prefix", hint="write 1 to 16 bits, such as 0110")
    store, data = _node(node, genesis)
    with bar("rows", output) as told:
        found = write(store, data, to, told, Selection(prefix, kind))
    value = {
        "file": str(to),
        "height": found.height,
        "state_root": found.state_root,
        "key_count": found.key_count,
        "entries": found.entries,
        "chunks": found.chunks,
        "left_out": found.left_out,
        "bytes": found.size_bytes,
    }
    emit(output, value, pairs(value.items()))


@app.command(
    help_epilogue=examples(
        "comity snapshot verify monday.snapshot --genesis 0x9f2c...",
        "comity snapshot verify monday.snapshot --genesis genesis.cbor",
    )
)
def verify(file: Path, /, *, genesis: str, output: Output = OUTPUT) -> None:
    """Check a snapshot to its end, offline: certificate, hashes, and every row.

    Args:
        file: a snapshot.
        genesis: the network's hash (64 hex digits), or its genesis file.
    """
    chain = chain_of(genesis)
    with naming(file, WHOLE), bar("chunks", output) as told:
        found = snapshots.verify(file, chain, told)
    statement = found.statement
    value = {
        "network": found.network,
        "chain": chain,
        "height": statement.height,
        "time_ms": statement.time_ms,
        "state_root": statement.state_root,
        "signers": list(found.signers),
        "key_count": found.key_count,
        "entries": found.entries,
        "chunks": found.chunks,
        "left_out": found.left_out,
        "whole": found.whole,
    }
    when = f"height {statement.height} ({time_word(statement.time_ms)})"
    what = "the whole state" if found.whole else "a certified part of the state"
    shown = {name: each for name, each in value.items() if name not in ("whole", "time_ms")}
    title = Text.assemble(("VALID", "bold green"), f"   {what} of {found.network} at {when}")
    emit(output, value, Group(title, pairs({**shown, "signers": ", ".join(found.signers)}.items())))


@app.command(
    name="import",
    help_epilogue=examples(
        "comity snapshot import monday.snapshot --node network/registry --new-key",
        "comity snapshot import monday.snapshot --node network/registry",
    ),
)
def import_(
    file: Path,
    /,
    *,
    node: Annotated[
        Path, Parameter(show_default=True, help="The node's configuration, or its folder.")
    ] = CONFIG,
    new_key: Annotated[
        bool,
        Parameter(
            help="The validator key has never signed anything, on any machine, so the node may "
            "vote. Without this it follows only with `votes = false`."
        ),
    ] = False,
    output: Output = OUTPUT,
) -> None:
    """Begin a new node from a snapshot, in place of replaying everything.

    Args:
        file: a whole snapshot; it is checked as it is read.
    """
    from node.snapshots.importing import import_file

    with naming(file, WHOLE), bar("rows", output) as told:
        found = import_file(file, _file(node), told, new_key=new_key)
    value = {
        "folder": str(found.folder),
        "height": found.height,
        "state_root": found.state_root,
        "entries": found.entries,
        "votes": found.votes,
    }
    emit(output, value, pairs(value.items()))


def _file(config: Path) -> Path:
    return config / CONFIG.name if config.is_dir() else config


def _node(node: Path, genesis: Path | None) -> tuple[Path, bytes]:
    """Return the store's folder and the genesis file of a configuration or data folder."""
    from node import config as configs
    from node.storage.recovery import STORE_FOLDER

    file = _file(node)
    if file.is_file():
        config = configs.load(file, os.environ)
        store = config.path(config.node.data) / STORE_FOLDER
        return store, genesis_bytes(Reach(genesis=genesis or config.path(config.node.genesis)))
    return node / STORE_FOLDER, genesis_bytes(Reach(genesis=genesis))
