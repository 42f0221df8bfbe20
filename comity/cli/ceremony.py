"""``comity network terms | enrol | merge``: found a network with nobody to trust, or join one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from rich.console import Group
from rich.text import Text

from comity import founding, keys
from comity.ceremony import (
    Address,
    Enrolment,
    KeyHolder,
    Merged,
    Terms,
    enrol,
    merge,
    read_terms,
    spoken,
    transcript,
)
from comity.cli.network import app
from comity.cli.options import HASH, OUTPUT, Output, UsageError, examples
from comity.cli.show import emit, pairs, table
from comity.errors import DraftError
from comity.files import as_owner, filling, refused, undoing
from comity.founding import NAME
from comity.hosts import check_host
from comity.joining import new_member
from comity.words import word
from consensus import genesis, keyfile, memberfile
from consensus.committee import parse_address
from consensus.errors import DecodeError
from consensus.keyfile import KeyKind

SignerFile = Annotated[
    Path | None,
    Parameter(
        name="--signer",
        help="Configuration of the signer that holds the validator key, file or token.",
    ),
]
SUFFIX: Final = ".member"
TRANSCRIPT_NAME: Final = "transcript.txt"
TELEMETRY: Final = "127.0.0.1:9400"


@app.command(name="terms", help_epilogue=examples("comity network terms terms.toml"))
def terms_(file: Path, /, *, output: Output = OUTPUT) -> None:
    """Check the terms of a founding and show their hash, which all agencies compare.

    Args:
        file: TOML file that names time, rules, agencies, people and accounts.
    """
    terms = read_terms(file)
    people = table("agency", "person", "roles")
    for each in terms.people:
        words = [" ".join([role, *(f"{k}={v}" for k, v in scope)]) for role, scope in each.roles]
        people.add_row(each.agency, each.name, ", ".join(words))
    value = {
        "network": terms.network,
        "time_ms": terms.time_ms,
        "agencies": [each.name for each in terms.agencies],
        "people": [f"{each.agency}/{each.name}" for each in terms.people],
        "accounts": len(terms.accounts),
        "terms": terms.digest,
    }
    head = pairs(
        [
            ("network", terms.network),
            ("agencies", ", ".join(each.name for each in terms.agencies)),
            ("accounts", len(terms.accounts)),
            ("terms", spoken(terms.digest)),
        ]
    )
    steps = Text("next: compare the hash with all agencies, then comity network enrol")
    emit(output, value, Group(head, Text(), people, Text(), steps))


@app.command(
    name="enrol",
    help_epilogue=examples(
        "comity network enrol terms.toml --agency treasury --peers 10.3.0.5:7400 "
        "--clients 10.3.0.5:7401 -o treasury",
        "comity network enrol terms.toml --agency registry --peers 10.1.0.5:7400 "
        "--clients 10.1.0.5:7401 --person registrar=registrar.key -o registry",
        "comity network enrol genesis.cbor --agency health --peers 10.5.0.5:7400 "
        "--clients 10.5.0.5:7401 --person chief -o health",
    ),
)
def enrol_(
    file: Path,
    /,
    *,
    agency: Annotated[str, Parameter(help="Whose keys to make: one that the terms name.")],
    peers: Annotated[str, Parameter(help="host:port at which other nodes find this one.")],
    clients: Annotated[str, Parameter(help="host:port at which clients find it.")],
    folder: Annotated[
        Path, Parameter(name=["--output", "-o"], help="New or empty folder; becomes the node's.")
    ],
    person: Annotated[
        tuple[str, ...],
        Parameter(
            help="NAME=KEY of somebody who made a key already: its file, or its public half in "
            "hex. May be repeated. Keys of the others are made here. To join a network, NAME alone "
            "too: who acts for the agency from the start."
        ),
    ] = (),
    passphrase_file: Annotated[
        Path | None,
        Parameter(help="Seal the keys of the validator and the node with the passphrase in it."),
    ] = None,
    signer: SignerFile = None,
    output: Output = OUTPUT,
) -> None:
    """Make an agency's keys on its own machine, and the one public file that the others need.

    Args:
        file: the terms that all agreed on; or, to join a network, its genesis file.
    """
    from node.network.tls import make_certificate

    if file.suffix != ".toml":
        _join(file, agency, peers, clients, folder, person, passphrase_file, signer, output)
        return
    terms = read_terms(file)
    address = doors(address_of(peers, "--peers"), address_of(clients, "--clients"))
    given = dict(_given(each) for each in person)
    if len(given) != len(person):
        raise UsageError("a person is named twice", hint="give each --person once")
    passphrase = None if passphrase_file is None else keys.read_passphrase(passphrase_file)
    with key_of(signer) as holder:
        made = enrol(
            terms, agency, address, given, make_certificate=make_certificate, holder=holder
        )
    name = folder / f"{agency}{SUFFIX}"
    _write(terms, agency, made, folder, passphrase)
    value = {
        "agency": agency,
        "member": str(name),
        "digest": memberfile.digest(made.member),
        "keys": sorted(str(folder / "keys" / f"{each}.key") for each in made.files),
        "terms": terms.digest,
    }
    shown = [
        ("agency", agency),
        ("send to all", str(name)),
        ("its hash", spoken(memberfile.digest(made.member))),
        ("keep to yourself", str(folder / "keys")),
    ]
    steps = Text("next: when all files are there, comity network merge")
    emit(output, value, Group(pairs(shown), Text(), steps))


def _join(
    file: Path,
    agency: str,
    peers: str,
    clients: str,
    folder: Path,
    person: Sequence[str],
    passphrase_file: Path | None,
    signer: Path | None,
    output: Output,
) -> None:
    """Make the keys of an agency that joins a network, or of a member whose machine is lost."""
    from node.network.tls import make_certificate

    data = _genesis(file)
    address = doors(address_of(peers, "--peers"), address_of(clients, "--clients"))
    people: dict[str, bytes | None] = {}
    for each in person:
        who, key = _given(each) if "=" in each else (each, None)
        if not NAME.fullmatch(who) or who in people:
            raise UsageError(f"--person {each!r} is no name of its own", hint="use a-z, 0-9, - _")
        people[who] = key
    founding.check_agency(agency)
    passphrase = None if passphrase_file is None else keys.read_passphrase(passphrase_file)
    chain = genesis.chain_id(data)
    with key_of(signer) as holder:
        made = new_member(
            chain, agency, address, people, make_certificate=make_certificate, holder=holder
        )
    name = folder / f"{agency}{SUFFIX}"
    text = founding.config(agency, agency, TELEMETRY, joins=True)
    certificate = memberfile.peek(made.member).validator.certificate
    files = {founding.CONFIG_NAME: text.encode(), name.name: made.member}
    files[f"{agency}.crt"] = certificate
    with filling(folder):
        _lay_keys(made, folder, passphrase)
        lay_down(folder, {**files, founding.GENESIS_NAME: data})
    digest = memberfile.digest(made.member)
    value = {
        "agency": agency,
        "member": str(name),
        "digest": digest,
        "keys": sorted(str(folder / "keys" / f"{each}.key") for each in made.files),
        "chain": chain,
    }
    shown = [
        ("agency", agency),
        ("network's chain", spoken(chain)),
        ("send to a member", f"{name}, and {agency}.crt to follow before it votes"),
        ("its hash", spoken(digest)),
        ("keep to yourself", str(folder / "keys")),
    ]
    step = Text("next: an administrator of a member proposes it: comity network propose-member")
    emit(output, value, Group(pairs(shown), Text(), step))


def _genesis(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        genesis.decode(data)
    except OSError as error:
        raise refused(f"cannot read {path}", error) from error
    except DecodeError as error:
        raise UsageError(
            f"{path} is neither terms in TOML nor a genesis file: {error.message}",
            hint="to found a network name terms.toml, to join one its genesis.cbor",
        ) from error
    return data


@app.command(
    name="merge",
    help_epilogue=examples("comity network merge terms.toml *.member -o treasury"),
)
def merge_(
    file: Path,
    members: Annotated[tuple[Path, ...], Parameter(help="Member files of all agencies.")],
    /,
    *,
    folder: Annotated[
        Path,
        Parameter(
            name=["--output", "-o"],
            help="The folder that enrolling made, or a new one; gets genesis file and transcript.",
        ),
    ],
    output: Output = OUTPUT,
) -> None:
    """Make the genesis file of everybody's public files, and show the hash to compare.

    The same terms and files give the same bytes on every machine.

    Args:
        file: the terms that all agreed on.
        members: member files, one an agency, in any order.
    """
    terms = read_terms(file)
    files = [(str(each), read_file(each)) for each in members]
    merged = merge(terms, files)
    own = _own(terms, merged, folder)
    text = transcript(terms, merged)
    lay_down(folder, {founding.GENESIS_NAME: merged.genesis, TRANSCRIPT_NAME: text.encode()})
    value = {
        "network": terms.network,
        "chain": merged.chain,
        "genesis": str(folder / founding.GENESIS_NAME),
        "transcript": str(folder / TRANSCRIPT_NAME),
        "agency": own,
        "members": {
            each.validator.agency: digest
            for each, digest in zip(merged.members, merged.digests, strict=True)
        },
    }
    shown = table("validator", "agency", "peers", "clients", "hash of its file")
    for index, (each, digest) in enumerate(zip(merged.members, merged.digests, strict=True)):
        at = each.validator
        shown.add_row(
            str(index),
            at.agency,
            f"{at.peer_host}:{at.peer_port}",
            f"{at.client_host}:{at.client_port}",
            word(digest, short=True),
        )
    head = pairs(
        [
            ("network", terms.network),
            ("genesis file", str(folder / founding.GENESIS_NAME)),
            ("archive", str(folder / TRANSCRIPT_NAME)),
            ("chain", spoken(merged.chain)),
        ]
    )
    step = "next: compare the chain with every agency by word of mouth; if all have the same, "
    step += f"comity node run {folder / founding.CONFIG_NAME}" if own else "start the nodes"
    emit(output, value, Group(head, Text(), shown, Text(), Text(step)))


@contextmanager
def key_of(signer: Path | None) -> Iterator[KeyHolder | None]:
    """Yield the key of a signer's configuration, for a member file; None without a signer."""
    if signer is None:
        yield None
        return
    from node.signing.config import load
    from node.signing.main import open_key

    config = load(signer, os.environ)
    with as_owner(config.path(config.signer.key or config.token.pin_file)):
        key = open_key(config, os.environ)
    try:
        yield key
    finally:
        key.close()


def doors(peers: tuple[str, int], clients: tuple[str, int]) -> Address:
    """Return the addresses of a member's node.

    Raises:
        UsageError: they are one.
    """
    if peers == clients:
        host, port = peers
        raise UsageError(
            f"--peers and --clients are both {host}:{port}", hint="give each a port of its own"
        )
    return Address(*peers, *clients)


def address_of(word: str, option: str) -> tuple[str, int]:
    """Return host and port of an option's word.

    Raises:
        UsageError: it is none.
    """
    found = parse_address(word)
    if found is None:
        raise UsageError(f"{option} {word!r} is not host:port", hint="write it as 10.3.0.5:7400")
    host, port = found
    try:
        check_host(host)
    except DraftError as error:
        raise UsageError(f"{option} {word!r}: {error.message}", hint=error.hint) from error
    return host, port


def _given(word: str) -> tuple[str, bytes]:
    name, _, key = word.partition("=")
    if not name or not key:
        raise UsageError(f"--person {word!r} is not NAME=KEY", hint="as registrar=registrar.key")
    return name, public_of(key)


def public_of(word: str) -> bytes:
    """Return a person's public key, from hex or from the name of their key file."""
    found = HASH.fullmatch(word)
    if found is not None:
        return bytes.fromhex(found[1])
    path = Path(word)
    if not path.exists():
        raise UsageError(
            f"{word!r} is neither a public key of 64 hex digits nor a key file",
            hint="give the public half that `comity keys show` prints, or name the file",
        )
    info = keyfile.describe(keys.read_file(path))
    if info.kind is not KeyKind.CLIENT:
        raise UsageError(f"{word} is a {info.kind} key", hint="people sign with client keys")
    return info.public


def _write(
    terms: Terms, agency: str, made: Enrolment, folder: Path, passphrase: str | None
) -> None:
    title = next(each.title for each in terms.agencies if each.name == agency)
    config = founding.config(agency, title, TELEMETRY)
    with filling(folder):
        _lay_keys(made, folder, passphrase)
        lay_down(folder, {founding.CONFIG_NAME: config.encode(), f"{agency}{SUFFIX}": made.member})


def _lay_keys(made: Enrolment, folder: Path, passphrase: str | None) -> None:
    (folder / "keys").mkdir(mode=0o700)
    for name, pair in made.files.items():
        sealed = None if pair.kind is KeyKind.CLIENT else passphrase
        keys.create(folder / "keys" / f"{name}.key", pair, sealed)


def lay_down(folder: Path, files: dict[str, bytes], *, replace: bool = False) -> None:
    """Write public files, all of them or none; the same bytes again are no mistake.

    Args:
        replace: whether others may lie there.
    """
    try:
        for name, data in files.items():
            place = folder / name
            if not replace and place.exists() and place.read_bytes() != data:
                raise DraftError(
                    f"{place} exists and says something else",
                    hint="find out which is right; to begin anew, move it away",
                )
        folder.mkdir(parents=True, exist_ok=True)
        with undoing([folder / f".{name}.new" for name in files]):
            for name, data in files.items():
                (folder / f".{name}.new").write_bytes(data)
            for name in files:
                os.replace(folder / f".{name}.new", folder / name)
    except OSError as error:
        raise refused(f"cannot write to {folder}", error) from error


def read_file(path: Path) -> bytes:
    """Return a file that may be a member file; no more of it than one may have."""
    try:
        with path.open("rb") as file:
            return file.read(memberfile.FILE_BYTES_MAX + 1)
    except OSError as error:
        raise refused(f"cannot read {path}", error) from error


def _own(terms: Terms, merged: Merged, folder: Path) -> str | None:
    """Return whose folder it is, if its keys are those that its agency sent.

    Raises:
        DraftError: it has keys of nobody, or others than were sent.
    """
    place = folder / "keys"
    if not place.is_dir():
        return None
    own = place / "validator.key"
    if not own.exists():  # a signer has it
        own = place / "node.key"
    given = keyfile.describe(keys.read_file(own)).public
    for member in merged.members:
        if given in (member.validator.key, member.validator.node_key):
            _check_people(place, member.people)
            return member.validator.agency
    raise DraftError(
        f"the keys in {folder} are in none of these files",
        hint="merge the file that was made with them: enrolling twice makes other keys",
    )


def _check_people(place: Path, people: Sequence[memberfile.Named]) -> None:
    for each in people:
        path = place / f"{each.name}.key"
        if path.exists() and keyfile.describe(keys.read_file(path)).public != each.key:
            raise DraftError(
                f"{path} is another key than the one sent", hint="enrol again, or bring it back"
            )
