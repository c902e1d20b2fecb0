"""What is shipped for Prometheus and Grafana, judged by promtool and by a real Prometheus that scrapes the service."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgec.service.metrics import LATENCY_BUCKETS, Family, Histogram, exposition
from edgec.service.monitor import Monitor
from tests.support import serving
from tests.support.prometheus import program
from tests.support.serving import PATIENCE_S

DOCS = Path(__file__).resolve().parents[2] / "docs" / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((DOCS / "dashboard.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
RULES = [rule for group in yaml.safe_load((DOCS / "alerts.yml").read_text())["groups"] for rule in group["rules"]]


def promtool(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("promtool"), *arguments],
        cwd=DOCS,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.network
def test_every_alert_fires_when_it_should_and_not_otherwise() -> None:
    checked = promtool("check", "rules", "alerts.yml")
    assert checked.returncode == 0, checked.stderr
    tested = promtool("test", "rules", "alerts_test.yml")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    cases = yaml.safe_load((DOCS / "alerts_test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in cases for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == {rule["alert"] for rule in RULES}


def test_alerts_and_panels_name_metrics_that_there_are() -> None:
    names = {family.name for family in vars(Monitor()).values() if isinstance(family, Family)}
    for expression in (*EXPRESSIONS, *(rule["expr"] for rule in RULES)):
        used = {re.sub("_bucket$", "", name) for name in re.findall(r"\bedgec_\w+", expression)}
        assert used <= names, expression
    shown = " ".join(EXPRESSIONS)
    assert {name for name in names if name not in shown} <= {
        "edgec_start_time_seconds", "edgec_model_load_seconds", "edgec_input_drift_samples", "edgec_release_failing",
    }  # fmt: skip


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    assert DASHBOARD["title"]
    assert isinstance(DASHBOARD["schemaVersion"], int)
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]}
    assert len(places) == len(ids)
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"]))) - {"__rate_interval"}
    assert used <= variables
    assert {panel["type"] for panel in DASHBOARD["panels"]} <= {"stat", "table", "timeseries"}


@pytest.mark.network
def test_promtool_accepts_the_page() -> None:
    nasty = Family("edgec_x_total", "counter", "x.")
    nasty.add(name='a"b\\c\nd')
    histogram = Histogram("edgec_y_seconds", "y.")
    for value in (0.0, LATENCY_BUCKETS[0], 3.3, 1e9):
        histogram.observe(value)
    checked = promtool("check", "metrics", stdin=exposition([nasty, histogram]).decode())
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    checked = promtool("check", "metrics", stdin=Monitor().page(None, ready=False, failing=True).decode())
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    assert promtool("check", "metrics", stdin='bad{x="1" 5\n').returncode != 0


def test_a_histogram_counts_at_most_as_large_as_each_bound() -> None:
    histogram = Histogram("y", "y.", bounds=(1.0, 2.5))
    for value in (0.5, 1.0, 1.1, 2.5, 9.0):
        histogram.observe(value)
    lines = [line for line in histogram.lines() if not line.startswith("#")]
    assert lines == ['y_bucket{le="1"} 2', 'y_bucket{le="2.5"} 4', 'y_bucket{le="+Inf"} 5', "y_sum 14.1", "y_count 5"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Prometheus:
    """Its query API."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self._base, self._process = f"http://127.0.0.1:{port}/api/v1", process

    def get(self, path: str, **arguments: str) -> Any:
        with urllib.request.urlopen(
            f"{self._base}/{path}?{urllib.parse.urlencode(arguments)}", timeout=PATIENCE_S
        ) as answer:
            return json.loads(answer.read())

    def until(self, query: str) -> list[Any]:
        """The result, once there is one."""
        end = time.monotonic() + PATIENCE_S
        while True:
            assert time.monotonic() < end, query
            assert self._process.poll() is None
            try:
                found = self.get("query", query=query)["data"]["result"]
            except OSError:  # it is starting
                found = []
            if found:
                return list(found)
            time.sleep(0.3)


@pytest.mark.slow
@pytest.mark.network
def test_a_real_prometheus_scrapes_the_service_and_its_alert_fires(tmp_path: Path) -> None:
    binary, root, port = program("prometheus"), tmp_path / "root", free_port()
    digest = serving.flash(root, serving.pack(tmp_path / "a.edgec")).digest
    with serving.serving(root, tmp_path=tmp_path) as service:
        place = f"{service.place['host']}:{service.place['port']}"
        rules = yaml.safe_load((DOCS / "alerts.yml").read_text())
        for rule in rules["groups"][0]["rules"]:
            rule.pop("for", None)  # nobody waits five minutes here
        (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))
        scrape = {"job_name": "edgec", "static_configs": [{"targets": [place]}]}
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["alerts.yml"],
            "scrape_configs": [scrape],
        }
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        assert promtool("check", "config", str(tmp_path / "prometheus.yml")).returncode == 0
        command = [binary, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/tsdb"]
        with (
            (tmp_path / "prometheus.log").open("wb") as log,
            subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log) as process,
        ):
            try:
                prometheus = Prometheus(port, process)
                (seen,) = prometheus.until("edgec_release_info")
                assert seen["metric"]["digest"] == digest
                for _ in range(3):
                    assert service.infer()[0] == 200
                prometheus.until('edgec_requests_total{code="200"} >= 3')
                (rate,) = prometheus.until(
                    "histogram_quantile(0.5, sum by (le) (rate(edgec_request_seconds_bucket[1m]))) > 0"
                )
                assert float(rate["value"][1]) > 0
                for expression in EXPRESSIONS:
                    query = expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
                    assert prometheus.get("query", query=query)["status"] == "success", query
                service.process.kill()
                fired = prometheus.until('ALERTS{alertname="EdgecDown", alertstate="firing"}')
                assert fired[0]["metric"]["instance"] == place
            finally:
                process.kill()
