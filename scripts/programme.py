"""Play the story of a programme on four or more real nodes: ``scripts/programme child_benefit``.

A programme is a folder under ``configs/programmes``: its rule sets (``rules/``), recorded cases
(``cases/``, a file each) and a story (``story.toml``), which is data too:

    [people.ada]                                  # an official unless `kind` says else
    agency = "benefits"
    roles  = { "benefits.officer" = { region = "north" } }
    person = ["#ada"]                             # who she is: the id of the own record

    [[accounts]]
    account = ["program"]
    balance = 1000000

    [[scenes]]
    title = "A child is enrolled"
    steps = [
      { say = "Ben is enrolled", by = "ada", call = "benefits.enrol", inputs = { }, as = "ben" },
      { say = "once", by = "ada", call = "benefits.enrol", inputs = { }, outcome = "NOT_UNIQUE" },
      { say = "he is the first", look = ["record", "child", "@ben"], fields = { order = 1 } },
      { say = "nothing was paid", look = ["account", "program"], balance = 1000000 },
    ]

A step acts (``call``; with ``cosigners``; stored where ``propose`` is true), acts on a proposal
(``approve``, ``object`` or ``withdraw`` with the ``as`` of an earlier step), takes an act back
(``reverse``), or looks. ``"#name"`` are 32 bytes that stand for a name; ``"@name"`` is somebody's
principal, or the id of the first record that a step made under a fresh id, ``"@name.tx"`` the
transaction of a step, ``"@name.hold"``, ``"@name.grant"``, ``"@name.review"``,
``"@name.disclosure"`` what it made.
``"~month"`` is the present month (UTC), ``"~first"`` and ``"~last"`` its first and last day, each
with ``+1`` of the month after it; ``"~time+30"`` is in 30 days. Every step is checked against its
``outcome`` (``APPLIED`` where it says none, ``PROPOSED`` of proposals, ``DENIED`` if somebody may
not look), its ``detail``, and ``effect``, which is what became of the proposal, where it has them.
Where it looks, ``sealed`` has what is seen of sealed fields: a value, ``sealed`` or ``erased``.
"""

from __future__ import annotations

import datetime
import re
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import cyclopts
import msgspec
import trio
from cyclopts import Parameter
from rich.console import Console

from comity import Call, Client, Sealed
from comity.cli.cases import Opening, Somebody
from comity.cli.values import input_value
from comity.drafting import find_action
from comity.errors import DraftError, RequestError
from comity.founding import KINDS, Person
from comity.results import Decision, Entry
from consensus import genesis as genesis_file
from consensus.codec import Value
from consensus.committee import VALIDATORS_MIN
from consensus.errors import ComityError
from consensus.genesis import OpeningBalance
from consensus.hashing import context
from consensus.ledger.delegation import grant_id
from consensus.ledger.disclosures import disclosure_id
from consensus.ledger.effects import hold_id, record_id
from consensus.ledger.emergency import review_id
from consensus.ledger.types import Type
from scripts.demo_parts.story import Story, WrongError, tell_wrong
from scripts.localnet import ROOT, LocalNetwork, found, one_way_to_end

PROGRAMMES: Final = ROOT / "configs/programmes"
WAIT_SECONDS_MAX: Final = 20.0
_DAY: Final = datetime.timedelta(days=1)
_EPOCH: Final = datetime.date(1970, 1, 1)
_WHEN: Final = re.compile(r"(month|first|last|time)(\+\d{1,3})?")

_token = context("story name")


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"name": "as"}):
    """Something that is done or looked at, and what must come of it."""

    say: str
    by: str = ""
    call: str = ""
    inputs: dict[str, Any] = {}
    cosigners: list[str] = []
    under: list[str] = []
    reason: str = ""
    name: str = ""
    propose: bool = False
    approve: str = ""
    object: str = ""
    withdraw: str = ""
    reverse: str = ""
    outcome: str = ""
    detail: Any = None
    effect: str = ""
    look: list[Any] = []
    fields: dict[str, Any] = {}
    balance: int | None = None
    reserved: int | None = None
    absent: bool = False
    sealed: dict[str, Any] = {}


class Scene(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Steps that belong together."""

    title: str
    steps: list[Step]


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole story."""

    summary: str
    people: dict[str, Somebody]
    scenes: list[Scene]
    accounts: list[Opening] = []
    agencies: dict[str, str] = {}


def read_script(path: Path) -> Script:
    """Return a story.

    Raises:
        DraftError: it is not TOML, or not of this form.
    """
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Script)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise DraftError(f"{path}: {error}", hint="mend the file") from error


@dataclass(slots=True)
class Stage:
    """The network, its people, and what steps have made."""

    script: Script
    network: LocalNetwork
    story: Story
    clients: dict[str, Client] = field(default_factory=dict)
    made: dict[str, Decision] = field(default_factory=dict)
    names: dict[str, bytes] = field(default_factory=dict)
    """Principals of the people."""
    began: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))

    def learn(self) -> None:
        """Find the principals of the people in the genesis file."""
        founded = genesis_file.decode(self.network.genesis)
        owners = dict(founded.keys)
        for name, each in self.script.people.items():
            self.names[name] = owners[self.network.key(each.agency, name).public]

    # --- values

    def value(self, raw: Any, kind: Type | None) -> Value:
        """Return the value that the story writes."""
        if isinstance(raw, str) and raw.startswith("#"):
            return _token(raw[1:].encode())
        if isinstance(raw, str) and raw.startswith("@"):
            return self.reference(raw[1:], kind)
        if isinstance(raw, str) and raw.startswith("~"):
            return moment(raw[1:], self.began)
        if isinstance(raw, list):
            item = kind.item if kind is not None and kind.base == "list" else None
            return [self.value(each, item) for each in raw]
        return input_value(raw, kind)

    def reference(self, word: str, kind: Type | None) -> Value:
        """Return what ``@word`` stands for."""
        name, _, what = word.partition(".")
        if name in self.names and not what:
            return self.names[name]
        if name not in self.made:
            raise DraftError(f"nobody, and no step before this, is called {name!r}")
        txid = self.made[name].txid
        match what:
            case "tx":
                return txid
            case "hold":
                return hold_id(txid, 0, 0)
            case "grant":
                return grant_id(txid, 0)
            case "review":
                return review_id(txid, 0)
            case "disclosure":
                return disclosure_id(txid, 0)
            case "":
                id_ = record_id(txid, 0, 0)
                return [id_] if kind is not None and kind.base == "ref" else id_
        raise DraftError(f"a step has no {what!r}", hint="tx, hold, grant, review or disclosure")

    def plain(self, value: Value) -> Value:
        """Return a value as the story writes it, as far as it has names for it."""
        known = {id_: f"@{name}" for name, id_ in self.names.items()}
        match value:
            case bytes():
                return known.get(value, f"0x{value.hex()}")
            case list() | tuple():
                return [self.plain(each) for each in value]
        return value

    # --- steps

    async def play(self, step: Step) -> None:
        """Carry a step out and check what came of it."""
        if step.look:
            await self._look(step)
            return
        client = self.clients.get(step.by)
        if client is None:
            raise DraftError(f"{step.say!r}: nobody is called {step.by!r}")
        expected = step.outcome or ("PROPOSED" if step.propose else "APPLIED")
        decision = await self._act(client, step)
        if step.name:
            self.made[step.name] = decision
        seen: Any = decision.code
        if decision.code != expected:
            raise WrongError(step.say, expected, f"{seen} {self.plain(decision.detail)}")
        if step.detail is not None:
            wanted = self.plain(self.value(step.detail, None))
            self.story.claim(step.say, seen=self.plain(decision.detail), expected=wanted)
        else:
            self.story.claim(step.say, seen=seen, expected=expected)
        if step.effect:
            await self._effect(client, step)

    async def _act(self, client: Client, step: Step) -> Decision:
        named = [word for word in (step.approve, step.object, step.withdraw, step.reverse) if word]
        if named:
            txid = self.made[named[0]].txid
            if step.approve:
                return await client.approve(txid, reason=step.reason)
            if step.object:
                return await client.object_to(txid, step.reason)
            if step.withdraw:
                return await client.withdraw(txid, reason=step.reason)
            return await client.reverse(txid, reason=step.reason)
        domain, _, name = step.call.partition(".")
        action = find_action((await client.rules(refresh=True)).book, domain, name)
        types = {each.name: each.type for each in action.inputs}
        inputs = {key: self._input(raw, types.get(key)) for key, raw in step.inputs.items()}
        call = Call(domain, name, inputs)
        reads: Sequence[Entry] = await client.read_for(call)
        if step.propose:
            return await client.propose(call, reads=reads, reason=step.reason)
        people = self.script.people
        cosigners = [self.network.key(people[each].agency, each) for each in step.cosigners]
        under = [self._bytes(word) for word in step.under]
        return await client.transact(
            call, reads=reads, reason=step.reason, cosigners=cosigners, under=under
        )

    def _input(self, raw: Any, kind: Type | None) -> Value:
        if kind is not None and kind.base == "sealed":
            return Sealed(self.value(raw, None))
        return self.value(raw, kind)

    def _bytes(self, word: str) -> bytes:
        found = self.value(word, None)
        if not isinstance(found, bytes):
            raise DraftError(f"{word!r} is no id")
        return found

    async def _effect(self, client: Client, step: Step) -> None:
        proposal = self.made[step.approve or step.object or step.withdraw]
        found = await client.proposal(proposal.txid)
        with trio.move_on_after(WAIT_SECONDS_MAX):
            while found.state == "open" and step.effect != "open":
                await trio.sleep(0.1)
                found = await client.proposal(proposal.txid)
        seen = found.state
        if found.end is not None and isinstance(found.end.why, tuple):
            seen = f"{found.state} {found.end.why[0]}"
        self.story.claim(f"... and the proposal is {step.effect}", seen=seen, expected=step.effect)

    async def _look(self, step: Step) -> None:
        client = self.clients[step.by] if step.by else next(iter(self.clients.values()))
        space, *rest = step.look
        components = [self.value(each, None) for each in rest]
        try:
            entry = await client.get(str(space), *components)
        except RequestError as error:
            expected = step.outcome or "it can be read"
            self.story.claim(step.say, seen=error.reason, expected=expected)
            return
        if step.outcome:
            raise WrongError(step.say, step.outcome, "it can be read")
        if step.absent:
            self.story.claim(step.say, seen=entry.present, expected=False)
            return
        if not entry.present:
            raise WrongError(step.say, "it is there", "absent")
        wanted: dict[str, Any] = {}
        seen: dict[str, Any] = {}
        if space == "account":
            shown: Mapping[str, Any] = {"balance": entry.value[1], "reserved": entry.value[2]}
            wanted = {
                name: each
                for name, each in (("balance", step.balance), ("reserved", step.reserved))
                if each is not None
            }
        else:
            shown = entry.fields
            kind = (await client.rules()).book.kinds.get(str(rest[0])) if rest else None
            for name, raw in step.fields.items():
                known = None if kind is None else kind.fields.get(name)
                wanted[name] = self.value(raw, None if known is None else known.type)
        seen = {name: shown.get(name) for name in wanted}
        if step.sealed:
            unsealed = await client.unseal(entry)
            wanted |= step.sealed
            seen |= {
                name: each.value if each.state == "open" else each.state
                for name, each in unsealed.items()
                if name in step.sealed
            }
        self.story.claim(step.say, seen=seen, expected=wanted)


def moment(word: str, began: datetime.datetime) -> int:
    """Return the month, date or time that ``~word`` stands for in a story that began then.

    Raises:
        DraftError: it stands for none.
    """
    found = _WHEN.fullmatch(word)
    if found is None:
        raise DraftError(f"~{word} is no time", hint="~month+1, ~first+1, ~last+1 or ~time+30")
    what, later = found[1], int(found[2] or 0)
    month = began.year * 12 + began.month - 1 + later
    match what:
        case "time":
            return int((began + later * _DAY).timestamp() * 1000)
        case "first":
            return (_first_day(month) - _EPOCH).days
        case "last":
            return (_first_day(month + 1) - _DAY - _EPOCH).days
    return month


def _first_day(month: int) -> datetime.date:
    return datetime.date(month // 12, month % 12 + 1, 1)


def found_programme(script: Script, folder: Path, rules: Path) -> LocalNetwork:
    """Lay down the network of a story."""
    people = []
    for name, each in script.people.items():
        own = None if each.person is None else tuple(_given(part) for part in each.person)
        official = each.kind == "official"
        people.append(
            Person(
                name,
                each.agency,
                KINDS[each.kind],
                tuple((role, tuple(sorted(scope.items()))) for role, scope in each.roles.items()),
                None if official else own,
                own[0] if official and own else None,
            )
        )
    accounts = [
        OpeningBalance(
            str(each.account[0]), tuple(_given(part) for part in each.account[1:]), each.balance
        )
        for each in script.accounts
    ]
    agencies = sorted({each.agency for each in script.people.values()} | {*script.agencies})
    agencies += [f"member{n}" for n in range(1, 1 + max(VALIDATORS_MIN - len(agencies), 0))]
    return found(folder, sorted(rules.glob("*.toml")), people, accounts, agencies)


def _given(raw: Any) -> Value:
    """Return a value that is there before anybody has a principal."""
    if isinstance(raw, str) and raw.startswith("#"):
        return _token(raw[1:].encode())
    return input_value(raw, None)


async def play(stage: Stage) -> None:
    """Play all scenes with a client for everybody, each at the node of the own agency."""
    async with AsyncExitStack() as stack:
        for name, each in stage.script.people.items():
            key = stage.network.key(each.agency, name)
            client = Client.connect(stage.network.genesis, servers=[each.agency], key=key)
            stage.clients[name] = await stack.enter_async_context(client)
        for scene in stage.script.scenes:
            stage.story.scene(scene.title, scene.title)
            for step in scene.steps:
                try:
                    await stage.play(step)
                except ComityError as error:
                    raise WrongError(step.say, "it can be done", str(error)) from error


def tell(script: Script, rules: Path, folder: Path, story: Story) -> None:
    """Found the network of a story in ``folder``, play it and stop the network.

    Raises:
        WrongError: something came otherwise than the story says.
    """
    network = found_programme(script, folder, rules)
    with network:
        network.start_all()
        stage = Stage(script, network, story)
        stage.learn()
        trio.run(play, stage)


app = cyclopts.App(name="programme", help=__doc__)


@app.default
def programme(
    name: str,
    *,
    folder: Annotated[Path | None, Parameter(help="New folder for keys, logs and stores.")] = None,
) -> int:
    """Play the story of a programme.

    Args:
        name: of a folder under configs/programmes.
    """
    console = Console(width=None if sys.stdout.isatty() else 120)
    known = sorted(each.name for each in PROGRAMMES.iterdir() if (each / "story.toml").exists())
    if name not in known:
        console.print(f"there is no programme {name!r}; known: {', '.join(known)}")
        return 2
    script = read_script(PROGRAMMES / name / "story.toml")
    story = Story(console)
    console.print(script.summary)
    try:
        with tempfile.TemporaryDirectory(prefix="comity-programme-") as temporary:
            place = folder or Path(temporary) / "network"
            tell(script, PROGRAMMES / name / "rules", place, story)
    except WrongError as wrong:
        tell_wrong(console, wrong)
        return 1
    story.summary()
    return 0


def main() -> None:
    """Run the command line."""
    with one_way_to_end():
        sys.exit(app())


if __name__ == "__main__":
    main()
