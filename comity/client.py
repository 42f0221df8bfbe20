"""The client: asks nodes, believes none of them, returns what is proved.

    async with Client.connect(genesis, key=key) as client:
        ent = await client.get("record", "entitlement", b"...")
        done = await client.transact(Call("payments", "disburse", {...}), reads=[ent])

It keeps connections to several nodes, takes the next one when a node fails, lies or is busy, and
submits the same bytes again when it must: a transaction is decided only once. A certified refusal
is a result, not an error. Times are in seconds; chain time in milliseconds.

Not here: verification (``verify``), one connection (``session``), what a draft is (``drafting``).
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import trio

from comity import drafting, inquiry, rulesets
from comity.authority import Access, Authority
from comity.drafting import Call, Needs
from comity.errors import (
    DraftError,
    KeyUnusableError,
    RequestError,
)
from comity.feeds import Feeds
from comity.keys import Key
from comity.listing import Lists
from comity.network import Network
from comity.pool import Pool, dial_tls, servers_of
from comity.results import Decision, Entry, Height, Holds, Outcome, Refusal
from comity.rulesets import RuleActs
from comity.sequence import Sequencer
from comity.session import Dial, Parcel, Server, Statements, statement_of
from comity.verify import RuleSetRow, Trust
from consensus import answers, codec, reads
from consensus import genesis as genesis_file
from consensus.codec import Value
from consensus.committee import Committee
from consensus.hotstuff.types import Statement
from consensus.ledger import group, rules
from consensus.ledger.model import Rulebook
from consensus.ledger.transaction import Unsigned, assemble, decode_envelope
from consensus.protocol import (
    Get,
    GetCommittee,
    GetDecision,
    GetDecisions,
    GetHolds,
    GetRules,
    GetStatements,
    GetStatus,
    Item,
    StateKey,
)

T = TypeVar("T")

NOT_AFTER_MS: Final = 600_000
"""Default life of a transaction, from the newest certified time."""
GROUP_BYTES_MAX: Final = 960 * 1024
GROUP_PART_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Signed:
    """A transaction ready to be submitted, again and again if need be."""

    txid: bytes
    envelope: bytes
    sequence: int
    author: bytes


@dataclass(frozen=True, slots=True)
class RulesInForce:
    """The rule sets of all domains at a certified height, compiled."""

    height: int
    time_ms: int
    sets: tuple[RuleSetRow, ...]
    book: Rulebook
    until_ms: int | None = None
    """When the next rule set comes into force, as far as this height knows."""

    def over(self, newest: Statement | None) -> bool:
        """Return whether a rule set has come into force since."""
        if newest is None or self.until_ms is None:
            return False
        return newest.time_ms >= self.until_ms


class Client(Lists, Feeds, RuleActs):
    """A client of one network. Make one with ``connect``."""

    def __init__(
        self, genesis: bytes, pool_of: Callable[[Trust], Pool], key: Key | None, patience: float
    ) -> None:
        found = genesis_file.decode(genesis)
        self.genesis = found
        self.chain = genesis_file.chain_id(genesis)
        self.trust = Trust(self.chain, found.committee)
        self.key = key
        self._network = Network(pool_of(self.trust), patience)
        self._sequencer = Sequencer(self._highest)
        self._rules: RulesInForce | None = None

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        genesis: bytes,
        *,
        servers: Sequence[str] | None = None,
        key: Key | None = None,
        patience_seconds: float = 30.0,
        spread: bool = False,
        dial: Dial = dial_tls,
    ) -> AsyncIterator[Client]:
        """Open a client; connections are made when they are needed.

        Args:
            genesis: bytes of the genesis file, which the caller trusts.
            servers: agencies whose nodes to use, in order of preference, each ``name`` or
                ``name=host:port`` where it is not reached at its usual address; None: all.
            key: proved on every connection and signs transactions; None stays anonymous.
            patience_seconds: until an operation gives up.
            spread: use the servers in turn.
            dial: opens a stream to a server, for tests and tunnels.

        Raises:
            DecodeError: the genesis file is malformed.
            DraftError: a server is not of the committee.
        """
        committee = genesis_file.decode(genesis).committee
        chosen = choose_servers(committee, servers)
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            client = cls(
                genesis,
                lambda trust: Pool(chosen, trust, key, nursery, dial, spread=spread),
                key,
                patience_seconds,
            )
            try:
                yield client
            except Exception as error:
                failure = error  # raised below as it is, not inside a group
            finally:
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    # --- reading ------------------------------------------------------------------------------

    async def get(self, namespace: str, *components: Value) -> Entry:
        """Return one leaf of the state with its proof checked; absent ones have version 0.

        Args:
            namespace: ``record``, ``account``, ``principal``, … (``consensus.ledger.layout``).
            components: for a record its kind, then the components of its id.
        """
        (entry,) = await self.get_many([StateKey(namespace, components)])
        return entry

    async def get_many(self, keys: Sequence[StateKey]) -> tuple[Entry, ...]:
        """Return leaves of one and the same certified state."""
        keys = tuple(keys)
        height_min = self.trust.height

        def read(result: Value, statements: Statements) -> tuple[Entry, ...]:
            rows = reads.read_rows(result)
            self.trust.fresh(rows.height, height_min)
            return self.trust.rows(rows, statement_of(statements, rows.height), keys)

        return await self._network.ask(Get(height_min, keys), read)

    async def holds(self, namespace: str, *components: Value) -> Holds:
        """Return every unreleased hold on a target; none can be left out."""
        target = StateKey(namespace, components)
        height_min = self.trust.height

        def read(result: Value, statements: Statements) -> Holds:
            rows = reads.read_rows(result)
            self.trust.fresh(rows.height, height_min)
            return self.trust.holds(rows, statement_of(statements, rows.height), target)

        return await self._network.ask(GetHolds(height_min, target), read)

    async def decision(self, txid: bytes) -> Decision:
        """Return the certified decision of a transaction.

        Raises:
            RequestError: NOT_FOUND: the node asked has none; others may, or it is under way.
        """

        def read(result: Value, statements: Statements) -> Decision:
            found = answers.read_decision(result)
            return self.trust.decision(found, statement_of(statements, found.height), txid)

        return await self._network.ask(GetDecision(txid), read)

    async def decisions(self, first: int, count: int = 1) -> tuple[Height, ...]:
        """Return heights from ``first`` with all their decisions; negative counts from the newest.

        Nothing can be missing within a height. Fewer heights than asked for may come back.
        """
        height_min = self._height_min

        def read(result: Value, statements: Statements) -> tuple[Height, ...]:
            found = answers.read_decisions(result)
            self.trust.heights([each.height for each in found], first, count, height_min)
            return tuple(
                self._height(statement_of(statements, each.height), each.decisions)
                for each in found
            )

        return await self._network.ask(GetDecisions(first, count), read)

    async def statements(self, first: int, count: int = 1) -> tuple[Height, ...]:
        """Return certified heights from ``first``; negative counts from the newest."""
        height_min = self._height_min

        def read(result: Value, statements: Statements) -> tuple[Height, ...]:
            heights = answers.read_heights(result)
            self.trust.heights(heights, first, count, height_min)
            return tuple(self._height(statement_of(statements, each), None) for each in heights)

        return await self._network.ask(GetStatements(first, count), read)

    async def rules(self, *, refresh: bool = False) -> RulesInForce:
        """Return the rule sets in force, proved.

        Asked for once, and again with ``refresh``, when one that was to come is due, and after an
        act was refused because the rules have moved.
        """
        if self._rules is None or refresh or self._rules.over(self.trust.newest):
            height_min = self.trust.height

            def read(
                result: Value, statements: Statements
            ) -> tuple[Statement, tuple[RuleSetRow, ...], int | None]:
                found = reads.read_rules(result)
                self.trust.fresh(found.rows.height, height_min)
                statement = statement_of(statements, found.rows.height)
                sets = self.trust.rules(found, statement, None)
                return statement, sets, rulesets.next_change(found.rows, statement.time_ms)

            statement, sets, until_ms = await self._network.ask(GetRules(height_min, None), read)
            book = rules.compile_rulebook([row.definition for row in sets])
            self._rules = RulesInForce(statement.height, statement.time_ms, sets, book, until_ms)
        return self._rules

    async def authority(
        self, principal: bytes, *, grants: Sequence[bytes] = (), keys: Sequence[bytes] = ()
    ) -> Authority:
        """Return what a principal may do now and through which chain, judged on proved leaves.

        Args:
            principal: id.
            grants, keys: ids and public keys to look at, beside those that a node lists.

        Raises:
            RequestError: DENIED: this key may not read that; NOT_FOUND: no such principal.
        """
        return await inquiry.authority(self, principal, grants, keys)

    async def access(self, principal: bytes, namespace: str, *components: Value) -> Access:
        """Return whether a principal may read a record or account now, and by which rule.

        What the caller may not read itself is judged as far as that goes: ``allowed`` is None where
        it depends on what is in it.

        Raises:
            RequestError: DENIED: this key may not read that; NOT_FOUND: no such principal.
        """
        return await inquiry.access(self, principal, StateKey(namespace, components))

    async def status(self) -> dict[str, Value]:
        """Return what a node says of itself: not proved."""
        return await self._network.ask(GetStatus(), lambda result, _: answers.read_status(result))

    async def committee(self) -> Committee:
        """Return the newest committee, followed from genesis by certificates."""
        await self._network.ask(
            GetCommittee(self.trust.committee.epoch),
            lambda result, _: self.trust.follow(answers.read_committees(result)),
        )
        return self.trust.committee

    async def now_ms(self) -> int:
        """Return the newest certified chain time, asking once if none is known."""
        if self.trust.newest is None:
            await self.statements(-1)
        return self.trust.newest.time_ms if self.trust.newest else self.genesis.time_ms

    @property
    def _height_min(self) -> int:
        return -1 if self.trust.newest is None else self.trust.newest.height

    def _height(self, statement: Statement, encoded: tuple[bytes, ...] | None) -> Height:
        found = None if encoded is None else self.trust.all_decisions(encoded, statement)
        return Height(
            statement.height,
            statement.epoch,
            statement.time_ms,
            statement.state_root,
            statement.results_root,
            found,
        )

    # --- drafting -----------------------------------------------------------------------------

    async def read_for(self, call: Call) -> tuple[Entry, ...]:
        """Read what an action loads and writes, so that the caller can look before it acts.

        Returns the entries that ``expects`` must name: pass them to ``draft`` as ``reads`` after
        looking at them. Reading again is the caller's decision.
        """
        book = (await self.rules()).book
        action = drafting.find_action(book, call.domain, call.action)
        needs = Needs(book, action, call.inputs, await self.now_ms())
        while (key := needs.next_key()) is not None:
            needs.give(await self.get(key.namespace, *key.components))
        return tuple(needs.expected)

    async def draft(
        self,
        *calls: Call,
        reads: Sequence[Entry] = (),
        under: Sequence[bytes] = (),
        reason: str = "",
        not_after_ms: int | None = None,
    ) -> Unsigned:
        """Return a transaction of this client's key, with a number of its own, not yet signed.

        Args:
            calls: 1 to 64, all or none.
            reads: what the caller read and relies on; their versions are what it expects.
            under: ids of the grants it acts under.
            reason: why, in words.
            not_after_ms: chain time; None: ten minutes from now.

        Raises:
            DraftError: it cannot be written.
            KeyUnusableError: the client has no key.
        """
        key = self._own_key()
        book = (await self.rules()).book
        now_ms = await self.now_ms()
        sequence = await self._sequencer.take()
        try:
            return drafting.build(
                self.chain,
                book,
                calls,
                author=key.public,
                sequence=sequence,
                now_ms=now_ms,
                not_after_ms=now_ms + NOT_AFTER_MS if not_after_ms is None else not_after_ms,
                seed=secrets.token_bytes(32),
                reads=reads,
                under=under,
                reason=reason,
            )
        except DraftError:
            self._sequencer.release(sequence)
            raise

    def sign(self, unsigned: Unsigned, signatures: Sequence[bytes] = ()) -> Signed:
        """Return a draft signed by this client's key, and by ``signatures`` of its cosigners."""
        own = self._own_key().sign(unsigned.message)
        envelope = assemble(unsigned, [own, *signatures])
        draft = unsigned.transaction
        return Signed(draft.txid, envelope, draft.sequence, draft.author)

    # --- submitting ---------------------------------------------------------------------------

    async def transact(
        self,
        *calls: Call,
        reads: Sequence[Entry] = (),
        under: Sequence[bytes] = (),
        reason: str = "",
        not_after_ms: int | None = None,
    ) -> Decision:
        """Draft, sign and submit; return the certified decision, applied or refused.

        Raises:
            DraftError, KeyUnusableError: as ``draft``.
            RequestError, UndecidedError: as ``submit``.
        """
        unsigned = await self.draft(
            *calls, reads=reads, under=under, reason=reason, not_after_ms=not_after_ms
        )
        return await self.submit(self.sign(unsigned))

    async def submit(self, signed: Signed | bytes) -> Decision:
        """Submit a transaction and return its certified decision.

        Raises:
            RequestError: a node refused to take it; nothing certifies that.
            UndecidedError: no decision in time; it may still come. Submit the same bytes again.
        """
        if isinstance(signed, bytes):
            found = decode_envelope(self.chain, signed)
            signed = Signed(found.txid, signed, found.sequence, found.author)
        parcel = Parcel(Item.ENVELOPE, signed.envelope, (signed.txid,))
        try:
            ((outcome,),) = await self.deliver([parcel])
        finally:
            self._forget(signed.author, signed.sequence)
        return self._noted(_decided(outcome))

    async def submit_group(self, drafts: Sequence[Unsigned]) -> list[Decision]:
        """Sign drafts of this client's key with one signature, submit them; return each decision.

        Every transaction is judged alone.

        Raises:
            DraftError: none or more than 1,024, or one of another author or with cosigners.
            RequestError, UndecidedError: as ``submit``.
        """
        key = self._own_key()
        if not 1 <= len(drafts) <= group.TRANSACTIONS_MAX:
            raise DraftError(f"a group has 1 to {group.TRANSACTIONS_MAX} transactions")
        if any(each.transaction.signers != (key.public,) for each in drafts):
            raise DraftError("a group of this client holds only transactions of its own key")
        message = group.group_message(self.chain, len(drafts), group.group_root(drafts))
        whole = group.build(drafts, [(key.public, key.sign(message))])
        try:
            outcomes = await self.deliver(_parcels(whole))
        finally:
            for each in drafts:
                self._forget(key.public, each.transaction.sequence)
        return [self._noted(_decided(outcome)) for row in outcomes for outcome in row]

    async def deliver(
        self,
        parcels: Sequence[Parcel],
        told: Callable[[int, int, Outcome], None] | None = None,
    ) -> list[list[Outcome]]:
        """Submit many items at once; return each transaction's outcome, in their order.

        This is the way for programs that submit much: one task and one request carry any number
        of transactions, and ``told`` hears of each outcome (parcel, position, outcome) as it comes.

        Raises:
            UndecidedError: some were not decided in time; ``told`` has heard of the others.
            ForkError: the network contradicts itself.
        """
        return await self._network.deliver(parcels, told)

    # --- own key ------------------------------------------------------------------------------

    async def _highest(self) -> int:
        entry = await self.get("sequence", self._own_key().public)
        return int(entry.value[0]) if entry.present else 0

    def _forget(self, author: bytes, sequence: int) -> None:
        if self.key is not None and author == self.key.public:
            self._sequencer.release(sequence)

    def _noted(self, decision: Decision) -> Decision:
        if decision.code == "SEQUENCE_SPENT":
            self._sequencer.ask_again()
        if decision.code in ("RULES_MOVED", "UNKNOWN_ACTION"):
            self._rules = None
        return decision

    def _own_key(self) -> Key:
        if self.key is None:
            raise KeyUnusableError("this needs a key, and the client has none")
        return self.key


def choose_servers(committee: Committee, wanted: Sequence[str] | None) -> tuple[Server, ...]:
    """Return servers in the order of ``wanted``: ``name`` or ``name=host:port`` each; None: all.

    Raises:
        DraftError: an agency without a node in the committee, or a malformed address.
    """
    known = {server.agency: server for server in servers_of(committee)}
    if wanted is None:
        return tuple(known.values())
    chosen: list[Server] = []
    for each in wanted:
        name, _, address = each.partition("=")
        server = known.get(name)
        if server is None:
            raise DraftError(
                f"no agency {name!r} has a node in the committee",
                hint=f"the members are {', '.join(known)}",
            )
        if address:
            host, _, port = address.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 65536:
                raise DraftError(f"{address!r} is not an address", hint="write name=host:port")
            server = replace(server, host=host.strip("[]"), port=int(port))
        chosen.append(server)
    return tuple(chosen)


def _parcels(whole: group.Group) -> list[Parcel]:
    data = codec.encode(whole.to_value())
    parts = [whole] if len(data) <= GROUP_BYTES_MAX else group.split(whole, GROUP_PART_MAX)
    return [
        Parcel(
            Item.GROUP,
            codec.encode(part.to_value()),
            tuple(each.txid for each in part.transactions),
        )
        for part in parts
    ]


def _decided(outcome: Outcome) -> Decision:
    if isinstance(outcome, Refusal):
        problem = answers.Problem(outcome.code, outcome.message, outcome.hint)
        raise RequestError(outcome.status, problem)
    return outcome
