"""The promises, watched from outside: what nodes send, sign and deliver, judged by own arithmetic.

Nothing here asks the code under test for its opinion. What ought to be durable is looked up on the
simulated disk; certificates are counted here; the certified chain is executed again (``replay``).
"""

from __future__ import annotations

from collections.abc import Callable

from consensus import codec, signing
from consensus.hotstuff import events as ev
from consensus.hotstuff.types import (
    Block,
    Certificates,
    CommitCert,
    CommitVote,
    Message,
    Proposal,
    QuorumCert,
    SignKind,
    Statement,
    Timeout,
    TimeoutCert,
    Vote,
    epoch_of,
)
from tests.sim.disk import Disk, read_record
from tests.sim.epochs import Committees, Roster
from tests.sim.errors import require
from tests.sim.founding import Founded
from tests.sim.keys import Keys
from tests.sim.marks import Marks
from tests.sim.options import Options

Certificate = QuorumCert | TimeoutCert | CommitCert
Slot = tuple[int, SignKind, int, int]
"""Validator, kind, epoch, round."""


class Watch:
    """What all nodes have done.

    Args:
        is_down: whether a machine is off.
        ignore: promises not to be judged, to see whether the others notice.
    """

    def __init__(
        self,
        options: Options,
        founded: Founded,
        committees: Committees,
        keys: Keys,
        marks: Marks,
        is_down: Callable[[int], bool],
        ignore: tuple[str, ...] = (),
    ) -> None:
        self._options = options
        self._founded = founded
        self._committees = committees
        self._keys = keys
        self._marks = marks
        self._ignore = ignore
        self._is_down = is_down
        self._slots: dict[Slot, bytes] = {}
        self._timeouts: dict[tuple[int, int], dict[int, int]] = {}
        """By machine and epoch: the round that a timeout of each round reported."""
        self._voters: dict[bytes, set[int]] = {}
        self._proposed: dict[bytes, Block] = {}
        self._tips: list[tuple[int, bytes]] = [(0, founded.first.id)] * options.machines
        self._reached = [0] * options.machines
        self.epochs = {1: Roster(founded.committee)}
        """Who votes in each epoch, as certified."""
        self._certificates: dict[int, CommitCert] = {}
        self.chain: dict[int, Block] = {0: founded.first}
        """What was delivered, by height, whoever was first."""
        self.statements: dict[int, Statement] = {}
        """What the first who delivered a height had executed it to."""

    def _require(self, condition: bool, promise: str, what: str) -> None:
        if promise not in self._ignore:
            require(condition, promise, what)

    @property
    def newest(self) -> Roster:
        """Who votes in the newest epoch."""
        return self.epochs[max(self.epochs)]

    # --- signatures ---------------------------------------------------------------------------

    def signed(self, index: int, request: ev.Sign, disk: Disk) -> None:
        """A signature was made; it may still be forgotten."""
        where = f"node {index}, {request.kind.name} of epoch {request.epoch}"
        self._require(
            request.epoch == disk.epoch, "an epoch begins on disk", f"{where}, disk: {disk.epoch}"
        )
        roster = self.epochs[request.epoch]
        self._require(index in roster.machines, "members alone sign", where)
        joined = request.epoch > 1 and index not in self.epochs[request.epoch - 1].machines
        if joined and request.kind is SignKind.VOTE:
            self._marks.reach("a new member voted")
        if request.kind is SignKind.VOTE:
            block_id = codec.parse(request.body)[2]
            self._voters.setdefault(block_id, set()).add(index)

    def lies(self, index: int, message: Message) -> None:
        """A traitor says something: it counts as said, and is not judged."""
        if epoch_of(message) > 1:
            self._marks.reach("a traitor lied in a later epoch")
        match message:
            case Proposal(block):
                self._proposed[block.id] = block
            case Vote():
                self._voters.setdefault(message.block_id, set()).add(index)
            case _:
                pass

    def evidence(self, index: int, kind: ev.EvidenceKind, message: Message) -> None:
        """A node holds two messages against a validator, which must be a traitor."""
        self._marks.reach(kind.value)
        roster = self.epochs[epoch_of(message)]
        match message:
            case Proposal(block):
                culprit: int | None = roster.at(roster.committee.leader(block.round))
            case Vote() | Timeout() | CommitVote():
                culprit = roster.at(message.validator)
            case _:
                culprit = None
        guilty = culprit in self._options.traitors
        guilty = guilty and kind is not ev.EvidenceKind.RESULTS_DISAGREE
        self._require(guilty, "no evidence among the honest", f"node {index}: {kind.value}")

    def sends(self, index: int, message: Message, disk: Disk) -> None:
        """A message leaves a machine: what it promises must be durable there, and its only one."""
        if index in self._options.traitors:
            return
        match message:
            case Proposal(block):
                self._proposed[block.id] = block
                self._slot(index, SignKind.PROPOSAL, block.epoch, block.round, block.id)
            case Vote(epoch):
                fresh = (index, SignKind.VOTE, epoch, message.round) not in self._slots
                given_up = max(self._given_up(index, epoch), default=0) >= message.round
                self._require(
                    not (fresh and given_up),
                    "no vote after the timeout of its round",
                    f"node {index}, round {message.round}",
                )
                self._slot(index, SignKind.VOTE, epoch, message.round, message.body)
            case Timeout(epoch):
                self._slot(index, SignKind.TIMEOUT, epoch, message.round, message.body)
                self._given_up(index, epoch)[message.round] = message.high_round
            case CommitVote(statement):
                self._slot(
                    index, SignKind.COMMIT_VOTE, statement.epoch, message.round, message.body
                )
                self._commit_promise(index, statement)
            case Certificates():
                self.shows(index, message, disk)
                return
            case _:
                return
        self._durable(index, message, disk)

    def shows(self, index: int, certificates: Certificates, disk: Disk) -> None:
        """Certificates leave a machine, in a hello too: its own signatures in them are durable."""
        if index in self._options.traitors:
            return
        for certificate in _present(certificates):
            said = certificate.statement if isinstance(certificate, CommitCert) else certificate
            epoch = said.epoch
            own = self.epochs[epoch].own(index)
            ended = epoch < disk.epoch  # what was signed in it is in the store
            message = None if ended else _signed_by(own, certificate)
            if message is not None:
                self._durable(index, message, disk)

    def _given_up(self, index: int, epoch: int) -> dict[int, int]:
        return self._timeouts.setdefault((index, epoch), {})

    def _slot(self, index: int, kind: SignKind, epoch: int, round_: int, body: bytes) -> None:
        first = self._slots.setdefault((index, kind, epoch, round_), body)
        where = f"node {index}, {kind.name} of round {epoch}/{round_}"
        self._require(first == body, "one signature a slot", where)

    def _durable(self, index: int, message: Message, disk: Disk) -> None:
        promise = "durable before sent"
        if promise in self._ignore:
            return
        where = f"node {index}, {type(message).__name__}"
        self._require(disk.record is not None, promise, f"{where}: no record")
        record = read_record(disk.record or b"")
        self._require(epoch_of(message) == record.epoch, promise, f"{where} of another epoch")
        commit = 0
        if record.commit_cert is not None and record.commit_cert.statement.epoch == record.epoch:
            commit = record.commit_cert.statement.round
        match message:
            case Proposal(block):
                own = record.last_proposal
                kept = own is not None and own.block.id == block.id
                kept = kept or record.entry_cert.round + 1 > block.round
                self._has_block(index, block.id, block.height, disk)
            case Vote(_, round_, block_id, height):
                vote = record.last_vote
                kept = vote is not None and (
                    vote.round > round_ or (vote.round, vote.body) == (round_, message.body)
                )
                self._has_block(index, block_id, height, disk)
            case Timeout(_, round_, high_round):
                timeout = record.last_timeout
                kept = timeout is not None and (
                    timeout.round > round_
                    or (timeout.round, timeout.body) == (round_, message.body)
                )
                kept = kept and record.high_qc.round >= high_round
                pairs = record.signed_timeouts
                remembered = any(t >= round_ and h <= high_round for t, h in pairs)
                kept = kept and (remembered or commit >= round_)
            case CommitVote(statement):
                kept = any(vote.statement == statement for vote in record.commit_votes)
                kept = kept or max(commit, record.commit_floor) >= statement.round
                kept = kept and record.high_qc.round >= statement.round
                self._has_block(index, statement.block_id, statement.height, disk, executed=True)
            case _:
                kept = False
        self._require(kept, promise, f"{where} is not in the record")

    def _has_block(
        self, index: int, block_id: bytes, height: int, disk: Disk, *, executed: bool = False
    ) -> None:
        """Check that the block, its batches and its ancestors are on the disk.

        Ancestors down to what this node has ever delivered or stored: those are certified, so
        others keep them. Ancestors' batches must be there too if they were ``executed``.
        """
        store = disk.store
        needed = True
        floor = max(store.height, self._reached[index])
        while height > floor:
            block = disk.blocks.get(block_id)
            self._require(
                block is not None, "block durable before sent", f"node {index}, height {height}"
            )
            if block is None:
                return
            for item in block.payload if needed else ():
                held = item.digest in disk.batches or item.digest in store.batches
                self._require(held, "batches durable before sent", f"node {index}, {height}")
            block_id, height = block.parent_id, height - 1
            needed = executed

    def _commit_promise(self, index: int, statement: Statement) -> None:
        """Check rule 4 over everything this key ever sent."""
        round_ = statement.round
        pairs = self._given_up(index, statement.epoch)
        lower = [t for t, h in pairs.items() if t >= round_ > h]
        self._require(
            not lower or self._two_chain(statement.block_id),
            "commit vote after timeout needs a two-chain",
            f"node {index}, round {round_}, timeouts {lower}",
        )

    def _two_chain(self, block_id: bytes) -> bool:
        for child in self._proposed.values():
            parent = self._proposed.get(child.parent_id)
            if parent is None or child.round != parent.round + 1 or child.epoch != parent.epoch:
                continue
            if not (self._ordered(child.id) and self._ordered(parent.id)):
                continue
            walk: Block | None = parent
            while walk is not None and walk.id != block_id:
                walk = self._proposed.get(walk.parent_id)
            if walk is not None:
                return True
        return False

    def _ordered(self, block_id: bytes) -> bool:
        quorum = Roster(self._committees.named(self._proposed[block_id].committee_hash)).quorum
        return len(self._voters.get(block_id, ())) >= quorum

    # --- delivery -----------------------------------------------------------------------------

    def booted(self, index: int, tip: Block) -> None:
        """A node starts from a tip of its store, which must be of the certified chain."""
        known = self.chain.get(tip.height)
        self._require(
            known is not None and known.id == tip.id, "agreement", f"node {index} restarts off it"
        )
        self._tips[index] = (tip.height, tip.id)

    def delivered(
        self, index: int, block: Block, statement: Statement, certificate: CommitCert
    ) -> None:
        """A node takes a block for final, which it executed to ``statement``."""
        height, tip_id = self._tips[index]
        where = f"node {index}, height {block.height}"
        self._require(block.height == height + 1, "in order and once", f"{where} after {height}")
        self._require(block.parent_id == tip_id, "ancestry", where)
        self._tips[index] = (block.height, block.id)
        self._reached[index] = max(self._reached[index], block.height)
        first = self.chain.setdefault(block.height, block)
        self._require(first.id == block.id, "agreement", f"{where}: another block")
        executed = self.statements.setdefault(block.height, statement)
        self._require(executed == statement, "agreement", f"{where}: another result")
        self._of_its_epoch(block, statement, certificate, where)
        self._certified(block, statement, certificate, where)

    def _of_its_epoch(
        self, block: Block, statement: Statement, certificate: CommitCert, where: str
    ) -> None:
        """Check that epochs follow each other, each from its own certificate on its last block."""
        before = self.statements.get(block.height - 1)
        ended = before is not None and before.next_committee_hash is not None
        epoch = 1 if before is None else before.epoch + ended
        same = block.epoch == statement.epoch == epoch
        self._require(same, "an epoch ends with its last block", f"{where}, epoch {block.epoch}")
        elected = statement.next_committee_hash
        if elected is None:
            return
        own = certificate.statement.height == block.height
        self._require(own, "an epoch ends by a certificate of its own", where)
        if epoch + 1 not in self.epochs:
            self.epochs[epoch + 1] = Roster(self._committees.named(elected))
            self._note_change(self.epochs[epoch], self.epochs[epoch + 1])
        known = self.epochs[epoch + 1]
        self._require(known.committee.hash == elected, "agreement", f"{where}: another committee")

    def leaves(self, index: int, block: Block) -> None:
        """A node leaves the epoch that a block ended."""
        statement = self.statements[block.height]
        ends = statement.block_id == block.id and statement.next_committee_hash is not None
        ends = ends and self._tips[index] == (block.height, block.id)
        self._require(ends, "an epoch ends with its last block", f"node {index}, {block.height}")

    def has_left(self, index: int, epoch: int) -> bool:
        """Whether a machine is no member of an epoch, but was one before."""
        was = any(index in self.epochs[each].machines for each in range(1, epoch))
        return was and index not in self.epochs[epoch].machines

    def _note_change(self, old: Roster, new: Roster) -> None:
        """Note what kind of change this is."""
        reach = self._marks.reach
        reach("epoch changed")
        before, after = {*old.machines}, {*new.machines}
        liars = {*self._options.traitors}
        earlier = {
            m for roster in self.epochs.values() if roster is not new for m in roster.machines
        }
        if before - after:
            reach("a member left")
        if after - before:
            reach("a member joined")
        if (after - before) & earlier:
            reach("a member came back")
        if (after - before) & liars:
            reach("a traitor joined")
        if (before - after) & liars:
            reach("a traitor left")
        if any(self._is_down(machine) for machine in after):
            reach("an epoch began while a member was down")
        keys = zip(new.machines, new.committee.keys, strict=True)
        had = dict(zip(old.machines, old.committee.keys, strict=True))
        if any(had.get(machine, key) != key for machine, key in keys):
            reach("a member with another key")
        if any(old.own(machine) != new.own(machine) for machine in before & after):
            reach("a member in another place")

    def _certified(
        self, block: Block, statement: Statement, certificate: CommitCert, where: str
    ) -> None:
        said = certificate.statement
        known = self._certificates.get(said.height)
        if known is None:
            self._certificates[said.height] = certificate
        if known is None or known.signatures != certificate.signatures:
            self._verify(certificate, where)
        first = self._certificates[said.height].statement
        self._require(first == said, "agreement", f"{where}: two statements certified")
        self._require(said.height >= block.height, "certificate covers", where)
        if said.height == block.height:
            self._require(said == statement, "certificate says what was executed", where)

    def _verify(self, certificate: CommitCert, where: str) -> None:
        roster = self.epochs[certificate.statement.epoch]
        signers = [signer for signer, _ in certificate.signatures]
        enough = len(signers) >= roster.quorum and len({*signers}) == len(signers)
        self._require(enough, "certificates have a quorum", f"{where}: signers {signers}")
        body = codec.encode(certificate.statement.to_value())
        message = signing.TAG_COMMIT_VOTE + self._founded.chain + body
        for signer, signature in certificate.signatures:
            self._keys.verify(roster.committee.keys[signer], message, signature)

    # --- the end ------------------------------------------------------------------------------

    def finish(self) -> None:
        """Check what can only be known at the end."""
        for height, certificate in sorted(self._certificates.items()):
            block = self.chain.get(height)
            if block is not None:
                same = certificate.statement == self.statements[height]
                self._require(same, "certificate says what was executed", f"height {height}")
        last = max(self.chain)
        final = {self.chain[height].id for height in range(last + 1)}
        for block_id, voters in self._voters.items():
            block = self._proposed.get(block_id)
            if block is not None and block.height <= last and block_id not in final and voters:
                self._marks.reach("voted block abandoned")


def _present(message: Certificates) -> list[Certificate]:
    """Return every certificate of a message, those inside others too."""
    found: list[Certificate | None] = [message.high_qc, message.timeout_cert, message.commit_cert]
    if message.timeout_cert is not None:
        found.append(message.timeout_cert.high_qc)
    return [each for each in found if each is not None]


def _signed_by(validator: int, certificate: Certificate) -> Vote | Timeout | CommitVote | None:
    """Return the message of a validator that a certificate was made of; None if of none."""
    if isinstance(certificate, TimeoutCert):
        for signer, high_round, signature in certificate.entries:
            if signer == validator:
                epoch, round_, high_qc = certificate.epoch, certificate.round, certificate.high_qc
                return Timeout(epoch, round_, high_round, validator, signature, high_qc, None, None)
        return None
    signed = dict(certificate.signatures).get(validator)
    if signed is None:
        return None
    if isinstance(certificate, CommitCert):
        return CommitVote(certificate.statement, validator, signed)
    epoch, round_ = certificate.epoch, certificate.round
    block_id, height = certificate.block_id, certificate.height
    return Vote(epoch, round_, block_id, height, validator, signed, ())
