"""A founding in which nobody needs to trust another's machine.

1. All agree on the *terms*: one TOML file and the rule sets, which everybody has and reads. Their
   hash is compared.
2. Each agency makes its keys at home (``enrol``) and sends one public file, its member file.
3. Everybody merges the same files (``merge``) and compares one hash, the chain. The same terms and
   files give the same genesis file and the same transcript, byte for byte, whoever merges them.

The terms name who can act from the start; the member files give those names their keys.

Not here: the member file itself (``consensus.memberfile``), files and folders (``cli.ceremony``).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

import msgspec

from comity import founding, keys
from comity.errors import DraftError
from comity.founding import Admitted, Person
from comity.hosts import check_host
from comity.words import word
from consensus import certificate, codec, genesis, memberfile
from consensus.committee import VALIDATORS_MAX, VALIDATORS_MIN, Validator
from consensus.errors import DecodeError, SignatureError
from consensus.genesis import Agency, Limits, OpeningBalance
from consensus.hashing import context
from consensus.keyfile import KeyKind, KeyPair
from consensus.ledger.model import Rulebook
from consensus.ledger.rules import compile_rulebook, decode_definition, parts_root
from consensus.memberfile import Member, Named

TREE_DEPTHS: Final = range(4, 25, 2)
NOTICE_MS: Final = range(1000, 366 * 86_400_000 + 1)
_UNIT_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_KIND_NAMES: Final = {number: name for name, number in founding.KINDS.items()}

_H_TERMS: Final = context("founding terms")


class CeremonyError(DraftError):
    """What the agencies bring together does not make a network. ``mistakes`` has all that is."""

    code = "CEREMONY"
    advice = (
        "name all agencies' files, and have the one named mend its own; then everybody merges again"
    )

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True, slots=True)
class Terms:
    """What all agencies agree on before anybody makes a key. ``agencies`` in committee order."""

    network: str
    time_ms: int
    tree_depth: int
    notice_ms: int
    agencies: tuple[Agency, ...]
    people: tuple[Person, ...]
    accounts: tuple[OpeningBalance, ...]
    rules: tuple[bytes, ...]

    @property
    def digest(self) -> bytes:
        """The hash that all compare, and that each member file is bound to."""
        return _H_TERMS(
            codec.encode(
                [
                    self.network,
                    self.time_ms,
                    self.tree_depth,
                    self.notice_ms,
                    [[each.name, each.title] for each in self.agencies],
                    [
                        [
                            each.name,
                            each.agency,
                            each.kind,
                            [[role, [list(pair) for pair in scope]] for role, scope in each.roles],
                            None if each.person is None else [*each.person],
                            each.subject,
                        ]
                        for each in self.people
                    ],
                    [[each.family, [*each.id], each.balance] for each in self.accounts],
                    list(self.rules),
                ]
            )
        )

    def book(self) -> Rulebook:
        """Return the rule sets, compiled."""
        return compile_rulebook([decode_definition(each) for each in self.rules])

    def people_of(self, agency: str) -> dict[str, Person]:
        """Return the people of an agency by name, ascending."""
        found = {each.name: each for each in self.people if each.agency == agency}
        return dict(sorted(found.items()))


@dataclass(frozen=True, slots=True)
class Address:
    """Where a node is found by peers and by clients."""

    peer_host: str
    peer_port: int
    client_host: str
    client_port: int


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What one agency made: the file for everybody, and keys for itself by file name."""

    member: bytes
    files: Mapping[str, KeyPair] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Merged:
    """A network: its genesis file, and what everybody brought, in committee order."""

    genesis: bytes
    chain: bytes
    members: tuple[Member, ...]
    digests: tuple[bytes, ...]


class _AgencyRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    title: str


class _Terms(founding.Plan, frozen=True, forbid_unknown_fields=True, kw_only=True):
    network: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    time: datetime.datetime
    rules: str
    agencies: list[_AgencyRow]
    tree_depth: int = 16
    notice: str = "7d"


def read_terms(path: Path) -> Terms:
    """Return the terms of a TOML file; its ``rules`` names the folder of the rule sets beside it.

        network = "benefits"
        time = 2026-12-01T09:00:00Z          # of the block of height 0: never in the future
        rules = "rules"                      # when the nodes start
        tree_depth = 16                      # 16 up to about 300,000 records
        notice = "7d"                        # of rule sets that come into force

        [[agencies]]                         # in the order of the committee
        name = "registry"
        title = "Civil Registry"

        [[people]]                           # as in a plan; keys come with the member files
        [[accounts]]

    Raises:
        DraftError: unreadable, not TOML, or not of this form; the message says where.
        RulesError: a rule set is refused.
    """
    found = founding.read_toml(path, _Terms)
    places = founding.places_of(path)
    rules = path.parent / found.rules
    if not rules.is_dir():
        raise DraftError(
            f"{places('rules')}: there is no folder {rules} of rule sets",
            hint="every agency needs the same",
        )
    if found.time.tzinfo is None:
        raise DraftError(
            f"{places('time')}: time has no zone", hint="write it as 2026-12-01T09:00:00Z"
        )
    if found.tree_depth not in TREE_DEPTHS:
        raise DraftError(
            f"{places('tree_depth')}: a tree of {found.tree_depth} bits cannot be",
            hint="use an even number from 4 to 24",
        )
    agencies = tuple(Agency(each.name, each.title) for each in found.agencies)
    _check_agencies(places, [each.name for each in agencies])
    terms = Terms(
        found.network,
        int(found.time.timestamp()) * 1000,
        found.tree_depth,
        notice_ms(found.notice, f"{places('notice')}: "),
        agencies,
        tuple(founding.people_of(path, found)),
        tuple(founding.accounts_of(path, found)),
        tuple(founding.read_rules(rules)),
    )
    _check_people(places, terms)
    founding.check_accounts(path, terms.accounts, terms.book())
    return terms


def notice_ms(word: str, where: str = "") -> int:
    """Return the milliseconds of a notice written as 30s, 5m, 12h or 7d.

    Args:
        where: what an error begins with.

    Raises:
        DraftError: not of this form, below a second or above 366 days.
    """
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", word)
    length_ms = 0 if found is None else int(found[1]) * _UNIT_MS[found[2]]
    if length_ms not in NOTICE_MS:
        raise DraftError(
            f"{where}{word!r} is no notice", hint="write 30s, 5m, 12h or 7d; 366d at most"
        )
    return length_ms


def _check_agencies(places: Callable[..., str], names: Sequence[str]) -> None:
    if not VALIDATORS_MIN <= len(names) <= VALIDATORS_MAX:
        raise DraftError(
            f"{places('agencies')}: {len(names)} agencies; a network has {VALIDATORS_MIN} to "
            f"{VALIDATORS_MAX}",
            hint="below 4 not a single faulty node could be tolerated",
        )
    for index, name in enumerate(names):
        place = places("agencies", index, "name")
        founding.check_agency(name, f"{place}: ")
        if name in names[:index]:
            raise DraftError(
                f"{place}: two agencies are named {name!r}", hint="give each a name of its own"
            )


def _check_people(places: Callable[..., str], terms: Terms) -> None:
    known = [each.name for each in terms.agencies]
    roles = founding.roles_of(terms.book())
    for index, each in enumerate(terms.people):
        if each.agency not in known:
            raise DraftError(
                f"{places('people', index, 'agency')}: {each.name} is of {each.agency!r}, which is "
                "no agency of these terms",
                hint=f"agencies are {', '.join(known)}",
            )
        for role, _ in each.roles:
            if role not in roles:
                raise DraftError(
                    f"{places('people', index, 'roles')}: no rule set knows the role {role!r} of "
                    f"{each.agency}/{each.name}",
                    hint="`comity rules check` lists the roles of a rule set",
                )


class KeyHolder(Protocol):
    """What has a validator key and signs with it: a signer's key file or token."""

    @property
    def public(self) -> bytes:
        """The public half."""
        ...

    def seal(self, message: bytes) -> bytes:
        """Return the signature over bytes from ``signing.message``."""
        ...


class InMemory(keys.Key):
    """A key that was made or read here."""

    def seal(self, message: bytes) -> bytes:
        """Return the signature."""
        return self.sign(message)


def enrol(
    terms: Terms,
    agency: str,
    address: Address,
    given: Mapping[str, bytes],
    *,
    make_certificate: founding.MakeCertificate,
    holder: KeyHolder | None = None,
) -> Enrolment:
    """Make the keys of one agency, and the file by which the others know them.

    Args:
        terms: that all agreed on.
        agency: one of them.
        address: of its node.
        given: public keys of people who made their own, by name; the others' are made here.
        make_certificate: of node keys.
        holder: of a validator key that is kept elsewhere; without one the key is made here.

    Raises:
        DraftError: no such agency, or a key for somebody whom the terms do not name.
    """
    if agency not in [each.name for each in terms.agencies]:
        raise DraftError(
            f"the terms name no agency {agency!r}",
            hint=f"agencies are {', '.join(each.name for each in terms.agencies)}",
        )
    people = terms.people_of(agency)
    for name in given:
        if name not in people:
            raise DraftError(
                f"the terms name nobody {name!r} at {agency}",
                hint=f"people are {', '.join(people)}" if people else "they name nobody there",
            )
    return enrolment(
        terms.digest,
        agency,
        address,
        [(person, given.get(name)) for name, person in people.items()],
        make_certificate=make_certificate,
        holder=holder,
    )


def enrolment(
    purpose: bytes,
    agency: str,
    address: Address,
    people: Sequence[tuple[Person, bytes | None]],
    *,
    make_certificate: founding.MakeCertificate,
    holder: KeyHolder | None,
) -> Enrolment:
    """Make the keys of an agency, for a founding or a network, and the file that says them.

    Args:
        people: ascending by name, with public keys; None: the key is made here.
    """
    node = keys.new_pair(KeyKind.NODE)
    files = {"node": node}
    if holder is None:
        files["validator"] = keys.new_pair(KeyKind.VALIDATOR)
        holder = InMemory(files["validator"])
    named = []
    for person, given in people:
        key = given
        if key is None:
            files[person.name] = keys.new_pair(KeyKind.CLIENT)
            key = files[person.name].public
        admitted = founding.admit(person, key)
        named.append(Named(person.name, admitted.principal, admitted.subject, key))
    own = validator_of(agency, holder.public, node, address, make_certificate)
    return Enrolment(signed(Member(purpose, own, tuple(named)), holder, node), files)


def signed(member: Member, validator: KeyHolder, node: KeyPair) -> bytes:
    """Return the file of a member, signed by both keys that it brings."""
    return memberfile.encode(member, validator.seal, keys.Key(node).sign)


def validator_of(
    agency: str,
    key: bytes,
    node: KeyPair,
    address: Address,
    make_certificate: founding.MakeCertificate,
) -> Validator:
    """Return what a committee says of a validator with this key, and of its node."""
    return Validator(
        agency,
        key,
        node.public,
        make_certificate(node.seed, agency),
        address.peer_host,
        address.peer_port,
        address.client_host,
        address.client_port,
    )


def merge(terms: Terms, files: Sequence[tuple[str, bytes]]) -> Merged:
    """Return the network that the terms and everybody's files make.

    Args:
        terms: that all agreed on.
        files: member files with the names they came under, in any order.

    Raises:
        CeremonyError: files that do not belong together; all mistakes at once.
        DecodeError: the parts do not fit together.
    """
    mistakes: list[str] = []
    found: dict[str, tuple[str, Member, bytes]] = {}
    for name, data in files:
        try:
            member = memberfile.decode(data)
            _check_certificate(member, terms.time_ms)
        except SignatureError:
            mistakes.append(f"{name} was changed after it was made: its signatures do not hold")
        except DecodeError as error:
            mistakes.append(f"{name}: {error.message}")
        else:
            mistakes += _judge(terms, name, member, memberfile.digest(data), found)
    missing = [each.name for each in terms.agencies if each.name not in found]
    if missing and not mistakes:
        mistakes.append(f"the file of {', '.join(missing)} is missing")
    ordered = [found[each.name] for each in terms.agencies if each.name in found]
    mistakes += _shared(ordered)
    if mistakes:
        raise CeremonyError(mistakes)
    admitted = [
        Admitted(terms.people_of(agency)[name], principal, subject, key)
        for agency, (_, member, _) in zip(
            [each.name for each in terms.agencies], ordered, strict=True
        )
        for name, principal, subject, key in member.people
    ]
    data = founding.genesis_of(
        terms.network,
        [member.validator for _, member, _ in ordered],
        terms.agencies,
        admitted,
        terms.rules,
        terms.accounts,
        time_ms=terms.time_ms,
        tree_depth=terms.tree_depth,
        limits=Limits(notice_ms=terms.notice_ms),
    )
    return Merged(
        data,
        genesis.chain_id(data),
        tuple(member for _, member, _ in ordered),
        tuple(digest for _, _, digest in ordered),
    )


def _check_certificate(member: Member, time_ms: int) -> None:
    """Refuse a certificate with which no node could be reached; one that cannot be loaded would
    keep everybody's nodes from starting."""
    own = member.validator
    try:
        found = certificate.decode(own.certificate)
    except (DecodeError, SignatureError) as error:
        raise DecodeError(f"its certificate cannot be used: {error.message}") from error
    if found.key != own.node_key:
        raise DecodeError("its certificate is of another key than its node's")
    if not found.from_ms <= time_ms <= found.until_ms:
        raise DecodeError("its certificate is not good at the genesis time")


def _judge(
    terms: Terms,
    name: str,
    member: Member,
    digest: bytes,
    found: dict[str, tuple[str, Member, bytes]],
) -> list[str]:
    """Return what is wrong with one agency's file; add it to ``found`` if it is the first."""
    agency = member.validator.agency
    if agency not in [each.name for each in terms.agencies]:
        return [f"{name} is of {agency!r}, which is no agency of these terms"]
    if agency in found:
        other, _, before = found[agency]
        if before == digest:
            return []
        return [
            f"{name} ({word(digest, short=True)}) and {other} ({word(before, short=True)}) are two "
            f"different files of {agency}: ask it which hash is right"
        ]
    found[agency] = name, member, digest
    mistakes = []
    for host in (member.validator.peer_host, member.validator.client_host):
        try:
            check_host(host)
        except DraftError as error:
            mistakes.append(f"{name}: {error.message}")
    if member.purpose != terms.digest:
        return [
            *mistakes,
            f"{agency} enrolled under other terms: {word(member.purpose, short=True)}, "
            f"these are {word(terms.digest, short=True)}",
        ]
    expected, given = terms.people_of(agency), {each.name: each for each in member.people}
    if lacking := [each for each in expected if each not in given]:
        mistakes.append(f"{name} has no key for {', '.join(lacking)}")
    if beyond := [each for each in given if each not in expected]:
        mistakes.append(f"{name} has keys for {', '.join(beyond)}, whom the terms do not name")
    for each, person in expected.items():
        if each in given and not _fits(person, given[each].subject):
            mistakes.append(f"{name} gives {each} another token than the terms")
    return mistakes


def _fits(person: Person, subject: bytes | None) -> bool:
    if person.subject is not None or person.kind != genesis.OFFICIAL:
        return subject == person.subject
    return subject is not None


def _shared(ordered: Sequence[tuple[str, Member, bytes]]) -> list[str]:
    """Return what two agencies gave that only one may have."""
    owners: dict[tuple[str, Any], str] = {}
    mistakes = []
    for _, member, _ in ordered:
        own = member.validator
        things: list[tuple[str, Any]] = [
            ("key", own.key),
            ("key", own.node_key),
            *(("key", each.key) for each in member.people),
            *(("id of a person", each.principal) for each in member.people),
            ("address", (own.peer_host, own.peer_port)),
            ("address", (own.client_host, own.client_port)),
        ]
        for what, thing in things:
            other = owners.setdefault((what, thing), own.agency)
            if other != own.agency:
                said = (
                    "{}:{}".format(*thing) if isinstance(thing, tuple) else word(thing, short=True)
                )
                mistakes.append(f"{other} and {own.agency} have the same {what} {said}")
    return mistakes


def spoken(digest: bytes) -> str:
    """Return a hash in groups of four digits, to be read out."""
    text = digest.hex()
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def transcript(terms: Terms, merged: Merged) -> str:
    """Return what to archive: everything that made the network, the same for whoever merges."""
    time = datetime.datetime.fromtimestamp(terms.time_ms // 1000, datetime.UTC)
    rows = [
        f"Founding of the network {terms.network}",
        "",
        f"genesis time  {time:%Y-%m-%dT%H:%M:%SZ}",
        f"tree depth    {terms.tree_depth}",
        f"notice        {terms.notice_ms} ms",
        f"terms         {word(terms.digest)}",
    ]
    for index, (agency, member, digest) in enumerate(
        zip(terms.agencies, merged.members, merged.digests, strict=True)
    ):
        own = member.validator
        rows += [
            "",
            f"Validator {index}: {agency.name}, {agency.title}",
            f"  member file    {word(digest)}",
            f"  validator key  {word(own.key)}",
            f"  node key       {word(own.node_key)}",
            f"  peers          {own.peer_host}:{own.peer_port}",
            f"  clients        {own.client_host}:{own.client_port}",
        ]
        expected = terms.people_of(agency.name)
        for name, principal, _, key in member.people:
            person = expected[name]
            rows += [
                f"  {name}, {_KIND_NAMES[person.kind]}",
                f"    principal  {word(principal)}",
                f"    key        {word(key)}",
                *(f"    role       {_role(role, scope)}" for role, scope in person.roles),
            ]
    rows += ["", "Rule sets, with the roots of their parts"]
    for rules in terms.book().rule_sets.values():
        root = parts_root(decode_definition(rules.encoded))
        rows.append(f"  {rules.domain} {rules.number}  {word(root)}")
    if terms.accounts:
        rows += ["", "Accounts"]
    for each in terms.accounts:
        rows.append(f"  {each.family} {list(each.id)}: {each.balance}")
    rows += ["", f"Genesis file of {len(merged.genesis)} bytes", f"chain {word(merged.chain)}", ""]
    return "\n".join(rows)


def _role(role: str, scope: Sequence[tuple[str, str]]) -> str:
    return " ".join([role, *(f"{name}={value}" for name, value in scope)])
