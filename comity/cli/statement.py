"""``comity statement``: what the network stated of a height, shown, written as a text, or checked.

Not here: the text (``consensus.evidence.tlog``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from comity.cli import show
from comity.cli.options import (
    OUTPUT,
    REACH,
    Output,
    Reach,
    UsageError,
    examples,
    genesis_bytes,
    naming,
    with_client,
)
from comity.cli.values import natural, time_word
from comity.client import Client
from comity.files import write_new
from comity.words import word
from consensus import genesis as genesis_file
from consensus.evidence import tlog
from consensus.evidence.tlog import TlogProof


def statement(
    what: str,
    /,
    *,
    as_tlog: Annotated[
        bool, Parameter(name="--tlog", help="As a text in the manner of transparency logs.")
    ] = False,
    to: Annotated[
        Path | None, Parameter(name=("--output", "-o"), help="Write the text to this new file.")
    ] = None,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> None:
    """Show what the network stated of a height, proved below a later certificate.

    Args:
        what: a height; or a file that --tlog wrote, which is checked without a network.
    """
    if to is not None and not as_tlog:
        raise UsageError("--output goes with --tlog")
    if not what.isdecimal():
        if as_tlog or what.removeprefix("-").isdecimal():
            raise UsageError(f"{what!r} is no height", hint="heights count from 0")
        _show(_check(Path(what), reach), output)
        return
    height = natural(what)
    if height is None:
        raise UsageError(f"{what} is no height")

    async def work(client: Client) -> TlogProof:
        return await client.past(height)

    proof = with_client(reach, work)
    if not as_tlog:
        _show(proof, output)
        return
    text = tlog.encode(proof, genesis_file.decode(genesis_bytes(reach)).committee)
    if to is None and not output.json:
        print(text, end="")
        return
    if to is not None:
        write_new(to, text.encode())
    value = {"height": height, "size": proof.certificate.statement.height, "text": text}
    if to is not None:
        value = {**value, "file": str(to)}
    shown = f"{to}: statement of height {height} in a log of {value['size']}"
    show.emit(output, value, shown)


def _check(path: Path, reach: Reach) -> TlogProof:
    """Return what a file proves. Raises DecodeError, VerificationError."""
    genesis = genesis_bytes(reach)
    with path.open("rb") as file:
        data = file.read(tlog.TEXT_BYTES_MAX + 1)
    committee = genesis_file.decode(genesis).committee
    with naming(path, "name a whole file, as `comity statement HEIGHT --tlog` writes it"):
        return tlog.verify(data, genesis_file.chain_id(genesis), committee)


def _show(proof: TlogProof, output: Output) -> None:
    stated, head = proof.statement, proof.certificate.statement
    value: dict[str, Any] = {
        "height": stated.height,
        "hash": stated.hash,
        "time_ms": stated.time_ms,
        "epoch": stated.epoch,
        "round": stated.round,
        "block": stated.block_id,
        "executor": stated.executor,
        "state_root": stated.state_root,
        "results_root": stated.results_root,
        "changes_root": stated.changes_root,
        "history_root": stated.history_root,
        "certified_at": head.height,
        "signers": [validator for validator, _ in proof.certificate.signatures],
    }
    rows: list[tuple[str, Any]] = [
        ("hash", word(stated.hash)),
        ("time", time_word(stated.time_ms)),
        ("epoch, round", f"{stated.epoch}, {stated.round}"),
        ("block", word(stated.block_id)),
        ("executor", stated.executor),
        ("state root", word(stated.state_root)),
        ("results root", word(stated.results_root)),
        ("changes root", word(stated.changes_root)),
        ("history root", word(stated.history_root)),
        ("vouched for", f"by {len(value['signers'])} validators at height {head.height}"),
    ]
    show.emit(output, value, show.titled(f"statement of height {stated.height}", show.pairs(rows)))


EXAMPLES: Final = examples(
    "comity statement 812",
    "comity statement 812 --tlog -o 812.tlog-proof",
    "comity statement 812.tlog-proof --genesis genesis.cbor   checks the file, without a network",
)

COMMANDS: Final = ((statement, EXAMPLES),)
"""What the command line offers of this module, with the end of each help text."""
