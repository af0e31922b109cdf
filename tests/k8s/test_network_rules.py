"""NetworkPolicies of overlay production admit what the graph needs, and nothing beside."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from support.manifests import K8S, of_kind, pods, rendered
from support.network_policies import End, admitted

DNS = End({"k8s-app": "kube-dns"}, namespace="kube-system")
OPERATOR = End({"app.kubernetes.io/name": "kuberay-operator"}, namespace="operators")
PROMETHEUS = End({"app": "prometheus"}, namespace="monitoring")
STRANGER = End({"app.kubernetes.io/part-of": "waypost", "ray.io/is-ray-node": "yes"}, "default")
GATEWAY_API = End({"gateway.networking.k8s.io/gateway-name": "waypost-gateway"})
ISTIOD = End({"app": "istiod"}, namespace="istio-system")
API_SERVER = End(namespace=None, address="10.96.0.1")
STORE = End(namespace=None, address="52.218.0.1")
METADATA = End(namespace=None, address="169.254.169.254")


@pytest.fixture(scope="module")
def policies() -> list[dict[str, Any]]:
    return of_kind(rendered("production"), "NetworkPolicy") + of_kind(
        rendered("jobs"), "NetworkPolicy"
    )


@pytest.fixture(scope="module")
def ends() -> dict[str, End]:
    """The pods of production and of the jobs, by group or component."""
    found = {}
    for overlay in ("production", "jobs"):
        for pod in pods(rendered(overlay)):
            name = pod.labels.get("ray.io/group", pod.labels["app.kubernetes.io/component"])
            prefix = "job " if pod.of == "RayJob" else ""
            found.setdefault(prefix + name, End(pod.labels))
    return {
        **found,
        "dns": DNS,
        "operator": OPERATOR,
        "prometheus": PROMETHEUS,
        "gateway api": GATEWAY_API,
        "istiod": ISTIOD,
        "api server": API_SERVER,
        "store": STORE,
    }


NEEDED = [
    ("gateway", "headgroup", 6379),
    ("gateway", "headgroup", 8265),
    ("headgroup", "gateway", 52365),
    ("headgroup", "gateway", 10012),
    ("gateway", "smollm2-135m", 30007),
    ("gateway", "smollm2-135m", 41234),
    ("smollm2-135m", "gateway", 10400),
    ("smollm2-135m", "qwen2-5-coder-0-5b", 10002),
    ("headgroup", "redis", 6379),
    ("headgroup", "api server", 443),
    ("headgroup", "api server", 6443),
    ("gateway", "store", 443),
    ("smollm2-135m", "store", 443),
    ("headgroup", "store", 443),
    ("operator", "headgroup", 8265),
    ("operator", "gateway", 8000),
    ("gateway api", "gateway", 8000),
    ("gateway api", "smollm2-135m", 8000),
    ("gateway api", "istiod", 15012),
    ("prometheus", "gateway", 8001),
    ("prometheus", "gateway", 8080),
    ("prometheus", "headgroup", 44217),
    ("prometheus", "headgroup", 44227),
    ("job headgroup", "store", 443),
    ("job headgroup", "api server", 6443),
    ("job trials", "job headgroup", 6379),
    ("submit", "api server", 443),
]


@pytest.mark.parametrize(("source", "target", "port"), NEEDED)
def test_what_the_graph_needs_is_admitted(
    policies: list[dict[str, Any]], ends: dict[str, End], source: str, target: str, port: int
) -> None:
    assert admitted(policies, ends[source], ends[target], port)


@pytest.mark.parametrize(
    "source", ["headgroup", "gateway", "smollm2-135m", "redis", "submit", "job trials"]
)
@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
def test_every_pod_may_ask_for_names(
    policies: list[dict[str, Any]], ends: dict[str, End], source: str, protocol: str
) -> None:
    assert admitted(policies, ends[source], DNS, 53, protocol)


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        # Ray's own ports run code for whoever reaches them
        (STRANGER, "headgroup", 6379),
        (STRANGER, "headgroup", 8265),
        (STRANGER, "headgroup", 10001),
        (STRANGER, "gateway", 10012),
        (STRANGER, "gateway", 8000),
        (STRANGER, "gateway", 8001),
        (STRANGER, "redis", 6379),
        (PROMETHEUS, "headgroup", 8265),
        (PROMETHEUS, "gateway", 8000),
        (GATEWAY_API, "headgroup", 8265),
        (GATEWAY_API, "gateway", 8001),
        # HAProxy's own pages
        (GATEWAY_API, "gateway", 8404),
        (PROMETHEUS, "gateway", 9101),
        ("gateway", "redis", 6379),
        ("smollm2-135m", "redis", 6379),
        ("redis", STORE, 443),
        ("redis", "headgroup", 6379),
        ("submit", "headgroup", 8265),
        ("submit", "redis", 6379),
        ("gateway", METADATA, 443),
        ("gateway", METADATA, 80),
        ("gateway", STORE, 22),
        ("smollm2-135m", API_SERVER, 6443),
    ],
)
def test_the_rest_is_closed(
    policies: list[dict[str, Any]],
    ends: dict[str, End],
    source: End | str,
    target: End | str,
    port: int,
) -> None:
    begin = ends[source] if isinstance(source, str) else source
    end = ends[target] if isinstance(target, str) else target
    assert not admitted(policies, begin, end, port)


def test_without_the_first_policy_strangers_come_in(policies: list[dict[str, Any]]) -> None:
    """The simulation itself: what no policy binds is open, as in Kubernetes."""
    anyone = End({"app": "other"})
    assert not admitted(policies, STRANGER, anyone, 80)
    rest = [policy for policy in policies if policy["metadata"]["name"] != "nobody"]
    assert admitted(rest, STRANGER, anyone, 80)
    assert admitted([], STRANGER, anyone, 80)


NETWORK = K8S / "overlays" / "production" / "network.yaml"
NAMES = [d["metadata"]["name"] for d in yaml.safe_load_all(NETWORK.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("name", sorted({*NAMES} - {"nobody"}))
def test_every_policy_is_needed(
    policies: list[dict[str, Any]], ends: dict[str, End], name: str
) -> None:
    rest = [policy for policy in policies if policy["metadata"]["name"] != name]
    needed = [(ends[source], ends[target], port) for source, target, port in NEEDED]
    lost = [way for way in needed if not admitted(rest, *way)]
    names = [] if admitted(rest, ends["gateway"], DNS, 53, "UDP") else ["dns"]
    assert lost or names


def test_every_policy_says_which_ways_it_binds(policies: list[dict[str, Any]]) -> None:
    """A policy without policyTypes binds egress only where it has rules for it."""
    for policy in policies:
        spec = policy["spec"]
        rules = {"Ingress": "ingress", "Egress": "egress"}
        assert spec["policyTypes"], policy["metadata"]["name"]
        for way, key in rules.items():
            assert key not in spec or way in spec["policyTypes"]
