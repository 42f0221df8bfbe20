"""Reads of one connection: all that wait are answered together, proofs under one state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import trio

from consensus import answers, protocol, reads
from consensus.codec import Value
from consensus.errors import ComityError, LocalProtocolError
from consensus.ledger import layout
from consensus.ledger.codes import Code
from consensus.ledger.proposals import SPACE
from consensus.protocol import (
    Get,
    GetBlocks,
    GetBundle,
    GetCommittee,
    GetDecision,
    GetDecisions,
    GetDisclosed,
    GetEffect,
    GetHistory,
    GetHolds,
    GetIndex,
    GetMoment,
    GetPast,
    GetProposal,
    GetProposals,
    GetReads,
    GetReversal,
    GetRules,
    GetSealed,
    GetStatements,
    GetStatus,
    ListRecords,
    Request,
    Simulate,
    StateKey,
    Status,
)
from consensus.sealed import Deliver
from node.api import (
    access,
    bundling,
    disclosing,
    heights,
    listing,
    places,
    reading,
    recalling,
    recording,
    reversing,
    sealing,
    simulating,
)
from node.api.backend import ApiBackend, BehindError, CertifiedBlock, Place, ProvedRows
from node.api.reading import CannotAnswer, Proving
from node.bell import Bell

if TYPE_CHECKING:
    from node.api.connection import Connection

HEIGHTS_AHEAD_MAX: Final = 64
"""A read waits for a height at most this far above the newest certified one."""
BEHIND_RETRY_MS: Final = 200
KEYS_TOGETHER_MAX: Final = 256
"""Keys proved without letting anything else happen: at most about 10 ms."""


def asks_for_approval(outlook: reads.Outlook) -> bool:
    """Return whether nothing but approvals is said to be missing, which no record has a part in."""
    return outlook.refusal is not None and outlook.refusal[0] == Code.NEEDS_APPROVAL


def _together(proving: Sequence[tuple[int, Proving]]) -> int:
    """Return how many of the first requests are proved at once: at least one."""
    keys = 0
    for count, (_, request) in enumerate(proving):
        keys += reading.keys_of(request)
        if keys > KEYS_TOGETHER_MAX and count:
            return count
    return len(proving)


class Asked:
    """The reads of a connection that wait to be answered."""

    def __init__(self) -> None:
        self._bell = Bell()
        self._requests: list[tuple[int, Request]] = []

    def add(self, request_id: int, request: Request) -> None:
        """Have a request answered; the caller bounds their number."""
        self._requests.append((request_id, request))
        self._bell.ring()

    async def take(self) -> list[tuple[int, Request]]:
        """Return all that wait, once there are some."""
        await self._bell.heard()
        turn, self._requests = self._requests, []
        return turn


class Querier:
    """Answers the reads of a connection, in turns."""

    def __init__(self, connection: Connection, asked: Asked) -> None:
        self._connection = connection
        self._asked = asked

    async def run(self) -> None:
        """Answer requests as they come."""
        connection = self._connection
        while True:
            turn = await self._asked.take()
            proving: list[tuple[int, Proving]] = []
            for request_id, request in turn:
                if isinstance(request, Get | GetHolds | GetIndex | GetRules | GetProposal):
                    proving.append((request_id, request))
                    continue
                await connection.outbox.below(connection.hub.limits.outbound_bytes_max)
                await self._answer(request_id, request)
            if proving:
                await self._prove(proving)

    async def _answer(self, request_id: int, request: Request) -> None:
        try:
            match request:
                case Simulate(envelope):
                    result = await self._simulated(request, envelope)
                case ListRecords():
                    result = await self._listed(request)
                case GetReversal(txid):
                    result = await self._reversal(request, txid)
                case GetBundle():
                    result = await bundling.bundle(self._connection, request)
                case GetDecision(txid):
                    backend = self._connection.hub.backend
                    result = await self._decision(request, txid, backend.find(txid))
                case GetEffect(txid):
                    backend = self._connection.hub.backend
                    result = await self._decision(request, txid, backend.find_effect(txid))
                case GetDecisions():
                    result = await self._decisions(request)
                case GetDisclosed():
                    result = await disclosing.answer(self._connection, request)
                case GetHistory():
                    result = await recalling.history(self._connection, request)
                case GetBlocks():
                    result = await heights.blocks(self._connection, request)
                case GetReads():
                    result = await recording.reads(self._connection, request)
                case Deliver():
                    result = await sealing.deliver(self._connection, request)
                case GetSealed():
                    result = await sealing.opened(self._connection, request)
                case _:
                    result = self._result(request)
        except CannotAnswer as error:
            self._connection.refuse(request_id, error.status, error.problem)
        else:
            self._connection.answer(request_id, result)

    def _result(self, request: Request) -> Value:
        backend, outbox = self._connection.hub.backend, self._connection.outbox
        match request:
            case GetStatus():
                return backend.status()
            case GetCommittee(epoch):
                steps = backend.committees(epoch, answers.EPOCHS_MAX)
                return [step.to_value() for step in steps]
            case GetStatements(first, count):
                wanted = reading.heights(backend, first, count)
                for height in wanted:
                    outbox.statement(height, reading.evidence_of(backend, height))
                return [*wanted]
            case GetMoment():
                return recalling.moment(self._connection, request)
            case GetPast(height):
                return heights.past(backend, height)
            case GetProposals(agency, state, after, limit):
                if agency is not None:
                    return backend.proposals.of_agency(agency, state, after, limit).to_value()
                return backend.proposals.pending(self._connection.key, after, limit).to_value()
            case _:
                raise LocalProtocolError(f"{type(request).__name__} is no read")

    async def _listed(self, request: ListRecords) -> Value:
        connection = self._connection
        kind, who, key = request.kind, connection.identity, connection.key
        page = listing.page(connection.hub.backend, who, key, kind, request.after, request.limit)
        found = (layout.place(kind, id_) for id_ in page.ids)
        keys = (StateKey(space, tuple(components)) for space, components in found)
        await recording.record(connection, request, page.height, keys)
        return page.to_value()

    async def _reversal(self, request: GetReversal, txid: bytes) -> Value:
        connection = self._connection
        backend = connection.hub.backend
        past = reversing.evidence(backend, txid, connection.shown, self._tells)
        await recording.record(connection, request, past.height, past.places)
        connection.outbox.statement(past.height, reading.evidence_of(backend, past.height))
        return past.encoded

    def _tells(self, name: str, value: bytes) -> Iterable[StateKey]:
        """Return what a leaf of a decision tells of; nothing to somebody out of force."""
        who = self._connection.identity
        return () if who is None else places.of_leaf(who, name, value)

    async def _simulated(self, request: Simulate, envelope: bytes) -> Value:
        connection = self._connection
        who, key = connection.identity, connection.key
        if who is None or not reading.sender_is_author(envelope, key):
            hint = "ask with the key that is to sign"
            raise CannotAnswer(Status.DENIED, "a draft is tried out for its author alone", hint)
        backend = connection.hub.backend
        try:
            tried = backend.simulate(envelope)
        except ComityError as error:
            raise CannotAnswer(Status.MALFORMED, error.message, error.hint) from error
        await recording.record_named(connection, request, tried.height, tried.run.places)
        await trio.lowlevel.checkpoint()  # judging takes milliseconds
        return simulating.answer(backend, who, key, tried).to_value()

    async def _decisions(self, request: GetDecisions) -> Value:
        connection = self._connection
        backend = connection.hub.backend
        wanted = reading.heights(backend, request.first, request.count)
        blocks: list[CertifiedBlock] = []
        found = reading.decisions_answer(
            backend, wanted, protocol.ANSWER_BYTES_MAX, blocks.append, connection.shown
        )
        shown = ((each.height, each.decisions) for each in found)
        await recording.record_decisions(connection, request, shown)
        for block in blocks:
            connection.outbox.statement(block.height, block.evidence)
        return [each.to_value() for each in found]

    async def _decision(self, request: Request, txid: bytes, place: Place | None) -> Value:
        connection = self._connection
        backend = connection.hub.backend
        if place is not None and connection.access == answers.CITIZEN:
            place = place if place.author == connection.key else None
        block = None if place is None else backend.block(place.height)
        if place is None or block is None:
            hint = "it may still be on its way: ask again, or submit it again"
            raise CannotAnswer(Status.NOT_FOUND, "no decision on this transaction is here", hint)
        answer = reading.decision_answer(block, place, connection.shown)
        shown = [(block.height, [answer.decision])]
        await recording.record_decisions(connection, request, shown)
        connection.outbox.statement(block.height, block.evidence)
        return answer.to_value()

    # --- proofs -------------------------------------------------------------------------------

    async def _prove(self, proving: list[tuple[int, Proving]]) -> None:
        connection = self._connection
        backend = connection.hub.backend
        highest = backend.height + HEIGHTS_AHEAD_MAX
        near = [row for row in proving if row[1].height_min <= highest]
        try:
            for request_id, request in proving:
                if request.height_min > highest:
                    self._behind(request_id, request.height_min)
            while near:
                turn = near[: _together(near)]
                height_min = max(request.height_min for _, request in turn)
                selects = [reading.selection(request) for _, request in turn]
                found = await backend.prove(height_min, selects)
                near = near[len(turn) :]
                for (request_id, request), proved in zip(turn, found, strict=True):
                    await connection.outbox.below(connection.hub.limits.outbound_bytes_max)
                    try:
                        self._allow(request, proved)
                        await recording.record_rows(connection, request, proved)
                        await self._rows(request_id, request, proved, backend)
                    except CannotAnswer as error:
                        connection.refuse(request_id, error.status, error.problem)
                if near:
                    await trio.lowlevel.checkpoint()  # proving takes milliseconds
        except BehindError:
            for request_id, request in near:
                self._behind(request_id, request.height_min)

    def _allow(self, request: Proving, proved: ProvedRows) -> None:
        connection = self._connection
        level, who = connection.access, connection.identity
        if isinstance(request, GetHolds):
            allowed = access.may_see_holds(who, request.target)
        else:
            denied = [
                key
                for key, raw in zip(proved.keys, proved.rows, strict=True)
                if not access.may_read(who, connection.key, key, raw)
            ]
            allowed = not denied or self._wait_for_me(denied)
        if not allowed or level == answers.ANONYMOUS:
            raise CannotAnswer(Status.DENIED, "this key may not read that")

    def _wait_for_me(self, keys: Sequence[StateKey]) -> bool:
        """Return whether all these are proposals that whoever asks could approve now."""
        connection = self._connection
        if connection.identity is None or any(
            key.namespace != SPACE or len(key.components) != 1 for key in keys
        ):
            return False
        txids = [key.components[0] for key in keys]
        return connection.hub.backend.proposals.wait_for(txids, connection.key)

    async def _rows(
        self, request_id: int, request: Proving, proved: ProvedRows, backend: ApiBackend
    ) -> None:
        connection, who = self._connection, self._connection.identity
        proposal: reads.Proposal | None = None
        if isinstance(request, GetProposal):
            proposal = self._proposal(request.txid, proved)
            told = proposal.draft is not None or proposal.outlook is not None
            if told and access.logs_any(who):
                named = backend.proposals.places(request.txid)
                await recording.record_named(connection, request, proved.height, named)
        connection.outbox.statement(proved.height, reading.evidence_of(backend, proved.height))
        if proposal is not None:
            connection.answer(request_id, proposal.to_value())
            return
        if isinstance(request, GetRules):
            connection.answer(request_id, reading.rules_answer(proved).to_value())
        else:
            rows = reading.rows_answer(proved, lambda key: access.closes_holds(who, key))
            connection.answer(request_id, rows.to_value())

    def _proposal(self, txid: bytes, proved: ProvedRows) -> reads.Proposal:
        """Return a proposal; its draft where its author, or who could approve it, asks.

        Where no read rule keeps anything from somebody, they may see what would be done as well.
        """
        connection = self._connection
        asking, who = connection.hub.backend.proposals, connection.identity
        rows = reading.rows_answer(proved)
        found = asking.proposal(txid)
        if found is None or who is None or proved.rows[0] is None:
            return reads.Proposal(rows, None, None)
        outlook = asking.outlook(found, connection.key)
        shown = (
            access.sees_everything(who)
            or found.principal == who.principal
            or any(row[1] == who.principal for row in found.approvals)
            or (outlook is not None and not outlook.lacking)
        )
        told = access.sees_everything(who) and (access.is_member(who) or not asking.is_quiet(found))
        if outlook is not None and not (told or asks_for_approval(outlook)):
            outlook = None
        if connection.access == answers.CITIZEN and outlook is not None:
            outlook = reads.Outlook(outlook.refusal, None)
        kept = asking.draft(found) if shown else None
        draft = None if kept is None else reading.draft_text(connection.hub.chain, kept)
        return reads.Proposal(rows, draft, outlook)

    def _behind(self, request_id: int, height: int) -> None:
        said = f"this node has not reached height {height} yet"
        problem = answers.Problem("UNAVAILABLE", said, "ask another node", BEHIND_RETRY_MS)
        self._connection.refuse(request_id, Status.UNAVAILABLE, problem)
