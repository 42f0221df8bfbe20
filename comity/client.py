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

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import trio

from comity import rulesets
from comity.bundles import BundleActs
from comity.disclosing import DisclosureActs
from comity.errors import DraftError, NotReachableError
from comity.feeds import Feeds
from comity.finding import DialUnknown, dial_unknown, learn
from comity.inquiry import Inquiries
from comity.keys import Key
from comity.listing import Lists
from comity.members import MemberActs
from comity.network import Network
from comity.past import Recollections
from comity.pool import Pool, dial_tls, follow
from comity.proposals import ProposalActs
from comity.ranges import Ranges
from comity.results import Decision, Entry, Height, Holds
from comity.reversals import ReversalActs
from comity.reviewing import Reviews
from comity.rulesets import RuleActs
from comity.sealing import Sealing
from comity.sequence import Sequencer
from comity.servers import choose_servers, joined_later, servers_of
from comity.session import Dial, Server, Session, Statements, statement_of
from comity.verify import RuleSetRow, Trust
from consensus import answers, reads
from consensus import genesis as genesis_file
from consensus.codec import Value
from consensus.committee import Committee
from consensus.errors import ComityError
from consensus.hotstuff.types import Statement
from consensus.ledger import rules
from consensus.ledger.model import Rulebook
from consensus.protocol import (
    PURPOSE_BYTES_MAX,
    Get,
    GetDecision,
    GetDecisions,
    GetHolds,
    GetRules,
    GetStatements,
    GetStatus,
    StateKey,
)

T = TypeVar("T")


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


class Client(
    ProposalActs,
    Inquiries,
    Recollections,
    Lists,
    Feeds,
    RuleActs,
    MemberActs,
    Reviews,
    ReversalActs,
    DisclosureActs,
    BundleActs,
    Sealing,
    Ranges,
):
    """A client of one network. Make one with ``connect``."""

    def __init__(
        self, genesis: bytes, trust: Trust, pool: Pool, key: Key | None, patience: float
    ) -> None:
        self.genesis = genesis_file.decode(genesis)
        self._head = genesis_file.split(genesis)
        self.chain = trust.chain
        self.trust = trust
        self.key = key
        self._network = Network(pool, patience)
        self._sequencer = Sequencer(self._highest)
        self._rules: RulesInForce | None = None

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        genesis: bytes,
        *,
        servers: Sequence[str | Server] | None = None,
        key: Key | None = None,
        patience_seconds: float = 30.0,
        spread: bool = False,
        purpose: str = "",
        dial: Dial = dial_tls,
    ) -> AsyncIterator[Client]:
        """Open a client; connections are made when they are needed.

        Args:
            genesis: bytes of the genesis file, which the caller trusts.
            servers: agencies whose nodes to use, in order of preference, each ``name`` or
                ``name=host:port`` where it is not reached at its usual address; observers as
                ``court.crt=host:port`` or ``servers.observer``; None: the whole committee. For an
                agency that the genesis file does not name the committees are followed first.
            key: proved on every connection and signs transactions; None stays anonymous.
            patience_seconds: until an operation gives up.
            spread: use the servers in turn.
            purpose: what the reads are for; nodes record it where rules want reads recorded.
            dial: opens a stream to a server, for tests and tunnels.

        Raises:
            DecodeError: the genesis file is malformed.
            DraftError: a server is not of the committee and no observer, or the purpose is too
                long.
            NotReachableError: a server is not of the first committee, and no node answered that
                could tell of later ones.
        """
        if len(purpose.encode()) > PURPOSE_BYTES_MAX:
            raise DraftError(
                f"a purpose has at most {PURPOSE_BYTES_MAX} bytes", hint="say it in fewer words"
            )
        committee = genesis_file.decode(genesis).committee
        trust = Trust(genesis_file.chain_id(genesis), committee)
        unknown = dial_unknown if dial is dial_tls else None
        if later := joined_later(committee, servers):
            await _follow(trust, later, dial, unknown, patience_seconds)
        chosen = choose_servers((committee, trust.committee), servers)
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            pool = Pool(
                chosen,
                trust,
                key,
                nursery,
                dial,
                spread=spread,
                purpose=purpose,
                unknown=unknown,
            )
            client = cls(genesis, trust, pool, key, patience_seconds)
            try:
                yield client
            except Exception as error:
                failure = error  # raised below as it is, not inside a group
            finally:
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    # --- reading ------------------------------------------------------------------------------

    async def get(
        self,
        namespace: str,
        *components: Value,
        height: int | None = None,
        time_ms: int | None = None,
    ) -> Entry:
        """Return one leaf of the state with its proof checked; absent ones have version 0.

        Args:
            namespace: ``record``, ``account``, ``principal``, … (``consensus.ledger.layout``).
            components: for a record its kind, then the components of its id.
            height, time_ms: as it was after the block of that height, or at that time.

        Raises:
            DraftError: no such height or time, or both are given.
            RequestError: PRUNED: the node asked does not keep what was then.
        """
        if height is not None and time_ms is not None:
            raise DraftError("a height and a time are given", hint="give one of them")
        if time_ms is not None:
            height = (await self.moment(time_ms)).height
        if height is not None:
            return await self.get_at(StateKey(namespace, components), height)
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

    async def status(self) -> dict[str, Value]:
        """Return what a node says of itself: not proved."""
        return await self._network.ask(GetStatus(), lambda result, _: answers.read_status(result))

    async def committee(self) -> Committee:
        """Return the newest committee, followed from genesis by certificates."""
        await follow(self._network.ask, self.trust)
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


async def _follow(
    trust: Trust,
    names: Sequence[str],
    dial: Dial,
    unknown: DialUnknown | None,
    patience_seconds: float,
) -> None:
    """Have ``trust`` follow the committees, asking others if the first node knows none of a name.

    No key is proved meanwhile, and nothing else is asked.

    Raises:
        NotReachableError: no member of the first committee answered.
    """

    def told() -> bool:
        members = {each.agency for each in trust.committee.validators}
        return members.issuperset(names)

    async def known(server: Server) -> tuple[trio.abc.Stream, Server]:
        return await dial(server), server

    async def ask(session: Session) -> None:
        await follow(session.ask, trust)

    failure: ComityError | None = None
    async with trio.open_nursery() as nursery:
        servers = servers_of(trust.committee)
        pool = Pool(servers, trust, None, nursery, dial, unknown=unknown)
        try:
            await follow(Network(pool, patience_seconds).ask, trust)
            if not told():
                await learn(servers_of(trust.committee), trust, unknown or known, ask)
        except NotReachableError as error:
            said = ", ".join(repr(each) for each in names)
            failure = NotReachableError(
                f"the genesis file names no agency {said}, and {error.message}",
                hint=f"the members are {', '.join(each.agency for each in servers)}; who joined "
                "later is known once one of them is reached",
            )
        except ComityError as error:
            failure = error  # raised below as it is, not inside a group
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
