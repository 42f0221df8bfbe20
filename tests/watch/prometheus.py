"""Debian's Prometheus with the rules of ``deploy/prometheus``, for minutes in place of days.

The expressions are those of the product, untouched; only for how long an alert must hold before it
fires (``for``) is shorter, and how often is scraped and evaluated. Each scene has a Prometheus of
its own, so that no scene remembers the one before.

Not here: what is done to the network meanwhile.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from scripts.localnet import ROOT, LocalNetwork
from scripts.ports import free_ports

RULES = ROOT / "deploy" / "prometheus"
PROGRAM = "prometheus"
FASTER = 60
"""A minute of ``for`` is a second here."""
FOR_SECONDS_MIN = 1
START_SECONDS_MAX = 30.0
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Firing = tuple[str, str, str]
"""An alert that fires: its name, the agency, and what else it is about."""


def seconds_of(duration: str) -> int:
    """Seconds in a duration of Prometheus."""
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)([smhd])", duration))


def hastened(rules: dict[str, Any]) -> dict[str, Any]:
    """Rules whose alerts fire sooner; nothing else is changed."""
    groups = []
    for group in rules["groups"]:
        made = []
        for rule in group["rules"]:
            if "for" in rule:
                seconds = max(FOR_SECONDS_MIN, seconds_of(rule["for"]) // FASTER)
                rule = {**rule, "for": f"{seconds}s"}
            made.append(rule)
        groups.append({**group, "rules": made})
    return {"groups": groups}


def alerts() -> list[dict[str, Any]]:
    """Every alert of the product."""
    rules = yaml.safe_load((RULES / "alerts.yml").read_text("utf-8"))
    return [rule for group in rules["groups"] for rule in group["rules"]]


class Prometheus:
    """One Prometheus that watches a network; a context manager that runs it.

    Args:
        folder: of its own; made.
        town: the network.
    """

    def __init__(self, folder: Path, town: LocalNetwork) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.port = free_ports(1)[0]
        for name in ("recording.yml", "alerts.yml"):
            rules = yaml.safe_load((RULES / name).read_text("utf-8"))
            (folder / name).write_text(yaml.safe_dump(hastened(rules), sort_keys=False), "utf-8")
        config = yaml.safe_load((RULES / "prometheus.yml").read_text("utf-8"))
        config["global"].update(scrape_interval="1s", scrape_timeout="1s", evaluation_interval="1s")
        del config["alerting"]
        config["scrape_configs"][0]["static_configs"] = [
            {
                "targets": [f"127.0.0.1:{town.member(agency).telemetry_port}"],
                "labels": {"agency": agency},
            }
            for agency in town.agencies
        ]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, **parameters: str) -> Any:
        """What its interface answers."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.address}/api/v1/{path}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def firing(self) -> set[Firing]:
        """The alerts that fire now."""
        return {
            (labels["alertname"], labels.get("agency", ""), _about(labels))
            for each in self.ask("alerts")["alerts"]
            if each["state"] == "firing"
            for labels in [each["labels"]]
        }

    def value(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """What an expression is now, by labels."""
        found = self.ask("query", query=expression)["result"]
        return [(each["metric"], float(each["value"][1])) for each in found]

    def __enter__(self) -> Prometheus:
        words = [
            PROGRAM,
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                words, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                targets = self.ask("targets")["activeTargets"]
            except OSError:
                targets = []
            if targets and all(each["health"] != "unknown" for each in targets):
                return self
            time.sleep(0.1)
        self.__exit__(None, None, None)
        raise RuntimeError(f"Prometheus did not start: {(self.folder / 'log').read_text('utf-8')}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)


def present() -> bool:
    """Whether there is a Prometheus on this machine."""
    return shutil.which(PROGRAM) is not None


def names(firing: Iterable[Firing]) -> set[str]:
    """Names of alerts."""
    return {each[0] for each in firing}


def _about(labels: dict[str, str]) -> str:
    for key in ("validator", "leader", "peer", "domain"):
        if key in labels:
            return labels[key]
    return ""
