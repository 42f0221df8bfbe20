"""The validator key in a process of its own: killed, started again, asked by two, held by two.

The agency begins with a key file as the others do and goes over to a signer, which takes its mark.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.signing.main import init
from scripts.localnet import LocalNetwork
from tests.network.town import (
    agreed,
    client,
    config_path,
    data,
    eventually,
    home,
    kill,
    metric,
    ready,
    start,
    status,
    until,
)
from tests.network.work import Books, working

pytestmark = pytest.mark.process

AGENT = "social"
RUN = (
    "import sys; from pathlib import Path; from node.signing.main import run; "
    "run(Path(sys.argv[1]))"
)


class SignerProcess:
    """The signer of one agency, as a service manager would run it."""

    def __init__(self, town: LocalNetwork, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "signer.toml"
        self.socket = folder / "s"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(mode=0o700)
        shutil.copy(town.key_file(AGENT, "validator"), folder / "validator.key")
        self.config.write_text(
            "[signer]\n"
            f'genesis = "{town.folder / "genesis.cbor"}"\n'
            f'socket = "{self.socket}"\n'
            f'client_user = "{getpass.getuser()}"\n'
            'key = "validator.key"\n'
        )

    def start(self) -> None:
        self.process = self.another(self.config)

    def another(self, config: Path) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen([sys.executable, "-c", RUN, config], stdout=log, stderr=log)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def end(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(10)
            self.process = None


@pytest.fixture(scope="module")
def keeper(own_town: LocalNetwork) -> Iterator[SignerProcess]:
    """A running signer that took over the key of a node, and the node that asks it."""
    own_town.kill(AGENT, signal.SIGTERM)
    found = SignerProcess(own_town, own_town.folder / "signer")
    begun = init(found.config, took_from=data(own_town, AGENT) / "signer.mark")
    assert begun.took_over
    with config_path(own_town, AGENT).open("a", encoding="utf-8") as file:
        file.write(f'\n[signer]\nsocket = "{found.socket}"\nkey = "{begun.public.hex()}"\n')
    own_town.key_file(AGENT, "validator").rename(home(own_town, AGENT) / "moved.key")
    (data(own_town, AGENT) / "signer.mark").unlink()
    found.start()
    own_town.start(AGENT)
    own_town.wait_ready(AGENT)
    yield found
    found.end()


def started(folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A node that runs beside the network's own."""
    with (folder / "out").open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "node", folder / "node.toml"],
            stdout=out,
            stderr=out,
            env={**os.environ, **environment},
        )


def said_by(words: list[str]) -> str:
    done = subprocess.run(words, capture_output=True, timeout=20, text=True)
    return done.stdout + done.stderr


async def test_a_node_whose_signer_is_killed_says_so_follows_and_resumes_by_itself(
    own_town: LocalNetwork, keeper: SignerProcess, books: Books
) -> None:
    pid = own_town.processes[AGENT].pid
    own = Books()
    async with working(own_town, own):
        await own.grown(20, "with the signer")
        assert await metric(own_town, AGENT, "comity_node_signing") == 1
        assert await metric(own_town, AGENT, "comity_signer_seconds_count") > 0
        keeper.end()

        async def says_so() -> bool:
            said = await status(own_town, AGENT)
            return "nothing is signed" in (said["problem"] or "")

        await eventually(says_so, "the node says that nothing is signed")
        assert await metric(own_town, AGENT, "comity_node_signing") == 0
        assert '"signer away"' in own_town.log(AGENT)
        await own.grown(20, "without the signer")
        await agreed(own_town, height=own.height)  # it follows
        async with client(own_town, AGENT) as reader:
            assert (await reader.get("account", "wallet", 0)).value  # and serves reads
        before = await metric(own_town, AGENT, "comity_signer_seconds_count")
        keeper.start()
        await ready(own_town, AGENT)

        async def votes_again() -> bool:
            return await metric(own_town, AGENT, "comity_signer_seconds_count") > before

        await eventually(votes_again, "it asks for signatures again")
        assert await metric(own_town, AGENT, "comity_node_signing") == 1
        # with another node down every certificate needs this one's vote
        kill(own_town, "registry")
        await own.grown(20, "that need the signer")
        await start(own_town, "registry")
    assert own_town.processes[AGENT].pid == pid, "the node was not started again"
    await agreed(own_town, height=own.height)


@pytest.mark.long
async def test_both_killed_in_the_midst_of_work_they_go_on_without_a_contradiction(
    own_town: LocalNetwork, keeper: SignerProcess
) -> None:
    own = Books()
    async with working(own_town, own):
        await own.grown(10, "before the kill")
        kill(own_town, AGENT)
        keeper.end()
        keeper.start()
        await start(own_town, AGENT)
    await agreed(own_town, height=own.height)
    for agency in own_town.agencies:
        assert await metric(own_town, agency, "comity_consensus_equivocations_total") == 0
        assert "SIGNING_REFUSED" not in own_town.log(agency)


async def test_a_second_signer_of_the_same_key_does_not_start(
    own_town: LocalNetwork, keeper: SignerProcess
) -> None:
    process = keeper.another(keeper.config)
    assert process.wait(20) == 1
    assert keeper.process is not None
    assert re.search(rf"process {keeper.process.pid}, .*\) signs with the key file", keeper.log())
    assert keeper.process.poll() is None


@pytest.mark.long
async def test_a_second_node_gets_no_signature_while_the_first_is_there_nor_later(
    own_town: LocalNetwork, keeper: SignerProcess
) -> None:
    """The second has the same keys, and data of its own."""
    twin = own_town.folder / "twin"
    shutil.copytree(home(own_town, AGENT), twin)
    shutil.rmtree(twin / "data")
    doors = {f"COMITY_LISTEN_{door}": "127.0.0.1:0" for door in ("PEERS", "CLIENTS", "TELEMETRY")}
    process = started(twin, doors)
    try:
        said = twin / "out"
        await until(lambda: "serves another node already" in said.read_text(), "it is told no")
        kill(own_town, AGENT)
        await until(
            lambda: "is not the one that this key" in said.read_text(), "its log is another"
        )
        assert "node connected" not in keeper.log().rpartition("IN_USE")[2]
    finally:
        process.kill()
        process.wait(10)
    await start(own_town, AGENT)


@pytest.mark.long
async def test_another_user_is_not_served(own_town: LocalNetwork, keeper: SignerProcess) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    code = (
        "import os, socket, sys; os.setuid(12345); s = socket.socket(socket.AF_UNIX);"
        "s.connect(sys.argv[1]); s.sendall(bytes(8)); print(s.recv(10))"
    )
    for folder in [keeper.folder, *keeper.folder.parents]:
        if folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o111)
    said = said_by([sys.executable, "-I", "-c", code, str(keeper.socket)])
    keeper.folder.chmod(0o700)
    assert "b''" in said or "ConnectionResetError" in said or "BrokenPipeError" in said, said
    await until(lambda: '"another user"' in keeper.log(), "the signer says so")
