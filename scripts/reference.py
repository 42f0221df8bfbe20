"""Write docs/reference.md from the code: keys of rule sets, functions, kernel actions, codes.

``python -m scripts.reference`` writes the page; a test compares it with what this makes.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from comity.drafting import KERNEL_TOUCHES
from consensus.ledger import codes
from consensus.ledger.codes import Code
from consensus.ledger.expr.functions import FUNCTIONS
from consensus.ledger.kernel.catalogue import KERNEL_ACTIONS
from consensus.ledger.kernel.perform import HANDLERS
from consensus.ledger.rules import definition, schema
from consensus.ledger.rules.emergency import EMERGENCY
from consensus.ledger.rules.policies import LEAF, PolicyNode
from consensus.ledger.rules.schema import Attr, Struct, Variants
from consensus.ledger.rules.structure import ACCOUNT, ACTION, DEFINITION, KIND, PARAM
from consensus.ledger.types import BASES

PAGE: Final = Path(__file__).resolve().parent.parent / "docs/reference.md"
LEDGER: Final = PAGE.parent.parent / "consensus/ledger"
_HEAD: Final = """# Reference of the language and its codes

Made from the code by `python -m scripts.reference`; a test keeps the two the same. What the entries
mean is in [rules.md](rules.md), the bytes in [formats/rules.md](formats/rules.md).
"""
_TITLES: Final[Mapping[str, Struct]] = {
    "A rule set": DEFINITION,
    "A parameter": PARAM,
    "A kind": KIND,
    "An account family": ACCOUNT,
    "An action": ACTION,
}


def page() -> str:
    """Return the whole page."""
    parts = [
        _HEAD,
        *_keys(),
        *_effects(),
        *_policies(),
        _functions(),
        _actions(),
        _codes(),
        _conditions(),
        _limits(),
    ]
    return "\n".join(parts)


# --- keys -------------------------------------------------------------------------------------


def _keys() -> Iterator[str]:
    yield "## Keys of a rule set\nA key without a default must be there.\n"
    for title, struct in _TITLES.items():
        yield f"### {title}\n{_table(struct)}"
    for struct, keys in _nested().values():
        yield f"### Under {', '.join(f'`{key}`' for key in keys)}\n{_table(struct)}"


def _nested() -> dict[int, tuple[Struct, list[str]]]:
    """Return the structures that stand under keys of those above, with the keys."""
    found: dict[int, tuple[Struct, list[str]]] = {}
    for struct in _TITLES.values():
        for attr in (*struct.attrs, *struct.more):
            inner = getattr(attr, "node", None)
            while isinstance(inner, schema.Many | schema.Table):
                inner = inner.node
            if not isinstance(attr, Attr) or not isinstance(inner, Struct):
                continue
            if inner not in (*_TITLES.values(), EMERGENCY):
                keys = found.setdefault(id(inner), (inner, []))[1]
                keys += [attr.toml] if attr.toml not in keys else []
    return found


def _table(struct: Struct) -> str:
    rows = ["| key | form | default |", "|---|---|---|"]
    for attr in (*struct.attrs, *struct.more):
        if isinstance(attr, Variants):
            names = ", ".join(f"`{name}`" for name, _ in attr.nodes)
            rows.append(f"| {names} | effects, below | none |")
            continue
        default = "" if attr.default is schema.REQUIRED else _default(attr)
        rows.append(f"| `{attr.toml}` | {_form(attr.node)} | {default} |")
    return "\n".join(rows) + "\n"


def _default(attr: Attr) -> str:
    match attr.default:
        case None:
            return "none"
        case () | "":
            return "empty"
        case bool():
            return "true" if attr.default else "false"
        case _:
            return f"{attr.default}"


def _form(node: Any) -> str:
    """Return what may stand at a key, in words."""
    match node:
        case schema.Text():
            return f"text, {node.bytes_max:,} bytes"
        case schema.Integer():
            bounded = node.high < 2**63 - 1
            return f"number, {node.low:,} to {node.high:,}" if bounded else "number"
        case schema.Flag():
            return "true or false"
        case schema.Plain():
            return "number, text, true or false, or an array of these"
        case schema.Template():
            return "template, or an array of components"
        case schema.Many():
            return f"up to {node.items_max:,} of: {_form(node.node)}"
        case schema.Table(node=inner) if inner in _TITLES.values():
            return f"up to {node.items_max:,} by name, below"
        case schema.Table():
            return f"up to {node.items_max:,} by name: {_form(node.node)}"
        case schema.Row():
            return node.form
        case Struct():
            return "{ " + ", ".join(f"`{each}`" for each in _names(node)) + " }"
        case PolicyNode():
            return "a policy, below"
    return "one of several forms, see rules.md"


def _names(struct: Struct) -> list[str]:
    names: list[str] = []
    for attr in (*struct.attrs, *struct.more):
        names += [attr.toml] if isinstance(attr, Attr) else [name for name, _ in attr.nodes]
    return names


def _effects() -> Iterator[str]:
    yield "## Effects\n"
    for attr in ACTION.attrs:
        if isinstance(attr, Variants):
            for name, struct in attr.nodes:
                yield f"### `{name}`\n{_table(struct)}"


def _policies() -> Iterator[str]:
    depth = definition.POLICY_DEPTH_MAX
    yield f"## Policies\nA leaf, or a branch of policies, at most {depth} levels deep.\n"
    yield f"### A leaf\n{_table(LEAF)}"
    yield (
        "### A branch\n`{ all = [ … ] }`, `{ any = [ … ] }` or `{ of = n, among = [ … ] }`, each "
        "with `distinct` and `when` if wanted.\n"
    )
    yield f"### An emergency form\n{_table(EMERGENCY)}"


# --- functions, kernel actions, codes -----------------------------------------------------------


def _functions() -> str:
    rows = ["## Types and functions", "Types: " + ", ".join(f"`{base}`" for base in BASES) + ".\n"]
    rows += ["| function | written |", "|---|---|"]
    rows += [
        f"| `{name}` | `{FUNCTIONS[name, method].usage}` |" for name, method in sorted(FUNCTIONS)
    ]
    return "\n".join(rows).replace(" || ", " \\|\\| ") + "\n"


def _actions() -> str:
    rows = [
        "## Kernel actions",
        "What the charter may allow. *Expects*: what the act must name with its version. "
        "Protective acts run first in their block and name none.\n",
        "| action | what it does | inputs | expects |",
        "|---|---|---|---|",
    ]
    for name, action in KERNEL_ACTIONS.items():
        said = inspect.getdoc(HANDLERS[name]) or ""
        inputs = ", ".join(f"`{each}` {kind}" for each, kind in action.inputs)
        named = [
            f"{kind} ({', '.join(part.removeprefix('=') for part in parts)})"
            for kind, parts in KERNEL_TOUCHES.get(name, ())
        ]
        expects = "protective" if action.protective else ", ".join(named)
        rows.append(f"| `{name}` | {said.splitlines()[0]} | {inputs} | {expects} |")
    return "\n".join(rows) + "\n"


def _codes() -> str:
    rows = [
        "## Codes of outcomes",
        "In the order in which they are found; what a refusal's detail holds. `name` is "
        "`[kind, id]` of a record or an object of the kernel.\n",
        "| number | code | detail |",
        "|---|---|---|",
    ]
    details = dict(_details())
    for code in Code:
        detail = details.get(code.name, "")
        rows.append(f"| {int(code)} | `{code.name}` | {detail.replace('|', '&#124;')} |")
    rows.append("\nOf a quiet refusal, whoever may not see why is shown `REFUSED` and no detail.")
    return "\n".join(rows) + "\n"


def _details() -> Iterator[tuple[str, str]]:
    text = inspect.getdoc(codes) or ""
    for found in re.finditer(r"^ {4}([A-Z_]+) {2,}(.*(?:\n {12,}.*)*)", text, re.MULTILINE):
        yield found[1], re.sub(r"\s+", " ", found[2]).replace("``", "`").strip()


def _conditions() -> str:
    rows = [
        "## Conditions of the kernel",
        "The codes that a `REQUIREMENT` has beside those that rule sets give theirs.\n",
        "| code | sentence |",
        "|---|---|",
    ]
    said: dict[str, list[str]] = {}
    for path in sorted(LEDGER.rglob("*.py")):
        for code, sentence in _sentences(ast.parse(path.read_text(encoding="utf-8"))):
            known = said.setdefault(code, [])
            known += [sentence] if sentence and sentence not in known else []
    rows += [
        f"| `{code}` | {'; or: '.join(said[code]) or 'what is wrong'} |" for code in sorted(said)
    ]
    return "\n".join(rows) + "\n"


def _sentences(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Return each pair of a code in capitals and a sentence that stands in a module."""
    for node in ast.walk(tree):
        match node:
            case ast.Tuple(elts=[first, second]) | ast.List(elts=[first, second]):
                pass
            case ast.Call(func=ast.Name(), args=[first, second]):
                pass
            case _:
                continue
        if isinstance(first, ast.Constant) and re.fullmatch("[A-Z][A-Z_]+", str(first.value)):
            match second:
                case ast.Constant(value=str(sentence)):
                    yield str(first.value), sentence
                case ast.JoinedStr():
                    yield str(first.value), "".join(map(_part, second.values))
                case ast.Name() | ast.Call() | ast.Subscript():
                    yield str(first.value), ""


def _part(part: ast.expr) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else "…"


def _limits() -> str:
    rows = ["## Limits of a rule set", "| what | at most |", "|---|---|"]
    for name in sorted(vars(definition)):
        if name.endswith("_MAX"):
            words = name.removesuffix("_MAX").lower().replace("_", " ")
            rows.append(f"| {words} | {getattr(definition, name):,} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
