"""``comity verify``: what an evidence file proves, without a network.

Reads the file named and, where they are named, the genesis file and rule sets; opens no socket.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.console import Group
from rich.text import Text

from comity import receipts
from comity.cli import show
from comity.cli.disclosure_words import verify_disclosure
from comity.cli.options import (
    HASH,
    OUTPUT,
    Output,
    Reach,
    UsageError,
    chain_of,
    examples,
    files_in,
    genesis_bytes,
)
from comity.cli.refusals import sentence
from comity.cli.values import parse_digest, parse_moment, parse_trusted, plain, time_word
from comity.files import text_of
from comity.words import KERNEL_LEAVES, place_word, word
from consensus import codec
from consensus import genesis as genesis_file
from consensus.audit import stream
from consensus.codec import Value
from consensus.errors import DecodeError
from consensus.evidence import tlog
from consensus.evidence.bundle import BUNDLE_BYTES_MAX
from consensus.evidence.disclosure_file import is_file
from consensus.evidence.stages import FailedError
from consensus.evidence.verify import Verified, verify
from consensus.evidence.witness import RecordLeaves, SingleLeaf
from consensus.ledger import decision as decisions
from consensus.ledger import proposals
from consensus.ledger.codes import Code
from consensus.ledger.layout import leaf_value
from consensus.ledger.rules import Definition, decode_definition, load_toml
from consensus.ledger.rules.compile import compile_all
from consensus.ledger.view import CHARTER
from consensus.snapshot import MAGIC as SNAPSHOT
from consensus.snapshot import MANIFEST_BYTES_MAX

EXAMPLES: Final = examples(
    "comity verify payment.bundle --genesis 0x9b2e...",
    "comity verify payment.bundle --genesis genesis.cbor --not-older-than 2026-07-09",
    "comity verify payment.bundle --genesis 0x9b2e... --trust 1204:0x77aa... --strict",
    "comity verify payment.receipt --genesis 0x9b2e... --rules rules",
)
_OTHER_FILES: Final = (
    (stream.MAGIC, "comity audit"),
    (b"magic" + codec.encode(SNAPSHOT), "comity snapshot verify"),
    (tlog.HEADER.encode(), "comity statement FILE --genesis GENESIS-FILE"),
)
_STATES: Final = {
    decisions.APPLIED: "was applied",
    decisions.REFUSED: "was refused",
    decisions.PROPOSED: "was stored as a proposal",
}


def verify_(
    file: Path,
    /,
    *,
    genesis: Annotated[
        str, Parameter(help="Hash of the genesis file, hex, that you know; or the file itself.")
    ],
    trust: Annotated[
        str | None,
        Parameter(help="HEIGHT:HASH of a statement that you know; it must be among the file's."),
    ] = None,
    not_older_than: Annotated[
        str | None, Parameter(help="Refuse evidence as of an earlier chain time.")
    ] = None,
    as_: Annotated[str | None, Parameter(name="--as", help="Who you are: the audience.")] = None,
    digest: Annotated[
        str | None, Parameter(help="Of a receipt: the digest on paper, hex, to be compared.")
    ] = None,
    rules: Annotated[
        Path | None,
        Parameter(
            help="Of a receipt: folder of rule sets in TOML, for the names of its actions; those "
            "of the founding are in the genesis file."
        ),
    ] = None,
    strict: Annotated[
        bool, Parameter(help="Refuse a file for others, past its end, or not signed.")
    ] = False,
    output: Output = OUTPUT,
) -> int:
    """Check an evidence file against the genesis hash alone: no network, no trust in its maker.

    Exit status: 0 it is valid, 1 a check fails, 2 it is malformed.

    Args:
        file: as `comity bundle`, `receipt`, `disclose` or `disclosed` wrote it.
    """
    chain = chain_of(genesis)
    given = [load_toml(text_of(path), str(path)) for path in files_in(rules, "--rules")]
    known = None if trust is None else parse_trusted(trust)
    oldest_ms = None if not_older_than is None else parse_moment(not_older_than, "--not-older-than")
    data = _read(file)
    try:
        if receipts.is_file(data):
            if known is not None:
                raise UsageError("a receipt shows no other statements", hint="leave out --trust")
            names = _names(genesis, given)
            return _receipt(data, chain, digest, oldest_ms, names, output)
        for option, of_receipt in (("--digest", digest), ("--rules", rules)):
            if of_receipt is not None:
                raise UsageError(f"{option} is of a receipt, and this is none")
        return _verify(data, chain, known, oldest_ms, as_, strict, output)
    except DecodeError as error:
        hint = _what_to_do(data) if error.hint == error.advice else error.hint
        raise DecodeError(f"{file}: {error.message}", hint=hint) from error


def _verify(
    data: bytes,
    chain: bytes,
    known: tuple[int, bytes] | None,
    oldest_ms: int | None,
    as_: str | None,
    strict: bool,
    output: Output,
) -> int:
    if is_file(data):
        if known is not None:
            raise UsageError("a disclosure shows no other statements", hint="leave out --trust")
        return verify_disclosure(
            data, chain, output, reader=as_, strict=strict, oldest_ms=oldest_ms
        )
    try:
        found = verify(data, chain, known=known)
    except FailedError as error:
        return _invalid(output, error.stage, error.message, error.hint)
    if oldest_ms is not None and found.newest.time_ms < oldest_ms:
        said = f"it is as of {time_word(found.newest.time_ms)}, older than you allow"
        return _invalid(output, "since", said, "ask for the bundle anew")
    warnings = _warnings(found, as_)
    if strict and warnings:
        return _invalid(output, "file", warnings[0], "without --strict this is a warning")
    if strict and found.bundle.audience and as_ is None:
        said = f"it is meant for {found.bundle.audience}, and you have not said who you are"
        return _invalid(output, "file", said, "say it with --as")
    show.emit(output, _value(found, warnings), _report(found, warnings))
    return 0


def _names(genesis: str, given: Sequence[Definition]) -> dict[bytes, str]:
    """Return names of actions by id, of the rule sets of the founding and of those given.

    Nobody has to be believed: the id that a decision shows is a hash of the action with its name.
    """
    founded: Sequence[Definition] = ()
    if HASH.fullmatch(genesis) is None:
        encoded = genesis_file.decode(genesis_bytes(Reach(genesis=Path(genesis)))).rules
        founded = [decode_definition(each) for each in encoded]
    with_given = {each.domain: each for each in (*founded, *given)}
    books = [compile_all(each)[0] for each in (founded, [*with_given.values()])]
    return {id_: name for book in books for id_, name in show.names_in(book).items()}


def _receipt(
    data: bytes,
    chain: bytes,
    digest: str | None,
    oldest_ms: int | None,
    names: show.Actions,
    output: Output,
) -> int:
    if digest is not None and parse_digest(digest, "digest of a receipt") != receipts.digest(data):
        return _invalid(output, "file", "it is another file than the paper is of", "")
    try:
        found = receipts.verify(data, chain)
    except FailedError as error:
        return _invalid(output, error.stage, error.message, error.hint)
    if oldest_ms is not None and found.newest.time_ms < oldest_ms:
        said = f"it is as of {time_word(found.newest.time_ms)}, older than you allow"
        return _invalid(output, "since", said, "ask for it anew with `comity receipt`")
    decision = found.decision
    value = {
        "valid": True,
        "network": found.network,
        **show.decision_value(decision),
        "actions": [
            f"{domain}.{names[id_]}" if id_ in names else None for domain, _, id_ in decision.rules
        ],
        "digest": word(found.digest),
        "records": [show.entry_value(each, None) for each in found.records],
        "as_of": {"height": found.newest.height, "time_ms": found.newest.time_ms},
    }
    rows: list[Any] = [show.decision_table(decision, names)]
    for record in found.records:
        rows += [Text(), show.entry_table(record, None)]
    title = f"VALID   a receipt of the network {found.network}"
    foot = f"digest {word(found.digest)}"
    show.emit(output, value, show.titled(title, Group(*rows), foot))
    return 0


def _read(file: Path) -> bytes:
    with file.open("rb") as handle:  # a device or pipe has no size beforehand
        data = handle.read(BUNDLE_BYTES_MAX + 1)
    if len(data) > BUNDLE_BYTES_MAX:
        said = f"more than {BUNDLE_BYTES_MAX} bytes"
        raise DecodeError(said, path=str(file), hint="no evidence file is so long: name another")
    return data


def _what_to_do(data: bytes) -> str:
    """Return what helps with a file that is malformed, by the mark in its first part."""
    begin = data[:MANIFEST_BYTES_MAX]
    for mark, command in _OTHER_FILES:
        if mark in begin:
            return f"`{command}` checks such a file"
    return "it is damaged, or no evidence file: ask whoever made it for another copy"


def _invalid(output: Output, stage: str, message: str, hint: str) -> int:
    value = {"valid": False, "stage": stage, "message": message, "hint": hint}
    rows = [("fails at", stage), ("because", message), ("", hint)]
    show.emit(output, value, show.titled("NOT VALID", show.pairs(rows)))
    return 1


def _warnings(found: Verified, audience: str | None) -> list[str]:
    bundle, warnings = found.bundle, []
    if bundle.audience and audience is not None and bundle.audience != audience:
        warnings.append(f"it is meant for {bundle.audience}, not for {audience}")
    if bundle.expires_ms is not None and bundle.expires_ms < time.time_ns() // 1_000_000:
        warnings.append(f"its use ended {time_word(bundle.expires_ms)}")
    if found.holder is None:
        warnings.append("nobody signed for giving it out")
    return warnings


# --- words --------------------------------------------------------------------------------------


def _actions(found: Verified) -> list[str]:
    return [f"{call.domain}.{call.action}" for call in found.transaction.calls]


def _report(found: Verified, warnings: Sequence[str]) -> Any:
    header, decision = found.header, found.decision
    title = (
        f"VALID   {', '.join(_actions(found))} {_STATES[header.state]} "
        f"at height {header.height} ({time_word(header.time_ms)})"
    )
    rows: list[tuple[str, Any]] = []
    if header.state == decisions.REFUSED:
        why = sentence(decision.code.name, decision.detail)
        rows.append(("refused", f"{decision.code.name}: {why}" if why else decision.code.name))
    rows += [("rules", each) for each in _rules(found)]
    rows += _authority(found)
    rows += [("read", each) for each in _read_words(found)]
    rows += [("wrote", each) for each in _written(found)]
    rows += [("moved", each) for each in _moved(found)]
    if found.reason:
        rows.append(("reason", found.reason))
    judged = "run again on what it shows, the rules come to the same decision"
    if not found.judged:
        judged = "attested by the nodes: it rests on what no decision shows, such as a balance"
    rows.append(("judged", judged))
    rows.append(("since then", _since(found)))
    if found.holder is not None:
        purpose = f" for {found.bundle.purpose}" if found.bundle.purpose else ""
        rows.append(("given out by", f"key {word(found.holder)}{purpose}"))
    if found.bundle.audience:
        rows.append(("meant for", found.bundle.audience))
    rows += [("warning", Text(each, style="yellow")) for each in warnings]
    return show.titled(title, show.pairs(rows))


def _rules(found: Verified) -> list[str]:
    rows = []
    for (domain, number, _), name in zip(found.header.actions, _actions(found), strict=False):
        head = found.heads.get(domain)
        since = next((at for n, at in head.active if n == number), None) if head else None
        active = "" if since is None else f" (active since {time_word(since)})"
        rows.append(f"{domain}#{number} {name.partition('.')[2]}{active}")
    return list(dict.fromkeys(rows))


def _authority(found: Verified) -> list[tuple[str, str]]:
    value: Any = found.decision.value("authority")
    if value is None:
        return []
    author, powers, cosigners, *filled = value
    rows: list[tuple[str, str]] = []
    lacking = found.decision.code == Code.NOT_AUTHORIZED
    for role, _, *chain in [] if lacking else powers:
        under = f", under a grant of {chain[0]}" if chain else ""
        what = f", {role}" if role else ""
        rows.append(("authority", f"principal {_short(author[0])}{what} at {author[1]}{under}"))
    if not rows and author is not None:
        rows.append(("author", f"principal {_short(author[0])} at {author[1]}"))
    people = (author, *cosigners)
    for _, _, at, power in filled[0] if filled else ():
        principal, agency, _ = people[at]
        rows.append(("approved", f"principal {_short(principal)}, {power[0]} at {agency}"))
    rows += [("approved in", f"transaction {word(txid)}") for txid in _approvals(found)]
    if cosigners and not filled:
        rows += [("signed too", f"principal {_short(each[0])} at {each[1]}") for each in cosigners]
    return list(dict.fromkeys(rows))


def _approvals(found: Verified) -> list[bytes]:
    """Return the transactions in which a stored proposal was approved: bundles of their own."""
    for leaf in found.bundle.witness:
        if not isinstance(leaf, SingleLeaf) or leaf.space != proposals.SPACE:
            continue
        if leaf.components == [found.header.txid]:
            stored = proposals.Proposal(*codec.parse(leaf.value, leaf.space))
            given = [bytes(row[4]) for row in stored.approvals]
            return [each for each in dict.fromkeys(given) if each != found.header.txid]
    return []


def _short(value: bytes) -> str:
    return word(value, short=True)


def _read_words(found: Verified) -> list[str]:
    rows = []
    absent = 0
    for leaf in found.bundle.witness:
        if isinstance(leaf, RecordLeaves):
            rows.append(_record_word(found, leaf))
        elif leaf.space in ("hold", "holds"):
            rows.append(_hold_word(leaf))
    value: Any = found.decision.value("reads")
    if value is not None:
        full = value[0]
        absent = sum(1 for at in range(0, len(full), 64) if full[at + 32 : at + 64] == bytes(32))
    if absent:
        rows.append(f"{absent} {'leaf' if absent == 1 else 'leaves'} that did not exist")
    if found.bundle.attested:
        names = ", ".join(place_word("account", id_) for id_ in found.bundle.attested)
        rows.append(f"{names}: there, with room for this; the balance is not shown")
    return rows


def _record_word(found: Verified, leaf: RecordLeaves) -> str:
    names = found.names.get(str(leaf.components[0]), ())
    layout = names[leaf.definition - 1] if len(names) >= leaf.definition else ()
    fields = [
        f"{name} {_value_word(item[2])}"
        for name, item in zip(layout, leaf.leaves, strict=False)
        if isinstance(item, tuple) and len(item) == 3 and name not in KERNEL_LEAVES
    ]
    held: Any = leaf.leaves[-1]
    holds = ""
    if isinstance(held, tuple) and len(held) == 3 and not codec.parse(held[2]):
        holds = "; no hold on it"
    shown = f": {', '.join(fields)}" if fields else ""
    return f"{place_word('record', leaf.components, short=True)} v{leaf.version}{shown}{holds}"


def _value_word(data: bytes) -> str:
    return word(codec.parse(data, "value"), short=True)


def _hold_word(leaf: SingleLeaf) -> str:
    value: Any = leaf_value(leaf.space, leaf.components, codec.parse(leaf.value, leaf.space))
    if leaf.space == "hold":
        return f"hold {_short(value.id)} of {value.agency}, placed {time_word(value.placed_ms)}"
    return f"holds on {place_word(str(leaf.components[0]), _components(leaf), short=True)}"


def _components(leaf: SingleLeaf) -> Sequence[Value]:
    second = leaf.components[1] if len(leaf.components) > 1 else []
    return second if isinstance(second, list) else [second]


def _entries(found: Verified, kind: str) -> list[tuple[str, Any]]:
    return [
        (name.partition(":")[2], row)
        for name in found.decision.names
        if name.startswith(kind)
        for row in _rows(found.decision.value(name))
    ]


def _rows(value: Any) -> list[Any]:
    return list(value)


def _written(found: Verified) -> list[str]:
    rows = []
    for domain, ((space, components), old, new, _, _) in _entries(found, "writes:"):
        if domain == CHARTER or space in ("record", "reservation", "account"):
            step = "made" if not old else f"v{old} → v{new}"
            rows.append(f"{place_word(space, components, short=True)} {step}")
    return rows


def _moved(found: Verified) -> list[str]:
    return [
        f"{delta:+} {place_word('account', id_, short=True)}"
        for _, (_, id_, delta, *_) in _entries(found, "moves:")
    ]


def _since(found: Verified) -> str:
    at = f"as of height {found.newest.height}, {time_word(found.newest.time_ms)}"
    if found.taken_back is None:
        return f"not taken back ({at})"
    return f"taken back by {_short(found.taken_back)} ({at})"


def _value(found: Verified, warnings: Sequence[str]) -> dict[str, Any]:
    header = found.header
    return {
        "valid": True,
        "network": found.network,
        "txid": header.txid,
        "actions": _actions(found),
        "state": decisions_word(header.state),
        "code": found.decision.code.name,
        "detail": plain(found.decision.detail),
        "height": header.height,
        "index": header.index,
        "time_ms": header.time_ms,
        "judged": found.judged,
        "approved_in": _approvals(found),
        "rules": {domain: number for domain, number, _ in header.actions},
        "taken_back_by": found.taken_back,
        "as_of": {"height": found.newest.height, "time_ms": found.newest.time_ms},
        "holder": found.holder,
        "purpose": found.bundle.purpose,
        "audience": found.bundle.audience,
        "until_ms": found.bundle.expires_ms,
        "warnings": list(warnings),
    }


def decisions_word(state: int) -> str:
    """Return the word for a decision's state."""
    return {decisions.APPLIED: "applied", decisions.REFUSED: "refused"}.get(state, "proposed")


COMMANDS: Final = ((verify_, EXAMPLES),)
"""What the command line offers of this module, with the end of each help text."""
