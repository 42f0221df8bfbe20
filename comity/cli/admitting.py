"""``comity network admit``: an agency without a validator, and who acts for it at first."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from comity.cli.ceremony import public_of
from comity.cli.members import scope_of
from comity.cli.network import app
from comity.cli.options import OUTPUT, REACH, Output, Reach, examples, with_client
from comity.cli.proposals import show_act
from comity.cli.show import out
from comity.cli.values import parse_digest
from comity.client import Client
from comity.words import word


@app.command(
    help_epilogue=examples(
        "comity network admit museum --title 'City Museum' --administrator museum-chief.key "
        "--scope roles=museum.",
        "comity network admit museum --title 'City Museum' --administrator 5f3a…c2 --subject 91…0e",
    )
)
def admit(
    agency: str,
    /,
    *,
    title: Annotated[str, Parameter(help="Of the agency, for people.")],
    administrator: Annotated[
        str,
        Parameter(
            help="Public key of its first administrator, in hex or in their key file. They make it "
            "themselves: comity keys new."
        ),
    ],
    subject: Annotated[
        str | None,
        Parameter(help="The registrar's token of that person, 64 hex digits; else a new one."),
    ] = None,
    scope: Annotated[
        tuple[str, ...],
        Parameter(help="NAME=VALUE of the administrator's role; may be repeated."),
    ] = (),
    reason: Annotated[str, Parameter(help="Why, in words.")] = "",
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Propose to admit an agency that has no validator, with its first administrator.

    A quorum of the agencies with a validator consents, with comity approve; from then on the
    administrator admits the agency's other people.

    Args:
        agency: its name, new to the ledger.
    """
    key = public_of(administrator)
    token = None if subject is None else parse_digest(subject, "token")
    scopes = [scope_of(each) for each in scope]

    async def work(client: Client) -> int:
        decision = await client.propose_agency(
            agency, title, key, subject=token, scope=scopes, reason=reason
        )
        status = show_act(decision, (await client.rules()).book, output)
        if decision.state == "proposed" and not output.json:
            lines = [
                f"public key of its administrator, to compare by word of mouth: {word(key)}",
                f"the others consent with: comity approve {word(decision.txid)}",
            ]
            out().print(Text("\n" + "\n".join(lines)), soft_wrap=True)
        return status

    return with_client(reach, work)
