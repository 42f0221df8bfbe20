"""What clients send, and what a second reading of the rules says must come of it.

``Load`` makes transactions: transfers, holds, files that several clients write at once, and acts
of the charter about the committee (``elections``).
``Books`` is told every decision in certified order and judges each by rules written here alone:
sets of used numbers, balances, versions, frozen purses. It shares nothing with the executor.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from consensus.codec import Value
from consensus.ledger.transaction import Draft, Expect, Transaction, build
from consensus.state.state import MemoryBackend, Row
from tests.sim.clock import START_MS
from tests.sim.elections import Electorate, Motion
from tests.sim.founding import CLERKS, OPENING, PURSES, Founded
from tests.sim.keys import Keys, chief, pair
from tests.sim.options import Options

ACTIONS = {
    "payments": ("transfer", "freeze", "open_file", "write_file"),
    "charter": ("change_committee", "object_committee"),
}
FILES = 8
LIFE_MS = 3_600_000
FREEZABLE = 3
"""Only the first purses are ever frozen, so that transfers between the others go on."""


@dataclass(frozen=True, slots=True)
class Intent:
    """What a transaction means, kept beside it."""

    clerk: str
    sequence: int
    not_after_ms: int
    action: str
    names: tuple[str, ...]
    amount: int = 0
    version: int = 0
    motion: Motion | None = None


@dataclass
class Books:
    """The second reading: what is so after the decisions told so far."""

    electorate: Electorate
    balances: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PURSES, OPENING))
    frozen: dict[str, None] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    used: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def judge(self, intent: Intent, time_ms: int) -> str:
        """Return the name of the outcome that a transaction must have next, and enter it."""
        used = self.used[intent.clerk]
        if intent.sequence in used:
            return "SEQUENCE_SPENT"
        if max(used, default=0) - intent.sequence >= 1024:
            return "SEQUENCE_OLD"
        used.add(intent.sequence)
        return "EXPIRED" if time_ms > intent.not_after_ms else self._act(intent, time_ms)

    def _act(self, intent: Intent, time_ms: int) -> str:
        if intent.motion is not None:
            elects = intent.action == "change_committee"
            judge = self.electorate.change if elects else self.electorate.objection
            return judge(intent.motion, time_ms)
        match intent.action:
            case "transfer":
                source, target = intent.names
                if source in self.frozen or target in self.frozen:
                    return "HELD"
                if self.balances[source] < intent.amount:
                    return "INSUFFICIENT"
                self.balances[source] -= intent.amount
                self.balances[target] += intent.amount
            case "freeze":
                self.frozen[intent.names[0]] = None
            case "open_file":
                if intent.names[0] in self.files:
                    return "STALE"
                self.files[intent.names[0]] = 1
            case _:
                version = self.files.get(intent.names[0])
                if version is None:
                    return "NOT_FOUND"
                if version != intent.version:
                    return "STALE"
                self.files[intent.names[0]] = version + 1
        return "APPLIED"


class Load:
    """Makes transactions.

    Args:
        books: as of the newest certified height; clients read versions there.
        rng: the run's.
    """

    def __init__(
        self, founded: Founded, options: Options, keys: Keys, books: Books, rng: random.Random
    ) -> None:
        self._founded = founded
        self._options = options
        self._keys = keys
        self._books = books
        self._rng = rng
        self._sequences: Counter[str] = Counter()
        self.now_ms = START_MS
        """Virtual time; set before transactions are asked for."""
        self.intents: dict[bytes, Intent] = {}
        rows = [(kh, Row(vh, 0, row)) for kh, vh, row in founded.state]
        rules = founded.ledger.rules(MemoryBackend(rows), START_MS)
        self._actions = {}
        for domain, names in ACTIONS.items():
            for name in names:
                action = rules.book.action(domain, name)
                assert action is not None
                self._actions[name] = domain, action

    def protective(self) -> Transaction:
        """Return a transaction that freezes a purse."""
        return self._make("freeze", (self._rng.choice(PURSES[:FREEZABLE]),), 0, 0)

    def lasting(self) -> Transaction:
        """Return a transfer that does not expire soon."""
        source, target = self._rng.sample(PURSES, 2)
        return self._make("transfer", (source, target), 1, 0, lasting=True)

    def ordinary(self) -> Transaction:
        """Return a transfer or an act on a file."""
        rng = self._rng
        if rng.random() < 0.7:
            source, target = rng.sample(PURSES, 2)
            amount = rng.choice((1, 5, 50, 900))
            return self._make("transfer", (source, target), amount, 0)
        name = f"file {rng.randrange(FILES)}"
        version = self._books.files.get(name, 0)
        if version and rng.random() < 0.9:
            return self._make("write_file", (name,), 0, version)
        if rng.random() < 0.1:
            return self._make("write_file", (name,), 0, 1)
        return self._make("open_file", (name,), 0, 0)

    def _make(
        self, name: str, names: tuple[str, ...], amount: int, version: int, *, lasting: bool = False
    ) -> Transaction:
        rng = self._rng
        clerk = rng.choice(CLERKS)
        short = not lasting and rng.random() < self._options.short_lived
        not_after_ms = self.now_ms + (rng.randint(100, 5000) if short else LIFE_MS)
        sequence = self._next(clerk)
        inputs: list[Value] = list(names)
        expects: list[Expect] = []
        if name == "transfer":
            inputs.append(amount)
        elif name == "open_file":
            inputs.append("a note")
            expects.append(Expect("file", [names[0]], 0))
        elif name == "write_file":
            inputs = [[names[0]], f"note {sequence}"]
            expects.append(Expect("file", [names[0]], version))
        intent = Intent(clerk, sequence, not_after_ms, name, names, amount, version)
        return self._signed(intent, inputs, expects)

    def _next(self, author: str) -> int:
        self._sequences[author] += 1
        return self._sequences[author]

    def motion(self, motion: Motion) -> Transaction:
        """Return the act of the charter by which chiefs move something about the committee."""
        author = chief(motion.voices[0])
        name = "change_committee" if motion.wanted else "object_committee"
        until_ms = self.now_ms + LIFE_MS
        intent = Intent(author, self._next(author), until_ms, name, (), motion=motion)
        voices = [chief(machine) for machine in motion.voices[1:]]
        return self._signed(intent, motion.inputs(self._founded.chain), (), voices)

    def _signed(
        self,
        intent: Intent,
        inputs: Sequence[Value],
        expects: Sequence[Expect],
        cosigners: Sequence[str] = (),
    ) -> Transaction:
        domain, action = self._actions[intent.action]
        draft = Draft(
            domain,
            intent.action,
            action.action_id,
            inputs,
            action.schedule.at(START_MS).digest,
            action.protective,
        )
        unsigned = build(
            self._founded.chain,
            pair(intent.clerk)[0],
            intent.sequence,
            intent.not_after_ms,
            [draft],
            seed=hashlib.sha256(f"{intent.clerk} {intent.sequence}".encode()).digest(),
            expects=expects,
            cosigners=[pair(name)[0] for name in cosigners],
        )
        signers, message = unsigned.transaction.signers, unsigned.message
        transaction = unsigned.transaction.signed([self._keys.sign(k, message) for k in signers])
        self.intents[transaction.txid] = intent
        return transaction
