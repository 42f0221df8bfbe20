"""``comity rules``: check rule sets, and see those in force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Group
from rich.table import Table
from rich.text import Text

from comity.cli.options import (
    OUTPUT,
    REACH,
    Output,
    Reach,
    UsageError,
    examples,
    files_in,
    with_client,
)
from comity.cli.show import emit, pairs, table, titled
from comity.client import Client, RulesInForce
from comity.errors import AbsentError
from comity.files import text_of
from comity.words import nearest
from consensus.errors import RulesError
from consensus.ledger.rules import (
    Definition,
    Note,
    Problem,
    Summary,
    check_text,
    describe,
    load_toml,
)
from consensus.ledger.rules.compile import compile_all

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
    texts = {path: text_of(path) for path in files}
    known = {path: _definition(path, text) for path, text in texts.items()}
    others = [_definition(path, text_of(path)) for path in files_in(beside)]
    found: list[Problem | Note] = []
    for path, text in texts.items():
        found += check_text(text, str(path), _neighbours(known, path, others))
    shown = found_table(found)
    if not any(isinstance(each, Problem) for each in found):
        holds = Text("the rules hold", style="green")
        emit(output, found_value(found), Group(shown, holds) if found else holds)
        return 0
    emit(output, found_value(found), shown)
    return 1


def found_value(found: Sequence[Problem | Note]) -> list[dict[str, Any]]:
    """Return problems and notes for programs."""
    return [
        {
            "file": each.where,
            "line": each.line,
            "kind": "problem" if isinstance(each, Problem) else "note",
            "what": each.message,
            "hint": each.hint if isinstance(each, Problem) else "",
        }
        for each in found
    ]


def found_table(found: Sequence[Problem | Note]) -> Table:
    """Return problems and notes for people."""
    shown: Table = table("file", "line", "", "what", "hint")
    for each in found_value(found):
        style = "red" if each["kind"] == "problem" else "yellow"
        kind = Text(each["kind"], style=style)
        line = str(each["line"] or "")  # of the whole file: none
        shown.add_row(each["file"], line, kind, each["what"], each["hint"])
    return shown


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


@app.command(
    help_epilogue=examples(
        "comity rules show", "comity rules show payments", "comity rules show payments 2"
    )
)
def show(
    domain: str | None = None,
    number: int | None = None,
    /,
    *,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> None:
    """Show the rule sets in force, or one domain's actions with their inputs.

    Args:
        domain: whose actions to list; all domains when left out.
        number: of a rule set of the domain that is not in force, or not yet.
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
        if number is not None:
            found = await _beside(client, domain, number, found)
        summaries = {each.domain: each for each in describe(found.book)}
        if domain not in summaries:
            listed = "`comity rules show` lists those that have"
            raise AbsentError(
                f"no domain {domain!r} has rules here",
                hint=f"{nearest(domain, summaries)} {listed}".strip(),
            )
        rule_set = found.book.rule_sets[domain]
        does = {name: action.summary for name, action in rule_set.actions.items()}
        emit(output, _value(summaries[domain]), _table(summaries[domain], does))

    with_client(reach, work)


async def _beside(client: Client, domain: str, number: int, known: RulesInForce) -> RulesInForce:
    """Return a rule set by its number beside the others in force, as far as they go together."""
    numbered = await client.rule_set(domain, number)
    if numbered is None:
        raise AbsentError(
            f"there is no rule set {domain}#{number}",
            hint=f"`comity rules history {domain}` lists those there are",
        )
    others = [row.definition for row in known.sets if row.domain != domain]
    book, _ = compile_all([*others, numbered.definition])
    return replace(known, height=numbered.height, book=book)


def _value(summary: Summary) -> dict[str, Any]:
    return {
        "domain": summary.domain,
        "number": summary.number,
        "legal_basis": summary.legal_basis,
        "kinds": [{"name": k.name, "fields": k.fields, "steps": k.steps} for k in summary.kinds],
        "accounts": summary.accounts,
        "actions": [
            {
                "name": a.name,
                "who": a.who,
                "protective": a.protective,
                "inputs": a.inputs,
                "reads": a.reads,
                "requires": a.requires,
                "does": a.does,
                "approvals": a.approvals,
                "objections": a.objections,
                "reversible": a.reversible,
                "review": a.review,
            }
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
        first = ", before everything else of its block" if each.protective else ""
        lines = [does[each.name], f"by {each.who}{first}"]
        lines += [f"only if {line}" for line in each.requires]
        lines += each.does
        lines += [f"approved by {each.approvals}"] if each.approvals else []
        lines += [f"objections by {each.objections}"] if each.objections else []
        lines += [f"taken back by {each.reversible}"] if each.reversible else []
        lines += [f"its use is reviewed by {each.review}"] if each.review else []
        actions.add_row(each.name, "\n".join(each.inputs), "\n".join(lines))
    return Group(head, Text(), actions)
