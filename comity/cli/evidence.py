"""``comity bundle``, ``comity receipt``: decisions in files that prove themselves to others."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any, Final

import segno
from cyclopts import Parameter

from comity import receipts
from comity.cli import show
from comity.cli.options import (
    OUTPUT,
    REACH,
    Output,
    Reach,
    UsageError,
    examples,
    refuse_existing,
    with_client,
)
from comity.cli.refusals import sentence
from comity.cli.values import parse_moment, parse_txid, time_word
from comity.client import Client
from comity.files import write_new
from comity.receipts import Receipt
from comity.results import Entry
from comity.words import KERNEL_LEAVES, place_word, visible, word
from consensus.codec import Value

BUNDLE_EXAMPLES: Final = examples(
    "comity bundle 0x51c0... -o payment.bundle",
    "comity bundle 0x51c0... -o payment.bundle --open reason --audience 'Court of Audit'",
    "comity bundle 0x51c0... -o payment.bundle --trust 1204 --until 2027-01-01",
    "comity verify payment.bundle --genesis 0x9b2e...",
)
RECEIPT_EXAMPLES: Final = examples(
    "comity receipt 0x51c0... -o payment.receipt",
    "comity receipt 0x51c0... -o payment.receipt --text > payment.txt",
)


def bundle(
    txid: str,
    /,
    *,
    file: Annotated[Path, Parameter(name=("--output", "-o"), help="File to write.")],
    open_: Annotated[
        tuple[str, ...],
        Parameter(
            name="--open",
            help="What to show that the judgement did not need: reason, or kind.field.",
        ),
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
    unknown = [each for each in open_ if each != "reason" and "." not in each]
    if unknown:
        raise UsageError(f"{unknown[0]!r} cannot be opened", hint="write reason, or kind.field")
    refuse_existing(file)
    wanted = parse_txid(txid)
    expires_ms = None if until is None else parse_moment(until, "--until")

    async def work(client: Client) -> int:
        data = await client.bundle(
            wanted,
            heights=trust,
            opened=open_,
            purpose=reach.purpose,
            audience=audience,
            expires_ms=expires_ms,
        )
        write_new(file, data)
        value: dict[str, Any] = {
            "file": str(file),
            "bytes": len(data),
            "genesis": word(client.chain),
            "until_ms": expires_ms,
        }
        rows = [
            ("file", str(file)),
            ("bytes", f"{len(data):,}"),
            ("for", audience or "anybody"),
            ("until", "no end" if expires_ms is None else time_word(expires_ms)),
            ("check it", f"comity verify {file} --genesis {word(client.chain)}"),
        ]
        show.emit(output, value, show.titled("evidence bundle", show.pairs(rows)))
        return 0

    return with_client(reach, work)


def receipt(
    txid: str,
    /,
    *,
    file: Annotated[Path, Parameter(name=("--output", "-o"), help="File to write.")],
    text: Annotated[
        bool, Parameter(help="Print it too, with a QR code that ties it to the file.")
    ] = False,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Write a receipt: the decision on a transaction as far as your key may see it.

    With --text it is also printed, to be kept on paper: the QR code holds the digest of the file,
    and `comity verify FILE --digest` compares the two.

    Args:
        txid: of the transaction, hex.
    """
    refuse_existing(file)
    wanted = parse_txid(txid)

    async def work(client: Client) -> int:
        data = await client.receipt(wanted)
        write_new(file, data)
        found = receipts.verify(data, client.chain)
        if text and not output.json:
            print(visible(receipt_text(found, client.chain)))
            return 0
        value = {"file": str(file), "bytes": len(data), "digest": word(found.digest)}
        rows = [
            ("file", str(file)),
            ("bytes", f"{len(data):,}"),
            ("digest", word(found.digest)),
            ("check it", f"comity verify {file} --genesis {word(client.chain)}"),
        ]
        show.emit(output, value, show.titled("receipt", show.pairs(rows)))
        return 0

    return with_client(reach, work)


def receipt_text(found: Receipt, chain: bytes) -> str:
    """Return a receipt as text to be printed, with a QR code of its digest."""
    decision = found.decision
    why = sentence(decision.code, decision.detail)
    outcome = decision.state if decision.state != "refused" else f"refused, {decision.code}"
    lines = [
        f"RECEIPT of the network {found.network}",
        "",
        f"transaction  {word(decision.txid)}",
        f"outcome      {outcome}" + (f": {why}" if why else ""),
        f"decided      {time_word(decision.time_ms)}, height {decision.height}",
    ]
    for record in found.records:
        lines.append(f"record       {place_word('record', record.key.components, short=True)}")
        lines += [f"  {name:<11}{word(each, short=True)}" for name, each in fields_of(record)]
    lines += [
        "",
        f"network      {word(chain)}",
        f"digest       {word(found.digest)}",
        "",
        qr_code(found.digest),
        "The code holds the digest of the file that proves this. Check the file with",
        "  comity verify FILE --genesis NETWORK --digest DIGEST",
    ]
    return "\n".join(lines)


def fields_of(record: Entry) -> list[tuple[str, Value]]:
    """Return what a record says, without what the kernel keeps of it."""
    fields: dict[str, Value] = record.value
    return [(name, value) for name, value in fields.items() if name not in KERNEL_LEAVES]


def qr_code(digest: bytes) -> str:
    """Return a digest as a QR code of characters."""
    drawn = io.StringIO()
    segno.make(f"comity:receipt:{digest.hex()}", micro=False).terminal(out=drawn, compact=True)
    return drawn.getvalue()


COMMANDS: Final = ((bundle, BUNDLE_EXAMPLES), (receipt, RECEIPT_EXAMPLES))
"""What the command line offers of this module, with the end of each help text."""
