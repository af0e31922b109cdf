"""k8s/base: valid against KubeRay's schemas, safe by default, in step with serve_configs."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

# Where serveConfigV2 differs from serve_configs/router.yaml, and nowhere else.
DIFFERENCES = {("http_options", "host"): "0.0.0.0"}

SERVE_PORT = 8000


@pytest.fixture(scope="module")
def base(root: Path) -> Path:
    return root / "k8s" / "base"


@pytest.fixture(scope="module")
def service(base: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((base / "rayservice.yaml").read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def validator(shared_data: Path) -> Draft202012Validator:
    file = shared_data / "kuberay_crds" / "ray.io_v1_rayservice.schema.json"
    schema = strict(json.loads(file.read_text(encoding="utf-8")))
    schema["properties"]["metadata"] = {"type": "object"}
    return Draft202012Validator(schema)


def strict(node: Any) -> Any:
    """Return a CRD schema under which a misspelt key is an error.

    The API server drops unknown keys and fills defaults before it validates. So unknown keys
    are refused here, and a property with a default is not required.
    """
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: strict(value) for key, value in node.items()}
    properties = node.get("properties")
    if not isinstance(properties, dict):
        return made
    if "additionalProperties" not in node and not node.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = False
    if isinstance(node.get("required"), list):
        made["required"] = [
            key for key in node["required"] if "default" not in properties.get(key, {})
        ]
    return made


def problems(validator: Draft202012Validator, document: dict[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


def pods(service: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield (pod spec, its Ray container) of the head and of each worker group."""
    cluster = service["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        yield pod, pod["containers"][0]


def test_the_ray_service_fits_the_schema(
    validator: Draft202012Validator, service: dict[str, Any]
) -> None:
    assert problems(validator, service) == []


@pytest.mark.parametrize(
    ("path", "right", "wrong"),
    [
        ("spec", "serveConfigV2", "serveConfigV3"),
        ("spec.rayClusterConfig", "workerGroupSpecs", "workerGroupSpec"),
        ("spec.rayClusterConfig.headGroupSpec.template.spec", "securityContext", "securityContxt"),
        ("spec.rayClusterConfig.workerGroupSpecs.0", "maxReplicas", "maxReplica"),
        ("spec.rayClusterConfig.workerGroupSpecs.0.template.spec.containers.0", "image", "imge"),
        ("spec.serveService.spec.ports.0", "targetPort", "target_port"),
    ],
)
def test_a_planted_typo_is_caught(
    validator: Draft202012Validator, service: dict[str, Any], path: str, right: str, wrong: str
) -> None:
    planted = copy.deepcopy(service)
    node: Any = planted
    for part in path.split("."):
        node = node[int(part) if part.isdigit() else part]
    node[wrong] = node.pop(right)
    assert any(wrong in problem for problem in problems(validator, planted))


def test_a_value_of_the_wrong_type_is_caught(
    validator: Draft202012Validator, service: dict[str, Any]
) -> None:
    planted = copy.deepcopy(service)
    planted["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["replicas"] = "one"
    assert any("'one' is not of type" in problem for problem in problems(validator, planted))


def test_the_serve_config_is_router_yaml_but_for_the_named_differences(
    root: Path, service: dict[str, Any]
) -> None:
    text = (root / "serve_configs" / "router.yaml").read_text(encoding="utf-8")
    expected = yaml.safe_load(text)
    for (*parents, leaf), value in DIFFERENCES.items():
        node = expected
        for parent in parents:
            node = node[parent]
        assert node[leaf] != value
        node[leaf] = value
    found = yaml.safe_load(service["spec"]["serveConfigV2"])
    wanted = yaml.safe_dump(expected, sort_keys=False, width=100)
    assert found == expected, f"serveConfigV2 of k8s/base/rayservice.yaml should be:\n{wanted}"


def test_the_service_leads_to_the_port_that_serve_listens_on(service: dict[str, Any]) -> None:
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    assert config["http_options"].get("port", SERVE_PORT) == SERVE_PORT
    (port,) = service["spec"]["serveService"]["spec"]["ports"]
    assert port["targetPort"] == SERVE_PORT
    for _, container in pods(service):
        assert SERVE_PORT in [port["containerPort"] for port in container["ports"]]


def test_no_container_runs_as_root_or_gains_rights(service: dict[str, Any]) -> None:
    for pod, container in pods(service):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_every_container_has_probes_and_bounds(service: dict[str, Any]) -> None:
    for _, container in pods(service):
        named = {port["name"] for port in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["port"] in named
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert set(container["resources"]["limits"]) == {"cpu", "memory"}


def test_every_pod_has_the_same_environment(service: dict[str, Any]) -> None:
    head, *workers = [container["env"] for _, container in pods(service)]
    assert all(worker == head for worker in workers)


def test_ray_is_the_locked_one(root: Path, service: dict[str, Any]) -> None:
    version = service["spec"]["rayClusterConfig"]["rayVersion"]
    lock = (root / "requirements" / "main.txt").read_text(encoding="utf-8").splitlines()
    assert f"ray=={version}" in lock


def test_rays_own_ports_ask_for_a_token(service: dict[str, Any]) -> None:
    assert service["spec"]["rayClusterConfig"]["authOptions"] == {"mode": "token"}


def test_the_kustomization_lists_every_file_and_image(base: Path, service: dict[str, Any]) -> None:
    file = base / "kustomization.yaml"
    kustomization = yaml.safe_load(file.read_text(encoding="utf-8"))
    written = {path.name for path in base.glob("*.yaml")} - {file.name}
    assert set(kustomization["resources"]) == written
    names = {image["name"] for image in kustomization["images"]}
    assert {container["image"] for _, container in pods(service)} == names


def test_the_namespace_is_the_one_of_the_kustomization(base: Path) -> None:
    kustomization = yaml.safe_load((base / "kustomization.yaml").read_text(encoding="utf-8"))
    namespace = yaml.safe_load((base / "namespace.yaml").read_text(encoding="utf-8"))
    assert namespace["metadata"]["name"] == kustomization["namespace"]
