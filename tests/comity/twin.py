"""An in-memory twin of a node: the real executor, state and API server, without consensus.

``Twin`` makes a block whenever transactions are pooled and certifies it with a quorum of the test
committee's keys. ``Liar`` stands between the server and a client and changes what the server says.
"""

from __future__ import annotations

import secrets
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import trio
import trio.testing

from comity import Client
from comity.errors import NotReachableError
from comity.keys import Key
from comity.session import Server
from consensus import answers, codec, genesis, keyfile, protocol, reads, signing
from consensus.answers import Answer, StatementEvidence
from consensus.asking import Reading
from consensus.audit.stream import Recorded
from consensus.committee import Committee, Validator
from consensus.errors import ComityError
from consensus.evidence.making import Decided, Prepared, prepare
from consensus.genesis import Agency, Genesis, Limits, OpeningBalance, Principal, RoleGiven
from consensus.hashing import ZERO
from consensus.hotstuff import wire
from consensus.hotstuff.types import CommitCert, Statement
from consensus.keyfile import KeyKind
from consensus.ledger import decision as ledger_decisions
from consensus.ledger import group, layout
from consensus.ledger.dry import DryRun
from consensus.ledger.evidence import Overwritten
from consensus.ledger.executor import EXECUTOR, BlockContext, BlockRun
from consensus.ledger.genesis_state import genesis_state
from consensus.ledger.ledger import of_genesis
from consensus.ledger.readers import Reader
from consensus.ledger.transaction import Transaction, decode_envelope, decode_signed, with_private
from consensus.protocol import Item, StateKey, Status
from consensus.signing import TAG_COMMIT_VOTE
from consensus.state.changes import find, leaf_hashes, read
from consensus.state.history import HistoryTree, MemoryNodes
from consensus.state.merkle import CHANGES, RESULTS
from consensus.state.record import decode_row, decode_single
from consensus.state.state import Applied, MemoryBackend, State
from node import changing
from node.api.backend import (
    Admission,
    Admitted,
    BehindError,
    CertifiedBlock,
    ChangedRows,
    Earlier,
    Holder,
    Identity,
    Lineage,
    Place,
    ProvedRows,
    Rejected,
    Select,
    Submission,
    Tried,
)
from node.api.limits import ApiLimits
from node.api.server import ApiServer
from node.asking import Asking
from node.errors import StorageFailedError
from node.lineage import Lineages, gather
from node.past import Past
from node.register import Register
from node.sealed.keeper import Keeper
from tests import rulebooks

START_MS = 1_790_000_000_000
AGENCIES = ("north", "east", "south", "west")

RULES = """
domain = "notes"
number = 1
legal_basis = "Test Act"

[accounts.pot]
currency = "USD"
floor = 0
debit_by = []

[accounts.debt]
currency = "USD"
floor = -500

[kinds.note]
fields.text   = { type = "text", open = true }
fields.amount = { type = "int" }
fields.owner  = { type = "ref", kind = "person", optional = true }
status = { start = "open", steps = { open = ["closed"], closed = [] } }
index  = ["owner", { field = "amount", while = "status == 'open'" }]

[kinds.person]
fields.name = { type = "text", open = true }

[actions.enter]
summary = "Enter a person"
legal = "s 1"
actor = { role = "notes.writer" }
inputs = { token = "token:notes", name = "text" }
create = [ { kind = "person", id = ["{input.token}"], set = { name = "input.name" } } ]

[actions.write]
summary = "Write a note under a number"
legal = "s 2"
actor = { role = "notes.writer" }
inputs = { number = "int", text = "text", amount = "int", owner = "ref:person?" }
create = [ { kind = "note", id = ["{input.number}"], set = \
{ text = "input.text", amount = "input.amount", owner = "input.owner" } } ]

[actions.amend]
summary = "Change a note's text"
legal = "s 3"
actor = { role = "notes.writer" }
inputs = { note = "ref:note", text = "text" }
load = [ ["note", "note/{input.note}"] ]
set = [ { record = "note", fields = { text = "input.text" } } ]

[actions.close]
summary = "Close a note"
legal = "s 3"
actor = { role = "notes.writer" }
inputs = { note = "ref:note" }
load = [ ["note", "note/{input.note}"] ]
set = [ { record = "note", status = "closed" } ]

[actions.publish]
summary = "Publish a note, which an administrator approves"
legal = "s 3"
actor = { role = "notes.writer" }
inputs = { note = "ref:note", text = "text" }
load = [ ["note", "note/{input.note}"] ]
set = [ { record = "note", fields = { text = "input.text" } } ]
approvals = { role = "charter.administrator" }

[actions.tidy]
summary = "Close a note if it is the only one of its amount"
legal = "s 3"
actor = { role = "notes.writer" }
inputs = { note = "ref:note", amount = "int" }
load = [ ["note", "note/{input.note}"], ["alike", "index note.amount {input.amount} max 2"] ]
set = [ { record = "note", status = "closed", when = "size(alike) == 1" } ]

[actions.pay]
summary = "Move money between two pots"
legal = "s 4"
actor = { role = "notes.writer" }
inputs = { source = "text", target = "text", amount = "money:USD" }
require = [ { code = "AMOUNT", that = "input.amount > 0", say = "the amount is positive" } ]
move = [ { from = "account/pot/{input.source}", to = "account/pot/{input.target}", \
amount = "input.amount" } ]

[actions.correct]
summary = "Change a note's text, for some days"
legal = "s 6"
actor = { role = "notes.writer" }
inputs = { note = "ref:note", text = "text" }
load = [ ["note", "note/{input.note}"] ]
set = [ { record = "note", fields = { text = "input.text" } } ]
reversible = { by = "notes.writer", within_days = 5 }

[actions.lend]
summary = "Move money between two pots, which may be called back"
legal = "s 6"
actor = { role = "notes.writer" }
inputs = { source = "text", target = "text", amount = "money:USD" }
unique = [["loan", "{input.target}"]]
move = [ { from = "account/pot/{input.source}", to = "account/pot/{input.target}", \
amount = "input.amount" } ]
reversible = { by = "notes.writer", within_days = 5, shortfall = "account/debt/{input.target}", \
unique = "free" }

[actions.rename]
summary = "A person changes the own name"
legal = "s 5"
actor = { self = "input.person" }
inputs = { person = "ref:person", name = "text" }
load = [ ["person", "person/{input.person}"] ]
set = [ { record = "person", fields = { name = "input.name" } } ]
"""
CHARTER = """
domain = "charter"
number = 1
legal_basis = "Agreement"

[actions.add_key]
kernel = true
summary = "Add a key"
actor = { role = "charter.administrator", where = "who.agency == input.agency" }

[actions.place_hold]
kernel = true
summary = "Place a hold"
actor = { role = "charter.administrator" }

[actions.reverse]
kernel = true
actor = { self = "who.principal" }

[actions.give_role]
kernel = true
actor = { role = "charter.administrator" }

[actions.propose_rules]
kernel = true
actor = { role = "charter.administrator" }

[actions.activate_rules]
kernel = true
actor = { role = "charter.administrator" }

[actions.object_rules]
kernel = true
actor = { role = "charter.administrator" }

[actions.withdraw_rules]
kernel = true
actor = { role = "charter.administrator" }
"""
CITIZEN_TOKEN = bytes([7]) * 32


def key_of(number: int, kind: KeyKind = KeyKind.CLIENT) -> Key:
    """A key that is the same in every run."""
    return Key(keyfile.from_seed(kind, bytes([number]) * 32))


OFFICIAL = key_of(50)
ADMINISTRATOR = key_of(51)
CITIZEN = key_of(52)
STRANGER = key_of(53)
VALIDATORS = [key_of(1 + i, KeyKind.VALIDATOR) for i in range(4)]
NODES = [key_of(11 + i, KeyKind.NODE) for i in range(4)]


def make_genesis(certificates: Sequence[bytes] | None = None, ports: Sequence[int] = ()) -> Genesis:
    """A network of four agencies with an official, an administrator and a citizen."""
    shown = certificates or [b"certificate %d" % i for i in range(4)]
    validators = tuple(
        Validator(
            name,
            VALIDATORS[i].public,
            NODES[i].public,
            shown[i],
            "127.0.0.1",
            0,
            "127.0.0.1",
            ports[i] if ports else 0,
        )
        for i, name in enumerate(AGENCIES)
    )
    official, administrator, citizen = (bytes([n]) * 32 for n in (101, 102, 103))
    return Genesis(
        network="twin",
        time_ms=START_MS,
        executor=EXECUTOR,
        tree_depth=8,
        limits=Limits(),
        committee=Committee(1, validators),
        agencies=tuple(Agency(name, name.title()) for name in AGENCIES),
        principals=(
            Principal(official, "north", genesis.OFFICIAL, b"o" * 32),
            Principal(administrator, "north", genesis.OFFICIAL, b"a" * 32),
            Principal(citizen, "east", genesis.CITIZEN, None, (CITIZEN_TOKEN,)),
        ),
        keys=(
            (OFFICIAL.public, official),
            (ADMINISTRATOR.public, administrator),
            (CITIZEN.public, citizen),
        ),
        roles=(
            RoleGiven(official, "notes.writer"),
            RoleGiven(administrator, "charter.administrator"),
        ),
        rules=tuple(rulebooks.encoded(text) for text in (CHARTER, RULES)),
        accounts=(
            OpeningBalance("pot", ("a",), 1_000_000),
            OpeningBalance("pot", ("b",), 0),
        ),
    )


def certify(
    statement: Statement, signers: Sequence[int] = (0, 1, 2), committee: Committee | None = None
) -> bytes:
    """The commit certificate on a statement by these validators of a committee, or of the first."""
    signed = signing.message(TAG_COMMIT_VOTE, statement.chain, statement.encode())
    keys = {each.public: each for each in VALIDATORS}
    held = [each.public for each in VALIDATORS] if committee is None else committee.keys
    rows = tuple((i, keys[held[i]].sign(signed)) for i in signers)
    return wire.encode_commit_cert(CommitCert(statement, rows))


class NoStore:
    """The store of a register, or of a past, that is kept in memory."""

    height = -1
    horizon = 0

    @property
    def view(self) -> NoStore:
        return self

    @contextmanager
    def reading(self) -> Iterator[NoStore]:
        yield self

    def row(self, kh: bytes) -> None:
        return None

    def records(self, prefix: bytes, *, after: bytes = b"", count_max: int) -> list[Any]:
        return []


@dataclass
class Twin:
    """A node that certifies its own blocks. Implements ``ApiBackend``."""

    genesis: Genesis = field(default_factory=make_genesis)
    certify_every: int = 1
    """Only every so-manieth height gets a certificate of its own."""

    def __post_init__(self) -> None:
        self.chain = genesis.chain_id(self.genesis.encode())
        self.ledger = of_genesis(self.genesis)
        self.state = State(MemoryBackend(), self.genesis.tree_depth, -1)
        self.history = HistoryTree(MemoryNodes())
        self.statements: list[Statement] = []
        self.committee = self.genesis.committee
        self.elects: Committee | None = None
        self.steps: list[answers.EpochStep] = []
        self.heights: list[Any] = []
        """Rows and changes of each height."""
        self.kept = Past(NoStore(), lambda: self.heights)  # type: ignore[arg-type]
        self.lineages = Lineages(self.kept, self)
        self.blocks: dict[int, CertifiedBlock] = {}
        self.payloads: dict[int, Sequence[Transaction]] = {}
        self.uncertified: list[int] = []
        self.applied: list[Applied] = []
        self.results: dict[int, Any] = {}
        self.certificates: dict[int, bytes] = {}
        self.places: dict[bytes, Place] = {}
        self.effects: dict[bytes, Place] = {}
        self.aside: dict[bytes, dict[bytes, Overwritten]] = {}
        self.register = Register(NoStore())  # type: ignore[arg-type]
        self.proposals = Asking(
            self.ledger,
            lambda: self.state,
            self.register,
            lambda: self.height,
            lambda: self.now_ms,
            self.history.root,
        )
        self.keeper: Keeper | None = None
        self.pool: dict[bytes, Transaction] = {}
        self.bell = trio.Event()
        self.grown = trio.Event()
        self.servers: list[ApiServer] = []
        self.submissions: list[int] = []
        self.now_ms = START_MS
        self.reads: list[tuple[StateKey, Reading]] = []
        self.unrecordable = False
        self.rejection: Rejected | None = None
        self.paused = False
        nothing = RESULTS.root([])
        self._apply([tuple(w) for w in genesis_state(self.genesis)], nothing, [], START_MS)
        while not self.certificates:
            self.make_block()

    # --- making blocks ------------------------------------------------------------------------

    def _apply(
        self,
        writes: Any,
        results_root: bytes,
        decisions: Any,
        time_ms: int,
        elected: Committee | None = None,
    ) -> None:
        applied = self.state.apply(writes)
        self.applied.append(applied)
        height = self.state.height
        if height and self.elects is not None:
            elected, self.elects = self.elects, None
        statement = Statement(
            self.chain,
            self.committee.epoch,
            height,
            height,
            codec.encode(height).rjust(32, b"\0"),
            time_ms,
            EXECUTOR,
            applied.state_root,
            results_root,
            applied.changes_root,
            self.history.root(),
            None if elected is None else elected.hash,
        )
        self.history.append(statement.hash)
        self.statements.append(statement)
        self.heights.append(
            SimpleNamespace(
                block=SimpleNamespace(height=height),
                rows=applied.rows,
                changes=b"".join(applied.changes),
            )
        )
        self.uncertified.append(height)
        self.results[height] = decisions
        if height and height % self.certify_every == 0:
            self.certificates[height] = certify(
                statement, range(self.committee.quorum), self.committee
            )
            for each in self.uncertified:
                self._deliver(each, self.results[each])
            self.uncertified.clear()
            if elected is not None:
                step = answers.EpochStep(self.certificates[height], elected.to_value())
                self.steps.append(step)
                self.committee = elected

    def elect(self, *rows: Validator) -> int:
        """Make a block that ends the epoch; these vote in the next."""
        self.elects = Committee(self.committee.epoch + 1, rows)
        return self.make_block()

    def _deliver(self, height: int, decisions: Any) -> None:
        evidence = self.evidence(height)
        assert evidence is not None
        txids = [d.header.txid for d in decisions]
        block = CertifiedBlock(
            height, evidence, txids, [d.root for d in decisions], [d.encode() for d in decisions]
        )
        self.blocks[height] = block
        for index, txid in enumerate(txids):
            transaction = self.pool.pop(txid, None)
            author = transaction.author if transaction else b""
            self.places.setdefault(txid, Place(height, index, author))
        for server in self.servers:
            server.certified(block)
        self.grown.set()
        self.grown = trio.Event()

    def make_block(self, *transactions: Transaction) -> int:
        """Execute and certify a block; return its height."""
        self.now_ms += 1000
        self.payloads[self.state.height + 1] = transactions
        epoch, height = self.committee.epoch, self.state.height + 1
        context = BlockContext(epoch, height, self.now_ms, history=self.history.root)
        run = BlockRun(self.ledger, self.state, context, transactions)
        result = run.finish()
        self.register.certified(height, result.proposals)
        for each in result.aside:
            self.aside[each.txid] = {
                leaf.leaf_hash: Overwritten(leaf.version, leaf.salt, leaf.value_cbor)
                for leaf in each.leaves
            }
        for index in result.effects:
            found = result.transactions[index]
            self.effects[found.txid] = Place(height, index, found.author)
        self._apply(
            [tuple(w) for w in result.writes],
            result.results_root,
            result.decisions,
            self.now_ms,
            result.next_committee,
        )
        return self.state.height

    async def run(self) -> None:
        """Make a block of what is pooled, again and again."""
        while True:
            await self.bell.wait()
            self.bell = trio.Event()
            await trio.sleep(0.01)
            if self.pool and not self.paused:
                self.make_block(*self.pool.values())
                while self.uncertified:
                    self.make_block()

    # --- ApiBackend ---------------------------------------------------------------------------

    @property
    def height(self) -> int:
        return max(self.certificates, default=0)

    def identity(self, key: bytes) -> Identity | None:
        row = self._read(StateKey("key", (key,)))
        if row is None:
            return None
        found = layout.Key(*codec.parse(decode_single(row)[2]))
        row = self._read(StateKey("principal", (found.principal,)))
        assert row is not None
        who = layout.Principal(*codec.parse(decode_single(row)[2]))
        if found.fault(self.now_ms) or who.status != layout.ACTIVE:
            return None
        person = None if who.person is None else tuple(who.person)
        book = self.ledger.rules(self.state, self.now_ms).book
        row = self._read(StateKey("agency", (who.agency,)))
        assert row is not None
        agency = layout.Agency(*codec.parse(decode_single(row)[2]))
        reader = Reader(book, who, agency, self.now_ms, self._leaf)
        return Identity(who.id, who.agency, who.kind, person, reader, self._read, self._by_path)

    def _by_path(self, kh: bytes) -> bytes | None:
        row = self.state.get(kh)
        return None if row is None or row.vh == ZERO else row.value

    def _leaf(self, space: str, components: Any) -> Any:
        row = self._read(StateKey(space, tuple(components)))
        if row is None:
            return None
        return layout.leaf_value(space, components, codec.parse(decode_single(row)[2]))

    async def submit(self, submissions: Sequence[Submission]) -> Sequence[Admission]:
        await trio.sleep(0.001)
        self.submissions.append(len(submissions))
        return [self._admit(each) for each in submissions]

    def _admit(self, submission: Submission) -> Admission:
        if self.rejection is not None:
            return self.rejection
        try:
            transactions = self._decode(submission)
        except ComityError as error:
            status = Status.BAD_SIGNATURE if error.code == "BAD_SIGNATURE" else Status.MALFORMED
            return Rejected(status, error.code, error.message)
        decided = {}
        for position, each in enumerate(transactions):
            place = self.places.get(each.txid)
            if place is not None:
                decided[position] = place
            else:
                self.pool[each.txid] = each
        self.bell.set()
        return Admitted(tuple(each.txid for each in transactions), decided)

    def _decode(self, submission: Submission) -> list[Transaction]:
        if submission.kind is Item.ENVELOPE:
            found = [decode_envelope(self.chain, submission.data)]
            messages = group.single_messages(self.chain, found[0])
        else:
            *frame, envelopes = codec.parse(submission.data, "group")
            found = [
                with_private(self.chain, decode_signed(self.chain, body, signatures), *private)
                for body, signatures, private in envelopes
            ]
            messages = group.messages(self.chain, group.from_value(frame, found))
        for key, message, signature in messages:
            signing.verify(key, message, signature)
        return found

    def find(self, txid: bytes) -> Place | None:
        return self.places.get(txid)

    def decisions_of(self, txid: bytes) -> list[tuple[int, int]]:
        return [
            (height, index)
            for height, block in self.blocks.items()
            for index, each in enumerate(block.txids)
            if each == txid
        ]

    def past(self, height: int) -> tuple[bytes, int, list[bytes]] | None:
        size = max(*self.certificates, height + 1)
        return self.statements[height].encode(), size, self.history.path(height, size)

    def statement_under(self, height: int, size: int) -> tuple[bytes, list[bytes]] | None:
        if height >= size:
            return None
        return self.statements[height].encode(), self.history.path(height, size)

    @property
    def genesis_head(self) -> tuple[bytes, bytes]:
        return genesis.split(self.genesis.encode())

    def get_at(self, height: int, kh: bytes) -> Any:
        found = [each.rows[kh] for each in self.applied[: height + 1] if kh in each.rows]
        return found[-1] if found else None

    async def retrace(self, height: int, index: int, opened: Sequence[str]) -> Prepared:
        decision = ledger_decisions.decode(self.blocks[height].decisions[index])
        everything = [each for payload in self.payloads.values() for each in payload]
        found = next(each for each in everything if each.txid == decision.header.txid)
        decided = Decided(decision, self.blocks[height].roots, self.payloads[height], found)
        source = types.SimpleNamespace(get=partial(self.get_at, height - 1))
        time_ms = self.statements[height].time_ms
        context = BlockContext(1, height, time_ms, history=self.history.root)
        return prepare(self.ledger.apart(), source, context, decided, opened)

    async def earlier(self, key: StateKey, version: int, upto: int) -> Earlier | None:
        kh = self.ledger.paths(key.namespace, key.components)
        for height, applied in enumerate(self.applied[: upto + 1]):
            index = find(b"".join(applied.changes), kh)
            if index is None or decode_row(applied.rows[kh].value).version != version:
                continue
            path = CHANGES.path(leaf_hashes(applied.changes), index)
            previous = read(applied.changes[index]).previous
            row = applied.rows[kh].value
            return Earlier(row, height, len(applied.changes), index, previous, path)
        return None

    def recorded(self, height: int) -> Recorded | None:
        block = self.blocks.get(height)
        if block is None:
            return None
        rows = [
            [txid, bytes(32), root, decision]
            for txid, root, decision in zip(block.txids, block.roots, block.decisions, strict=True)
        ]
        statement = self.statements[height].encode()  # a twin has neither blocks nor batches
        return Recorded(height, b"block", statement, None, [], codec.encode(rows), b"")

    def provable(self) -> int:
        return max(self.certificates)

    def statement(self, height: int) -> bytes:
        return self.statements[height].encode()

    async def lineage(
        self, key: StateKey, newest: int, first: int, last: int, limit: int
    ) -> Lineage:
        kh = self.ledger.paths(key.namespace, key.components)
        found = gather(self.kept, kh, newest, first, last, limit)
        return self.lineages.proved(found, newest)

    async def changed(self, height: int, named: Sequence[StateKey]) -> ChangedRows:
        paths = self.ledger.paths
        places = {paths(key.namespace, key.components): key for key in named}
        return changing.find(self.kept, height, places, paths)

    def moment(self, time_ms: int) -> int | None:
        return self.lineages.at(time_ms)

    def time_of(self, height: int) -> int:
        return self.statements[height].time_ms

    def overwritten(self, txid: bytes) -> Any:
        return self.aside.get(txid, {})

    def find_effect(self, txid: bytes) -> Place | None:
        return self.effects.get(txid)

    def block(self, height: int) -> CertifiedBlock | None:
        return self.blocks.get(height)

    def evidence(self, height: int) -> StatementEvidence | None:
        if not 0 <= height <= self.height:
            return None
        at = min(h for h in self.certificates if h >= height)
        if at == height:
            return StatementEvidence(self.certificates[at])
        path = self.history.path(height, at)
        return StatementEvidence(
            self.certificates[at], self.statements[height].encode(), tuple(path)
        )

    def _read(self, key: StateKey) -> bytes | None:
        row = self.state.get(self.ledger.paths(key.namespace, key.components))
        return None if row is None or row.vh == ZERO else row.value

    async def prove(self, height_min: int, selects: Sequence[Select]) -> Sequence[ProvedRows]:
        with trio.move_on_after(2):
            while self.height < height_min:
                await self.grown.wait()
        if self.height < height_min:
            raise BehindError
        out = []
        for select in selects:
            keys = list(select(self._read))
            khs = [self.ledger.paths(k.namespace, k.components) for k in keys]
            proof = self.state.prove(khs).encode()
            out.append(ProvedRows(self.height, keys, [self._read(k) for k in keys], proof))
        return out

    def list_records(self, kind: str, after: Any, limit: int) -> reads.Page | None:
        if kind != "note":
            return None
        numbers = [n for n in range(100) if self._read(StateKey("record", ("note", n)))]
        start = 0 if after is None else after[0] + 1
        page = [n for n in numbers if n >= start][:limit]
        more = bool(page) and page[-1] != numbers[-1]
        return reads.Page(self.height, tuple((n,) for n in page), (page[-1],) if more else None)

    async def record_reads(
        self, identity: Identity, key: bytes, method: str, purpose: str, shown: Any
    ) -> None:
        if self.unrecordable:
            raise StorageFailedError("no space left")
        agency, who = identity.agency, identity.principal
        for height, places in shown:
            reading = Reading(self.now_ms, height, agency, method, purpose, who)
            self.reads += [(each, reading) for each in places]

    async def reads_of(self, target: StateKey, skip: int, limit: int) -> Sequence[Reading]:
        return [each for place, each in self.reads if place == target][skip:][:limit]

    def simulate(self, envelope: bytes) -> Tried:
        transaction = decode_envelope(self.chain, envelope)
        context = BlockContext(1, self.state.height + 1, self.now_ms)
        run = DryRun(self.ledger, self.state, context, transaction)
        return Tried(self.state.height, self.now_ms, run)

    def holders(self, role: str, limit: int) -> Sequence[Holder]:
        given = [each for each in self.genesis.roles if each.role == role]
        people = {each.id: each for each in self.genesis.principals}
        return [
            Holder(each.principal, people[each.principal].agency, tuple(each.scope))
            for each in given
        ]

    def committees(self, after_epoch: int, limit: int) -> Sequence[answers.EpochStep]:
        return self.steps[after_epoch - 1 :][:limit]

    def status(self) -> dict[str, Any]:
        return {"height": self.height, "agency": "north", "ready": True}

    # --- serving ------------------------------------------------------------------------------

    def server(self, index: int = 0, limits: ApiLimits | None = None) -> ApiServer:
        """An API server of this twin under the node key of one agency."""
        server = ApiServer(
            self,
            self.chain,
            NODES[index].public,
            limits or ApiLimits(),
            None,
            secrets.token_bytes,
        )
        self.servers.append(server)
        return server


Lie = Callable[[Answer], list[Answer]]


class Liar(trio.abc.Stream):
    """A stream to a server of which every answer passes through ``lie``."""

    def __init__(self, inner: trio.abc.Stream, lie: Lie) -> None:
        self._inner = inner
        self._lie = lie
        self._splitter = protocol.FrameSplitter(protocol.ANSWER_BYTES_MAX)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while True:
            data = await self._inner.receive_some(max_bytes)
            if not data:
                return b""
            payloads = [
                codec.encode([a.request_id, int(a.status), a.result])
                for payload in self._splitter.feed(bytes(data))
                for a in self._lie(answers.decode_answer(payload))
            ]
            if payloads:
                return protocol.frames(payloads)

    async def send_all(self, data: Any) -> None:
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._inner.aclose()


@dataclass
class Harness:
    """Twin, servers of all four agencies, and clients that reach them in memory."""

    twin: Twin
    nursery: trio.Nursery
    servers: dict[str, ApiServer]
    lies: dict[str, Lie] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    dialled: list[str] = field(default_factory=list)

    async def dial(self, server: Server) -> trio.abc.Stream:
        """Connect in memory; refused while the agency is in ``down``."""
        self.dialled.append(server.agency)
        if server.agency in self.down:
            raise NotReachableError(f"nothing listens at {server.agency}")
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self.servers[server.agency].serve, theirs, "memory")
        lie = self.lies.get(server.agency)
        return Liar(ours, lie) if lie is not None else ours

    def cut(self) -> None:
        """End every open connection, as a failing network does."""
        for server in self.servers.values():
            for connection in list(server._connections):
                connection.stop()

    def client(self, key: Key | None = OFFICIAL, **options: Any) -> Any:
        """A client of the twin's network."""
        options.setdefault("servers", ["north"])
        options.setdefault("patience_seconds", 5.0)
        return Client.connect(self.twin.genesis.encode(), key=key, dial=self.dial, **options)


@asynccontextmanager
async def harness(twin: Twin | None = None, limits: ApiLimits | None = None) -> Any:
    """A running twin with its servers; everything ends with the block."""
    twin = twin or Twin()
    async with trio.open_nursery() as nursery:
        servers = {name: twin.server(i, limits) for i, name in enumerate(AGENCIES)}
        nursery.start_soon(twin.run)
        yield Harness(twin, nursery, servers)
        nursery.cancel_scope.cancel()
