"""Rules of our own on every overlay, and a planted fault for each of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support import manifest_rules as rules
from support.manifests import (
    Document,
    changed,
    graph_args,
    graphs,
    of_kind,
    overlays,
    pods,
    ray_service,
    rendered,
)
from waypost import __version__
from waypost.serve import launch, standby

GRAPHS = graphs()


def images(documents: list[Document]) -> Iterator[str]:
    return rules.images(documents, __version__, rules.images_made())


EVERYWHERE: tuple[rules.Rule, ...] = (
    images,
    rules.bounds,
    rules.secrets,
    rules.probes,
    rules.confinement,
    rules.labels,
)
OF_GRAPHS: tuple[rules.Rule, ...] = (rules.leaving, rules.ports, rules.placing)


@pytest.mark.parametrize("overlay", overlays())
@pytest.mark.parametrize("rule", EVERYWHERE)
def test_every_overlay_keeps_the_rules(overlay: str, rule: rules.Rule) -> None:
    assert list(rule(rendered(overlay))) == []


@pytest.mark.parametrize("overlay", GRAPHS)
@pytest.mark.parametrize("rule", OF_GRAPHS)
def test_every_graph_keeps_the_rules(overlay: str, rule: rules.Rule) -> None:
    assert list(rule(rendered(overlay))) == []


CONTAINER = "spec.rayClusterConfig.workerGroupSpecs.0.template.spec.containers.0"
POD = "spec.rayClusterConfig.workerGroupSpecs.0.template.spec"


@pytest.mark.parametrize(
    ("rule", "path", "value", "says"),
    [
        (images, f"{CONTAINER}.image", "waypost/gateway:latest", "has no version"),
        (images, f"{CONTAINER}.image", "waypost/gateway", "has no version"),
        (images, f"{CONTAINER}.image", f"waypost/gate:{__version__}", "no image waypost/gate"),
        (images, f"{CONTAINER}.image", "waypost/gateway:0.0.9", "no image waypost/gateway:0.0.9"),
        (rules.bounds, f"{CONTAINER}.resources.limits", {"cpu": "1"}, "no limits of memory"),
        (rules.bounds, f"{CONTAINER}.resources.requests", {"memory": "1Gi"}, "requests of cpu"),
        (rules.bounds, "spec.rayClusterConfig.autoscalerOptions.resources", {}, "autoscaler"),
        (rules.secrets, f"{CONTAINER}.env", [{"name": "API_KEYS", "value": "k"}], "written out"),
        (rules.secrets, f"{CONTAINER}.env", [{"name": "A", "value": "sk-12345678"}], "written out"),
        (rules.probes, f"{CONTAINER}.readinessProbe", {}, "without having answered"),
        (rules.probes, f"{CONTAINER}.livenessProbe.httpGet.port", "web", "does not name: web"),
        (rules.probes, f"{CONTAINER}.readinessProbe.httpGet.path", "/healthz", "without having"),
        (rules.confinement, f"{POD}.securityContext.runAsNonRoot", False, "may run as root"),
        (rules.confinement, f"{POD}.serviceAccountName", "waypost-head", "runs under"),
        (rules.confinement, f"{CONTAINER}.securityContext.readOnlyRootFilesystem", False, "is not"),
        (rules.labels, "metadata.labels", {}, "no label"),
        (
            rules.labels,
            "spec.rayClusterConfig.headGroupSpec.template.metadata.labels",
            dict.fromkeys(rules.LABELS, "waypost"),
            "would not find it",
        ),
        (rules.leaving, f"{POD}.terminationGracePeriodSeconds", 690, "is killed before"),
        (rules.leaving, f"{CONTAINER}.lifecycle", {}, "preStop waits 0 s"),
        (rules.leaving, "spec.rayClusterDeletionDelaySeconds", 60, "with streams open"),
        (rules.ports, f"{CONTAINER}.ports.0.containerPort", 8100, "port serve is not 8000"),
        (rules.ports, f"{CONTAINER}.ports.1.containerPort", 8100, "port gateway is not 8001"),
        (rules.ports, "spec.serveService.spec.ports.0.port", 80, "does not get"),
        (
            rules.placing,
            "spec.rayClusterConfig.workerGroupSpecs.0.rayStartParams",
            {},
            "'gateway'",
        ),
        (rules.placing, "spec.rayClusterConfig.workerGroupSpecs.2.minReplicas", 1, "from 1 to 2"),
    ],
)
def test_a_planted_fault_is_found(rule: rules.Rule, path: str, value: object, says: str) -> None:
    documents = rendered("production")
    service = ray_service(documents)
    documents[documents.index(service)] = changed(service, path, value)
    assert any(says in problem for problem in rule(documents))


def test_a_secret_that_is_written_down_is_found() -> None:
    secret = {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "keys"}}
    assert list(rules.secrets([secret])) == ["Secret/keys: holds a secret"]


@pytest.mark.parametrize("overlay", GRAPHS)
def test_every_pod_has_the_environment_of_waypost_serve(
    overlay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `waypost serve --haproxy` sets for speed; the rest is of one machine and one run."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_worker_niceness"):
        monkeypatch.delenv(name, raising=False)
    wanted = launch.environment(throughput=True, haproxy=True)
    for name in ("WAYPOST_ROOT", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        wanted.pop(name)
    # there is a load balancer here, which has to notice that a pod leaves
    wanted.pop("RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S")
    for pod in pods(of_kind(rendered(overlay), "RayService")):
        given = {v["name"]: v.get("value") for v in pod.spec["containers"][0]["env"]}
        assert {name: given.get(name) for name in wanted} == wanted, pod.where


@pytest.mark.parametrize("overlay", GRAPHS)
def test_every_pod_has_the_same_environment(overlay: str) -> None:
    first, *others = [
        [v for v in pod.spec["containers"][0]["env"] if v["name"] != standby.VARIABLE]
        for pod in pods(of_kind(rendered(overlay), "RayService"))
    ]
    assert all(other == first for other in others)


@pytest.mark.parametrize("overlay", overlays())
def test_ray_is_the_locked_one(overlay: str) -> None:
    lock = (rules.K8S.parent / "requirements" / "main.txt").read_text(encoding="utf-8")
    for document in rendered(overlay):
        spec = document.get("spec", {})
        cluster = spec.get("rayClusterConfig") or spec.get("rayClusterSpec")
        if cluster is not None:
            assert f"ray=={cluster['rayVersion']}" in lock.splitlines()
            assert cluster["authOptions"]["mode"] == "token"


def test_no_account_has_rights_but_that_which_submits() -> None:
    for overlay in overlays():
        documents = rendered(overlay)
        assert of_kind(documents, "ClusterRole") + of_kind(documents, "ClusterRoleBinding") == []
        given = {role["metadata"]["name"]: role["rules"] for role in of_kind(documents, "Role")}
        if overlay == "jobs":
            (rights,) = given.pop("waypost-submit")
            assert (rights["resources"], rights["verbs"]) == (
                ["rayjobs"],
                ["get", "list", "create"],
            )
        assert given == {}


def test_production_has_two_gateways_on_two_nodes_and_keeps_one() -> None:
    documents = rendered("production")
    assert graph_args(documents)["gateway"]["num_replicas"] >= 2
    (gateway,) = [p for p in pods(documents) if p.labels.get("ray.io/group") == "gateway"]
    assert gateway.group is not None
    assert gateway.group["minReplicas"] >= 2
    spread = gateway.spec["topologySpreadConstraints"]
    assert {s["topologyKey"] for s in spread} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }
    for constraint in spread:
        wanted = constraint["labelSelector"]["matchLabels"]
        assert wanted.items() <= gateway.labels.items()
        assert constraint["matchLabelKeys"] == ["ray.io/cluster"]


def test_disruption_budgets_are_of_pods_that_are_there_and_can_be_counted() -> None:
    documents = rendered("production")
    for budget in of_kind(documents, "PodDisruptionBudget"):
        spec = budget["spec"]
        # the pods of a RayCluster have no scale: Kubernetes refuses shares and maxUnavailable
        assert set(spec) == {"minAvailable", "selector"}
        assert isinstance(spec["minAvailable"], int)
        wanted = spec["selector"]["matchLabels"].items()
        found = [pod for pod in pods(documents) if wanted <= pod.labels.items()]
        assert sum(pod.number for pod in found) >= spec["minAvailable"]


def test_the_way_from_outside_outlasts_the_longest_answer() -> None:
    documents = rendered("production")
    longest = graph_args(documents)["limits"]["total_timeout_s"]
    (ingress,), (route,) = of_kind(documents, "Ingress"), of_kind(documents, "HTTPRoute")
    notes = ingress["metadata"]["annotations"]
    assert int(notes["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > longest
    assert notes["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    (rule,) = route["spec"]["rules"]
    assert float(rule["timeouts"]["request"].removesuffix("s")) > longest
    # the Gateway that the operator makes: RayService's name, and Istio's name of its Service
    upgrade = ray_service(documents)["spec"]["upgradeStrategy"]["clusterUpgradeOptions"]
    service = f"waypost-gateway-{upgrade['gatewayClassName']}"
    assert [ref["name"] for ref in rule["backendRefs"]] == [service]
    (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
    assert path["backend"]["service"]["name"] == service


def test_the_head_keeps_its_state_and_its_disk() -> None:
    documents = rendered("production")
    cluster = ray_service(documents)["spec"]["rayClusterConfig"]
    redis = cluster["gcsFaultToleranceOptions"]
    (service,) = of_kind(documents, "Service")
    (port,) = service["spec"]["ports"]
    assert redis["redisAddress"] == f"redis://{service['metadata']['name']}:{port['port']}"
    assert set(redis["redisPassword"]) == {"valueFrom"}
    head = cluster["headGroupSpec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in head["volumes"]}
    (claim,) = of_kind(documents, "PersistentVolumeClaim")
    claimed = volumes["data"]["persistentVolumeClaim"]["claimName"]
    assert claimed == claim["metadata"]["name"]
    mounts = {m["mountPath"]: m["name"] for m in head["containers"][0]["volumeMounts"]}
    assert mounts["/data"] == "data"
    args = graph_args(documents)
    assert args["store_place"] == "head"
    assert args["feedback_dir"].startswith("/data/")
