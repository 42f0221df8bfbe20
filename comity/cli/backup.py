"""``comity node backup | restore | verify-store``: copies of a node's data, and what they hold.

Loads ``node`` when a command is called. These add to the commands of ``comity.cli.node``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Group
from rich.text import Text

from comity.cli.bars import bar, steps
from comity.cli.node import CONFIG, Config, app, file_of
from comity.cli.options import OUTPUT, Output, Reach, UsageError, examples, genesis_bytes
from comity.cli.show import emit, pairs
from comity.cli.values import time_word
from comity.files import saying

if TYPE_CHECKING:
    from node.backup.manifest import Manifest
    from node.backup.verifying import Verified

MIB = 2**20
RATE_MIB_MAX = 2**20


@app.command(
    help_epilogue=examples(
        "comity node backup /etc/comity -o /backup/monday",
        "comity node backup /etc/comity -o /backup/monday.tar --rate 20",
        "comity node backup /etc/comity -o /backup/monday --sealed-keys /vault/monday.keys",
    )
)
def backup(
    config: Config = CONFIG,
    /,
    *,
    to: Annotated[
        Path,
        Parameter(
            name=["--output", "-o"], help="The folder to be made, or the file, if it ends in .tar."
        ),
    ],
    rate: Annotated[
        int,
        Parameter(
            show_default=True,
            help="MiB a second that are read or written at most; 0: as fast as it goes.",
        ),
    ] = 64,
    sealed_keys: Annotated[
        Path | None,
        Parameter(
            help="Have the sealed values in the backup too, and their keys in this new file: to be "
            "kept apart, and destroyed when an erasure must have reached everything."
        ),
    ] = None,
    output: Output = OUTPUT,
) -> None:
    """Copy a node's data at one certified height; the node may be running.

    No key, no signer's mark and no log is ever in it. It holds all else that the node holds: keep
    it as you keep the data folder.
    """
    from node.backup.making import make

    if not 0 <= rate <= RATE_MIB_MAX:
        raise UsageError(f"--rate {rate} is not 0 to {RATE_MIB_MAX} MiB a second")
    with saying(f"cannot write {to}"), bar("bytes", output, as_bytes=True) as told:
        found = make(file_of(config), to, told, rate=rate * MIB, sealed_keys=sealed_keys)
    value = {
        "backup": found.manifest.digest,
        "to": str(to),
        **_manifest_value(found.manifest),
        "destroy_by": None if found.destroy_by_ms is None else time_word(found.destroy_by_ms),
        "seconds": round(found.seconds, 3),
        "sealed_keys": None if sealed_keys is None else str(sealed_keys),
    }
    emit(output, value, pairs(_shown(value)))


@app.command(
    help_epilogue=examples(
        "comity node restore /backup/monday /etc/comity",
        "comity node restore /backup/monday.tar /etc/comity --sealed-keys /vault/monday.keys",
    )
)
def restore(
    backup_: Annotated[Path, Parameter(name="BACKUP", help="Its folder or tar file.")],
    config: Config = CONFIG,
    /,
    *,
    sealed_keys: Annotated[
        Path | None,
        Parameter(
            help="The file with the keys of the sealed values; without it they are left out."
        ),
    ] = None,
    new_key: Annotated[
        bool,
        Parameter(
            help="A validator key in the key files that the backup does not know was made to take "
            "over and has never signed anything, so it may vote once it is elected."
        ),
    ] = False,
    output: Output = OUTPUT,
) -> None:
    """Put a backup into a node's empty data folder, all of it checked.

    The node then follows and does not vote, whatever keys it has, until its agency is given a new
    validator key by the charter: what the old key signed after the backup is not known.
    """
    from node.backup.restoring import restore as put

    with saying("cannot write the node's data"), steps(output) as told:
        found = put(backup_, file_of(config), told, sealed_keys=sealed_keys, new_key=new_key)
    value = {
        "folder": str(found.folder),
        "backup": found.manifest.digest,
        **_verified_value(found.verified),
        "sealed": found.sealed,
        "keys_that_do_not_vote": list(found.restored.keys),
    }
    foot = Text(
        "The node follows and does not vote until its agency has a new validator key in the "
        "committee. Start it: it catches up with the others by itself."
    )
    title = Text.assemble(("RESTORED", "bold green"), f"   {found.folder}")
    emit(output, value, Group(title, pairs(_shown(value)), foot))


@app.command(
    name="verify-store",
    help_epilogue=examples(
        "comity node verify-store /etc/comity",
        "comity node verify-store /backup/monday --genesis genesis.cbor",
    ),
)
def verify_store(
    config: Annotated[
        Path,
        Parameter(help="The node's configuration or folder, its data folder, or a backup's."),
    ] = CONFIG,
    /,
    *,
    genesis: Annotated[
        Path | None,
        Parameter(help="Genesis file; needed where a folder of data or a backup is named."),
    ] = None,
    output: Output = OUTPUT,
) -> None:
    """Check every row of a stopped node's store, or of a backup, against what quorums signed.

    State tree, history, certificates, decisions, changes, batches and past rows. The first damage
    is named by table, height and key. Nothing is executed again: `comity audit` does that.
    """
    from node.backup.checking import check_folder

    store, genesis_data, folder = _store(config, genesis)
    with steps(output) as told:
        manifest = check_folder(folder, store, genesis_data, told)
    found = manifest.verified
    value = _verified_value(found)
    if manifest.backup is not None:
        value = {"backup": manifest.backup.digest, **value}
    title = Text.assemble(("VALID", "bold green"), f"   {store}")
    emit(output, value, Group(title, pairs(_shown(value))))


def _store(config: Path, genesis: Path | None) -> tuple[Path, bytes, Path]:
    """Return a store's folder, the genesis file, and the folder of the data."""
    from node import config as configs
    from node.storage.recovery import STORE_FOLDER

    file = file_of(config)
    if file.is_file():
        read = configs.load(file, os.environ)
        data = read.path(read.node.data)
        found = genesis or read.path(read.node.genesis)
        return data / STORE_FOLDER, genesis_bytes(Reach(genesis=found)), data
    if not config.is_dir():
        raise UsageError(
            f"there is no {config}", hint="name a node's configuration, its data, or a backup"
        )
    return config / STORE_FOLDER, genesis_bytes(Reach(genesis=genesis)), config


def _manifest_value(manifest: Manifest) -> dict[str, Any]:
    return {
        "network": manifest.network,
        "agency": manifest.agency,
        "software": manifest.software,
        "epoch": manifest.epoch,
        "height": manifest.height,
        "time": time_word(manifest.time_ms),
        "state_root": manifest.state_root,
        "key_count": manifest.key_count,
        "first_height": manifest.first,
        "private_from": manifest.private_from,
        "past_from": manifest.horizon,
        "bytes": manifest.size_bytes,
        "files": [each.name for each in manifest.files],
    }


def _verified_value(found: Verified) -> dict[str, Any]:
    statement = found.certificate.statement
    return {
        "network": found.network,
        "chain": found.chain,
        "epoch": statement.epoch,
        "height": found.height,
        "time": time_word(statement.time_ms),
        "state_root": statement.state_root,
        "key_count": found.key_count,
        "first_height": found.first,
        "certificates": found.certificates,
        "transactions": found.transactions,
        "private_from": found.private_from,
        "past_from": found.horizon,
    }


def _shown(value: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        (name, ", ".join(each) if name == "files" else each)
        for name, each in value.items()
        if each is not None and each != []
    ]
