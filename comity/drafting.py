"""From what a caller wants and has read to a transaction: pure, apart from the seed it is given.

- Inputs are given by name and put in the declared order; types are checked here, with a suggestion
  for a name that is not declared.
- The action and its parameters are those of the rule book that the caller has: if they have moved
  by the time of effect, the act is refused (``RULES_MOVED``), not adapted.
- ``expects`` are the versions that the caller read. Nothing here reads again or refreshes them.

Not here: reading (``client``), signatures (``keys``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from comity.errors import DraftError
from comity.results import Entry
from comity.words import place_word, suggest
from consensus.codec import Value
from consensus.errors import DecodeError
from consensus.ledger import indexes, layout, transaction
from consensus.ledger.environment import ABSENT, LETS, Lets
from consensus.ledger.model import Action, Assign, Create, EvaluationError, Kind, Load, Rulebook
from consensus.ledger.schedule import ParamValues
from consensus.ledger.transaction import Ack, Expect, Unsigned
from consensus.ledger.types import InputError
from consensus.protocol import KEYS_MAX, StateKey

_ADOPTION: Final = "=adoption"
"""A component of an id that is no input but this word. After ``*`` an input with several."""
KERNEL_TOUCHES: Final[Mapping[str, tuple[tuple[str, tuple[str, ...]], ...]]] = MappingProxyType(
    {
        "add_agency": (("agency", ("agency",)),),
        "admit_agency": (("agency", ("agency",)),),
        "suspend_agency": (("agency", ("agency",)),),
        "reinstate_agency": (("agency", ("agency",)),),
        "name_successor": (("agency", ("agency",)),),
        "accept_succession": (("agency", ("agency",)), ("agency", ("predecessor",))),
        "add_principal": (("principal", ("principal",)),),
        "suspend_principal": (("principal", ("principal",)),),
        "reinstate_principal": (("principal", ("principal",)),),
        "add_key": (("key", ("key",)),),
        "rotate_key": (("key", ("key",)), ("key", ("new",))),
        "replace_key": (("key", ("key",)), ("key", ("new",))),
        "revoke_key": (("key", ("key",)),),
        "give_role": (("role", ("principal", "role")),),
        "review": (("review", ("review",)),),
        "erase": (("record", ("kind", "*id")),),
        "revoke_role": (("role", ("principal", "role")),),
        "confirm_hold": (("hold", ("hold",)),),
        "withdraw_hold": (("hold", ("hold",)),),
        "release_hold": (("hold", ("hold",)),),
        "propose_rules": (("rules", ("domain",)),),
        "activate_rules": (("rules", ("domain",)), ("rules", ("domain", "number", _ADOPTION))),
        "activate_executor": (("rules", ("=~executor",)),),
        "withdraw_rules": (("rules", ("domain", "number", _ADOPTION)),),
    }
)
"""Kernel action -> kinds and ids (by input) of what it writes, which ``expects`` must name."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A value for a sealed input: delivered to its audience alone, committed to on the chain."""

    value: Value


@dataclass(frozen=True, slots=True)
class Call:
    """One call to make. ``inputs`` are plain values by name, those of sealed inputs ``Sealed``.

    Optional ones may be left out.
    """

    domain: str
    action: str
    inputs: Mapping[str, Value]


def find_action(book: Rulebook, domain: str, name: str) -> Action:
    """Return an action of the rule book.

    Raises:
        DraftError: there is none of that name; suggests a close one.
    """
    rules = book.rule_sets.get(domain)
    if rules is None:
        raise DraftError(f"no domain {domain!r} has rules here{_or_rather(domain, book.rule_sets)}")
    action = rules.actions.get(name)
    if action is None:
        raise DraftError(f"{domain} has no action {name!r}{_or_rather(name, rules.actions)}")
    return action


def bind(action: Action, inputs: Mapping[str, Value]) -> list[Value]:
    """Return input values in declared order.

    Raises:
        DraftError: one is unknown, missing or not of its type.
    """
    names = [each.name for each in action.inputs]
    where = f"{action.domain}.{action.name}"
    for name in inputs:
        if name not in names:
            raise DraftError(f"{where} has no input {name!r}{_or_rather(name, names)}")
    for each in action.inputs:
        if each.name not in inputs and not each.optional:
            raise DraftError(f"{where} needs the input {each.name!r} ({each.type.text})")
    values = [_hidden(inputs.get(name)) for name in names]
    try:
        action.bind(values)
    except InputError as error:
        sealed = any(each.name == error.name and each.type.audience for each in action.inputs)
        hint = "give its value as Sealed(value)" if sealed else ""
        raise DraftError(f"{where}: {error}", hint=hint) from error
    return values


def _hidden(value: Value) -> Value:
    """Return what stands for a sealed value that was not delivered, in a draft to look at."""
    return bytes(32) if isinstance(value, Sealed) else value


def build(
    chain: bytes,
    book: Rulebook,
    calls: Sequence[Call],
    *,
    author: bytes,
    sequence: int,
    now_ms: int,
    not_after_ms: int,
    seed: bytes,
    reads: Sequence[Entry] = (),
    under: Sequence[bytes] = (),
    reason: str = "",
    cosigners: Sequence[bytes] = (),
    mode: int = transaction.EXECUTE,
    acks: Sequence[Ack] = (),
) -> Unsigned:
    """Return a transaction ready to be signed.

    Args:
        chain: of the network.
        book: the rules as the caller knows them.
        calls: 1 to 64, all or none.
        author: public key.
        sequence: a number of that key that was never used.
        now_ms: chain time, which selects the parameters in force.
        not_after_ms: chain time after which it is refused.
        seed: 32 fresh random bytes.
        reads: what the caller read and relies on.
        under: ids of grants.
        reason: why, in words.
        cosigners: keys that must sign too.
        mode: EXECUTE or PROPOSE.
        acks: of the sealed values.

    Raises:
        DraftError: anything that no valid transaction may have.
    """
    drafts: list[transaction.Draft] = []
    for call in calls:
        action = find_action(book, call.domain, call.action)
        drafts.append(
            transaction.Draft(
                action.domain,
                action.name,
                action.action_id,
                bind(action, call.inputs),
                _params(action, call.inputs, reads, now_ms).digest,
                action.protective,
            )
        )
    try:
        return transaction.build(
            chain,
            author,
            sequence,
            not_after_ms,
            drafts,
            seed=seed,
            expects=expects_of(reads),
            under=under,
            reason=reason,
            cosigners=cosigners,
            mode=mode,
            acks=acks,
        )
    except DecodeError as error:
        raise DraftError(
            f"no transaction can hold what is asked for: {error.message}",
            hint="integers have 64 bits at most; `comity rules show DOMAIN` lists the inputs",
        ) from error


def _params(
    action: Action, inputs: Mapping[str, Value], reads: Sequence[Entry], now_ms: int
) -> ParamValues:
    """Return the parameters that a call sees: now, and for its period."""
    now, periods = action.schedule.at(now_ms), action.periods
    if periods is None:
        return now
    env: dict[str, Any] = {"input": inputs}
    absent = ""
    for load in action.loads:
        if load.kind is None or load.listing is not None:
            continue
        kind = load.kind
        found = [each for each in reads if each.key.components[:1] == (kind.name,)]
        try:
            key = StateKey("record", (kind.name, *load.reference.resolve(env)))
            found = [each for each in found if each.key == key]
        except (EvaluationError, KeyError):
            if load.name != periods.path[0]:
                continue  # what names it was not read; that of the period may be the only one
        one = bool(found) and all(each.key == found[0].key for each in found)
        if one and found[0].present:
            env[load.name] = fields_of(found[0], kind)
        elif one and load.name == periods.path[0]:
            absent = place_word("record", found[0].key.components)
    try:
        return periods.with_those_of(now, periods.start_ms(env))
    except KeyError:
        if absent:
            raise DraftError(
                f"{absent} is absent, and {action.domain}.{action.name} goes by its "
                f"{periods.path[-1]}",
                hint="look at the id; a month in an id is its number, 2026-11 is 24322",
            ) from None
        raise DraftError(
            f"{action.domain}.{action.name} goes by {'.'.join(periods.path)}, which was not read",
            hint=f"pass the {periods.path[0]} that you read",
        ) from None


def expects_of(reads: Sequence[Entry]) -> list[Expect]:
    """Return what a transaction says of the entries its author read, each once.

    Raises:
        DraftError: one entry was read twice at different versions, or has no versions.
    """
    found: list[Entry] = []  # components may be arrays, which no dict takes
    out: list[Expect] = []
    for entry in reads:
        namespace = entry.key.namespace
        if namespace != "record" and namespace not in layout.KERNEL_SPACES:
            raise DraftError(
                f"{namespace} {list(entry.key.components)} has no versions to expect",
                hint="leave it out: it is judged as it is when the act takes effect",
            )
        known = next((each for each in found if each.key == entry.key), None)
        if known is None:
            found.append(entry)
            out.append(entry.expect)
        elif known.version != entry.version:
            raise DraftError(
                f"{namespace} {list(entry.key.components)} was read at two versions",
                hint="read everything again and decide anew",
            )
    return out


# --- what an action reads and writes -----------------------------------------------------------


class _Unknown:
    """What is not known before the ledger judges: who acts, and balances."""

    def __getitem__(self, name: str) -> _Unknown:
        raise EvaluationError(f"{name} is not known here")


class Needs:
    """Which entries an action needs to have been read, found step by step.

    Later loads may be named by fields of earlier ones: ask ``next_key``, read it, ``give`` the
    entry, until it returns None. ``expected`` are then the entries that ``expects`` must name.

    Args:
        book: the rules.
        action: of the book.
        inputs: plain values by name, as ``bind`` accepts.
        now_ms: chain time.
    """

    def __init__(
        self, book: Rulebook, action: Action, inputs: Mapping[str, Value], now_ms: int
    ) -> None:
        self._book = book
        self._action = action
        self._env: dict[str, Any] = {
            "input": action.bind(bind(action, inputs)),
            "params": action.schedule.at(now_ms).values,
            "now": now_ms,
            "who": _Unknown(),
        }
        self._env.update((load.name, _Unknown()) for load in action.loads if load.family)
        self._env[LETS] = Lets(action.lets, self._env)
        self._optional = {load.name for load in action.loads if load.optional}
        self._steps = self._plan()
        self._pending: tuple[str, Kind | None] | None = None
        self._list: _List | None = None
        self.entries: list[Entry] = []
        """Everything that was read for the action."""
        self._expected: list[tuple[str, Entry]] = []

    @property
    def expected(self) -> list[Entry]:
        """The entries that ``expects`` must name, once all are given."""
        self._settle()
        named = {load for load, _ in self._action.depends}
        named |= {
            effect.load
            for effect in self._action.effects
            if isinstance(effect, Assign) and self._takes_place(effect)
        }
        return [entry for name, entry in self._expected if not name or name in named]

    def _settle(self) -> None:
        """Take the parameters of the period, once its load is given."""
        action = self._action
        if action.periods is not None:
            with contextlib.suppress(KeyError):
                start_ms = action.periods.start_ms(self._env)
                now = action.schedule.at(self._env["now"])
                self._env["params"] = action.periods.with_those_of(now, start_ms).values

    def _takes_place(self, effect: Assign | Create) -> bool:
        """Return whether an effect takes place, as far as can be said: yes, if in doubt."""
        try:
            return effect.when is None or bool(effect.when.evaluate(self._env))
        except (EvaluationError, KeyError):
            return True

    def _plan(self) -> list[tuple[str, Any, Kind | None]]:
        steps: list[tuple[str, Any, Kind | None]] = [
            (load.name, load.reference if load.listing is None else load, load.kind)
            for load in self._action.loads
            if load.kind is not None
        ]
        steps += [
            ("", effect, effect.kind)
            for effect in self._action.effects
            if isinstance(effect, Create) and effect.id is not None
        ]
        if self._action.kernel and not self._action.protective:
            touched = KERNEL_TOUCHES.get(self._action.name, ())
            steps += [("", each, None) for each in touched]
        return steps

    def next_key(self) -> StateKey | None:
        """Return the next key to read, or None when nothing is missing."""
        if self._list is not None:
            key = self._list.next_key()
            if key is not None:
                return key
            if self._list.complete:
                self._env[self._list.load.name] = self._list.records
            self._list = None
        while self._steps:
            name, what, kind = self._steps.pop(0)
            if isinstance(what, Create):
                self._settle()
                if not self._takes_place(what):
                    continue
                what = what.id
            if isinstance(what, tuple):
                namespace, inputs = what
                given = self._env["input"]
                key = StateKey(namespace, tuple(_components(inputs, given)))
            elif isinstance(what, Load):
                try:
                    self._list = _List(what, what.reference.resolve(self._env))
                except (EvaluationError, KeyError):
                    continue  # the ledger will say what is absent
                return self._list.next_key()
            else:
                try:
                    id_ = what.resolve(self._env)
                except (EvaluationError, KeyError):
                    if name in self._optional:
                        self._env[name] = ABSENT
                    continue  # the ledger will say what is absent
                key = StateKey("record", (what.name, *id_))
            self._pending = (name, kind)
            return key
        return None

    def next_keys(self) -> list[StateKey]:
        """Return the next keys to read together, as many as one request takes; none at the end.

        Their entries are to be given in their order.
        """
        key = self.next_key()
        if key is None:
            return []
        return [key] if self._list is None else [key, *self._list.more(KEYS_MAX - 1)]

    def give(self, entry: Entry) -> None:
        """Take the entry of the key that ``next_key`` returned last, or the next of its keys."""
        self.entries.append(entry)
        if self._list is not None:
            self._list.give(entry)
            return
        name, kind = self._pending or ("", None)
        self._expected.append((name, entry))
        if name and kind is not None and entry.present:
            self._env[name] = fields_of(entry, kind)
        elif name in self._optional:
            self._env[name] = ABSENT


def _components(inputs: Sequence[str], given: Mapping[str, Value]) -> list[Value]:
    """Return the components of an id: words, inputs, and those in the arrays of inputs."""
    found: list[Value] = []
    for each in inputs:
        if each[0] == "=":
            found.append(each[1:])
        elif each[0] == "*":
            found += given[each[1:]]
        else:
            found.append(given[each])
    return found


class _List:
    """What the load of an index needs: its size, its positions, and the records at them."""

    def __init__(self, load: Load, value: list[Value]) -> None:
        self.load = load
        self.complete = False
        """Whether all records were asked for: there are no more than the action takes."""
        self._place = (load.reference.name, *value)
        self._keys = [StateKey(indexes.SPACE, self._place)]
        self._found: list[dict[str, Value]] = []

    def next_key(self) -> StateKey | None:
        return self._keys.pop(0) if self._keys else None

    def more(self, count: int) -> list[StateKey]:
        taken, self._keys = self._keys[:count], self._keys[count:]
        return taken

    def give(self, entry: Entry) -> None:
        listing, kind = self.load.listing, self.load.kind
        if listing is None or kind is None:
            return
        key = entry.key
        if key.namespace == "record":
            if entry.present:
                self._found.append(fields_of(entry, kind))
        elif len(key.components) == len(self._place):
            size = entry.value[0] if entry.present else 0
            self.complete = size <= listing.most
            if self.complete:
                places = [(*self._place, position) for position in range(size)]
                self._keys += [StateKey(indexes.SPACE, place) for place in places]
        elif entry.present and entry.value[0] is not None:
            self._keys.append(StateKey("record", (kind.name, *entry.value[0])))

    @property
    def records(self) -> list[dict[str, Value]]:
        listing = self.load.listing
        return self._found if listing is None else indexes.in_order(self._found, listing)


def fields_of(entry: Entry, kind: Kind) -> dict[str, Value]:
    """Return a record's fields by name, groups taken apart, with ``id`` and ``status``."""
    number = min(max(entry.definition, 1), len(kind.layouts))
    found: dict[str, Value] = dict.fromkeys(kind.fields)
    for leaf, names in kind.layouts[number - 1].items():
        value = entry.fields.get(leaf)
        if not names or names == (leaf,):
            found[leaf] = value
        elif isinstance(value, list):
            found.update(zip(names, value, strict=False))
    found["id"] = list(entry.key.components[1:])
    return found


def _or_rather(typed: str, known: Collection[str]) -> str:
    said = suggest(typed, known)
    return f"; {said}" if said else ""
