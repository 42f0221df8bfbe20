"""``comity reviews`` and ``comity review``: emergency acts that somebody must answer for."""

from __future__ import annotations

from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.text import Text

from comity.cli import show
from comity.cli.options import OUTPUT, REACH, Output, Reach, UsageError, examples, with_client
from comity.cli.rule_names import action_names
from comity.cli.values import parse_digest, time_word
from comity.client import Client
from comity.founding import roles_of
from comity.results import Entry
from comity.words import suggest, word
from consensus.ledger.layout import Review
from consensus.ledger.model import Rulebook

EXAMPLES_LIST: Final = examples("comity reviews licensing.manager")
EXAMPLES_ONE: Final = examples(
    "comity review 0x51c0... --justified --reason 'gas leak, file 12'",
    "comity review 0x51c0... --unjustified --reason 'no danger on the file'",
)


def reviews(role: str, /, *, reach: Reach = REACH, output: Output = OUTPUT) -> None:
    """List the emergency acts that a role has yet to review; none can be left out.

    Args:
        role: of whoever reviews, e.g. licensing.manager.
    """

    async def work(client: Client) -> None:
        found = await client.reviews(role)
        value = [_value(each) for each in found]
        if not found:
            _check_role(role, (await client.rules()).book)
            show.emit(output, value, Text(f"nothing waits for a review by {role}"))
            return
        rows = show.table("due", "act", "by", "agency", "power", "review")
        for entry in sorted(found, key=lambda each: _review(each).due_ms):
            due = _review(entry)
            rows.add_row(
                time_word(due.due_ms),
                ".".join(due.action),
                word(due.principal, short=True),
                due.agency,
                str(due.source[1]) if len(due.source) == 2 else "grant",
                word(due.id),
            )
        at = found[0]
        foot = f"proved complete at height {at.height}, {time_word(at.time_ms)}"
        show.emit(output, value, show.titled(f"to be reviewed by {role}", rows, foot))

    with_client(reach, work)


def _check_role(role: str, book: Rulebook) -> None:
    """Refuse a role that no rule set in force names: nothing would ever wait for it."""
    known = roles_of(book)
    if role not in known:
        said = f"no rule set in force names a role {role!r}"
        raise UsageError(said, hint=suggest(role, known))


def review(
    review: str,
    /,
    *,
    justified: Annotated[bool, Parameter(help="It was: the power goes on.")] = False,
    unjustified: Annotated[bool, Parameter(help="It was not: the power ends at once.")] = False,
    reason: Annotated[str, Parameter(help="Why, in words.")] = "",
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Say whether an emergency act was justified, and wait for the certified decision.

    Args:
        review: its id, as `comity reviews` lists it.
    """
    if justified == unjustified:
        raise UsageError("say either --justified or --unjustified")
    id_ = parse_digest(review, "review")

    async def work(client: Client) -> int:
        decision = await client.review(id_, justified=justified, reason=reason)
        table = show.decision_table(decision, await action_names(client))
        show.emit(output, show.decision_value(decision), table)
        return 0 if decision.applied else 1

    return with_client(reach, work)


def _review(entry: Entry) -> Review:
    return Review(*entry.value)


def _value(entry: Entry) -> dict[str, Any]:
    due = _review(entry)
    return {
        "id": due.id,
        "txid": due.txid,
        "call": due.call,
        "action": ".".join(due.action),
        "principal": due.principal,
        "agency": due.agency,
        "source": list(due.source),
        "used_ms": due.used_ms,
        "due_ms": due.due_ms,
    }


COMMANDS: Final = ((reviews, EXAMPLES_LIST), (review, EXAMPLES_ONE))
"""What the command line offers of this module, with the end of each help text."""
