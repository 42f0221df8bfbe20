"""Measure the executor alone, in this process: ``scripts/bench executor``.

    plain calls     what a call costs among 100,000 records, by stage
    approvals       calls with two cosigners, beside plain ones, signatures counted
    proposals       the approval that completes a proposal, among 10 open siblings and among 10,000
    activation      the block in which a rule set comes into force, with 10,000 open proposals

Everything is timed in processor time and the best of several repetitions is taken: what the code
needs, without other processes in the caches. Nothing here touches a disk or a socket.
"""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from comity.founding import Person
from consensus import genesis
from consensus.codec import Value
from consensus.genesis import SYSTEM, OpeningBalance
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.executor import EXECUTOR, BlockContext, BlockRun
from consensus.ledger.genesis_state import genesis_state
from consensus.ledger.ledger import of_genesis
from consensus.ledger.rules import encode_definition, load_toml
from consensus.ledger.transaction import EXECUTE, PROPOSE, Draft, Expect, Unsigned, build
from consensus.signing import verify
from consensus.state.record import decode_single
from consensus.state.state import MemoryBackend, State
from scripts.localnet import ROOT, found

RULES: Final = ROOT / "configs/bench/governance.toml"
RECORDS: Final = 100_000
WALLETS: Final = 2_000
BLOCK: Final = 500
REPETITIONS: Final = 8
FEW, MANY = 10, 10_000
"""Open proposals beside the one that takes effect."""
APPROVED: Final = 40
"""Proposals of which the median is taken."""
DAY_MS: Final = 86_400_000
PEOPLE: Final = (
    Person("clerk", "treasury", SYSTEM, (("desk.clerk", ()),)),
    Person("controller", "social", SYSTEM, (("desk.controller", ()),)),
    Person("auditor", "integrity", SYSTEM, (("desk.auditor", ()),)),
    Person("governor", "registry", SYSTEM, (("charter.administrator", ()),)),
    Person("consenter", "treasury", SYSTEM, (("charter.administrator", ()),)),
)


def measure(folder: Path) -> dict[str, Any]:
    """Return the figures, in microseconds a call unless their names say otherwise."""
    bench = Bench(folder)
    bench.enter(RECORDS)
    plain = {name: bench.stages(make) for name, make in bench.plain_calls().items()}
    figures: dict[str, Any] = {
        "records": RECORDS,
        "plain_us": {name: round(_executor(each), 1) for name, each in plain.items()},
        "stages_us": plain,
    }
    figures["approvals"] = bench.approvals()
    figures["proposals"] = bench.proposals()
    figures["activation"] = bench.activation()
    return figures


def _executor(stages: dict[str, float]) -> float:
    """Return the executor's own cost: without the tree and the store."""
    return stages["execute"] + stages["leaves_and_results"]


class Bench:
    """A ledger in memory, and the people who act on it."""

    def __init__(self, folder: Path) -> None:
        accounts = [OpeningBalance("wallet", (number,), 10**9) for number in range(WALLETS)]
        rules = [ROOT / "configs/rules/charter.toml", RULES]
        network = found(folder, rules, PEOPLE, accounts)
        self._keys = {each.name: network.key(each.agency, each.name) for each in PEOPLE}
        founded = genesis.decode(network.genesis)
        self._ledger = of_genesis(founded)
        self._epoch = founded.committee.epoch
        self._state = State(MemoryBackend(), founded.tree_depth, -1)
        self._state.apply(genesis_state(founded))
        self._height = 0
        self._now_ms = founded.time_ms
        self._numbers = dict.fromkeys(self._keys, 0)
        self._versions: dict[int, int] = {}
        self._next = 0
        self._item = 0
        self._open = 0

    # --- transactions and blocks

    def _draft(
        self,
        author: str,
        action: str,
        *inputs: Value,
        expects: Sequence[Expect] = (),
        cosigners: Sequence[str] = (),
        mode: int = EXECUTE,
    ) -> Unsigned:
        self._numbers[author] += 1
        domain, _, name = action.partition(".")
        found = self._ledger.rules(self._state, self._now_ms).book.action(domain, name)
        if found is None:
            raise SystemExit(f"there is no action {action}")
        params = found.schedule.at(self._now_ms)
        call = Draft(domain, name, found.action_id, inputs, params.digest, found.protective)
        return build(
            self._ledger.chain,
            self._keys[author].public,
            self._numbers[author],
            self._now_ms + DAY_MS // 2,
            [call],
            seed=secrets.token_bytes(32),
            expects=expects,
            cosigners=[self._keys[each].public for each in cosigners],
            mode=mode,
        )

    def _run(self, drafts: Sequence[Unsigned]) -> tuple[list[Decision], dict[str, float]]:
        """Execute and apply a block; return its decisions and seconds by stage."""
        self._height += 1
        self._now_ms += 1
        context = BlockContext(self._epoch, self._height, self._now_ms, EXECUTOR)
        took: dict[str, float] = {}

        def timed(stage: str, work: Callable[[], Any]) -> Any:
            begin = time.process_time()
            result = work()
            took[stage] = time.process_time() - begin
            return result

        transactions = [each.transaction for each in drafts]

        def execute() -> BlockRun:
            run = BlockRun(self._ledger, self._state, context, transactions)
            while run.step(BLOCK):
                pass
            return run

        run = timed("execute", execute)
        outcome = timed("leaves_and_results", run.finish)
        timed("state_tree", lambda: self._state.apply(outcome.writes))
        return list(outcome.decisions), took

    def _applied(self, drafts: Sequence[Unsigned], code: Code = Code.APPLIED) -> dict[str, float]:
        """Run a block of which every transaction must have one outcome; return its seconds."""
        found, took = self._run(drafts)
        for each in found:
            if each.code != code:
                raise SystemExit(f"expected {code.name}, got {each.code.name} {each.detail}")
        return took

    # --- the figures

    def enter(self, count: int) -> None:
        """Make records."""
        for first in range(0, count, BLOCK):
            self._applied(
                [
                    self._draft("clerk", "desk.enter", n, n, expects=[Expect("item", [n], 0)])
                    for n in range(first, first + BLOCK)
                ]
            )

    def plain_calls(self) -> dict[str, Callable[[int], Unsigned]]:
        """Return what makes the n-th plain call of each sort."""
        return {"transfer": self._transfer, "amend": self._amend}

    def _transfer(self, number: int) -> Unsigned:
        source = number * 7919 % WALLETS
        return self._draft("clerk", "desk.transfer", source, (source + 1) % WALLETS, 1)

    def _amend(self, number: int, action: str = "desk.amend", **more: Any) -> Unsigned:
        item = number * 7919 % RECORDS
        version = self._versions.get(item, 1)
        self._versions[item] = version + 1
        return self._draft(
            "clerk", action, [item], number, expects=[Expect("item", [item], version)], **more
        )

    def _approved(self, number: int) -> Unsigned:
        people = ("controller", "auditor")
        return self._amend(number, "desk.amend_approved", cosigners=people)

    def stages(self, make: Callable[[int], Unsigned]) -> dict[str, float]:
        """Return microseconds a call by stage: the best of several blocks."""
        best: dict[str, float] = {}
        for _ in range(REPETITIONS):
            drafts = [make(self._next + n) for n in range(BLOCK)]
            self._next += BLOCK
            for stage, seconds in self._applied(drafts).items():
                micros = round(seconds * 1e6 / BLOCK, 1)
                best[stage] = min(best.get(stage, micros), micros)
        return best

    def approvals(self) -> dict[str, float]:
        """Return calls with two cosigners beside plain ones, with one check of each signature.

        ``rate_ratio`` compares transactions, ``signatures_ratio`` signatures a second.
        """
        plain, approved = self.stages(self._amend), self.stages(self._approved)
        check = self._check_micros()
        one, three = sum(plain.values()) + check, sum(approved.values()) + 3 * check
        return {
            "check_us": round(check, 1),
            "plain_us": round(one, 1),
            "approved_us": round(three, 1),
            "executor_us": round(_executor(approved), 1),
            "rate_ratio": round(one / three, 2),
            "signatures_ratio": round(3 * one / three, 2),
        }

    def _check_micros(self) -> float:
        """Return microseconds of one signature check, the best of several."""
        key, best = self._keys["clerk"], 1e9
        signed = key.sign(b"measured")
        for _ in range(REPETITIONS):
            begin = time.process_time()
            for _ in range(100):
                verify(key.public, b"measured", signed)
            best = min(best, (time.process_time() - begin) * 1e4)
        return best

    def proposals(self) -> dict[str, float]:
        """Return microseconds of the approval that completes a proposal, by open siblings."""
        figures = {}
        for siblings in (FEW, MANY):
            self._propose(siblings - self._open)
            figures[f"effect_us_among_{siblings}"] = round(self._effect_micros(), 1)
        few, many = figures.values()
        return {**figures, "ratio": round(many / few, 2)}

    def _propose(self, count: int) -> list[bytes]:
        """Store proposals that wait for an approval; return their txids."""
        found: list[bytes] = []
        for first in range(0, count, BLOCK):
            drafts = [
                self._draft(
                    "clerk",
                    "desk.amend_approved",
                    [self._fresh()],
                    1,
                    expects=[Expect("item", [self._item], self._versions.get(self._item, 1))],
                    mode=PROPOSE,
                )
                for _ in range(min(BLOCK, count - first))
            ]
            self._applied(drafts, Code.PROPOSED)
            found += [each.transaction.txid for each in drafts]
        self._open += count
        return found

    def _fresh(self) -> int:
        self._item = (self._item + 1) % RECORDS
        return self._item

    def _effect_micros(self) -> float:
        """Return the median microseconds of blocks in which one proposal takes effect."""
        txids = self._propose(APPROVED)
        self._open -= APPROVED
        for first in range(0, APPROVED, BLOCK):
            batch = txids[first : first + BLOCK]
            self._applied([self._draft("controller", "charter.approve", each) for each in batch])
        took = []
        for txid in txids:
            decisions, stages = self._run([self._draft("auditor", "charter.approve", txid)])
            if [each.code for each in decisions] != [Code.APPLIED, Code.APPLIED]:
                raise SystemExit("a proposal did not take effect")
            took.append(sum(stages.values()) * 1e6)
        return statistics.median(took)

    def activation(self) -> dict[str, float]:
        """Return milliseconds that a block takes longer because a rule set comes into force."""
        domain = "desk"
        text = RULES.read_text(encoding="utf-8").replace("number = 1", "number = 2")
        rules = encode_definition(load_toml(text.replace("an item that is open", "an open item")))
        propose = self._draft(
            "governor", "charter.propose_rules", domain, 2, rules, expects=[self._rules(domain)]
        )
        laid = self._applied([propose])
        from_ms = self._now_ms + 8 * DAY_MS
        expects = [self._rules(domain), Expect("rules", [domain, 2, "adoption"], 1)]
        activate = self._draft(
            "governor",
            "charter.activate_rules",
            domain,
            2,
            from_ms,
            expects=expects,
            cosigners=["consenter"],
        )
        activated = self._applied([activate])
        self._now_ms = from_ms - DAY_MS // 4
        self._propose(MANY)
        self._now_ms = from_ms - 100
        before = min(sum(self._applied([self._transfer(n)]).values()) for n in range(REPETITIONS))
        draft = self._transfer(REPETITIONS)
        self._now_ms = from_ms
        during = sum(self._applied([draft]).values())
        return {
            "open_proposals": MANY,
            "propose_ms": round(sum(laid.values()) * 1e3, 2),
            "activate_ms": round(sum(activated.values()) * 1e3, 2),
            "added_to_its_block_ms": round((during - before) * 1e3, 2),
        }

    def _rules(self, domain: str) -> Expect:
        row = self._state.get(self._ledger.paths("rules", [domain]))
        return Expect("rules", [domain], 0 if row is None else decode_single(row.value)[0])
