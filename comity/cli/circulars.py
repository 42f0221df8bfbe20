"""``comity cosign`` and ``comity send``: transactions that go round for signatures, as files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from comity import circulars
from comity.circulars import Circular
from comity.cli import show
from comity.cli.options import OUTPUT, REACH, Output, Reach, examples, genesis_bytes, with_client
from comity.cli.values import time_word
from comity.client import Client
from comity.errors import KeyUnusableError
from comity.files import refused, undoing
from comity.words import id_word
from consensus.errors import DecodeError
from consensus.genesis import chain_id
from consensus.ledger.model import Rulebook

COSIGN_EXAMPLES: Final = examples(
    "comity cosign publish.cbor --dry", "comity cosign publish.cbor --key director.key"
)
SEND_EXAMPLES: Final = examples("comity send publish.cbor")
_MODE: Final = 0o600
"""Of files written: they hold what a transaction keeps private."""


def cosign(
    file: Path,
    /,
    *,
    dry: Annotated[bool, Parameter(help="Show what would be signed and stop.")] = False,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Show a transaction that `comity submit --circulate` wrote, and add one's signature to it.

    Args:
        file: the circular; the signature is added to it.
    """
    circular = _read(file, reach)

    async def work(client: Client) -> int:
        book = (await client.rules()).book
        if dry:
            _show(circular, book, output)
            return 0
        if client.key is None:
            raise KeyUnusableError("there is no key to sign with")
        pass_on(circular.sign(client.key), book, file, output)
        return 0

    return with_client(reach, work)


def send(file: Path, /, *, reach: Reach = REACH, output: Output = OUTPUT) -> int:
    """Submit a transaction that all have signed, and wait for its certified decision.

    Args:
        file: the circular.
    """
    circular = _read(file, reach)

    async def work(client: Client) -> int:
        book = (await client.rules()).book
        decision = await client.submit(circular.envelope)
        calls = circular.transaction.calls
        names = {each.action_id: each.action for each in calls if book.action(*_names(each))}
        show.emit(output, show.decision_value(decision), show.decision_table(decision, names))
        return 1 if decision.state == "refused" else 0

    return with_client(reach, work)


def _read(file: Path, reach: Reach) -> Circular:
    """Return the circular in a file, checked for the network of the genesis file.

    Raises:
        DecodeError: it is none, or of another network.
        SignatureError: a signature that is there is wrong.
    """
    chain = chain_id(genesis_bytes(reach))
    try:
        return circulars.read(chain, file.read_bytes())
    except DecodeError as error:
        hint = error.hint
        if hint == error.advice:
            hint = "name a file that `comity submit --circulate` wrote for this network"
        raise DecodeError(f"{file}: {error.message}", hint=hint) from error


def pass_on(circular: Circular, book: Rulebook, file: Path, output: Output) -> None:
    """Write a circular to a file and say what it is, and whose signatures are missing.

    The file is exchanged as a whole: signatures that others have given are not lost.
    """
    draft = file.with_name(f".{file.name}.new")
    try:
        with undoing([draft]):
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
            with os.fdopen(handle, "wb") as stream:
                stream.write(circular.encode())
            os.replace(draft, file)
    except OSError as error:
        raise refused(f"cannot write {file}", error) from error
    _show(circular, book, output)


def _names(call: Any) -> tuple[str, str]:
    return call.domain, call.action


def _show(circular: Circular, book: Rulebook, output: Output) -> None:
    found, calls, missing = circular.transaction, circular.calls(book), circular.missing
    expects = [(f"{each.kind}/{id_word(each.id)}", each.version) for each in found.context.expects]
    value = {
        "txid": found.txid,
        "calls": [
            {
                "action": ".".join(_names(each.call)),
                "inputs": dict(each.inputs),
                "in_force": each.in_force,
            }
            for each in calls
        ],
        "expects": [[place, version] for place, version in expects],
        "under": list(found.context.under),
        "reason": found.reason,
        "not_after_ms": found.not_after_ms,
        "author": found.author,
        "cosigners": list(found.cosigners),
        "missing": list(missing),
    }
    rows: list[tuple[str, Any]] = []
    for each in calls:
        note = "" if each.in_force else " (not as it is in force)"
        rows.append(("action", ".".join(_names(each.call)) + note))
        action = book.action(*_names(each.call))
        types = {} if action is None else {one.name: one.type for one in action.inputs}
        rows += [
            (f"  {name}", show.input_word(item, types.get(name))) for name, item in each.inputs
        ]
    rows += [("expects", f"{place} at version {version}") for place, version in expects]
    rows += [("under", each) for each in found.context.under]
    rows += [("reason", found.reason)] if found.reason else []
    rows.append(("valid until", time_word(found.not_after_ms)))
    rows.append(("author", found.author))
    rows += [("cosigner", each) for each in found.cosigners]
    rows += [("signature missing", each) for each in missing]
    title = "signatures are missing" if missing else "complete; `comity send` submits it"
    show.emit(output, value, show.titled(title, show.pairs(rows)))


COMMANDS: Final = ((cosign, COSIGN_EXAMPLES), (send, SEND_EXAMPLES))
"""What the command line offers of this module, with the end of each help text."""
