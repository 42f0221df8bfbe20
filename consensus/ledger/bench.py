"""What the execution of a block knows, and how it carries out the calls of a transaction.

Within a block the standing of keys, the powers of principals and the actions in force are kept
until a leaf they rest on is written; their reads are noted anew for every transaction. What
earlier blocks found is taken over where these leaves are as they were (``ledger``, ``authority``).

Those who ask a bench hold it, and it holds none of them: once a block is done with, nothing of it
is left for the collector of cycles.

Not here: the checks of a transaction and its decision (``executor``), and those of a call
(``calls``).
"""

from __future__ import annotations

from collections.abc import Sequence

from consensus.codec import Value
from consensus.ledger import indexes
from consensus.ledger.authority import Granted, Power, Powerless, Standing
from consensus.ledger.calls import Calls
from consensus.ledger.codes import Code, Refused
from consensus.ledger.effects import AMOUNTS, Active
from consensus.ledger.expects import Expectations
from consensus.ledger.judged import Judged
from consensus.ledger.ledger import Ledger, Rules
from consensus.ledger.model import Action, Move, Post, Waterfall
from consensus.ledger.transaction import PROTECTIVE, Call, Transaction
from consensus.ledger.versions import unknown_action
from consensus.ledger.view import View


class Bench:
    """Of one block.

    Args:
        view: of the block.
        ledger: what is common to all blocks of the network.
        rules: in force.
        now_ms: the block's time.
    """

    __slots__ = ("_active", "_ledger", "_powers", "_rules", "_standings", "now_ms", "view")

    def __init__(self, view: View, ledger: Ledger, rules: Rules, now_ms: int) -> None:
        self.view = view
        self.now_ms = now_ms
        self._ledger = ledger
        self._rules = rules
        self._standings: dict[bytes, Standing] = {}
        self._powers: dict[tuple[bytes, str | bytes], Power] = {}
        self._active = rules.actives

    def standing(self, key: bytes) -> Standing:
        """Return the standing of a key, as the transaction sees it."""
        if self.view.authority_moved:  # what the transaction writes may yet be taken back
            now = Standing(self.view, key, self.now_ms)
            self.view.reads.update(now.reads)
            return now
        found = self._standings.get(key)
        if found is None:
            found = self._ledger.authority.standing(self.view, key, self.now_ms)
            self._standings[key] = found
        self.view.reads.update(found.reads)
        return found

    def power(self, standing: Standing, source: str | bytes) -> Power:
        """Return what the author has from a role or a grant, as the transaction sees it."""
        view, now_ms = self.view, self.now_ms
        if view.authority_moved:
            return self._ledger.authority.judge(view, standing, source, now_ms)
        found = self._powers.get((standing.key, source))
        if found is None:
            found = self._ledger.authority.power(view, standing, source, now_ms)
            self._powers[standing.key, source] = found
        view.reads.update(found.reads)
        return found

    def power_for(self, standing: Standing, action: Action, under: Sequence[bytes]) -> Power:
        """Return what the author has for ``action``, by role or by the grants it acts under."""
        if under:
            return self._power_under(standing, action, under)
        return self.power(standing, action.actor.role)

    def _power_under(self, standing: Standing, action: Action, under: Sequence[bytes]) -> Power:
        """Return what the author has for ``action`` from the grants that the transaction names.

        The first that names the action and carries power counts. An action that none of them names
        is judged by the author's own role; a grant that does not exist is never passed over.
        """
        role, name = action.actor.role, f"{action.domain}.{action.name}"
        faults: list[Value] = []
        others: list[Value] = []
        chosen: Power | None = None
        for id_ in under:
            power = self.power(standing, id_)
            if not isinstance(power, Granted) or not power.known:
                return power
            if name not in power.actions:
                others.append(["grant", id_, "action"])
            elif power.missing:
                faults += power.missing
            elif power.role != role:
                faults.append(["office", power.role, "action"])
            elif chosen is None:
                chosen = power
        if chosen is not None:
            return chosen
        own = self.power(standing, role)
        if faults:
            return Powerless(own, faults)
        return Powerless(own, [*own.missing, *others]) if own.missing else own

    def action(self, call: Call) -> Active | None:
        """Return the action in force that a call names; notes the rules it rests on."""
        view = self.view
        key = (call.domain, call.action)
        found = None if view.authority_moved else self._active.get(key)
        if found is None:
            action = self._rules.book.action(*key)
            if action is None:
                return None
            found = self._make_active(action)
            if not view.authority_moved:
                self._active[key] = found
        view.reads.update(found.reads)
        return found

    def _make_active(self, action: Action) -> Active:
        reads: dict[bytes, bytes] = {}
        held = 0
        for domain in _domains_of(action):
            head, leaves = self.view.rules_of(domain)
            if domain == action.domain:
                held = head.value.held_for(action.name)
            reads.update(leaves)
        number = self._rules.in_force[action.domain].number
        return Active(action, number, self.now_ms, held, reads)

    def cosigner(self, key: bytes, judged: Judged) -> Standing:
        """Return the standing of a cosigner, which is in force."""
        cosigner = self.standing(key)
        judged.cosigners.append(cosigner.cbor)
        if not cosigner.known:
            raise Refused(Code.KEY_INACTIVE, [key, "unknown"])
        if cosigner.fault is not None:
            raise cosigner.fault.again()
        return cosigner

    def run(
        self,
        transaction: Transaction,
        standing: Standing,
        judged: Judged,
        expects: Expectations,
        calls: Calls,
    ) -> None:
        """Judge and carry out all calls of a transaction."""
        for index, call in enumerate(transaction.calls):
            judged.call = index
            active = self.action(call)
            if active is None:
                raise unknown_action(self.view, call.domain, call.action)
            power = self.power_for(standing, active.action, expects.under)
            judged.actions.append(active.cbor)
            judged.roles.append(power.cbor)
            calls.run(index, call, active, power)
        judged.call = None
        if self.view.indexed:
            indexes.settle(self.view)
        if expects.entries and transaction.lane != PROTECTIVE:
            expects.check_rest(standing)
        judged.links = calls.links
        if calls.covered and calls.covered == len(transaction.calls):
            judged.terms = calls.terms

    def forget(self) -> None:
        """Forget what rests on leaves that were written."""
        self._standings = {}
        self._powers = {}
        self._active = {}


def _domains_of(action: Action) -> list[str]:
    """Return the domains on whose rules an action rests, its own first."""
    domains = {action.domain: None}
    for load in action.loads:
        for owner in (load.kind, load.family):
            if owner is not None:
                domains[owner.domain] = None
    for effect in action.effects:
        if isinstance(effect, AMOUNTS):
            domains[effect.source_family.domain] = None
        if isinstance(effect, Move | Post | Waterfall):
            domains[effect.target_family.domain] = None
        if isinstance(effect, Waterfall) and effect.rest_family is not None:
            domains[effect.rest_family.domain] = None
    return list(domains)
