"""What the documentation shows is so: links, commands, examples, options, metrics."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cyclopts import CycloptsError

import comity
from comity import Call, Client, keys
from comity.cli.app import whole
from comity.cli.options import GENESIS_VARIABLE, SERVERS_VARIABLE, WARN_VARIABLE
from consensus import protocol
from consensus.genesis import OpeningBalance, RoleGiven
from consensus.hotstuff import execution
from consensus.keyfile import KeyKind, from_seed
from consensus.ledger.codes import Code
from consensus.ledger.rules import compile_rulebook, encode_definition, load_toml
from node import config as configs
from node import keyring
from node.telemetry.metrics import Metrics
from tests.comity import twin as twins

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
COMMAND = whole()
ANNA, BEN = b"\xaa" * 32, b"\xbb" * 32


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose_of(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose_of(page), flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in plain}


def links_of(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose_of(page))


def blocks_of(page: Path, language: str) -> list[tuple[str, bool]]:
    """Fenced blocks of a language, each with whether it is marked to run."""
    found = re.findall(
        rf"(<!-- runs -->\n)?^```{language}\n(.*?)^```",
        page.read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )
    return [(text, bool(mark)) for mark, text in found]


def typed_in(page: Path) -> list[str]:
    """The ``comity`` command lines that a page shows as typed."""
    shown = [
        line.removeprefix("$ ").removeprefix(".venv/bin/").split("   #")[0].strip()
        for text, _ in blocks_of(page, "console")
        for line in text.splitlines()
        if line.startswith("$ ")
    ]
    return [line for line in shown if line.startswith("comity ")]


def named_in(page: Path) -> list[str]:
    """The commands that a page names within its sentences."""
    return re.findall(r"`(comity [a-z-][^`\n]*)`", prose_of(page))


# --- links ------------------------------------------------------------------------------------


def test_there_are_pages() -> None:
    assert {"README.md", "docs/README.md", "docs/operating.md"} <= {name_of(p) for p in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in links_of(page):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        target, _, anchor = link.partition("#")
        place = (page.parent / target).resolve() if target else page
        assert place.exists(), link
        assert place.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors_of(place), link


def test_every_grammar_is_listed() -> None:
    folder = ROOT / "docs" / "protocol"
    listed = set(
        re.findall(r"^\| \[(\w+\.cddl)\]", (folder / "README.md").read_text(), re.MULTILINE)
    )
    assert listed == {path.name for path in folder.glob("*.cddl")}


def test_every_page_is_reached_from_the_readme() -> None:
    seen: dict[Path, None] = {}
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen[page] = None
        for link in links_of(page):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.exists():
                waiting.append(target)
    assert [name_of(page) for page in PAGES if page not in seen] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_of_the_repository_that_are_named_exist(page: Path) -> None:
    text = prose_of(page)
    tops = "consensus|node|comity|configs|scripts|tests|deploy|docs"
    for path in re.findall(rf"`((?:{tops})/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


# --- commands ---------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_line_shown_is_understood(page: Path) -> None:
    for line in typed_in(page):
        try:
            COMMAND.parse_args(shlex.split(line)[1:], exit_on_error=False, print_error=False)
        except CycloptsError as error:
            pytest.fail(f"{line}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_named_exists(page: Path) -> None:
    for line in named_in(page):
        assert is_command(shlex.split(line)[1:]), line


def is_command(words: Sequence[str]) -> bool:
    """Whether the words begin with a command, or name a group of them, or only ask for help."""
    here: Any = COMMAND
    for word in words:
        if word not in here:
            return here is not COMMAND and (
                here.default_command is not None or word.startswith("-")
            )
        here = here[word]
    return True


def test_a_wrong_command_line_would_be_noticed() -> None:
    for line in ("comity submitt x", "comity get a/1 --jsonn", "comity keys new"):
        with pytest.raises(CycloptsError):
            COMMAND.parse_args(shlex.split(line)[1:], exit_on_error=False, print_error=False)
    assert is_command(["keys", "new"])
    assert is_command(["rules"])
    assert not is_command(["keyz", "new"])
    assert not is_command(["keys", "knew"])


# --- words --------------------------------------------------------------------------------------

LEFT_OVER = r"\bTODO\b|\bFIXME\b|\bXXX\b|lorem ipsum|(?<![\w.])/(?:home|root|tmp|mnt|work)/"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_hold_nothing_left_over_and_no_path_of_somebodys_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(LEFT_OVER, text, flags=re.IGNORECASE) == []


# --- decisions and dependencies -----------------------------------------------------------------

RECORDS = sorted((ROOT / "docs" / "adr").glob("0*.md"))


@pytest.mark.parametrize("page", RECORDS, ids=name_of)
def test_a_decision_has_all_its_parts_and_is_listed(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    parts = re.findall(r"^\*\*(\w+)\.\*\*", text, flags=re.MULTILINE)
    assert [part for part in parts if part != "Why"] == ["Status", "Context", "Decision", "Price"]
    assert text.startswith(f"# {page.name[:4]} ")
    assert f"]({page.name})" in (page.parent / "README.md").read_text(encoding="utf-8")


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [int(page.name[:4]) for page in RECORDS] == list(range(1, len(RECORDS) + 1))


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    used, developing = text.split("Only for development:")
    extras = [
        each for names in project["project"]["optional-dependencies"].values() for each in names
    ]
    for part, required in (
        (used, [*project["project"]["dependencies"], *extras]),
        (developing, project["dependency-groups"]["dev"]),
    ):
        rows = re.findall(r"^\| ([a-z].*?) \| (.+) \|$", part, flags=re.MULTILINE)
        named = {name for names, _ in rows for name in names.split(", ")} - {"package"}
        assert named == {re.split(r"[\[>=]", each)[0] for each in required}


# --- configuration ------------------------------------------------------------------------------


def test_the_example_configuration_has_every_option_with_its_default() -> None:
    path = ROOT / "configs" / "node.toml"
    shown = tomllib.loads(path.read_text(encoding="utf-8"))
    config = configs.load(path, {})
    for section in msgspec.structs.fields(configs.Config):
        if section.name in ("folder", "lines", "peers", "follow"):
            continue
        fields = msgspec.structs.fields(section.type)
        assert list(shown[section.name]) == [field.name for field in fields]
        for field in fields:
            if field.default is not msgspec.NODEFAULT:
                assert getattr(getattr(config, section.name), field.name) == field.default
    assert shown["peers"] == shown["follow"] == {}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_environment_variables_that_are_named_exist(page: Path) -> None:
    known = {keys.FILE_VARIABLE, keys.PASSPHRASE_VARIABLE, GENESIS_VARIABLE, SERVERS_VARIABLE}
    known |= {keys.PASSPHRASE_FILE_VARIABLE, keyring.VARIABLE, WARN_VARIABLE}
    for section in msgspec.structs.fields(configs.Config):
        if section.name not in ("folder", "lines", "peers", "follow"):
            fields = msgspec.structs.fields(section.type)
            known |= {f"COMITY_{section.name}_{field.name}".upper() for field in fields}
    named = set(re.findall(r"\bCOMITY_[A-Z_]*[A-Z]\b", page.read_text(encoding="utf-8")))
    assert named - known == set()


@pytest.mark.parametrize(("unit", "commands"), [("comity-node", 2), ("comity-signer", 1)])
def test_the_unit_starts_commands_that_exist(unit: str, commands: int) -> None:
    text = (ROOT / "deploy" / "systemd" / f"{unit}.service").read_text(encoding="utf-8")
    started = re.findall(
        r"^ExecStart\w*=-?/opt/comity/\.venv/bin/comity (.+)$", text, flags=re.MULTILINE
    )
    assert len(started) == commands
    for line in started:
        COMMAND.parse_args(shlex.split(line), exit_on_error=False, print_error=False)


ERROR_TREES = ("consensus/errors.py", "node/errors.py", "node/config.py", "node/mempool.py")


def test_codes_in_the_operators_table_exist() -> None:
    page = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    sources = "".join((ROOT / each).read_text(encoding="utf-8") for each in ERROR_TREES)
    known = set(re.findall(r'code = "([A-Z_]+)"', sources))
    known |= {status.name for status in protocol.Status} | {code.name for code in Code}
    known |= {execution.HALT_DIVERGENCE}
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)*)`", page)) - {"COMITY", "SIGTERM"}
    assert {"LOG_DAMAGED", "PROMISES_LOST"} <= named
    assert named - known == set()


def test_every_runbook_is_found_by_a_symptom() -> None:
    page = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    table = page.partition("\n## By symptom\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"\]\(runbooks/(\w+)\.md\)", table))
    there = {each.stem for each in (ROOT / "docs" / "runbooks").glob("Comity*.md")}
    assert there
    assert named == there


# --- monitoring ---------------------------------------------------------------------------------


def metric_names() -> set[str]:
    names: set[str] = set()
    for family in Metrics().registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("", "_bucket", "_sum", "_count")}
        names |= {family.name + suffix for suffix in suffixes.get(family.type, ("",))}
    return names


@pytest.mark.parametrize("place", ["docs/operating.md", "docs/monitoring.md"])
def test_metrics_that_are_named_exist(place: str) -> None:
    known = metric_names()
    named = set(re.findall(r"\bcomity_[a-z_]+", (ROOT / place).read_text(encoding="utf-8")))
    assert named
    assert named - known == set()


# --- examples -----------------------------------------------------------------------------------

PYTHON_BLOCKS = [
    (f"{name_of(page)}-{number}", text)
    for page in PAGES
    for number, (text, _) in enumerate(blocks_of(page, "python"))
]
EXAMPLES = [text for text, runs in blocks_of(ROOT / "docs" / "clients.md", "python") if runs]


@pytest.mark.parametrize("text", [t for _, t in PYTHON_BLOCKS], ids=[n for n, _ in PYTHON_BLOCKS])
def test_python_that_is_shown_compiles(text: str) -> None:
    compile(text, "example", "exec")


def demonstration_genesis() -> Any:
    """The twin's network under the demonstration's rules; one official may do everything."""
    texts = sorted((ROOT / "configs" / "rules").glob("*.toml"))
    definitions = [load_toml(path.read_text(encoding="utf-8")) for path in texts]
    book = compile_rulebook(definitions)
    roles = sorted(
        {a.actor.role for r in book.rule_sets.values() for a in r.actions.values() if a.actor.role}
    )
    base = twins.make_genesis()
    official = next(principal.id for principal in base.principals)
    scope = (("region", "all"),)
    return replace(
        base,
        principals=base.principals[:1],
        keys=base.keys[:1],
        roles=tuple(RoleGiven(official, role, scope) for role in roles),
        rules=tuple(encode_definition(each) for each in definitions),
        accounts=(OpeningBalance("programme", (), 1_000_000),),
    )


async def prepare(client: Client) -> None:
    """Enter a mother and her child, and what the examples rest on."""
    home = {
        "family_name": "Kim",
        "street": "Mill Lane 4",
        "town": "Norton",
        "region": "north",
    }
    for call in (
        Call("identity", "register", {"token": ANNA, "given_name": "Anna"} | home),
        Call("identity", "register", {"token": BEN, "given_name": "Ben"} | home),
        Call("benefits", "form_household", {"caregiver": [ANNA]}),
        Call("benefits", "determine", {"child": [BEN], "household": [ANNA], "monthly": 25_000}),
        Call("payments", "open_payee", {"person": [ANNA]}),
    ):
        decision = await client.transact(call, reads=await client.read_for(call))
        assert decision.applied, decision


@pytest.fixture
def twin_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Make ``Client.connect`` reach a fresh twin of the demonstration; return its outcomes."""
    genesis = demonstration_genesis()
    (tmp_path / "genesis.cbor").write_bytes(genesis.encode())
    (tmp_path / "treasury" / "keys").mkdir(parents=True)
    pair = from_seed(KeyKind.CLIENT, bytes([50]) * 32)
    assert pair.public == twins.OFFICIAL.public
    keys.create(tmp_path / "treasury" / "keys" / "paymaster.key", pair)
    monkeypatch.chdir(tmp_path)
    real = Client.connect
    reached: list[twins.Twin] = []

    @asynccontextmanager
    async def connect(data: bytes, **options: Any) -> AsyncIterator[Client]:
        network = twins.Twin(genesis=genesis)
        reached.append(network)
        options.pop("dial", None)
        options["servers"] = ["north"]
        async with twins.harness(network) as h, real(data, dial=h.dial, **options) as client:
            await prepare(client)
            yield client

    monkeypatch.setattr(comity.Client, "connect", connect)

    def outcomes() -> list[str]:
        rows = [row for network in reached for row in network.results.values()]
        return [decision.code.name for row in rows for decision in row][5:]

    return outcomes


EXPECTED: tuple[list[str], ...] = (
    ["APPLIED", "NOT_UNIQUE"],
    [],
    ["APPLIED"],
    ["APPLIED", "APPLIED", "APPLIED"],
    [],
    ["APPLIED"],
    ["APPLIED"],
)
"""What the network decided on each example's transactions."""


@pytest.mark.parametrize(
    ("text", "expected"),
    list(zip(EXAMPLES, EXPECTED, strict=True)),
    ids=[f"example-{number}" for number in range(len(EXAMPLES))],
)
def test_examples_for_clients_run_as_they_are(
    text: str, expected: list[str], twin_network: Callable[[], list[str]]
) -> None:
    exec(compile(text, "docs/clients.md", "exec"), {"__name__": "example"})
    assert twin_network() == expected
