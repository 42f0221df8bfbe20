"""After the last scene: command lines to look around with while the network stays up."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from comity.results import Decision
from consensus import genesis as genesis_file
from scripts.benefits import Case
from scripts.demo_parts.evidence import FILE_NAME, TAMPERED_NAME
from scripts.demo_parts.judged import PAYMENT_NAME
from scripts.localnet import ROOT, LocalNetwork


@dataclass(frozen=True, slots=True)
class Line:
    """A command with what it shows; ``status`` is how it ends."""

    about: str
    words: tuple[str, ...]
    status: int = 0

    @property
    def text(self) -> str:
        """The command as a shell takes it."""
        return shlex.join(self.words)


def environment(network: LocalNetwork) -> dict[str, str]:
    """Return the variables that say which network, and as whom."""
    return {
        "COMITY_GENESIS": str(network.folder / "genesis.cbor"),
        "COMITY_KEY_FILE": str(network.key_file("integrity", "auditor")),
    }


def lines(network: LocalNetwork, case: Case, refused: Decision) -> list[Line]:
    """Return the command lines, in an order in which each works.

    Args:
        case: an entitlement that is paid for and not held.
        refused: a decision that was a refusal.
    """
    child = f"0x{case.household.child.token.hex()}"
    caregiver = f"0x{case.household.caregiver.token.hex()}"
    chain = genesis_file.chain_id(network.genesis).hex()
    investigator = str(network.key_file("integrity", "investigator"))
    paymaster = str(network.key_file("treasury", "paymaster"))
    proof, tampered = str(network.folder / FILE_NAME), str(network.folder / TAMPERED_NAME)
    payment = str(network.folder / PAYMENT_NAME)
    comity, python = _here("comity"), _here("python")
    check = (python, "-m", "scripts.demo_parts.evidence")
    return [
        Line("what a node says of itself", (comity, "status", "--server", "treasury")),
        Line("who certifies", (comity, "committee")),
        Line("newest certified heights", (comity, "statements", "--last", "5")),
        Line("the budget, proved", (comity, "get", "account/programme")),
        Line("a child's entitlement, proved", (comity, "get", f"entitlement/{child}")),
        Line("payments there are, a page of ids", (comity, "list", "payment", "--limit", "5")),
        Line(
            "all decisions of some heights, refusals too",
            (comity, "decisions", "--from", str(refused.height), "--count", "10"),
        ),
        Line(
            "one that was refused, and why (ends with 1)",
            (comity, "decision", refused.txid.hex()),
            1,
        ),
        Line(
            "freeze the caregiver, as the investigator",
            (comity, "submit", "compliance.freeze", f"person={caregiver}", "--key", investigator),
        ),
        Line("every hold on the caregiver", (comity, "holds", f"person/{caregiver}")),
        Line(
            "then pay November: refused as HELD (ends with 1)",
            (comity, "submit", "payments.disburse", f"entitlement={child}", "period=2026-11",
             "--key", paymaster),
            1,
        ),
        Line("check the auditor's file again", (*check, proof, chain)),
        Line("and the tampered one (ends with 1)", (*check, tampered, chain), 1),
        Line(
            "judge a payment again, offline, from its file alone",
            (comity, "verify", payment, "--genesis", chain),
        ),
    ]  # fmt: skip


def show(console: Console, network: LocalNetwork, commands: Sequence[Line]) -> None:
    """Print the commands as they can be pasted into a shell."""
    console.print()
    console.rule("[bold]The network stays up; in another terminal[/]", align="left")
    console.print(f"  cd {escape(shlex.quote(str(ROOT)))}", highlight=False, soft_wrap=True)
    for name, value in environment(network).items():
        text = f"  export {name}={shlex.quote(value)}"
        console.print(escape(text), highlight=False, soft_wrap=True)
    for line in commands:
        console.print(f"  [dim]# {escape(line.about)}[/]", highlight=False)
        console.print(f"  {escape(line.text)}", highlight=False, soft_wrap=True)
    console.print(
        "\n  Kill a node if you like: the others go on. Ctrl-C stops the network and ends.\n",
        highlight=False,
    )


def _here(program: str) -> str:
    return str(Path(".venv", "bin", program))
