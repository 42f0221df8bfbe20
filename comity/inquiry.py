"""Questions that take several reads: what somebody may do, and whether somebody may read.

Each leaf is proved before it counts; the ledger's own code judges (``comity.authority``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from comity.authority import (
    Access,
    Authority,
    Leaves,
    Needed,
    judge,
    judge_access,
    roles_known,
)
from comity.errors import RequestError
from comity.results import Entry
from consensus.answers import Problem
from consensus.codec import Value
from consensus.ledger import layout
from consensus.protocol import KEYS_MAX, PAGE_MAX, StateKey, Status

if TYPE_CHECKING:
    from comity.client import Client

T = TypeVar("T")

LISTED_MAX: Final = 5000
"""Most keys, and most grants, of a network that are gone through for those of one principal."""


async def authority(
    client: Client, principal: bytes, grants: Sequence[bytes], keys: Sequence[bytes]
) -> Authority:
    """Return what a principal may do now; see ``Client.authority``."""
    roles = roles_known((await client.rules()).book)
    leaves = await _leaves(
        client,
        [StateKey("principal", (principal,)), *(StateKey("role", (principal, r)) for r in roles)],
    )
    gaps = ["roles that no rule in force names are not looked for"]
    found_keys = await _listed(client, leaves, "key", gaps)
    found_grants = await _listed(client, leaves, "grant", gaps)
    own = () if client.key is None else (client.key.public,)
    all_keys = [*dict.fromkeys((*keys, *found_keys, *own))]

    def work() -> Authority | None:
        return judge(leaves, principal, all_keys, dict.fromkeys((*grants, *found_grants)), gaps)

    return _known(await _judged(client, leaves, work), principal)


async def access(client: Client, principal: bytes, key: StateKey) -> Access:
    """Return whether a principal may read something; see ``Client.access``."""
    entry: Entry | None
    try:
        (entry,) = await client.get_many([key])
    except RequestError as error:
        if error.status != Status.DENIED:
            raise
        entry = None
    leaves = await _leaves(client, [StateKey("principal", (principal,))])
    return _known(
        await _judged(client, leaves, lambda: judge_access(leaves, principal, key, entry)),
        principal,
    )


async def _leaves(client: Client, wanted: Sequence[StateKey]) -> Leaves:
    leaves = Leaves(client.chain, (await client.rules()).book, await client.now_ms())
    for first in range(0, len(wanted), KEYS_MAX):
        for entry in await client.get_many(wanted[first : first + KEYS_MAX]):
            leaves.give(entry)
    return leaves


async def _judged(client: Client, leaves: Leaves, work: Callable[[], T]) -> T:
    """Return what ``work`` comes to, once it has every leaf that it asks for."""
    while True:
        try:
            return work()
        except Needed as needed:
            (entry,) = await client.get_many([needed.key])
            leaves.give(entry)


def _known(found: T | None, principal: bytes) -> T:
    if found is None:
        said = f"there is no principal {principal.hex()}"
        raise RequestError(Status.NOT_FOUND, Problem("NOT_FOUND", said, "look at its id"))
    return found


async def _listed(client: Client, leaves: Leaves, kind: str, gaps: list[str]) -> list[bytes]:
    """Return the keys or grants that a node lists, and say what that leaves open."""
    ids: list[bytes] = []
    after: tuple[Value, ...] | None = None
    try:
        while len(ids) < LISTED_MAX:
            page = await client.list_records(kind, after=after, limit=PAGE_MAX)
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


async def _theirs(client: Client, leaves: Leaves, kind: str, ids: Sequence[bytes]) -> list[bytes]:
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
