"""Verification of consensus messages: well-formed in, proved out. Runs outside ``Replica.step``.

Order of the checks, cheapest first: who may send it; links inside the message; counts and order of
signers in every certificate; only then signatures, the sender's own first. A signature that was
checked once, loose or in a certificate, is remembered, so certificates made of votes already seen
cost nothing again.

A quorum certificate has exactly q signatures of distinct committee members; round 0 is the virtual
certificate of the block that the epoch started from and nothing else. A verifier is of one epoch:
its committee and start come from the genesis file, or from the commit certificate that ended the
epoch before. Whatever speaks of another epoch is refused, but for requests of blocks of earlier
ones, which nobody signs.

Not here: anything that depends on what this node has seen or signed (``safety``, ``replica``).
Source: HotStuff (arXiv 1803.05069) §4; Jolteon (arXiv 2106.10362) fig. 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, assert_never

from consensus import signing
from consensus.committee import Committee
from consensus.errors import CertificateError, invariant
from consensus.hotstuff.types import (
    LANE_ORDINARY,
    LANE_PROTECTIVE,
    NUMBERS_PER_EPOCH,
    SIGN_TAGS,
    Block,
    BlocksRequest,
    BlocksResponse,
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
    VerifiedMessage,
    Vote,
    number_before,
    timeout_body,
)

CACHED_MAX: Final = 8192
"""Remembered signatures; about 250 bytes each."""

VerifySignature = Callable[[bytes, bytes, bytes], None]
"""``(key, signed, signature)``; raises SignatureError. ``signing.verify`` outside simulations."""


class Verifier:
    """Checks messages of one epoch of one chain, remembering signatures already checked.

    Args:
        chain: hash of the genesis file.
        committee: validators of the epoch.
        start: the virtual certificate that starts the epoch (``types.genesis_cert`` or
            ``types.start_cert``).
        verify: the signature scheme.
    """

    def __init__(
        self,
        chain: bytes,
        committee: Committee,
        start: QuorumCert,
        *,
        verify: VerifySignature = signing.verify,
    ) -> None:
        invariant(start.epoch == committee.epoch and start.round == 0, "the start of another epoch")
        self._chain = chain
        self._committee = committee
        self._start = start
        self._verify = verify
        self._checked: dict[tuple[int, int, bytes], bytes] = {}

    def verify(self, message: Message, sender: int) -> VerifiedMessage:
        """Return ``message`` as verified.

        Args:
            message: decoded from the link of ``sender``.
            sender: the peer's number, authenticated by its link: its validator index in this
                epoch, or one from the committee's size on.

        Raises:
            CertificateError: the message or a certificate in it breaks a rule.
            SignatureError: a signature does not verify.

        Cost: 60 µs for each signature not seen before; about 5 µs a certificate otherwise.
        """
        match message:
            case Proposal():
                self._proposal(message, sender)
            case Vote():
                self._vote(message, sender)
            case Timeout():
                self._timeout(message, sender)
            case CommitVote():
                self._commit_vote(message, sender)
            case Certificates():
                _require(message.epoch == self._committee.epoch, "another epoch")
                self._certificates(message.high_qc, message.timeout_cert, message.commit_cert)
            case BlocksRequest():
                _require(message.epoch <= self._committee.epoch, "a later epoch")
            case BlocksResponse():
                self._blocks(message)
            case _:
                assert_never(message)
        return VerifiedMessage(message, sender)

    def remember(self, kind: SignKind, validator: int, body: bytes, signature: bytes) -> None:
        """Note a signature that is known to hold, such as one just made by the own key."""
        if len(self._checked) >= CACHED_MAX:
            del self._checked[next(iter(self._checked))]
        self._checked[kind, validator, signature] = body

    def check_quorum_cert(self, certificate: QuorumCert) -> None:
        """Raise CertificateError or SignatureError unless the certificate holds."""
        self._quorum_shape(certificate)
        self._quorum_signatures(certificate)

    def check_timeout_cert(self, certificate: TimeoutCert) -> None:
        """Raise CertificateError or SignatureError unless the certificate holds."""
        self._timeout_shape(certificate)
        self._timeout_signatures(certificate)

    def check_commit_cert(self, certificate: CommitCert) -> None:
        """Raise CertificateError or SignatureError unless the certificate holds."""
        self._commit_shape(certificate)
        self._commit_signatures(certificate)

    # --- messages ---

    def _proposal(self, message: Proposal, sender: int) -> None:
        block = message.block
        _require(sender == self._committee.leader(block.round), "proposal not by its leader")
        check_block(block, self._committee)
        certificates = (message.high_qc, message.timeout_cert, message.commit_cert)
        self._shapes(block.justify, block.timeout_cert, None)
        self._shapes(*certificates)
        self._signature(SignKind.PROPOSAL, sender, block.id, message.signature)
        self._signatures(block.justify, block.timeout_cert, None)
        self._signatures(*certificates)

    def _vote(self, message: Vote, sender: int) -> None:
        self._member(message.validator, sender)
        _require(message.epoch == self._committee.epoch, "vote of another epoch")
        _require(message.round > 0 and message.height > 0, "vote on the genesis block")
        self._signature(SignKind.VOTE, sender, message.body, message.signature)

    def _timeout(self, message: Timeout, sender: int) -> None:
        self._member(message.validator, sender)
        _require(message.epoch == self._committee.epoch, "timeout of another epoch")
        high, entry = message.high_qc, message.timeout_cert
        _require(high.round == message.high_round, "timeout names another high round")
        _require(high.round < message.round, "timeout below its own certificate")
        if high.round == message.round - 1:
            _require(entry is None, "timeout with two certificates of its round")
        else:
            _require(
                entry is not None and entry.round == message.round - 1,
                "timeout without the certificate by which its round was entered",
            )
            _require(
                entry is not None and entry.high_round <= high.round,
                "timeout with a high certificate below that of its entry",
            )
        certificates = (high, entry, message.commit_cert)
        self._shapes(*certificates)
        self._signature(SignKind.TIMEOUT, sender, message.body, message.signature)
        self._signatures(*certificates)

    def _commit_vote(self, message: CommitVote, sender: int) -> None:
        self._member(message.validator, sender)
        self._statement(message.statement)
        self._signature(SignKind.COMMIT_VOTE, sender, message.body, message.signature)

    def _member(self, validator: int, sender: int) -> None:
        _require(validator == sender, "signed in another's name")
        _require(sender < self._committee.size, "signed by a node without a vote")

    def _blocks(self, message: BlocksResponse) -> None:
        last = message.blocks[0]
        check_block(last, self._committee)
        for block in message.blocks[1:]:
            check_block(block, self._committee)
            _require(
                block.parent_id == last.id
                and block.justify.height == last.height
                and block.justify.round == last.round,
                "blocks that are no chain",
            )
            last = block
        match message.certificate:
            case QuorumCert() as certificate:
                named = (certificate.block_id, certificate.round, certificate.height)
                _require(named == (last.id, last.round, last.height), "proof of another block")
                self.check_quorum_cert(certificate)
            case CommitCert() as certificate:
                _require(describes(certificate.statement, last), "proof of another block")
                self.check_commit_cert(certificate)

    def _certificates(
        self, high: QuorumCert | None, timeout: TimeoutCert | None, commit: CommitCert | None
    ) -> None:
        self._shapes(high, timeout, commit)
        self._signatures(high, timeout, commit)

    # --- the two halves of a certificate's check: counts and order, then signatures ---

    def _shapes(
        self, high: QuorumCert | None, timeout: TimeoutCert | None, commit: CommitCert | None
    ) -> None:
        if high is not None:
            self._quorum_shape(high)
        if timeout is not None:
            self._timeout_shape(timeout)
        if commit is not None:
            self._commit_shape(commit)

    def _signatures(
        self, high: QuorumCert | None, timeout: TimeoutCert | None, commit: CommitCert | None
    ) -> None:
        if high is not None:
            self._quorum_signatures(high)
        if timeout is not None:
            self._timeout_signatures(timeout)
        if commit is not None:
            self._commit_signatures(commit)

    def _quorum_shape(self, certificate: QuorumCert) -> None:
        _require(certificate.epoch == self._committee.epoch, "quorum certificate of another epoch")
        if certificate.round == 0:
            _require(certificate == self._start, "round 0 is the epoch's start alone")
            return
        _require(certificate.height > 0, "only the genesis block has height 0")
        check_signers([v for v, _ in certificate.signatures], self._committee)

    def _quorum_signatures(self, certificate: QuorumCert) -> None:
        for validator, signature in certificate.signatures:
            self._signature(SignKind.VOTE, validator, certificate.body, signature)

    def _timeout_shape(self, certificate: TimeoutCert) -> None:
        _require(certificate.epoch == self._committee.epoch, "timeout certificate of another epoch")
        check_signers([v for v, _, _ in certificate.entries], self._committee)
        for _, high, _ in certificate.entries:
            _require(high < certificate.round, "timeout certificate with a high round beyond it")
        _require(
            certificate.high_qc.round == certificate.high_round,
            "timeout certificate without its highest quorum certificate",
        )
        self._quorum_shape(certificate.high_qc)

    def _timeout_signatures(self, certificate: TimeoutCert) -> None:
        for validator, high, signature in certificate.entries:
            body = timeout_body(certificate.epoch, certificate.round, high)
            self._signature(SignKind.TIMEOUT, validator, body, signature)
        self._quorum_signatures(certificate.high_qc)

    def _statement(self, statement: Statement) -> None:
        _require(statement.chain == self._chain, "statement of another chain")
        _require(statement.epoch == self._committee.epoch, "statement of another epoch")
        _require(statement.round > 0 and statement.height > 0, "statement on the genesis block")

    def _commit_shape(self, certificate: CommitCert) -> None:
        self._statement(certificate.statement)
        check_signers([v for v, _ in certificate.signatures], self._committee)

    def _commit_signatures(self, certificate: CommitCert) -> None:
        body = certificate.statement.encoded
        for validator, signature in certificate.signatures:
            self._signature(SignKind.COMMIT_VOTE, validator, body, signature)

    def _signature(self, kind: SignKind, validator: int, body: bytes, signature: bytes) -> None:
        if self._checked.get((kind, validator, signature)) == body:
            return
        signed = signing.message(SIGN_TAGS[kind], self._chain, body)
        self._verify(self._committee.keys[validator], signed, signature)
        self.remember(kind, validator, body, signature)


def check_block(block: Block, committee: Committee) -> None:
    """Check what a block says about itself, without signatures.

    Raises:
        CertificateError: wrong epoch or committee; not one above the block that its certificate
            names; a round that neither follows its certificate nor is proved by a timeout
            certificate; or a payload with a repeated batch, one of another epoch, or an ordinary
            one before a protective.

    Source: Jolteon fig. 3, ``safe_to_vote``; an optional proof left out never skips a check.
    """
    justify, entry = block.justify, block.timeout_cert
    _require(block.epoch == committee.epoch, "block of another epoch")
    _require(justify.epoch == committee.epoch, "quorum certificate of another epoch")
    _require(block.committee_hash == committee.hash, "block of another committee")
    _require(block.parent_id == justify.block_id, "parent is not the certified block")
    _require(block.height == justify.height + 1, "height does not follow the parent's")
    _require(block.round > justify.round, "round does not follow the parent's")
    if block.round == justify.round + 1:
        _require(entry is None, "timeout certificate where none belongs")
    else:
        _require(
            entry is not None and entry.epoch == block.epoch and entry.round == block.round - 1,
            "no timeout certificate of the round before",
        )
        _require(
            entry is not None and justify.round >= entry.high_round,
            "extends a block below the timeout certificate's highest",
        )
    lane, size = LANE_PROTECTIVE, committee.size
    first = number_before(block.epoch)
    for item in block.payload:
        if not first <= item.number <= first + NUMBERS_PER_EPOCH:
            raise CertificateError("a batch of another epoch")
        if not LANE_ORDINARY <= item.lane <= lane:
            raise CertificateError("an ordinary batch before a protective one")
        if item.origin >= size:
            raise CertificateError("a batch of nobody")
        lane = item.lane
    digests = {item.digest for item in block.payload}
    _require(len(digests) == len(block.payload), "one batch twice")


def check_signers(signers: Iterable[int], committee: Committee) -> None:
    """Raise CertificateError unless the signers are exactly a quorum, increasing, of members."""
    last, count, size = -1, 0, committee.size
    for validator in signers:
        if not last < validator < size:
            raise CertificateError("signers unordered, repeated or foreign")
        last = validator
        count += 1
    if count != committee.quorum:
        raise CertificateError(f"{count} signatures, {committee.quorum} needed")


def check_commit_cert(
    certificate: CommitCert,
    committee: Committee,
    chain: bytes,
    *,
    verify: VerifySignature = signing.verify,
) -> None:
    """Check a commit certificate alone, as a light client does.

    Raises:
        CertificateError: another chain or epoch, or the signers are not exactly a quorum.
        SignatureError: a signature does not verify.
    """
    nothing = QuorumCert(committee.epoch, 0, chain, 0, ())
    Verifier(chain, committee, nothing, verify=verify).check_commit_cert(certificate)


def describes(statement: Statement, block: Block) -> bool:
    """Whether the statement is about this block."""
    named = (statement.epoch, statement.round, statement.height, statement.block_id)
    ours = (block.epoch, block.round, block.height, block.id)
    return named == ours and statement.time_ms == block.time_ms


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise CertificateError(message)
