"""Nodes that are set up wrongly: each says in one line what is wrong, and harms nothing.

Every mistake is made in a copy of a node's folder; ``comity node check`` names it, and for some
kinds of mistake a real process shows that it ends with one line, status 1 and nothing changed.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from consensus import genesis
from consensus.errors import ComityError
from node.main import check
from scripts.localnet import LocalNetwork
from scripts.ports import free_ports
from tests.network.town import (
    AGENT,
    agreed,
    data,
    found_town,
    home,
    refused,
    run_node,
    start,
)

AT_ONCE = 2


@dataclass
class Setup:
    """A copy of a stopped node's folder, to be spoiled in one way."""

    town: LocalNetwork
    folder: Path

    @classmethod
    def copy(cls, town: LocalNetwork, folder: Path, *, with_data: bool = True) -> Setup:
        ignored = shutil.ignore_patterns(*([] if with_data else ["data"]))
        shutil.copytree(home(town, AGENT), folder, ignore=ignored)
        return cls(town, folder)

    @property
    def config(self) -> Path:
        return self.folder / "node.toml"

    @property
    def genesis(self) -> Path:
        return self.folder / "genesis.cbor"

    def key(self, name: str) -> Path:
        return self.folder / "keys" / f"{name}.key"

    def replace(self, old: str, new: str) -> None:
        text = self.config.read_text()
        assert old in text, text
        self.config.write_text(text.replace(old, new, 1))

    def listen(self, **addresses: str) -> None:
        """Override where doors listen."""
        lines = [f'{name} = "{at}"' for name, at in addresses.items()]
        rest = [
            line
            for line in self.config.read_text().splitlines()
            if line.partition(" ")[0] not in addresses
        ]
        at = rest.index("[listen]") + 1
        self.config.write_text("\n".join([*rest[:at], *lines, *rest[at:]]) + "\n")


def other_name(setup: Setup) -> None:
    """The same members and keys, but another network."""
    found = genesis.decode(setup.genesis.read_bytes())
    setup.genesis.write_bytes(dataclasses.replace(found, network="elsewhere").encode())


def other_members(setup: Setup) -> None:
    other = found_town(setup.folder / "other")
    setup.genesis.write_bytes(other.genesis)


def key_of_another_agency(name: str) -> Callable[[Setup], None]:
    def spoil(setup: Setup) -> None:
        shutil.copy2(setup.town.key_file("treasury", name), setup.key(name))

    return spoil


def keys_exchanged(setup: Setup) -> None:
    shutil.copy2(setup.key("node"), setup.key("validator"))


def open_key(setup: Setup) -> None:
    setup.key("validator").chmod(0o644)


def broken(name: str) -> Callable[[Setup], None]:
    def spoil(setup: Setup) -> None:
        path = setup.folder / name
        path.write_bytes(path.read_bytes()[:-3])

    return spoil


def gone(name: str) -> Callable[[Setup], None]:
    return lambda setup: (setup.folder / name).unlink()


def edited(old: str, new: str) -> Callable[[Setup], None]:
    return lambda setup: setup.replace(old, new)


def file_for_folder(setup: Setup) -> None:
    shutil.rmtree(setup.folder / "data", ignore_errors=True)
    (setup.folder / "data").write_bytes(b"a file")


Spoil = Callable[[Setup], None]

MISTAKES: dict[str, tuple[Spoil, str, str]] = {
    "other members": (
        other_members,
        "validator.key is not the key that the genesis file names for social",
        "validator_key",
    ),
    "another agency's validator key": (
        key_of_another_agency("validator"),
        "validator.key is not the key that the genesis file names for social",
        "check [node] validator_key, agency and genesis",
    ),
    "another agency's node key": (
        key_of_another_agency("node"),
        "node.key is not the key that the genesis file names for social",
        "check [node] node_key, agency and genesis",
    ),
    "a node key for the validator's": (
        keys_exchanged,
        "validator.key holds a node key, a validator key is needed",
        "the right file",
    ),
    "a key that others may read": (open_key, "validator.key has mode 0644", "chmod 600 "),
    "a key file cut short": (
        broken("keys/node.key"),
        "keys/node.key: key file: not CBOR",
        "backup",
    ),
    "no key file": (
        gone("keys/validator.key"),
        "validator.key: No such file or directory",
        "put it there",
    ),
    "no genesis file": (
        gone("genesis.cbor"),
        "genesis.cbor: No such file or directory",
        "[node] genesis",
    ),
    "a genesis file cut short": (
        broken("genesis.cbor"),
        "genesis.cbor cannot be used: genesis: not CBOR",
        "copy the genesis file again",
    ),
    "no configuration": (gone("node.toml"), "node.toml: No such file or directory", "name"),
    "a misspelt key": (
        edited("[node]", '[node]\nvalidatr_key = "x"'),
        "node.toml:3: unknown [node] key 'validatr_key'; did you mean 'validator_key'?",
        "mend the file",
    ),
    "a number for a name": (
        edited('agency = "social"', "agency = 7"),
        "node.toml:3: agency: Expected `str`, got `int`",
        "mend the file",
    ),
    "an agency that is no member": (
        edited('"social"', '"harbour"'),
        "'harbour' has no validator in",
        "one of registry, social, treasury, integrity",
    ),
    "an address without port": (
        edited("[listen]", '[listen]\npeers = "localhost"'),
        "listen.peers = 'localhost' is not host:port",
        "mend the file",
    ),
}
"""What is done to the folder, what the error line says, and what the hint says."""

ENDS = ("a misspelt key",)
"""Mistakes made to real processes too: the others end alike."""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    """A founded network that nobody has started."""
    with found_town(tmp_path_factory.mktemp("plan") / "network") as network:
        yield network


@pytest.mark.parametrize("mistake", MISTAKES)
def test_check_names_the_mistake_and_what_to_do(
    plan: LocalNetwork, tmp_path: Path, mistake: str
) -> None:
    setup = Setup.copy(plan, tmp_path / "copy")
    check(setup.config)
    spoil, says, hints = MISTAKES[mistake]
    spoil(setup)
    with pytest.raises(ComityError, match=re.escape(says)) as caught:
        check(setup.config)
    assert hints in caught.value.hint


@pytest.mark.parametrize("door", ["peers", "clients", "telemetry"])
def test_check_names_an_address_in_use(plan: LocalNetwork, tmp_path: Path, door: str) -> None:
    setup = Setup.copy(plan, tmp_path / "copy")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        setup.listen(**{door: address})
        said = f"listen.{door}: cannot listen on {address}: Address already in use"
        with pytest.raises(ComityError, match=re.escape(said)) as caught:
            check(setup.config)
    assert f"listen.{door}: {address} is free" in check(setup.config)
    assert "[listen]" in caught.value.hint


@pytest.mark.process
async def test_check_of_a_running_node_says_so_and_what_its_next_start_would_find(
    town: LocalNetwork, tmp_path: Path
) -> None:
    before, _ = await agreed(town)
    setup = Setup.copy(town, tmp_path / "copy", with_data=False)
    setup.replace('data = "data"', f'data = "{data(town, AGENT)}"')
    (port,) = free_ports(1)
    setup.listen(telemetry=f"127.0.0.1:{port}")
    found = check(setup.config)
    own = town.processes[AGENT].pid
    place = re.escape(str(data(town, AGENT)))
    assert re.match(rf"running: a node \(process {own}, .*\) uses {place}; ", found[0]), found
    assert "keys: those of social in the genesis file" in found
    assert "certificate: without an end" in found
    for door, words in (
        ("listen.peers", "is in use, by the running node or somebody else"),
        ("listen.clients", "is in use, by the running node or somebody else"),
        ("listen.telemetry", "is free"),
    ):
        assert [row for row in found if row.startswith(door) and row.endswith(words)], found
    open_key(setup)
    with pytest.raises(ComityError, match=r"validator\.key has mode 0644"):
        check(setup.config)
    await agreed(town, height=before + 1)


@pytest.mark.process
async def test_a_node_ends_with_one_line_and_harms_nothing(
    town: LocalNetwork, tmp_path: Path
) -> None:
    before, _ = await agreed(town)
    town.kill(AGENT, signal.SIGTERM)
    limiter = trio.CapacityLimiter(AT_ONCE)
    taken = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{taken.getsockname()[1]}"

    async def case(name: str, spoil: Spoil, says: str, hints: str) -> None:
        async with limiter:
            setup = Setup.copy(town, tmp_path / name.replace(" ", "-"))
            spoil(setup)
            error, hint = await refused(setup.config)
            assert says in error, (name, error)
            assert hints in hint, (name, hint)

    cases = {name: MISTAKES[name] for name in ENDS}
    cases |= {
        "data of another network": (
            other_name,
            "the store belongs to another network",
            "genesis file named in the configuration",
        ),
        "a file for the data folder": (file_for_folder, "a-file-for-the-data-folder/data", ""),
        "client address in use": (
            lambda setup: setup.listen(clients=address),
            f"listen.clients: cannot listen on {address}: Address already in use",
            "name another under [listen]",
        ),
    }
    with taken:
        async with trio.open_nursery() as nursery:
            for name, rest in cases.items():
                nursery.start_soon(case, name, *rest)
    await case(  # by itself: it and the one before it get as far as to hold the validator's key
        "client address of another machine",
        lambda setup: setup.listen(clients="192.0.2.1:4000"),  # RFC 5737: nobody's
        "listen.clients: cannot listen on 192.0.2.1:4000: Cannot assign requested address",
        "name an address that this machine has under [listen]",
    )
    await start(town, AGENT)
    await agreed(town, height=before + 1)


@pytest.mark.long
@pytest.mark.process
async def test_second_node_with_a_copy_of_the_key_and_data_of_its_own_is_refused(
    town: LocalNetwork, tmp_path: Path
) -> None:
    before, _ = await agreed(town)
    setup = Setup.copy(town, tmp_path / "copy", with_data=False)
    setup.listen(peers="127.0.0.1:0", clients="127.0.0.1:0", telemetry="127.0.0.1:0")
    error, hint = await refused(setup.config)
    assert f"another process (process {town.processes[AGENT].pid}, " in error
    assert "on this machine signs with the validator key" in error
    assert "stop the other node or signer" in hint
    await agreed(town, height=before + 1)


@pytest.mark.process
async def test_second_node_on_one_data_folder_is_refused_and_the_first_goes_on(
    town: LocalNetwork, tmp_path: Path
) -> None:
    before, _ = await agreed(town)
    setup = Setup.copy(town, tmp_path / "copy", with_data=False)
    ports = [f"127.0.0.1:{port}" for port in free_ports(3)]
    setup.listen(peers=ports[0], clients=ports[1], telemetry=ports[2])
    setup.replace('data = "data"', f'data = "{data(town, AGENT)}"')
    error, hint = await refused(setup.config, run_node)
    own = town.processes[AGENT].pid
    assert re.fullmatch(rf"another process \(process {own}, .*\) uses (.*)", error), error
    assert error.endswith(str(data(town, AGENT) / "state"))
    assert "one key must never run twice" in hint
    await agreed(town, height=before + 1)
