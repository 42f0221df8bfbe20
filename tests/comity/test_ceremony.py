"""A founding without a founder: terms, member files, merging; and every mistake explained."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import cbor2
import nacl.bindings
import pycddl
import pytest
from blake3 import blake3
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import NameOID

from comity import keys
from comity.ceremony import Address, enrol, read_terms
from comity.cli.app import REFUSED, USAGE, run
from consensus import genesis, memberfile
from consensus.errors import DecodeError, SignatureError
from consensus.keyfile import KeyKind
from consensus.ledger.rules import decode_definition, parts_root
from node.network.tls import make_certificate
from tests.comity.shell import Said

ROOT = Path(__file__).parents[2]
AGENCIES = ("registry", "social", "treasury", "integrity")
TERMS = """network = "benefits"
time = 2026-11-20T09:00:00Z
rules = "rules"
notice = "1d"

[[agencies]]
name = "registry"
title = "Civil Registry"
[[agencies]]
name = "social"
title = "Social Services"
[[agencies]]
name = "treasury"
title = "Treasury"
[[agencies]]
name = "integrity"
title = "Integrity Office"

[[people]]
name = "administrator"
agency = "registry"
roles = [ { role = "charter.administrator", scope = { roles = "identity." } } ]

[[people]]
name = "registrar"
agency = "registry"
roles = [ { role = "identity.registrar" } ]

[[people]]
name = "intake"
agency = "social"
kind = "system"
"""


class Desk:
    """Runs commands in a folder with terms and rule sets."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capture = capture

    def __call__(self, *words: str) -> Said:
        self._capture.readouterr()
        status = run(["network", *words])
        out, err = self._capture.readouterr()
        assert "Traceback" not in out + err
        return Said(status, out, err)

    def enrol(self, agency: str, folder: str = "", *more: str) -> Said:
        number = AGENCIES.index(agency) + 1
        at = [f"--peers=10.0.0.{number}:7400", f"--clients=10.0.0.{number}:7401"]
        place = folder or agency
        return self("enrol", "terms.toml", "--agency", agency, *at, "-o", place, *more)

    def merge(self, folder: str, *files: str) -> Said:
        given = files or [f"{each}/{each}.member" for each in AGENCIES]
        return self("merge", "terms.toml", *given, "-o", folder, "--json")


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Desk:
    monkeypatch.chdir(tmp_path)
    Path("rules").mkdir()
    for name in ("charter.toml", "identity.toml"):
        shutil.copy(ROOT / "configs" / "rules" / name, "rules")
    Path("terms.toml").write_text(TERMS)
    return Desk(tmp_path, capsys)


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of four agencies that have enrolled, made once and copied."""
    return tmp_path_factory.mktemp("homes")


@pytest.fixture
def enrolled(desk: Desk, homes: Path) -> Desk:
    for agency in AGENCIES:
        if not (homes / agency).exists():
            assert desk.enrol(agency).status == 0
            shutil.copytree(agency, homes / agency)
        else:
            shutil.copytree(homes / agency, agency)
    return desk


def test_everybody_who_merges_gets_the_same_network(enrolled: Desk) -> None:
    found = []
    for order, agency in enumerate(AGENCIES):
        files = [f"{each}/{each}.member" for each in AGENCIES]
        said = enrolled.merge(agency, *files[order:], *files[:order])
        assert said.status == 0, said.err
        assert json.loads(said.out)["agency"] == agency
        found.append(
            [json.loads(said.out)["chain"]]
            + [Path(agency, name).read_bytes() for name in ("genesis.cbor", "transcript.txt")]
        )
    assert found[1:] == found[:-1]
    chain, data, transcript = found[0]
    made = genesis.decode(data)
    assert chain == f"0x{genesis.chain_id(data).hex()}"
    assert f"chain {chain}\n" in transcript.decode()
    for definition in map(decode_definition, made.rules):
        root = f"0x{parts_root(definition).hex()}"
        assert f"  {definition.domain} {definition.number}  {root}\n" in transcript.decode()
    assert [each.agency for each in made.committee.validators] == list(AGENCIES)
    assert made.committee.validators[2].peer_host == "10.0.0.3"
    assert (made.network, made.time_ms, made.limits.notice_ms) == (
        "benefits",
        1_795_165_200_000,
        86_400_000,
    )
    assert len(made.principals) == 3
    assert [(each.role, each.scope) for each in made.roles] == [
        ("charter.administrator", (("roles", "identity."),)),
        ("identity.registrar", ()),
    ]


def test_a_merged_folder_is_one_that_a_node_starts_from(enrolled: Desk) -> None:
    assert enrolled.merge("social").status == 0
    assert run(["node", "check", "social/node.toml"]) in (0, USAGE)
    from node import config
    from node.identity import load_identity, load_keys
    from node.keyring import Keyring

    loaded = config.load(Path("social/node.toml"), {})
    identity = load_identity(loaded, load_keys(loaded, Keyring.of(loaded, {})))
    assert identity.committee.validators[identity.index].agency == "social"


def test_keys_stay_where_they_were_made_and_are_nobody_elses(enrolled: Desk) -> None:
    for agency in AGENCIES:
        sent = Path(agency, f"{agency}.member").read_bytes()
        for path in Path(agency, "keys").iterdir():
            assert path.stat().st_mode & 0o777 == 0o600
            seed = cbor2.loads(path.read_bytes())["seed"]
            assert seed not in sent


def test_somebody_who_made_a_key_already_gives_its_public_half(desk: Desk) -> None:
    pair = keys.new_pair(KeyKind.CLIENT)
    said = desk.enrol("registry", "", "--person", f"registrar={pair.public.hex()}")
    assert said.status == 0, said.err
    member = memberfile.decode(Path("registry/registry.member").read_bytes())
    assert {each.name: each.key for each in member.people}["registrar"] == pair.public
    assert not Path("registry/keys/registrar.key").exists()
    assert Path("registry/keys/administrator.key").exists()


def test_the_hash_of_the_terms_moves_with_everything_in_them(desk: Desk) -> None:
    def digest() -> str:
        return str(json.loads(desk("terms", "terms.toml", "--json").out)["terms"])

    seen = [digest()]
    for old, new in [
        ('"benefits"', '"benefit"'),
        ("09:00:00Z", "09:00:01Z"),
        ('notice = "1d"', 'notice = "2d"'),
        ('notice = "1d"', 'notice = "1d"\ntree_depth = 20'),
        ('"Treasury"', '"The Treasury"'),
        ('scope = { roles = "identity." }', 'scope = { roles = "" }'),
        ('kind = "system"', 'kind = "official"'),
        ('name = "intake"', 'name = "intake-1"'),
    ]:
        assert old in TERMS
        Path("terms.toml").write_text(TERMS.replace(old, new, 1))
        seen.append(digest())
    Path("terms.toml").write_text(TERMS)
    text = Path("rules/identity.toml").read_text()
    Path("rules/identity.toml").write_text(text.replace('legal_basis = "', 'legal_basis = "New '))
    seen.append(digest())
    assert len(set(seen)) == len(seen)


MISTAKES = [
    (["registry", "social", "treasury"], "the file of integrity is missing"),
    (
        ["registry", "registry2", "social", "treasury", "integrity"],
        "two different files of registry",
    ),
    (["registry", "late", "treasury", "integrity"], "social enrolled under other terms"),
    (["registry", "changed", "treasury", "integrity"], "changed.member was changed after it"),
    (["registry", "torn", "treasury", "integrity"], "torn.member: "),
    (["registry", "genesis", "treasury", "integrity"], "genesis.member: "),
    (["registry", "same", "treasury", "integrity"], "have the same address 10.0.0.1:7400"),
    (["registry", "stranger", "social", "treasury", "integrity"], "'police', which is no agency"),
]


@pytest.mark.parametrize(("names", "said"), MISTAKES, ids=[said for _, said in MISTAKES])
def test_a_mistake_of_the_ceremony_is_explained(
    enrolled: Desk, names: list[str], said: str
) -> None:
    files = {each: Path(each, f"{each}.member").read_bytes() for each in AGENCIES}
    if "registry2" in names:
        enrolled.enrol("registry", "again")
        files["registry2"] = Path("again/registry.member").read_bytes()
    elif "late" in names:
        Path("terms.toml").write_text(TERMS.replace("1d", "2d"))
        enrolled.enrol("social", "late")
        files["late"] = Path("late/social.member").read_bytes()
        Path("terms.toml").write_text(TERMS)
    elif "same" in names:
        at = ["--peers=10.0.0.1:7400", "--clients=10.0.0.2:7401"]
        enrolled("enrol", "terms.toml", "--agency", "social", *at, "-o", "same")
        files["same"] = Path("same/social.member").read_bytes()
    elif "stranger" in names:
        Path("terms.toml").write_text(TERMS.replace('= "social"', '= "police"'))
        at = ["--peers=10.0.0.9:7400", "--clients=10.0.0.9:7401"]
        assert (
            enrolled("enrol", "terms.toml", "--agency", "police", *at, "-o", "police").status == 0
        )
        files["stranger"] = Path("police/police.member").read_bytes()
        Path("terms.toml").write_text(TERMS)
    files["changed"] = files["social"].replace(b"10.0.0.2", b"10.0.0.7")
    files["torn"] = files["social"][:-1]
    files["genesis"] = cbor2.dumps({"magic": "comity genesis"}, canonical=True)
    for name in names:
        Path(f"{name}.member").write_bytes(files[name])
    found = enrolled.merge("merged", *(f"{each}.member" for each in names))
    assert found.status == USAGE
    assert said in json.loads(found.out)["error"], found.out
    assert not Path("merged").exists()


EXPIRED = datetime.datetime(2026, 11, 19, tzinfo=datetime.UTC)
"""The day before the genesis time."""
FORGED = [
    ({"certificate": b"junk"}, "its certificate cannot be used: "),
    ({"certificate": "another"}, "its certificate is of another key than its node's"),
    ({"certificate": "expired"}, "its certificate is not good at the genesis time"),
    ({"host": "10.0.0.2\nchain 00"}, "'10.0.0.2\\nchain 00' is no host"),
    ({"host": "10.0.0.2 or so"}, "'10.0.0.2 or so' is no host"),
]


@pytest.mark.parametrize(("given", "said"), FORGED, ids=[said for _, said in FORGED])
def test_what_an_agency_signs_is_not_believed_for_that(
    enrolled: Desk, given: dict[str, Any], said: str
) -> None:
    """A file that its own maker has signed, and that would harm everybody: nodes that cannot load a
    certificate do not start, and a transcript says what its lines seem to say."""

    def certificate(seed: bytes, name: str) -> bytes:
        kind = given.get("certificate")
        if kind == "another":
            return make_certificate(bytes(32), name)
        return expired(seed, name) if kind == "expired" else kind or make_certificate(seed, name)

    def expired(seed: bytes, name: str) -> bytes:
        key = Ed25519PrivateKey.from_private_bytes(seed)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1)
        builder = builder.not_valid_before(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
        return builder.not_valid_after(EXPIRED).sign(key, None).public_bytes(Encoding.DER)

    terms = read_terms(Path("terms.toml"))
    address = Address(given.get("host", "10.0.0.2"), 7400, "10.0.0.2", 7401)
    file = enrol(terms, "social", address, {}, make_certificate=certificate)
    Path("forged.member").write_bytes(file.member)
    names = [f"{each}/{each}.member" for each in AGENCIES if each != "social"]
    found = enrolled.merge("merged", *names, "forged.member")
    assert found.status == USAGE
    assert said in json.loads(found.out)["error"], found.out
    assert not Path("merged").exists()


def test_all_mistakes_are_told_at_once(enrolled: Desk) -> None:
    for agency in ("social", "treasury"):
        data = Path(agency, f"{agency}.member").read_bytes()
        Path(f"{agency}.member").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    files = ["registry/registry.member", "social.member", "treasury.member"]
    said = enrolled.merge("merged", *files).out
    assert "social.member was changed" in said
    assert "treasury.member was changed" in said


def test_a_folder_with_other_keys_is_not_taken_for_ones_own(enrolled: Desk) -> None:
    enrolled.enrol("treasury", "elsewhere")
    said = enrolled.merge("elsewhere")
    assert said.status == USAGE
    assert "are in none of these files" in said.out


def test_another_genesis_file_is_not_written_over(enrolled: Desk) -> None:
    assert enrolled.merge("treasury").status == 0
    assert enrolled.merge("treasury").status == 0
    Path("treasury/genesis.cbor").write_bytes(b"another")
    said = enrolled.merge("treasury")
    assert said.status == USAGE
    assert "exists and says something else" in said.out
    assert Path("treasury/genesis.cbor").read_bytes() == b"another"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("2026-11-20T09:00:00Z", "2026-11-20T09:00:00", "terms.toml:2: time has no zone"),
        ('rules = "rules"', 'rules = "laws"', "terms.toml:3: there is no folder laws"),
        ('notice = "1d"', 'notice = "soon"', "terms.toml:4: 'soon' is no notice"),
        ('notice = "1d"', "tree_depth = 7", "terms.toml:4: a tree of 7 bits cannot be"),
        (
            'name = "social"',
            'name = "registry"',
            "terms.toml:10: two agencies are named 'registry'",
        ),
        ('name = "social"', 'name = "a/b"', "terms.toml:10: 'a/b' is no name of an agency"),
        ('agency = "social"', 'agency = "police"', "which is no agency of these terms"),
        ('name = "intake"', 'name = "node"', "nobody can be named node"),
        ('name = "intake"', 'name = "../x"', "is no name of a key file"),
        ('name = "intake"', 'name = "sealed"', "nobody can be named sealed"),
        ('"identity.registrar"', '"identity.king"', "no rule set knows the role 'identity.king'"),
        (
            'network = "benefits"',
            'netwrok = "b"',
            "terms.toml:1: Object contains unknown field `netwrok`",
        ),
    ],
)
def test_terms_that_cannot_be_say_why(desk: Desk, old: str, new: str, said: str) -> None:
    assert old in TERMS
    Path("terms.toml").write_text(TERMS.replace(old, new, 1))
    found = desk("terms", "terms.toml")
    assert found.status == USAGE
    assert said in " ".join(found.err.split()), found.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--agency", "police"], "the terms name no agency 'police'"),
        (["--peers", "10.0.0.1"], "--peers '10.0.0.1' is not host:port"),
        (["--person", "registrar"], "is not NAME=KEY"),
        (["--person", f"king={'ab' * 32}"], "the terms name nobody 'king' at registry"),
        (["--person", "registrar=none.key"], "'none.key' is neither a public key"),
        (["-o", "rules"], "rules is not empty"),
    ],
)
def test_enrolling_with_wrong_words_says_why_and_makes_no_key(
    desk: Desk, words: list[str], said: str
) -> None:
    usual = {
        "--agency": "registry",
        "--peers": "10.0.0.1:7400",
        "--clients": "10.0.0.1:7401",
        "-o": "new",
    }
    usual |= dict(zip(words[::2], words[1::2], strict=True))
    found = desk("enrol", "terms.toml", *(word for pair in usual.items() for word in pair))
    assert found.status in (REFUSED, USAGE)
    assert said in " ".join(found.err.split()), found.err
    assert not Path("new").exists()


def test_no_changed_byte_of_a_member_file_passes(enrolled: Desk) -> None:
    data = Path("social/social.member").read_bytes()
    for at in range(len(data)):
        with pytest.raises((DecodeError, SignatureError)):
            memberfile.decode(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        if at % 16 == 0:
            with pytest.raises(DecodeError):
                memberfile.decode(data[:at])


def test_the_hash_of_a_member_file_is_that_of_its_bytes(enrolled: Desk) -> None:
    data = Path("social/social.member").read_bytes()
    expected = blake3(data, derive_key_context="comity 2026-11-21 member file v1").digest()
    assert memberfile.digest(data) == expected


def test_a_member_file_is_what_the_grammar_says(enrolled: Desk) -> None:
    grammar = (ROOT / "docs/protocol/files.cddl").read_text()
    file = pycddl.Schema(f"start = member-file\n{grammar}")
    content = pycddl.Schema(f"start = member-body\n{grammar}")
    data = Path("social/social.member").read_bytes()
    file.validate_cbor(data)
    magic, version, body, by_validator, by_node = cbor2.loads(data)
    assert cbor2.dumps([magic, version, body, by_validator, by_node], canonical=True) == data
    content.validate_cbor(body)
    purpose, row, people = cbor2.loads(body)
    assert [name for name, _, _, _ in people] == ["intake"]
    signed = b"comity member\0" + purpose + body
    for key, signature in ((row[1], by_validator), (row[2], by_node)):
        nacl.bindings.crypto_sign_open(signature + signed, key)
