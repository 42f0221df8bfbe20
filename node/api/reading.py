"""Requests that read: which keys to prove, and results from what the backend found.

Pure apart from the backend. Not here: whether the caller may (``access``), and the order in which
evidence and answers leave (``connection``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from consensus import answers, codec, reads
from consensus.answers import DecisionAnswer, HeightDecisions
from consensus.errors import DecodeError
from consensus.ledger import layout
from consensus.ledger.attached import ATTACHED, cut_attached, split_attached
from consensus.ledger.private import private_salts, seed_hash, slot
from consensus.ledger.proposals import SPACE
from consensus.ledger.transaction import Transaction
from consensus.protocol import (
    ANSWER_BYTES_MAX,
    Get,
    GetHolds,
    GetIndex,
    GetProposal,
    GetRules,
    StateKey,
    Status,
)
from consensus.reads import DraftText, RecordRow, Row, RuleText, ShownLeaf, SingleRow
from consensus.state import record, salted
from consensus.state.merkle import RESULTS
from node.api.backend import ApiBackend, CertifiedBlock, Place, ProvedRows, RowReader, Select

Proving = Get | GetHolds | GetIndex | GetRules | GetProposal
ANSWER_BYTES_SPARE: Final = 4096
HOLDS_SHOWN_MAX: Final = (reads.ROWS_MAX - 1) // 2
"""A target with more holds than this is answered with its count leaf alone."""


class CannotAnswer(Exception):
    """A request that gets an error answer."""

    def __init__(self, status: Status, message: str, hint: str = "", retry_ms: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.problem = answers.Problem(status.name, message, hint, retry_ms)


def selection(request: Proving) -> Select:
    """Return which keys a request proves, in the order that clients derive too."""
    match request:
        case Get(_, keys):
            return lambda read: keys
        case GetHolds(_, target):
            return lambda read: _holds_keys(target, read)
        case GetIndex():
            return lambda read: _index_keys(request, read)
        case GetRules(_, domain, 0):
            return lambda read: _rules_keys(domain, read)
        case GetRules(_, domain, number):
            place = (domain, number)
            named = (StateKey("rules", place), StateKey("rules", (*place, layout.ADOPTION)))
            return lambda read: named
        case GetProposal(_, txid):
            return lambda read: [StateKey(SPACE, (txid,))]


def keys_of(request: Proving) -> int:
    """Return about how many keys a request proves: of those that do not say it, few or 128."""
    match request:
        case Get(_, keys):
            return len(keys)
        case GetIndex(limit=limit):
            return 1 + limit
    return 128 if isinstance(request, GetHolds) else 16


def _holds_keys(target: StateKey, read: RowReader) -> Sequence[StateKey]:
    place = (target.namespace, [*target.components])
    head = StateKey("holds", place)
    raw = read(head)
    if raw is None:
        return [head]
    count: int = _single_value(raw)[0]
    if count > HOLDS_SHOWN_MAX:
        return [head]
    positions = [StateKey("holds", (*place, position)) for position in range(count)]
    ids = [_single_value(raw)[0] for raw in map(read, positions) if raw is not None]
    return [head, *positions, *(StateKey("hold", (id_,)) for id_ in ids if id_ is not None)]


def _index_keys(request: GetIndex, read: RowReader) -> Sequence[StateKey]:
    place = (request.index, request.value)
    head = StateKey("index", place)
    raw = read(head)
    size: int = 0 if raw is None else _single_value(raw)[0]
    positions = range(request.first, min(request.first + request.limit, size))
    return [head, *(StateKey("index", (*place, position)) for position in positions)]


def _rules_keys(domain: str | None, read: RowReader) -> Sequence[StateKey]:
    root = StateKey("rules", ())
    if domain is None:
        raw = read(root)
        domains = [] if raw is None else _single_value(raw)
    else:
        domains = [domain]
    keys = [root]
    for name in domains:
        head = StateKey("rules", (name,))
        keys.append(head)
        raw = read(head)
        if raw is None:
            continue
        for number, _ in layout.RulesHead(*_single_value(raw)).active:
            keys.append(StateKey("rules", (name, number)))
    return keys[: reads.ROWS_MAX]


def _single_value(raw: bytes) -> codec.Value:
    return codec.parse(record.decode_single(raw)[2], "row")


def rows_answer(
    proved: ProvedRows, closes_holds: Callable[[StateKey], bool] = lambda key: False
) -> reads.Rows:
    """Return the rows of an answer, as clients get them.

    Args:
        closes_holds: says of a record whether it is shown without its holds.
    """
    rows = [
        row_shown(key, raw, closes_holds) for key, raw in zip(proved.keys, proved.rows, strict=True)
    ]
    return reads.Rows(proved.height, tuple(rows), proved.proof)


def row_shown(
    key: StateKey, raw: bytes | None, closes_holds: Callable[[StateKey], bool]
) -> Row | None:
    """Return a row as clients get it; of a record perhaps without its holds."""
    row = _row(key, raw)
    return _without_holds(row) if isinstance(row, RecordRow) and closes_holds(key) else row


def rules_answer(proved: ProvedRows) -> reads.Rules:
    """Return the rows of rule sets, and the rule sets that lie beside them in the store."""
    sets = tuple(
        RuleText(key.components[0], key.components[1], split_attached(raw)[1])
        for key, raw in zip(proved.keys, proved.rows, strict=True)
        if _is_rule_set(key) and raw is not None
    )
    return reads.Rules(rows_answer(proved), sets)


def _is_rule_set(key: StateKey) -> bool:
    return key.namespace == "rules" and len(key.components) == 2


def _single(raw: bytes) -> bytes:
    """Return the row of a single leaf, without what lies beside it in the store."""
    return cut_attached(raw)[0] if raw[0] == ATTACHED else raw


def _without_holds(row: RecordRow) -> RecordRow:
    """Return a record's row with its leaf of holds closed."""
    leaves = tuple(
        ShownLeaf(leaf.name, leaf.version, hidden=salted.value_hash(leaf.salt, leaf.value))
        if leaf.name == record.HOLDS and leaf.salt is not None and leaf.value is not None
        else leaf
        for leaf in row.leaves
    )
    return replace(row, leaves=leaves)


def _row(key: StateKey, raw: bytes | None) -> Row | None:
    if raw is None:
        return None
    if key.namespace != "record":
        version, salt, value = record.decode_single(_single(raw))
        return SingleRow(version, salt, value)
    found = record.decode_row(raw)
    leaves = tuple(
        ShownLeaf(leaf.name, leaf.version, leaf.salt, leaf.value_cbor) for leaf in found.leaves
    )
    size = 32
    decoys = tuple(found.decoys[at : at + size] for at in range(0, len(found.decoys), size))
    return RecordRow(found.header, leaves, decoys)


def evidence_of(backend: ApiBackend, height: int) -> answers.StatementEvidence:
    """Return what proves the statement of a height.

    Raises:
        CannotAnswer: it is not kept here.
    """
    found = backend.evidence(height)
    if found is None and height >= backend.height:
        raise CannotAnswer(
            Status.UNAVAILABLE, f"no certificate vouches for height {height} yet", "", 200
        )
    if found is None:
        raise CannotAnswer(Status.NOT_FOUND, f"the statement of height {height} is not kept here")
    return found


def path_of(block: CertifiedBlock, index: int) -> list[bytes]:
    """Return the siblings that lead one decision to the block's results_root."""
    return RESULTS.path(block.roots, index)


Show = Callable[[bytes], bytes]
"""Turns an encoded decision into what somebody may see of it."""


def decision_answer(block: CertifiedBlock, place: Place, show: Show) -> DecisionAnswer:
    """Return one decision of a block with its path."""
    path = tuple(path_of(block, place.index))
    decision = show(block.decisions[place.index])
    return DecisionAnswer(block.height, len(block.roots), path, place.index, decision)


def heights(backend: ApiBackend, first: int, count: int) -> range:
    """Return the certified heights asked for; a negative ``first`` counts back from the newest."""
    newest = backend.height
    start = max(0, newest + 1 + first) if first < 0 else first
    return range(start, min(start + count, newest + 1))


def decisions_answer(
    backend: ApiBackend,
    wanted: range,
    bytes_max: int,
    note: Callable[[CertifiedBlock], None],
    show: Show,
) -> list[HeightDecisions]:
    """Return the decisions of as many wanted heights as fit; ``note`` gets each block first.

    Raises:
        CannotAnswer: a height is no longer kept, or the first alone is too large.
    """
    out: list[HeightDecisions] = []
    room = bytes_max - ANSWER_BYTES_SPARE
    for height in wanted:
        block = backend.block(height)
        if block is None:
            raise CannotAnswer(
                Status.NOT_FOUND, f"the decisions of height {height} are not kept here"
            )
        room -= sum(map(len, block.decisions)) + 16 * len(block.decisions)
        if room < 0:
            break
        note(block)
        out.append(HeightDecisions(height, tuple(map(show, block.decisions))))
    if wanted and not out:
        raise CannotAnswer(
            Status.UNAVAILABLE,
            f"the decisions of height {wanted[0]} do not fit into one answer",
            "ask for each by its transaction id",
        )
    return out


def decisions_at(
    backend: ApiBackend, height: int, show: Show
) -> tuple[tuple[bytes, ...], CertifiedBlock]:
    """Return the decisions of a height as they are shown, and its block as it is.

    Raises:
        CannotAnswer: it is no longer kept, or too large.
    """
    blocks: list[CertifiedBlock] = []
    (found,) = decisions_answer(
        backend, range(height, height + 1), ANSWER_BYTES_MAX, blocks.append, show
    )
    return found.decisions, blocks[0]


def draft_text(chain: bytes, draft: Transaction) -> DraftText:
    """Return what a proposal would do as clients get it: without the seed."""
    kh = slot(chain, draft.author, draft.sequence)
    salts = private_salts(kh, draft.seed, len(draft.openings))
    return DraftText(draft.body, seed_hash(draft.seed), tuple(salts), draft.openings)


def sender_is_author(data: bytes, sender: bytes) -> bool:
    """Return whether an envelope's body names ``sender`` as author; False if it is unreadable."""
    try:
        envelope = codec.parse(data, "envelope")
        if type(envelope) is not list or not envelope or type(envelope[0]) is not bytes:
            return False
        body = codec.parse(envelope[0], "body")
    except DecodeError:
        return False
    return type(body) is list and len(body) > 1 and body[1] == sender
