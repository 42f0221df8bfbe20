"""Verifiers of files that anybody may be handed: bundles, receipts, disclosures, statements as
texts, circulars, snapshots and audit files. Each is given the chain that its honest seeds are of.

Every signature and hash stays in force: what lies behind them is reached by ``stored-row``,
``snapshot-piece``, ``decision``, ``reversal-evidence`` and ``audit-parts``.
"""

from __future__ import annotations

import io
from functools import cache, partial

from comity import circulars, receipts
from consensus import codec
from consensus import committee as committees
from consensus.answers import EpochStep, StatementEvidence
from consensus.audit import stream
from consensus.audit.stream import Kind, Splitter
from consensus.committee import COMMITTEE
from consensus.errors import DecodeError, VerificationError
from consensus.evidence import bundle, disclosure, tlog, verify
from consensus.evidence.bundle import Sealed
from consensus.evidence.stages import FailedError
from consensus.evidence.trust import Chain
from consensus.snapshot import Reader, check_all
from tests.consensus.audit.ledger import honest
from tests.consensus.test_snapshot_vectors import file as snapshot_file
from tests.consensus.test_tlog import committee_of
from tests.fuzz.target import Target, of, vectors

BUNDLE, DISCLOSURE, TLOG = vectors("bundle"), vectors("disclosure"), vectors("tlog")
SNAPSHOT, TRANSACTION = vectors("snapshot"), vectors("transaction")
BUNDLES = of(BUNDLE["valid"], "file")
EPOCHS = vectors("epochs")
EPOCHS_CHAIN = bytes.fromhex(EPOCHS["chain"])
SNAPSHOT_CHAIN = bytes.fromhex(SNAPSHOT["valid"][0]["chain"])
_chain = codec.array(codec.list_of(codec.array(codec.octets(), COMMITTEE), 8), codec.octets())
_parts = codec.list_of(codec.array(codec.integer(1, max(Kind)), codec.octets()), 64)


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


def committee_chain(data: bytes) -> None:
    """``[[step, ...], certificate]``: how epochs ended, and a certificate of the last one."""
    steps, newest = codec.decode(data, _chain, bytes_max=2**20, what="chain")
    first = committees.from_value(codec.parse(bytes.fromhex(EPOCHS["committee"])))
    followed = Chain(EPOCHS_CHAIN, first)
    followed.follow([EpochStep(*step) for step in steps])
    followed.certificate(newest)


def chains() -> list[bytes]:
    frames = {name: codec.parse(bytes.fromhex(data)) for name, data in EPOCHS["frames"].items()}
    return [
        codec.encode([[frames[name] for name in row["steps"]], bytes.fromhex(newest)])
        for row in EPOCHS["valid"]
        if (newest := EPOCHS["frames"][row["certificate"]])
    ]


def snapshot(data: bytes, chain: bytes = SNAPSHOT_CHAIN) -> None:
    check_all(Reader(io.BytesIO(data).read, chain))


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
            case Kind.EPOCH:
                stream.read_epoch(frame)
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


def epoch_part() -> bytes:
    """The end of an epoch alone, as an audit file has it."""
    return codec.encode([[int(Kind.EPOCH), bytes.fromhex(vectors("epochs")["frames"]["step 2"])]])


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
    Target("committee-chain", committee_chain, chains(), VERIFIED, bytes_max=32_768),
    Target("snapshot", snapshot, [snapshot_file(SNAPSHOT["valid"][0])], VERIFIED,
           bytes_max=65_536),
    Target("snapshot-epochs", partial(snapshot, chain=EPOCHS_CHAIN),
           [snapshot_file(row) for row in SNAPSHOT["valid"] if "epoch" in row["name"]], VERIFIED,
           bytes_max=65_536),
    Target("audit", read_audit, [_audit()], bytes_max=65_536),
    Target("audit-parts", audit_parts, [parts_of(_audit()), epoch_part()], bytes_max=65_536,
           accepts=False),
]  # fmt: skip
