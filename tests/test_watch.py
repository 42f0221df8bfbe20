"""Rules, alerts, runbooks and dashboards fit the metrics, each other, and the manual.

``scripts/watch`` breaks a real network and sees the alerts fire; here is what needs none.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from node.telemetry.metrics import Entry, Metrics
from scripts import grafana
from tests.watch.__main__ import Outcome, uncovered
from tests.watch.prometheus import alerts, hastened, seconds_of
from tests.watch.scenes import NOT_PROVOKED, SCENES, Scene, nothing

ROOT = Path(__file__).resolve().parent.parent
RULES = ROOT / "deploy" / "prometheus"
BOARDS = sorted((ROOT / "deploy" / "grafana").glob("*.json"))
RUNBOOKS = ROOT / "docs" / "runbooks"
ALERTS = alerts()
OURS = {"agency", "instance", "job", "role", "le", "alertname", "alertstate"}
"""Labels that come from the configuration of Prometheus, or from Prometheus."""

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is absent; scripts/tools installs it"
)


def promtool(*words: str, cwd: Path = RULES) -> None:
    done = subprocess.run(
        ["promtool", *words], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def series() -> dict[str, Entry]:
    """Every name under which something is scraped."""
    found: dict[str, Entry] = {}
    for entry in Metrics().catalogue:
        suffixes = ("_bucket", "_sum", "_count") if entry.kind == "histogram" else ("",)
        found |= {entry.name + suffix: entry for suffix in suffixes}
    return found


def recorded() -> dict[str, str]:
    """Every recorded name with its expression."""
    rules = yaml.safe_load((RULES / "recording.yml").read_text("utf-8"))
    return {rule["record"]: rule["expr"] for group in rules["groups"] for rule in group["rules"]}


SERIES, RECORDED = series(), recorded()


def labels_of(expr: str) -> set[str]:
    """The labels of everything that an expression rests on."""
    labels = set(OURS)
    for name in re.findall(r"\bcomity_\w+", expr):
        labels |= set(SERIES[name].labels)
    for name in re.findall(r"\bcomity:[\w:]+", expr):
        labels |= labels_of(RECORDED[name])
    return labels


def asked_labels(expr: str) -> set[str]:
    """The labels that an expression names."""
    bare = re.sub(r'"[^"]*"', "", expr)
    found = set(
        re.findall(r"(\w+)\s*(?:=~|!~|!=|=)(?!=)", " ".join(re.findall(r"\{([^}]*)\}", bare)))
    )
    for group in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", bare):
        found |= set(group.replace(" ", "").split(",")) - {""}
    return found


def check_expression(expr: str) -> None:
    for name in re.findall(r"\bcomity_\w+", expr):
        assert name in SERIES, f"{name} is in no catalogue: {expr}"
    for name in re.findall(r"\bcomity:[\w:]+", expr):
        assert name in RECORDED, f"{name} is not recorded: {expr}"
    assert asked_labels(expr) - labels_of(expr) == set(), expr


# --- rules ----------------------------------------------------------------------------------------


def test_rules_ask_for_what_the_catalogue_has() -> None:
    for expr in (*RECORDED.values(), *(each["expr"] for each in ALERTS)):
        check_expression(expr)


def test_a_wrong_name_or_label_would_be_noticed() -> None:
    for expr in (
        "comity_node_redy == 0",
        "comity:nothing:rate5m > 1",
        'comity_node_ready{peer="a"}',
        "sum by (leader) (comity_peer_faults_total)",
    ):
        with pytest.raises(AssertionError):
            check_expression(expr)


@needs_promtool
def test_rules_and_configuration_are_accepted() -> None:
    promtool("check", "rules", "recording.yml", "alerts.yml")
    promtool("check", "config", "prometheus.yml")


@needs_promtool
def test_every_alert_fires_on_its_series_and_no_other_does() -> None:
    promtool("test", "rules", "alerts_test.yml")


def test_every_alert_is_tested_to_fire_and_to_be_silent() -> None:
    tests = yaml.safe_load((RULES / "alerts_test.yml").read_text("utf-8"))["tests"]
    fires, healthy = set(), []
    for test in tests:
        rows = test["alert_rule_test"]
        if test["name"].startswith("a healthy"):
            assert all(row["exp_alerts"] == [] for row in rows)
            healthy.append({row["alertname"] for row in rows})
        else:
            first, second = rows
            assert first["alertname"] == second["alertname"] == test["name"]
            assert first["exp_alerts"] == []
            assert len(second["exp_alerts"]) == 1
            fires.add(test["name"])
    names = {each["alert"] for each in ALERTS}
    assert fires == names
    assert healthy == [names, names, names]


@pytest.mark.skipif(
    shutil.which("amtool") is None, reason="amtool is absent (prometheus-alertmanager)"
)
def test_the_routes_are_accepted() -> None:
    done = subprocess.run(
        ["amtool", "check-config", "alertmanager.yml"], cwd=RULES, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def test_the_routes_name_alerts_and_severities_that_exist() -> None:
    config = yaml.safe_load((RULES / "alertmanager.yml").read_text("utf-8"))
    text = json.dumps(config)
    assert set(re.findall(r"Comity\w+", text)) <= {each["alert"] for each in ALERTS}
    routed = set(re.findall(r'severity=\\"(\w+)\\"', text)) | {"warn"}
    assert routed == {each["labels"]["severity"] for each in ALERTS}
    receivers = {each["name"] for each in config["receivers"]}
    assert {config["route"]["receiver"]} | {
        route["receiver"] for route in config["route"]["routes"]
    } == receivers


# --- runbooks -------------------------------------------------------------------------------------

PARTS = ["What it means.", "How to see it.", "What to do.", "How to know that it is over."]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda each: each["alert"])
def test_an_alert_has_its_page_with_every_part_and_its_own_expression(
    alert: dict[str, Any],
) -> None:
    name = alert["alert"]
    url = alert["annotations"]["runbook_url"]
    assert url == f"{{{{ $externalLabels.runbooks }}}}/{name}.md"
    text = (RUNBOOKS / f"{name}.md").read_text("utf-8")
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"\*\*([A-Z][^*]+\.)\*\*", text) == PARTS
    (shown,) = re.findall(r"```promql\n(.*?)\n```", text, re.DOTALL)
    assert shown == alert["expr"]
    assert f"**Severity** `{alert['labels']['severity']}`" in text
    assert f"]({name}.md)" in (RUNBOOKS / "README.md").read_text("utf-8")


def test_no_page_is_about_an_alert_that_is_gone() -> None:
    pages = {each.stem for each in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == {each["alert"] for each in ALERTS}


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda each: each.stem)
def test_metrics_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    assert set(re.findall(r"\bcomity_\w+", text)) <= {*SERIES, *(e.name for e in SERIES.values())}
    assert set(re.findall(r"\bcomity:[\w:]+", text)) <= set(RECORDED)


# --- dashboards -----------------------------------------------------------------------------------


def queries() -> Iterator[tuple[str, str]]:
    """What every committed dashboard asks for, with where."""
    for place in BOARDS:
        board = json.loads(place.read_text("utf-8"))
        for panel in board["panels"]:
            for target in panel.get("targets") or ():
                yield f"{place.stem}: {panel['title']}", target["expr"]
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                inner = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
                assert inner is not None
                assert inner[2] in labels_of(inner[1])
                yield f"{place.stem}: ${variable['name']}", inner[1]


def test_dashboards_ask_for_what_the_catalogue_has() -> None:
    for where, expr in queries():
        assert expr, where
        check_expression(expr)


def test_every_metric_is_on_a_dashboard() -> None:
    text = " ".join(expr for _, expr in queries())
    text += " " + " ".join(RECORDED[name] for name in set(re.findall(r"\bcomity:[\w:]+", text)))
    asked = {SERIES[name].name for name in re.findall(r"\bcomity_\w+", text)}
    assert asked == {entry.name for entry in Metrics().catalogue}


def test_committed_dashboards_are_what_the_catalogue_makes() -> None:
    """``scripts/dashboards`` writes them anew."""
    made = {f"{board.uid}.json": grafana.built(board) for board in grafana.boards()}
    assert set(made) == {place.name for place in BOARDS}
    stale = [name for name, text in made.items() if (BOARDS[0].parent / name).read_text() != text]
    assert stale == [], "run scripts/dashboards"


def test_panels_have_numbers_of_their_own_and_places_that_do_not_overlap() -> None:
    for place in BOARDS:
        panels = json.loads(place.read_text("utf-8"))["panels"]
        assert len({each["id"] for each in panels}) == len(panels)
        taken: set[tuple[int, int]] = set()
        for each in panels:
            at = each["gridPos"]
            assert at["x"] + at["w"] <= grafana.WIDTH
            cells = {
                (x, y)
                for x in range(at["x"], at["x"] + at["w"])
                for y in range(at["y"], at["y"] + at["h"])
            }
            assert not cells & taken, each["title"]
            taken |= cells


@needs_promtool
def test_what_dashboards_ask_is_well_formed(tmp_path: Path) -> None:
    rules = []
    for number, (_, expr) in enumerate(queries()):
        for name in ("$__rate_interval", "$__range"):
            expr = expr.replace(name, "5m")
        rules.append({"record": f"query:{number}", "expr": expr})
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}), "utf-8")
    promtool("check", "rules", "--lint=none", str(file))


# --- scenes ---------------------------------------------------------------------------------------


def test_every_alert_is_provoked_or_it_is_said_why_not() -> None:
    assert uncovered() == set()
    names = {each["alert"] for each in ALERTS}
    mentioned = {name for scene in SCENES for name, _ in scene.must}
    assert mentioned | {name for scene in SCENES for name in scene.may} <= names
    assert set(NOT_PROVOKED) <= names - mentioned
    assert len({scene.name for scene in SCENES}) == len(SCENES)


def test_hastened_rules_differ_only_in_how_long_an_alert_must_hold() -> None:
    rules = yaml.safe_load((RULES / "alerts.yml").read_text("utf-8"))
    for group, faster in zip(rules["groups"], hastened(rules)["groups"], strict=True):
        for rule, quick in zip(group["rules"], faster["rules"], strict=True):
            assert rule | {"for": ""} == quick | {"for": ""}
            assert "for" not in rule or seconds_of(quick["for"]) <= seconds_of(rule["for"]) / 20
    assert seconds_of("1h30m") == 5400


def test_an_alert_that_nothing_explains_and_one_that_is_silent_are_found() -> None:
    scene = Scene("a", nothing, {("Must", "social"), ("Any", "")}, {"May"})
    outcome = Outcome(scene)
    assert outcome.missing == ["Any of any", "Must of social"]
    outcome.fired = {
        ("Must", "treasury", ""),
        ("Any", "x", ""),
        ("May", "x", ""),
        ("Bad", "x", "y"),
    }
    assert outcome.missing == ["Must of social"]
    assert outcome.false == ["Bad x y"]
    outcome.before = {("Must", "social", "")}
    assert outcome.false == ["Bad x y", "Must social"], "before the fault nothing is explained"
