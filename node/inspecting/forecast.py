"""What a start would do with a stopped node's data: begin, replay, vote or not, and why.

It follows the order in which a start looks at things (``engine``, ``opening``, ``signer``); tests
start nodes on the same data and compare. What only a running network can tell is not here: what
peers have signed by this key that the data does not know (``node.promises``), and what a signer in
another process remembers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from consensus.committee import Committee
from consensus.genesis import EPOCH
from consensus.hotstuff.events import FOLLOWER
from consensus.hotstuff.types import Block, CommitCert, SafetyRecord
from node.identity import Own
from node.inspecting.promises import MarkReport
from node.inspecting.segments import HEADER_DAMAGED, LogReport
from node.signer import Slot


@dataclass(frozen=True, slots=True)
class Node:
    """What the configuration says: who it is, and how it is to run. ``remote``: a signer's socket.

    ``unknown`` are words about a key file that cannot be read.
    """

    own: Own
    votes: bool
    role: str
    remote: str
    unknown: str


@dataclass(frozen=True, slots=True)
class Logged:
    """What of the log counts for a start."""

    record: SafetyRecord | None
    blocks: Mapping[bytes, Block]
    certificate: CommitCert | None
    """The newest above the store."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a start would do.

    Args:
        starts: whether it would; if not, ``code`` and ``why`` are the error's.
        votes: None where another process decides, or the configuration was not named.
        why: in words.
        cuts_bytes: of a torn tail.
        replay: ``[from, to]`` heights that are executed again from the log; None: none.
        certified: up to which of them a certificate is there.
        notes: what else happens.
    """

    starts: bool
    votes: bool | None
    code: str
    why: str
    cuts_bytes: int
    replay: list[int] | None
    certified: int | None
    notes: list[str]


def forecast(
    store: Mapping[str, Any],
    log: LogReport,
    logged: Logged,
    marks: Sequence[MarkReport],
    committees: Sequence[Committee],
    node: Node | None,
    chain: bytes,
    notes: list[str],
    refusal: tuple[str, str] | None,
) -> Forecast:
    """Return what a start would do.

    Args:
        committees: of all epochs up to the store's.
        node: None where no configuration was named.
        refusal: what stands in the way before the data is opened.
    """
    height = store.get("height")
    replay, certified = _replay(store, logged)
    notes = list(notes)

    def said(starts: bool, votes: bool | None, why: str, code: str = "") -> Forecast:
        cuts = log.torn_bytes if starts else 0
        again = replay if starts else None
        return Forecast(starts, votes, code, why, cuts, again, certified if again else None, notes)

    def no(code: str, why: str) -> Forecast:
        return said(False, False, why, code)

    if refusal is not None:
        return no(*refusal)
    if store.get("problem"):
        return no(*store["problem"])
    for part, other in (("store", bytes.fromhex(store.get("chain", ""))), ("log", log.chain)):
        if chain and other and other != chain:
            return no("FOREIGN_DATA", f"the {part} belongs to the network 0x{other.hex()}")
    if log.other_segments:
        return no("FOREIGN_DATA", f"{log.other_segments[0]} belongs to another log or network")
    if log.problem is not None:
        return no(*log.problem)
    if log.damage:
        headers = [each for each in log.damage if each.what == HEADER_DAMAGED]
        first = (headers or log.damage)[0]  # a start reads all headers before any entry
        said_ = f"the log is damaged at offset {first.offset} in {first.segment}: {first.what}"
        return no("LOG_DAMAGED", said_)
    if height is None and not log.present:
        notes.append("the data folder is new: the state of the genesis file is founded")
    elif height is None:
        notes.append("the store is empty: it is founded again, and what it held taken from peers")
    if node is None:
        return said(True, None, "name the node's configuration to learn whether it would vote")
    return _voting(said, no, store, log, logged, marks, committees, node, notes)


def _voting(
    said: Callable[..., Forecast],
    no: Callable[[str, str], Forecast],
    store: Mapping[str, Any],
    log: LogReport,
    logged: Logged,
    marks: Sequence[MarkReport],
    committees: Sequence[Committee],
    node: Node,
    notes: list[str],
) -> Forecast:
    if node.unknown:
        return no("KEY_ACCESS", node.unknown)
    committee = committees[-1]
    place = node.own.place(committee)
    if place == FOLLOWER:
        return said(True, False, _placeless(node, committee))
    row = committee.validators[place]
    if not node.votes:
        return said(True, False, "votes = false in the configuration")
    record = store.get("restored")
    if record is not None and row.key.hex() in record["keys"]:
        why = f"restored from a backup at height {record['height']}: this key does not vote here"
        return said(True, False, why)
    seat = f"as {row.agency}, validator {place} of epoch {committee.epoch}"
    if node.remote:
        why = f"{seat}, if the signer at {node.remote} has signed for this log and no other"
        return said(True, None, why)
    refused = _refusal(log, logged, marks, committees, row.key, store)
    if refused is not None:
        return no(*refused)
    if not any(each.key == row.key for each in marks):
        notes.append("the key has no mark yet: it gets one, and has signed nothing before")
    return said(True, True, seat)


def _placeless(node: Node, committee: Committee) -> str:
    if node.role == "observer":
        return "an observer"
    row = next((each for each in committee.validators if each.agency == node.own.agency), None)
    if row is None:
        return f"{node.own.agency} has no vote in epoch {committee.epoch}"
    if row.key not in node.own.keys:
        return f"{node.own.agency} votes by another key in epoch {committee.epoch}"
    return f"the node key that epoch {committee.epoch} names for {node.own.agency} is not held here"


def _refusal(
    log: LogReport,
    logged: Logged,
    marks: Sequence[MarkReport],
    committees: Sequence[Committee],
    key: bytes,
    store: Mapping[str, Any],
) -> tuple[str, str] | None:
    """Return code and words of why the signer would not open, or the log not be believed."""
    name = mark_name(committees[0], key)
    mark = next((each for each in marks if each.file == name), None)
    if mark is None:
        fresh = (store.get("height") or 0) <= 0 and log.start == 0 and logged.record is None
        before = committees[:-1]
        used = any(row.key == key for each in before for row in each.validators)
        signed = _signed(logged.record, committees[-1].epoch)
        if fresh or (bool(before) and not used and not signed):
            return None
        return "PROMISES_LOST", (
            f"there is no mark {name}, although this node has data: what its key signed is not "
            "known"
        )
    if mark.problem is not None:
        return mark.problem
    if mark.key != key:
        return "FOREIGN_DATA", "the signer's mark belongs to another key"
    if mark.chain != (log.chain or mark.chain):
        return "FOREIGN_DATA", "the signer's mark belongs to another network"
    lost = (
        f"the log ended at {log.end}, but {mark.log_synced} was on disk when this key last signed"
    )
    if mark.signed and mark.log_identity != log.identity:
        why = "the log is not the one that this key signed with: a new or another log"
        return "PROMISES_LOST", why
    if mark.lost or (mark.signed and log.end < mark.log_synced):
        return "PROMISES_LOST", lost
    current = current_slot(logged.record, committees[-1].epoch)
    ahead = [slot for slot in mark.signed.values() if slot > current]
    if ahead:
        said = f"the log ends in round {current[1]}, but this key signed in round {ahead[0][1]}"
        return "PROMISES_LOST", said
    return None


def mark_name(founded: Committee, key: bytes) -> str:
    """Return the file name of the mark of a key (``opening.mark_path``)."""
    if any(row.key == key for row in founded.validators):
        return "signer.mark"
    return f"signer-{key.hex()[:16]}.mark"


def current_slot(record: SafetyRecord | None, epoch: int) -> Slot:
    """Return the epoch and round that the log's record speaks of, once an epoch has been begun."""
    if epoch > EPOCH and (record is None or record.epoch < epoch):
        return epoch, 1
    return (0, 0) if record is None else (record.epoch, record.entry_cert.round + 1)


def _signed(record: SafetyRecord | None, epoch: int) -> bool:
    if record is None or record.epoch != epoch:
        return False
    messages = (record.last_vote, record.last_timeout, record.last_proposal)
    return bool(record.commit_votes) or any(each is not None for each in messages)


def _replay(store: Mapping[str, Any], logged: Logged) -> tuple[list[int] | None, int | None]:
    """Return the heights that the log brings above the store, and up to which they are certified.

    What was ordered last is reached from the highest quorum certificate of the record.
    """
    height, tip = store.get("height"), bytes.fromhex(store.get("tip", ""))
    if height is None or logged.record is None:
        return None, None
    certificate = logged.certificate
    ends = [logged.record.high_qc.block_id]
    if certificate is not None:
        ends.append(certificate.statement.block_id)
    chains = [_chain(logged.blocks, each, tip) for each in ends]
    top = max((chain[-1].height for chain in chains if chain), default=height)
    certified = None
    if certificate is not None and chains[-1]:
        certified = certificate.statement.height
    return ([height + 1, top] if top > height else None), certified


def _chain(blocks: Mapping[bytes, Block], top: bytes, tip: bytes) -> list[Block]:
    """Return the blocks above ``tip`` up to ``top``, ascending; none if they do not join."""
    found: list[Block] = []
    wanted = top
    while wanted != tip:
        block = blocks.get(wanted)
        if block is None:
            return []
        found.append(block)
        wanted = block.parent_id
    return found[::-1]
