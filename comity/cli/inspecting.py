"""``comity node inspect``: what a stopped node has on disk, and what a start would do with it.

Loads ``node`` when it is called. It adds to the commands of ``comity.cli.node``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Group
from rich.text import Text

from comity.cli.node import CONFIG, app, file_of
from comity.cli.options import OUTPUT, Output, Reach, UsageError, examples, genesis_bytes
from comity.cli.show import emit, pairs, table, titled
from comity.cli.values import time_word
from comity.words import word

if TYPE_CHECKING:
    from node.inspecting.main import Report
    from node.inspecting.promises import CertificateReport, RecordReport, Signed

KIB, MIB, GIB = 2**10, 2**20, 2**30


@app.command(
    help_epilogue=examples(
        "comity node inspect /etc/comity",
        "comity node inspect /backup/old/data --genesis genesis.cbor",
        "comity node inspect /etc/comity --json | jq .start",
    )
)
def inspect(
    folder: Annotated[
        Path, Parameter(help="The node's configuration or its folder, or a data folder.")
    ] = CONFIG,
    /,
    *,
    genesis: Annotated[
        Path | None, Parameter(help="Genesis file, where a data folder is named.")
    ] = None,
    output: Output = OUTPUT,
) -> int:
    """Show what a stopped node has on disk, and what a start would do. Nothing is changed.

    Log, store, promises of the key, certificates, committee, sealed values; damaged parts as far as
    they can be read. Exit status 1 where a start would be refused.
    """
    from node.inspecting.main import inspect as look
    from node.inspecting.main import of_configuration

    file = file_of(folder)
    if file.is_file():
        config, data = of_configuration(file, os.environ)
        place = genesis or config.path(config.node.genesis)
        found = look(data, config, genesis_bytes(Reach(genesis=place)))
    elif folder.is_dir():
        named = None if genesis is None else genesis_bytes(Reach(genesis=genesis))
        found = look(folder, None, named)
    else:
        raise UsageError(f"there is no {folder}", hint="name a node's configuration or its data")
    emit(output, found.value(), _shown(found))
    return 0 if found.start.starts else 1


def _shown(found: Report) -> Group:
    parts: list[tuple[str, Any]] = [
        ("what a start would do", _start(found)),
        ("the store", _store(found.store)),
        ("the log", _log(found)),
        ("what the key has promised, by the log", _record(found)),
        ("what it has signed, by its marks", _marks(found)),
        ("last certificates", _certificates(found)),
        ("keys and committee", _committee(found)),
        ("sealed values", _sealed(found.sealed)),
    ]
    lines: list[Any] = [pairs(_head(found))]
    for title, body in parts:
        lines += [Text(), titled(title, body)]
    return Group(*lines)


def _head(found: Report) -> list[tuple[str, Any]]:
    formats = ", ".join(
        f"{name.removesuffix('_format')} {each}"
        for name, each in found.software.items()
        if name.endswith("_format")
    )
    software = f"{found.software['version']}: executors up to {found.software['executor']}"
    return [
        ("data", str(found.folder)),
        ("network", found.network or "not known without a genesis file"),
        ("chain", found.chain or "not known"),
        ("this software", f"{software}; formats {formats}"),
    ]


def _start(found: Report) -> Any:
    start = found.start
    words = {True: "yes", False: "no", None: "not known here"}
    style = "green" if start.starts else "red"
    rows: list[tuple[str, Any]] = [
        ("starts", Text("yes" if start.starts else f"refuses ({start.code})", style=style))
    ]
    if start.starts:
        rows.append(("votes", words[start.votes]))
    rows.append(("because", start.why))
    if start.cuts_bytes:
        rows.append(("cuts", f"{_size(start.cuts_bytes)} of a torn group at the log's end"))
    if start.replay is not None:
        first, last = start.replay
        upto = "none certified" if start.certified is None else f"certified to {start.certified}"
        rows.append(("executes again", f"heights {first} to {last}, {upto}"))
    elif start.starts:
        rows.append(("executes again", "nothing: the log has no block above the store"))
    return pairs([*rows, *(("then", each) for each in start.notes)])


def _store(store: Mapping[str, Any]) -> Any:
    if not store.get("present"):
        return Text("none")
    rows: list[tuple[str, Any]] = []
    if store.get("problem"):
        rows.append(("problem", Text(": ".join(store["problem"]), style="red")))
    rows.append(("file", f"{_size(store['size_bytes'])}, {_size(store.get('used_bytes'))} used"))
    if store.get("height") is not None:
        when = f" of {time_word(store['time_ms'])}" if "time_ms" in store else ""
        rows.append(("height", f"{store['height']}{when}"))
    for name, key in (
        ("state root", "state_root"),
        ("leaves", "leaves"),
        ("epoch", "epoch"),
        ("executor", "executor"),
        ("format", "format"),
        ("first height", "first_height"),
        ("past from", "past_from"),
        ("private parts from", "private_from"),
    ):
        if store.get(key) is not None:
            value = store[key]
            rows.append((name, bytes.fromhex(value) if key == "state_root" else value))
    if store.get("restored"):
        rows.append(("restored", f"from a backup at height {store['restored']['height']}"))
    body: list[Any] = [pairs(rows)]
    if "tables" in store:
        shown = table("table", "rows", "size")
        for name, each in store["tables"].items():
            shown.add_row(name, str(each["rows"]), _size(each["bytes"]))
        body += [Text(), shown]
    return Group(*body)


def _log(found: Report) -> Any:
    log = found.log
    if not log.present:
        return Text("none")
    rows: list[tuple[str, Any]] = [
        ("offsets", f"{log.start} to {log.end}"),
        ("torn tail", _size(log.torn_bytes)),
        ("room in advance", _size(log.reserved_bytes)),
        ("identity", log.identity),
    ]
    for each in log.damage:
        said = f"at offset {each.offset} in {each.segment}: {each.what}"
        rows.append(("damage", Text(said, style="red")))
    if log.problem is not None:
        rows.append(("problem", Text(": ".join(log.problem), style="red")))
    rows += [("of another log", name) for name in log.other_segments]
    shown = table("segment", "from", "to", "size", "format", "entries")
    for part in log.segments:
        entries = ", ".join(f"{name} {count}" for name, count in part.entries.items()) or "-"
        kind = "?" if part.format is None else str(part.format)
        shown.add_row(
            part.name, str(part.start), str(part.end), _size(part.size_bytes), kind, entries
        )
    return Group(pairs(rows), Text(), shown)


def _record(found: Report) -> Any:
    record = found.record
    if record is None:
        return Text("nothing")
    rows: list[tuple[str, Any]] = [
        ("epoch and round", f"{record.epoch}, {record.round}"),
        ("last vote", _signed(record.last_vote)),
        ("last timeout", _signed(record.last_timeout)),
        ("last proposal", _signed(record.last_proposal)),
        ("commit votes", "; ".join(map(_signed, record.commit_votes)) or "-"),
        ("binding timeouts", _timeouts(record)),
        ("commit floor", record.commit_floor),
        ("written at", f"offset {record.offset}{' behind damage' * record.behind_damage}"),
    ]
    return pairs(rows)


def _timeouts(record: RecordReport) -> str:
    return ", ".join(f"round {at} with {high}" for at, high in record.timeouts) or "-"


def _signed(message: Signed | None) -> str:
    if message is None:
        return "-"
    said = f"round {message.round}"
    if message.height is not None:
        said += f", height {message.height}"
    if message.high_round is not None:
        said += f", highest certificate of round {message.high_round}"
    return said


def _marks(found: Report) -> Any:
    if not found.marks:
        return Text("no mark here")
    shown = table("mark", "key", "last signed", "settled", "log at least", "state")
    for each in found.marks:
        if each.problem is not None:
            shown.add_row(each.file, "?", "?", "?", "?", Text(each.problem[1], style="red"))
            continue
        last = ", ".join(
            f"{name.replace('_', ' ')} {epoch}/{round_}"
            for name, (epoch, round_) in (each.last or {}).items()
        )
        settled = "/".join(map(str, each.settled or ()))
        state = Text("promises lost", style="red") if each.lost else Text("whole")
        shown.add_row(
            each.file,
            word(each.key, short=True),
            last or "nothing",
            settled,
            str(each.log_synced),
            state,
        )
    return shown


def _certificates(found: Report) -> Any:
    if not found.certificates:
        return Text("none")
    shown = table("certificate", "epoch", "round", "height", "signed by")
    for each in found.certificates:
        height = "-" if each.height is None else str(each.height)
        shown.add_row(each.kind, str(each.epoch), str(each.round), height, _signers(found, each))
    return shown


def _signers(found: Report, certificate: CertificateReport) -> str:
    for committee in found.committees:
        if committee.epoch == certificate.epoch:
            names = [each.agency for each in committee.validators]
            return ", ".join(
                names[at] if at < len(names) else str(at) for at in certificate.signers
            )
    return ", ".join(map(str, certificate.signers))


def _committee(found: Report) -> Any:
    keys = table("key", "held by", "place")
    for each in found.seats:
        place = "none that is known"
        if each.agency is not None:
            place = f"{each.agency}, validator {each.validator} of epoch {each.epoch}"
        keys.add_row(word(each.key), each.held, place)
    parts: list[Any] = [keys if found.seats else Text("no key is known")]
    if found.committees:
        newest = found.committees[-1]
        names = ", ".join(each.agency for each in newest.validators)
        said = f"epoch {newest.epoch}, {newest.quorum} of {newest.size}: {names}"
        parts += [Text(), Text(said)]
    return Group(*parts)


def _sealed(sealed: Mapping[str, Any] | None) -> Any:
    if sealed is None:
        return Text("none")
    rows: Iterable[tuple[str, Any]] = [
        (name, _size(each) if name == "bytes" else each)
        for name, each in sealed.items()
        if name != "problem"
    ]
    problem = sealed.get("problem")
    said = [] if problem is None else [("problem", Text(": ".join(problem), style="red"))]
    return pairs([*said, *rows])


def _size(count: int | None) -> str:
    if count is None:
        return "?"
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"
