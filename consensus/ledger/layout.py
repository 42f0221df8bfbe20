"""Where things lie in the state and what their leaves hold, apart from records.

    agency     [name]              [name, title, status, held, successor, predecessors]
    principal  [id]                [id, agency, kind, subject, person, status]
    subject    [subject | person]  [principal, ...]                 of one person, as registered
    key        [key]               [key, principal, status, since_ms, until_ms, next]
    role       [principal, role]   [principal, role, scope, from_ms, until_ms, suspends_at_ms,
                                    status]
    grant      [id]                [id, source, agency, issuer, holder, actions, when, from_ms,
                                    until_ms, suspends_at_ms, depth, status]
    rules      []                  [domain, ...]                    ascending
    rules      [domain]            [domain, [[number, from_ms], ...], held, [[action, held], ...],
                                    latest]
    rules      [domain, number]    root of the rule set's parts     (its row also has the rule set)
    rules      [domain, number, "adoption"]
                                   [domain, number, state, from_ms, until_ms,
                                    [[step, txid, principal, agency, time_ms], ...]]
    record     [kind, *id]         a salted list, see ``state.record``
    account    [family, *id]       [id, balance, reserved, held, [[until_ms, amount], ...]]
                                   the last item left out where it is empty
    reservation [domain, *id]      [id, account id, amount, posted, until_ms, state]
    holds      [space, components] [size, held]
    holds      [space, components, position]   [hold id], [null] where vacated
    hold       [id]                [id, [[space, components], ...], scopes, placed_ms, until_ms,
                                    principal, agency, domain, state, legal, reason]
    index      [kind.field, value] [size]
    index      [kind.field, value, position]   [id of a record], [null] where vacated
    index      [kind.field, value, id]         [position], [null] where the record left
    proposal   [txid], [txid, "draft"]         see ``proposals``
    disclosure [id]                            see ``disclosures``
    erasure    [kind, *id, field]  [commitment | null, version, txid, agency, principal, time_ms,
                                    legal]                  of the values of a sealed field
    review     [id]                [id, txid, call, [domain, action], principal, agency, source,
                                    used_ms, due_ms, role, state, reviewer, reviewed_ms]
    reviews    [principal, role]   [[review, due_ms], ...]          unreviewed uses of a role,
    reviews    [grant]             [[review, due_ms], ...]          or of a grant
    index      [review.role, role] ...                              likewise, by who reviews
    committee, member_key                      see ``seats``
    unique     [domain, label, *]  [txid], [null] where free again
    corrections [txid]             [txid of the transaction that took it back]
    sequence   [key]               [highest, window]
    pool       []                  32 bytes, never disclosed

Each is one salted leaf with one version; accounts, indexes, sequences and the pool have no
versions (always 1). ``held`` is a mask of the scopes with unreleased holds, expired or not: ALL,
PAY, EDIT; changing it steps no version.

Not here: how leaves are read and written within a block (``view``).
Source: docs/protocol/ledger.cddl.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from consensus import codec
from consensus.codec import ARRAYS, Value
from consensus.codec import array_head as array_head
from consensus.codec import encode_bytes as encode_bytes
from consensus.codec import encode_int as encode_int
from consensus.errors import invariant
from consensus.hashing import DIGEST_BYTES, derive_key, keyed
from consensus.ledger import seats
from consensus.ledger.types import ID_COMPONENTS_MAX
from consensus.state.salted import TEXTS
from consensus.table import Table

ACTIVE: Final = 0
"""Status of an agency, principal, key, role or grant in force."""
SUSPENDED: Final = 1
"""Status of an agency or principal."""
REVOKED: Final = 1
"""Status of a key, role or grant."""
COMPROMISED: Final = 2
"""Status of a key that was revoked because others may hold it."""

ALL: Final = 1
PAY: Final = 2
EDIT: Final = 4
SCOPE_MASKS: Final = {"all": ALL, "pay": PAY, "edit": EDIT}

UNCONFIRMED: Final = 0
"""State of a hold that one person placed; it lapses at ``until_ms`` unless a second confirms."""
CONFIRMED: Final = 1
RELEASED: Final = 2

PRINCIPALS_MAX: Final = 16
"""Principals of one person."""

PREDECESSORS_MAX: Final = 16
"""Agencies whose place one agency may take, directly or not."""

GRANT_DEPTH_MAX: Final = 3
"""Grants in a chain."""

KERNEL_SPACES: Final = frozenset(
    {"agency", "principal", "key", "role", "grant", "hold", "review", "rules", seats.SPACE}
)
"""Kernel kinds that ``expects`` may name; any other kind is a kind of record."""


class Agency(NamedTuple):
    """A member organisation.

    One that leaves names its ``successor``; it has left once it is among the ``predecessors`` of
    that one, which are all whose place it has taken, directly or not (None: nobody's). From then on
    its leaf never changes.
    """

    name: str
    title: str
    status: int
    held: int
    successor: str | None = None
    predecessors: list[str] | None = None

    def stands_for(self, name: Value) -> bool:
        """Return whether ``name`` is its own or that of an agency whose place it has taken."""
        return name == self.name or (self.predecessors is not None and name in self.predecessors)


def in_force(agency: Agency, read: Callable[[str], Agency]) -> Agency:
    """Return who stands for an agency now: itself, or its successor's successor, as they are read.

    Args:
        read: gives an agency that exists; called for named successors only, at most
            ``PREDECESSORS_MAX`` + 1 times.
    """
    while agency.successor is not None:
        successor = read(agency.successor)
        if not successor.stands_for(agency.name):
            break
        agency = successor
    return agency


class Principal(NamedTuple):
    """Who can sign. ``kind`` as in ``consensus.genesis``."""

    id: bytes
    agency: str
    kind: int
    subject: bytes | None
    person: list[Value] | None
    status: int


class Key(NamedTuple):
    """A public key of a principal.

    A key that was replaced says by which (``next``) and ends by itself: it is usable while
    ``t < until_ms``. It stays apart from one that was revoked as compromised, even if it is both:
    what it signed while it was in force stands.
    """

    key: bytes
    principal: bytes
    status: int
    since_ms: int
    until_ms: int | None = None
    next: bytes | None = None

    def fault(self, now_ms: int) -> str:
        """Return why the key may not sign at ``now_ms``; empty if it may."""
        if self.status != ACTIVE:
            return "compromised" if self.status == COMPROMISED else "revoked"
        return "" if self.until_ms is None or now_ms < self.until_ms else "rotated"


class Role(NamedTuple):
    """A role given to a principal; valid in ``from_ms <= t < until_ms`` while active."""

    principal: bytes
    role: str
    scope: list[list[str]]
    from_ms: int
    until_ms: int | None
    suspends_at_ms: int | None
    status: int

    def fault(self, now_ms: int) -> str:
        """Return why the role gives no power at ``now_ms``; empty if it does."""
        return _fault(self, now_ms)


class Grant(NamedTuple):
    """Power passed on: some actions of an office's role, for a time.

    ``source`` is ``[office, role]``, or ``[grant]`` for one made from another; ``agency`` the one
    whose power was passed on, ``issuer`` the principal who signed for it; ``holder`` is
    ``[principal]`` or ``[agency, role]``. ``actions`` are ``domain.action``, ascending; ``when`` is
    empty for none; ``depth`` counts the grants that a chain may have from this one on.
    """

    id: bytes
    source: list[Value]
    agency: str
    issuer: bytes
    holder: list[Value]
    actions: list[str]
    when: str
    from_ms: int
    until_ms: int | None
    suspends_at_ms: int | None
    depth: int
    status: int

    def fault(self, now_ms: int) -> str:
        """Return why the grant carries nothing at ``now_ms``; empty if it does."""
        return _fault(self, now_ms)


def _fault(given: Role | Grant, now_ms: int) -> str:
    if given.status != ACTIVE:
        return "revoked"
    if now_ms < given.from_ms:
        return "not yet"
    if given.until_ms is not None and now_ms >= given.until_ms:
        return "expired"
    if given.suspends_at_ms is not None and now_ms >= given.suspends_at_ms:
        return "suspended"
    return ""


PROPOSED: Final = 0
"""State of a rule set that has not been activated."""
ACTIVATED: Final = 1
"""It is in force from a time on, which may yet come, until another takes its place."""
OBJECTED: Final = 2
"""Agencies ended it before its time."""
WITHDRAWN: Final = 3
LAPSED: Final = 4
"""It was to come with another that was ended, and does not compile without it."""

EXECUTOR_HEAD: Final = "~executor"
"""Where the head of the executor lies among those of domains: no domain has such a name."""
ADOPTION: Final = "adoption"
"""Last component of the leaf that says what became of a rule set."""


class RulesHead(NamedTuple):
    """Which rule set of a domain is active from when, and holds on the domain and its actions.

    ``active`` has the one in force and the one that comes next, if there are such; the leaf of each
    number's adoption keeps its interval for ever. ``latest`` is the highest number ever proposed.
    """

    domain: str
    active: list[list[int]]
    held: int
    held_actions: list[list[Value]]
    latest: int

    def number_at(self, now_ms: int) -> int:
        """Return the number active at ``now_ms``, 0 for none."""
        found = 0
        for number, from_ms in self.active:
            if from_ms <= now_ms:
                found = number
        return found

    def coming(self, now_ms: int) -> tuple[int, int] | None:
        """Return number and time of the activation that is still to come, if there is one."""
        for number, from_ms in self.active:
            if from_ms > now_ms:
                return number, from_ms
        return None

    def held_for(self, action: str) -> int:
        """Return the mask of the domain and of one action together."""
        mask = self.held
        for name, held in self.held_actions:
            if name == action:
                mask |= held
        return mask


class Adoption(NamedTuple):
    """What became of a proposed rule set: its interval, and who did what about it.

    In force in ``from_ms <= t < until_ms`` (None: without end) if ``state`` is ACTIVATED, else
    never. A step is ``[what, txid, principal, agency, time_ms]``; what is ``proposed``,
    ``activated``, ``objected``, ``withdrawn`` or ``lapsed``. Those of the genesis file have none.
    """

    domain: str
    number: int
    state: int
    from_ms: int | None
    until_ms: int | None
    steps: list[list[Value]]


class Hold(NamedTuple):
    """A hold on one or more targets, active until released or ``until_ms`` (exclusive; None: until
    released). ``domain`` is that of the action that placed it, ``legal`` what it rests on."""

    id: bytes
    targets: list[list[Value]]
    scopes: int
    placed_ms: int
    until_ms: int | None
    principal: bytes
    agency: str
    domain: str
    state: int
    legal: str
    reason: str

    def blocks(self, now_ms: int) -> bool:
        """Return whether the hold is in force at ``now_ms``."""
        lapsed = self.until_ms is not None and now_ms >= self.until_ms
        return self.state != RELEASED and not lapsed


class Erasure(NamedTuple):
    """That the values which a sealed field of a record has had up to ``version`` are destroyed.

    ``commitment`` is what the field had then, None for nothing.
    """

    commitment: bytes | None
    version: int
    txid: bytes
    agency: str
    principal: bytes
    time_ms: int
    legal: str


OPEN: Final = 0
"""State of a review that nobody has given; what was used ends when it is due."""
JUSTIFIED: Final = 1
UNJUSTIFIED: Final = 2


class Review(NamedTuple):
    """The use of an action's emergency form, and what became of it.

    ``action`` is ``[domain, name]``, ``source`` the power used: ``[principal, role]`` or
    ``[grant]``; ``role`` is that of whoever reviews.
    """

    id: bytes
    txid: bytes
    call: int
    action: list[str]
    principal: bytes
    agency: str
    source: list[Value]
    used_ms: int
    due_ms: int
    role: str
    state: int
    reviewer: bytes | None
    reviewed_ms: int | None

    @property
    def justified(self) -> bool:
        """Whether somebody found that it was."""
        return self.state == JUSTIFIED


class HoldsIndex(NamedTuple):
    """How many unreleased holds a target has, at positions 0, 1, …, and their scopes."""

    size: int
    held: int


class Balance(NamedTuple):
    """An account. ``id`` begins with its family; amounts in minor units.

    ``reserved`` is what its leaf counts as reserved; ``expiring`` says which parts of that end by
    themselves, as ``[until_ms, amount]`` ascending. A part counts while ``t < until_ms``, whether
    anybody has written the account since or not.
    """

    id: list[Value]
    balance: int
    reserved: int
    held: int
    expiring: Sequence[Sequence[int]] = ()

    def reserved_at(self, now_ms: int) -> int:
        """Return what is reserved at ``now_ms``."""
        ended = [amount for until_ms, amount in self.expiring if until_ms <= now_ms]
        return self.reserved - sum(ended)


RESERVED: Final = 0
"""State of a reservation that has neither been posted nor voided; it may have expired."""
POSTED: Final = 1
VOIDED: Final = 2


class Reservation(NamedTuple):
    """An amount taken out of what an account may spend, until it is posted, voided or expires.

    ``id`` begins with the domain whose actions made it, and alone may end it. ``amount`` is what
    was reserved, ``posted`` what of it has been moved; the difference is reserved while ``state``
    is RESERVED and ``t < until_ms`` (None: without end).
    """

    id: list[Value]
    account: list[Value]
    amount: int
    posted: int
    until_ms: int | None
    state: int

    def lasts(self, now_ms: int) -> bool:
        """Return whether it has not expired at ``now_ms``."""
        return self.until_ms is None or now_ms < self.until_ms


def leaf_value(space: str, components: Sequence[Value], value: Value) -> Any:
    """Return the object that stands for the decoded value of a single leaf (a tuple always)."""
    if space == seats.SPACE and components and type(components[0]) is int:
        return seats.Change(*value)
    make = _LEAVES.get((space, len(components)))
    return tuple(value) if make is None else make(*value)


_LEAVES: Final[dict[tuple[str, int], Callable[..., Any]]] = {
    ("agency", 1): Agency,
    ("principal", 1): Principal,
    ("key", 1): Key,
    ("role", 2): Role,
    ("grant", 1): Grant,
    ("rules", 1): RulesHead,
    ("rules", 3): Adoption,
    ("holds", 2): HoldsIndex,
    ("hold", 1): Hold,
    **{("reservation", count): Reservation for count in range(2, 2 + ID_COMPONENTS_MAX)},
    ("review", 1): Review,
    (seats.SPACE, 0): seats.Seats,
    **{("erasure", count): Erasure for count in range(3, 3 + ID_COMPONENTS_MAX)},
}


# --- encodings --------------------------------------------------------------------------------

NULL: Final = codec.encode(None)


def encode_text(text: str) -> bytes:
    """Return canonical CBOR of a text that may recur (a name); ``TEXTS`` without the call."""
    return TEXTS[text]


def encode_value(value: Value) -> bytes:
    """Return canonical CBOR of a plain value: what ``codec.encode`` gives, sooner where simple."""
    return ENCODERS[type(value)](value)


def encode_id(components: Sequence[Value]) -> bytes:
    """Return canonical CBOR of an id: what ``codec.encode`` gives, in a third of its time."""
    count = len(components)
    if count == 1:
        only = components[0]
        return b"\x81" + ENCODERS[type(only)](only)
    head = ARRAYS[count] if count < 24 else array_head(count)
    return head + b"".join([ENCODERS[type(each)](each) for each in components])


ENCODERS: Final = codec.Encoders(codec.ENCODERS)
ENCODERS.update({str: TEXTS.__getitem__, list: encode_id})  # texts recur here: they are names
"""``ENCODERS[type(value)](value)`` is ``encode_value(value)`` without its call."""


def encode_array(items: Sequence[bytes]) -> bytes:
    """Return canonical CBOR of an array of encoded items."""
    count = len(items)
    return (ARRAYS[count] if count < 24 else array_head(count)) + b"".join(items)


PATHS_MAX: Final = 16_384
"""Key paths kept: what a block touches, most blocks touch again."""


def record_components(kind: str, id_: Sequence[Value]) -> bytes:
    """Return canonical CBOR of a record's place, ``[kind, *id]``."""
    count = len(id_)
    skipped = 1 if count < 24 else len(array_head(count))
    return array_head(count + 1) + TEXTS[kind] + encode_id(id_)[skipped:]


class Paths:
    """Key paths of one network: ``(space, components) -> kh``, where a leaf stands in the tree.

    ``kh = keyed_hash(K, cbor[space, [component, ...]])``, ``K = derive_key("key path", chain)``.
    The key differs per network, so nobody can grind collisions or crowded prefixes that hold on
    another one. It is public: ids must not be guessable secrets.

    ``of`` takes the components already encoded, for callers that need the encoding too.
    """

    __slots__ = ("_digests", "_records", "committee", "executor", "pool", "rules")

    def __init__(self, chain: bytes) -> None:
        invariant(len(chain) == DIGEST_BYTES, "a chain has 32 bytes")
        self._digests = Table(keyed(derive_key("key path", chain)), PATHS_MAX)
        self._records = Table(partial(_record_path, self._digests), PATHS_MAX)
        self.pool = self("pool", [])
        self.rules = self("rules", [])
        self.executor = self("rules", [EXECUTOR_HEAD])
        self.committee = self(seats.SPACE, [])

    def __call__(self, space: str, components: Sequence[Value]) -> bytes:
        return self._digests[_input(space, encode_id(components))]

    def of(self, space: str, components_cbor: bytes) -> bytes:
        """Return the key path of components in their canonical encoding."""
        return self._digests[_input(space, components_cbor)]

    def record(self, kind: str, id_: Sequence[Value]) -> tuple[bytes, bytes]:
        """Return encoded components and key path of a record."""
        if len(id_) == 1 and type(id_[0]) is bytes:  # most are: looked up by what need no encoding
            return self._records[kind, id_[0]]
        components = record_components(kind, id_)
        return components, self.of("record", components)

    def named(self, kind: str, id_: Sequence[Value]) -> bytes:
        """Return the key path of what ``[kind, id]`` names in ``expects`` and ``basis``."""
        return self(*place(kind, id_))


def _record_path(digests: Mapping[bytes, bytes], place: tuple[str, bytes]) -> tuple[bytes, bytes]:
    components = record_components(place[0], place[1:])
    return components, digests[_input("record", components)]


def _input(space: str, components_cbor: bytes) -> bytes:
    """Return what is hashed to a key path."""
    return b"\x82" + TEXTS[space] + components_cbor


def place(kind: str, id_: Sequence[Value]) -> tuple[str, list[Value]]:
    """Return space and components of what ``[kind, id]`` names."""
    return (kind, list(id_)) if kind in KERNEL_SPACES else ("record", [kind, *id_])


def name_of(space: str, components: Sequence[Value]) -> list[Value]:
    """Return ``[kind, id]`` of a place; the inverse of ``place``."""
    if space == "record":
        return [components[0], list(components[1:])]
    return [space, list(components)]
