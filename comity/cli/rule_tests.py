"""``comity rules test``: recorded cases against a rule set, judged by the executor in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from comity.cli.cases import Act, Bench, Case, Result, read_cases
from comity.cli.options import OUTPUT, Output, UsageError, examples, files_in, refuse_existing
from comity.cli.rules import app
from comity.cli.show import emit, table
from comity.errors import DraftError
from comity.files import text_of, write_new
from consensus.ledger.rules import Definition, load_toml


@app.command(
    name="test",
    help_epilogue=examples(
        "comity rules test payments.toml cases.toml --with configs/rules",
        "comity rules test payments.toml cases.toml --with configs/rules --record new.toml",
    ),
)
def run_cases(
    file: Path,
    cases: Path,
    /,
    *,
    beside: Annotated[
        Path | None, Parameter(name="--with", help="Folder of the other domains' rule sets.")
    ] = None,
    record: Annotated[
        Path | None,
        Parameter(help="New file for the cases with what came of them, to be reviewed."),
    ] = None,
    output: Output = OUTPUT,
) -> int:
    """Run recorded cases against a rule set, and say what came otherwise.

    Args:
        file: a rule set in TOML.
        cases: cases in TOML.
    """
    if record is not None:
        refuse_existing(record)
    found = read_cases(cases)
    bench = Bench(_definitions(file, beside), found)
    value: list[dict[str, Any]] = []
    shown = table("case", "", "what came otherwise")
    results: list[Result | None] = []
    for case in found.cases:
        try:
            result = bench.run(case)
            differences = _differences(case, result)
            results.append(result)
        except DraftError as error:
            differences = [error.message]
            results.append(None)
        value.append({"case": case.name, "ok": not differences, "differences": differences})
        word = Text("differs", style="red") if differences else Text("ok", style="green")
        shown.add_row(case.name, word, "\n".join(differences))
    if record is not None:
        write_new(record, _recorded(text_of(cases), found.cases, results).encode())
    emit(output, value, shown)
    return 0 if all(row["ok"] for row in value) or record is not None else 1


def _definitions(file: Path, beside: Path | None) -> list[Definition]:
    own = load_toml(text_of(file), str(file))
    found = [load_toml(text_of(path), str(path)) for path in files_in(beside)]
    kept = [each for each in found if each.domain != own.domain]
    if not any(each.domain == "charter" for each in [own, *kept]):
        raise UsageError("there is no charter", hint="name the folder of the others with --with")
    return sorted([own, *kept], key=lambda each: each.domain)


def _differences(case: Case, result: Result) -> list[str]:
    """Return what is not as the case says, line by line."""
    if case.outcome is None:
        return [f"no outcome is recorded; it is {result.outcome}", "--record writes it to a file"]
    lines: list[str] = []
    for name in ("outcome", "detail", "writes", "moves"):
        expected, got = getattr(case, name), getattr(result, name)
        if expected is None or expected == got:
            continue
        if isinstance(expected, list) and isinstance(got, list) and name != "detail":
            lines += [f"- {name}: {_inline(each)}" for each in expected if each not in got]
            lines += [f"+ {name}: {_inline(each)}" for each in got if each not in expected]
            if expected != got and not lines:
                lines.append(f"  {name}: in another order")
        else:
            lines += [f"- {name}: {_inline(expected)}", f"+ {name}: {_inline(got)}"]
    if lines and case.detail is None and result.detail is not None:
        lines.append(f"  detail: {_inline(result.detail)}")
    return lines


# --- recording --------------------------------------------------------------------------------


def _recorded(text: str, cases: Sequence[Case], results: Sequence[Result | None]) -> str:
    """Return the file with its cases as they came out; what is given stays as it was written."""
    head = text.partition("[[cases]]")[0].rstrip()
    parts = [head]
    for case, result in zip(cases, results, strict=True):
        rows: list[tuple[str, Any]] = [("name", case.name)]
        before = [_act(act) for act in case.before]
        rows += [("before", before)] if before else []
        rows += [("at", case.at)] if case.at else []
        rows += [("by", case.by)]
        rows += [("reverse", case.reverse)] if case.reverse else [("call", case.call)]
        rows += [("inputs", case.inputs)] if case.inputs else []
        rows += [("cosigners", case.cosigners)] if case.cosigners else []
        if result is not None:
            rows.append(("outcome", result.outcome))
            rows += [] if result.detail is None else [("detail", result.detail)]
            rows += [("writes", result.writes)] if result.writes else []
            rows += [("moves", result.moves)] if result.moves else []
        lines = [f"{name} = {_inline(value)}" for name, value in rows]
        parts.append("\n".join(["[[cases]]", *lines]))
    return "\n\n".join(parts) + "\n"


def _act(act: Act) -> dict[str, Any]:
    found: dict[str, Any] = {"by": act.by}
    found |= {"reverse": act.reverse} if act.reverse else {"call": act.call, "inputs": act.inputs}
    found |= {"cosigners": act.cosigners} if act.cosigners else {}
    found |= {"at": act.at} if act.at else {}
    return found | ({"as": act.name} if act.name else {})


def _inline(value: Any) -> str:
    """Return a value in TOML, on one line; null, which TOML has not, is left out of tables."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return json.dumps(value, ensure_ascii=False)
        case dict():
            pairs = [f"{_name(k)} = {_inline(v)}" for k, v in value.items() if v is not None]
            return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
        case list() | tuple():
            return f"[{', '.join(_inline(each) for each in value)}]"
        case _:
            return '"-"'


def _name(name: str) -> str:
    plain = name.replace("_", "").replace("-", "")
    return name if plain.isascii() and plain.isalnum() else json.dumps(name)
