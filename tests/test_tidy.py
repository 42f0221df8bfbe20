"""The dividing line and the house rules, enforced on the source itself."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import FIRST

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("consensus", "node", "comity")
ALLOWED = {
    "consensus": {"consensus"},
    "node": {"node", "consensus"},
    "comity": {"comity", "consensus"},
}
IMPURE = {
    "asyncio", "datetime", "io", "lmdb", "locale", "logging", "multiprocessing", "os",
    "pathlib", "platform", "prometheus_client", "random", "secrets", "select", "shutil",
    "signal", "socket", "ssl", "structlog", "subprocess", "sys", "tempfile", "threading",
    "time", "trio", "uuid",
}  # fmt: skip
MODULE_LINES_MAX = 600
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(tree: ast.AST) -> list[tuple[str, ast.stmt]]:
    found: list[tuple[str, ast.stmt]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append((node.module, node))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top_level = set(tree.body)
    for module, statement in imports(tree):
        root = module.split(".")[0]
        if root not in PACKAGES:
            continue
        lazy_command = package == "comity" and root == "node" and statement not in top_level
        assert root in ALLOWED[package] or lazy_command, f"{module} at line {statement.lineno}"


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.relative_to(ROOT).parts[0] == "consensus"], ids=name_of
)
def test_consensus_imports_nothing_with_an_effect_and_has_no_floats(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    impure = [m for m, _ in imports(tree) if m.split(".")[0] in IMPURE]
    assert not impure
    for node in ast.walk(tree):
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), node.lineno
        assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)), node.lineno
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if called and isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"hash", "id", "open", "float", "print", "input"}, (
                node.lineno
            )


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_modules_are_short_and_nothing_is_left_over(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert len(lines) <= MODULE_LINES_MAX
    for marker in ("TODO", "FIXME", "XXX", "NotImplementedError", "breakpoint("):
        assert marker not in text
    tree = ast.parse(text)
    asserts = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert not asserts, "product code uses invariant()"
    if any(not isinstance(node, ast.Expr) for node in tree.body):
        assert ast.get_docstring(tree), "a module says what it is"


@pytest.mark.parametrize("name", FIRST)
def test_a_file_that_the_suite_begins_with_exists(name: str) -> None:
    assert (ROOT / name).is_file()
