"""Questions before an act: what somebody may do or read, and what would become of a draft.

Of authority and access each leaf is proved before it counts, and the ledger's own code judges
(``comity.authority``). What becomes of a draft is one node's word.

Not here: what a question needs of a client (``client``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from comity import simulating
from comity.authority import (
    Access,
    Authority,
    Leaves,
    Needed,
    judge,
    judge_access,
    roles_known,
)
from comity.errors import AbsentError, DraftError, RequestError
from comity.listing import unproved
from comity.results import Entry, Simulation
from comity.words import word
from consensus.asking import Reading, read_readings
from consensus.codec import Value
from consensus.ledger import layout
from consensus.ledger.transaction import Unsigned
from consensus.protocol import KEYS_MAX, PAGE_MAX, READS_MAX, GetReads, StateKey, Status

if TYPE_CHECKING:
    from comity.client import RulesInForce
    from comity.drafting import Call
    from comity.keys import Key
    from comity.network import Network
    from comity.sequence import Sequencer

T = TypeVar("T")

LISTED_MAX: Final = 5000
"""Most keys, and most grants, of a network that are gone through for those of one principal."""


class Inquiries:
    """What a client asks before an act; a part of ``Client``."""

    if TYPE_CHECKING:
        chain: bytes
        key: Key | None
        _network: Network
        _sequencer: Sequencer

        async def rules(self, *, refresh: bool = False) -> RulesInForce: ...
        async def now_ms(self) -> int: ...
        async def get_many(self, keys: Sequence[StateKey]) -> tuple[Entry, ...]: ...
        async def draft(
            self,
            *calls: Call,
            reads: Sequence[Entry] = (),
            under: Sequence[bytes] = (),
            cosigners: Sequence[bytes] = (),
            propose: bool = False,
            deliver: bool = True,
        ) -> Unsigned: ...

    async def authority(
        self,
        principal: bytes | None = None,
        *,
        grants: Sequence[bytes] = (),
        keys: Sequence[bytes] = (),
        listed: bool = True,
    ) -> Authority:
        """Return what a principal may do now and through which chain, judged on proved leaves.

        Args:
            principal: id; None: the one whose key this client has.
            grants, keys: ids and public keys to look at, beside those that a node lists.
            listed: False: only at those, at this client's key and at roles, which is soon done.

        Raises:
            DraftError: of whom is not said, and this client has no key.
            AbsentError: no such principal, or nobody has this client's key.
            RequestError: DENIED: this key may not read that.
        """
        if principal is None:
            principal = await self._own_principal()
        roles = roles_known((await self.rules()).book)
        wanted = [StateKey("principal", (principal,))]
        wanted += [StateKey("role", (principal, role)) for role in roles]
        leaves = await _leaves(self, wanted)
        gaps = ["roles that no rule in force names are not looked for"]
        found_keys: list[bytes] = []
        found_grants: list[bytes] = []
        if listed:
            found_keys = await _listed(self, leaves, "key", gaps)
            found_grants = await _listed(self, leaves, "grant", gaps)
        else:
            gaps.append("only keys and grants that were named are looked at")
        own = () if self.key is None else (self.key.public,)
        all_keys = [*dict.fromkeys((*keys, *found_keys, *own))]

        def work() -> Authority | None:
            return judge(leaves, principal, all_keys, dict.fromkeys((*grants, *found_grants)), gaps)

        return _known(await _judged(self, leaves, work), principal)

    async def _own_principal(self) -> bytes:
        if self.key is None:
            raise DraftError("whose authority is not said", hint="name a principal, or use a key")
        (leaf,) = await self.get_many([StateKey("key", (self.key.public,))])
        if not leaf.present:
            said = f"the network does not know the key {word(self.key.public)}"
            raise AbsentError(said, hint="use another key")
        return layout.Key(*leaf.value).principal

    async def key_of(self, principal: bytes) -> bytes:
        """Return a public key of a principal that is in force: proved, among those a node lists.

        Raises:
            AbsentError: none is.
            RequestError: DENIED: this key may not read that.
        """
        leaves = await _leaves(self, [StateKey("principal", (principal,))])
        for key in await _listed(self, leaves, "key", []):
            if not leaves.read("key", [key]).fault(leaves.now_ms):
                return key
        said = f"no key of principal {word(principal)} is in force, as far as is listed"
        raise AbsentError(said, hint="name the key itself")

    async def access(self, principal: bytes, namespace: str, *components: Value) -> Access:
        """Return whether a principal may read a record or account now, and by which rule.

        What the caller may not read itself is judged as far as that goes: ``allowed`` is None where
        it depends on what is in it.

        Raises:
            AbsentError: no such principal.
            RequestError: DENIED: this key may not read that.
        """
        key = StateKey(namespace, components)
        entry: Entry | None
        try:
            (entry,) = await self.get_many([key])
        except RequestError as error:
            if error.status != Status.DENIED:
                raise
            entry = None
        leaves = await _leaves(self, [StateKey("principal", (principal,))])
        found = await _judged(self, leaves, lambda: judge_access(leaves, principal, key, entry))
        return _known(found, principal)

    async def reads_of(
        self, namespace: str, *components: Value, skip: int = 0, limit: int = READS_MAX
    ) -> tuple[Reading, ...]:
        """Return whom one node has shown a record or account to, the oldest first: not proved.

        Nodes record that where the rules say ``log_reads``, each its own answers. Whoever may read
        it may ask; the person concerned is told agency and purpose, not who.

        Args:
            skip: how many to pass over.
            limit: most to return, up to 100.

        Raises:
            RequestError: DENIED: this key may not read it.
        """
        request = GetReads(StateKey(namespace, components), skip, limit)
        return await self._network.ask(request, lambda result, _: read_readings(result))

    async def requirements(self, draft: Unsigned) -> Simulation:
        """Return what would refuse a draft now, all of it, and who could give what is missing.

        One node's word on its newest state: not proved, and nothing is kept. Nobody needs to have
        signed; cosigners count as if they had. Only acts of this client's key are tried out.

        Raises:
            RequestError: DENIED: the draft is of another key.
        """
        return await self._network.ask(
            simulating.request(draft), lambda result, _: simulating.read(result)
        )

    async def simulate(
        self,
        *calls: Call,
        reads: Sequence[Entry] = (),
        under: Sequence[bytes] = (),
        cosigners: Sequence[bytes] = (),
        propose: bool = False,
    ) -> Simulation:
        """Return what would become of calls now; like ``requirements`` of a draft of them.

        Args:
            cosigners: public keys of those who would sign too; nobody has to.
            propose: as a proposal: ``proposed`` where it would be stored. Findings are then what
                it would need for its effect as things are, approvals and all the rest.

        Raises:
            DraftError: they cannot be written as a transaction.
        """
        draft = await self.draft(
            *calls,
            reads=reads,
            under=under,
            cosigners=cosigners,
            propose=propose,
            deliver=False,
        )
        try:
            return await self.requirements(draft)
        finally:
            self._sequencer.release(draft.transaction.sequence)


async def _leaves(client: Inquiries, wanted: Sequence[StateKey]) -> Leaves:
    leaves = Leaves(client.chain, (await client.rules()).book, await client.now_ms())
    for first in range(0, len(wanted), KEYS_MAX):
        for entry in await client.get_many(wanted[first : first + KEYS_MAX]):
            leaves.give(entry)
    return leaves


async def _judged(client: Inquiries, leaves: Leaves, work: Callable[[], T]) -> T:
    """Return what ``work`` comes to, once it has every leaf that it asks for."""
    while True:
        try:
            return work()
        except Needed as needed:
            (entry,) = await client.get_many([needed.key])
            leaves.give(entry)


def _known(found: T | None, principal: bytes) -> T:
    if found is None:
        raise AbsentError(
            f"there is no principal {word(principal)}",
            hint="a key is not its principal's id: look it up with `comity get key/0x…`",
        )
    return found


async def _listed(client: Inquiries, leaves: Leaves, kind: str, gaps: list[str]) -> list[bytes]:
    """Return the keys or grants that a node lists, and say what that leaves open."""
    ids: list[bytes] = []
    after: tuple[Value, ...] | None = None
    try:
        while len(ids) < LISTED_MAX:
            page = await unproved(client._network, kind, after, PAGE_MAX)
            ids += [id_[0] for id_ in page.ids if id_ and isinstance(id_[0], bytes)]
            after = page.next
            if after is None:
                gaps.append(f"{kind}s are those that one node lists; it may leave some out")
                break
        else:
            gaps.append(f"only the first {LISTED_MAX} {kind}s were looked at")
    except RequestError as error:
        if error.status not in (Status.NOT_FOUND, Status.DENIED):
            raise
        gaps.append(f"only those {kind}s that were named are looked at: the node lists none")
    return await _theirs(client, leaves, kind, ids)


async def _theirs(
    client: Inquiries, leaves: Leaves, kind: str, ids: Sequence[bytes]
) -> list[bytes]:
    """Return those that may be the principal's, of keys or grants that were listed."""
    found: list[bytes] = []
    (principal,) = leaves.entries[0].key.components
    agency = leaves.entries[0].value[1] if leaves.entries[0].present else ""
    for first in range(0, len(ids), KEYS_MAX):
        wanted = [StateKey(kind, (id_,)) for id_ in ids[first : first + KEYS_MAX]]
        for entry in await client.get_many(wanted):
            if not entry.present:
                continue
            if kind == "key":
                theirs = layout.Key(*entry.value).principal == principal
            else:
                holder = layout.Grant(*entry.value).holder
                theirs = holder[0] in (principal, agency) or len(holder) == 2
            if theirs:
                leaves.give(entry)
                found.append(entry.key.components[0])
    return found
