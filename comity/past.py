"""The past: what a leaf of the state was at a height or time, and all its versions since another.

Every version is proved under the newest statement that the answer brings, and that none is left out
is proved with it (``consensus.state.changes``). What a node does not show of a version, because it
may not be read or is not kept any more, is still known to have been there.

Which transactions made a version is found in the decisions of its height, which are complete too.

Not here: the newest state (``client``), and what a client is (``Client`` takes this as a part).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from comity.errors import AbsentError, DraftError, RequestError
from comity.results import Decision, Entry, Height
from comity.session import Statements, statement_of
from comity.verify import Trust, entry_of
from comity.words import place_word
from consensus import past
from consensus.answers import Problem
from consensus.codec import Value
from consensus.errors import ProofError
from consensus.hotstuff.types import Statement
from consensus.past import CLOSED, FORGOTTEN, Told
from consensus.protocol import VERSIONS_MAX, GetHistory, GetMoment, StateKey, Status
from consensus.state import changes
from consensus.state.statement import Summary

if TYPE_CHECKING:
    from comity.network import Network

VERSIONS_SHOWN_MAX: Final = 1000
"""Versions of one history; a longer one says where it ends."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The greatest height whose time is not after the one asked for.

    Args:
        height, time_ms: of that height.
        final: no later height can have a time as early; False where it is the newest one known.
    """

    height: int
    time_ms: int
    final: bool


@dataclass(frozen=True, slots=True)
class Version:
    """What a leaf was from one height on.

    Args:
        height, time_ms: of the block that made it.
        entry: it, absent where that block deleted it; None: it is not shown.
        why: why not: ``closed``, this key may not read it, or ``forgotten``, no longer kept.
        changed: fields of a record that differ from the version before it that is shown.
        transactions: those that made it; None where that was not asked for or may not be read.
    """

    height: int
    time_ms: int
    entry: Entry | None
    why: str = ""
    changed: tuple[str, ...] = ()
    transactions: tuple[bytes, ...] | None = None

    @property
    def deleted(self) -> bool:
        """Whether it is proved that there was nothing."""
        return self.entry is not None and not self.entry.present


@dataclass(frozen=True, slots=True)
class History:
    """All versions of a leaf after the blocks of heights ``first`` to ``last``, ascending.

    The first is the one in force at ``first``; there is none where the leaf did not exist then.

    Args:
        complete: it goes as far as was asked; otherwise ``last`` says how far.
        height, time_ms: of the newest statement that it was proved under.
        horizon, horizon_ms: the node asked keeps no rows that were replaced up to this height.
    """

    key: StateKey
    first: int
    last: int
    versions: tuple[Version, ...]
    complete: bool
    height: int
    time_ms: int
    horizon: int
    horizon_ms: int | None

    @property
    def never(self) -> bool:
        """Whether it is proved that the leaf was never there at these heights."""
        return all(version.deleted for version in self.versions)


@dataclass(frozen=True, slots=True)
class _Proved:
    last: int
    statement: Statement
    versions: tuple[changes.Version, ...]
    rows: tuple[Told, ...]
    horizon: int
    horizon_ms: int | None


class Recollections:
    """What a client knows of the past; a part of ``Client``."""

    if TYPE_CHECKING:
        trust: Trust
        _network: Network

        async def decisions(self, first: int, count: int = 1) -> tuple[Height, ...]: ...
        async def statements(self, first: int, count: int = 1) -> tuple[Height, ...]: ...

    async def moment(self, time_ms: int) -> Moment:
        """Return the greatest height whose time is not after ``time_ms``, proved with the next.

        Raises:
            AbsentError: the network had not begun.
            RequestError: PRUNED: the node asked does not go back so far.
        """
        if time_ms < 0:
            raise DraftError(f"{time_ms} is no time", hint="milliseconds since 1970")
        height_min = self.trust.height

        def read(result: Value, statements: Statements) -> Moment | None:
            height = past.read_moment(result)
            if height is None:
                if statement_of(statements, 0).time_ms <= time_ms:
                    raise ProofError("the network had begun at that time")
                return None
            found = statement_of(statements, height)
            if found.time_ms > time_ms:
                raise ProofError("the height is of a later time than was asked for")
            after = statements.get(height + 1)
            if after is None:
                self.trust.fresh(height, height_min)
            elif after.time_ms <= time_ms:
                raise ProofError("the next height is not of a later time than was asked for")
            return Moment(height, found.time_ms, final=after is not None)

        found = await self._network.ask(GetMoment(time_ms), read)
        if found is None:
            raise AbsentError("the network had not begun at that time", hint="ask for a later time")
        return found

    async def _not_yet(self, height: int) -> AbsentError:
        """Return the error of a height that is not certified; asks which is the newest."""
        await self.statements(-1)
        said = f"height {height} is not certified yet"
        return AbsentError(said, hint=f"the newest one is {self.trust.height}")

    async def get_at(self, key: StateKey, height: int) -> Entry:
        """Return a leaf as it was after the block of ``height``.

        Raises:
            AbsentError: no such height is certified yet.
            RequestError: DENIED: this key may not read it, or not as it was then; PRUNED: the node
                asked does not keep it any more.
        """
        if height < 0:
            raise DraftError(f"{height} is no height", hint="heights count from 0")
        heights = await self.statements(height)
        if not heights:
            raise await self._not_yet(height)
        found = await self._versions_page(key, height, height, 1)
        if found.last != height:
            raise ProofError("the history is of another height than was asked for")
        if not found.versions:
            return Entry(key, height, heights[0].time_ms)
        (version,), (row,) = found.versions, found.rows
        if isinstance(row, int):
            raise _unshown(key, row, found)
        kh = self.trust.paths(key.namespace, key.components)
        shown = (version.vh, version.height)
        return entry_of(key, kh, row, shown, height, heights[0].time_ms)

    async def history(
        self,
        namespace: str,
        *components: Value,
        first: int = 0,
        last: int | None = None,
        limit: int = VERSIONS_SHOWN_MAX,
        transactions: bool = False,
    ) -> History:
        """Return all versions of a leaf after the blocks of ``first`` to ``last``; none is missing.

        Args:
            namespace, components: as of ``get``; of ``holds`` the target's, as one list each.
            first, last: heights; None: the newest.
            limit: most versions; with more the history is not ``complete``.
            transactions: look up which transactions made each version, height by height.

        Raises:
            DraftError: no such heights.
            AbsentError: the first one is not certified yet.
            RequestError: DENIED: this key may not read the leaf; PRUNED: the node asked does not go
                back so far.
        """
        if first < 0 or (last is not None and last < first):
            raise DraftError(f"no heights from {first} to {last}", hint="heights count from 0")
        if not 1 <= limit <= VERSIONS_SHOWN_MAX:
            raise DraftError(f"a history has 1 to {VERSIONS_SHOWN_MAX} versions")
        if first > self.trust.height and not await self.statements(first):
            raise await self._not_yet(first)
        key = StateKey(namespace, components)
        proved: dict[int, tuple[changes.Version, Told]] = {}
        at = first
        while True:
            page = await self._versions_page(
                key, at, last, min(limit - len(proved) + 1, VERSIONS_MAX)
            )
            for version, row in zip(page.versions, page.rows, strict=True):
                proved.setdefault(version.height, (version, row))
            newest = page.statement.height
            reached = page.last >= (newest if last is None else min(last, newest))
            if reached or len(proved) > limit:
                break
            at = page.last + 1
        kept = [*proved.values()][:limit]
        end = page.last
        if len(proved) > limit:
            end, reached = [*proved][limit] - 1, False
        versions = [await self._version(key, version, row) for version, row in kept]
        versions = _with_changes(versions)
        if transactions:
            versions = [await self._with_transactions(key, each) for each in versions]
        own = page.statement
        return History(
            key,
            first,
            end,
            tuple(versions),
            reached,
            own.height,
            own.time_ms,
            page.horizon,
            page.horizon_ms,
        )

    async def _versions_page(
        self, key: StateKey, first: int, last: int | None, limit: int
    ) -> _Proved:
        height_min = self.trust.height
        kh = self.trust.paths(key.namespace, key.components)

        def read(result: Value, statements: Statements) -> _Proved:
            found = past.read_history(result)
            self.trust.fresh(found.height, height_min)
            own = statement_of(statements, found.height)
            end = own.height if last is None else min(last, own.height)
            if not first <= found.last <= end:
                raise ProofError("the history ends at another height than was asked for")
            versions = changes.verify(found.proof, _summary(own), kh, first, found.last)
            if len(versions) != len(found.rows):
                raise ProofError(f"{len(found.rows)} rows for {len(versions)} versions")
            if found.last < end and not any(each.height > first for each in versions):
                raise ProofError("the history ends early and for no reason")
            for version, row in zip(versions, found.rows, strict=True):
                if not isinstance(row, int):
                    entry_of(key, kh, row, (version.vh, version.height), version.height, 0)
                elif version.absent:
                    raise ProofError("what was deleted is said not to be shown")
            return _Proved(found.last, own, versions, found.rows, found.horizon, found.horizon_ms)

        return await self._network.ask(GetHistory(height_min, key, first, last, limit), read)

    async def _version(self, key: StateKey, version: changes.Version, row: Told) -> Version:
        time_ms = version.time_ms
        if time_ms is None:
            (own,) = await self.statements(version.height)
            time_ms = own.time_ms
        if isinstance(row, int):
            return Version(version.height, time_ms, None, _WHY[row])
        kh = self.trust.paths(key.namespace, key.components)
        shown = (version.vh, version.height)
        return Version(
            version.height, time_ms, entry_of(key, kh, row, shown, version.height, time_ms)
        )

    async def _with_transactions(self, key: StateKey, version: Version) -> Version:
        try:
            (own,) = await self.decisions(version.height)
        except RequestError as error:
            if error.status not in (Status.DENIED, Status.NOT_FOUND, Status.UNAVAILABLE):
                raise
            return version
        wrote = tuple(each.txid for each in own.decisions or () if _wrote(each, key))
        return replace(version, transactions=wrote)


_WHY: Final = {CLOSED: "closed", FORGOTTEN: "forgotten"}


def _summary(own: Statement) -> Summary:
    return Summary(
        own.hash, own.height, own.time_ms, own.state_root, own.changes_root, own.history_root
    )


def _unshown(key: StateKey, row: int, found: _Proved) -> RequestError:
    where = place_word(key.namespace, key.components, short=True)
    if row == CLOSED:
        said, hint = f"this key may not read {where} as it was then", "ask who may"
        return RequestError(Status.DENIED, Problem("DENIED", said, hint))
    said = f"the node keeps the past of {where} from height {found.horizon} on"
    return RequestError(
        Status.PRUNED,
        Problem("PRUNED", said, "ask for a later height, or a node that keeps more"),
    )


def _with_changes(versions: Sequence[Version]) -> list[Version]:
    """Return versions with the fields that differ from the version before."""
    out: list[Version] = []
    before: Entry | None = None
    for version in versions:
        entry = version.entry
        if entry is None or not entry.fields:
            out.append(version)
            before = None if version.deleted else before
            continue
        known = {} if before is None else dict(before.fields)
        steps = {} if before is None else dict(before.versions)
        names = [
            name
            for name, step in entry.versions.items()
            if name not in steps or steps[name] != step or known.get(name) != entry.fields.get(name)
        ]
        out.append(replace(version, changed=tuple(names)))
        before = entry
    return out


def _wrote(decision: Decision, key: StateKey) -> bool:
    """Return whether a decision, as far as it is shown, wrote a leaf."""
    if not decision.applied and decision.state != "proposed":
        return False
    place = [key.namespace, [*key.components]]
    for name, rows in decision.leaves.items():
        kind = name.partition(":")[0]
        if kind == "writes" and any(row[0] == place for row in rows):
            return True
        account = kind == "moves" and key.namespace == "account"
        if account and any([*row[1]] == [*key.components] for row in rows):
            return True
    return False
