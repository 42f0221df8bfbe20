"""Scene 7: decisions judged again, in another process, by somebody who has nothing but a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import trio

from comity.client import Client
from comity.results import Decision
from consensus import genesis as genesis_file
from scripts.demo_parts.cast import Cast
from scripts.demo_parts.evidence import SECONDS_MAX
from scripts.demo_parts.story import Story
from scripts.localnet import ROOT

PAYMENT_NAME: Final = "payment.bundle"
REFUSAL_NAME: Final = "refusal.bundle"
RECEIPT_NAME: Final = "payment.receipt"


async def judged(story: Story, cast: Cast) -> None:
    """Have a payment and a refusal judged again, offline; then a forged file."""
    story.scene(
        "7. Decisions are judged again by somebody who trusts no node",
        "7. A file holds what a decision was judged on; anybody runs the rules on it again",
    )
    chain = genesis_file.chain_id(cast.network.genesis).hex()
    paid, held = _payment(cast, "APPLIED"), _payment(cast, "HELD")
    folder = cast.network.folder
    data = await _bundle(cast, "integrity", paid)
    await _say(story, folder / PAYMENT_NAME, data, chain, "a payment", "was applied")
    data = await _bundle(cast, "registry", held)
    await _say(story, folder / REFUSAL_NAME, data, chain, "a payment under a hold", "HELD")
    forged = bytearray(await trio.Path(folder / PAYMENT_NAME).read_bytes())
    forged[len(forged) // 2] ^= 1
    other = folder / "forged.bundle"
    await trio.Path(other).write_bytes(bytes(forged))
    status, _ = await _verify(other, chain)
    story.claim("with one bit changed it proves nothing", seen=status in (1, 2), expected=True)
    key = cast.network.key("treasury", "paymaster")
    async with Client.connect(
        cast.network.genesis, servers=["treasury"], key=key, patience_seconds=SECONDS_MAX
    ) as client:
        data = await client.receipt(paid.txid)
    await trio.Path(folder / RECEIPT_NAME).write_bytes(data)
    status, said = await _verify(folder / RECEIPT_NAME, chain)
    story.claim(
        f"a receipt of it, {len(data):,} bytes to keep, is checked the same way",
        seen=(status, paid.txid.hex()[:12] in said),
        expected=(0, True),
    )


def _payment(cast: Cast, code: str) -> Decision:
    """Return the first decision of that outcome on a payment."""
    return next(
        each
        for each in cast.receipts.decisions
        if each.code == code and each.rules and each.rules[0][0] == "payments"
    )


async def _bundle(cast: Cast, agency: str, decision: Decision) -> bytes:
    """Return the bundle that an agency's node makes for the auditor."""
    key = cast.network.key("integrity", "auditor")
    async with Client.connect(
        cast.network.genesis, servers=[agency], key=key, patience_seconds=SECONDS_MAX
    ) as client:
        return await client.bundle(decision.txid, purpose="the year's audit")


async def _say(story: Story, file: Path, data: bytes, chain: str, what: str, outcome: str) -> None:
    await trio.Path(file).write_bytes(data)
    status, said = await _verify(file, chain)
    story.claim(
        f"{what}: {file.name} has {len(data):,} bytes; another process runs the rules on it and "
        "comes to the same decision",
        seen=(status, outcome in said, "come to the same decision" in said),
        expected=(0, True, True),
    )


async def _verify(file: Path, chain: str) -> tuple[int, str]:
    """Run ``comity verify`` elsewhere; return its exit status and what it prints."""
    words = [sys.executable, "-m", "comity.cli", "verify", str(file), "--genesis", chain]
    with trio.fail_after(SECONDS_MAX):
        done = await trio.run_process(
            words, cwd=ROOT, capture_stdout=True, stderr=subprocess.STDOUT, check=False
        )
    return done.returncode, done.stdout.decode()
