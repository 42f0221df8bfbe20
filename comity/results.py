"""What a client gets: plain, frozen results that were verified before they were made.

Not here: how they were verified (``verify``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from comity.errors import DraftError
from consensus.codec import Value
from consensus.ledger import decision as ledger
from consensus.ledger import layout
from consensus.ledger.showing import Shown
from consensus.ledger.transaction import Expect
from consensus.protocol import StateKey, Status

_NOTHING: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Entry:
    """One leaf of the state as of a certified height, or its proved absence.

    Args:
        key: where it lies.
        height, time_ms: of the certified state that shows it.
        version: 0 when absent; always 1 for accounts, which have no versions.
        changed: height that wrote it last; 0 when absent.
        value: of an account or kernel object; for a record its fields by leaf.
        versions: for a record, the version that last changed each leaf.
        definition: for a record, the number of its kind's definition.
    """

    key: StateKey
    height: int
    time_ms: int
    version: int = 0
    changed: int = 0
    value: Value = None
    versions: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    definition: int = 0
    present: bool = False

    @property
    def fields(self) -> Mapping[str, Value]:
        """The fields of a record by leaf; empty when absent."""
        return self.value if self.present and self.key.namespace == "record" else {}

    @property
    def reserved(self) -> int:
        """What is reserved of an account as of ``time_ms``: what has expired does not count."""
        if not self.present or self.key.namespace != "account":
            return 0
        return layout.Balance(*self.value).reserved_at(self.time_ms)

    @property
    def expect(self) -> Expect:
        """What a transaction says that rests on this reading."""
        kind, id_ = layout.name_of(self.key.namespace, self.key.components)
        return Expect(kind, id_, self.version)


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold on a target, in force or not (``layout.Hold`` explains the fields)."""

    id: bytes
    targets: tuple[StateKey, ...]
    scopes: tuple[str, ...]
    placed_ms: int
    until_ms: int | None
    principal: bytes
    agency: str
    domain: str
    state: int
    legal: str
    reason: str


@dataclass(frozen=True, slots=True)
class Holds:
    """All unreleased holds on a target: complete, because their count is certified."""

    target: StateKey
    height: int
    time_ms: int
    holds: tuple[Hold, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of ids of one kind, or all of them.

    Proved where ``index`` names the field of an index of the ledger: then ``total`` records were
    listed under ``value`` at ``height``, of which these are ``len(ids)`` in a row. Otherwise they
    come from one node's own index: get what you rely on.

    Args:
        kind: of the records.
        ids: of the records, each as its components.
        height: of the state that shows them.
        next: what to pass as ``after`` for the page after; None: this is the last.
        index, value: the field and its value; None: all records of the kind.
        time_ms: chain time of ``height``; None unless proved.
        total: how many are listed; None unless proved.
        changed: height at which the list changed last, 0: it never did; None unless proved.
    """

    kind: str
    ids: tuple[tuple[Value, ...], ...]
    height: int
    next: tuple[Value, ...] | None = None
    index: str | None = None
    value: Value = None
    time_ms: int | None = None
    total: int | None = None
    changed: int | None = None

    @property
    def proved(self) -> bool:
        """Whether what is listed is proved."""
        return self.total is not None


@dataclass(frozen=True, slots=True)
class Decision:
    """The certified outcome of one transaction.

    Args:
        txid: of the transaction.
        height, index: its position.
        time_ms: chain time of its block.
        state: ``applied``, ``refused`` or ``proposed``.
        code: name of the outcome; ``APPLIED`` or why not.
        call: index of the call that failed; None for the transaction as a whole and success.
        detail: as ``consensus.ledger.codes`` lists it; None when applied.
        rules: (domain, rule set's number, action id) of each call.
        root: the leaf of the block's results_root.
        record: the decision with all its leaves.
    """

    txid: bytes
    height: int
    index: int
    time_ms: int
    state: str
    code: str
    call: int | None
    detail: Value
    rules: tuple[tuple[str, int, bytes], ...]
    root: bytes
    record: ledger.Decision = field(repr=False, compare=False)

    @property
    def leaves(self) -> dict[str, Value]:
        """The open leaves by name, decoded each time."""
        return {name: self.record.value(name) for name in self.record.names}

    @property
    def closed(self) -> int:
        """How many leaves this reader may not see."""
        return self.record.closed if isinstance(self.record, Shown) else 0

    @property
    def cursor(self) -> Cursor:
        """Its place, after which ``Client.follow`` goes on."""
        return Cursor(self.height, self.index)

    @property
    def applied(self) -> bool:
        """Whether the transaction took effect."""
        return self.state == "applied"


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in the sequence of all decisions: the last one that a reader has handled.

    Index -1 is before the first decision of ``height``. Its text, as ``812.3``, is for keeping.
    """

    height: int
    index: int = -1

    def __str__(self) -> str:
        return f"{self.height}.{self.index}"

    @classmethod
    def read(cls, text: str) -> Cursor:
        """Return the cursor of a text.

        Raises:
            DraftError: it is none.
        """
        found = _CURSOR.fullmatch(text)
        if found is None:
            raise DraftError(
                f"{text!r} is no place of a decision", hint="height and index, such as 812.3"
            )
        return cls(int(found[1]), int(found[2]))


_CURSOR: Final = re.compile(r"([0-9]{1,18})\.(-1|[0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A node did not take a transaction. One node said so; nothing certifies it."""

    txid: bytes | None
    status: int
    code: str
    message: str
    hint: str
    retry_after_ms: int = 0

    @property
    def elsewhere(self) -> bool:
        """Whether another node, or the same one later, may well take it."""
        return self.status in (Status.BUSY, Status.UNAVAILABLE)


Outcome = Decision | Refusal


@dataclass(frozen=True, slots=True)
class Finding:
    """A check that a draft fails now: as a refusal would say it."""

    code: str
    call: int | None
    detail: Value


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody who has a role now."""

    principal: bytes
    agency: str
    scope: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Simulation:
    """What one node says would become of a draft now: not proved, and nothing is kept.

    Args:
        height, time_ms: of the state it was tried on.
        state, code, call, detail: the outcome, as of a ``Decision``; None where it rests on what
            this key may not read.
        findings: every check that fails, in the order of the checks.
        complete: False where something could not be judged for what failed before it.
        hidden: True where findings are left out that rest on what this key may not read.
        holders: who could give missing approvals, by role.
    """

    height: int
    time_ms: int
    state: str | None
    code: str | None
    call: int | None
    detail: Value
    findings: tuple[Finding, ...]
    complete: bool
    hidden: bool
    holders: Mapping[str, tuple[Holder, ...]]

    def of(self, *codes: str) -> tuple[Finding, ...]:
        """Return the findings of some codes."""
        return tuple(each for each in self.findings if each.code in codes)

    @property
    def missing(self) -> Value:
        """The approvals that are missing, as NEEDS_APPROVAL lists them; empty if none is."""
        return [row for each in self.of("NEEDS_APPROVAL") for row in each.detail]

    @property
    def moved(self) -> tuple[Finding, ...]:
        """Versions, facts and rules that are not as the draft knows them."""
        return self.of("STALE", "BASIS_MOVED", "RULES_MOVED")

    @property
    def holds(self) -> tuple[bytes, ...]:
        """Ids of the holds that stop it."""
        return tuple(id_ for each in self.of("HELD") for id_ in each.detail)

    @property
    def failing(self) -> tuple[Finding, ...]:
        """Conditions that are false."""
        return self.of("REQUIREMENT")


@dataclass(frozen=True, slots=True)
class Height:
    """A certified height, and all its decisions when they were asked for."""

    height: int
    epoch: int
    time_ms: int
    state_root: bytes
    results_root: bytes
    decisions: tuple[Decision, ...] | None = None
