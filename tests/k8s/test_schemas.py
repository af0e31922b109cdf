"""Every document of every overlay fits the schema of its kind, under which a typo is a fault."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from jsonschema import Draft202012Validator

from support.manifests import Document, changed, named, of_kind, overlays, ray_service, rendered

SCHEMAS = Path(__file__).resolve().parents[1] / "support" / "schemas"

OF_DOCUMENTATION = {path.stem for path in SCHEMAS.glob("*.json")}
"""Kinds that no package has a schema of; ours are written from their reference."""

KUBERNETES = "1.31"
"""Oldest version of Kubernetes whose schemas the manifests are held against."""


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


@cache
def crd(kind: str, folder: Path) -> Draft202012Validator:
    file = folder / "kuberay_crds" / f"ray.io_v1_{kind.lower()}.schema.json"
    schema = strict(json.loads(file.read_text(encoding="utf-8")))
    schema["properties"]["metadata"] = {"type": "object"}
    return Draft202012Validator(schema)


@cache
def written(kind: str) -> Draft202012Validator:
    return Draft202012Validator(
        json.loads((SCHEMAS / f"{kind.lower()}.json").read_text(encoding="utf-8"))
    )


def faults(document: Document, shared_data: Path) -> list[str]:
    """Return what is wrong with a document, by the schema of its kind."""
    kind = document["kind"]
    if document["apiVersion"] == "ray.io/v1" or kind.lower() in OF_DOCUMENTATION:
        found = crd(kind, shared_data) if document["apiVersion"] == "ray.io/v1" else written(kind)
        return [f"{error.json_path}: {error.message}" for error in found.iter_errors(document)]
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{list(error.path)}: {error.message}"]
    return []


@pytest.mark.parametrize("overlay", overlays())
def test_every_document_fits_its_schema(overlay: str, shared_data: Path) -> None:
    found = {named(d): faults(d, shared_data) for d in rendered(overlay)}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("path", "right", "wrong"),
    [
        ("spec", "serveConfigV2", "serveConfigV3"),
        ("spec.rayClusterConfig", "workerGroupSpecs", "workerGroupSpec"),
        ("spec.rayClusterConfig.gcsFaultToleranceOptions", "redisAddress", "redisAdress"),
        ("spec.upgradeStrategy.clusterUpgradeOptions", "stepSizePercent", "stepPercent"),
        ("spec.rayClusterConfig.headGroupSpec.template.spec", "securityContext", "securityContxt"),
        ("spec.rayClusterConfig.workerGroupSpecs.0", "maxReplicas", "maxReplica"),
        ("spec.rayClusterConfig.workerGroupSpecs.0.template.spec.containers.0", "image", "imge"),
        ("spec.serveService.spec.ports.0", "port", "prt"),
    ],
)
def test_a_typo_in_the_ray_service_is_found(
    shared_data: Path, path: str, right: str, wrong: str
) -> None:
    planted = ray_service(rendered("production"))
    node: Any = planted
    for part in path.split("."):
        node = node[int(part) if part.isdigit() else part]
    node[wrong] = node.pop(right)
    assert any(wrong in problem for problem in faults(planted, shared_data))


@pytest.mark.parametrize(
    ("overlay", "kind", "path", "value"),
    [
        ("production", "RayService", "spec.rayClusterConfig.workerGroupSpecs.0.replicas", "one"),
        ("production", "StatefulSet", "spec.replica", 1),
        ("production", "NetworkPolicy", "spec.podSelectr", {}),
        ("production", "PodDisruptionBudget", "spec.minAvailabl", 1),
        ("production", "Ingress", "spec.rules.0.http.paths.0.pathTyp", "Prefix"),
        ("production", "HTTPRoute", "spec.rules.0.backendRefs.0.port", "http"),
        ("production", "HTTPRoute", "spec.rules.0.timeout", {}),
        ("jobs", "RayJob", "spec.entryPoint", "true"),
        ("jobs", "CronJob", "spec.jobTemplate.spec.template.spec.containers.0.resource", {}),
        ("jobs", "Role", "rules.0.verb", []),
    ],
)
def test_a_fault_of_another_kind_is_found(
    shared_data: Path, overlay: str, kind: str, path: str, value: object
) -> None:
    document = of_kind(rendered(overlay), kind)[0]
    assert faults(document, shared_data) == []
    assert faults(changed(document, path, value), shared_data)


def test_overlays_agree_on_what_they_share() -> None:
    """Two overlays that are applied one after the other describe the same accounts."""
    by_name = {overlay: {named(d): d for d in rendered(overlay)} for overlay in overlays()}
    shared = set.intersection(*(set(found) for found in by_name.values()))
    assert {"Namespace/waypost", "ServiceAccount/waypost"} <= shared
    for name in shared - {"RayService/waypost"}:
        assert len({json.dumps(found[name], sort_keys=True) for found in by_name.values()}) == 1
