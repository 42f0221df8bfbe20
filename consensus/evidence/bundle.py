"""The evidence bundle: a decision together with everything it was judged on, in one file.

    bundle = [content, holder]
    content = ["comity bundle", 1, genesis, certificate, statements, decision, results, transaction,
               witness, attested, fresh, rules, later, drafts, purpose, audience, expires_ms]
    genesis      [head of the genesis file, hash of its contents, [[certificate, committee], ...]]
                 the committees of later epochs, each elected under the one before
    certificate  commit certificate, the newest that the maker knew
    statements   [[statement, history path], ...]     ascending by height; of other heights than
                                                      the certificate's own
    decision     as nodes keep it, all leaves
    results      [number of decisions, path to results_root]
    transaction  [body, [signature, ...], group, H(seed), [leaf, ...], [decoy, ...]]
                 group   null, or [[[signer, signature], ...], total, index, path]
                 leaf    hash, or [salt, value]
    witness      see ``witness``, ascending by key path
    attested     [account id, ...]                    found or moved, and not looked into
    fresh        [[salts, decoys], ...]               of the entries of the decision's writes
    rules        [[domain, number, rule set, whether it was in force], ...]    ascending
    later        [proof, leaf | null, [[version, salt], ...]]
                 of corrections/<txid>, and of the leaves of those rule sets that the witness lacks,
                 under one of the statements or the certificate
    drafts       [[body, H(seed), [leaf, ...], [decoy, ...]], ...]    of proposals that were read
    holder       null, or [key, signature]            over the content

The content is a byte string, so that it is signed and hashed as it lies in the file. A group's
index is the transaction's own, with its own path: a part of one.

Not here: what it proves (``verify``). Source: docs/formats/bundle.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from consensus import codec
from consensus.answers import EpochStep
from consensus.codec import Value
from consensus.committee import COMMITTEE
from consensus.errors import DecodeError
from consensus.evidence import witness
from consensus.evidence.replay import Fresh
from consensus.evidence.witness import WitnessLeaf
from consensus.genesis import HEAD_BYTES_MAX
from consensus.ledger import group, private, transaction
from consensus.ledger.decision import DECISION_BYTES_MAX
from consensus.state import salted
from consensus.state.salted import SALT_BYTES

MAGIC: Final = "comity bundle"
VERSION: Final = 1
BUNDLE_BYTES_MAX: Final = 64 * 1024 * 1024
EVIDENCE_BYTES_MAX: Final = 64 * 1024
STATEMENTS_MAX: Final = 16
EPOCHS_MAX: Final = 1024
RULE_SET_BYTES_MAX: Final = 1024 * 1024
RULE_SETS_MAX: Final = 256
PATH_MAX: Final = 256
TEXT_BYTES_MAX: Final = 1024
DRAFTS_MAX: Final = 64
PROOF_BYTES_MAX: Final = 64 * 1024

_TEXT: Final = codec.text(TEXT_BYTES_MAX)
_SALT: Final = codec.octets(SALT_BYTES)
_EVIDENCE: Final = codec.octets(low=1, high=EVIDENCE_BYTES_MAX)
_PRIVATE: Final = (
    codec.list_of(
        codec.one_of(
            (
                codec.bytes32,
                codec.array(_SALT, codec.octets(low=1, high=private.PRIVATE_BYTES_MAX)),
            )
        ),
        private.CALLS_MAX + 3,
        low=2,
    ),
    codec.list_of(codec.bytes32, salted.LEAVES_MAX),
)
_BODY: Final = codec.octets(low=1, high=transaction.BODY_BYTES_MAX)
_GROUP: Final = codec.array(
    codec.list_of(codec.array(codec.bytes32, codec.bytes64), group.SIGNERS_MAX, low=1),
    codec.integer(1, group.TRANSACTIONS_MAX),
    codec.integer(0, group.TRANSACTIONS_MAX - 1),
    codec.list_of(codec.bytes32, group.PATH_MAX),
)
CONTENT: Final = codec.array(
    codec.text(32, low=1),
    codec.integer(1),
    codec.array(
        codec.octets(low=1, high=HEAD_BYTES_MAX),
        codec.bytes32,
        codec.list_of(codec.array(_EVIDENCE, COMMITTEE), EPOCHS_MAX),
    ),
    _EVIDENCE,
    codec.list_of(codec.array(_EVIDENCE, codec.list_of(codec.bytes32, 64)), STATEMENTS_MAX),
    codec.octets(low=1, high=DECISION_BYTES_MAX),
    codec.array(codec.integer(1), codec.list_of(codec.bytes32, PATH_MAX)),
    codec.array(
        _BODY,
        codec.list_of(codec.octets(high=64), transaction.COSIGNERS_MAX + 1, low=1),
        codec.optional(_GROUP),
        codec.bytes32,
        *_PRIVATE,
    ),
    witness.SHAPE,
    codec.list_of(codec.list_of(codec.plain, 32, low=1), witness.LEAVES_MAX),
    codec.list_of(
        codec.array(
            codec.octets(high=salted.LEAVES_MAX * SALT_BYTES),
            codec.octets(high=salted.LEAVES_MAX * 32),
        ),
        65_536,
    ),
    codec.list_of(
        codec.array(
            codec.text(64, low=1),
            codec.integer(1),
            codec.octets(low=1, high=RULE_SET_BYTES_MAX),
            codec.boolean,
        ),
        RULE_SETS_MAX,
    ),
    codec.array(
        codec.octets(low=1, high=PROOF_BYTES_MAX),
        codec.optional(codec.array(codec.count, _SALT, codec.octets(low=1, high=1024))),
        codec.list_of(codec.array(codec.count, _SALT), RULE_SETS_MAX),
    ),
    codec.list_of(codec.array(_BODY, codec.bytes32, *_PRIVATE), DRAFTS_MAX),
    _TEXT,
    _TEXT,
    codec.optional(codec.count),
)
"""The shape of a bundle's content."""
_FILE: Final = codec.array(
    codec.octets(low=1, high=BUNDLE_BYTES_MAX),
    codec.optional(codec.array(codec.bytes32, codec.bytes64)),
)

PrivateLeaf = bytes | tuple[bytes, bytes]
"""A leaf's hash, or its salt and value."""


@dataclass(frozen=True, slots=True)
class PrivatePart:
    """A transaction's private part, each leaf shown or hidden; never with its seed."""

    seed_hash: bytes
    leaves: tuple[PrivateLeaf, ...]
    decoys: tuple[bytes, ...]

    def to_values(self) -> list[Value]:
        """Return the last three items of a transaction or draft."""
        leaves = [each if isinstance(each, bytes) else list(each) for each in self.leaves]
        return [self.seed_hash, leaves, list(self.decoys)]


@dataclass(frozen=True, slots=True)
class GroupPart:
    """Under which signatures of a group a transaction stands, and where in it."""

    signatures: tuple[tuple[bytes, bytes], ...]
    total: int
    index: int
    path: tuple[bytes, ...]

    def to_value(self) -> Value:
        """Return the canonical array."""
        return [[list(row) for row in self.signatures], self.total, self.index, list(self.path)]


@dataclass(frozen=True, slots=True)
class Later:
    """What the newest statement says of the transaction: taken back by which, or not."""

    proof: bytes
    leaf: tuple[int, bytes, bytes] | None
    """Version, salt and value of ``corrections/<txid>``; None: absent."""
    rules: tuple[tuple[int, bytes], ...] = ()
    """Version and salt of the leaves of rule sets that the judgement did not read."""


@dataclass(frozen=True, slots=True)
class Draft:
    """The draft of a proposal that the judgement read."""

    body: bytes
    private: PrivatePart


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle, decoded and not yet believed."""

    head: bytes
    contents_hash: bytes
    epochs: tuple[EpochStep, ...]
    certificate: bytes
    statements: tuple[tuple[bytes, tuple[bytes, ...]], ...]
    decision: bytes
    total: int
    path: tuple[bytes, ...]
    body: bytes
    signatures: tuple[bytes, ...]
    group: GroupPart | None
    private: PrivatePart
    witness: tuple[WitnessLeaf, ...]
    attested: tuple[list[Value], ...]
    fresh: tuple[Fresh, ...]
    rules: tuple[tuple[str, int, bytes, bool], ...]
    later: Later
    drafts: tuple[Draft, ...] = ()
    purpose: str = ""
    audience: str = ""
    expires_ms: int | None = None

    def content(self) -> bytes:
        """Return the bytes that the holder signs."""
        leaf = self.later.leaf
        return codec.encode(
            [
                MAGIC,
                VERSION,
                [self.head, self.contents_hash, [each.to_value() for each in self.epochs]],
                self.certificate,
                [[statement, list(path)] for statement, path in self.statements],
                self.decision,
                [self.total, list(self.path)],
                [
                    self.body,
                    list(self.signatures),
                    None if self.group is None else self.group.to_value(),
                    *self.private.to_values(),
                ],
                [each.to_value() for each in self.witness],
                list(self.attested),
                [list(each) for each in self.fresh],
                [list(each) for each in self.rules],
                [
                    self.later.proof,
                    None if leaf is None else list(leaf),
                    [list(each) for each in self.later.rules],
                ],
                [[each.body, *each.private.to_values()] for each in self.drafts],
                self.purpose,
                self.audience,
                self.expires_ms,
            ]
        )


@dataclass(frozen=True, slots=True)
class Sealed:
    """A bundle's content as it lies in a file, with the signature of whoever gave it out."""

    content: bytes
    holder: tuple[bytes, bytes] | None = None

    def encode(self) -> bytes:
        """Return the bytes of the file."""
        return codec.encode([self.content, None if self.holder is None else list(self.holder)])


def unseal(data: bytes) -> Sealed:
    """Return content and signature of an untrusted file; neither is believed.

    Raises:
        DecodeError: it is no such file.
    """
    codec.refuse_crowd(data, "bundle file")
    content, holder = codec.decode(data, _FILE, bytes_max=BUNDLE_BYTES_MAX, what="bundle file")
    return Sealed(content, None if holder is None else tuple(holder))


def decode(content: bytes) -> Bundle:
    """Return the bundle in the untrusted content of a file.

    Raises:
        DecodeError: malformed, of a newer version, or of another kind; ``path`` says where.
    """
    codec.refuse_crowd(content, "bundle")
    value = codec.parse(content, "bundle")
    _check_kind(value)
    if CONTENT(value, "bundle") != len(content):
        raise DecodeError("not the canonical encoding", path="bundle")
    genesis, certificate, statements, decision, results, acted = value[2:8]
    shown, attested, fresh, rules, later, drafts, purpose, audience, expires_ms = value[8:]
    body, signatures, group_part, *private_part = acted
    part = None
    if group_part is not None:
        signers, total, index, path = group_part
        part = GroupPart(tuple((k, s) for k, s in signers), total, index, tuple(path))
    return Bundle(
        genesis[0],
        genesis[1],
        tuple(EpochStep(*each) for each in genesis[2]),
        certificate,
        tuple((statement, tuple(path)) for statement, path in statements),
        decision,
        results[0],
        tuple(results[1]),
        body,
        tuple(signatures),
        part,
        _private(private_part),
        witness.from_value(shown),
        tuple(attested),
        tuple(Fresh(*each) for each in fresh),
        tuple((domain, number, text, active) for domain, number, text, active in rules),
        Later(
            later[0],
            None if later[1] is None else tuple(later[1]),
            tuple((version, salt) for version, salt in later[2]),
        ),
        tuple(Draft(each[0], _private(each[1:])) for each in drafts),
        purpose,
        audience,
        expires_ms,
    )


def _check_kind(value: Any) -> None:
    """Tell a file of another kind or version from a damaged one."""
    if type(value) is not list or not value or value[0] != MAGIC:
        raise DecodeError("this is no evidence bundle", path="bundle")
    if len(value) < 2 or value[1] != VERSION:
        found = value[1] if len(value) > 1 else None
        raise DecodeError(
            f"version {found!r}; this software reads version {VERSION}",
            path="bundle.version",
            hint="install the release that made this file",
        )


def _private(parts: Sequence[Any]) -> PrivatePart:
    seed_hash, leaves, decoys = parts
    items = tuple(each if isinstance(each, bytes) else (each[0], each[1]) for each in leaves)
    return PrivatePart(seed_hash, items, tuple(decoys))
