"""The manifests of k8s, rendered by kubectl, and what the tests ask of them."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"

Document = dict[str, Any]

KUSTOMIZATION_FIELDS = {
    "apiVersion", "kind", "namespace", "bases", "resources", "images", "patchesStrategicMerge",
    "patchesJson6902", "configMapGenerator", "secretGenerator", "generatorOptions",
}  # fmt: skip
"""What kubectl 1.20 (kustomize 2.0) and today's both take; the old one refuses others."""


def overlays() -> list[str]:
    """Return the names of the overlays."""
    return sorted(path.parent.name for path in K8S.glob("overlays/*/kustomization.yaml"))


def graphs() -> list[str]:
    """Return the names of the overlays that bring the graph; without kubectl."""
    return [name for name in overlays() if K8S / "base" in _bases(K8S / "overlays" / name)]


def _bases(folder: Path) -> set[Path]:
    read = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    below = [(folder / base).resolve() for base in read.get("bases", ())]
    return set(below).union(*(_bases(base) for base in below))


@cache
def _kustomize(folder: Path) -> str:
    kubectl = os.environ.get("KUBECTL") or shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("needs kubectl (Debian: kubernetes-client)")
    done = subprocess.run(
        [kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    # as JSON, which is read in a hundredth of the time
    return json.dumps([d for d in yaml.load_all(done.stdout, yaml.CSafeLoader) if d])


def rendered(overlay: str) -> list[Document]:
    """Return the documents that ``kubectl apply -k`` would send, anew at each call."""
    documents: list[Document] = json.loads(_kustomize(K8S / "overlays" / overlay))
    return documents


def named(document: Document) -> str:
    """Return kind and name of a document, for messages."""
    return f"{document['kind']}/{document['metadata']['name']}"


def of_kind(documents: list[Document], kind: str) -> list[Document]:
    """Return the documents of one kind."""
    return [document for document in documents if document["kind"] == kind]


@dataclass(frozen=True)
class Pod:
    """A pod that a document makes.

    Attributes:
        where: Document and group, for messages.
        labels: Labels of the pod, with those that KubeRay adds.
        spec: Its specification.
        group: The group of a Ray cluster that it belongs to, as written; None for other pods.
        of: Kind of the document.
        number: How many there are at first.
    """

    where: str
    labels: dict[str, str]
    spec: dict[str, Any]
    group: dict[str, Any] | None
    of: str
    number: int = 1

    @property
    def is_ray(self) -> bool:
        """Whether it is a node of a Ray cluster."""
        return self.group is not None

    @property
    def containers(self) -> list[dict[str, Any]]:
        """All its containers, those for the start last."""
        return [*self.spec["containers"], *self.spec.get("initContainers", ())]

    def ports(self) -> dict[str, int]:
        """Return the ports of its containers by name."""
        found = {}
        for container in self.containers:
            for port in container.get("ports", ()):
                found[port["name"]] = port["containerPort"]
        return found


CLUSTER = {"RayService": "rayClusterConfig", "RayJob": "rayClusterSpec"}
"""Kind -> key of the Ray cluster in its specification."""


def pods(documents: list[Document]) -> Iterator[Pod]:
    """Yield each kind of pod that the documents make."""
    for document in documents:
        where, spec, kind = named(document), document.get("spec", {}), document["kind"]
        if kind in CLUSTER:
            yield from _ray_pods(where, kind, spec[CLUSTER[kind]])
        elif kind == "CronJob":
            yield _pod(where, kind, spec["jobTemplate"]["spec"]["template"])
        elif "template" in spec:
            yield _pod(where, kind, spec["template"])


def _pod(where: str, kind: str, template: dict[str, Any]) -> Pod:
    return Pod(where, dict(template["metadata"]["labels"]), template["spec"], None, kind)


def _ray_pods(where: str, kind: str, cluster: dict[str, Any]) -> Iterator[Pod]:
    head = cluster["headGroupSpec"]
    groups = [("head", "headgroup", head)]
    groups += [("worker", each["groupName"], each) for each in cluster.get("workerGroupSpecs", ())]
    for node, name, group in groups:
        template = group["template"]
        given = template.get("metadata", {}).get("labels", {})
        # what the operator adds; a label of ours with such a name would win
        labels = {
            "app.kubernetes.io/name": "kuberay",
            "ray.io/is-ray-node": "yes",
            "ray.io/node-type": node,
            "ray.io/group": name,
            **given,
        }
        number = 1 if node == "head" else group.get("replicas", 0)
        yield Pod(f"{where} {name}", labels, template["spec"], group, kind, number)


def ray_service(documents: list[Document]) -> Document:
    """Return the only RayService."""
    (service,) = of_kind(documents, "RayService")
    return service


def serve_config(documents: list[Document]) -> dict[str, Any]:
    """Return serveConfigV2 of the RayService."""
    read: dict[str, Any] = yaml.safe_load(ray_service(documents)["spec"]["serveConfigV2"])
    return read


def graph_args(documents: list[Document]) -> dict[str, Any]:
    """Return the arguments of the graph in serveConfigV2."""
    (application,) = serve_config(documents)["applications"]
    args: dict[str, Any] = application["args"]
    return args


def changed(document: Document, path: str, value: Any) -> Document:
    """Return a copy with another value at a path with dots; numbers are places of a list."""
    made = copy.deepcopy(document)
    *parents, leaf = path.split(".")
    node: Any = made
    for part in parents:
        node = node[int(part) if part.isdigit() else part]
    node[int(leaf) if leaf.isdigit() else leaf] = value
    return made
