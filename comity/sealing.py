"""Sealed values of a client: delivered to their audience, opened for it, erased.

A sealed input is given as ``Sealed(value)``. Before the transaction is signed, the value goes to
the node of each agency in its audience, over a TLS link of its own, and to nobody else; the
transaction carries their acknowledgements. Readers of the audience get values with ``unseal``,
which checks each against the commitment in the proved record.

Not here: what is on the chain (``consensus.ledger.sealing``).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import trio

from comity.drafting import Call, Sealed, fields_of, find_action
from comity.errors import DraftError, NotReachableError, RequestError
from comity.listing import unknown_kind
from comity.network import Network
from comity.results import Decision, Entry
from comity.servers import servers_of
from comity.session import Server
from comity.verify import Trust
from comity.words import suggest
from consensus import sealed
from consensus.codec import Value
from consensus.errors import DecodeError, RemoteProtocolError
from consensus.ledger.layout import Agency, in_force
from consensus.ledger.model import Action, Assign, Create, Kind, Rulebook
from consensus.ledger.private import slot
from consensus.ledger.sealing import Opening, check_value, delivery_message
from consensus.ledger.transaction import Ack
from consensus.ledger.types import InputError, Type
from consensus.protocol import GetSealed, StateKey
from consensus.sealed import SEALED_MAX, Deliver, Item
from consensus.signing import verify

if TYPE_CHECKING:
    from comity.client import RulesInForce
    from comity.keys import Key

OPEN: Final = "open"
ERASED: Final = "erased"
ABSENT: Final = "absent"
CLOSED: Final = "sealed"
_WORDS: Final = {
    sealed.OPEN: OPEN,
    sealed.ERASED: ERASED,
    sealed.ABSENT: ABSENT,
    sealed.CLOSED: CLOSED,
}
AGENCIES_MAX: Final = 1024
UNSEAL_SECONDS_MAX: Final = 5.0
"""How long one node may take to give values before another is asked."""


@dataclass(frozen=True, slots=True)
class Unsealed:
    """What a reader gets of one sealed field.

    Args:
        state: ``open``; ``erased``: by the act ``txid``; ``absent``: no node of the audience that
            could be reached has it; ``sealed``: it is not for this reader.
        value: where it is open; it is what the record commits to.
        typed: whether the value is of the field's type, which the network could not check.
        opening: where it is open, all that the commitment hides; it shows the value to others.
    """

    field: str
    commitment: bytes
    state: str
    value: Value = None
    txid: bytes | None = None
    typed: bool = True
    opening: Opening | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """One value on its way to the agencies of its audience."""

    item: Item
    opening: Opening
    audience: tuple[str, ...]


def sealed_type(action: Action, name: str) -> Type | None:
    """Return the type of what an input seals: that of a sealed field which it is put into."""
    for effect in action.effects:
        if isinstance(effect, Create | Assign):
            for field, expression in effect.assignments:
                declared = effect.kind.fields[field]
                if declared.sealed_for and ("input", name) in expression.reads:
                    return declared.type
    return None


class Sealing:
    """How a client seals and unseals; a part of ``Client``."""

    if TYPE_CHECKING:
        chain: bytes
        key: Key | None
        trust: Trust
        _network: Network

        async def get_many(self, keys: Sequence[StateKey]) -> tuple[Entry, ...]: ...
        async def rules(self, *, refresh: bool = False) -> RulesInForce: ...
        async def read_for(self, call: Call) -> tuple[Entry, ...]: ...
        async def transact(
            self,
            *calls: Call,
            reads: Sequence[Entry] = (),
            reason: str = "",
            cosigners: Sequence[Key] = (),
        ) -> Decision: ...
        async def propose(
            self, *calls: Call, reads: Sequence[Entry] = (), reason: str = ""
        ) -> Decision: ...

    # --- sealing ------------------------------------------------------------------------------

    async def _seal(
        self, book: Rulebook, calls: Sequence[Call], author: bytes, sequence: int, until_ms: int
    ) -> tuple[tuple[Call, ...], Sequence[Ack]]:
        """Deliver the sealed values of a transaction.

        Returns the calls with commitments in their places, and the acknowledgements.

        Raises:
            DraftError: a value may not be sealed there.
            RequestError, NotReachableError: a node of the audience did not take it.
        """
        if not any(isinstance(each, Sealed) for call in calls for each in call.inputs.values()):
            return tuple(calls), ()
        place = slot(self.chain, author, sequence)
        parts: list[_Part] = []
        committed: list[Call] = []
        for index, call in enumerate(calls):
            found = _parts(find_action(book, call.domain, call.action), call, index, place)
            hidden = {name: part.opening.commitment for name, part in found}
            committed.append(replace(call, inputs={**call.inputs, **hidden}))
            parts += [part for _, part in found]
        names = sorted({name for part in parts for name in part.audience})
        servers = await self._servers(names)
        acks: list[Ack] = []

        async def deliver(name: str) -> None:
            own = [part for part in parts if name in part.audience]
            for first in range(0, len(own), SEALED_MAX):
                request = own[first : first + SEALED_MAX]
                acks.extend(
                    await self._deliver_to(servers[name], name, request, sequence, until_ms)
                )

        failures: list[Exception] = []

        async def attempt(name: str) -> None:
            try:
                await deliver(name)
            except Exception as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(attempt, name)
        if failures:
            raise failures[0]
        return tuple(committed), acks

    async def _deliver_to(
        self, server: Server, name: str, parts: Sequence[_Part], sequence: int, until_ms: int
    ) -> list[Ack]:
        request = Deliver(sequence, until_ms, tuple(part.item for part in parts))

        def read(result: Value) -> list[Ack]:
            kept = sealed.read_kept(result)
            if len(kept) != len(parts):
                raise RemoteProtocolError("a node acknowledged another number of values")
            acks: list[Ack] = []
            for each, part in zip(kept, parts, strict=True):
                commitment, signature = each.commitment, each.signature
                if commitment != part.opening.commitment:
                    raise RemoteProtocolError("a node acknowledged another value")
                signed = delivery_message(
                    self.chain, part.opening.slot, commitment, part.item.call, part.item.input
                )
                verify(server.node_key, signed, signature)
                acks.append(Ack(part.item.call, part.item.input, name, server.node_key, signature))
            return acks

        return await self._network.ask_at(server, request, lambda result, _: read(result))

    async def _servers(self, names: Sequence[str]) -> dict[str, Server]:
        """Return where the node of each agency of an audience is, or of its successor."""
        known = self._known_servers()
        found: dict[str, Server] = {}
        for name, agency in (await self._standing_for(names)).items():
            if agency not in known:
                raise DraftError(
                    f"{agency} has no node in the committee, so nothing can be sealed for it",
                    hint="the audience of a sealed field names agencies that run a validator",
                )
            found[name] = known[agency]
        return found

    def _known_servers(self) -> dict[str, Server]:
        return {server.agency: server for server in servers_of(self.trust.committee)}

    async def _standing_for(self, names: Sequence[str]) -> dict[str, str]:
        """Return which agency stands for each now: itself, or who took its place."""
        leaves: dict[str, Agency] = {}
        missing = list(names)
        while missing:
            if len(leaves) + len(missing) > AGENCIES_MAX:
                raise DraftError("too many agencies took the place of one another")
            entries = await self.get_many([StateKey("agency", (name,)) for name in missing])
            for name, entry in zip(missing, entries, strict=True):
                leaves[name] = Agency(*entry.value) if entry.present else Agency(name, "", 0, 0)
            after = [each.successor for each in leaves.values() if each.successor is not None]
            missing = sorted({name for name in after if name not in leaves})
        return {name: in_force(leaves[name], leaves.__getitem__).name for name in names}

    # --- unsealing ----------------------------------------------------------------------------

    async def unseal(self, entry: Entry) -> dict[str, Unsealed]:
        """Return the sealed fields of a record that have a value, as far as this key may see them.

        Nodes record who is shown what. Every value is checked against the record.

        Args:
            entry: of a record, as ``get`` returned it.

        Raises:
            RequestError: DENIED: this key may not read that.
            NotReachableError: no node could be reached at all.
        """
        if entry.key.namespace != "record" or not entry.present:
            return {}
        kind = (await self.rules()).book.kinds.get(str(entry.key.components[0]))
        if kind is None:
            return {}
        values = fields_of(entry, kind)
        found: dict[str, Unsealed] = {}
        by_audience: dict[tuple[str, ...], list[tuple[str, bytes]]] = {}
        for name, field in kind.fields.items():
            commitment = values.get(name)
            if field.sealed_for and isinstance(commitment, bytes):
                by_audience.setdefault(field.sealed_for, []).append((name, commitment))
        for audience, wanted in by_audience.items():
            found.update(await self._unseal(entry, kind, audience, wanted))
        return dict(sorted(found.items()))

    async def _unseal(
        self, entry: Entry, kind: Kind, audience: tuple[str, ...], wanted: list[tuple[str, bytes]]
    ) -> dict[str, Unsealed]:
        """Ask the nodes of an audience in turn, the own agency's first; none if it is no part.

        Agencies that have no node any more are passed over: the others have the values.
        """
        names = dict.fromkeys((await self._standing_for(audience)).values())
        known = self._known_servers()
        servers = [known[name] for name in names if name in known]
        own = await self._network.agency()
        state = ABSENT if own in names else CLOSED
        found = {name: Unsealed(name, commitment, state) for name, commitment in wanted}
        for server in sorted(servers, key=lambda each: each.agency != own):
            left = [row for row in wanted if found[row[0]].state == ABSENT]
            for first in range(0, len(left), SEALED_MAX):
                part = left[first : first + SEALED_MAX]
                try:
                    found.update(await self._ask_for(server, entry, kind, part))
                except NotReachableError:
                    break
                except RequestError as error:
                    if not error.elsewhere:
                        raise
                    break
        return found

    async def _ask_for(
        self, server: Server, entry: Entry, kind: Kind, wanted: Sequence[tuple[str, bytes]]
    ) -> dict[str, Unsealed]:
        def read(result: Value) -> dict[str, Unsealed]:
            rows = sealed.read_found(result)
            if len(rows) != len(wanted):
                raise RemoteProtocolError("a node answered for another number of values")
            found: dict[str, Unsealed] = {}
            for (name, commitment), row in zip(wanted, rows, strict=True):
                state, opening = _WORDS[row.state], row.opening
                if opening is not None:
                    opening.check(commitment)
                    typed = _is_of(kind.fields[name].type, opening.value)
                    value = opening.value
                    found[name] = Unsealed(name, commitment, state, value, None, typed, opening)
                else:
                    found[name] = Unsealed(name, commitment, state, txid=row.txid)
            return found

        request = GetSealed(entry.key, tuple(commitment for _, commitment in wanted))
        return await self._network.ask_at(
            server, request, lambda result, _: read(result), UNSEAL_SECONDS_MAX
        )

    # --- erasing ------------------------------------------------------------------------------

    async def erase(
        self,
        agency: str,
        kind: str,
        id_: Sequence[Value],
        fields: Sequence[str],
        legal: str,
        *,
        reason: str = "",
        cosigners: Sequence[Key] = (),
        propose: bool = False,
    ) -> Decision:
        """Have the audience destroy every value that sealed fields of a record have had.

        It cannot be taken back. The act stays on record, and every proof stays valid.

        Args:
            agency: of this key's holder, for which the fields are sealed.
            kind, id_: of the record.
            fields: names of sealed fields.
            legal: what it rests on.
            cosigners: keys at hand that approve.
            propose: store it until it has the approvals that the charter asks for.

        Raises:
            DraftError: the rules in force have no such kind, or no such sealed field. Nothing is
                sent then: whoever may not erase is refused by the ledger, on record.
            KeyUnusableError, RequestError, UndecidedError: as ``transact``.
        """
        inputs: Mapping[str, Value] = {
            "agency": agency,
            "kind": kind,
            "id": list(id_),
            "fields": sorted(set(fields)),
            "legal": legal,
        }
        if _not_sealed((await self.rules()).book, kind, fields) is not None:
            fault = _not_sealed((await self.rules(refresh=True)).book, kind, fields)
            if fault is not None:
                raise fault
        call = Call("charter", "erase", inputs)
        reads = await self.read_for(call)
        if propose:
            return await self.propose(call, reads=reads, reason=reason)
        return await self.transact(call, reads=reads, reason=reason, cosigners=cosigners)


def _not_sealed(book: Rulebook, kind: str, fields: Sequence[str]) -> DraftError | None:
    """Return why these are no sealed fields of a kind by its rules; None: they are."""
    found = book.kinds.get(kind)
    if found is None:
        return unknown_kind(kind, book.kinds)
    sealed = [name for name, field in found.fields.items() if field.sealed_for]
    for name in fields:
        if name not in found.fields:
            return DraftError(f"{kind} has no field {name!r}", hint=suggest(name, sealed))
        if name not in sealed:
            said = f"{name} is not sealed: its values are part of the state, and stay"
            hint = f"sealed are {', '.join(sealed)}" if sealed else f"{kind} has no sealed field"
            return DraftError(said, hint=hint)
    return None


def _parts(action: Action, call: Call, index: int, place: bytes) -> list[tuple[str, _Part]]:
    """Return the sealed inputs of a call with what is to be delivered of each."""
    found: list[tuple[str, _Part]] = []
    where = f"{action.domain}.{action.name}"
    for at, declared in enumerate(action.inputs):
        given = call.inputs.get(declared.name)
        if not isinstance(given, Sealed):
            continue
        if declared.type.base != "sealed":
            raise DraftError(f"{where}: {declared.name} is not sealed: give its value as it is")
        kind = sealed_type(action, declared.name)
        try:
            check_value(given.value, declared.name)
            if kind is not None:
                kind.check(given.value)
        except DecodeError as error:
            raise DraftError(f"{where}: {error.message}", hint=error.hint) from error
        except InputError as error:
            raise DraftError(f"{where}: {declared.name}: {error.reason}") from error
        salt = secrets.token_bytes(32)
        opening = Opening(salt, place, index, at, given.value)
        item = Item(index, action.domain, action.name, at, salt, given.value)
        found.append((declared.name, _Part(item, opening, declared.type.audience)))
    return found


def _is_of(kind: Type, value: Value) -> bool:
    try:
        kind.check(value)
    except InputError:
        return False
    return True
