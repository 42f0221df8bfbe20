"""Proves a copy against the network, by another path than the one it was written by.

A copy was made from a stream of changes. The check asks for statements, decisions, single leaves
and histories instead, renders values itself, and lets trees say that nothing is missing:

1. heights: none is missing; each has the statement that the network certifies; the certificate that
   the copy holds is verified.
2. decisions: their roots make the results root; each value is what the verified decision says; so
   are writes, moves and links.
3. changes: they make the changes root. So the copy knows every change of the state there was.
4. versions: each change that was shown of a record, account or hold has its row, and no row is
   there without such a change; each ends where the next begins; what was not shown has no values.
5. values: of every version, by a proof of the leaf or of its history.
6. erasures: each as the leaf says; what was destroyed is not said to be there.

The first difference ends the check and is named. What the key may not read any more, or no node
keeps, cannot be checked and is counted.

Not here: how a copy is read (``check_postgres``, ``check_parquet``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from comity.client import Client
from comity.errors import RequestError
from comity.feeding.errors import CopyDamagedError, FeedSetupError
from comity.feeding.rendering import Rendering, Unknown
from comity.results import Decision, Entry, Height
from comity.words import id_word, place_word
from consensus.answers import StatementEvidence
from consensus.errors import DecodeError, VerificationError
from consensus.hotstuff.wire import decode_commit_cert
from consensus.ledger.layout import Paths
from consensus.protocol import HEIGHTS_MAX, KEYS_MAX, StateKey, Status
from consensus.state.changes import Change, leaf_hashes
from consensus.state.merkle import CHANGES, RESULTS
from consensus.state.statement import read as read_statement

Row = dict[str, Any]
"""A row by column: dates as days, times as milliseconds since 1970, JSON as what it says."""
Told = Callable[[str], None]

REPORT_HEIGHTS: Final = 6_400
_OTHER_SPACES: Final = ("reservation/", "proposal/", "corrections/", "erasure/")
"""Of shown places that have no table of versions."""


class Copy(Protocol):
    """What a copy holds. ``ends``: whether its versions say where they end."""

    chain: bytes
    first: int
    last: int
    ends: bool

    def rows(self, table: str, first: int, last: int) -> Sequence[Row]:
        """Return the rows of heights, in any order; none of a table that there is not."""

    def versioned(self) -> Sequence[str]:
        """Return the names of the tables of versions."""

    def close(self) -> None:
        """Let go of it."""


class Divergence(Exception):
    """The first difference that was found. Never leaves this module."""


@dataclass(slots=True)
class Report:
    """What was checked; ``divergence`` names the first difference, None: there is none."""

    first: int
    last: int
    heights: int = 0
    decisions: int = 0
    changes: int = 0
    versions: int = 0
    unchecked: int = 0
    divergence: str | None = None

    def to_value(self) -> dict[str, object]:
        """Return it for programs."""
        return asdict(self)


async def check(
    client: Client, copy: Copy, first: int, last: int | None, told: Told = lambda words: None
) -> Report:
    """Compare a copy with the network, from height ``first`` or where it begins to ``last``.

    Raises:
        FeedSetupError: it holds no such heights.
        ComityError: the network does not answer.
    """
    if copy.chain != client.chain:
        raise CopyDamagedError("this is a copy of another network")
    first = max(first, copy.first)
    last = copy.last if last is None else min(last, copy.last)
    if last < first:
        raise FeedSetupError(f"the copy holds heights {copy.first} to {copy.last}")
    report = Report(first, last)
    checking = _Checking(client, copy, report)
    try:
        await checking.run(told)
    except Divergence as error:
        report.divergence = str(error)
    return report


class _Checking:
    def __init__(self, client: Client, copy: Copy, report: Report) -> None:
        self._client = client
        self._copy = copy
        self._report = report
        self._paths = Paths(client.chain)
        self._rendering = Rendering()
        self._places: dict[bytes, StateKey] = {}
        """Where what changed lies, as decisions say it."""
        self._shown: dict[bytes, list[int]] = {}
        """Heights at which a place with a table of versions was shown."""
        self._hidden: set[tuple[bytes, int]] = set()
        self._views: dict[int, bool] = {}
        """Whether as much is shown of the decisions of a height as when the copy was made."""
        self._erased: dict[tuple[bytes, str], tuple[int, int]] = {}
        """Version up to which a field's values are destroyed, and since which height."""

    async def run(self, told: Told) -> None:
        report = self._report
        await self._rendering.load(self._client)
        for low in range(report.first, report.last + 1, HEIGHTS_MAX):
            high = min(low + HEIGHTS_MAX - 1, report.last)
            await self._heights(low, high)
            if (low - report.first) % REPORT_HEIGHTS == 0 and low > report.first:
                told(f"checked to height {high} of {report.last}")
        told("checking values")
        for account in self._client.genesis.accounts:
            self._place("account", [account.family, *account.id])
        await self._erasures()
        for table in self._copy.versioned():
            await self._versions(table)
        left = [kh for kh, heights in self._shown.items() if heights]
        if left:
            height = self._shown[left[0]][0]
            raise Divergence(f"the row of {_hex(left[0])} at height {height} is missing")

    # --- heights --------------------------------------------------------------------------------

    async def _heights(self, low: int, high: int) -> None:
        found = {row["height"]: row for row in self._copy.rows("heights", low, high)}
        truth = {each.height: each for each in await self._every(low, high)}
        by_height: dict[str, dict[int, list[Row]]] = {}
        for table in ("decisions", "writes", "moves", "links", "changes"):
            grouped = by_height.setdefault(table, {})
            for row in self._copy.rows(table, low, high):
                grouped.setdefault(row["height"], []).append(row)
        for height in range(low, high + 1):
            own = found.get(height)
            if own is None:
                raise Divergence(f"table heights: height {height} is missing")
            rows = {table: grouped.get(height, []) for table, grouped in by_height.items()}
            self._height(own, truth[height], rows)
        self._report.heights += high - low + 1

    async def _every(self, low: int, high: int) -> list[Height]:
        """Return the verified heights of a range with all their decisions."""
        found: list[Height] = []
        if low == 0:
            found += await self._client.statements(0)
        while (at := low + len(found)) <= high:
            page = await self._client.decisions(at, high - at + 1)
            if not page:
                raise Divergence(f"the network has certified no height {at}")
            found += page
        return found

    def _height(self, row: Row, truth: Height, rows: dict[str, list[Row]]) -> None:
        height = truth.height
        where = f"table heights, height {height}"
        statement = read_statement(row["statement"])
        try:
            own = decode_commit_cert(row["certificate"]).statement.height == height
            below = (None, ()) if own else (row["statement"], tuple(row["path"]))
            evidence = StatementEvidence(row["certificate"], *below)
            vouched = self._client.trust.statement(evidence)
        except (VerificationError, DecodeError) as error:
            raise Divergence(f"{where}: the certificate fails: {error.message}") from error
        if statement.hash != row["statement_hash"] or vouched.hash != statement.hash:
            raise Divergence(f"{where}: the certificate vouches for another statement")
        decisions = truth.decisions or ()
        self._same(
            where,
            row,
            {
                "time": truth.time_ms,
                "epoch": truth.epoch,
                "decisions": len(decisions),
                "changes": len(rows["changes"]),
                "shown": sum(each["shown"] for each in rows["changes"]),
            },
        )
        if (statement.state_root, vouched.results_root) != (truth.state_root, truth.results_root):
            raise Divergence(f"{where}: the network certifies another statement")
        self._views.clear()
        for table in ("decisions", "writes", "moves", "links"):
            self._acts(table, height, rows[table], decisions)
        roots = sorted((each["index"], each["root"]) for each in rows["decisions"])
        if RESULTS.root([root for _, root in roots]) != truth.results_root:
            raise Divergence(f"table decisions, height {height}: they make another results root")
        self._report.decisions += len(decisions)
        self._changes(height, rows["changes"], vouched.changes_root)

    # --- decisions ------------------------------------------------------------------------------

    def _acts(
        self, table: str, height: int, rows: Sequence[Row], decisions: Sequence[Decision]
    ) -> None:
        key = {"decisions": "index", "moves": "number"}.get(table, "position")
        found: dict[int, list[Row]] = {}
        for row in sorted(rows, key=lambda row: (row["index"], row[key])):
            found.setdefault(row["index"], []).append(row)
        for each in decisions:
            where = f"table {table}, height {height}, index {each.index}"
            expected = [*getattr(self, f"_{table}")(each)]
            own = found.pop(each.index, [])
            if table == "decisions" and len(own) == 1:
                self._views[each.index] = own[0]["closed"] == each.closed
                if not self._views[each.index]:
                    expected = [self._seen(each, own[0], expected[0])]
            elif not self._views.get(each.index, True):
                own, expected = self._both(own, expected, key)
            if len(own) != len(expected):
                raise Divergence(f"{where}: {len(own)} rows where there are {len(expected)}")
            for row, truth in zip(own, expected, strict=True):
                self._same(where, row, truth)
        if found:
            raise Divergence(f"table {table}, height {height}: there is no index {min(found)}")

    def _seen(self, each: Decision, row: Row, truth: Row) -> Row:
        """Return what can be compared of a decision that is shown otherwise now than it was."""
        self._report.unchecked += 1
        skipped = {"closed"}
        if row["principal"] is None or "authority" not in each.leaves:
            skipped |= {"principal", "agency", "key"}
        if row["code"] == row["state"].upper() or "code" not in each.leaves:
            skipped |= {"code", "call", "detail"}
        return {name: value for name, value in truth.items() if name not in skipped}

    def _both(
        self, rows: Sequence[Row], truths: Sequence[Row], key: str
    ) -> tuple[list[Row], list[Row]]:
        """Return the rows of leaves that were shown then and are now, without their numbers."""
        if not truths or "domain" not in truths[0]:
            self._report.unchecked += len(rows)
            return [], []
        both = {row["domain"] for row in rows} & {row["domain"] for row in truths}
        own = [row for row in rows if row["domain"] in both]
        self._report.unchecked += len(rows) - len(own)
        return own, [
            {name: value for name, value in row.items() if name != key}
            for row in truths
            if row["domain"] in both
        ]

    def _decisions(self, each: Decision) -> Iterator[Row]:
        leaves = each.leaves
        actor = (leaves["authority"][0] if "authority" in leaves else None) or [None] * 3
        names = [self._rendering.action(domain, id_, each.time_ms) for domain, _, id_ in each.rules]
        yield {
            "index": each.index,
            "txid": each.txid,
            "time": each.time_ms,
            "state": each.state,
            "code": each.code,
            "call": each.call,
            "detail": self._rendering.json(each.detail),
            "actions": names,
            "rules": [f"{domain}#{number}" for domain, number, _ in each.rules],
            "principal": actor[0],
            "agency": actor[1],
            "key": actor[2],
            "closed": each.closed,
            "root": each.root,
        }

    def _leaves(self, each: Decision, part: str) -> Iterator[tuple[str, list[Any]]]:
        for name, value in each.leaves.items():
            if name.split(":")[0] == part:
                for row in value:
                    yield name.partition(":")[2], row

    def _writes(self, each: Decision) -> Iterator[Row]:
        for at, (domain, row) in enumerate(self._leaves(each, "writes")):
            (space, components), old, new, vh, _ = row
            kh = self._place(space, components)
            yield {
                "index": each.index,
                "txid": each.txid,
                "position": at,
                "domain": domain,
                "place": self._rendering.text(place_word(space, components)),
                "kh": kh,
                "old_version": old,
                "new_version": new,
                "vh": vh,
            }

    def _moves(self, each: Decision) -> Iterator[Row]:
        for at, (domain, row) in enumerate(self._leaves(each, "moves")):
            family, *id_ = row[1]
            yield {
                "index": each.index,
                "txid": each.txid,
                "number": at,
                "domain": domain,
                "position": row[0],
                "family": family,
                "account": self._rendering.text(id_word(id_)),
                "kh": self._place("account", row[1]),
                "currency": self._rendering.currency(family),
                "delta": row[2],
                "delta_reserved": row[3] if len(row) > 3 else 0,
                "reservation": self._rendering.text(id_word(row[4])) if len(row) > 3 else None,
            }

    def _links(self, each: Decision) -> Iterator[Row]:
        for at, (_, row) in enumerate(self._leaves(each, "links")):
            yield {
                "index": each.index,
                "txid": each.txid,
                "position": at,
                "what": row[0],
                "other": row[1],
            }

    def _place(self, space: str, components: Sequence[Any]) -> bytes:
        kh = self._paths(space, components)
        self._places[kh] = StateKey(space, tuple(components))
        return kh

    # --- changes --------------------------------------------------------------------------------

    def _changes(self, height: int, rows: Sequence[Row], root: bytes) -> None:
        ordered = sorted(rows, key=lambda row: row["kh"])
        records = [Change(row["kh"], row["vh"], row["previous"]).encode() for row in ordered]
        if CHANGES.root(leaf_hashes(records)) != root:
            raise Divergence(f"table changes, height {height}: they make another changes root")
        for row in ordered:
            if not row["shown"]:
                self._hidden.add((row["kh"], height))
            elif not row["place"].startswith(_OTHER_SPACES):
                self._shown.setdefault(row["kh"], []).append(height)
        self._report.changes += len(ordered)

    # --- versions -------------------------------------------------------------------------------

    async def _versions(self, table: str) -> None:
        by_place: dict[bytes, list[Row]] = {}
        for row in self._copy.rows(table, -1, self._report.last):
            by_place.setdefault(row["_kh"], []).append(row)
        newest: list[tuple[StateKey, Row]] = []
        for kh, rows in by_place.items():
            rows.sort(key=lambda row: row["_height"])
            key = self._known(table, kh, rows)
            if key is None:
                self._report.unchecked += len(rows)
                continue
            if len(rows) == 1 and rows[0]["_state"] == "readable":
                newest.append((key, rows[0]))
            else:
                await self._history(table, key, rows)
        for low in range(0, len(newest), KEYS_MAX):
            await self._newest(table, newest[low : low + KEYS_MAX])

    def _known(self, table: str, kh: bytes, rows: Sequence[Row]) -> StateKey | None:
        """Return the place of some versions, whose changes must be there; None: nobody names it."""
        shown = self._shown.get(kh, [])
        for at, row in enumerate(rows):
            height = row["_height"]
            where = f"table {table}, {row['_id']}, height {height}"
            if self._report.first <= height:
                if row["_state"] == "readable":
                    if height not in shown:
                        raise Divergence(f"{where}: no such change was shown")
                    shown.remove(height)
                elif (kh, height) not in self._hidden and height not in shown:
                    raise Divergence(f"{where}: there was no such change")
                elif any(row[name] is not None for name in row if not name.startswith("_")):
                    raise Divergence(f"{where}: it is not readable, and has values")
            until = rows[at + 1]["_height"] if at + 1 < len(rows) else None
            ended = row["_until"] if self._copy.ends else until
            if ended != until and not (until is None and (ended or 0) > self._report.last):
                raise Divergence(f"{where}: _until is {ended} and should be {until}")
        found = self._places.get(kh)
        return found or self._rendering.place(table, rows[0]["_id"], kh, self._paths)

    async def _newest(self, table: str, wanted: Sequence[tuple[StateKey, Row]]) -> None:
        try:
            entries = await self._client.get_many([key for key, _ in wanted])
        except RequestError as error:
            if error.status != Status.DENIED:
                raise
            entries = ()
        if not entries:
            for key, row in wanted:
                await self._history(table, key, [row])
            return
        for entry, (key, row) in zip(entries, wanted, strict=True):
            if entry.changed == row["_height"]:
                self._version(table, row, entry)
            else:
                await self._history(table, key, [row])

    async def _history(self, table: str, key: StateKey, rows: Sequence[Row]) -> None:
        readable = [row for row in rows if row["_state"] == "readable"]
        at = min((row["_height"] for row in readable), default=0)
        while readable:
            try:
                found = await self._client.history(
                    key.namespace, *key.components, first=at, last=self._report.last
                )
            except RequestError as error:
                if error.status not in (Status.DENIED, Status.PRUNED):
                    raise
                break
            entries = {each.height: each.entry for each in found.versions}
            for row in [row for row in readable if row["_height"] <= found.last]:
                readable.remove(row)
                height = row["_height"]
                if height not in entries:
                    raise Divergence(f"table {table}, {row['_id']}: no version of height {height}")
                entry = entries[height]
                if entry is None:
                    self._report.unchecked += 1
                else:
                    self._version(table, row, entry)
            if found.complete:
                break
            at = found.last + 1
        self._report.unchecked += len(readable)

    def _version(self, table: str, row: Row, entry: Entry) -> None:
        where = f"table {table}, {row['_id']}, height {row['_height']}"
        if not entry.present:
            raise Divergence(f"{where}: the network proves that there was nothing")
        try:
            truth = self._rendering.version(table, entry)
        except Unknown as error:
            raise Divergence(f"{where}: {error}") from error
        self._sealed(row, entry, truth)
        self._same(where, row, truth)
        self._report.versions += 1

    # --- erasures -------------------------------------------------------------------------------

    async def _erasures(self) -> None:
        rows = self._copy.rows("erasures", self._report.first, self._report.last)
        wanted = [(kh, key) for kh, key in self._places.items() if key.namespace == "erasure"]
        shown = {
            (row["kh"], row["place"])
            for low in range(self._report.first, self._report.last + 1, HEIGHTS_MAX)
            for row in self._copy.rows(
                "changes", low, min(low + HEIGHTS_MAX - 1, self._report.last)
            )
            if row["shown"] and row["place"].startswith("erasure/")
        }
        if len(shown) > len(rows):
            raise Divergence("table erasures: an erasure that was shown is missing")
        for row in rows:
            self._erased[row["kh"], row["field"]] = (row["version"], row["height"])
            found = [
                (kh, key)
                for kh, key in wanted
                if key.components[-1] == row["field"]
                and self._paths("record", key.components[:-1]) == row["kh"]
            ]
            if not found:
                self._report.unchecked += 1
                continue
            where = f"table erasures, {row['record']}, {row['field']}"
            entry = await self._client.get_at(found[0][1], row["height"])
            if not entry.present:
                raise Divergence(f"{where}: there was no such erasure")
            _, version, txid, agency, principal, time_ms, legal = entry.value
            truth = {"version": version, "txid": txid, "agency": agency, "principal": principal}
            truth |= {"time": time_ms, "legal": self._rendering.text(legal)}
            self._same(where, row, truth)

    def _sealed(self, row: Row, entry: Entry, truth: Row) -> None:
        """Have a sealed column say erased where its values are destroyed."""
        if entry.key.namespace != "record":
            return
        for name, leaf in self._rendering.sealed(entry):
            upto, since = self._erased.get((row["_kh"], name), (0, 0))
            if truth[name] is None or entry.versions[leaf] > upto:
                continue
            truth[name] = "erased"
            if not self._copy.ends and since > row["_height"]:
                truth[name] = row[name] if row[name] in ("sealed", "erased") else "erased"

    def _same(self, where: str, row: Row, truth: Row) -> None:
        for name, value in truth.items():
            if name not in row:
                raise Divergence(f"{where}: column {name} is missing")
            if row[name] != value:
                said = f"column {name} is {_word(row[name])}, the network proves {_word(value)}"
                raise Divergence(f"{where}: {said}")


def _hex(data: bytes) -> str:
    return f"0x{data.hex()[:12]}…"


def _word(value: Any) -> str:
    shown = _hex(value) if isinstance(value, bytes) else repr(value)
    return shown if len(shown) <= 80 else f"{shown[:79]}…"
