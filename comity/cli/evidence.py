"""``comity bundle``: a decision with everything it was judged on, in a file for somebody else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from comity.cli import show
from comity.cli.options import OUTPUT, REACH, Output, Reach, UsageError, examples, with_client
from comity.cli.values import parse_moment, parse_txid, time_word
from comity.client import Client

EXAMPLES: Final = examples(
    "comity bundle 51c0... -o payment.bundle",
    "comity bundle 51c0... -o payment.bundle --open reason --audience 'Court of Audit'",
    "comity bundle 51c0... -o payment.bundle --trust 1204 --until 2027-01-01",
    "comity verify payment.bundle --genesis 9b2e...",
)
OPENED: Final = ("reason",)


def bundle(
    txid: str,
    /,
    *,
    file: Annotated[Path, Parameter(name=("--output", "-o"), help="File to write.")],
    open_: Annotated[
        tuple[str, ...],
        Parameter(name="--open", help="What to show that the judgement did not need: reason."),
    ] = (),
    trust: Annotated[
        tuple[int, ...],
        Parameter(help="Height whose statement the reader knows; may be repeated."),
    ] = (),
    audience: Annotated[str, Parameter(help="Whom it is for.")] = "",
    until: Annotated[
        str | None, Parameter(help="Until when it may be used, e.g. 2027-01-01.")
    ] = None,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Write an evidence bundle: one decision, provable to somebody who knows the genesis hash.

    It holds what the decision was judged on, as far as the rules looked at it, and nothing else. It
    is signed with your key; --purpose says what it is for.

    Args:
        txid: of the transaction, hex.
    """
    unknown = [each for each in open_ if each not in OPENED]
    if unknown:
        raise UsageError(f"{unknown[0]!r} cannot be opened", hint=f"one of {', '.join(OPENED)}")
    if file.exists():
        raise UsageError(f"{file} exists", hint="name another file; nothing is overwritten")
    wanted = parse_txid(txid)
    expires_ms = None if until is None else parse_moment(until, "--until")

    async def work(client: Client) -> int:
        data = await client.bundle(
            wanted,
            heights=trust,
            reason="reason" in open_,
            purpose=reach.purpose,
            audience=audience,
            expires_ms=expires_ms,
        )
        file.write_bytes(data)
        value: dict[str, Any] = {
            "file": str(file),
            "bytes": len(data),
            "genesis": client.chain.hex(),
            "until_ms": expires_ms,
        }
        rows = [
            ("file", str(file)),
            ("bytes", f"{len(data):,}"),
            ("for", audience or "anybody"),
            ("until", "no end" if expires_ms is None else time_word(expires_ms)),
            ("check it", f"comity verify {file} --genesis {client.chain.hex()}"),
        ]
        show.emit(output, value, show.titled("evidence bundle", show.pairs(rows)))
        return 0

    return with_client(reach, work)
