"""What a node begins with: its founded state, its stored tip, and what its log still promises.

Not here: opening the files (``node.storage.recovery``), and running (``runtime``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from consensus import codec
from consensus.committee import Committee
from consensus.genesis import Genesis
from consensus.hotstuff import wire
from consensus.hotstuff.events import (
    NEVER,
    CertifiedTip,
    RecoveredState,
    ReplicaConfig,
)
from consensus.hotstuff.execution import statement_of
from consensus.hotstuff.replica import Replica
from consensus.hotstuff.types import (
    Block,
    SignKind,
    epoch_of_number,
    first_record,
    next_record,
    number_before,
)
from consensus.keyfile import KeyPair
from consensus.ledger import batch as formats
from consensus.ledger.genesis_state import first_result, genesis_state
from consensus.ledger.layout import Paths
from consensus.state.history import HistoryTree
from consensus.state.state import State
from node import checked
from node.checked import CheckedBatch
from node.config import TuningSection
from node.epochs import Ended
from node.errors import PromisesLostError
from node.flushing import META_NUMBERS
from node.identity import Identity, chosen
from node.listed import index_entries
from node.mempool import Busy, Mempool
from node.remote_signer import RemoteKey
from node.signer import SignedBody, Signer
from node.silent import SilentSigner
from node.storage import kinds
from node.storage.disk import Disk
from node.storage.flush import BlockData, FlushBatch
from node.storage.recovery import Recovered, open_signer
from node.storage.store import Store

MARK_FILE: Final = "signer.mark"


class StoreNodes:
    """The history tree's nodes in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def node(self, level: int, index: int) -> bytes | None:
        """Return a node's hash, or None when it is not kept."""
        return self._store.view.history(level, index)


def found(store: Store, identity: Identity) -> None:
    """Write the state that the genesis file founds into an empty store."""
    first = identity.first_block
    state = State(store.state, identity.genesis.tree_depth, -1)
    history = HistoryTree(StoreNodes(store))
    applied = state.apply(genesis_state(identity.genesis))
    statement = statement_of(identity.chain, first, first_result(applied, history.root()))
    history.append(statement.hash)
    block = codec.encode([wire.encode_block(first), statement.encode()])
    rows = state.pending(0)
    store.write(
        FlushBatch(
            height=0,
            rows=rows,
            index=index_entries(rows, lambda kh: False, Paths(identity.chain)),
            blocks=[
                BlockData(
                    0,
                    block,
                    codec.encode([]),
                    b"".join(applied.changes),
                    None,
                    [],
                    [],
                    applied.rows,
                )
            ],
            history=[(level, index, node) for (level, index), node in history.pending(0)],
            meta=[(META_NUMBERS, codec.encode([0] * identity.committee.size))],
        )
    )


def refuse_rollback(recovered: Recovered, signer: Signer) -> None:
    """Refuse to vote with a log older than what this key has signed.

    Raises:
        PromisesLostError: the signer's mark tells of a round that the log does not.
    """
    safety = recovered.found.safety
    current = (0, 0)
    if safety is not None:
        record = wire.decode_record(safety)
        current = record.epoch, record.entry_cert.round + 1
    lost = signer.recovered_bodies(dict.fromkeys(SignKind, current))
    if lost:
        raise PromisesLostError(
            f"the log ends in round {current[1]}, but this key signed in round {lost[0].round}"
        )


def signer_of(
    recovered: Recovered,
    keys: Sequence[KeyPair | RemoteKey],
    identity: Identity,
    folder: Path,
    disk: Disk,
    remote: Callable[[RemoteKey], Signer],
) -> Signer:
    """Return the signer of the key that the epoch's committee names; a silent one without a vote.

    A key of the first committee has its mark from the first start on. A later one gets it when its
    first epoch begins here: until then this node followed, and signed nothing. ``remote`` makes the
    signer of a key that another process holds.

    Raises:
        SignerError, StorageError: as ``open_signer``.
    """
    key = chosen(keys, identity)
    if key is None:
        return SilentSigner(None, identity.chain)
    if isinstance(key, RemoteKey):
        return remote(key)  # whose mark is with the key
    before = identity.committees[:-1]
    used = any(row.key == key.public for committee in before for row in committee.validators)
    epoch = identity.committee.epoch
    signed = any(each.epoch == epoch for each in signed_bodies(recovered, identity.index))
    first = bool(before) and not used and not signed
    mark = mark_path(folder, identity.genesis, key)
    return open_signer(recovered, key, mark, chain=identity.chain, disk=disk, first=first)


def mark_path(folder: Path, genesis: Genesis, key: KeyPair) -> Path:
    """Return where the mark of a key lies: each key has one of its own."""
    if any(row.key == key.public for row in genesis.committee.validators):
        return folder / MARK_FILE
    return folder / f"signer-{key.public.hex()[:16]}.mark"


def signed_bodies(recovered: Recovered, own: int) -> list[SignedBody]:
    """Return what the log's safety record says that this key has signed.

    A commit vote is no part of the record any more once a certificate settles it, which may be in
    the very sync that was to make the vote durable; then the certificate alone tells of it.

    Args:
        own: place of the key in the epoch's committee, or ``FOLLOWER``.
    """
    if recovered.found.safety is None:
        return []
    record = wire.decode_record(recovered.found.safety)
    epoch, proposal = record.epoch, record.last_proposal
    bodies = [
        SignedBody(kind, epoch, message.round, message.body)
        for kind, message in (
            (SignKind.VOTE, record.last_vote),
            (SignKind.TIMEOUT, record.last_timeout),
            *((SignKind.COMMIT_VOTE, vote) for vote in record.commit_votes),
        )
        if message is not None
    ]
    if proposal is not None:
        block = proposal.block
        bodies.append(SignedBody(SignKind.PROPOSAL, epoch, block.round, block.id))
    settled = record.commit_cert
    if settled is not None and settled.statement.epoch == epoch and own in dict(settled.signatures):
        statement = settled.statement
        bodies.append(SignedBody(SignKind.COMMIT_VOTE, epoch, statement.round, statement.encoded))
    return bodies


def stored_tip(store: Store, first: Block) -> CertifiedTip:
    """Return the block of the store's height with the certificate on it."""
    view = store.view
    if view.height == 0:
        return CertifiedTip(first, None)
    block = wire.decode_block(codec.parse(view.block(view.height) or b"")[0])
    certificate = view.certificate(view.height)
    return CertifiedTip(
        block, None if certificate is None else wire.decode_commit_cert(certificate)
    )


def begin_epoch(recovered: Recovered, tip: CertifiedTip, ended: Sequence[Ended] = ()) -> None:
    """Make the first record of the store's epoch durable, if the log has none of it.

    The stored tip ended one, or the store was begun from a snapshot that is epochs ahead. Nothing
    has been signed in that epoch; what was promised in those that ended is settled.

    Args:
        ended: the ends of epochs that the store knows of.

    Raises:
        StorageFailedError: the log cannot be written.
    """
    found, log = recovered.found, recovered.log
    certificate = ended[-1].certificate if ended else None
    if tip.ends(tip.block.epoch):
        certificate = tip.commit_cert
    if certificate is None:
        return
    epoch = certificate.statement.epoch
    if found.safety is not None and wire.decode_record(found.safety).epoch > epoch:
        return
    record = wire.encode_record(next_record(certificate))
    log.append(*kinds.safety(record))
    log.sync()
    found.safety = record


def delivered_numbers(store: Store, committee: Committee, tip: CertifiedTip) -> list[int]:
    """Return, per origin of the epoch's committee, the highest batch number delivered."""
    if tip.ends(committee.epoch - 1):
        return [number_before(committee.epoch)] * committee.size
    return list(codec.parse(store.view.meta(META_NUMBERS) or b""))


def replica(
    recovered: Recovered,
    identity: Identity,
    tuning: TuningSection,
    tip: CertifiedTip,
    *,
    votes: bool = True,
) -> Replica:
    """Return the replica as its safety record and logged blocks leave it.

    A store that was begun from a snapshot may be ahead of the record. Rounds up to its certificate
    are settled, and whatever this key once signed in them: nothing more is signed there.
    """
    limits = identity.genesis.limits
    found = recovered.found
    first = identity.first_block
    record = first_record(first) if found.safety is None else wire.decode_record(found.safety)
    logged = [wire.decode_block(each.value.data) for each in found.blocks]
    blocks = tuple([block for block in logged if block.epoch == record.epoch])
    parameters = ReplicaConfig(
        identity.chain,
        timeout_base_ms=tuning.timeout_base_ms,
        timeout_max_ms=tuning.timeout_max_ms,
        heartbeat_ms=tuning.heartbeat_ms,
        payload_items_max=limits.payload_batches_max,
        payload_bytes_max=limits.payload_bytes_max,
    )
    silent_upto = 0 if votes else NEVER
    certified = None if tip.commit_cert is None else tip.commit_cert.statement
    same = certified is not None and certified.epoch == record.epoch
    if same and certified is not None and record.entry_cert.round < certified.round:
        silent_upto = max(silent_upto, certified.round)
    return Replica(
        parameters,
        identity.committee,
        identity.index,
        RecoveredState(record, tip, blocks, silent_upto),
    )


def by_epoch(
    batches: Sequence[CheckedBatch], identity: Identity
) -> tuple[list[CheckedBatch], list[CheckedBatch]]:
    """Return the batches of this epoch, and this agency's own of earlier ones.

    The latter were logged, and ordered at most: what they hold goes into new batches.
    """
    own = {epoch: identity.index_in(epoch) for epoch in range(1, identity.committee.epoch)}
    current: list[CheckedBatch] = []
    earlier: list[CheckedBatch] = []
    for batch in batches:
        epoch = epoch_of_number(batch.number)
        if epoch == identity.committee.epoch:
            current.append(batch)
        elif batch.origin == own.get(epoch):
            earlier.append(batch)
    return current, earlier


def batch_again(
    earlier: Sequence[CheckedBatch],
    pool: Mempool,
    identity: Identity,
    is_decided: Callable[[bytes], bool],
    now_ms: int,
) -> None:
    """Put what own batches of earlier epochs hold back into the pool, as it came from clients.

    Args:
        is_decided: of a txid; the log holds such batches until it begins a new segment, and by then
            what they hold may long have gone into others.
    """
    for batch in earlier:
        decoded = formats.decode(
            identity.chain, batch.public, batch.private, identity.genesis.limits
        )
        for item in decoded.items:
            if all(is_decided(each.txid) for each in item.transactions):
                continue
            with suppress(Busy):  # whoever sent it does so again
                pool.add(item, now_ms)


def logged_batches(
    recovered: Recovered, chain: bytes, numbers: Sequence[int] | None = None
) -> list[CheckedBatch]:
    """Return the batches of the log that no flushed block contains.

    Args:
        numbers: per origin, the highest number delivered. A store that was begun from a snapshot
            does not know the batches before it; then those up to here count as delivered, and all
            of earlier epochs.
    """
    begun = recovered.store.view.block(0) is None
    found, log = recovered.found, recovered.log
    batches = []
    for digest, offset in found.batches.items():
        public, private = log.read(offset), log.read(found.private.get(digest, -1))
        if public is not None and private is not None:
            parts = [kinds.BatchPart.unpack(payload).data for _, payload in (public, private)]
            batch = checked.from_log(chain, *parts)
            if not (begun and numbers and _is_delivered(batch, numbers)):
                batches.append(batch)
    return batches


def _is_delivered(batch: CheckedBatch, numbers: Sequence[int]) -> bool:
    if epoch_of_number(batch.number) < epoch_of_number(max(numbers) + 1):
        return True
    return batch.number <= numbers[batch.origin]
