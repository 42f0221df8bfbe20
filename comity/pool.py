"""Connections to several nodes of one network: opened when needed, kept, avoided after failures.

The first server is preferred (an agency's own node); the others stand in for it. With ``spread``
each use takes the next one. A server that failed is tried last for a while that grows with every
failure in a row. One that proved to lie is avoided for as long as the longest such pause. One that
has no vote serves reads, and is not asked to take transactions.
"""

from __future__ import annotations

import errno
import ssl
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import trio

from comity import finding, tls
from comity.errors import ForkError, NotReachableError, OtherVersionError, UnknownNodeError
from comity.keys import Key
from comity.servers import servers_of
from comity.session import Dial as Dial
from comity.session import Server, Session
from comity.verify import Trust
from consensus import answers
from consensus.answers import NO_VOTE, Problem
from consensus.codec import Value
from consensus.errors import ComityError, RemoteProtocolError, VerificationError
from consensus.protocol import GetCommittee, Purpose, Request

CONNECT_SECONDS_MAX: Final = 5.0
AVOID_SECONDS: Final = 1.0
AVOID_SECONDS_MAX: Final = 60.0
_EXPIRED: Final = 10
"""``X509_V_ERR_CERT_HAS_EXPIRED`` of OpenSSL."""
_NOT_YET: Final = 9
"""``X509_V_ERR_CERT_NOT_YET_VALID`` of OpenSSL."""
_NO_TLS: Final = "WRONG_VERSION_NUMBER"
"""``SSL_R_WRONG_VERSION_NUMBER`` of OpenSSL: what came is no record of TLS."""
PAGES_MAX: Final = 64
"""Pages of committees that one node is asked for in a row: 1,024 changes."""

Ask = Callable[[Request, Callable[[Value, object], int]], Awaitable[int]]
"""``Session.ask``, or ``Network.ask``."""


async def follow(ask: Ask, trust: Trust) -> None:
    """Have ``trust`` learn all committees that a node knows, page by page.

    Raises:
        VerificationError: a committee was not elected by the one before.
        RemoteProtocolError: there is no end to them.
        ComityError: as asking raises.
    """

    def read(result: Value, _: object) -> int:
        steps = answers.read_committees(result)
        trust.follow(steps, again=True)
        return len(steps)

    for _ in range(PAGES_MAX):
        before = trust.committee.epoch
        found = await ask(GetCommittee(before), read)
        if found < answers.EPOCHS_MAX or trust.committee.epoch == before:
            return
    raise RemoteProtocolError(f"more than {PAGES_MAX * answers.EPOCHS_MAX} committees at once")


async def dial_tls(server: Server) -> trio.abc.Stream:
    """Return a TLS stream to a server whose certificate and node key are the expected ones.

    Raises:
        NotReachableError: no connection, or the handshake failed.
        VerificationError: another node listens there.
    """
    where = f"{server.agency} at {server.host}:{server.port}"
    try:
        plain = await trio.open_tcp_stream(server.host, server.port)
    except OSError as error:
        raise NotReachableError(f"{where}: {_reason(error)}") from error
    context = tls.client_context([server.certificate])
    stream = trio.SSLStream(plain, context, server_hostname=None, https_compatible=True)
    try:
        await stream.do_handshake()
        tls.check_peer_key(stream, server.node_key)
    except (trio.BrokenResourceError, OSError) as error:
        await trio.aclose_forcefully(stream)
        cause = error.__cause__ or error
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise _unknown_node(where, cause) from error
        if isinstance(cause, ssl.SSLError) and cause.reason == _NO_TLS:
            said = f"{where}: what listens there speaks no TLS; is that its port for clients?"
            raise NotReachableError(said) from error
        raise NotReachableError(f"no TLS session with {where}: {cause}") from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


def _unknown_node(where: str, error: ssl.SSLCertVerificationError) -> UnknownNodeError:
    if error.verify_code == _EXPIRED:
        return UnknownNodeError(
            f"the certificate of {where} has ended",
            hint="its agency has to have a new one admitted; name another member's node meanwhile",
        )
    if error.verify_code == _NOT_YET:
        return UnknownNodeError(
            f"the certificate of {where} has not begun by this machine's clock",
            hint="set the clock of this machine (NTP)",
        )
    return UnknownNodeError(
        f"{where} shows another certificate than the one that the committee names"
    )


def _reason(error: OSError) -> str:
    nested = error.__cause__
    if isinstance(nested, BaseExceptionGroup):
        first = nested.exceptions[0]
        error = first if isinstance(first, OSError) else error
    if error.errno == errno.ECONNREFUSED:
        return "nothing listens there"
    return error.strerror or str(error)


@dataclass(slots=True)
class _Place:
    """A server with its session, and how it has behaved."""

    server: Server
    session: Session | None = None
    failures: int = 0
    avoided_until: float = 0.0
    reason: ComityError | None = None
    declined: Problem | None = None
    """What the node said when it took no transaction because it has no vote."""
    opening: trio.Lock = field(default_factory=trio.Lock)

    @property
    def takes(self) -> bool:
        """Whether it may take transactions, as far as is known."""
        return self.server.votes and self.declined is None


class Pool:
    """Sessions of one client.

    Args:
        servers: in order of preference.
        trust: shared by all sessions.
        key: proved on every connection; None stays anonymous.
        nursery: runs the sessions.
        dial: opens a stream to a server.
        spread: take servers in turn instead of preferring the first.
        purpose: what the reads are for, told on every connection.
        unknown: opens a stream to whoever listens at a server's address, to ask for committees
            where nobody is reached; None: nobody is asked.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        trust: Trust,
        key: Key | None,
        nursery: trio.Nursery,
        dial: Dial,
        *,
        spread: bool = False,
        purpose: str = "",
        unknown: finding.DialUnknown | None = None,
    ) -> None:
        self._unknown = unknown
        self._learn_at = float("-inf")
        self._places = [_Place(server) for server in servers]
        self._committee = trust.committee
        named = {server.agency for server in servers}
        self._all = all(each.agency in named for each in trust.committee.validators)
        self._others: list[_Place] = []
        """Nodes that are only asked what no other is to be asked."""
        self._trust = trust
        self._key = key
        self._nursery = nursery
        self._dial = dial
        self._spread = spread
        self._purpose = purpose
        self._turn = 0

    @property
    def size(self) -> int:
        """How many servers there are to choose from."""
        return len(self._places)

    @property
    def reasons(self) -> dict[str, ComityError]:
        """Why each server failed last, by agency."""
        return {p.server.agency: p.reason for p in self._places if p.reason is not None}

    def without_vote(self) -> Problem | None:
        """Return why nobody here takes transactions; None: somebody may."""
        self._follow()
        if any(place.takes for place in self._places):
            return None
        names = ", ".join(place.server.agency for place in self._places)
        members = ", ".join(each.agency for each in self._trust.committee.validators)
        said = f"no node that was named takes transactions: {names} follow without a vote"
        hint = f"name the node of a member as well: {members}"
        declined = next((each.declined for each in self._places if each.declined), None)
        return declined or Problem(NO_VOTE, said, hint)

    def other_version(self) -> OtherVersionError | None:
        """Return what the first node said if all of them speak another version of the protocol."""
        said = [each.reason for each in self._places]
        first = said[0]
        if all(isinstance(each, OtherVersionError) for each in said):
            return first if isinstance(first, OtherVersionError) else None
        return None

    async def pick(self, tried: Collection[str], *, acts: bool = False) -> Session:
        """Return a session to the best server whose agency is not in ``tried``.

        Args:
            acts: one that takes transactions, as far as is known.

        Raises:
            NotReachableError: there is none left.
            ForkError: the network contradicts itself.
        """
        self._follow()
        now = trio.current_time()
        places = self._places
        if self._spread:
            self._turn = (self._turn + 1) % len(places)
            places = places[self._turn :] + places[: self._turn]
        for place in sorted(places, key=lambda p: max(p.avoided_until - now, 0.0)):
            if place.server.agency in tried or (acts and not place.takes):
                continue
            session = await self._session(place)
            if session is not None:
                return session
        if not tried and await self._learn():
            return await self.pick(tried)
        raise NotReachableError("no node could be reached")

    async def _learn(self) -> bool:
        """Return whether there is a newer committee, asking all known members for it if none of the
        servers can be reached under its key; not often."""
        now = trio.current_time()
        if self._unknown is None or now < self._learn_at:
            return False
        self._learn_at = now + finding.PAUSE_SECONDS
        named = {place.server.agency: place.server for place in self._places}
        members = {each.agency: each for each in servers_of(self._trust.committee)}

        async def ask(session: Session) -> None:
            await follow(session.ask, session.trust)

        servers = tuple({**members, **named}.values())
        return await finding.learn(servers, self._trust, self._unknown, ask)

    def _follow(self) -> None:
        """Take keys and addresses from the newest committee, and its new members if all serve.

        An address of the client's own stays. Who has left is asked on: its node may serve reads.
        """
        committee, before = self._trust.committee, self._committee
        if committee.epoch == before.epoch:
            return
        self._committee = committee
        for place in self._places:
            place.declined = None
        old = {each.agency: each for each in servers_of(before)}
        new = {each.agency: each for each in servers_of(committee)}
        for place in (*self._places, *self._others):
            now, was = new.pop(place.server.agency, None), old.get(place.server.agency)
            if now is None or now == was:
                continue
            host, port = place.server.host, place.server.port
            if was is not None and (host, port) != (was.host, was.port):
                now = replace(now, host=host, port=port)
            place.server = now
            place.avoided_until = 0.0
        if self._all:
            self._places += [_Place(server) for server in new.values()]

    async def at(self, server: Server) -> Session:
        """Return a session to the node of one agency, at the client's own address for it if any.

        Raises:
            ComityError: it cannot be opened.
        """
        for place in (*self._places, *self._others):
            if place.server.agency == server.agency:
                break
        else:
            place = _Place(server)
            self._others.append(place)
        async with place.opening:
            if place.session is None or not place.session.alive:
                place.session = await self.open(place.server)
            return place.session

    async def open(self, server: Server) -> Session:
        """Return a new session of its own, not shared.

        Raises:
            ComityError: it cannot be opened.
        """
        with trio.move_on_after(CONNECT_SECONDS_MAX):
            stream = await self._dial(server)
            session = Session(server, stream, self._trust, tls.minor(stream))
            try:
                await session.greet(self._key)
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
            self._nursery.start_soon(session.run)
            try:
                await follow(session.ask, self._trust)
                if self._purpose:
                    await session.ask(Purpose(self._purpose), lambda result, _: None)
            except BaseException:
                session.close()
                raise
            return session
        raise NotReachableError(f"{server.agency} did not answer in {CONNECT_SECONDS_MAX:g} s")

    def failed(self, session: Session, error: ComityError) -> None:
        """Avoid a server for a while because of ``error``."""
        for place in self._places:
            if place.server is session.server:
                self._avoid(place, error)

    def declined(self, session: Session, problem: Problem) -> None:
        """Note that a node takes no transactions because it has no vote; it serves on."""
        for place in self._places:
            if place.server is session.server:
                place.declined = problem

    def praised(self, session: Session) -> None:
        """Note that a server answered well."""
        for place in self._places:
            if place.server is session.server:
                place.failures = 0
                place.avoided_until = 0.0
                place.reason = None

    async def _session(self, place: _Place) -> Session | None:
        if place.session is not None and place.session.alive:
            return place.session
        async with place.opening:
            if place.session is not None and place.session.alive:
                return place.session
            place.declined = None
            try:
                place.session = await self.open(place.server)
            except ForkError:
                raise
            except ComityError as error:
                self._avoid(place, error)
                return None
            return place.session

    def _avoid(self, place: _Place, error: ComityError) -> None:
        """Avoid a place; what fails while it is avoided is the same failure.

        All requests under way fail together with their connection, and that is one failure.
        """
        place.reason = error
        avoided = trio.current_time() < place.avoided_until
        if avoided and not isinstance(error, VerificationError):
            return
        place.failures += 1
        pause = AVOID_SECONDS * 2 ** min(place.failures - 1, 6)
        if isinstance(error, VerificationError):
            pause = AVOID_SECONDS_MAX
        place.avoided_until = trio.current_time() + min(pause, AVOID_SECONDS_MAX)
