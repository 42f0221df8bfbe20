"""Scene 6: one file that proves a record, checked against the genesis hash and nothing else.

The auditor keeps what a node sent, byte for byte: the certified statement of a height, and the
record's row with its proof. With a copy of the genesis file that makes a file which anybody can
check who knows the network's 32-byte hash:

    python -m scripts.demo_parts.evidence FILE HASH

The check asks no node, and trusts neither the file nor whoever made it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import trio

from comity.client import Client
from comity.pool import dial_tls
from comity.results import Entry
from comity.session import Dial, Server
from comity.verify import Trust
from consensus import answers, codec, protocol, reads
from consensus import genesis as genesis_file
from consensus.codec import Value
from consensus.committee import Committee
from consensus.errors import ComityError, ProofError
from consensus.protocol import Event, StateKey, Status
from consensus.state.record import HOLDS
from scripts.benefits import Case
from scripts.demo_parts.cast import Cast
from scripts.demo_parts.story import Story, money
from scripts.localnet import ROOT

FILE_NAME: Final = "entitlement.proof"
TAMPERED_NAME: Final = "entitlement-tampered.proof"
MAGIC: Final = "comity demonstration proof"
FILE_BYTES_MAX: Final = 1024 * 1024
SECONDS_MAX: Final = 20.0
_SHAPE: Final = codec.array(
    codec.text(64),
    codec.octets(high=FILE_BYTES_MAX),
    codec.plain,
    codec.text(64),
    codec.list_of(codec.plain, 16),
    codec.plain,
)


@dataclass(frozen=True, slots=True)
class Paper:
    """What the auditor takes home.

    Args:
        genesis: the genesis file, as anybody may hand it over.
        statement: evidence for a height, as the node sent it.
        key: the record that was asked for.
        rows: the answer, as the node sent it.
    """

    genesis: bytes
    statement: Value
    key: StateKey
    rows: Value

    def encode(self) -> bytes:
        """Return the file's bytes."""
        place = [self.key.namespace, [*self.key.components]]
        return codec.encode([MAGIC, self.genesis, self.statement, *place, self.rows])


def check(chain: bytes, data: bytes) -> tuple[Entry, int, int]:
    """Return the record that a file proves, and how many of how many agencies signed its height.

    Args:
        chain: hash of the genesis file; all that the caller trusts.
        data: the file, from anywhere.

    Raises:
        ComityError: the file proves nothing; the message says why.
    """
    value: Any = codec.decode(data, _SHAPE, bytes_max=FILE_BYTES_MAX, what="proof file")
    magic, genesis, evidence, namespace, components, rows = value
    if magic != MAGIC:
        raise ProofError("this is no file of the demonstration")
    if genesis_file.chain_id(genesis) != chain:
        raise ProofError("the genesis file inside is not the one with this hash")
    committee = _committee(genesis)
    trust = Trust(chain, committee)
    shown = answers.read_statement(evidence)
    statement = trust.statement(shown)
    signers = len(trust.certificate(shown.certificate).signatures)
    key = StateKey(namespace, tuple(components))
    (entry,) = trust.rows(reads.read_rows(rows), statement, [key])
    return entry, signers, committee.size


@lru_cache(maxsize=1)
def _committee(genesis: bytes) -> Committee:
    """Return the committee of a genesis file whose hash has been checked."""
    return genesis_file.decode(genesis).committee


class Tap(trio.abc.Stream):
    """A stream that also keeps everything that comes out of it."""

    def __init__(self, stream: trio.abc.Stream, kept: list[bytes]) -> None:
        self._stream = stream
        self._kept = kept

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, as the stream does."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait, as the stream does."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive, and keep a copy."""
        data = bytes(await self._stream.receive_some(max_bytes))
        self._kept.append(data)
        return data

    async def aclose(self) -> None:
        """Close, as the stream does."""
        await self._stream.aclose()


@dataclass(slots=True)
class Copies:
    """Keeps what a node sends to one client, which dials with ``dial``.

    Args:
        inner: opens the streams.
    """

    inner: Dial = dial_tls
    kept: list[bytes] = field(default_factory=list)

    async def dial(self, server: Server) -> trio.abc.Stream:
        """Return a stream to a server, tapped."""
        return Tap(await self.inner(server), self.kept)

    def paper(self, client: Client, genesis: bytes, entry: Entry) -> Paper:
        """Make the file of an entry that the client has just read and verified."""
        splitter = protocol.FrameSplitter(protocol.ANSWER_BYTES_MAX)
        messages = [answers.decode_answer(each) for each in splitter.feed(b"".join(self.kept))]
        trust = Trust(client.chain, client.genesis.committee)
        statement: Value = None
        for each in messages:
            if each.status != Status.EVENT or each.result[0] != Event.STATEMENT:
                continue
            if trust.statement(answers.read_statement(each.result)).height == entry.height:
                statement = each.result
        rows = [each.result for each in messages if each.status == Status.OK][-1]
        return Paper(genesis, statement, entry.key, rows)


async def portable(story: Story, cast: Cast, case: Case) -> None:
    """Read an entitlement with its proof, check the file elsewhere, then tampered copies of it."""
    story.scene(
        "6. An auditor checks a record against the genesis hash alone",
        "6. A file proves a record to whoever knows the genesis hash; changed, it proves nothing",
    )
    folder = cast.network.folder
    paper, read = await _keep(cast, case)
    chain = genesis_file.chain_id(paper.genesis)
    file, tampered = folder / FILE_NAME, folder / TAMPERED_NAME
    data = paper.encode()
    file.write_bytes(data)
    monthly = read.fields["monthly"]
    story.tell(
        "the auditor reads the entitlement at the Integrity Office's node; what the node sent is "
        f"kept in {file} ({len(data):,} bytes, most of them the genesis file)"
    )
    status, said = await _elsewhere(file, chain)
    story.claim(
        f"another process, given that file and the hash {chain.hex()[:16]}…, finds it proved",
        seen=status,
        expected=0,
    )
    entry, signers, size = check(chain, data)
    story.claim(
        f"{signers} of {size} agencies signed height {entry.height}, where the entitlement is "
        f"active and {money(monthly)} a month",
        seen=(signers >= size - (size - 1) // 3, entry.fields["status"], entry.fields["monthly"]),
        expected=(True, "active", monthly),
    )
    story.tell(f"it prints: {said}")
    forged = _with_monthly(paper, monthly + 100_00)
    tampered.write_bytes(forged.encode())
    status, said = await _elsewhere(tampered, chain)
    story.claim(
        f"a copy that says {money(monthly + 100_00)} ({tampered.name}) is refused: that is not "
        "what the state holds",
        seen=(status, "is not what the state holds" in said),
        expected=(1, True),
    )
    own = replace(paper, genesis=_own_genesis(paper.genesis))
    story.claim(
        "one that brings a committee of its own in another genesis file is refused",
        seen=_refusal(chain, own.encode()),
        expected="the genesis file inside is not the one with this hash",
    )
    places = _outside(data, paper.genesis)
    accepted = await trio.to_thread.run_sync(_changed_unnoticed, chain, data, places)
    story.claim(
        f"of {len(places):,} copies, each with another byte of statement, record or proof changed, "
        "none is accepted",
        seen=accepted,
        expected=[],
    )
    story.figure(f"{len(places):,} bytes of statement, record and proof; every one of them matters")


async def _keep(cast: Cast, case: Case) -> tuple[Paper, Entry]:
    genesis = cast.network.genesis
    copies = Copies()
    key = cast.network.key("integrity", "auditor")
    async with Client.connect(
        genesis, servers=["integrity"], key=key, patience_seconds=SECONDS_MAX, dial=copies.dial
    ) as client:
        entry = await client.get("record", "entitlement", case.household.child.token)
        return copies.paper(client, genesis, entry), entry


async def _elsewhere(file: Path, chain: bytes) -> tuple[int, str]:
    """Check a file in a process of its own; return its exit status and what it says."""
    with trio.fail_after(SECONDS_MAX):
        done = await trio.run_process(
            [sys.executable, "-m", "scripts.demo_parts.evidence", str(file), chain.hex()],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            cwd=ROOT,
        )
    return done.returncode, (done.stdout or done.stderr).decode(errors="replace").strip()


def _with_monthly(paper: Paper, cents: int) -> Paper:
    """Return a copy that says another amount and leaves every hash as it was."""
    rows: Any = codec.parse(codec.encode(paper.rows))
    for leaf in rows[1][0][2]:
        if leaf[0] == "monthly":
            leaf[3] = codec.encode(cents)
    return replace(paper, rows=rows)


def _own_genesis(genesis: bytes) -> bytes:
    """Return the genesis of another network with the same members under the same keys."""
    return replace(genesis_file.decode(genesis), network="another").encode()


def _refusal(chain: bytes, data: bytes) -> str:
    try:
        check(chain, data)
    except ComityError as error:
        return error.message
    return ""


def _outside(data: bytes, genesis: bytes) -> list[int]:
    """Return the positions in a file outside its copy of the genesis file."""
    begin = data.index(genesis)
    return [*range(begin), *range(begin + len(genesis), len(data))]


def _changed_unnoticed(chain: bytes, data: bytes, places: Sequence[int]) -> list[int]:
    """Return the positions where a changed byte is not noticed."""
    found = []
    for position in places:
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        if not _refusal(chain, bytes(changed)):
            found.append(position)
    return found


def main(arguments: list[str]) -> int:
    """Check a file against a genesis hash; 0 if it proves its record."""
    if len(arguments) != 2:
        print("usage: python -m scripts.demo_parts.evidence FILE HASH", file=sys.stderr)
        return 2
    try:
        chain = bytes.fromhex(arguments[1])
        entry, signers, size = check(chain, Path(arguments[0]).read_bytes())
    except ComityError as error:
        print(f"refused: {error.message}")
        return 1
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    fields = {name: each for name, each in entry.fields.items() if isinstance(each, int | str)}
    told = ", ".join(f"{name} {value}" for name, value in fields.items() if name != HOLDS)
    print(f"proved: version {entry.version} at height {entry.height}, {signers} of {size}: {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
