"""Every reader of bytes in the product is fuzzed, or has its reason here why not.

A reader is a public function that is called ``decode…``, ``read…``, ``parse…`` or ``unseal`` and
takes bytes first, or a decoded result. It counts as fuzzed when a file of targets names it.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, TypeGuard

from tests.consensus import test_hostile_bytes
from tests.fuzz.targets import GROUPS

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"decode|read|parse|unseal|unpack")
LIKELY = re.compile(rf"^def ({NAMED.pattern})", re.MULTILINE)
TAKEN = {"bytes", "bytes | memoryview", "Value"}
"""How a reader's first parameter is annotated."""
TRUSTED = re.compile(r"_trusted$")
"""Readers by this name are given what another one has checked; their docstrings say so."""
OWN = "of the node's own state, where a digest or the log's check holds"
ELSEWHERE = {
    "comity.members.read_member": "wraps the reader of `member-file`",
    "consensus.audit.stream.parse_height": "is given what read_height has taken",
    "consensus.evidence.disclosure_file.decode": "target `disclosure`, through verify",
    "consensus.evidence.disclosure_file.read_body": "target `disclosure`, through verify",
    "consensus.ledger.evidence.decode": "target `reversal-evidence`, through check",
    "consensus.ledger.proposals.decode_draft": OWN,
    "consensus.ledger.records.decode_field": OWN,
    "consensus.ledger.sealing.read_opening": "targets `request` and `sealed-message`",
    "consensus.ledger.terms.read": OWN,
    "consensus.ledger.transaction.decode_envelope": "target `item`, which has what is inside",
    "consensus.ledger.transaction.decode_signed": "target `public-batch`, through decode_public",
    "consensus.sealed.read_delivery": "target `request`, through decode_request",
    "consensus.session.read_hello": "is given params whose shape decode_request checked",
    "consensus.snapshot.decode_manifest": "targets `snapshot`, through Reader",
    "consensus.state.changes.read": "is given records of one length, cut by split",
    "consensus.state.record.decode_row": "target `stored-row`, through check_row",
    "consensus.state.record.decode_single": "target `stored-row`, through check_row",
    "node.aside.read": "of the node's own store, whose pages LMDB keeps whole",
    "node.storage.segment.read_header": "target `log`, through Log.open",
}
"""Readers that no target names, and what fuzzes them all the same, or why nothing needs to."""


def readers() -> Iterator[tuple[str, Any]]:
    """The product's readers, by their dotted names."""
    for package in ("consensus", "node", "comity"):
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            tree = ast.parse(text if LIKELY.search(text) else "")
            names = [each.name for each in tree.body if _is_reader(each)]
            if names:
                module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                loaded = importlib.import_module(module.removesuffix(".__init__"))
                for name in names:
                    yield f"{loaded.__name__}.{name}", getattr(loaded, name)


def _is_reader(node: ast.stmt) -> TypeGuard[ast.FunctionDef]:
    if not isinstance(node, ast.FunctionDef) or not node.args.args:
        return False
    first = node.args.args[0].annotation
    taken = first is not None and ast.unparse(first) in TAKEN
    return taken and NAMED.match(node.name) is not None and TRUSTED.search(node.name) is None


def fuzzed() -> set[Any]:
    """What the files of targets name."""
    found: set[Any] = set()
    for module in (*GROUPS, test_hostile_bytes):
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))):
            found.add(_named(module, node))
    return found


def _named(module: ModuleType, node: ast.AST) -> Any:
    match node:
        case ast.Name(id=name):
            found = getattr(module, name, None)
        case ast.Attribute(value=ast.Name(id=owner), attr=name):
            found = getattr(getattr(module, owner, None), name, None)
        case _:
            return None
    return found if isinstance(found, FunctionType) else None


def test_every_reader_of_bytes_is_fuzzed_or_has_its_reason() -> None:
    known = fuzzed()
    found = dict(readers())
    assert len(found) > 60
    missing = {name for name, reader in found.items() if reader not in known}
    assert missing == set(ELSEWHERE)
    assert all(len(reason) > 15 for reason in ELSEWHERE.values())
