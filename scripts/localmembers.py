"""A network on loopback whose committee changes: homes of newcomers and observers, and the acts.

Each agency has a *chief*, who proposes and approves changes; the notice is as short as it may be.
Every member has a door for observers, so that whoever joins can follow before it has a vote.

Not here: load, faults and what is measured.
"""

from __future__ import annotations

import os
import secrets
import ssl
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import trio

from comity import founding, keys
from comity.client import Client
from comity.drafting import Call
from comity.founding import Member, Person
from consensus import genesis, memberfile
from consensus.codec import Value
from consensus.committee import Committee, Validator
from consensus.genesis import OFFICIAL, Limits, OpeningBalance
from consensus.keyfile import KeyKind, KeyPair
from consensus.ledger.kernel.committee import encode_changes
from consensus.ledger.seats import SPACE, Seats
from consensus.memberfile import Named
from node import keyfiles
from node.network.tls import make_certificate
from scripts.localnet import LocalNetwork
from scripts.localnet import found as found_network
from scripts.ports import free_ports

CHIEF: Final = "chief"
ROLE: Final = "charter.administrator"
NOTICE_MS: Final = 1000
CHANGE_SECONDS_MAX: Final = 60.0
LOOK_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A node that is no member yet: what its agency sends to the others."""

    member: Member
    validator: Validator
    named: Named


@dataclass(slots=True)
class Town:
    """The network with its doors for observers, and who may join it."""

    network: LocalNetwork
    doors: dict[str, int]
    """Ports, by agency."""
    acts: dict[bytes, None] = field(default_factory=dict)
    """Transactions by which the committee was changed so far."""

    def home(self, agency: str) -> Path:
        """Return the folder of a node."""
        return self.network.folder / agency

    @property
    def chain(self) -> bytes:
        """The hash of the genesis file."""
        return genesis.chain_id(self.network.genesis)

    # --- nodes ----------------------------------------------------------------------------------

    def add(self, name: str, role: str, *, tuning: str = "", recheck: bool = False) -> Newcomer:
        """Make the home of a node without a vote, and have every member admit it.

        Args:
            name: of its agency.
            role: ``joining`` or ``observer``.
            tuning: lines for the section ``[tuning]``.
            recheck: whether it checks clients' signatures again.
        """
        home = self.home(name)
        (home / "keys").mkdir(parents=True, mode=0o700)
        peer, client, telemetry, door = free_ports(4)
        member = Member(name, name.title(), "127.0.0.1", peer, client, telemetry)
        pairs = {kind: keys.new_pair(kind) for kind in (KeyKind.VALIDATOR, KeyKind.NODE)}
        validator = _validator(member, pairs[KeyKind.VALIDATOR], pairs[KeyKind.NODE])
        chief = keys.new_pair(KeyKind.CLIENT)
        keys.create(home / "keys" / "node.key", pairs[KeyKind.NODE])
        keys.create(home / "keys" / f"{CHIEF}.key", chief)
        if role != "observer":
            keys.create(home / "keys" / "validator.key", pairs[KeyKind.VALIDATOR])
        text = founding.config(name, member.title, f"127.0.0.1:{telemetry}")
        text = text.replace("[node]\n", f'[node]\nrole = "{role}"\n', 1)
        if recheck:
            text = text.replace("[node]\n", "[node]\nrecheck_signatures = true\n", 1)
        text += f'clients = "127.0.0.1:{client}"\n{observers(door)}\n[follow]\n'
        text += "".join(f'{each} = "127.0.0.1:{port}"\n' for each, port in self.doors.items())
        if tuning:
            text += f"\n[tuning]\n{tuning}\n"
        (home / founding.CONFIG_NAME).write_text(text, encoding="utf-8")
        (home / founding.GENESIS_NAME).write_bytes(self.network.genesis)
        self.doors[name] = door
        for agency in self.doors:
            self.admit(agency, name, validator.certificate)
        self.network.members = [*self.network.members, member]
        principal, subject = secrets.token_bytes(32), secrets.token_bytes(32)
        return Newcomer(member, validator, Named(CHIEF, principal, subject, chief.public))

    def admit(self, agency: str, name: str, certificate: bytes) -> None:
        """Lay a certificate where the node of an agency looks for those of observers."""
        folder = self.home(agency) / "observers"
        folder.mkdir(exist_ok=True)
        draft = folder / f".{name}.draft"
        draft.write_text(ssl.DER_cert_to_PEM_cert(certificate))
        os.replace(draft, folder / f"{name}.crt")

    def pair(self, agency: str, name: str, kind: KeyKind) -> KeyPair:
        """Return a key pair of a node."""
        return keyfiles.load(self.network.key_file(agency, name), kind)

    # --- changes --------------------------------------------------------------------------------

    def admission(self, newcomer: Newcomer) -> list[Value]:
        """Return the change that admits an agency, new to the ledger, with its validator."""
        name = newcomer.member.name
        file = self._file(newcomer.validator, name, [newcomer.named])
        return ["admit", name, file, newcomer.member.title, []]

    def readmission(self, validator: Validator) -> list[Value]:
        """Return the change that gives an agency of the ledger a validator."""
        name = validator.agency
        return ["admit", name, self._file(validator, name, []), None, []]

    def replacement(
        self, validator: Validator, key: KeyPair | None = None, node_key: KeyPair | None = None
    ) -> list[Value]:
        """Return the change that gives a member other keys, another certificate or address."""
        name = validator.agency
        return ["replace", name, self._file(validator, name, [], key, node_key)]

    def _file(
        self,
        validator: Validator,
        name: str,
        people: list[Named],
        key: KeyPair | None = None,
        node_key: KeyPair | None = None,
    ) -> bytes:
        key = key or self.pair(name, "validator", KeyKind.VALIDATOR)
        node_key = node_key or self.pair(name, "node", KeyKind.NODE)
        signs = [_signs(each) for each in (key, node_key)]
        return memberfile.encode(memberfile.Member(self.chain, validator, tuple(people)), *signs)

    async def change(
        self, *changes: list[Value], by: Sequence[str], servers: Sequence[str] | None = None
    ) -> Committee:
        """Agree on changes of the committee, and wait until they are in force.

        Args:
            changes: of one act.
            by: agencies whose chiefs agree; the first one proposes.
            servers: through whose nodes; None: all of the first committee.
        """
        first, *others = by
        async with self.chief(first, servers) as client:
            entry = await client.get(SPACE)
            number = Seats(*entry.value).latest + 1 if entry.present else 1
            epoch = (await client.committee()).epoch
            encoded = encode_changes([list(each) for each in changes])
            inputs = {"number": number, "changes": encoded, "from": None}
            call = Call("charter", "change_committee", inputs)
            made = await client.propose(call, reads=await client.read_for(call))
            if made.state != "proposed":
                raise RuntimeError(f"the change was not proposed: {made}")
        self.acts[made.txid] = None
        for agency in others:
            async with self.chief(agency, servers) as client:
                await _reached(client, made.height)
                decision = await client.approve(made.txid)
                if not decision.applied:
                    raise RuntimeError(f"{agency} could not approve: {decision}")
            self.acts[decision.txid] = None
        async with self.chief(first, servers) as client:
            with trio.fail_after(CHANGE_SECONDS_MAX):
                await _reached(client, made.height)
                found = await client.settled(made.txid)
                if found.state != "executed":
                    raise RuntimeError(f"the change did not take effect: {found}")
                return await self._later(first, servers, epoch)

    async def coming(self, agency: str, servers: Sequence[str] | None = None) -> int:
        """Wait until a change is agreed on; return its time, ms since 1970."""
        async with self.chief(agency, servers) as client:
            with trio.fail_after(CHANGE_SECONDS_MAX):
                while True:
                    entry = await client.get(SPACE)
                    found = Seats(*entry.value) if entry.present else None
                    if found is not None and found.coming is not None:
                        return int(found.coming[1])
                    await trio.sleep(LOOK_SECONDS)
        raise RuntimeError("unreachable")

    async def _later(self, agency: str, servers: Sequence[str] | None, epoch: int) -> Committee:
        """Wait for a committee after that of an epoch."""
        while True:
            committee = await self._committee(agency, servers)
            if committee.epoch > epoch:
                return committee
            await trio.sleep(LOOK_SECONDS)

    async def _committee(self, agency: str, servers: Sequence[str] | None) -> Committee:
        """Return the newest committee, by a connection of its own."""
        async with self.chief(agency, servers) as client:
            return await client.committee()

    def chief(
        self, agency: str, servers: Sequence[str] | None = None
    ) -> AbstractAsyncContextManager[Client]:
        """Return a client of an agency's chief."""
        return Client.connect(
            self.network.genesis,
            servers=servers,
            key=self.network.key(agency, CHIEF),
            patience_seconds=CHANGE_SECONDS_MAX,
        )


async def _reached(client: Client, height: int) -> None:
    """Wait until a client has read at a height: a new one may be with a node that is behind."""
    while client.trust.height < height:
        await client.get(SPACE)
        await trio.sleep(LOOK_SECONDS)


def observers(port: int) -> str:
    """Return the lines of a configuration by which a member has a door for observers."""
    return f'\n[observers]\nlisten = "127.0.0.1:{port}"\nconnections_max = 16\n'


def found(
    folder: Path,
    rules: Sequence[Path],
    people: Sequence[Person] = (),
    accounts: Sequence[OpeningBalance] = (),
    agencies: Sequence[str] = ("registry", "social", "treasury", "integrity"),
    tuning: str = "",
    notice_ms: int = NOTICE_MS,
) -> Town:
    """Found a network of which each member has a chief and a door for observers.

    Args:
        folder, rules, people, accounts, agencies, tuning: as ``localnet.found``.
        notice_ms: between what is agreed on and its effect.
    """
    chiefs = [Person(CHIEF, each, OFFICIAL, ((ROLE, ()),)) for each in agencies]
    network = found_network(
        folder,
        rules,
        [*people, *chiefs],
        accounts,
        agencies,
        tuning,
        limits=Limits(notice_ms=notice_ms),
    )
    doors = dict(zip(agencies, free_ports(len(agencies)), strict=True))
    for agency, port in doors.items():
        with (folder / agency / founding.CONFIG_NAME).open("a", encoding="utf-8") as file:
            file.write(observers(port))
    return Town(network, doors)


def renewed(validator: Validator, key: KeyPair, node_key: KeyPair) -> Validator:
    """Return a member under other keys, at its address."""
    certificate = make_certificate(node_key.seed, validator.agency)
    return replace(validator, key=key.public, node_key=node_key.public, certificate=certificate)


def _validator(member: Member, key: KeyPair, node_key: KeyPair) -> Validator:
    return Validator(
        member.name,
        key.public,
        node_key.public,
        make_certificate(node_key.seed, member.name),
        member.host,
        member.peer_port,
        member.host,
        member.client_port,
    )


def _signs(pair: KeyPair) -> memberfile.Sign:
    key = keys.Key(pair)
    return key.sign
