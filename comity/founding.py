"""Founding a network: keys, certificates, the genesis file and a folder for each agency.

Whoever founds a network holds all keys at first, and hands them out: for development, tests and
benchmarks, or where all trust the founder until people's keys are exchanged.

    FOLDER/genesis.cbor               what everybody agrees on; its hash is the network
    FOLDER/<agency>/node.toml         the node's configuration
    FOLDER/<agency>/genesis.cbor      a copy
    FOLDER/<agency>/keys/*.key        validator, node, and the agency's people; mode 0600

Not here: making certificates, which belongs to the node's TLS (an argument); a founding in which
each member makes its keys at home (``ceremony``).
"""

from __future__ import annotations

import re
import secrets
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from comity import keys
from comity.errors import DraftError
from comity.files import filling, refused, text_of
from comity.hosts import check_host
from consensus import genesis as genesis_file
from consensus.committee import VALIDATORS_MAX, VALIDATORS_MIN, Committee, Validator
from consensus.genesis import GENESIS_NAME as GENESIS_NAME
from consensus.genesis import Agency, Genesis, Limits, OpeningBalance, Principal, RoleGiven
from consensus.keyfile import KeyKind, KeyPair
from consensus.ledger.executor import EXECUTOR
from consensus.ledger.genesis_state import genesis_state
from consensus.ledger.model import Rulebook
from consensus.ledger.rules import compile_rulebook, encode_definition, load_toml, rolenames
from consensus.ledger.rules.lines import locate, misfit, nearest
from consensus.ledger.rules.toml import read_text

T = TypeVar("T")

PORTS_PER_NODE: Final = 3
CONFIG_NAME: Final = "node.toml"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""Of agencies, and of key files."""
NODE_KEYS: Final = ("validator", "node", "sealed", "validator-next", "node-next")
"""Key files that a node has in the folder of its agency's people."""
KINDS: Final = {
    "official": genesis_file.OFFICIAL,
    "system": genesis_file.SYSTEM,
    "citizen": genesis_file.CITIZEN,
}

_Component = str | int | list[str | int | list[str | int]]
"""A component of an id in a plan; a list is an id inside the id."""
MakeCertificate = Callable[[bytes, str], bytes]
"""Returns the certificate (DER) of a node key, from its seed and the agency's name."""


@dataclass(frozen=True, slots=True)
class Member:
    """An agency with its node: where peers, clients and telemetry find it."""

    name: str
    title: str
    host: str
    peer_port: int
    client_port: int
    telemetry_port: int


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who can sign from the start; ``name`` becomes the name of the key file.

    ``roles`` are (role, scope). ``person`` is the id of a citizen's own record, ``subject`` the
    registrar's token of who an official is; without it everybody is somebody else.
    """

    name: str
    agency: str
    kind: int
    roles: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    person: tuple[Any, ...] | None = None
    subject: bytes | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """A person with the key that is theirs: ``principal`` is their id, ``subject`` their token."""

    person: Person
    principal: bytes
    subject: bytes | None
    key: bytes


@dataclass(frozen=True, slots=True)
class Founding:
    """Everything that ``write`` lays down. ``files`` maps agency and file name to a key."""

    genesis: bytes
    chain: bytes
    members: tuple[Member, ...]
    files: Mapping[tuple[str, str], KeyPair] = field(repr=False)


def check_agency(name: str, where: str = "") -> None:
    """Check the name of an agency, which is that of a folder too.

    Args:
        where: what an error begins with.

    Raises:
        DraftError: it has other characters, or too many.
    """
    if not NAME.fullmatch(name):
        said = f"{where}{name!r} is no name of an agency"
        raise DraftError(said, hint="use letters and digits first, then - _ too; at most 64")


def check_person(name: str, where: str) -> None:
    """Check the name of a person, which is that of a key file too.

    Args:
        where: what an error begins with.

    Raises:
        DraftError: it has other characters, or too many, or is that of a key of the node.
    """
    if not NAME.fullmatch(name):
        said = f"{where}: {name!r} is no name of a key file"
        raise DraftError(said, hint="use letters and digits first, then - _ too; at most 64")
    if name in NODE_KEYS:
        raise DraftError(f"{where}: nobody can be named {name}", hint="choose another name")


def members_of(names: Sequence[str], base_port: int) -> tuple[Member, ...]:
    """Return members of ``name`` or ``name=host`` each, on ports from ``base_port`` up.

    Raises:
        DraftError: too few or too many, a repeated or unusable name, or ports beyond 65535.
    """
    if not VALIDATORS_MIN <= len(names) <= VALIDATORS_MAX:
        raise DraftError(
            f"{len(names)} agencies; a network has {VALIDATORS_MIN} to {VALIDATORS_MAX}",
            hint=f"below {VALIDATORS_MIN} not a single faulty node could be tolerated; above "
            f"{VALIDATORS_MAX} votes from all to all cost too much",
        )
    if not 1 <= base_port <= 65535 - PORTS_PER_NODE * len(names):
        raise DraftError(f"ports from {base_port} up do not all exist", hint="choose a lower port")
    found = []
    for index, each in enumerate(names):
        name, _, host = each.partition("=")
        check_agency(name)
        check_host(host or "127.0.0.1")
        port = base_port + PORTS_PER_NODE * index
        title = name.replace("-", " ").replace("_", " ").title()
        found.append(Member(name, title, host or "127.0.0.1", port, port + 1, port + 2))
    if len({m.name for m in found}) != len(found):
        raise DraftError("two agencies share one name", hint="give each a name of its own")
    return tuple(found)


def read_rules(folder: Path) -> list[bytes]:
    """Return the rule sets of a folder of TOML files, encoded.

    Raises:
        DraftError: there are none.
        RulesError: one is refused, or they do not fit together.
    """
    texts = sorted(folder.glob("*.toml"))
    if not texts:
        raise DraftError(
            f"{folder} holds no rule sets (*.toml)", hint="name the folder with --rules"
        )
    return encode_rules(texts)


def encode_rules(files: Sequence[Path]) -> list[bytes]:
    """Return the rule sets of TOML files, encoded.

    Raises:
        DraftError: one is not text.
        RulesError: one is refused, or they do not fit together.
    """
    definitions = [load_toml(text_of(path), str(path)) for path in files]
    compile_rulebook(definitions)
    return [encode_definition(each) for each in definitions]


def roles_of(book: Rulebook) -> list[str]:
    """Return every role that an action of the rule book asks for: of who acts, approves, objects,
    reviews or takes back."""
    actions = [each for rules in book.rule_sets.values() for each in rules.actions.values()]
    return sorted({role for action in actions for role in rolenames.roles_of(action)})


def everybody(members: Sequence[Member], book: Rulebook) -> list[Person]:
    """Return an officer an agency with every role, for networks without a plan.

    Roles that no person may have together go to an ``officer-2`` and so on.
    """
    shares: list[list[str]] = []
    for role in roles_of(book):
        apart = book.separate.get(role, {})
        share = next((each for each in shares if not any(r in apart for r in each)), None)
        if share is None:
            shares.append([role])
        else:
            share.append(role)
    return [
        Person(
            f"officer-{number}" if number > 1 else "officer",
            member.name,
            genesis_file.OFFICIAL,
            tuple((role, ()) for role in share),
        )
        for member in members
        for number, share in enumerate(shares or [[]], 1)
    ]


def read_plan(path: Path) -> tuple[list[Person], list[OpeningBalance]]:
    """Return the people and accounts of a plan in TOML.

        [[people]]
        name = "officer"
        agency = "treasury"
        kind = "official"                          # or system, citizen
        roles = [ { role = "payments.officer", scope = { region = "north" } } ]
        subject = "0x5c…"                          # the token of the person

        [[people]]
        name = "anna"
        agency = "registry"
        kind = "citizen"
        person = ["0xaa…"]                         # the id of the own record

        [[accounts]]
        account = ["programme"]
        balance = 1000000

    In ids and tokens texts of ``0x…`` are bytes.

    Raises:
        DraftError: not TOML, or an entry is not of this form; the message names the line.
    """
    plan = read_toml(path, Plan)
    return people_of(path, plan), accounts_of(path, plan)


def read_toml(path: Path, shape: type[T]) -> T:
    """Return what a file in TOML says, as ``shape``.

    Raises:
        DraftError: not TOML, or of another form; the message names the line.
    """
    try:
        return msgspec.convert(read_text(text_of(path)), shape)
    except OSError as error:
        raise refused(f"cannot read {path}", error) from error
    except tomllib.TOMLDecodeError as error:
        raise DraftError(f"{path}: {error}", hint="mend the file") from error
    except msgspec.ValidationError as error:
        what, where = misfit(str(error))
        raise DraftError(f"{places_of(path)(*where)}: {what}", hint="mend the file") from error


def people_of(path: Path, plan: Plan) -> list[Person]:
    """Return the people of a plan read from ``path``.

    Raises:
        DraftError: no name of a key file, one that is taken, bytes that are no hex, or a token of
            somebody who has none; the message names the line.
    """
    people: list[Person] = []
    places = places_of(path)
    taken = set()
    for index, row in enumerate(plan.people):
        at = partial(places, "people", index)
        check_person(row.name, at("name"))
        if (row.agency, row.name) in taken:
            raise DraftError(
                f"{at('name')}: {row.agency} has two people named {row.name!r}",
                hint="give each person of an agency a name of its own",
            )
        taken.add((row.agency, row.name))
        roles = tuple((each.role, tuple(sorted(each.scope.items()))) for each in row.roles)
        person = None if row.person is None else _id(at("person"), row.person)
        token = _token(at("subject"), row.subject, row.name, row.kind)
        people.append(Person(row.name, row.agency, KINDS[row.kind], roles, person, token))
    return people


def accounts_of(path: Path, plan: Plan) -> list[OpeningBalance]:
    """Return the opening balances of a plan read from ``path``.

    Raises:
        DraftError: bytes that are no hex.
    """
    places = places_of(path)
    return [
        OpeningBalance(
            str(row.account[0]),
            _id(places("accounts", index, "account"), row.account[1:]),
            row.balance,
        )
        for index, row in enumerate(plan.accounts)
    ]


def check_accounts(path: Path, accounts: Sequence[OpeningBalance], book: Rulebook) -> None:
    """Check the accounts of a plan read from ``path``.

    Raises:
        DraftError: one is of a family that no rule set has; the message names the line.
    """
    for index, each in enumerate(accounts):
        if each.family not in book.families:
            raise DraftError(
                f"{places_of(path)('accounts', index, 'account')}: no rule set has an account "
                f"family {each.family!r}",
                hint=f"families are {', '.join(sorted(book.families)) or 'none'}",
            )


def places_of(path: Path) -> Callable[..., str]:
    """Return what says where something stands in a file of TOML, as ``file:line``."""
    lines = locate(text_of(path))

    def place(*where: str | int) -> str:
        line = nearest(lines, where)
        return f"{path}:{line}" if line else str(path)

    return place


def _id(where: str, components: Sequence[Any]) -> tuple[Any, ...]:
    """Return the components of an id; ``0x…`` are bytes."""
    return tuple(
        [*_id(where, each)] if isinstance(each, list) else _bytes(where, each)
        for each in components
    )


def _bytes(where: str, value: str | int) -> str | int | bytes:
    if not isinstance(value, str) or not value.startswith("0x"):
        return value
    try:
        return bytes.fromhex(value[2:])
    except ValueError as error:
        raise DraftError(
            f"{where}: {value!r} is no hex", hint="bytes are 0x and pairs of hex digits"
        ) from error


def _token(where: str, word: str | None, name: str, kind: str) -> bytes | None:
    token = None if word is None else _bytes(where, word)
    if token is None:
        return None
    if not isinstance(token, bytes) or len(token) != 32 or kind != "official":
        raise DraftError(
            f"{where}: the subject of {name} is no token of an official",
            hint="0x and 64 hex digits, of officials only; a citizen has a person",
        )
    return token


class _RoleRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: str
    scope: dict[str, str] = {}


class _PersonRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    agency: str
    kind: Literal["official", "system", "citizen"] = "official"
    roles: list[_RoleRow] = []
    person: list[_Component] | None = None
    subject: str | None = None


class _AccountRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    account: Annotated[list[_Component], msgspec.Meta(min_length=1)]
    balance: int


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of people and accounts, as it is written."""

    people: list[_PersonRow] = []
    accounts: list[_AccountRow] = []


def found(
    network: str,
    members: Sequence[Member],
    rules: Sequence[bytes],
    people: Sequence[Person],
    accounts: Sequence[OpeningBalance],
    *,
    time_ms: int,
    make_certificate: MakeCertificate,
    tree_depth: int = 16,
    limits: Limits | None = None,
) -> Founding:
    """Return a new network with fresh keys, checked by reading its genesis file again.

    Args:
        network: its name.
        members: with their nodes.
        rules: encoded rule sets, the charter among them.
        people: who can sign from the start.
        accounts: that exist from the start.
        time_ms: the genesis time.
        make_certificate: of node keys.
        tree_depth: D of the state tree, even; 16 up to about 300,000 records.
        limits: of blocks; None: the defaults.

    Raises:
        DecodeError: the parts do not fit together.
    """
    files: dict[tuple[str, str], KeyPair] = {}
    validators = []
    for member in members:
        validator, node = keys.new_pair(KeyKind.VALIDATOR), keys.new_pair(KeyKind.NODE)
        files[member.name, "validator"], files[member.name, "node"] = validator, node
        validators.append(
            Validator(
                member.name,
                validator.public,
                node.public,
                make_certificate(node.seed, member.name),
                member.host,
                member.peer_port,
                member.host,
                member.client_port,
            )
        )
    admitted = []
    for person in people:
        if (person.agency, person.name) in files:
            raise DraftError(
                f"{person.agency} has two keys named {person.name!r}",
                hint="give each person of an agency a name of its own",
            )
        pair = keys.new_pair(KeyKind.CLIENT)
        files[person.agency, person.name] = pair
        admitted.append(admit(person, pair.public))
    data = genesis_of(
        network,
        validators,
        [Agency(m.name, m.title) for m in members],
        admitted,
        rules,
        accounts,
        time_ms=time_ms,
        tree_depth=tree_depth,
        limits=limits or Limits(),
    )
    return Founding(data, genesis_file.chain_id(data), tuple(members), files)


def admit(person: Person, key: bytes) -> Admitted:
    """Return a person with a key, under a new id; an official without a token gets one."""
    subject = person.subject
    if subject is None and person.kind == genesis_file.OFFICIAL:
        subject = secrets.token_bytes(32)
    return Admitted(person, secrets.token_bytes(32), subject, key)


def genesis_of(
    network: str,
    validators: Sequence[Validator],
    agencies: Sequence[Agency],
    people: Sequence[Admitted],
    rules: Sequence[bytes],
    accounts: Sequence[OpeningBalance],
    *,
    time_ms: int,
    tree_depth: int,
    limits: Limits,
) -> bytes:
    """Return a genesis file, checked by reading it again and making the first state of it.

    Raises:
        DecodeError: the parts do not fit together.
    """
    genesis = Genesis(
        network=network,
        time_ms=time_ms,
        executor=EXECUTOR,
        tree_depth=tree_depth,
        limits=limits,
        committee=Committee(genesis_file.EPOCH, tuple(validators)),
        agencies=tuple(agencies),
        principals=tuple(
            Principal(
                each.principal,
                each.person.agency,
                each.person.kind,
                each.subject,
                each.person.person,
            )
            for each in people
        ),
        keys=tuple((each.key, each.principal) for each in people),
        roles=tuple(
            RoleGiven(each.principal, role, scope)
            for each in people
            for role, scope in each.person.roles
        ),
        rules=tuple(rules),
        accounts=tuple(accounts),
    )
    data = genesis.encode()
    genesis_state(genesis_file.decode(data))
    return data


def write(founding: Founding, folder: Path) -> None:
    """Lay a founding down in a new or empty folder: all of it or nothing.

    Raises:
        DraftError: the folder is not empty, or cannot be written to.
        KeyUnusableError: a key file cannot be written.
    """
    with filling(folder):
        _write(founding, folder)


def _write(founding: Founding, folder: Path) -> None:
    (folder / GENESIS_NAME).write_bytes(founding.genesis)
    for member in founding.members:
        home = folder / member.name
        (home / "keys").mkdir(parents=True, mode=0o700)
        (home / GENESIS_NAME).write_bytes(founding.genesis)
        telemetry = f"127.0.0.1:{member.telemetry_port}"
        text = config(member.name, member.title, telemetry)
        (home / CONFIG_NAME).write_text(text, encoding="utf-8")
    for (agency, name), pair in founding.files.items():
        place = folder / agency / "keys"
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        keys.create(place / f"{name}.key", pair)


def config(agency: str, title: str, telemetry: str, *, joins: bool = False) -> str:
    """Return the text of a node's configuration file, which lies beside genesis and keys.

    Args:
        joins: whether it is of an agency that no committee names yet.
    """
    role = 'role = "joining"                # follow until a committee names its keys\n'
    first = role if joins else ""
    return f"""# The node of {title}.
[node]
{first}agency = "{agency}"
genesis = "{GENESIS_NAME}"
data = "data"
validator_key = "keys/validator.key"
node_key = "keys/node.key"

[listen]
telemetry = "{telemetry}"
"""
