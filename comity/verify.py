"""Verification of what nodes answer, against the committee that the caller trusts. Pure.

What a node says is used only after these checks, in this order:

1. Certificate: canonical; of this chain; of an epoch whose committee is known; exactly a quorum
   of its members' signatures in increasing order; every signature.
2. Statement of a height: the certificate's own, or one whose hash lies at its height in the
   history tree under the certificate's ``history_root``. Two statements of one height: ForkError.
3. Freshness: a read rests on no height below the newest certified one the caller had seen when it
   asked.
4. Decision: its root lies at its index under ``results_root``; it names the transaction asked for,
   this height and this index.
5. Rows: key paths are computed from what was asked; the proof shows each of them present or absent
   under ``state_root``; each row hashes to what the proof shows; a record names itself.
6. Lists under a count leaf (holds): the count is proved, then every position.

Not here: sockets; evidence bundles. Source: design of light clients after RFC 9162 §2.1.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from comity import decisions
from comity.errors import ForkError, StaleAnswerError
from comity.results import Decision, Entry, Hold, Holds
from comity.words import place_word
from consensus import codec, reads
from consensus.answers import DecisionAnswer
from consensus.codec import Value
from consensus.committee import Committee
from consensus.errors import ProofError
from consensus.evidence.trust import Chain
from consensus.hashing import ZERO
from consensus.hotstuff.types import Statement
from consensus.ledger import layout, rules
from consensus.protocol import StateKey
from consensus.reads import RecordRow, Row, Rows, ShownLeaf, SingleRow
from consensus.state import proof, salted
from consensus.state.merkle import RESULTS
from consensus.state.salted import HiddenOpening, Opening

STATEMENTS_KEPT: Final = 1024
"""Certified statements remembered by height, to notice a fork."""
HOLDS_MAX: Final = reads.ROWS_MAX // 2


class Trust(Chain):
    """What one client knows to be certified. Grows only by what verifies; never goes back.

    Args:
        chain: hash of the genesis file.
        committee: of the first epoch, from the genesis file.
    """

    def __init__(self, chain: bytes, committee: Committee) -> None:
        super().__init__(chain, committee)
        self.paths = layout.Paths(chain)
        self.newest: Statement | None = None
        self._statements: dict[int, Statement] = {}

    @property
    def height(self) -> int:
        """The newest certified height seen; 0 before the first."""
        return 0 if self.newest is None else self.newest.height

    def certified(self, statement: Statement) -> None:
        """Remember a statement.

        Raises:
            ForkError: another one of its height is certified too.
        """
        known = self._statements.get(statement.height)
        if known is None:
            self._statements[statement.height] = statement
            if len(self._statements) > STATEMENTS_KEPT:
                del self._statements[next(iter(self._statements))]
        elif known.hash != statement.hash:
            raise ForkError(f"two certified statements of height {statement.height}")
        if self.newest is None or statement.height > self.newest.height:
            self.newest = statement

    def fresh(self, height: int, height_min: int) -> None:
        """Refuse an answer of ``height`` when ``height_min`` was asked for.

        Raises:
            StaleAnswerError: it is older.
        """
        if height < height_min:
            raise StaleAnswerError(
                f"the answer is of height {height}; height {height_min} is certified already"
            )

    def heights(self, found: Sequence[int], first: int, count: int, height_min: int) -> None:
        """Refuse heights that are not those asked for, or that hide certified ones.

        Args:
            found: heights of the answer.
            first: as asked; negative counts back from the newest.
            count: most heights asked for.
            height_min: the newest certified height known when it was asked; -1: none.

        Raises:
            ProofError: they have gaps, begin elsewhere, or are too many.
            StaleAnswerError: heights known to be certified ought to be among them.
        """
        if not found:
            if first <= height_min and height_min >= 0:
                raise StaleAnswerError(f"no height is shown; {height_min} is certified already")
            return
        if len(found) > count or [*found] != [*range(found[0], found[0] + len(found))]:
            raise ProofError("heights are missing, out of order or too many")
        if first < 0:
            self.fresh(found[0] - first - 1, height_min)
        elif found[0] != first:
            raise ProofError("the answer begins with another height than was asked for")

    # --- decisions ----------------------------------------------------------------------------

    def decision(self, found: DecisionAnswer, statement: Statement, txid: bytes) -> Decision:
        """Return the decision of ``txid`` that ``found`` proves under a verified statement.

        Raises:
            DecodeError: malformed.
            ProofError: of another transaction or place, or not among the height's results.
        """
        decision = decisions.read(found.decision)
        if decision.txid != txid:
            raise ProofError("the decision is about another transaction")
        if found.height != statement.height:
            raise ProofError("the decision is of another height than the statement")
        if (decision.height, decision.index) != (found.height, found.index):
            raise ProofError("the decision names another place than its answer")
        RESULTS.verify_path(
            statement.results_root, found.total, found.index, decision.root, found.path
        )
        return decision

    def all_decisions(self, encoded: Sequence[bytes], statement: Statement) -> tuple[Decision, ...]:
        """Return all decisions of a verified statement's height: none is missing or added.

        Raises:
            DecodeError: malformed.
            ProofError: together they do not make the statement's results_root.
        """
        found = tuple(decisions.read(each) for each in encoded)
        for index, decision in enumerate(found):
            if (decision.height, decision.index) != (statement.height, index):
                raise ProofError("a decision names another place than its answer")
        if RESULTS.root([each.root for each in found]) != statement.results_root:
            raise ProofError("the decisions of the height are not complete")
        return found

    # --- rows ---------------------------------------------------------------------------------

    def rows(
        self, found: Rows, statement: Statement, keys: Sequence[StateKey]
    ) -> tuple[Entry, ...]:
        """Return the entries of ``keys`` that ``found`` proves under a verified statement.

        Raises:
            DecodeError: a row or the proof is malformed.
            ProofError: a row, or an absence, is not what the state holds.
        """
        if found.height != statement.height:
            raise ProofError("the rows are of another height than the statement")
        if len(found.rows) != len(keys):
            raise ProofError(f"{len(found.rows)} rows for {len(keys)} keys")
        khs = [self.paths(key.namespace, key.components) for key in keys]
        shown = proof.verify(found.proof, statement.state_root, khs, height=statement.height)
        return tuple(
            entry_of(key, kh, row, shown[kh], statement.height, statement.time_ms)
            for key, kh, row in zip(keys, khs, found.rows, strict=True)
        )

    def holds(self, found: Rows, statement: Statement, target: StateKey) -> Holds:
        """Return all holds on ``target``: count, positions and holds, each proved.

        Raises:
            DecodeError, ProofError: as ``rows``; also one hold less or more than the count.
        """
        keys = _holds_keys(found, target)
        head, *rest = self.rows(found, statement, keys)
        count: int = head.value[0] if head.present else 0
        positions, holds = rest[:count], rest[count:]
        ids = [entry.value[0] for entry in positions if entry.present and entry.value[0]]
        if [key.components for key in keys[1 + count :]] != [(id_,) for id_ in ids]:
            raise ProofError("the holds shown are not those that the target lists")
        return Holds(
            target,
            statement.height,
            statement.time_ms,
            tuple(_hold(layout.Hold(*entry.value)) for entry in holds if entry.present),
        )

    def index(
        self, found: Rows, statement: Statement, place: StateKey, first: int, limit: int
    ) -> tuple[Entry, tuple[tuple[Value, ...], ...]]:
        """Return an index's size leaf and the ids at ``limit`` positions from ``first`` on.

        Raises:
            DecodeError, ProofError: as ``rows``; also an id less or more than the size allows.
        """
        head = found.rows[0] if found.rows else None
        size = 0
        if isinstance(head, SingleRow):
            data = head.value
            (size,) = codec.decode(data, _INDEX_HEAD, bytes_max=len(data), what="index size")
        at = [(*place.components, each) for each in range(first, min(first + limit, size))]
        keys = [place, *(StateKey(place.namespace, each) for each in at)]
        entry, *listed = self.rows(found, statement, keys)
        ids = [each.value[0] for each in listed if each.present]
        if len(ids) != len(at) or not all(isinstance(id_, list) for id_ in ids):
            raise ProofError("a position of the index holds no record")
        return entry, tuple(tuple(id_) for id_ in ids)

    def rules(
        self, found: reads.Rules, statement: Statement, domain: str | None
    ) -> tuple[RuleSetRow, ...]:
        """Return the rule sets in force at a verified statement, of one domain or of all.

        Raises:
            DecodeError, ProofError: as ``rows``; also a rule set that is missing, not in force,
                or not the one that the state names.
        """
        keys = _rules_keys(found.rows, domain)
        entries = self.rows(found.rows, statement, keys)
        shown = {entry.key.components: entry for entry in entries if entry.present}
        domains = list(shown[()].value) if () in shown else []
        if domain is not None:
            domains = [domain] if domain in domains else []
        texts = {(text.domain, text.number): text.encoded for text in found.sets}
        out: list[RuleSetRow] = []
        for name in domains:
            if (name,) not in shown:
                raise ProofError(f"the rules of domain {name} are not shown")
            number = layout.RulesHead(*shown[name,].value).number_at(statement.time_ms)
            if not number:
                continue
            root, encoded = shown.get((name, number)), texts.get((name, number))
            if root is None or encoded is None:
                raise ProofError(f"rule set {name}#{number} is in force and not shown")
            definition = rules.decode_definition(encoded)
            if rules.parts_root(definition) != root.value:
                raise ProofError(f"rule set {name}#{number} is not what the state names")
            out.append(RuleSetRow(name, number, encoded, definition))
        return tuple(out)


@dataclass(frozen=True, slots=True)
class RuleSetRow:
    """A rule set that is proved to be in force."""

    domain: str
    number: int
    encoded: bytes
    definition: rules.Definition


def _rules_keys(found: Rows, domain: str | None) -> list[StateKey]:
    """Return the keys that unproved rows claim to show; proving them comes after."""
    keys = [StateKey("rules", ())]
    rows = iter(found.rows)
    domains: list[str] = [] if domain is None else [domain]
    first = next(rows, None)
    if domain is None and isinstance(first, SingleRow):
        domains = codec.decode(first.value, _DOMAINS, bytes_max=len(first.value), what="rules")
    for name in domains:
        keys.append(StateKey("rules", (name,)))
        head = next(rows, None)
        if not isinstance(head, SingleRow):
            continue
        value = codec.decode(head.value, _RULES_HEAD, bytes_max=len(head.value), what="rules")
        for number, _ in value[1]:
            keys.append(StateKey("rules", (name, number)))
            next(rows, None)
    return keys


_DOMAINS: Final = codec.list_of(codec.text(64, low=1), 256)
_RULES_HEAD: Final = codec.array(
    codec.text(64),
    codec.list_of(codec.array(codec.integer(1), codec.count), 256),
    codec.count,
    codec.list_of(codec.plain, 4096),
    codec.integer(1),
)


def entry_of(
    key: StateKey, kh: bytes, row: Row | None, found: proof.Found, height: int, time_ms: int
) -> Entry:
    """Return the entry of a row that is what ``found`` proves, as of a height.

    Raises:
        DecodeError: the row is malformed.
        ProofError: it is another row.
    """
    where = place_word(key.namespace, key.components, short=True)
    if found is None or found[0] == ZERO:
        if row is not None:
            raise ProofError(f"{where} is shown, but proved absent")
        changed = 0 if found is None else found[1]
        return Entry(key, height, time_ms, changed=changed)
    if row is None:
        raise ProofError(f"{where} is said to be absent, but proved present")
    vh, changed = found
    if key.namespace == "record":
        return record_entry(key, kh, row, vh, changed, height, time_ms)
    if not isinstance(row, SingleRow):
        raise ProofError(f"{where} is shown as a record")
    opening = Opening("", row.version, row.salt, row.value)
    if salted.opening_hash(kh, opening) != vh:
        raise ProofError(f"{where} is not what the state holds")
    value = _plain(row.value)
    return Entry(key, height, time_ms, row.version, changed, value, present=True)


def record_entry(
    key: StateKey, kh: bytes, row: Row, vh: bytes, changed: int, height: int, time_ms: int
) -> Entry:
    """Return the record that an untrusted row shows, whose value hash is certified to be ``vh``.

    Raises:
        DecodeError: malformed.
        ProofError: it is another record, or does not hash to that.
    """
    where = place_word(key.namespace, key.components, short=True)
    if not isinstance(row, RecordRow):
        raise ProofError(f"{where} is not shown as a record")
    kind, definition, id_, version, count = codec.decode(
        row.header, _HEADER, bytes_max=len(row.header), what="record header"
    )
    if [kind, *id_] != [*key.components]:
        raise ProofError(f"{where} was asked for, another is shown")
    if count != len(row.leaves) or len(row.decoys) != salted.decoy_count(count):
        raise ProofError(f"{where} does not show all its leaves")
    hashes = [salted.opening_hash(kh, _opening(leaf)) for leaf in row.leaves]
    if salted.list_root(salted.RECORD, row.header, hashes, row.decoys) != vh:
        raise ProofError(f"{where} is not what the state holds")
    fields = {leaf.name: _plain(leaf.value) for leaf in row.leaves if leaf.value is not None}
    versions = {leaf.name: leaf.version for leaf in row.leaves}
    return Entry(
        key,
        height,
        time_ms,
        version,
        changed,
        fields,
        versions,
        definition,
        present=True,
    )


_HEADER: Final = codec.array(
    codec.text(64, low=1),
    codec.integer(1),
    codec.list_of(codec.plain, 16),
    codec.integer(1),
    codec.integer(0, salted.LEAVES_MAX),
)


def _opening(leaf: ShownLeaf) -> Opening | HiddenOpening:
    if leaf.hidden is not None:
        return HiddenOpening(leaf.name, leaf.version, leaf.hidden)
    return Opening(leaf.name, leaf.version, leaf.salt or b"", leaf.value or b"")


def _plain(data: bytes) -> Value:
    return codec.decode(data, codec.plain, bytes_max=len(data), what="value")


def _holds_keys(found: Rows, target: StateKey) -> list[StateKey]:
    """Return the keys that unproved rows claim to show; proving them comes after."""
    place = (target.namespace, [*target.components])
    keys = [StateKey("holds", place)]
    head = found.rows[0] if found.rows else None
    if not isinstance(head, SingleRow):
        return keys
    value = codec.decode(head.value, _HOLDS_HEAD, bytes_max=len(head.value), what="holds")
    count = value[0]
    keys += [StateKey("holds", (*place, position)) for position in range(count)]
    for row in found.rows[1 : 1 + count]:
        if isinstance(row, SingleRow):
            (id_,) = codec.decode(row.value, _HOLD_ID, bytes_max=len(row.value), what="hold id")
            if id_ is not None:
                keys.append(StateKey("hold", (id_,)))
    return keys


_HOLDS_HEAD: Final = codec.array(codec.integer(0, HOLDS_MAX), codec.integer(0, 7))
_HOLD_ID: Final = codec.array(codec.optional(codec.bytes32))
_INDEX_HEAD: Final = codec.array(codec.count)


def _hold(hold: layout.Hold) -> Hold:
    scopes = tuple(name for name, mask in layout.SCOPE_MASKS.items() if hold.scopes & mask)
    return Hold(
        hold.id,
        tuple(StateKey(space, tuple(components)) for space, components in hold.targets),
        scopes,
        hold.placed_ms,
        hold.until_ms,
        hold.principal,
        hold.agency,
        hold.domain,
        hold.state,
        hold.legal,
        hold.reason,
    )
