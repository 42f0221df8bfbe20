"""``comity rules``: propose, activate, object, withdraw, and the history of a domain."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from comity import rulesets
from comity.cli import show
from comity.cli.options import OUTPUT, REACH, Output, Reach, examples, with_client
from comity.cli.rule_names import action_names
from comity.cli.rules import app, found_table, found_value
from comity.cli.show import emit, table, titled
from comity.cli.values import parse_value, time_word
from comity.client import Client
from comity.files import text_of
from comity.results import Decision
from comity.rulesets import Adopted, Step
from comity.words import word
from consensus.ledger.rules import Problem, check_text
from consensus.ledger.types import Type

Reason = Annotated[str, Parameter(help="Why, in words.")]


@app.command(help_epilogue=examples("comity rules propose payments.toml --reason 'new Act'"))
def propose(
    file: Path, /, *, reason: Reason = "", reach: Reach = REACH, output: Output = OUTPUT
) -> int:
    """Check a rule set against those in force and propose it under the next number.

    Args:
        file: a rule set in TOML.
    """
    text = text_of(file)

    async def work(client: Client) -> int:
        known = await client.rules()
        others = [row.definition for row in known.sets]
        found = check_text(text, str(file), others)
        # What rests on rule sets that are to come is for the chain to judge.
        if known.until_ms is None and any(isinstance(each, Problem) for each in found):
            emit(output, found_value(found), found_table(found))
            return 1
        return await _said(client, output, await client.propose_rules(text, reason=reason))

    return with_client(reach, work)


@app.command(
    help_epilogue=examples("comity rules activate payments 2 --from 2027-01-01T00:00+00:00")
)
def activate(
    domain: str,
    number: int,
    /,
    *,
    from_: Annotated[str, Parameter(name="--from", help="Time with its offset, or ms.")],
    reason: Reason = "",
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Say from when a proposed rule set is in force; a notice must lie between.

    Args:
        domain: of the rule set.
        number: of the rule set.
    """
    from_ms = parse_value(from_, Type("time"), "--from")

    async def work(client: Client) -> int:
        return await _said(
            client, output, await client.activate_rules(domain, number, from_ms, reason=reason)
        )

    return with_client(reach, work)


def _on_number(
    act: Callable[[Client, str, int, str], Awaitable[Decision]], summary: str
) -> Callable[..., int]:
    """Return a command that acts on one number of a domain and says why."""

    def command(
        domain: str,
        number: int,
        /,
        *,
        reason: Reason = "",
        reach: Reach = REACH,
        output: Output = OUTPUT,
    ) -> int:
        async def work(client: Client) -> int:
            return await _said(client, output, await act(client, domain, number, reason))

        return with_client(reach, work)

    about = "Args:\n    domain: of the rule set.\n    number: of the rule set.\n"
    command.__doc__ = f"{summary}\n\n{about}"
    return command


app.command(
    _on_number(
        lambda client, domain, number, reason: client.object_rules(domain, number, reason=reason),
        "Object, for one's agency, to a rule set before its time.",
    ),
    name="object",
    help_epilogue=examples("comity rules object payments 2"),
)
app.command(
    _on_number(
        lambda client, domain, number, reason: client.withdraw_rules(domain, number, reason=reason),
        "Take back a rule set that one's agency proposed, before it is activated.",
    ),
    name="withdraw",
    help_epilogue=examples("comity rules withdraw payments 2"),
)


async def _said(client: Client, output: Output, decision: Decision) -> int:
    table = show.decision_table(decision, await action_names(client))
    emit(output, show.decision_value(decision), table)
    return 1 if decision.state == "refused" else 0


@app.command(help_epilogue=examples("comity rules history payments"))
def history(domain: str, /, *, reach: Reach = REACH, output: Output = OUTPUT) -> None:
    """Show every number of a domain with its interval and who did what; none can be left out.

    Args:
        domain: whose rule sets.
    """

    async def work(client: Client) -> None:
        found = await client.rule_history(domain)
        shown = table("number", "state", "from", "until", "who")
        for each in found.numbers:
            shown.add_row(*_row(each, found.time_ms))
        value = [rulesets.plain(each) for each in found.numbers]
        title = f"rule sets of {domain} as of height {found.height}"
        emit(output, value, titled(title, shown))

    with_client(reach, work)


def _row(adopted: Adopted, time_ms: int) -> list[str]:
    state = adopted.state
    if state == "activated":
        in_force = adopted.in_force(time_ms)
        coming = adopted.from_ms is not None and adopted.from_ms > time_ms
        state = "in force" if in_force else "to come" if coming else "past"
    return [
        str(adopted.number),
        state,
        "" if adopted.from_ms is None else time_word(adopted.from_ms),
        "" if adopted.until_ms is None else time_word(adopted.until_ms),
        "\n".join(_step(each) for each in adopted.steps) or "the genesis file",
    ]


def _step(step: Step) -> str:
    txid: Any = word(step.txid, short=True)
    return f"{step.what} by {step.agency}, {time_word(step.time_ms)}, {txid}"
