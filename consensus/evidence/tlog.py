"""The statement of a height as a text in the manner of transparency logs: C2SP's tlog-proof.

The network is a log of statements, one a height, and each certificate a checkpoint of it. The text
has a proof of inclusion and a checkpoint, as a signed note, with the signatures of the committee:

    comity/tlog-proof@v1
    extra <statement of the height>
    index <height>
    <sibling>                                         bottom up, none where the log has one leaf
    ...

    comity/<chain, hex>                               origin
    <size>                                            height of the certificate
    <history root of that size>
    tree comity-history-v1                            extension: the hashing of this tree
    committee <certificate and committee>             extension, one for each later epoch: what
    ...                                               ended the one before, and who signs in it
    statement <statement of the certificate>          extension: what the committee signed

    — comity/<chain, hex>/<epoch>/<validator> <key id 4 ‖ signature 64>
    ...

Bytes are in base64 (RFC 4648 §4). Line by line it is C2SP's tlog-proof v1 but for the first line:
the tree has RFC 9162's shape and hashes of its own (BLAKE3, domain-separated, the size bound into
the root), so a tool that expects SHA-256 must not take it for its own. The signatures are of a note
signature type of its own: over the commit vote's message, of which every line of the note is a
function but those of committees; of these each is signed for by the committee before it, from the
first, which the genesis file has.

A text is accepted exactly if it is the one that ``encode`` makes of what it says.

Not here: where the parts come from. Source: docs/formats/tlog.md; c2sp.org/tlog-proof,
tlog-checkpoint, signed-note.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from consensus import codec
from consensus.answers import EpochStep
from consensus.committee import COMMITTEE, Committee, from_value
from consensus.errors import DecodeError, ProofError
from consensus.evidence.bundle import EPOCHS_MAX, EVIDENCE_BYTES_MAX
from consensus.evidence.trust import Chain
from consensus.hotstuff import wire
from consensus.hotstuff.types import CommitCert, Statement
from consensus.state.history import verify_inclusion

HEADER: Final = "comity/tlog-proof@v1"
TREE: Final = "tree comity-history-v1"
SIGNATURE_TYPE: Final = b"\xffcomity commit vote v1"
"""The note signature type, as the key ids bind it."""
TEXT_BYTES_MAX: Final = 16 * 2**20
"""Nearly all of it for committees; a text of the first epoch has some 2 KiB."""
STEP_BYTES_MAX: Final = 512 * 1024
PATH_MAX: Final = 64
STATEMENT_BYTES_MAX: Final = 1024

_COMMITTEE: Final = "committee "
_STEP: Final = codec.array(codec.octets(low=1, high=EVIDENCE_BYTES_MAX), COMMITTEE)
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class TlogProof:
    """What a text says; nothing in it is verified.

    ``path`` leads the statement to the history root of the certificate's; ``steps`` the first
    committee to the one that signed it.
    """

    statement: Statement
    path: tuple[bytes, ...]
    certificate: CommitCert
    steps: tuple[EpochStep, ...] = ()


def encode(proof: TlogProof, committee: Committee) -> str:
    """Return the text of a proof.

    Args:
        committee: of the first epoch.
    """
    if proof.steps:
        committee = from_value(proof.steps[-1].committee)
    head, signatures = proof.certificate.statement, proof.certificate.signatures
    origin = origin_of(head.chain)
    lines = [
        HEADER,
        f"extra {_base64(proof.statement.encoded)}",
        f"index {proof.statement.height}",
        *map(_base64, proof.path),
        "",
        origin,
        str(head.height),
        _base64(head.history_root),
        TREE,
        *[_COMMITTEE + _base64(codec.encode(each.to_value())) for each in proof.steps],
        f"statement {_base64(head.encoded)}",
        "",
    ]
    for validator, signature in signatures:
        name = key_name(head, validator)
        key_id = key_id_of(name, committee.keys[validator])
        lines.append(f"\u2014 {name} {_base64(key_id + signature)}")
    return "\n".join(lines) + "\n"


def verify(data: bytes, chain: bytes, committee: Committee) -> TlogProof:
    """Return what a text proves about the network ``chain``.

    Args:
        data: untrusted; UTF-8.
        committee: of the first epoch.

    Raises:
        DecodeError: not such a text; says in which line.
        CertificateError, SignatureError: the committee did not sign it, or is not the one elected.
        ProofError: the statement is not in the log at that index.
    """
    proof = _decode(data)
    trust = Chain(chain, committee)
    trust.follow(proof.steps)
    trust.certificate(proof.certificate.encoded)
    if len(proof.steps) != proof.certificate.statement.epoch - committee.epoch:
        raise DecodeError("committees are shown that did not sign it", path="tlog")
    if proof.statement.chain != chain:
        raise ProofError("the statement is of another network")
    if encode(proof, committee).encode() != data:
        raise DecodeError("not the form that the text of a proof has", path="tlog")
    head = proof.certificate.statement
    verify_inclusion(
        head.history_root,
        head.height,
        proof.statement.height,
        proof.statement.hash,
        proof.path,
    )
    return proof


def origin_of(chain: bytes) -> str:
    """Return the origin of a network's checkpoints."""
    return f"comity/{chain.hex()}"


def key_name(head: Statement, validator: int) -> str:
    """Return the name under which a validator signs checkpoints."""
    return f"{origin_of(head.chain)}/{head.epoch}/{validator}"


def key_id_of(name: str, key: bytes) -> bytes:
    """Return the four bytes that a note names a key with."""
    return hashlib.sha256(name.encode() + b"\n" + SIGNATURE_TYPE + key).digest()[:4]


# --- reading ------------------------------------------------------------------------------------


def _decode(data: bytes) -> TlogProof:
    if len(data) > TEXT_BYTES_MAX:
        raise DecodeError(f"{len(data)} bytes, at most {TEXT_BYTES_MAX} allowed", path="tlog")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise DecodeError("not UTF-8", path=f"tlog: offset {error.start}") from error
    lines = _Lines(text)
    lines.expect(HEADER)
    statement = _statement(lines.bytes_after("extra "), "tlog: extra")
    index = lines.number("index ")
    path = lines.hashes()
    chain = lines.after("comity/")
    size = lines.number("")
    root = lines.bytes_after("")
    lines.expect(TREE)
    steps = lines.steps()
    head = _statement(lines.bytes_after("statement "), "tlog: statement")
    lines.expect("")
    certificate = CommitCert(head, lines.signatures(f"comity/{chain}/{head.epoch}/"))
    said = (index, chain, size, root)
    if said != (statement.height, head.chain.hex(), head.height, head.history_root):
        raise DecodeError("lines contradict the statements that they are of", path="tlog")
    return TlogProof(statement, path, certificate, steps)


class _Lines:
    """The lines of a text, taken one by one."""

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        self._at = 0

    def next(self) -> str:
        """Return the next line."""
        if self._at >= len(self._lines):
            raise self._bad("the text ends here")
        self._at += 1
        return self._lines[self._at - 1]

    def expect(self, line: str) -> None:
        """Take a line that says this."""
        if self.next() != line:
            raise self._bad(f"expected {line!r}" if line else "expected an empty line")

    def after(self, start: str) -> str:
        """Return what follows ``start`` in the next line."""
        line = self.next()
        if not line.startswith(start):
            raise self._bad(f"expected a line that begins with {start!r}")
        return line.removeprefix(start)

    def number(self, start: str) -> int:
        """Return the number after ``start``."""
        word = self.after(start)
        if not _DECIMAL.fullmatch(word) or int(word) > codec.INT64_MAX:
            raise self._bad("expected a number without leading zeros")
        return int(word)

    def bytes_after(self, start: str) -> bytes:
        """Return the bytes in base64 after ``start``."""
        return self._bytes(self.after(start))

    def hashes(self) -> tuple[bytes, ...]:
        """Return the hashes up to an empty line."""
        found: list[bytes] = []
        while line := self.next():
            found.append(self._bytes(line))
            if len(found[-1]) != 32 or len(found) > PATH_MAX:
                raise self._bad(f"expected up to {PATH_MAX} hashes of 32 bytes")
        return tuple(found)

    def steps(self) -> tuple[EpochStep, ...]:
        """Return the committees of later epochs, with what elected each."""
        found: list[EpochStep] = []
        while self._at < len(self._lines) and self._lines[self._at].startswith(_COMMITTEE):
            data = self.bytes_after(_COMMITTEE)
            where = f"tlog: line {self._at}"
            certificate, committee = codec.decode(data, _STEP, bytes_max=STEP_BYTES_MAX, what=where)
            found.append(EpochStep(certificate, committee))
            if len(found) > EPOCHS_MAX:
                raise self._bad(f"expected up to {EPOCHS_MAX} committees")
        return tuple(found)

    def signatures(self, start: str) -> tuple[tuple[int, bytes], ...]:
        """Return validator and signature of each line that is left."""
        found: list[tuple[int, bytes]] = []
        while line := self.next():
            name, _, signed = line.removeprefix("\u2014 ").partition(" ")
            index = name.removeprefix(start)
            if not line.startswith(f"\u2014 {start}") or not _DECIMAL.fullmatch(index):
                raise self._bad("expected the signature of a validator")
            data = self._bytes(signed)
            if len(data) != 68 or len(found) >= 64:
                raise self._bad("expected up to 64 signatures of 4 and 64 bytes")
            found.append((int(index), data[4:]))
        if self._at != len(self._lines):
            raise self._bad("something follows the signatures")
        return tuple(found)

    def _bytes(self, word: str) -> bytes:
        try:
            return base64.b64decode(word, validate=True)
        except (binascii.Error, ValueError) as error:
            raise self._bad("not base64") from error

    def _bad(self, message: str) -> DecodeError:
        return DecodeError(message, path=f"tlog: line {self._at}")


def _statement(data: bytes, where: str) -> Statement:
    value = codec.decode(data, wire.STATEMENT, bytes_max=STATEMENT_BYTES_MAX, what=where)
    return wire.statement_from(value)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
