"""``comity rules``: check rule sets, and see those in force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Group
from rich.table import Table
from rich.text import Text

from comity.cli.options import OUTPUT, REACH, Output, Reach, UsageError, examples, with_client
from comity.cli.show import emit, pairs, table, titled
from comity.client import Client
from consensus.errors import RulesError
from consensus.ledger.rules import Definition, Problem, Summary, check_text, describe, load_toml

app = App(name="rules", help="Check rule sets, and see those in force.")


@app.command(
    help_epilogue=examples(
        "comity rules check configs/rules/*.toml",
        "comity rules check payments.toml --with configs/rules",
    )
)
def check(
    *files: Path,
    beside: Annotated[
        Path | None, Parameter(name="--with", help="Folder of the other domains' rule sets.")
    ] = None,
    output: Output = OUTPUT,
) -> int:
    """Check rule sets and say what is wrong with line and reason.

    Files of several domains that are given together are checked together.

    Args:
        files: rule sets in TOML.
    """
    if not files:
        raise UsageError("no file is named", hint="comity rules check FILE...")
    texts = {path: _read(path) for path in files}
    known = {path: _definition(path, text) for path, text in texts.items()}
    others = [] if beside is None else [_definition(p, _read(p)) for p in beside.glob("*.toml")]
    value: list[dict[str, Any]] = []
    shown = table("file", "line", "", "what", "hint")
    bad = False
    for path, text in texts.items():
        neighbours = _neighbours(known, path, others)
        for each in check_text(text, str(path), neighbours):
            problem = isinstance(each, Problem)
            bad = bad or problem
            kind = "problem" if problem else "note"
            hint = each.hint if isinstance(each, Problem) else ""
            value.append(
                {
                    "file": str(path),
                    "line": each.line,
                    "kind": kind,
                    "what": each.message,
                    "hint": hint,
                }
            )
            style = "red" if problem else "yellow"
            shown.add_row(str(path), str(each.line), Text(kind, style=style), each.message, hint)
    if not bad:
        emit(output, value, Group(shown, Text("the rules hold", style="green")))
        return 0
    emit(output, value, shown)
    return 1


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not text in UTF-8") from error


def _definition(path: Path, text: str) -> Definition | None:
    try:
        return load_toml(text, str(path))
    except RulesError:
        return None


def _neighbours(
    known: dict[Path, Definition | None], own: Path, others: Sequence[Definition | None]
) -> list[Definition]:
    """Return the other rule sets to check against: those named together win over the folder's."""
    found: dict[str, Definition] = {}
    for each in [*others, *(definition for path, definition in known.items() if path != own)]:
        if each is not None:
            found[each.domain] = each
    mine = known[own]
    if mine is not None and (mine.domain not in {o.domain for o in others if o is not None}):
        found.pop(mine.domain, None)
    return list(found.values())


@app.command(help_epilogue=examples("comity rules show", "comity rules show payments"))
def show(domain: str | None = None, /, *, reach: Reach = REACH, output: Output = OUTPUT) -> None:
    """Show the rule sets in force, or one domain's actions with their inputs.

    Args:
        domain: whose actions to list; all domains when left out.
    """

    async def work(client: Client) -> None:
        found = await client.rules()
        if domain is None:
            value = [{"domain": row.domain, "number": row.number} for row in found.sets]
            shown = table("domain", "number")
            for row in found.sets:
                shown.add_row(row.domain, str(row.number))
            emit(output, value, titled(f"in force at height {found.height}", shown))
            return
        summaries = {each.domain: each for each in describe(found.book)}
        if domain not in summaries:
            raise UsageError(
                f"no domain {domain!r} has rules here",
                hint="`comity rules show` lists those that have",
            )
        rule_set = found.book.rule_sets[domain]
        does = {name: action.summary for name, action in rule_set.actions.items()}
        emit(output, _value(summaries[domain]), _table(summaries[domain], does))

    with_client(reach, work)


def _value(summary: Summary) -> dict[str, Any]:
    return {
        "domain": summary.domain,
        "number": summary.number,
        "legal_basis": summary.legal_basis,
        "kinds": [{"name": k.name, "fields": k.fields, "steps": k.steps} for k in summary.kinds],
        "accounts": summary.accounts,
        "actions": [
            {"name": a.name, "inputs": a.inputs, "does": a.does, "approvals": a.approvals}
            for a in summary.actions
        ],
    }


def _table(summary: Summary, does: Mapping[str, str]) -> Group:
    head = pairs(
        [
            ("domain", f"{summary.domain}#{summary.number}"),
            ("legal basis", summary.legal_basis),
            ("kinds", ", ".join(k.name for k in summary.kinds)),
            ("accounts", ", ".join(summary.accounts)),
        ]
    )
    actions: Table = table("action", "inputs", "what it does")
    for each in summary.actions:
        approved = [f"approved by {each.approvals}"] if each.approvals else []
        what = "\n".join([does[each.name], *each.does, *approved])
        actions.add_row(each.name, "\n".join(each.inputs), what)
    return Group(head, Text(), actions)
