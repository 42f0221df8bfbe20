"""Recorded cases of a rule set: what is given, one call, and what must come of it.

The real executor judges them in memory, against rule sets that need not be on any chain. A file of
cases is TOML:

    time = "2026-07-01T12:00:00Z"

    [people.clerk]                                # who acts; an official unless `kind` says else
    agency = "treasury"
    roles  = { "payments.clerk" = { region = "north" } }      # role = scope

    [[accounts]]
    account = ["purse", "main"]
    balance = 1000

    [[records]]
    kind = "person"
    id = ["#ann"]                                 # "#ann": 32 bytes that stand for a name
    fields = { name = "Ann", region = "north" }

    [[cases]]
    name    = "pays what is there"
    before  = [ { by = "clerk", call = "payments.open", inputs = { name = "b" } } ]
    by      = "clerk"
    call    = "payments.transfer"
    inputs  = { from = "main", to = "b", amount = 5 }
    outcome = "APPLIED"
    moves   = [ { account = ["purse", "main"], amount = -5 },
                { account = ["purse", "b"], amount = 5 } ]

An act before may be given a name, ``as = "paid"``; ``reverse = "paid"`` instead of ``call`` takes
it back, as an act before or as the case itself. ``"{paid}"`` is the fresh id that it made,
``"{paid.txid}"`` its transaction.

``detail``, ``writes`` and ``moves`` are compared where a case has them. A case names the versions
that are there when it acts; each begins with what is given.

Not here: the command, and how differences are shown (``rule_tests``), the blocks of a case
(``case_runs``).
"""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from comity.cli.case_runs import CaseRun, entry_of, seed_of, time_of
from comity.cli.values import date_word, input_value
from comity.drafting import fields_of
from comity.errors import DraftError
from comity.files import text_of
from comity.founding import KINDS, places_of
from comity.results import Entry
from consensus import genesis
from consensus.codec import Value
from consensus.committee import VALIDATORS_MIN, Committee, Validator
from consensus.genesis import Agency, Genesis, Limits, OpeningBalance, Principal, RoleGiven
from consensus.hashing import ZERO, context
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.effects import hold_id, record_id
from consensus.ledger.emergency import review_id
from consensus.ledger.executor import EXECUTOR
from consensus.ledger.genesis_state import genesis_state
from consensus.ledger.ledger import of_genesis
from consensus.ledger.model import Kind, Rulebook
from consensus.ledger.rules import Definition, encode_definition
from consensus.ledger.rules.lines import misfit
from consensus.ledger.rules.toml import read_text
from consensus.ledger.types import InputError, Type
from consensus.ledger.view import View, Write
from consensus.protocol import StateKey
from consensus.state.state import MemoryBackend, Row

CASES_MAX: Final = 10_000
NEW_IDS_MAX: Final = 8
"""Effects whose fresh ids a result names: records ``{tx}``, ``{tx:1}``, …, holds ``{hold}``, …"""
NOTHING: Final = "-"
"""Stands for null, which TOML has not."""
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_HASH: Final = re.compile(r"\b(?:0x)?([0-9a-f]{64})\b")

_token = context("case name")


class Somebody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who can sign."""

    agency: str
    kind: Literal["official", "system", "citizen"] = "official"
    roles: dict[str, dict[str, str]] = {}
    person: list[Any] | None = None


class Opening(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An account that exists from the start."""

    account: list[Any]
    balance: int


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: str
    id: list[Any]
    fields: dict[str, Any] = {}
    status: str = ""


class Act(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody uses an action, or takes back what an act of that name did."""

    by: str
    call: str = ""
    reverse: str = ""
    name: str = msgspec.field(name="as", default="")
    inputs: dict[str, Any] = {}
    cosigners: list[str] = []
    at: str = ""


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A case with what is expected; None where anything will do."""

    name: str
    by: str
    call: str = ""
    reverse: str = ""
    inputs: dict[str, Any] = {}
    cosigners: list[str] = []
    at: str = ""
    before: list[Act] = []
    outcome: str | None = None
    detail: Any = None
    writes: list[dict[str, Any]] | None = None
    moves: list[dict[str, Any]] | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    time: str
    people: dict[str, Somebody]
    accounts: list[Opening] = []
    records: list[_Record] = []
    cases: list[Case] = []


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a case, in the notation of the file."""

    outcome: str
    detail: Any
    writes: list[dict[str, Any]]
    moves: list[dict[str, Any]]


def read_cases(path: Path) -> _File:
    """Return a file of cases.

    Raises:
        DraftError: not TOML, or an entry is not of this form; the message names the line.
    """
    try:
        found = msgspec.convert(_dated(read_text(text_of(path))), _File)
    except tomllib.TOMLDecodeError as error:
        raise DraftError(f"{path}: {error}", hint="mend the file") from error
    except msgspec.ValidationError as error:
        what, where = misfit(str(error))
        raise DraftError(
            f"{places_of(path)(*where)}: {what}",
            hint="mend the file; docs/rules.md has the form of a case",
        ) from error
    if len(found.cases) > CASES_MAX:
        raise DraftError(f"{path}: {len(found.cases)} cases, at most {CASES_MAX}")
    names = [case.name for case in found.cases]
    for index, name in enumerate(names):
        if name in names[:index]:
            place = places_of(path)("cases", index, "name")
            raise DraftError(f"{place}: two cases are called {name!r}", hint="rename one")
    for case in found.cases:
        _check_acts(path, case)
    return found


def _check_acts(path: Path, case: Case) -> None:
    """Check that each act is one, and that what is taken back has come before.

    Raises:
        DraftError: the message names the case.
    """
    names: list[str] = []
    acts: list[Act | Case] = [*case.before, case]
    for act in acts:
        if bool(act.call) == bool(act.reverse):
            said = f"{path}: an act of {case.name!r} has neither call nor reverse, or both"
            raise DraftError(said, hint='call = "domain.action", or reverse = "name of an act"')
        if act.reverse and act.reverse not in names:
            said = f"{path}: no act before is called {act.reverse!r} in {case.name!r}"
            raise DraftError(said, hint=f'give the act a name: as = "{act.reverse}"')
        if act.reverse and act.inputs:
            raise DraftError(f"{path}: a reversal in {case.name!r} has inputs; it takes none")
        if isinstance(act, Act) and act.name:
            if act.name in names or not _NAME.fullmatch(act.name):
                said = f"{path}: an act of {case.name!r} cannot be called {act.name!r}"
                raise DraftError(said, hint="each name once; letters, digits, _ and -")
            names.append(act.name)


def _dated(value: Any) -> Any:
    """Return a TOML value with dates as text."""
    match value:
        case datetime.date() | datetime.time():
            return value.isoformat()
        case dict():
            return {name: _dated(each) for name, each in value.items()}
        case list():
            return [_dated(each) for each in value]
        case _:
            return value


class Bench:
    """A network in memory with what a file gives; runs its cases.

    Args:
        definitions: rule sets, the charter among them.
        cases: the file.

    Raises:
        DraftError: what is given does not fit the rules.
        DecodeError: the rule sets do not go together, or have no charter.
    """

    def __init__(self, definitions: Sequence[Definition], cases: _File) -> None:
        self._cases = cases
        self._names: dict[bytes, str] = {}
        self._time_ms = time_of(cases.time)
        founded = self._genesis(definitions)
        self.ledger = of_genesis(founded)
        self.ledger.nodes = None  # no nodes take part, so deliveries of sealed values do not count
        writes = genesis_state(founded)
        rows = {kh: Row(vh, 0, row) for kh, vh, row in writes}
        source = MemoryBackend(list(rows.items()))
        self.book: Rulebook = self.ledger.rules(source, self._time_ms).book
        for kh, vh, row in self._given(source):
            rows[kh] = Row(vh, 0, row)
        self._rows = list(rows.items())

    def run(self, case: Case) -> Result:
        """Return what comes of a case.

        Raises:
            DraftError: it cannot be written as a transaction, or an act before it is refused.
        """
        run = CaseRun(self, MemoryBackend(self._rows), self._time_ms)
        self._forget_fresh_ids()
        for act in case.before:
            decision, txid = run.act(act)
            if decision.code != Code.APPLIED:
                what = act.call or f"the reversal of {act.reverse}"
                raise DraftError(
                    f"{what} before {case.name!r} is refused: {decision.code.name} "
                    f"{self.out(decision.detail)}"
                )
            if act.name:
                self._name_made(txid, act.name)
        act = Act(case.by, case.call, case.reverse, "", case.inputs, case.cosigners, case.at)
        before = run.state
        decision, txid = run.act(act)
        self._name_made(txid, "")
        return self._result(decision, before, run.state)

    def _forget_fresh_ids(self) -> None:
        self._names = {made: name for made, name in self._names.items() if name[0] == "#"}

    def _name_made(self, txid: bytes, name: str) -> None:
        """Name what a transaction may have made; the case itself has no name."""
        for number in range(NEW_IDS_MAX):
            nth = f":{number}" if number else ""
            self._names[record_id(txid, 0, number)] = f"{{{name or 'tx'}{nth}}}"
            hold = f"{name}.hold" if name else "hold"
            self._names[hold_id(txid, 0, number)] = f"{{{hold}{nth}}}"
        self._names[review_id(txid, 0)] = f"{{{name}.review}}" if name else "{review}"
        self._names[txid] = f"{{{name}.txid}}" if name else "{txid}"

    # --- what is given ------------------------------------------------------------------------

    def token(self, name: str) -> bytes:
        """Return the 32 bytes that ``#name`` stands for."""
        made = _token(name.encode())
        self._names[made] = f"#{name}"
        return made

    def key(self, name: str) -> bytes:
        """Return the public key of somebody."""
        if name not in self._cases.people:
            raise DraftError(f"nobody is called {name!r}", hint="list them under people")
        return seed_of(f"key of {name}".encode())

    def value(self, raw: Any, kind: Type | None) -> Value:
        """Return a value of the ledger that the file writes."""
        if isinstance(raw, str) and raw.startswith("#"):
            return self.token(raw[1:])
        if isinstance(raw, str) and raw.startswith("{"):
            for made, name in self._names.items():
                if name == raw:
                    return made
        if isinstance(raw, list):
            item = kind.item if kind is not None and kind.base == "list" else None
            return [self.value(each, item) for each in raw]
        return input_value(raw, kind)

    def _token_of(self, name: str, own: list[Value]) -> bytes:
        """Return the token of the person that an official is."""
        if len(own) != 1 or not isinstance(own[0], bytes):
            raise DraftError(
                f"people.{name}.person is no token", hint='an official is one, such as ["#anna"]'
            )
        return own[0]

    def out(self, value: Value) -> Any:
        """Return a value as the file writes it."""
        if isinstance(value, bytes):
            return self._names.get(value) or f"0x{value.hex()}"
        if isinstance(value, str):
            return _HASH.sub(
                lambda found: self._names.get(bytes.fromhex(found[1]), found[0]), value
            )
        if isinstance(value, list | tuple):
            return [self.out(each) for each in value]
        return NOTHING if value is None else value

    def _genesis(self, definitions: Sequence[Definition]) -> Genesis:
        people = self._cases.people
        names = sorted({each.agency for each in people.values()})
        seats = names + [f"member{n}" for n in range(1, 1 + max(VALIDATORS_MIN - len(names), 0))]
        validators = tuple(
            Validator(name, self._key("seat", name), self._key("node", name), b"-", "-", 1, "-", 2)
            for name in seats
        )
        principals, keys, roles = [], [], []
        for name, each in people.items():
            id_ = self.token(name)
            own = None if each.person is None else [self.value(part, None) for part in each.person]
            person = None if own is None or each.kind == "official" else tuple(own)
            subject = self.token(f"person {name}") if each.kind == "official" else None
            if each.kind == "official" and own is not None:
                subject = self._token_of(name, own)
            principals.append(Principal(id_, each.agency, KINDS[each.kind], subject, person))
            keys.append((self.key(name), id_))
            roles += [
                RoleGiven(id_, role, tuple(sorted(scope.items())))
                for role, scope in each.roles.items()
            ]
        accounts = tuple(
            OpeningBalance(
                str(each.account[0]),
                tuple(self.value(part, None) for part in each.account[1:]),
                each.balance,
            )
            for each in self._cases.accounts
        )
        return Genesis(
            network="cases",
            time_ms=self._time_ms - 1,
            executor=EXECUTOR,
            tree_depth=4,
            limits=Limits(),
            committee=Committee(genesis.EPOCH, validators),
            agencies=tuple(Agency(name, name.title()) for name in seats),
            principals=tuple(principals),
            keys=tuple(keys),
            roles=tuple(roles),
            rules=tuple(encode_definition(each) for each in definitions),
            accounts=accounts,
        )

    def _key(self, what: str, name: str) -> bytes:
        return seed_of(f"{what} of {name}".encode())

    def _given(self, source: MemoryBackend) -> list[Write]:
        """Return the leaves of the records that are given."""
        view = View(source, self.ledger.paths)
        view.book = self.book
        view.now_ms = self._time_ms
        view.begin()
        for each in self._cases.records:
            kind = self._kind(each.kind)
            id_ = [self.value(part, None) for part in each.id]
            components, kh = view.record_path(kind.name, id_)
            draft = view.create(kind, id_, components, kh)
            draft.update(self._fields(kind, each.fields))
            by: list[Value] = [["created", ZERO, "given"]]
            if kind.start:
                status = each.status or kind.start
                if status not in kind.steps:
                    raise DraftError(f"{kind.name} has no status {status!r}")
                draft["status"] = status
                by.append([status, ZERO, "given"])
            draft["by"] = by
        view.commit(ZERO)
        return view.finish()

    def _kind(self, name: str) -> Kind:
        kind = self.book.kinds.get(name)
        if kind is None:
            raise DraftError(f"no rule set has a kind {name!r}")
        return kind

    def _fields(self, kind: Kind, given: Mapping[str, Any]) -> dict[str, Value]:
        for name in given:
            if name not in kind.fields:
                raise DraftError(f"{kind.name} has no field {name!r}")
        found: dict[str, Value] = {}
        for name, field in kind.fields.items():
            if name not in given:
                if not field.optional:
                    raise DraftError(f"a given {kind.name} lacks its field {name!r}")
                continue
            value = self.value(given[name], field.stored)
            try:
                field.stored.check(value)
            except InputError as error:
                raise DraftError(f"{kind.name}.{name}: {error.reason}") from error
            found[name] = value
        return found

    # --- what came of it ----------------------------------------------------------------------

    def _result(self, decision: Decision, before: MemoryBackend, after: MemoryBackend) -> Result:
        writes: list[dict[str, Any]] = []
        moves: list[dict[str, Any]] = []
        for name in decision.names:
            rows = decision.value(name)
            if name.startswith("writes:") and isinstance(rows, list):
                writes += [self._write(row[0], before, after) for row in rows]
            if name.startswith("moves:") and isinstance(rows, list):
                moves += [self._move(row) for row in rows]
        detail = None if decision.detail is None else self.out(decision.detail)
        return Result(decision.code.name, detail, writes, moves)

    def _move(self, row: list[Any]) -> dict[str, Any]:
        found = {"account": self.out(row[1]), "amount": row[2]}
        return found | ({"reserved": row[3]} if len(row) > 3 and row[3] else {})

    def _write(
        self, place: list[Any], before: MemoryBackend, after: MemoryBackend
    ) -> dict[str, Any]:
        space, components = place
        found: dict[str, Any] = {"place": [space, *self.out(components)]}
        if space == "record":
            kind = self._kind(components[0])
            key = StateKey("record", tuple(components))
            was, now = (
                fields_of(self._entry(state, key), kind) if self._entry(state, key).present else {}
                for state in (before, after)
            )
            found["fields"] = {
                name: self._field(kind, name, now[name])
                for name in sorted(now)
                if name not in ("id", "by", "basis", "~holds") and was.get(name) != now[name]
            }
        return found

    def _field(self, kind: Kind, name: str, value: Value) -> Any:
        field = kind.fields.get(name)
        base = "" if field is None else field.stored.base
        if isinstance(value, int) and base == "month":
            return f"{value // 12:04}-{value % 12 + 1:02}"
        if isinstance(value, int) and base == "date":
            return date_word(value)
        return self.out(value)

    def _entry(self, state: MemoryBackend, key: StateKey) -> Entry:
        return entry_of(state, self.ledger, key, self._time_ms)
