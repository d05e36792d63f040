"""The alert rules and the dashboard, against promtool, a real scrape and a real Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.test_instance import instance
from tests.contrib.front import CONTRIB, ROOT
from tests.end_to_end.harness import DEADLINE_S, LOCALHOST, Launch, Relay, answers, http_get, reserve_port, until
from tests.support.tls_peers import endpoint_arguments

from pyryrelay.cluster.instance_metrics import InstanceCollector

PROMTOOL = shutil.which("promtool")
PROMETHEUS = shutil.which("prometheus")
needs_prometheus = pytest.mark.skipif(
    None in (PROMTOOL, PROMETHEUS), reason="prometheus is not installed (Debian: prometheus)"
)
RULES = CONTRIB / "prometheus" / "pyryrelay.rules.yml"
DASHBOARD = CONTRIB / "grafana" / "pyryrelay.json"
OURS = re.compile(r"\bpyry[a-z]*_[a-z_]+")
GRAFANAS = {"$__rate_interval": "5m", "$instance": ".*"}
"""Variables in the dashboard's expressions that Grafana replaces, with values."""


def rules() -> list[dict[str, Any]]:
    """Return all rules."""
    return [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


def expressions(part: Any) -> Iterator[str]:
    """Yield the expressions of a part of the dashboard."""
    if isinstance(part, dict):
        if "expr" in part:
            yield part["expr"]
        if part.get("type") == "query":
            yield part["definition"]
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from expressions(inner)


def of_instances() -> set[str]:
    """Return the metrics that only an instance of a cluster has, or one that asks sentinels."""
    made, _ = instance()
    made.begin("boot")
    found = {sample.name for metric in InstanceCollector(made).collect() for sample in metric.samples}
    return found | {
        "pyryrelay_cluster_sentinel_up"
    }  # has no samples without sentinels, see tests/cluster/test_metrics.py


def for_prometheus(expression: str) -> str:
    """Return an expression of the dashboard as Grafana sends it."""
    for name, value in GRAFANAS.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


def promtool(*arguments: str | Path) -> str:
    """Run promtool, which must find no problem, and return what it says."""
    command = [str(PROMTOOL), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay that speaks both protocols, and TLS."""
    where = tmp_path_factory.mktemp("relay")
    listen = [f"ssl:{{port}}:{endpoint_arguments(where)}:interface={LOCALHOST}"]
    (where / "secret").write_text("of-the-cluster-of-a-test", encoding="utf-8")
    (where / "secret").chmod(0o600)
    cluster = ["--cluster", f"redis+unix://{where}/redis.sock", "--cluster-secret-file", str(where / "secret")]
    relay = Relay(where, ["--nostr", "--nostr-database", "sqlite::memory:", *cluster], Launch(listen))
    yield relay
    relay.stop()


@needs_prometheus
def test_promtool_accepts_the_rules() -> None:
    """`promtool check rules` finds all of them and no problem."""
    assert f"{len(rules())} rules found" in promtool("check", "rules", RULES)


@needs_prometheus
def test_the_rules_fire_when_they_should() -> None:
    """`promtool test rules` passes, and each alert is expected by one of the tests."""
    tests = CONTRIB / "prometheus" / "pyryrelay.test.yml"
    assert "SUCCESS" in promtool("test", "rules", tests)
    text = tests.read_text(encoding="utf-8")
    assert [rule["alert"] for rule in rules() if not re.search(rf"\b{rule['alert']}\b", text)] == []


def test_each_alert_says_what_to_do() -> None:
    """Every alert has a severity, what is wrong, and what to do about it."""
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), rule["alert"]
        assert {"summary", "action"} == set(rule["annotations"]), rule["alert"]


def test_the_page_has_every_alert() -> None:
    """The table of docs/howto/monitor.md has each alert with its severity, in the order of the rules."""
    page = (ROOT / "docs" / "howto" / "monitor.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.MULTILINE)
    assert told == [(rule["alert"], rule["labels"]["severity"]) for rule in rules()]


@needs_prometheus
def test_promtool_accepts_the_dashboards_expressions(tmp_path: Path) -> None:
    """Every expression of the dashboard is PromQL."""
    found = [one for one in expressions(json.loads(DASHBOARD.read_text())) if not one.startswith("label_values(")]
    assert len(found) > 30
    recorded = [{"record": f"panel_{number}", "expr": for_prometheus(one)} for number, one in enumerate(found)]
    path = tmp_path / "panels.yml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": recorded}]}), encoding="utf-8")
    assert f"{len(found)} rules found" in promtool("check", "rules", path)


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay with two workers."""
    launch = Launch(environment={"PYRYRELAY_WORKERS": "2"})
    relay = Relay(tmp_path_factory.mktemp("workers"), [], launch)
    until(lambda: relay.metrics().get("pyryrelay_workers_ready") == 2, "both workers serve")
    yield relay
    relay.stop()


@pytest.mark.thorough
def test_every_metric_exists(relay: Relay, workers: Relay) -> None:
    """Each metric that a rule or the dashboard names is in a scrape, with the label values that it asks for."""
    samples = relay.metrics() | workers.metrics()
    names = {sample.partition("{")[0] for sample in samples} | of_instances()
    dashboard = json.loads(DASHBOARD.read_text())
    for expression in [*expressions(dashboard), *(rule["expr"] for rule in rules())]:
        assert set(OURS.findall(expression)) <= names, expression
        for metric, selector in re.findall(r"(pyry\w+)\{([^}]*)\}", expression):
            for label, value in re.findall(r'(\w+)="(\w[^"]*)"', selector):
                assert any(one.startswith(f"{metric}{{") and f'{label}="{value}"' in one for one in samples), expression


@pytest.mark.thorough
@needs_prometheus
def test_a_real_prometheus_scrapes_and_evaluates(relay: Relay, workers: Relay, tmp_path: Path) -> None:
    """Prometheus takes the pages of relays, loads the rules, and answers every query of the dashboard."""
    targets = [f"{LOCALHOST}:{one.admin_port}" for one in (relay, workers)]
    jobs = [{"job_name": "pyryrelay", "scrape_interval": "1s", "static_configs": [{"targets": targets}]}]
    config = {"global": {"evaluation_interval": "1s"}, "rule_files": [str(RULES)], "scrape_configs": jobs}
    (tmp_path / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
    with reserve_port() as held, (tmp_path / "log").open("wb") as log:
        port = held.getsockname()[1]
        command = [str(PROMETHEUS), "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
        command += [f"--web.listen-address={LOCALHOST}:{port}", "--log.level=warn"]
        process = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            until(lambda: answers(port, "/-/ready"), "Prometheus is ready")
            until(lambda: _query(port, 'count(up{job="pyryrelay"} == 1) == 2'), "the relays were scraped")
            until(lambda: _query(port, 'count by (worker) (pyryrelay_connections{worker!=""})')[1:], "two workers")
            until(lambda: _query(port, "count(pyryrelay_uptime_seconds)"), "its metrics can be asked for")
            for expression in expressions(json.loads(DASHBOARD.read_text())):
                if not expression.startswith("label_values("):
                    _query(port, for_prometheus(expression))
            found = json.loads(http_get(port, "/api/v1/rules")[1])["data"]["groups"]
            health = {rule["name"]: rule["health"] for group in found for rule in group["rules"]}
            assert set(health) == {rule["alert"] for rule in rules()}
            until(lambda: _query(port, "count(pyryrelay_connections)"), "the gauges are there")
        finally:
            process.terminate()
            process.wait(DEADLINE_S)


def _query(port: int, expression: str) -> list[Any]:
    """Return the result of a query, which Prometheus must be able to answer."""
    status, body = http_get(port, f"/api/v1/query?query={urllib.parse.quote(expression)}")
    assert status == 200, body
    result: list[Any] = json.loads(body)["data"]["result"]
    return result
