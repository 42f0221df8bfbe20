"""Measure audits, in this process: ledgers of transfers and of payments executed again.

    executed    decisions a second of the process that executes, by its processor time: what one
                core re-executes while others check signatures
    audited     decisions a second from the first byte to the report, with one checking process,
                and with everything in one process
    idle        heights a second of a network without work: certificates alone

Chains are made and certified here (``chainmaker``), in blocks of BLOCK transactions, each signed by
itself. What is executed lies in a store on disk, as the command keeps it.
"""

from __future__ import annotations

import gc
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from comity import drafting
from comity.auditing.checkers import GC_ALLOCATIONS
from comity.auditing.running import Report, Wanted, audit
from comity.drafting import Call
from comity.founding import Person
from comity.keys import Key
from comity.results import Entry
from consensus.audit.stream import Frame, Splitter
from consensus.genesis import SYSTEM, OpeningBalance
from consensus.keyfile import KeyKind
from consensus.ledger import batch as batches
from consensus.ledger.batch import Item
from consensus.ledger.codes import Code
from consensus.ledger.transaction import assemble
from consensus.protocol import StateKey
from node import keyfiles
from node.auditspace import AuditSpace
from scripts import benefits, register
from scripts.benefits import MONTH_ZERO_2026, OFFICE_ROLES, Act, Case
from scripts.chainmaker import Chain
from scripts.localnet import ROOT, LocalNetwork, found

BLOCK: Final = 500
BLOCKS: Final = 60
"""Of transfers or payments; what enters people and entitlements comes on top."""
WALLETS: Final = 2_000
PERSONS: Final = 2_000
ENTITLEMENTS: Final = 500
IDLE_HEIGHTS: Final = 4_000
REPETITIONS: Final = 3
LIFE_MS: Final = 3_600_000
AUTHOR: Final = "author"


def audit_figures(blocks: int = BLOCKS, repetitions: int = REPETITIONS) -> dict[str, Any]:
    """Return the figures of each ledger.

    Args:
        blocks: of BLOCK transactions each.
        repetitions: the best of so many is taken.
    """
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="comity-bench-", dir="/var/tmp") as temporary:
        folder = Path(temporary)
        makers = {"transfers": _transfers, "disburse": _disburse}
        for name, make in makers.items():
            ledger = make(folder / name, blocks)
            figures[name] = _measured(ledger.chain, folder, repetitions)
        idle = _idle(folder / "idle", blocks * IDLE_HEIGHTS // BLOCKS)
        data = idle.stream()
        took = min(_audited(idle.chain, data, folder, 1).seconds for _ in range(repetitions))
        figures["idle_heights_per_s"] = round(len(idle.recorded) / took, 1)
    return figures


def _measured(chain: Chain, folder: Path, repetitions: int) -> dict[str, Any]:
    data = chain.stream()
    executing, beside, alone = [], [], []
    for _ in range(repetitions):
        begin = time.process_time()
        report = _audited(chain.chain, data, folder, 1)
        executing.append(time.process_time() - begin)
        beside.append(report.seconds)
        alone.append(_audited(chain.chain, data, folder, 0).seconds)
    decisions = sum(report.counts.decisions.values())
    return {
        "decisions": decisions,
        "heights": report.counts.heights,
        "executed_us": round(min(executing) * 1e6 / decisions, 1),
        "executed_per_s": round(decisions / min(executing)),
        "audited_per_s_two_processes": round(decisions / min(beside)),
        "audited_per_s_one_process": round(decisions / min(alone)),
    }


def _audited(chain: bytes, data: bytes, folder: Path, processes: int) -> Report:
    """Audit a file's bytes as the command does; return what it came to."""
    gc.set_threshold(GC_ALLOCATIONS)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        space = AuditSpace(Path(name), chain)
        try:
            return audit(_frames(data), Wanted(chain), space=space, processes=processes)
        finally:
            space.close()


def _frames(data: bytes) -> Iterator[Frame]:
    splitter = Splitter()
    step = 1024 * 1024
    for at in range(0, len(data), step):
        yield from splitter.feed(data[at : at + step])
    splitter.finish()


# --- ledgers ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Ledger:
    """A chain, and who signs on it."""

    chain: Chain
    key: Key
    sequence: int = 0

    def item(self, call: Call, reads: Sequence[Entry] = ()) -> Item:
        """Return a signed transaction."""
        self.sequence += 1
        now_ms = self.chain.now_ms
        unsigned = drafting.build(
            self.chain.chain,
            self.chain.ledger.rules(self.chain.state, now_ms).book,
            [call],
            author=self.key.public,
            sequence=self.sequence,
            now_ms=now_ms,
            not_after_ms=now_ms + LIFE_MS,
            seed=secrets.token_bytes(32),
            reads=reads,
        )
        envelope = assemble(unsigned, [self.key.sign(unsigned.message)])
        return batches.decode_item(self.chain.chain, envelope)

    def do(self, acts: Sequence[Act]) -> None:
        """Carry out acts in blocks; all must be applied."""
        for first in range(0, len(acts), BLOCK):
            self.chain.block([self.item(*act) for act in acts[first : first + BLOCK]])
            refused = [each.code for each in self.chain.decisions if each.code != Code.APPLIED]
            if refused:
                raise SystemExit(f"{len(refused)} acts were refused: {refused[0].name}")


def _founded(
    folder: Path, rules: Sequence[Path], accounts: Sequence[OpeningBalance], roles: Any
) -> Ledger:
    person = Person(AUTHOR, "treasury", SYSTEM, roles)
    network = found(folder, rules, [person], accounts)
    return Ledger(Chain(network.genesis, _validators(network)), network.key("treasury", AUTHOR))


def _validators(network: LocalNetwork) -> list[Key]:
    """Return the keys of all validators, which lie in one folder here."""
    return [
        Key(keyfiles.load(network.key_file(agency, "validator"), KeyKind.VALIDATOR))
        for agency in network.agencies
    ]


def wallets(folder: Path) -> Ledger:
    """Return a ledger of many wallets, in which nothing has happened."""
    rules = [ROOT / "configs/rules/charter.toml", ROOT / "configs/bench/transfers.toml"]
    accounts = [OpeningBalance("wallet", (number,), 10**9) for number in range(WALLETS)]
    return _founded(folder, rules, accounts, (("bench.operator", ()),))


def _transfers(folder: Path, blocks: int) -> Ledger:
    """Return a ledger of transfers between many wallets."""
    ledger = wallets(folder)
    ledger.do([(transfer(number), ()) for number in range(blocks * BLOCK)])
    return ledger


def transfer(number: int) -> Call:
    """Return one of many transfers between wallets."""
    source = number * 7919 % WALLETS
    target = (source + 1 + number % 97) % WALLETS
    return Call("bench", "transfer", {"source": source, "target": target, "amount": 1})


def _disburse(folder: Path, blocks: int) -> Ledger:
    """Return a ledger of the benefits programme: people, households, entitlements, payments."""
    ledger = programme(folder)
    ledger.do(payments(ledger, blocks * BLOCK))
    return ledger


def programme(folder: Path) -> Ledger:
    """Return a ledger of the benefits programme, in which nothing has happened."""
    rules = sorted((ROOT / "configs/rules").glob("*.toml"))
    return _founded(folder, rules, [OpeningBalance("programme", (), 10**15)], OFFICE_ROLES)


def payments(ledger: Ledger, count: int) -> list[Act]:
    """Enter people, households and entitlements; return so many payments to them."""
    people = register.people(PERSONS, seed=1)
    households = register.households(people, ENTITLEMENTS)
    ledger.do(benefits.entering(people))
    ledger.do(benefits.forming(households, _made))
    ledger.do(benefits.determining(households, _made))
    cases = [Case(each, _made("entitlement", each.child.token)) for each in households]
    found = [
        case.disbursement(MONTH_ZERO_2026 + month)
        for month in range(-(-count // ENTITLEMENTS))
        for case in cases
    ]
    return found[:count]


def _made(kind: str, *components: Any) -> Entry:
    """Return what is known of a record that was just made."""
    key = StateKey("record", (kind, *components))
    return Entry(key, 0, 0, version=1, changed=0, present=True)


def _idle(folder: Path, heights: int) -> Chain:
    """Return a chain in which nothing happens."""
    chain = wallets(folder).chain
    for _ in range(max(heights, 1)):
        chain.block()
    return chain
