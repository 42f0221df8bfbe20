"""A stopped node's store and sealed values: ``python -m node.inspecting.stored FOLDER``.

It writes one JSON object to standard output, bytes in hex. Whoever reads damaged pages of LMDB may
be killed by the system: that is why this is a process of its own. ``ask`` runs it and says so.

Nothing is opened for writing: LMDB reads without its lock file.

Not here: whether the rows are right (``comity node verify-store``).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import lmdb

from consensus import codec
from consensus.errors import ComityError
from consensus.hashing import ZERO
from consensus.hotstuff import wire
from node import epochs
from node.backup import restored
from node.errors import DamagedStoreError
from node.recorded import block_of
from node.retention import META_PRIVATE
from node.sealed.slots import SLOT_BYTES
from node.sealed.vault import ERASED, KEPT, WAITING
from node.storage import readonly, tables
from node.storage.recovery import STORE_FOLDER
from node.storage.store import View
from node.storage.tables import BLANK, height_of

SECONDS_MAX: Final = 600.0
OUTPUT_BYTES_MAX: Final = 16 * 2**20
SEALED_FOLDER: Final = "sealed"
_STATES: Final = {WAITING: "waiting", KEPT: "kept", ERASED: "erased"}


def ask(folder: Path) -> dict[str, Any]:
    """Return what another process says of the store and sealed values in a data folder.

    Keys: ``store`` and ``sealed``, each with ``problem`` ``[code, words]`` where it cannot be read.
    """
    command = [sys.executable, "-m", "node.inspecting.stored", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS_MAX, check=False)
        if done.returncode == 0:
            found: dict[str, Any] = json.loads(done.stdout[:OUTPUT_BYTES_MAX])
            return found
        why = f"reading it ends with status {done.returncode}"
        if done.returncode < 0:
            name = signal.Signals(-done.returncode).name
            why = f"reading it ends with {name}: its pages are cut off or damaged"
    except subprocess.TimeoutExpired:
        why = f"reading it takes more than {SECONDS_MAX:g} s"
    return {"store": {"present": True, "problem": ["STORE_DAMAGED", why]}, "sealed": None}


def store(folder: Path) -> dict[str, Any]:
    """Return what the store in a folder says."""
    path = folder / STORE_FOLDER
    data = path / readonly.DATA_NAME
    try:
        size = data.stat().st_size
    except FileNotFoundError:
        return {"present": False}
    found: dict[str, Any] = {"present": True, "size_bytes": size}
    try:
        environment, view = readonly.open_store(path, chain=None)
    except ComityError as error:
        return {**found, "problem": [error.code, error.message]}
    try:
        found["used_bytes"] = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        for part in (_itself, _newest, _kept, _epochs, _tables, _leaves):
            found |= part(view, environment, folder)
    except ComityError as error:
        found["problem"] = [error.code, error.message]
    except lmdb.Error as error:
        found["problem"] = ["STORE_DAMAGED", f"cannot read the store: {error}"]
    finally:
        view.close()
        environment.close()
    return found


def _itself(view: View, _: lmdb.Environment, __: Path) -> dict[str, Any]:
    version, chain = view.meta(tables.META_FORMAT), view.meta(tables.META_CHAIN)
    return {
        "format": int.from_bytes(version or b"", "big"),
        "chain": (chain or b"").hex(),
        "height": None if view.height == BLANK else view.height,
    }


def _newest(view: View, _: lmdb.Environment, __: Path) -> dict[str, Any]:
    """Return the newest block and certificate."""
    found: dict[str, Any] = {}
    if view.height == BLANK:
        return found
    row = view.block(view.height)
    if row is None:
        raise DamagedStoreError(f"the store lacks the block of its height {view.height}")
    block, _data, encoded = block_of(row, view.height)
    shape, most = wire.STATEMENT, wire.BLOCK_BYTES_MAX
    statement = wire.statement_from(codec.decode(encoded, shape, bytes_max=most, what="statement"))
    found["tip"] = block.id.hex()
    found["time_ms"] = statement.time_ms
    found["epoch"] = statement.epoch
    found["executor"] = statement.executor
    found["state_root"] = statement.state_root.hex()
    newest = view.newest_certificate()
    if newest is not None:
        certificate = wire.decode_commit_cert(newest[1])
        found["certificate"] = {
            "kind": "commit",
            "epoch": certificate.statement.epoch,
            "round": certificate.statement.round,
            "height": newest[0],
            "block": certificate.statement.block_id.hex(),
            "signers": [index for index, _ in certificate.signatures],
        }
    return found


def _kept(view: View, environment: lmdb.Environment, folder: Path) -> dict[str, Any]:
    """Return from which heights on what is kept, and whether the data was restored."""
    private = view.meta(META_PRIVATE)
    record = restored.found(folder, view)
    opened = tables.open_tables(environment, create=False)
    with environment.begin() as txn, txn.cursor(opened.blocks) as cursor:
        first = height_of(cursor.key()) if cursor.first() else None
    return {
        "first_height": first,
        "past_from": view.horizon,
        "private_from": 0 if private is None else height_of(private),
        "restored": None
        if record is None
        else {
            "height": record.height,
            "backup": record.backup.hex(),
            "restored_ms": record.restored_ms,
            "keys": [key.hex() for key in record.keys],
        },
    }


def _epochs(view: View, _: lmdb.Environment, __: Path) -> dict[str, Any]:
    """Return the ends of epochs, and the committee after the last one."""
    ended = epochs.kept(view)
    return {
        "ended": [
            codec.encode([each.certificate.to_value(), each.committee.to_value()]).hex()
            for each in ended
        ],
    }


def _tables(_: View, environment: lmdb.Environment, __: Path) -> dict[str, Any]:
    """Return rows and bytes of every table."""
    found = {}
    opened = tables.open_tables(environment, create=False)
    with environment.begin() as txn:
        for name in tables.Tables.__dataclass_fields__:
            stat = txn.stat(getattr(opened, name))
            pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
            found[name] = {"rows": stat["entries"], "bytes": pages * stat["psize"]}
    return {"tables": found}


def _leaves(view: View, _: lmdb.Environment, __: Path) -> dict[str, Any]:
    """Count the leaves of the state: rows that are not of something deleted. 1 µs a row."""
    return {"leaves": sum(vh != ZERO for _, vh, _ in view.entries())}


def sealed(folder: Path) -> dict[str, Any] | None:
    """Return how many sealed values are here, by state, and keys; nothing is decrypted."""
    place = folder / SEALED_FOLDER
    if not place.is_dir():
        return None
    found: dict[str, Any] = {"waiting": 0, "kept": 0, "erased": 0, "keys": 0, "bytes": 0}
    with suppress(FileNotFoundError):
        data = (place / "keys").read_bytes()
        whole = len(data) // SLOT_BYTES
        used = (data[at * SLOT_BYTES : (at + 1) * SLOT_BYTES] for at in range(whole))
        found["keys"] = sum(any(each) for each in used)
    values = place / "values" / readonly.DATA_NAME
    try:
        found["bytes"] = values.stat().st_size
        environment = lmdb.open(str(values.parent), readonly=True, lock=False, max_dbs=4)
        try:
            readonly.check_size(environment, values)
            table = environment.open_db(b"values", create=False)
            with environment.begin() as txn, txn.cursor(table) as cursor:
                for _, row in cursor:
                    found[_STATES[codec.parse(row, "sealed row")[0]]] += 1
        finally:
            environment.close()
    except FileNotFoundError:
        pass
    except ComityError as error:
        found["problem"] = [error.code, error.message]
    except (OSError, lmdb.Error, KeyError, IndexError, TypeError) as error:
        found["problem"] = ["SEALED", f"cannot read the sealed values: {error}"]
    return found


def main(folder: Path) -> None:
    """Write what is found."""
    json.dump({"store": store(folder), "sealed": sealed(folder)}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
