"""Rule sets as clients see them change: one by its number, and the history of a domain.

Everything is proved: numbers of a domain have no gaps, so a history that shows every number from
the latest down to one that is proved absent leaves none out.

Not here: the rule sets in force (``Client.rules``), and checking a rule set before it is proposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from comity.drafting import Call
from comity.errors import AbsentError, DraftError
from comity.results import Entry
from comity.session import Statements, statement_of
from consensus import codec
from consensus.codec import Value
from consensus.errors import ProofError
from consensus.ledger import layout, rules
from consensus.ledger.layout import ADOPTION, Adoption, RulesHead
from consensus.ledger.rules import Definition
from consensus.protocol import KEYS_MAX, GetRules, StateKey
from consensus.reads import Rows, SingleRow, read_rules

if TYPE_CHECKING:
    from comity.client import RulesInForce
    from comity.network import Network
    from comity.results import Decision
    from comity.verify import Trust

STATES: Final = {
    layout.PROPOSED: "proposed",
    layout.ACTIVATED: "activated",
    layout.OBJECTED: "objected",
    layout.WITHDRAWN: "withdrawn",
    layout.LAPSED: "lapsed",
}


@dataclass(frozen=True, slots=True)
class Step:
    """What somebody did about a rule set: ``proposed``, ``activated``, ``objected``, …"""

    what: str
    txid: bytes
    principal: bytes
    agency: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class Adopted:
    """What became of one number of a domain.

    Args:
        state: ``proposed``, ``activated``, ``objected``, ``withdrawn`` or ``lapsed``.
        from_ms, until_ms: if activated, when it is in force; None at the end: without end.
        steps: who did what, oldest first; none for rule sets of the genesis file.
    """

    domain: str
    number: int
    state: str
    from_ms: int | None
    until_ms: int | None
    steps: tuple[Step, ...]

    def in_force(self, time_ms: int) -> bool:
        """Return whether it is in force at a chain time."""
        began = self.from_ms is not None and self.from_ms <= time_ms
        return began and (self.until_ms is None or time_ms < self.until_ms)


@dataclass(frozen=True, slots=True)
class RuleHistory:
    """All numbers of a domain, newest first, as of a certified height."""

    domain: str
    height: int
    time_ms: int
    numbers: tuple[Adopted, ...]


@dataclass(frozen=True, slots=True)
class RulePart:
    """One part of a rule set with its path to the root that the state holds.

    ``RULE_PARTS.verify_path`` of ``consensus.ledger.rules`` checks it.
    """

    encoded: bytes
    leaf: bytes
    index: int
    count: int
    path: tuple[bytes, ...]
    root: bytes


@dataclass(frozen=True, slots=True)
class NumberedRules:
    """A rule set, in force or not, with what became of it."""

    height: int
    time_ms: int
    definition: Definition
    encoded: bytes
    adopted: Adopted

    def part(self, part_class: int, name: str) -> RulePart:
        """Return a part with its path to the root of the parts, which the state holds.

        Args:
            part_class: ``HEAD``, ``PARAMETER``, ``KIND_PART``, ``ACCOUNT_PART`` or ``ACTION_PART``.
            name: of the part; empty for the head.

        Raises:
            DraftError: there is no such part.
        """
        definition = self.definition
        try:
            index, count, path = rules.part_path(definition, part_class, name)
        except KeyError as error:
            said = f"{definition.domain}#{definition.number} has no part {name!r} of that class"
            raise DraftError(said) from error
        found = rules.parts(definition)[index]
        root = rules.parts_root(definition)
        return RulePart(found.encoded, found.leaf, index, count, tuple(path), root)


class RuleActs:
    """What a client does about rule sets; a part of ``Client``."""

    if TYPE_CHECKING:
        trust: Trust
        _network: Network

        async def get(self, namespace: str, *components: Value) -> Entry: ...
        async def rules(self, *, refresh: bool = False) -> RulesInForce: ...
        async def propose(
            self, *calls: Call, reads: Sequence[Entry] = (), reason: str = ""
        ) -> Decision: ...
        async def get_many(self, keys: Sequence[StateKey]) -> tuple[Entry, ...]: ...
        async def read_for(self, call: Call) -> tuple[Entry, ...]: ...
        async def transact(
            self, *calls: Call, reads: Sequence[Entry] = (), reason: str = ""
        ) -> Decision: ...

    async def rule_set(self, domain: str, number: int) -> NumberedRules | None:
        """Return a rule set by its number, in force or not, proved; None if there is none."""
        if number < 1:  # 0 would ask for those in force
            return None
        height_min = self.trust.height
        place = (domain, number)
        keys = [StateKey("rules", place), StateKey("rules", (*place, ADOPTION))]

        def read(result: Value, statements: Statements) -> NumberedRules | None:
            found = read_rules(result)
            self.trust.fresh(found.rows.height, height_min)
            statement = statement_of(statements, found.rows.height)
            texts = {(text.domain, text.number): text.encoded for text in found.sets}
            return numbered(self.trust.rows(found.rows, statement, keys), texts.get(place))

        return await self._network.ask(GetRules(height_min, domain, number), read)

    async def rule_history(self, domain: str) -> RuleHistory:
        """Return what became of every number of a domain, newest first; none can be left out.

        Raises:
            AbsentError: nothing was ever proposed for that domain.
        """
        head = await self.get("rules", domain)
        if not head.present:
            raise AbsentError(
                f"no rule set of domain {domain!r} was ever proposed",
                hint="`comity rules show` lists the domains",
            )
        number = RulesHead(*head.value).latest
        found: list[Adopted] = []
        while number > 0:
            below = range(number, max(number - KEYS_MAX, 0), -1)
            keys = [StateKey("rules", (domain, each, ADOPTION)) for each in below]
            entries = await self.get_many(keys)
            shown = [adopted(entry) for entry in entries if entry.present]
            found += shown
            number = number - len(below) if len(shown) == len(below) else 0
        return RuleHistory(domain, head.height, head.time_ms, tuple(found))

    async def propose_rules(
        self, rule_set: str | bytes | Definition, *, reason: str = ""
    ) -> Decision:
        """Propose a rule set, in TOML or its canonical form, under the next number of its domain.

        Raises:
            RulesError, DecodeError: it is no rule set. Whether it goes together with the others is
                judged on the chain.
        """
        definition, canonical = encoded(rule_set)
        named = {"domain": definition.domain, "number": definition.number}
        return await self._about_rules("propose_rules", {**named, "rules": canonical}, reason)

    async def activate_rules(
        self, domain: str, number: int, from_ms: int, *, reason: str = ""
    ) -> Decision:
        """Say from which chain time on a proposed rule set is in force.

        Where the charter asks for approvals, as with the other acts on rule sets, it is stored as a
        proposal: the decision says ``proposed``, and the last approval brings it about.
        """
        inputs = {"domain": domain, "number": number, "from": from_ms}
        return await self._about_rules("activate_rules", inputs, reason)

    async def object_rules(self, domain: str, number: int, *, reason: str = "") -> Decision:
        """Object, for one's agency, to a rule set before its time."""
        inputs = {"domain": domain, "number": number}
        return await self._about_rules("object_rules", inputs, reason)

    async def withdraw_rules(self, domain: str, number: int, *, reason: str = "") -> Decision:
        """Take back a rule set that one's agency proposed, before it is activated."""
        inputs = {"domain": domain, "number": number}
        return await self._about_rules("withdraw_rules", inputs, reason)

    async def _about_rules(self, act: str, inputs: dict[str, Value], reason: str) -> Decision:
        call = Call("charter", act, inputs)
        reads = await self.read_for(call)
        action = (await self.rules()).book.action("charter", act)
        if action is not None and action.approvals is not None:
            return await self.propose(call, reads=reads, reason=reason)
        return await self.transact(call, reads=reads, reason=reason)


def next_change(found: Rows, time_ms: int) -> int | None:
    """Return when a rule set comes into force after ``time_ms``; None if none is due.

    Args:
        found: the rows of an answer to ``rules``, verified.
    """
    times: list[int] = []
    for row in found.rows:
        value = codec.parse(row.value, "rules") if isinstance(row, SingleRow) else None
        # The first row lists the domains, the others are heads and roots.
        if isinstance(value, list) and len(value) > 1 and isinstance(value[1], list):
            coming = RulesHead(*value).coming(time_ms)
            times += [] if coming is None else [coming[1]]
    return min(times, default=None)


def adopted(entry: Entry) -> Adopted:
    """Return what an adoption's leaf says."""
    leaf = Adoption(*entry.value)
    steps = tuple(Step(*step) for step in leaf.steps)
    state = STATES.get(leaf.state, str(leaf.state))
    return Adopted(leaf.domain, leaf.number, state, leaf.from_ms, leaf.until_ms, steps)


def numbered(entries: Sequence[Entry], text: bytes | None) -> NumberedRules | None:
    """Return a rule set from its proved entries, None if it is proved absent.

    Raises:
        DecodeError, ProofError: the text is not what the state names.
    """
    root, adoption = entries
    if not root.present:
        return None
    domain, number = root.key.components
    if text is None or not adoption.present:
        raise ProofError(f"rule set {domain}#{number} is not shown")
    definition = rules.decode_definition(text)
    if rules.parts_root(definition) != root.value:
        raise ProofError(f"rule set {domain}#{number} is not what the state names")
    return NumberedRules(root.height, root.time_ms, definition, text, adopted(adoption))


def encoded(rule_set: str | bytes | Definition) -> tuple[Definition, bytes]:
    """Return a rule set's definition and canonical form.

    Args:
        rule_set: TOML, the canonical form, or a definition.

    Raises:
        RulesError, DecodeError: it is none.
    """
    if isinstance(rule_set, str):
        rule_set = rules.load_toml(rule_set)
    elif isinstance(rule_set, bytes):
        rule_set = rules.decode_definition(rule_set)
    return rule_set, rules.encode_definition(rule_set)


def plain(found: Adopted) -> dict[str, Value]:
    """Return an adoption for programs."""
    return {
        "number": found.number,
        "state": found.state,
        "from_ms": found.from_ms,
        "until_ms": found.until_ms,
        "steps": [
            [step.what, step.txid, step.principal, step.agency, step.time_ms]
            for step in found.steps
        ],
    }
