"""deploy/ and configs/production fit the node that they run, and each other."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.routing import Route

from comity.ceremony import read_terms
from comity.cli.app import REFUSED, USAGE, whole
from node import config as configs
from node import keyfiles
from node.telemetry.health import Readiness, application
from node.telemetry.metrics import Metrics
from node.telemetry.notify import OPENING_SECONDS_MAX

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
CONTAINER = DEPLOY / "container"
MANIFESTS = list(yaml.safe_load_all((DEPLOY / "kubernetes/node.yaml").read_text("utf-8")))
PORTS = {"peers": 7400, "clients": 7401, "telemetry": 9400}


def manifest(kind: str) -> list[dict[str, Any]]:
    return [each for each in MANIFESTS if each["kind"] == kind]


def telemetry_paths() -> set[str]:
    app = application(Metrics(), lambda: Readiness(True, {}), lambda: None)
    return {each.path for each in app.routes if isinstance(each, Route)}


# --- configuration ------------------------------------------------------------------------------


def test_the_production_node_loads_and_listens_where_everything_expects_it() -> None:
    loaded = configs.load(ROOT / "configs/production/node.toml", {})
    for door, port in PORTS.items():
        assert configs.split_address(getattr(loaded.listen, door), door)[1] == port


def test_the_production_terms_are_sound() -> None:
    terms = read_terms(ROOT / "configs/production/terms.toml")
    assert len(terms.agencies) == 4
    assert {each.agency for each in terms.people} == {each.name for each in terms.agencies}


def test_telemetry_is_not_opened_to_the_world_where_no_network_policy_guards_it() -> None:
    loaded = configs.load(ROOT / "configs/production/node.toml", {})
    assert loaded.listen.telemetry.startswith("127.0.0.1:")
    compose = yaml.safe_load((CONTAINER / "compose.yaml").read_text("utf-8"))
    shown = [each for each in compose["services"]["node"]["ports"] if str(9400) in each]
    assert shown == ["127.0.0.1:9400:9400"]


# --- container ----------------------------------------------------------------------------------


def test_the_image_copies_what_exists_and_what_it_is_shown() -> None:
    text = (CONTAINER / "Containerfile").read_text("utf-8")
    shown = {
        line[1:]
        for line in (CONTAINER / "Containerfile.dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    }
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    sources = {word for line in copied for word in line.split()}
    assert sources == shown
    assert all((ROOT / each).exists() for each in sources)
    assert f"EXPOSE {' '.join(map(str, PORTS.values()))}" in text
    assert "/livez" in telemetry_paths()
    assert f"127.0.0.1:{PORTS['telemetry']}/livez" in text


def test_the_image_holds_what_a_node_needs_in_the_versions_that_are_tested() -> None:
    def pins(place: Path) -> dict[str, str]:
        return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", place.read_text("utf-8"), re.MULTILINE))

    ours, tested = pins(CONTAINER / "requirements.lock"), pins(ROOT / "requirements.lock")
    assert ours.items() <= tested.items()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    direct = {re.split(r"[\[>=]", each)[0] for each in project["dependencies"]}
    assert direct <= set(ours)
    assert not {"pytest", "mypy", "ruff", "hypothesis"} & set(ours)


def test_nothing_is_installed_that_is_not_pinned_by_hash() -> None:
    text = (CONTAINER / "Containerfile").read_text("utf-8").replace("\\\n", " ")
    installs = re.findall(r"pip install ([^&\n]*)", text)
    assert len(installs) == 2
    for each in installs:
        ours = {"--no-deps", "--no-build-isolation"} <= set(each.split())
        assert ours or "--require-hashes" in each
    (pin,) = re.findall(r"^setuptools==\S+", (CONTAINER / "build.lock").read_text(), re.MULTILINE)
    locked = (ROOT / "requirements.lock").read_text("utf-8")
    block = re.search(rf"^{re.escape(pin)} [^#]*", locked, re.MULTILINE)
    assert block is not None
    assert (CONTAINER / "build.lock").read_text().startswith(block[0].rstrip())


def test_a_container_with_a_wrong_configuration_is_not_started_for_ever() -> None:
    compose = yaml.safe_load((CONTAINER / "compose.yaml").read_text("utf-8"))
    assert re.fullmatch(r"on-failure:[1-9]", compose["services"]["node"]["restart"])


def test_what_is_mounted_is_not_in_the_image() -> None:
    text = (CONTAINER / "Containerfile").read_text("utf-8")
    assert not re.findall(r"^COPY.*(?:\.key|genesis|node\.toml)", text, re.MULTILINE)
    compose = yaml.safe_load((CONTAINER / "compose.yaml").read_text("utf-8"))
    assert "./node:/etc/comity:ro" in compose["services"]["node"]["volumes"]


# --- Kubernetes ---------------------------------------------------------------------------------


def test_one_replica_runs_and_never_two() -> None:
    (node,) = manifest("StatefulSet")
    assert node["spec"]["replicas"] == 1
    (claim,) = node["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]


def test_probes_ask_pages_that_exist_and_never_restart_a_node_that_waits() -> None:
    (node,) = manifest("StatefulSet")
    (container,) = node["spec"]["template"]["spec"]["containers"]
    asked = {
        name: container[name]["httpGet"]["path"]
        for name in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert set(asked.values()) <= telemetry_paths()
    assert asked["livenessProbe"] == asked["startupProbe"] == "/livez"
    assert asked["readinessProbe"] == "/readyz"
    assert {each["name"]: each["containerPort"] for each in container["ports"]} == PORTS


def test_a_node_that_opens_its_data_again_is_not_taken_for_a_dead_one() -> None:
    """Opening holds the event loop: neither page nor beat comes from it meanwhile."""
    (node,) = manifest("StatefulSet")
    (container,) = node["spec"]["template"]["spec"]["containers"]
    for name in ("startupProbe", "livenessProbe"):
        probe = container[name]
        assert probe["periodSeconds"] * probe["failureThreshold"] >= OPENING_SECONDS_MAX
    assert unit("comity-node.service")["TimeoutStartSec"] == f"{OPENING_SECONDS_MAX // 60}min"


def test_the_keys_that_the_manifest_lays_out_are_ones_that_a_node_takes(tmp_path: Path) -> None:
    """As Kubernetes mounts them: a secret's files of a group, anybody's right to write above."""
    (node,) = manifest("StatefulSet")
    pod = node["spec"]["template"]["spec"]
    secret, above = tmp_path / "secret", tmp_path / "comity"
    secret.mkdir()
    above.mkdir()
    above.chmod(0o2777)
    (secret / "validator.key").write_bytes(b"key")
    (secret / "validator.key").chmod(0o440)
    (mount,) = [each for each in pod["initContainers"][0]["volumeMounts"] if each["name"] == "keys"]
    shell = pod["initContainers"][0]["command"]
    text = shell[2].replace(mount["mountPath"], str(above)).replace("/secret", str(secret))
    subprocess.run([*shell[:2], text], check=True)
    loaded = configs.load(_written(tmp_path), {})
    path = Path(loaded.node.validator_key.replace(mount["mountPath"], str(above)))
    assert keyfiles.read_bytes(path) == b"key"
    subprocess.run([*shell[:2], text], check=True)  # of a pod whose containers start again
    mounted = pod["containers"][0]["volumeMounts"]
    assert mount["mountPath"] in [each["mountPath"] for each in mounted]


def test_next_keys_are_looked_for_where_the_manifest_lays_out_the_secret(tmp_path: Path) -> None:
    node = configs.load(_written(tmp_path), {}).node
    for present, following in (
        (node.validator_key, node.validator_key_next),
        (node.node_key, node.node_key_next),
    ):
        assert Path(following) == Path(present).with_name(f"{Path(present).stem}-next.key")


def test_peers_reach_a_node_that_is_not_ready() -> None:
    services = {each["metadata"]["name"]: each["spec"] for each in manifest("Service")}
    assert services["comity-peers"]["publishNotReadyAddresses"] is True
    assert "publishNotReadyAddresses" not in services["comity-clients"]


def test_the_configuration_in_the_manifest_is_one_that_a_node_takes(tmp_path: Path) -> None:
    loaded = configs.load(_written(tmp_path), {})
    for door, port in PORTS.items():
        assert getattr(loaded.listen, door) == f"0.0.0.0:{port}"
    (node,) = manifest("StatefulSet")
    pod = node["spec"]["template"]["spec"]
    mounts = {each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
    for path in (loaded.node.genesis, loaded.node.validator_key, loaded.node.data):
        assert any(path.startswith(mount) for mount in mounts)


def _written(folder: Path) -> Path:
    (config,) = manifest("ConfigMap")
    place = folder / "node.toml"
    place.write_text(config["data"]["node.toml"])
    return place


def test_images_are_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    (node,) = manifest("StatefulSet")
    pod = node["spec"]["template"]["spec"]
    images = {each["image"] for each in (*pod["containers"], *pod["initContainers"])}
    assert images == {f"comity:{version}"}


def test_every_object_satisfies_its_schema() -> None:
    validate = pytest.importorskip(
        "kubernetes_validate", reason="Kubernetes' schemas are missing: run scripts/tools"
    )
    for each in MANIFESTS:
        validate.validate(each, validate.latest_version(), strict=True)


# --- systemd ------------------------------------------------------------------------------------


UNITS = ("comity-node", "comity-signer")
SERVICES = [each.name for each in sorted((DEPLOY / "systemd").glob("*.service"))]


def unit(name: str) -> dict[str, str]:
    text = (DEPLOY / "systemd" / name).read_text("utf-8")
    return dict(re.findall(r"^([A-Za-z]+)=(.*)$", text, re.MULTILINE))


@pytest.mark.parametrize("name", UNITS)
def test_the_watchdog_waits_longer_than_the_process_beats(name: str) -> None:
    from node.telemetry.notify import STATUS_SECONDS

    found = unit(f"{name}.service")
    assert found["Type"] == "notify"
    assert int(found["WatchdogSec"]) >= 10 * STATUS_SECONDS


def test_a_start_is_not_refused_for_what_comes_back_by_itself() -> None:
    """systemd starts a unit again after a failed ExecStartPre, five times, and then no more."""
    found = unit("comity-node.service")
    assert found["ExecStartPre"].startswith("-")
    assert found["RestartPreventExitStatus"] == str(USAGE)


def test_the_timer_makes_a_backup_with_a_command_that_exists() -> None:
    text = (DEPLOY / "systemd/comity-backup.service").read_text("utf-8")
    (line,) = re.findall(r"exec /opt/comity/\.venv/bin/comity (.+)'$", text, re.MULTILINE)
    whole().parse_args(shlex.split(line), exit_on_error=False, print_error=False)
    assert shlex.split(line)[:2] == ["node", "backup"]
    assert line.count(".tar") == 1
    timer = (DEPLOY / "systemd/comity-backup.timer").read_text("utf-8")
    assert "Persistent=yes" in timer


def test_a_feed_is_started_with_commands_that_exist_and_not_for_what_a_person_must_mend() -> None:
    text = (DEPLOY / "systemd/comity-feed@.service").read_text("utf-8")
    found = unit("comity-feed@.service")
    words = found["ExecStart"].removeprefix("/opt/comity/.venv/bin/comity ")
    copies = re.findall(r"\bCOPY=(.+)$", text, re.MULTILINE)
    assert [each.split()[0] for each in copies] == ["postgres", "parquet"]
    for copy in copies:
        line = words.replace("$COPY", copy)
        whole().parse_args(shlex.split(line), exit_on_error=False, print_error=False)
    shown = (ROOT / "docs/reporting.md").read_text("utf-8")
    assert f"COPY={copies[0]}" in shown
    assert found["Restart"] == "always"
    assert found["RestartPreventExitStatus"] == f"{REFUSED} {USAGE}"
    assert found["StartLimitIntervalSec"] == "0"  # nodes may be away for long


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing: run scripts/tools"
)
def test_each_unit_is_understood_and_hardened(tmp_path: Path, name: str) -> None:
    text = (DEPLOY / "systemd" / name).read_text("utf-8")
    place = tmp_path / name
    place.write_text(text.replace("/opt/comity/.venv/bin/comity", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert [each for each in done.stderr.splitlines() if "comity-" in each] == []
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    shown = name.replace("@", "@i")  # of a template, an instance
    found = re.search(rf"Overall exposure level for {shown}: ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) < 2.0


@pytest.mark.skipif(
    shutil.which("logrotate") is None, reason="logrotate is missing: run scripts/tools"
)
def test_a_log_file_is_rotated_while_its_node_keeps_it_open(tmp_path: Path) -> None:
    text = (DEPLOY / "systemd/comity-node.logrotate").read_text("utf-8")
    (folder,) = re.findall(r"^#   StandardError=append:(.+)/node\.log$", text, re.MULTILINE)
    user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    rules = tmp_path / "rules"
    logs = tmp_path / "logs"
    logs.mkdir(mode=0o755)
    text = text.replace(folder, str(logs)).replace("su comity comity", f"su {user} {group}")
    rules.write_text(text)
    rules.chmod(0o644)
    with (logs / "node.log").open("a") as log:
        log.write("before\n")
        log.flush()
        words = ["logrotate", "--force", "--state", str(tmp_path / "state"), str(rules)]
        subprocess.run(words, check=True, capture_output=True)
        log.write("after\n")
    assert (logs / "node.log.1").read_text() == "before\n"
    assert (logs / "node.log").read_text() == "after\n"
