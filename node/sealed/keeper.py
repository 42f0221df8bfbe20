"""Takes sealed values, opens them for those who may read them, and shares them with the audience.

Delivery: a client hands a value to the node of each agency in the audience, proving the key that
will sign the transaction. The node looks the action up: what is not sealed for its agency it does
not take. The value is on disk before the acknowledgement leaves. Until a block has it, it counts
against quotas of its author and of all, and it lapses with its transaction.

Reading: whoever reads the record, and is of an agency in the audience, gets value and salt, and
checks them against the commitment in the record. What is not here is fetched from another node of
the audience, which gives it to no other.

Not here: who may read a record and what is recorded of it (``node.api``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import trio

from consensus import codec
from consensus.codec import Value
from consensus.committee import Committee
from consensus.errors import ComityError, LocalProtocolError
from consensus.genesis import Limits
from consensus.hashing import ZERO
from consensus.ledger.kernel.plan import duration_ms
from consensus.ledger.layout import Agency, Erasure, Paths, in_force
from consensus.ledger.model import Rulebook
from consensus.ledger.private import slot
from consensus.ledger.proposing import PROPOSAL_HOURS, PROPOSAL_HOURS_DEFAULT
from consensus.ledger.sealing import ERASURE, Opening, check_value, delivery_message
from consensus.sealed import ABSENT, CLOSED, ERASED, OPEN, Deliver, Found, Kept
from consensus.signing import TAG_DELIVERY
from consensus.state.record import decode_row, decode_single
from consensus.state.state import Row
from node.errors import NodeError, StorageFailedError
from node.keyfiles import NodeKey
from node.network.wire import Class
from node.sealed import vault, wire
from node.sealed.seen import sealed_fields
from node.sealed.vault import Change, Delivered, Destroyed, Erase, Held, Place, Vault
from node.sealed.wire import Given, Wanted

AUTHOR_VALUES_MAX: Final = 256
AUTHOR_BYTES_MAX: Final = 2 * 2**20
"""What may wait of one author that no block has yet."""
AGENCY_VALUES_MAX: Final = 2048
VALUES_MAX: Final = 4096
BYTES_MAX: Final = 32 * 2**20
"""What may wait of all authors, in proposals too."""
FETCH_SECONDS_MAX: Final = 2.0
"""How long other nodes are waited for, for all values of one request."""
FETCHES_MAX: Final = 64
"""Values asked of other nodes at a time."""


class NotInAudienceError(NodeError):
    """What somebody wants to seal is not for this node's agency."""

    code = "DENIED"
    advice = "deliver each value to the nodes of its audience and to no others"


class KeeperBusyError(NodeError):
    """As many values wait for their transactions as may."""

    code = "BUSY"
    advice = "submit the transactions of the values delivered before; unused ones lapse"


class Links(Protocol):
    """What is needed of ``node.network.peers.PeerNetwork``."""

    @property
    def connected(self) -> frozenset[int]:
        """Indices of connected peers."""
        ...

    def send(self, peer: int, cls: Class, payload: bytes) -> bool:
        """Queue a payload for one peer."""
        ...


_CLOSED: Final = Found(CLOSED)


class Keeper:
    """The sealed values of one node.

    Args:
        node_key: signs acknowledgements.
        agency: this node's.
        limits: of the genesis file.
        kept: the values of this node.
        read: returns a row of the newest executed state.
        book: returns the rules in force.
        time_ms: returns certified chain time.
        agency_of: returns the agency of the principal of a key, for quotas.
        height: returns the newest certified height.
        has_block: whether this node has the block that follows a height.
    """

    def __init__(
        self,
        chain: bytes,
        node_key: NodeKey,
        agency: str,
        committee: Committee,
        limits: Limits,
        kept: Vault,
        links: Links,
        paths: Paths,
        read: Callable[[bytes], Row | None],
        book: Callable[[], Rulebook],
        time_ms: Callable[[], int],
        agency_of: Callable[[bytes], str],
        height: Callable[[], int],
        has_block: Callable[[int], bool],
    ) -> None:
        self._chain = chain
        self._node_key = node_key
        self._agency = agency
        self._committee = committee
        self._limits = limits
        self.vault = kept
        self._links = links
        self._paths = paths
        self._read = read
        self._book = book
        self._time_ms = time_ms
        self._agency_of = agency_of
        self._height = height
        self._has_block = has_block
        self._fetching: dict[bytes, trio.Event] = {}
        self._fetched: dict[bytes, Opening] = {}

    # --- delivery -----------------------------------------------------------------------------

    async def deliver(self, author: bytes, request: Deliver) -> list[Kept]:
        """Keep what an author delivers; return each with a signature, once it is on disk.

        Raises:
            NotInAudienceError: a value is not for this agency; nothing was kept.
            KeeperBusyError: too much waits.
            ComityError: it would lapse at once, or wait for too long; a value is too long.
            StorageFailedError: the disk.
        """
        now_ms = self._time_ms()
        longest_ms = max(
            self._limits.not_after_ms_max,
            duration_ms(self._book(), now_ms, PROPOSAL_HOURS, PROPOSAL_HOURS_DEFAULT),
        )
        if not now_ms < request.not_after_ms <= now_ms + longest_ms:
            raise ComityError(
                "no transaction may have this end",
                hint=f"choose one after {now_ms} and at most {longest_ms} ms later",
            )
        place = slot(self._chain, author, request.sequence)
        openings: list[Opening] = []
        for each in request.items:
            self._refuse_outside(each.domain, each.action, each.input)
            check_value(each.value, "value")
            openings.append(Opening(each.salt, place, each.call, each.input, each.value))
        commitments = [each.commitment for each in openings]
        fresh = [
            each
            for each, commitment in zip(openings, commitments, strict=True)
            if commitment not in self.vault.waiting
        ]
        self._refuse_flood(author, fresh)
        await self.vault.deliver(
            [Delivered(each, request.not_after_ms, author, self._height()) for each in openings]
        )
        return [
            Kept(commitment, self._acknowledge(each, commitment))
            for each, commitment in zip(openings, commitments, strict=True)
        ]

    def _acknowledge(self, opening: Opening, commitment: bytes) -> bytes:
        whole = delivery_message(self._chain, opening.slot, commitment, opening.call, opening.input)
        body = whole[len(TAG_DELIVERY) + len(self._chain) :]
        return self._node_key.sign(TAG_DELIVERY, self._chain, body)

    def _refuse_outside(self, domain: str, name: str, input_: int) -> None:
        action = self._book().action(domain, name)
        if action is None or input_ >= len(action.inputs):
            raise NotInAudienceError(
                f"no action {domain}.{name} with so many inputs is in force here"
            )
        audience = action.inputs[input_].type.audience
        if not any(self.standing_for(each) == self._agency for each in audience):
            raise NotInAudienceError(
                f"{domain}.{name} does not seal {action.inputs[input_].name} for {self._agency}"
            )

    def _refuse_flood(self, author: bytes, fresh: Sequence[Opening]) -> None:
        waiting = self.vault.waiting.values()
        size = sum(len(codec.encode(each.to_value())) for each in fresh)
        own = [each.size_bytes for each in waiting if each.author == author and not each.on_chain]
        if len(own) + len(fresh) > AUTHOR_VALUES_MAX or sum(own) + size > AUTHOR_BYTES_MAX:
            raise KeeperBusyError("too many sealed values of this key wait for their transactions")
        total = sum(each.size_bytes for each in waiting)
        if len(waiting) + len(fresh) > VALUES_MAX or total + size > BYTES_MAX:
            raise KeeperBusyError("too many sealed values wait here for their transactions")
        authors = Counter(each.author for each in waiting if not each.on_chain)
        agency = self._agency_of(author)
        same = sum(count for key, count in authors.items() if self._agency_of(key) == agency)
        if same + len(fresh) > AGENCY_VALUES_MAX:
            raise KeeperBusyError(f"too many sealed values of {agency} wait for their transactions")

    # --- reading ------------------------------------------------------------------------------

    async def open(
        self, agencies: Callable[[str], bool], kind_name: str, row: bytes, wanted: Sequence[bytes]
    ) -> list[Found]:
        """Return the values behind commitments of a record, for somebody who may read it.

        Args:
            agencies: whether whoever asks is of an agency, by its name.
            row: of the record, as the state has it.
        """
        kind = self._book().kinds.get(kind_name)
        if kind is None:
            return [_CLOSED] * len(wanted)
        stored = decode_row(row)
        now = {each: (name, version) for name, each, version in sealed_fields(kind, stored)}
        out: list[Found] = []
        until = trio.current_time() + FETCH_SECONDS_MAX
        for commitment in wanted:
            name, version = now.get(commitment, ("", 0))
            if not name:
                name, version = self._earlier(commitment, (kind_name, *stored.id))
            field = kind.fields.get(name)
            if field is None or not any(agencies(each) for each in field.sealed_for):
                out.append(_CLOSED)
                continue
            place = (kind_name, *stored.id, name)
            out.append(await self._open(commitment, place, version, field.sealed_for, until))
        return out

    def _earlier(self, commitment: bytes, record: Place) -> tuple[str, int]:
        """Return field and version where a record had a commitment before, as far as known here."""
        held = self.vault.get(commitment)
        if isinstance(held, Held):
            for place, version in held.homes:
                if place[:-1] == record:
                    return str(place[-1]), version
        return "", 0

    async def _open(
        self,
        commitment: bytes,
        place: Place,
        version: int,
        audience: tuple[str, ...],
        until: float,
    ) -> Found:
        txid = self._erased(place, version)
        if txid is not None:
            return Found(ERASED, txid=txid)
        held = self.vault.get(commitment)
        if isinstance(held, Destroyed):
            return Found(ERASED, txid=held.txid)
        if held is not None:
            return Found(OPEN, held.opening)
        opening = None
        if any(self.standing_for(each) == self._agency for each in audience):
            opening = await self._fetch(commitment, audience, until)
        if opening is None:
            return Found(ABSENT)
        txid = self._erased(place, version)  # while it was on its way
        if txid is not None:
            return Found(ERASED, txid=txid)
        await self.vault.adopt(opening, vault.Kept(commitment, audience, ((place, version),)))
        return Found(OPEN, opening)

    def _erased(self, place: Place, version: int) -> bytes | None:
        """Return the act that erased a field's values up to a version, by the state."""
        found = self._single(ERASURE, list(place))
        if found is None:
            return None
        erasure = Erasure(*found)
        return erasure.txid if erasure.version >= version else None

    async def _fetch(
        self, commitment: bytes, audience: Sequence[str], until: float
    ) -> Opening | None:
        """Return a value from another node of the audience, or None if none gives it in time."""
        if len(self._fetching) >= FETCHES_MAX and commitment not in self._fetching:
            return None
        names = {self.standing_for(each) for each in audience}
        peers = [
            index
            for index in sorted(self._links.connected)
            if self.standing_for(self._committee.validators[index].agency) in names
        ]
        came = self._fetching.setdefault(commitment, trio.Event())
        try:
            asked = wire.encode(Wanted((commitment,)))
            if sum(self._links.send(peer, Class.SYNC, asked) for peer in peers):
                with trio.move_on_at(until):
                    await came.wait()
            return self._fetched.get(commitment)
        finally:
            self._fetching.pop(commitment, None)
            self._fetched.pop(commitment, None)

    # --- of agencies whose place this one took --------------------------------------------------

    @property
    def height(self) -> int:
        """The newest certified height."""
        return self._height()

    def seated_predecessors(self) -> list[str]:
        """Return the agencies whose place this one took and whose nodes are connected members."""
        found = self._single("agency", [self._agency])
        taken = None if found is None else Agency(*found).predecessors
        rows = self._committee.validators
        there = [rows[index].agency for index in sorted(self._links.connected)]
        return [each for each in there if each in (taken or ())]

    def knows(self, commitment: bytes) -> bool:
        """Return whether a value is here, or was destroyed here."""
        return self.vault.get(commitment) is not None

    def record(self, kind: str, id_: Sequence[Value]) -> bytes | None:
        """Return the row of a record as it is now."""
        row = self._read(self._paths("record", [kind, *id_]))
        return None if row is None or row.vh == ZERO else row.value

    async def fetch(
        self, commitment: bytes, place: Place, version: int, audience: tuple[str, ...]
    ) -> Found:
        """Return a value of a record, from the audience's other nodes where it is not here."""
        until = trio.current_time() + FETCH_SECONDS_MAX
        return await self._open(commitment, place, version, audience, until)

    # --- other nodes --------------------------------------------------------------------------

    def receive(self, peer: int, payload: bytes) -> None:
        """Take a frame of a peer.

        Raises:
            DecodeError: malformed.
        """
        match wire.decode(payload):
            case Wanted(commitments):
                self._give(peer, commitments)
            case Given(openings):
                for opening in openings:
                    commitment = opening.commitment
                    if commitment in self._fetching:
                        self._fetched[commitment] = opening
                        self._fetching[commitment].set()

    def _give(self, peer: int, commitments: Sequence[bytes]) -> None:
        agency = self._committee.validators[peer].agency
        given: list[Opening] = []
        for commitment in commitments:
            try:
                held = self.vault.get(commitment)
            except StorageFailedError:  # damaged: whoever may read it is told, not a peer
                continue
            if isinstance(held, Held) and any(
                self.standing_for(each) == agency for each in held.audience
            ):
                given.append(held.opening)
        if given:
            self._links.send(peer, Class.SYNC, wire.encode(Given(tuple(given))))

    def standing_for(self, name: str) -> str:
        """Return the agency that stands for one now: itself, or who took its place."""

        def read(agency: str) -> Agency:
            found = self._single("agency", [agency])
            return Agency(agency, "", 0, 0) if found is None else Agency(*found)

        return in_force(read(name), read).name

    def _single(self, space: str, components: list[Value]) -> list[Value] | None:
        row = self._read(self._paths(space, components))
        if row is None or row.vh == ZERO:
            return None
        value = codec.parse(decode_single(row.value)[2], space)
        if type(value) is not list:
            raise LocalProtocolError(f"a leaf of {space} is no array")
        return value

    # --- blocks -------------------------------------------------------------------------------

    async def settle(self, changes: Sequence[Change], time_ms: int) -> None:
        """Take over what certified blocks did; see ``Vault.settle``."""
        await self.vault.settle(changes, time_ms, self._has_block)

    async def reconcile(self) -> None:
        """Erase what the state says is erased: for a node that did not see the blocks."""
        after = b""
        while page := self.vault.page(after):
            after = page[-1][0]
            found: list[Change] = []
            for commitment, homes in page:
                for place, version in homes:
                    txid = self._erased(place, version)
                    if txid is not None:
                        found.append(Erase(place, version, commitment, txid))
                        break
            if found:
                await self.vault.settle(found, 0, self._has_block)
            await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Release the files."""
        self.vault.close()
