"""Verifiers of files that anybody may be handed: bundles, receipts, disclosures, statements as
texts, circulars, snapshots and audit files. Each is given the chain that its honest seeds are of.

Every signature and hash stays in force: what lies behind them is reached by ``stored-row``,
``snapshot-piece``, ``decision``, ``reversal-evidence`` and ``audit-parts``.
"""

from __future__ import annotations

import io
from functools import cache

from comity import circulars, receipts
from consensus import codec
from consensus.answers import StatementEvidence
from consensus.audit import stream
from consensus.audit.stream import Kind, Splitter
from consensus.errors import DecodeError, VerificationError
from consensus.evidence import bundle, disclosure, tlog, verify
from consensus.evidence.bundle import Sealed
from consensus.evidence.stages import FailedError
from consensus.snapshot import Reader, check_all
from tests.consensus.audit.ledger import honest
from tests.consensus.test_snapshot_vectors import file as snapshot_file
from tests.consensus.test_tlog import committee_of
from tests.fuzz.target import Target, of, vectors

BUNDLE, DISCLOSURE, TLOG = vectors("bundle"), vectors("disclosure"), vectors("tlog")
SNAPSHOT, TRANSACTION = vectors("snapshot"), vectors("transaction")
BUNDLES = of(BUNDLE["valid"], "file")
SNAPSHOT_CHAIN = bytes.fromhex(SNAPSHOT["valid"][0]["chain"])
_parts = codec.list_of(codec.array(codec.integer(1, 5), codec.octets()), 64)


def bundle_file(data: bytes) -> None:
    verify.verify(data, bytes.fromhex(BUNDLE["chain"]))


def bundle_content(data: bytes) -> None:
    """What lies in a bundle, unsigned: so that its framing costs the mutator nothing."""
    verify.verify(Sealed(data).encode(), bytes.fromhex(BUNDLE["chain"]))


def receipt(data: bytes) -> None:
    receipts.verify(data, bytes.fromhex(BUNDLE["chain"]))


def made_receipts() -> list[bytes]:
    """Receipts of the bundles' decisions."""
    found = []
    for data in BUNDLES:
        each = bundle.decode(bundle.unseal(data).content)
        shown = each.statements[0] if each.statements else (None, ())
        found.append(
            receipts.make(
                (each.head, each.contents_hash),
                each.epochs,
                StatementEvidence(each.certificate, shown[0], tuple(shown[1])),
                (each.total, each.path),
                each.decision,
                [],
            )
        )
    return found


def disclosure_file(data: bytes) -> None:
    disclosure.verify(data, bytes.fromhex(DISCLOSURE["chain"]))


def statement_text(data: bytes) -> None:
    committee = committee_of([bytes.fromhex(key) for key in TLOG["keys"]])
    tlog.verify(data, bytes.fromhex(TLOG["chain"]), committee)


def circular(data: bytes) -> None:
    circulars.read(bytes.fromhex(TRANSACTION["chain"]), data)


def snapshot(data: bytes) -> None:
    check_all(Reader(io.BytesIO(data).read, SNAPSHOT_CHAIN))


def read_audit(data: bytes) -> None:
    splitter = Splitter()
    for frame in splitter.feed(data):
        match frame.kind:
            case Kind.HEADER:
                stream.read_header(frame)
            case Kind.HEIGHT:
                stream.height_in(frame.payload)
                recorded = stream.read_height(frame.payload, "height")
                if recorded.decisions is not None:
                    stream.check_decisions(recorded.decisions, "decisions")
            case Kind.ROWS:
                stream.read_rows(frame)
            case Kind.END:
                stream.read_end(frame)
            case Kind.FAILED:
                stream.read_failed(frame)
    splitter.finish()


def audit_parts(data: bytes) -> None:
    """``[[kind, payload], ...]``, put into frames whose checks hold."""
    before, out = bytes(stream.CHECK_BYTES), [stream.PREFIX]
    for kind, payload in codec.decode(data, _parts, bytes_max=2**20, what="parts"):
        before = stream._check(before + bytes([kind]) + payload)[: stream.CHECK_BYTES]
        out.append(len(payload).to_bytes(4, "big") + bytes([kind]) + before + payload)
    read_audit(b"".join(out))


@cache
def _audit() -> bytes:
    return honest().stream()


def parts_of(data: bytes) -> bytes:
    splitter = Splitter()
    return codec.encode([[int(each.kind), each.payload] for each in splitter.feed(data)][:3])


VERIFIED = (DecodeError, VerificationError)

TARGETS = [
    Target("bundle", bundle_file, BUNDLES, (DecodeError, FailedError)),
    Target("bundle-content", bundle_content, [bundle.unseal(data).content for data in BUNDLES],
           (DecodeError, FailedError)),
    Target("receipt", receipt, made_receipts(), (DecodeError, FailedError)),
    Target("disclosure", disclosure_file, of(DISCLOSURE["valid"], "file"), VERIFIED),
    Target("tlog", statement_text, [row["text"].encode() for row in TLOG["valid"]], VERIFIED,
           words=("c2sp.org/tlog-proof@v1\n", "extra ", "index ", "\n\n", "statement ", "\u2014 ")),
    Target("circular", circular, of(TRANSACTION["transactions"], "envelope"), VERIFIED),
    Target("snapshot", snapshot, [snapshot_file(SNAPSHOT["valid"][0])], VERIFIED,
           bytes_max=65_536),
    Target("audit", read_audit, [_audit()], bytes_max=65_536),
    Target("audit-parts", audit_parts, [parts_of(_audit())], bytes_max=65_536, accepts=False),
]  # fmt: skip
