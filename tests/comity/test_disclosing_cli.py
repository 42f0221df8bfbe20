"""The commands about disclosures: words in, files and tables out."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from comity import keys
from comity.cli.disclosing import parse_audience, parse_moment
from comity.cli.options import UsageError
from consensus import codec, genesis
from consensus.evidence.disclosure import verify
from consensus.keyfile import KeyKind, from_seed
from tests.comity.shell import Said, Shell, open_shell
from tests.comity.test_disclosing import GENESIS
from tests.comity.test_wrong_input import full_disk
from tests.comity.twin import CITIZEN_TOKEN, Twin

TOKEN = f"0x{CITIZEN_TOKEN.hex()}"
WORDS = ("--legal", "Courts Act s 4", "--purpose", "a court asks", "--key", "official.key")
COURT = ("--to", "party:District Court")
YEAR = ("--until", "2026-12-31")


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """A shell on a network that lets disclose, with a citizen's note."""
    found = open_shell(Twin(GENESIS), tmp_path, monkeypatch, capsys)
    for name, seed in {"auditor": 60, "colleague": 61}.items():
        keys.create(tmp_path / f"{name}.key", from_seed(KeyKind.CLIENT, bytes([seed]) * 32))
    entered = found("submit", "notes.enter", f"token={TOKEN}", "name=Ann", "--json")
    assert entered.status == 0, entered.err
    words = ("number=1", "text=a long story", "amount=7", f"owner={TOKEN}")
    assert found("submit", "notes.write", *words, "--json").status == 0
    return found


def disclose(shell: Shell, *words: str) -> Any:
    return shell("disclose", "note", "1", *words, *WORDS, "--json")


def test_a_file_is_written_that_verifies(shell: Shell) -> None:
    said = disclose(shell, "--field", "amount", *COURT, *YEAR, "-o", "n.disclosure")
    assert said.status == 0, said.err + said.out
    data = Path("n.disclosure").read_bytes()
    (item,) = verify(data, genesis.chain_id(GENESIS.encode())).items
    assert item.fields[0].value == 7
    assert said.json["bytes"] == len(data)
    assert said.json["disclosures"][0]["fields"] == {"amount": 7}
    assert item.disclosure.until_ms == 1_798_675_200_000  # 2026-12-31T00:00Z


def test_a_refusal_is_shown_and_nothing_is_written(shell: Shell) -> None:
    far = ("--until", "2036-01-01T00:00Z")
    said = disclose(shell, "--field", "amount", *COURT, *far, "-o", "n.disclosure")
    assert (said.status, said.json["code"]) == (1, "BAD_INPUT")
    assert not Path("n.disclosure").exists()
    words = ("--field", "amount", *COURT, *far, "-o", "n.disclosure", *WORDS)
    assert "charter.disclose (rules" in shell("disclose", "note", "1", *words).out


def test_an_end_that_is_past_by_the_networks_time_is_refused_before_it_is_sent(
    shell: Shell,
) -> None:
    sent = len(shell.twin.submissions)
    now = shell("statements", "--last", "1", "--json").json[-1]["time_ms"]
    words = ("--field", "amount", *COURT, "-o", "n.disclosure")
    for until in ("2020-01-01", _time(now)):
        said = disclose(shell, *words, "--until", until)
        assert (said.status, said.json["code"]) == (2, "BAD_DRAFT")
        assert said.json["error"].startswith("it would be over already")
    assert len(shell.twin.submissions) == sent
    assert disclose(shell, *words, "--until", _time(now + 60_000)).status == 0


def test_a_file_that_cannot_be_written_is_not_begun_and_can_be_had_again(shell: Shell) -> None:
    with full_disk():
        said = disclose(shell, "--field", "amount", *COURT, *YEAR, "-o", "n.disclosure")
    assert (said.status, said.json["code"]) == (2, "FILE")
    assert said.json["error"] == "cannot write n.disclosure: File too large"
    assert not Path("n.disclosure").exists()
    [line] = re.findall(r"`comity (disclosed 0x[0-9a-f]{64} -o FILE)`", said.json["hint"])
    again = shell(*line.replace("FILE", "n.disclosure").split(), "--json")
    assert again.status == 0, again
    assert again.json["bytes"] == Path("n.disclosure").stat().st_size


def _time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat()


def test_people_see_what_went_on_record(shell: Shell) -> None:
    words = ("--field", "amount", *COURT, *YEAR, "-o", "n.disclosure")
    said = shell("disclose", "note", "1", *words, *WORDS)
    for part in ("note/1 v1", "amount", "7", "District Court", "a court asks", "Courts Act s 4"):
        assert part in said.out
    assert "comity verify n.disclosure --genesis" in said.out


def test_lists_say_who_saw_what_and_why(shell: Shell) -> None:
    to = ("--to", "agency:east")
    made = disclose(shell, "--field", "amount", *to, *YEAR, "-o", "n.disclosure")
    id_ = made.json["disclosures"][0]["id"]
    for words in (
        ("--record", "note/1", "--key", "citizen.key"),
        ("--subject", TOKEN, "--key", "citizen.key"),
        ("--subject", TOKEN, "--key", "auditor.key"),
        ("--mine", "--key", "official.key"),
        ("--key", "colleague.key"),
        ("--key", "citizen.key"),
    ):
        said = shell("disclosures", *words, "--json")
        assert [each["id"] for each in said.json["disclosures"]] == [id_], words
        assert said.json["disclosures"][0]["purpose"] == "a court asks"
    table = shell("disclosures", "--key", "citizen.key")
    for part in ("note/1 v1", "agency east", "a court asks", "proved complete at height"):
        assert part in table.out
    for words in (("--record", "note/1"), ("--subject", TOKEN)):
        said = shell("disclosures", *words, "--key", "colleague.key")
        assert (said.status, "may not read that" in said.err) == (1, True)
    assert "nothing was disclosed" in shell("disclosures", "--key", "administrator.key").out


def test_the_audience_gets_the_file_itself(shell: Shell) -> None:
    to = ("--to", "agency:east")
    made = disclose(shell, "--field", "amount", *to, *YEAR, "-o", "n.disclosure")
    id_ = made.json["disclosures"][0]["id"]
    said = shell("disclosed", id_, "-o", "again.disclosure", "--key", "colleague.key", "--json")
    assert said.json["disclosures"] == made.json["disclosures"]
    other = shell("disclosed", id_, "-o", "x.disclosure", "--key", "administrator.key")
    assert other.status == 1
    assert not Path("x.disclosure").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--field", "colour", *COURT, *YEAR), "no field 'colour'"),
        (("--field", "amount", "--to", "police", *YEAR), "names no audience"),
        (("--field", "amount", "--to", "principal:0xzz", *YEAR), "is no digest"),
        (("--field", "amount", *COURT, "--until", "soon"), "is no time"),
        (("--field", "amount", *COURT, "--until", "2026-12-31T10:00"), "is no time"),
    ],
)
def test_what_is_wrongly_typed_is_said(shell: Shell, words: tuple[str, ...], says: str) -> None:
    said = shell("disclose", "note", "1", *words, "-o", "n.disclosure", *WORDS)
    assert said.status == 2
    assert says in said.err
    assert not Path("n.disclosure").exists()


def test_a_file_is_never_overwritten_and_a_purpose_must_be_said(shell: Shell) -> None:
    Path("n.disclosure").write_text("mine")
    words = ("--field", "amount", *COURT, *YEAR, "-o", "n.disclosure")
    said = shell("disclose", "note", "1", *words, *WORDS)
    assert (said.status, "exists" in said.err) == (2, True)
    assert Path("n.disclosure").read_text() == "mine"
    none = shell("disclose", "note", "1", *words[:-1], "o.d", "--legal", "law")
    assert (none.status, "--purpose" in none.err) == (2, True)
    assert shell("disclosed", "-o", "o.d").status == 2
    assert shell("disclosed", "0x12", "-o", "o.d").status == 2
    assert shell("disclosures", "--mine", "--subject", TOKEN).status == 2
    assert shell("disclosures", "--record", "note").status == 2


def test_audiences_and_moments_are_read() -> None:
    assert parse_audience("agency:east") == ["agency", "east"]
    assert parse_audience(f"principal:{TOKEN}") == ["principal", CITIZEN_TOKEN]
    assert parse_audience("party: Dr. No: lawyer ") == ["party", "Dr. No: lawyer"]
    assert parse_moment("1970-01-02", "--until") == 86_400_000
    assert parse_moment("1970-01-01T00:00:01+00:00", "--until") == 1000
    for text in ("east", "agency:", "party: ", "office:east"):
        with pytest.raises(UsageError):
            parse_audience(text)


# --- comity verify -----------------------------------------------------------------------------

CHAIN = genesis.chain_id(GENESIS.encode()).hex()


@pytest.fixture
def file(shell: Shell) -> Path:
    """A disclosure to an agency, until the end of the year."""
    words = ("--field", "amount", "--to", "agency:east", *YEAR, "-o", "n.disclosure")
    assert disclose(shell, *words).status == 0
    return Path("n.disclosure")


def check(shell: Shell, *words: str, hash_: str = CHAIN) -> Said:
    return shell("verify", "n.disclosure", "--genesis", hash_, *words)


def at(monkeypatch: pytest.MonkeyPatch, day: str) -> None:
    """Let the reader's clock show a day."""
    monkeypatch.setattr("time.time_ns", lambda: parse_moment(day, "") * 1_000_000)


def test_a_file_is_checked_with_the_hash_alone(
    shell: Shell, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(monkeypatch, "2026-10-01")
    said = check(shell)
    assert said.status == 0, said.out + said.err
    for part in ("VALID", "note/1 v1", "amount", "7", "agency east", "a court asks", "as of"):
        assert part in said.out
    assert "warning" not in said.out
    found = check(shell, "--json").json
    assert (found["valid"], found["warnings"]) == (True, [])
    assert found["disclosures"][0]["fields"] == {"amount": 7}
    assert check(shell, hash_="genesis.cbor").status == 0


@pytest.mark.parametrize("reader", ["agency:east", "east"])
def test_its_audience_is_not_warned(
    shell: Shell, file: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    at(monkeypatch, "2026-10-01")
    assert check(shell, "--as", reader, "--strict").status == 0


@pytest.mark.parametrize(
    ("words", "day", "says"),
    [
        (("--as", "agency:west"), "2026-10-01", "it is meant for agency east, not for agency:west"),
        (("--as", "party:east"), "2026-10-01", "it is meant for agency east"),
        ((), "2026-12-31", "it was to be used until 2026-12-31 00:00:00Z"),
    ],
)
def test_a_file_for_others_or_past_its_end_is_a_warning_and_with_strict_an_error(
    shell: Shell,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    day: str,
    says: str,
) -> None:
    at(monkeypatch, day)
    loose, strict = check(shell, *words), check(shell, *words, "--strict")
    assert (loose.status, strict.status) == (0, 1)
    assert says in loose.out
    assert "NOT VALID" in strict.out
    assert says in strict.out


def test_who_is_strict_says_who_they_are(
    shell: Shell, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(monkeypatch, "2026-10-01")
    assert check(shell).status == 0
    strict = check(shell, "--strict")
    assert strict.status == 1
    assert "say it with --as" in strict.out


def test_what_is_too_old_is_refused(shell: Shell, file: Path) -> None:
    said = check(shell, "--not-older-than", "2027-01-01")
    assert (said.status, "older than you allow" in said.out) == (1, True)
    assert check(shell, "--not-older-than", "2026-01-01").status == 0


def test_a_forged_file_is_not_valid_and_a_broken_one_says_where(shell: Shell, file: Path) -> None:
    whole = file.read_bytes()
    value = codec.parse(whole)
    value[6][0][4][2] = 8  # the amount
    file.write_bytes(codec.encode(value))
    forged = check(shell)
    assert (forged.status, "is not what the state holds" in forged.out) == (1, True)
    file.write_bytes(whole)
    other = check(shell, hash_="00" * 32)
    assert (other.status, "another network" in other.out) == (1, True)
    value = codec.parse(whole)
    value[6][0][3] = 300  # leaves
    for data, says in {
        codec.encode(value): "disclosure[6][0][3]",
        whole[:-1]: "disclosure",
        whole + b"\0": "disclosure",
        whole[:40]: "disclosure",
    }.items():
        file.write_bytes(data)
        said = check(shell)
        assert (said.status, says in said.err) == (2, True), said
