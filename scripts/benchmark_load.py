"""Load for ``scripts/bench``: transactions signed before the clock starts, and what drives them.

Not here: what is measured (``benchmark``).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import trio

from comity import drafting
from comity.client import Client
from comity.drafting import Call
from comity.keys import Key
from comity.results import Outcome
from comity.session import Parcel
from consensus import codec
from consensus.ledger import group
from consensus.ledger.transaction import Unsigned, assemble
from consensus.protocol import Item

WALLETS = 2_000
LIFE_MS = 3_600_000


class Load:
    """Signed transactions of several authors, made before the clock starts."""

    def __init__(
        self, chain: bytes, authors: Sequence[Key], book: Any, now_ms: int, used: int = 0
    ) -> None:
        """Make one; ``used`` numbers of each author are not taken again."""
        self._chain = chain
        self._authors = list(authors)
        self._book = book
        self._now_ms = now_ms
        self._sequences = [used] * len(self._authors)

    def draft(
        self,
        author: int,
        call: Call,
        reads: Sequence[Any] = (),
        cosigners: Sequence[bytes] = (),
    ) -> Unsigned:
        """Return the next transaction of an author, unsigned."""
        self._sequences[author] += 1
        return drafting.build(
            self._chain,
            self._book,
            [call],
            author=self._authors[author].public,
            sequence=self._sequences[author],
            now_ms=self._now_ms,
            not_after_ms=self._now_ms + LIFE_MS,
            seed=secrets.token_bytes(32),
            reads=reads,
            cosigners=cosigners,
        )

    def single(self, author: int, call: Call, reads: Sequence[Any] = ()) -> Parcel:
        """Return a singly signed transaction."""
        unsigned = self.draft(author, call, reads)
        envelope = assemble(unsigned, [self._authors[author].sign(unsigned.message)])
        return Parcel(Item.ENVELOPE, envelope, (unsigned.transaction.txid,))

    def cosigned(self, author: int, call: Call, cosigners: Sequence[Key]) -> Parcel:
        """Return a transaction that others have signed as well."""
        unsigned = self.draft(author, call, cosigners=[each.public for each in cosigners])
        keys = {each.public: each for each in (self._authors[author], *cosigners)}
        signed = [keys[each].sign(unsigned.message) for each in unsigned.transaction.signers]
        envelope = assemble(unsigned, signed)
        return Parcel(Item.ENVELOPE, envelope, (unsigned.transaction.txid,))

    def group(self, author: int, drafts: Sequence[Unsigned]) -> Parcel:
        """Return drafts of one author as a signed group."""
        key = self._authors[author]
        signed = group.group_message(self._chain, len(drafts), group.group_root(drafts))
        whole = group.build(drafts, [(key.public, key.sign(signed))])
        txids = tuple(each.transaction.txid for each in drafts)
        return Parcel(Item.GROUP, codec.encode(whole.to_value()), txids)


def transfer(number: int, action: str = "transfer") -> Call:
    """Return a transfer between two wallets, spread over all of them."""
    source = number * 7919 % WALLETS
    return Call(
        "bench",
        action,
        {"source": source, "target": (source + 1 + number % 97) % WALLETS, "amount": 1},
    )


@dataclass(frozen=True, slots=True)
class Driven:
    """What happened under load."""

    count: int
    """Transactions answered, verified, within the measured seconds."""
    seconds: float
    total: int
    """Transactions answered from the first to the last."""
    latencies: list[float]
    """Seconds from handing over a chunk to its last verified answer."""


async def drive(
    clients: Sequence[Client],
    lanes: Sequence[Sequence[list[Parcel]]],
    seconds: float,
    in_flight: int,
) -> Driven:
    """Submit each lane's chunks, ``in_flight`` at a time, until the time is over."""
    applied = 0
    finished: list[float] = []
    latencies: list[float] = []
    begin = trio.current_time()
    warm = min(2.0, seconds / 4)

    def told(_parcel: int, _position: int, outcome: Outcome) -> None:
        nonlocal applied
        applied += getattr(outcome, "applied", False)
        finished.append(trio.current_time())

    async def lane(client: Client, chunks: Iterator[list[Parcel]]) -> None:
        for chunk in chunks:
            sent = trio.current_time()
            if sent - begin > seconds + warm:
                return
            await client.deliver(chunk, told)
            latencies.append(trio.current_time() - sent)

    async with trio.open_nursery() as nursery:
        for index, chunks in enumerate(lanes):
            queue = iter(chunks)
            for _ in range(in_flight):
                nursery.start_soon(lane, clients[index % len(clients)], queue)
    if applied != len(finished):
        raise SystemExit(f"{len(finished) - applied} of {len(finished)} were not applied")
    window = sum(begin + warm <= at <= begin + warm + seconds for at in finished)
    return Driven(window, min(seconds, max(finished) - begin - warm), len(finished), latencies)
