"""The tables of docs/upgrading.md say what the program says: versions of protocols and formats."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from consensus import genesis, keyfile, protocol, snapshot
from consensus.evidence import bundle
from consensus.ledger.versions import EXECUTORS
from consensus.release import VERSION, alpn
from node.backup import manifest, restored
from node.network import wire
from node.storage import marks, segment, tables

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "upgrading.md").read_text(encoding="utf-8")
PROTOCOLS = (ROOT / "docs" / "protocol" / "versions.md").read_text(encoding="utf-8")
STORAGE = [segment.FORMAT_VERSION, tables.FORMAT_VERSION, marks.FORMAT_VERSION]


def rows(page: str, first: str) -> dict[str, list[str]]:
    """The rows of the table whose head begins with ``first``, by their first cell."""
    [table] = re.findall(rf"^\| {re.escape(first)} \|.*\n(?:\|.*\n)+", page, re.MULTILINE)
    _, _, *body = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    return {name: cells for name, *cells in body}


def words(*values: object) -> str:
    return ", ".join(map(str, values))


def spoken(version: int, minor: int) -> str:
    """All versions of a protocol that are spoken, the newest first."""
    return words(*[f"{version}.{each}" for each in range(minor, -1, -1)])


LINKS = spoken(wire.VERSION, wire.MINOR)
CLIENTS = spoken(protocol.VERSION, protocol.MINOR)


def test_every_format_and_protocol_is_listed_with_its_version() -> None:
    now = {what: cells[0] for what, cells in rows(PAGE, "what").items()}
    assert now == {
        "links between nodes": LINKS.split(",")[0],
        "client protocol": CLIENTS.split(",")[0],
        "executor": words(*EXECUTORS),
        "log, store, signer's mark": words(*STORAGE),
        "key file, genesis file, bundle": words(keyfile.VERSION, genesis.VERSION, bundle.VERSION),
        "snapshot": words(snapshot.VERSION, snapshot.VERSION_EPOCHS),
        "backup, record of a restore": words(manifest.VERSION, restored.VERSION),
    }


def test_this_release_is_listed_with_all_that_it_speaks() -> None:
    links, clients, executors, storage, beside = rows(PAGE, "release")[VERSION]
    assert (links, clients) == (LINKS, CLIENTS)
    assert (executors, storage) == (words(*EXECUTORS), words(*STORAGE))
    assert beside


def test_what_is_offered_in_the_handshake_is_written_down() -> None:
    offered = {what: cells[0] for what, cells in rows(PROTOCOLS, "protocol").items()}
    names = {
        "links between nodes": alpn(wire.PROTOCOL, wire.VERSION, wire.MINOR),
        "client protocol": alpn(protocol.PROTOCOL, protocol.VERSION, protocol.MINOR),
    }
    assert offered == {what: words(*[f"`{each}`" for each in n]) for what, n in names.items()}


def test_program_and_package_have_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == VERSION


def test_the_exchange_of_all_nodes_is_a_long_test_that_its_script_asks_for() -> None:
    """A script that leaves out what it is for would end well."""
    assert "pytest --long=with " in (ROOT / "scripts" / "upgrade").read_text(encoding="utf-8")
