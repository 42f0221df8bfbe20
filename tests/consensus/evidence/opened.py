"""Disclosure files for tests, made from a twin's own state, without any node or client."""

from __future__ import annotations

from typing import Any

from consensus import codec, genesis
from consensus.codec import Value
from consensus.errors import invariant
from consensus.evidence.disclosure_file import Body, Change, make_item
from consensus.genesis import Genesis
from consensus.hotstuff import wire
from consensus.ledger.disclosures import SPACE, Disclosure, disclosure_id
from consensus.ledger.sealing import Opening
from consensus.ledger.transaction import Draft, Expect, build
from consensus.state.changes import find, leaf_hashes, read
from consensus.state.merkle import CHANGES
from consensus.state.record import decode_row, decode_single
from tests.comity.test_disclosing import GENESIS
from tests.comity.twin import OFFICIAL, Twin

HOUR_MS = 3_600_000
OWNER = [bytes([7]) * 32]
COURT = ["party", "District Court"]


class Town:
    """A twin with one note and one secret, on which acts are made directly."""

    def __init__(self, founded: Genesis = GENESIS) -> None:
        self.twin = Twin(founded)
        self.sequence = 0
        self.chain = self.twin.chain
        self.head = genesis.split(founded.encode())
        self.act("notes.enter", OWNER[0], "Ann", expects=[("person", OWNER, 0)])
        self.act("notes.write", 1, "a long story", 7, OWNER, expects=[("note", [1], 0)])
        self.act("notes.hide", 1, OWNER, 4711, expects=[("secret", [1], 0)])

    def enclose(self) -> tuple[Opening, Opening]:
        """Make an envelope with two commitments; return what they hide."""
        hidden = (
            Opening(bytes(31) + b"p", bytes(32), 0, 1, "1234"),
            Opening(bytes(31) + b"s", bytes(32), 0, 2, ["a", 7]),
        )
        inside = [each.commitment for each in hidden]
        self.act("notes.enclose", 1, *inside, expects=[("envelope", [1], 0)])
        return hidden

    def fill(self) -> bytes:
        """Make a record of eight declared fields, which has twelve leaves; open one of them."""
        self.act("notes.fill", 1, 11, expects=[("form", [1], 0)])
        return self.disclose("form", ("c",))

    def act(self, *call: Value, expects: Any = ()) -> bytes:
        """Execute one call in a block of its own; return its txid."""
        return self.acts([call], expects)

    def acts(self, calls: list[Any], expects: Any = ()) -> bytes:
        """Execute one transaction in a block of its own; return its txid."""
        twin, self.sequence = self.twin, self.sequence + 1
        book = twin.ledger.rules(twin.state, twin.now_ms).book
        drafts = []
        for name, *inputs in calls:
            domain, _, action = name.partition(".")
            found = book.action(domain, action)
            assert found is not None, name
            params = found.schedule.at(twin.now_ms).digest
            drafts.append(Draft(domain, action, found.action_id, list(inputs), params, False))
        transaction = build(
            self.chain,
            OFFICIAL.public,
            self.sequence,
            twin.now_ms + 60_000,
            drafts,
            seed=bytes([self.sequence]) * 32,
            expects=[Expect(*each) for each in expects],
        ).transaction
        height = twin.make_block(transaction)
        (decision,) = twin.results[height]
        invariant(decision.code == 0, repr(decision.detail))
        return transaction.txid

    def amend(self, text: str, version: int) -> None:
        """Change the text of the note."""
        self.act("notes.amend", [1], text, expects=[("note", [1], version)])

    def disclose(
        self,
        kind: str = "note",
        fields: tuple[str, ...] = ("amount",),
        version: int = 0,
        to: Value = COURT,
        hours: int = 24,
    ) -> bytes:
        """Disclose fields; return the id of the disclosure."""
        until = self.twin.now_ms + hours * HOUR_MS
        words = [to, "a court asks", "Courts Act s 4", until]
        txid = self.act("charter.disclose", kind, [1], version, list(fields), *words)
        return disclosure_id(txid, 0)

    def row(self, space: str, *components: Value, upto: int | None = None) -> tuple[int, bytes]:
        """Return the height that wrote a leaf last, and its row."""
        kh = self.twin.ledger.paths(space, list(components))
        heights = self.twin.applied if upto is None else self.twin.applied[: upto + 1]
        for height in reversed(range(len(heights))):
            if kh in heights[height].rows:
                return height, heights[height].rows[kh].value
        raise AssertionError(components)

    def change(self, height: int, kh: bytes) -> Change:
        """Return the place of a change in the change tree of its height."""
        changes = self.twin.applied[height].changes
        index = find(b"".join(changes), kh) or 0
        previous = read(changes[index]).previous
        path = CHANGES.path(leaf_hashes(changes), index)
        return Change(height, len(changes), index, previous, path)

    def body(self, *ids: bytes) -> Body:
        """Return what opens disclosures at the newest height, certified by it or a later one."""
        twin, paths = self.twin, self.twin.ledger.paths
        height = twin.state.height
        items, khs, heights = [], [], {height}
        for id_ in sorted(ids):
            _, salt, value = decode_single(self.row(SPACE, id_)[1])
            disclosure = Disclosure(*codec.parse(value))
            place = [disclosure.kind, *disclosure.record]
            kh = paths("record", place)
            at, row = self.row("record", *place)
            change = None
            while decode_row(row).version != disclosure.version:
                at, row = self.row("record", *place, upto=at - 1)
                change = self.change(at, kh)
            item = make_item(disclosure, salt, decode_row(row), change)
            assert item is not None
            items.append(item)
            heights |= {at} if change else set()
            khs += [paths(SPACE, [id_]), kh]
        certificate = twin.certificates[height]
        newest = wire.decode_commit_cert(certificate).statement.height
        statements = [
            (twin.statements[each].encode(), twin.history.path(each, newest))
            for each in sorted(heights - {newest})
        ]
        proof = twin.state.prove(list(dict.fromkeys(khs))).encode()
        return Body([], certificate, statements, proof, items)

    def file(self, *ids: bytes) -> bytes:
        """Return the file that opens disclosures."""
        return self.body(*ids).encode(*self.head)
