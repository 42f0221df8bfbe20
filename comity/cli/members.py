"""``comity network members | propose-member | leave | rotate | object``: the committee changes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.console import Group
from rich.text import Text

from comity import founding, keys
from comity.ceremony import Address, spoken
from comity.cli.ceremony import SUFFIX, SignerFile, address_of, doors, key_of, lay_down, read_file
from comity.cli.network import app
from comity.cli.options import (
    OUTPUT,
    REACH,
    Output,
    Reach,
    UsageError,
    ask_passphrase,
    examples,
    with_client,
)
from comity.cli.proposals import show_act
from comity.cli.refusals import sentence
from comity.cli.show import emit, out, pairs, table, titled
from comity.cli.values import parse_value, time_word
from comity.client import Client
from comity.errors import DraftError
from comity.files import as_owner, undoing
from comity.joining import renewed
from comity.members import (
    Changed,
    CommitteeChange,
    Members,
    ProposedChange,
    read_member,
    replacement,
    wanted_words,
)
from comity.results import Decision
from comity.words import word
from consensus import keyfile, memberfile
from consensus.committee import Committee, Validator
from consensus.errors import PassphraseError
from consensus.keyfile import KeyPair
from consensus.ledger.types import Type

Reason = Annotated[str, Parameter(help="Why, in words.")]
From = Annotated[
    str | None,
    Parameter(
        name="--from",
        help="Time with its offset, or ms, from which on it holds; else as soon as the notice is "
        "over, which begins when the last agency of the quorum consents.",
    ),
]
KEEP: Final = ("validator", "node")


@app.command(help_epilogue=examples("comity network members", "comity network members --json"))
def members(*, reach: Reach = REACH, output: Output = OUTPUT) -> None:
    """Show the committee, the change that is to come, and the proposed ones with who consented.

    Committee and agreed changes are proved. Without a key, only the committee is shown.
    """

    async def work(client: Client) -> None:
        if client.key is None:
            committee = await client.committee()
            note = Text("what is to come is shown to those who have a key: add --key")
            emit(output, _value(committee), Group(_committee_table(committee, None), Text(), note))
            return
        found = await client.members()
        proposed = await client.proposed_changes()
        value = {
            **_value(found.committee),
            "height": found.height,
            "latest": found.latest,
            "coming": None if found.coming is None else _change_value(found.coming),
            "proposed": [_proposed_value(each) for each in proposed],
        }
        parts: list[Any] = [_committee_table(found.committee, found.height)]
        if found.coming is not None:
            parts += [Text(), _coming_table(found, found.coming)]
        for each in proposed:
            parts += [Text(), _proposed_table(each, found.committee, found.notice_ms)]
        if found.coming is None and not proposed:
            parts += [Text(), Text("no change is agreed or proposed")]
        emit(output, value, Group(*parts))

    with_client(reach, work)


@app.command(
    name="propose-member",
    help_epilogue=examples(
        "comity network propose-member health.member --title 'Health Agency' --scope roles=health.",
        "comity network propose-member registry.member --reason 'its machine is lost'",
    ),
)
def propose_member(
    file: Path,
    /,
    *,
    title: Annotated[
        str | None, Parameter(help="Of an agency that is not in the ledger yet.")
    ] = None,
    scope: Annotated[
        tuple[str, ...],
        Parameter(help="NAME=VALUE of the role that its people get; may be repeated."),
    ] = (),
    from_: From = None,
    reason: Reason = "",
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Propose to admit the agency of a member file, or to replace what a member has.

    The other agencies consent with comity approve.

    Args:
        file: that the agency made and sent; compare its hash by word of mouth.
    """
    data = read_file(file)
    scopes = [scope_of(each) for each in scope]
    from_ms = _from_ms(from_)

    async def work(client: Client) -> int:
        decision = await client.propose_member(
            data, title=title, scope=scopes, from_ms=from_ms, reason=reason
        )
        return await _said(client, decision, output, memberfile.digest(data))

    return with_client(reach, work)


@app.command(help_epilogue=examples("comity network leave registry --reason 'merged into tax'"))
def leave(
    agency: str,
    /,
    *,
    from_: From = None,
    reason: Reason = "",
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Propose that an agency's validator leaves the committee.

    Its people and records stay in the ledger; its node can follow on.

    Args:
        agency: whose validator leaves.
    """
    from_ms = _from_ms(from_)

    async def work(client: Client) -> int:
        decision = await client.propose_leave(agency, from_ms=from_ms, reason=reason)
        return await _said(client, decision, output, None)

    return with_client(reach, work)


@app.command(
    help_epilogue=examples(
        "comity network rotate registry                       new keys of validator and node",
        "comity network rotate registry --keep validator      a new node key and certificate",
        "comity network rotate registry --keep validator --keep node --peers 10.1.0.9:7400",
        "comity network rotate registry --signer next/signer.toml  to the key of the next signer",
    )
)
def rotate(
    folder: Path,
    /,
    *,
    keep: Annotated[
        tuple[str, ...], Parameter(help="validator or node: this key stays; may be repeated.")
    ] = (),
    peers: Annotated[str | None, Parameter(help="New host:port for other nodes.")] = None,
    clients: Annotated[str | None, Parameter(help="New host:port for clients.")] = None,
    passphrase_file: Annotated[
        Path | None, Parameter(help="Seal the new keys with the passphrase in it.")
    ] = None,
    signer: SignerFile = None,
    from_: From = None,
    reason: Reason = "",
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Make the next keys of a node, in its folder, and the member file; with a key, propose it.

    The node goes on with its present keys and takes the next ones in the epoch that names them. For
    a machine that is lost, enrol again with the genesis file and propose that member file. Where a
    signer holds the validator key, its configuration says which key there is from then on.

    Args:
        folder: of the node: with node.toml and keys.
    """
    from node.network.tls import make_certificate

    for each in keep:
        if each not in KEEP:
            raise UsageError(f"--keep {each!r} is no key of a node", hint="validator or node")
    agency = _agency(folder, signer, keep)
    passphrase = None if passphrase_file is None else keys.read_passphrase(passphrase_file)
    with as_owner(folder / "keys"):
        kept = {name: _key(folder / "keys" / f"{name}.key") for name in dict.fromkeys(keep)}
        if len(kept) + (signer is not None) < len(KEEP):  # else none is made
            _check_passphrase(folder / "keys", passphrase)
    from_ms = _from_ms(from_)
    name = folder / f"{agency}{SUFFIX}"

    async def work(client: Client) -> int:
        before = _member_of(await client.committee(), agency)
        address = _address(before, peers, clients)
        with key_of(signer) as holder:
            made = renewed(
                client.chain,
                before,
                address,
                kept,
                make_certificate=make_certificate,
                holder=holder,
            )
        changes = [replacement(made.member, read_member(made.member, client.chain))]
        if client.key is not None:
            found = await client.simulate_changes(changes, from_ms=from_ms)
            if found.state == "refused":
                raise DraftError(
                    f"the change would be refused, {found.code}: "
                    f"{sentence(str(found.code), found.detail)}",
                    hint="no key was made; name the key of an administrator with --key, or none "
                    "and have one propose the member file",
                )
        for key in made.files:
            place = folder / "keys" / f"{key}.key"
            if place.exists():
                raise DraftError(
                    f"{place} exists: keys were made for a change already",
                    hint=f"propose {name}, or move the file away to make others",
                )
        places = {folder / "keys" / f"{key}.key": pair for key, pair in made.files.items()}
        with as_owner(folder / "keys"), undoing(list(places)):
            for place, pair in places.items():
                keys.create(place, pair, passphrase)
            lay_down(folder, {name.name: made.member}, replace=True)
        digest = memberfile.digest(made.member)
        if client.key is not None:
            decision = await client.propose_changes(changes, from_ms=from_ms, reason=reason)
            return await _said(client, decision, output, digest)
        value = {
            "agency": agency,
            "member": str(name),
            "digest": digest,
            "keys": sorted(str(folder / "keys" / f"{each}.key") for each in made.files),
        }
        shown = [("agency", agency), ("send", str(name)), ("its hash", spoken(digest))]
        step = Text(f"next: an administrator proposes it: comity network propose-member {name}")
        emit(output, value, Group(pairs(shown), Text(), step))
        return 0

    return with_client(reach, work)


@app.command(name="object", help_epilogue=examples("comity network object 3"))
def object_(
    number: int,
    /,
    *,
    reason: Reason = "",
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Object, for one's agency, to an agreed change of the committee before its time.

    Args:
        number: of the change, as comity network members shows it.
    """

    async def work(client: Client) -> int:
        decision = await client.object_committee(number, reason=reason)
        return show_act(decision, (await client.rules()).book, output)

    return with_client(reach, work)


# --- what is typed ------------------------------------------------------------------------------


def scope_of(word: str) -> tuple[str, str]:
    """Return name and value of a scope that was typed."""
    name, equals, value = word.partition("=")
    if not name or not equals:
        raise UsageError(f"--scope {word!r} is not NAME=VALUE", hint="as roles=health.")
    return name, value


def _from_ms(word: str | None) -> int | None:
    if word is None:
        return None
    found: int = parse_value(word, Type("time"), "--from")
    return found


def _agency(folder: Path, signer: Path | None, keep: Sequence[str]) -> str:
    """Return whose node's folder it is; refuse where it is not plain which validator key is meant.

    Raises:
        UsageError: a signer holds it and is not named, or two keys are.
    """
    from node import config

    found = config.load(folder / founding.CONFIG_NAME, os.environ)
    if found.signer.socket and signer is None:
        raise UsageError(
            f"a signer holds the validator key of {folder}",
            hint="name its configuration with --signer; to exchange the key, that of the next one",
        )
    if signer is not None and "validator" in keep:
        raise UsageError(
            "--signer and --keep validator both say which validator key there is",
            hint="leave --keep validator out: the key of the signer in use stays",
        )
    return found.node.agency


def _check_passphrase(folder: Path, passphrase: str | None) -> None:
    """Refuse next keys that the node could not open, or that anybody could who has the disk.

    A node opens all its key files with one passphrase, and the next ones when their epoch begins:
    too late to find out.

    Raises:
        UsageError: the keys in use are under another passphrase, under none, or under one and the
            next ones would not be.
    """
    present = [folder / f"{each}.key" for each in KEEP if (folder / f"{each}.key").exists()]
    sealed = [each for each in present if keyfile.describe(keys.read_file(each)).sealed]
    if passphrase is None and sealed:
        raise UsageError(
            f"{sealed[0]} is under a passphrase, and the next keys would be under none",
            hint="name the file with the same passphrase in --passphrase-file",
        )
    if passphrase is not None and not sealed:
        raise UsageError(
            f"the keys in {folder} are under no passphrase, so the node could not open the next",
            hint="leave --passphrase-file out, or seal the present ones first: "
            "`comity keys passphrase`, and docs/keys.md for how the node is told",
        )
    for each in sealed:
        try:
            keyfile.read(keys.read_file(each), passphrase)
        except PassphraseError as error:
            raise UsageError(
                f"the passphrase does not open {each}, and a node has one for all its keys",
                hint="give the one that the keys in use are under",
            ) from error


def _key(path: Path) -> KeyPair:
    return keys.open_pair(path, ask=keys.given_in(os.environ) or ask_passphrase)


def _member_of(committee: Committee, agency: str) -> Validator:
    for each in committee.validators:
        if each.agency == agency:
            return each
    names = ", ".join(each.agency for each in committee.validators)
    raise DraftError(f"{agency!r} has no validator", hint=f"members are {names}")


def _address(before: Validator, peers: str | None, clients: str | None) -> Address:
    peer = (before.peer_host, before.peer_port)
    client = (before.client_host, before.client_port)
    return doors(
        peer if peers is None else address_of(peers, "--peers"),
        client if clients is None else address_of(clients, "--clients"),
    )


# --- what is shown ------------------------------------------------------------------------------


async def _said(client: Client, decision: Decision, output: Output, digest: bytes | None) -> int:
    """Show what became of a proposal, and what the others do now."""
    status = show_act(decision, (await client.rules()).book, output)
    if decision.state == "proposed" and not output.json:
        lines = [f"the others consent with: comity approve {word(decision.txid)}"]
        if digest is not None:
            lines.insert(0, f"hash of the file, to compare by word of mouth: {spoken(digest)}")
        lines.append("who has consented shows: comity network members")
        out().print(Text("\n" + "\n".join(lines)), soft_wrap=True)
    return status


def _value(committee: Committee) -> dict[str, Any]:
    return {
        "epoch": committee.epoch,
        "quorum": committee.quorum,
        "validators": [_validator_value(each) for each in committee.validators],
    }


def _validator_value(each: Validator) -> dict[str, Any]:
    return {
        "agency": each.agency,
        "key": each.key,
        "node_key": each.node_key,
        "peers": f"{each.peer_host}:{each.peer_port}",
        "clients": f"{each.client_host}:{each.client_port}",
    }


def _committee_table(committee: Committee, height: int | None) -> Any:
    shown = table("agency", "peers", "clients", "validator key", "node key")
    for each in committee.validators:
        shown.add_row(
            each.agency,
            f"{each.peer_host}:{each.peer_port}",
            f"{each.client_host}:{each.client_port}",
            word(each.key, short=True),
            word(each.node_key, short=True),
        )
    title = f"epoch {committee.epoch}: {committee.quorum} of {committee.size} signatures certify"
    return titled(title if height is None else f"{title}; as of height {height}", shown)


def _change_value(change: CommitteeChange) -> dict[str, Any]:
    return {
        "number": change.number,
        "state": change.state,
        "from_ms": change.from_ms,
        "changes": [
            {
                "kind": each.kind,
                "agency": each.agency,
                "validator": None if each.validator is None else _validator_value(each.validator),
            }
            for each in change.changes
        ],
        "steps": [
            [each.what, each.txid, each.principal, each.agency, each.time_ms]
            for each in change.steps
        ],
    }


def _proposed_value(found: ProposedChange) -> dict[str, Any]:
    return {
        "proposal": found.proposed.txid,
        "number": found.number,
        "from_ms": found.from_ms,
        "changes": None
        if found.wanted is None
        else [{"kind": each.kind, "agency": each.agency} for each in found.wanted],
        "consented": list(found.consented),
        "missing": list(found.missing),
        "needed": found.needed,
        "expires_ms": found.proposed.expires_ms,
    }


def _coming_table(found: Members, change: CommitteeChange) -> Any:
    objected = [each.agency for each in change.steps if each.what == "objected"]
    left = found.committee.faulty_max + 1 - len(objected)
    rows: list[tuple[str, Any]] = [
        ("change", str(change.number)),
        ("what", "\n".join(_changed_words(change.changes))),
        ("holds from", time_word(change.from_ms)),
        ("objected", f"{', '.join(objected) or 'nobody'}; {left} more would end it"),
        ("to object", f"comity network object {change.number}"),
    ]
    return titled("agreed, and to come", pairs(rows))


def _changed_words(changes: Sequence[Changed]) -> list[str]:
    words = {"admit": "is admitted", "leave": "leaves", "replace": "has another validator"}
    lines = []
    for each in changes:
        lines.append(f"{each.agency} {words.get(each.kind, each.kind)}")
        if each.validator is not None:
            lines.append(f"  validator key: {word(each.validator.key)}")
            lines.append(f"  peers: {each.validator.peer_host}:{each.validator.peer_port}")
    return lines


def _proposed_table(found: ProposedChange, committee: Committee, notice_ms: int) -> Any:
    what = ["this key may not read it"]
    if found.wanted is not None:
        what = wanted_words(found.wanted, committee)
    days = f"{notice_ms / 1000:g} s after the last consent"
    rows: list[tuple[str, Any]] = [
        ("proposal", found.proposed.txid),
        ("by", found.proposed.agency),
        ("what", "\n".join(what)),
        ("consented", ", ".join(found.consented) or "nobody with a seat"),
        ("missing", f"{found.needed} more of {', '.join(found.missing)}"),
        ("holds from", days if found.from_ms is None else time_word(found.from_ms)),
        ("expires", time_word(found.proposed.expires_ms)),
        ("to consent", f"comity approve {word(found.proposed.txid)}"),
    ]
    return titled("proposed; from one node's index", pairs(rows))
