"""The configuration file: strict, and an error says where and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.config import ConfigError, load, split_address

MINIMAL = '[node]\nagency = "treasury"\ngenesis = "../genesis.cbor"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "node.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_minimal_file_has_safe_defaults(tmp_path: Path) -> None:
    config = load(write(tmp_path, MINIMAL), {})
    assert config.node.agency == "treasury"
    assert config.listen.telemetry.startswith("127.0.0.1:")
    assert config.path(config.node.genesis) == tmp_path / "../genesis.cbor"


def test_the_environment_overrides_a_value(tmp_path: Path) -> None:
    environment = {"COMITY_LOG_LEVEL": "debug", "COMITY_TUNING_HEARTBEAT_MS": "50"}
    config = load(write(tmp_path, MINIMAL), environment)
    assert config.log.level == "debug"
    assert config.tuning.heartbeat_ms == 50
    assert config.node.votes
    assert not load(write(tmp_path, MINIMAL), {"COMITY_NODE_VOTES": "false"}).node.votes
    with pytest.raises(ConfigError, match="COMITY_NODE_VOTES = '0' is neither true nor false"):
        load(write(tmp_path, MINIMAL), {"COMITY_NODE_VOTES": "0"})
    with pytest.raises(ConfigError, match="whole number"):
        load(write(tmp_path, MINIMAL), {"COMITY_TUNING_HEARTBEAT_MS": "soon"})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[node\n", r"not valid TOML: .*line 1"),
        ('\n[node]\nagency = "a"\n', r"toml:2: .*missing required field `genesis`"),
        (MINIMAL + '[lsten]\npeers = ""\n', r"toml:4: unknown key 'lsten'.*'listen'"),
        (MINIMAL + 'dta = "x"\n', r"toml:4: unknown \[node\] key 'dta'.*'data'"),
        (MINIMAL + '[listen]\npeers = ""\n[log]\npeers = 1\n', r"toml:7: unknown \[log\] key"),
        (MINIMAL + "[tuning]\nheartbeat_ms = 0\n", r"toml:5: heartbeat_ms must be at least 1"),
        (MINIMAL + '[tuning]\n\nheartbeat_ms = "x"\n', r"toml:6: heartbeat_ms: Expected `int`"),
        (MINIMAL + "[tuning]\nverifier_processes = 1000\n", r"toml:5: .* at most 64"),
        (MINIMAL + "[tuning]\ntimeout_max_ms = 10\n", r"toml:5: .* = 10 is below timeout_base_ms"),
        (MINIMAL + "[tuning]\ntimeout_base_ms = 9000\n", r"toml:4: .* is below timeout_base_ms"),
        (MINIMAL + '[log]\nlevel = "loud"\n', r"toml:5: level is one of"),
        (MINIMAL + '[log]\nformat = "xml"\n', r"toml:5: format is one of"),
        (
            MINIMAL + '[listen]\npeers = "nowhere"\n',
            r"toml:5: listen.peers = 'nowhere' is not host:port",
        ),
        (MINIMAL + '[listen]\ntelemetry = ""\n', r"toml:5: listen.telemetry = '' is not host:port"),
        (
            MINIMAL + '[peers]\nb = "host:99999"\n',
            r"toml:5: peers.b = 'host:99999' is not host:port",
        ),
        (MINIMAL + "[peers]\nb = 7\n", r"toml:4: .*Expected `str`"),
        (MINIMAL + "[tuning]\nheartbeat_ms = 3600001\n", r"toml:5: .* at most 3600000"),
        (MINIMAL + f"[tuning]\nflush_blocks = 1{'0' * 400}\n", r"toml:5: .* at most 1000000000"),
        (
            MINIMAL + f"[limits]\npool_bytes_max = {2**40 + 1}\n",
            r"toml:5: .* at most 1099511627776",
        ),
        (
            MINIMAL + f"[observers]\nbytes_per_second_max = {2**40 + 1}\n",
            r"toml:5: .* to 1099511627776",
        ),
        (MINIMAL + 'data = "a\\u0000b"\n', r"toml:4: data has a control character"),
        (MINIMAL + '[peers]\nb = "host\\n:1"\n', r"toml:5: b has a control character"),
        ("node = 5\n", r"toml:1: .*write \[node\]"),
        ("peers = 5\n" + MINIMAL, r"toml:1: .*write \[peers\]"),
    ],
)
def test_a_bad_file_is_refused_with_the_reason(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load(write(tmp_path, text), {})


def test_a_bad_value_of_the_environment_is_refused_by_the_variable(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + '[log]\nlevel = "info"\n')
    with pytest.raises(ConfigError, match=r"^COMITY_LOG_LEVEL: level is one of"):
        load(path, {"COMITY_LOG_LEVEL": "loud"})
    with pytest.raises(
        ConfigError, match=r"^COMITY_LISTEN_PEERS: listen.peers = 'x' is not host:port"
    ):
        load(path, {"COMITY_LISTEN_PEERS": "x"})


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*absent.toml: No such file"):
        load(tmp_path / "absent.toml", {})


def test_addresses_have_a_host_and_a_port() -> None:
    assert split_address("127.0.0.1:80", "x") == ("127.0.0.1", 80)
    assert split_address("[::1]:80", "x") == ("::1", 80)


def test_each_setting_knows_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + '[log]\nlevel = "info"\n')
    config = load(path, {"COMITY_NODE_DATA": "elsewhere"})
    assert config.at("node", "agency") == f"{path}:2: "
    assert config.at("log", "format") == f"{path}:4: ", "left out: that of its section"
    assert config.at("listen", "peers") == f"{path}: ", "its section is left out as well"
    assert config.at("node", "data") == "COMITY_NODE_DATA: "


def test_a_file_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="/dev/zero is longer than 1048576 characters"):
        load(Path("/dev/zero"), {})


DEEP = "[" * 200 + "]" * 200


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = " + "[" * 5000, 1),
        ("\na = " + "{a=" * 5000, 2),
        (f'#{DEEP}\nb = "{DEEP}"\nc = """\n{DEEP}"""\na = {DEEP}', 5),
        (
            f"[{'.'.join('x' * 30)}]\na = 1\n{'.'.join('z' * 30)} = [[[[[[1]]]]]]",
            3,
        ),
        (f"# {'9' * 5000}\n\na = " + "9" * 5000, 3),
        ("b = 1\n" + "a." * 40 + "a = 1", 2),
        ('b = 1\na = """\n\nno end', 4),
        ("b = 1\n\na =\n", 3),
    ],
)
def test_what_toml_cannot_take_in_is_one_sentence_with_its_line(
    tmp_path: Path, text: str, line: int
) -> None:
    with pytest.raises(ConfigError, match=f"not valid TOML: .* line {line}, "):
        load(write(tmp_path, text), {})
