"""What an operator's machine reads besides the network: the socket between node and signer,
backups, certificates of members and observers, committee changes, ends of epochs, files and words
that people write.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from comity import founding, tls
from comity.cli import cases, values
from comity.errors import DraftError
from comity.results import Cursor
from consensus import certificate, codec
from consensus.errors import ComityError, DecodeError, SignatureError, VerificationError
from consensus.ledger.kernel import committee
from consensus.ledger.types import Type
from node import config, epochs
from node.backup import manifest, restored
from node.backup.errors import DamagedBackupError
from node.config import ConfigError
from node.errors import NewerFormatError, StorageError
from node.network.errors import CertificateUnusable
from node.network.tls import make_certificate
from node.observers import read_certificate
from node.signing import config as signer_config
from node.signing import wire as signing_wire
from tests.fuzz.target import Target, of, vectors

ROOT = Path(__file__).resolve().parents[3]
SIGNER, COMMITTEE, EPOCHS = vectors("signer"), vectors("committee"), vectors("epochs")
CHAIN = bytes.fromhex(COMMITTEE["chain"])
CERTIFICATE = make_certificate(b"n" * 32, "registry")
PEM = x509.load_der_x509_certificate(CERTIFICATE).public_bytes(Encoding.PEM)
TOML_WORDS = (
    "[node]", "[listen]", "[[people]]", "[[cases]]", '"', '"""', "'", "=", "a.b.c", "{", "}", "[",
    "]", "[[[[", "1e9", "-0x1", "2026-12-01T09:00:00Z", "true", "\\u0000", "\n", "#", "99999999999",
)  # fmt: skip
WORDS = ("0x", '"', "[", "]", "/", "[[[[", "2026-13", "T00:00Z", "-", "999999999999999999999")
TYPES = [Type(base) for base in "text int money date month time bytes bool ref list token".split()]


def signer_asked(data: bytes) -> None:
    """What a signer reads: a hello, or a request with what is to be signed."""
    try:
        found: signing_wire.Hello | signing_wire.Request = signing_wire.decode_hello(data)
    except DecodeError:
        found = signing_wire.decode_request(data)
        signing_wire.subject_body(found, CHAIN)
    assert signing_wire.encode(found) == data, "accepted, but not the canonical bytes"


def signer_told(data: bytes) -> None:
    """What a node reads of its signer: a welcome, or an answer."""
    try:
        assert signing_wire.encode(signing_wire.decode_welcome(data)) == data
    except DecodeError:
        assert signing_wire.encode(signing_wire.decode_answer(data)) == data


def backup_manifest(data: bytes) -> None:
    found = manifest.decode(data)
    assert found.encode() == data, "accepted, but not the canonical bytes"


def restored_record(data: bytes) -> None:
    found = restored.decode(data, "restored")
    assert replace(found).chain, "a record of no chain"


def member_certificate(data: bytes) -> None:
    """Whatever the ledger takes, the library that makes the links takes too, as the same key."""
    found = certificate.decode(data)
    loaded = x509.load_der_x509_certificate(data)
    assert loaded.public_key().public_bytes_raw() == found.key  # type: ignore[union-attr]


def committee_changes(data: bytes) -> None:
    for wanted in committee.decode_changes(data):
        assert wanted.row()
        if wanted.file:
            committee.verify_file(wanted.file, CHAIN)


def ended_epoch(data: bytes) -> None:
    """An entry of the store, as a node reads it at its start."""
    found = epochs._read(data, 1)
    assert found.meta()[1] == data, "accepted, but not the canonical bytes"


def from_file(read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """The reader of a path as one of bytes."""

    def run(data: bytes) -> None:
        path = Path(_folder().name, "file")
        path.write_bytes(data)
        read(path)

    return run


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for this process, in memory where there is one: thousands of inputs go through."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(prefix="fuzz", dir=memory if memory.is_dir() else None)


def configuration(path: Path) -> None:
    try:
        config.load(path, {})
    except ConfigError:
        signer_config.load(path, {})


def words(data: bytes) -> None:
    """Words of a command line; the first byte says what they are to be."""
    text = data[1:].decode("utf-8", "replace")
    readers: list[Callable[[str], object]] = [
        values.parse_id,
        values.parse_place,
        values.parse_txid,
        Cursor.read,
        lambda word: values.parse_moment(word, "--at"),
        *(partial(values.parse_value, kind=kind, name="it") for kind in TYPES),
    ]
    readers[data[0] % len(readers) if data else 0](text)


def of_rule(*rules: str) -> list[bytes]:
    return [bytes.fromhex(row["cbor"]) for row in SIGNER["messages"] if row["rule"] in rules]


def texts(*patterns: str) -> list[bytes]:
    return [path.read_bytes() for each in patterns for path in sorted(ROOT.glob(each))]


def made_manifest() -> bytes:
    parts = tuple(manifest.Part(name, 5, bytes(32)) for name in manifest.REQUIRED)
    return manifest.Manifest(
        software="1", store=1, network="a network", chain=CHAIN, agency="registry", taken_ms=1,
        epoch=1, height=7, first=0, time_ms=2, block_id=bytes(32), state_root=bytes(32),
        key_count=9, certificate=b"c", private_from=0, horizon=0, sealed_keys=None, files=parts,
    ).encode()  # fmt: skip


def made_record() -> bytes:
    return restored.Restored(CHAIN, "registry", 7, bytes(32), 1, (bytes(32),)).encode()


def ends() -> list[bytes]:
    newest, elected = codec.parse(bytes.fromhex(EPOCHS["frames"]["step 2"]))
    return [codec.encode([codec.parse(newest), elected])]


TARGETS = [
    Target("signer-asked", signer_asked, of_rule("hello", "request"), bytes_max=4096),
    Target("signer-told", signer_told, of_rule("welcome", "refusal", "signed", "not-signed")),
    Target("backup-manifest", backup_manifest, [made_manifest()],
           (DamagedBackupError, NewerFormatError), bytes_max=4096),
    Target("restored-record", restored_record, [made_record()],
           (StorageError, NewerFormatError), bytes_max=4096),
    Target("member-certificate", member_certificate, [CERTIFICATE],
           (DecodeError, SignatureError), bytes_max=4096),
    Target("node-certificate", tls.read_certificate, [CERTIFICATE, PEM], (VerificationError,),
           bytes_max=4096),
    Target("observer-certificate", from_file(lambda path: read_certificate(path, 1)),
           [CERTIFICATE], (CertificateUnusable, ComityError, OSError), bytes_max=4096),
    Target("committee-changes", committee_changes, of(COMMITTEE["steps"], "changes"),
           (DecodeError, SignatureError)),
    Target("ended-epoch", ended_epoch, ends(), (StorageError,)),
    Target("configuration", from_file(configuration),
           texts("configs/node.toml", "configs/signer.toml"), (ConfigError,),
           words=TOML_WORDS),
    Target("plan", from_file(founding.read_plan), texts("configs/demonstration.toml"),
           (DraftError,), words=TOML_WORDS),
    Target("rule-cases", from_file(cases.read_cases),
           texts("configs/programmes/licences/cases/*.toml"), (DraftError,), words=TOML_WORDS,
           bytes_max=32_768),
    Target("words", words, [bytes([at]) + word for at, word in enumerate((
               b'note/7/[0xab/"a b"]', b"account/pot/a", b"0x" + b"ab" * 32, b"812.3",
               b"2026-12-31", b"text", b"-5", b"12.50", b"2026-12-31", b"2026-12",
               b"2026-12-31T09:00Z", b"0xab", b"true", b"[0xab]/7", b'["a", [1]]',
               b"0x" + b"cd" * 32))],
           (DraftError,), words=WORDS, bytes_max=8192),
]  # fmt: skip
