"""Rules of our own for manifests. Each yields what breaks it, in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from support.manifests import K8S, Document, Pod, graph_args, named, of_kind, pods, serve_config

LABELS = ("app.kubernetes.io/name", "app.kubernetes.io/part-of", "app.kubernetes.io/component")

SECRET_NAME = re.compile(r"(?i)(key|token|secret|passw|credential)")
SECRET_LOOK = re.compile(r"\b(sk-|hf_|ghp_|AKIA|eyJ)\w{8,}")

LEAVE = "waypost.serve.leave"

Rule = Callable[[list[Document]], Iterator[str]]


def images_made() -> set[str]:
    """Return the names of the images that ``make images`` makes: one for each lock."""
    return {f"waypost/{path.stem}" for path in K8S.glob("images/*.txt")} - {"waypost/debian"}


def containers(documents: list[Document]) -> Iterator[tuple[str, Pod, dict[str, Any]]]:
    """Yield (where, pod, container) of all."""
    for pod in pods(documents):
        for container in pod.containers:
            yield f"{pod.where} {container['name']}", pod, container


def images(documents: list[Document], version: str, made: set[str]) -> Iterator[str]:
    """Every image has a version, and ours is one that is made."""
    for where, _, container in containers(documents):
        name, _, tag = container["image"].partition(":")
        if tag in ("", "latest"):
            yield f"{where}: image {container['image']} has no version"
        if name.startswith("waypost/") and (tag != version or name not in made):
            yield f"{where}: no image {container['image']} is made"


def bounds(documents: list[Document]) -> Iterator[str]:
    """Every container has limits of CPU and memory, and requests; KubeRay reads the limits."""
    asked = [(where, c.get("resources", {})) for where, _, c in containers(documents)]
    for document in of_kind(documents, "RayService") + of_kind(documents, "RayJob"):
        cluster = document["spec"].get("rayClusterConfig") or document["spec"]["rayClusterSpec"]
        if cluster.get("enableInTreeAutoscaling"):
            resources = cluster["autoscalerOptions"].get("resources", {})
            asked.append((f"{named(document)} autoscaler", resources))
    for where, resources in asked:
        for kind in ("requests", "limits"):
            if missing := {"cpu", "memory"} - set(resources.get(kind, ())):
                yield f"{where}: no {kind} of {', '.join(sorted(missing))}"


def secrets(documents: list[Document]) -> Iterator[str]:
    """No secret stands in a manifest: neither in a variable, nor in an object of its own."""
    yield from (f"{named(d)}: holds a secret" for d in of_kind(documents, "Secret"))
    for where, _, container in containers(documents):
        for variable in container.get("env", ()):
            value = str(variable.get("value", ""))
            is_one = SECRET_NAME.search(variable["name"]) and "value" in variable
            if is_one or SECRET_LOOK.search(value):
                yield f"{where}: {variable['name']} is written out"
        for word in (*container.get("command", ()), *container.get("args", ())):
            if SECRET_LOOK.search(word):
                yield f"{where}: a secret stands in its command"


def probes(documents: list[Document]) -> Iterator[str]:
    """What runs for long has all probes, on ports that it names; a request is tried end to end."""
    for pod in pods(documents):
        if pod.of == "CronJob":
            continue
        for container in pod.spec["containers"]:
            where = f"{pod.where} {container['name']}"
            named_ports = {port["name"] for port in container.get("ports", ())}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if probe not in container:
                    yield f"{where}: no {probe}"
                elif "httpGet" in container[probe]:
                    port = container[probe]["httpGet"]["port"]
                    if port not in named_ports:
                        yield f"{where}: {probe} asks at a port that it does not name: {port}"
        if pod.of == "RayService" and pod.labels["ray.io/node-type"] == "worker":
            asked = pod.spec["containers"][0].get("readinessProbe", {}).get("httpGet", {})
            if (asked.get("path"), asked.get("port")) != ("/readyz", "serve"):
                yield f"{pod.where}: is ready without having answered /readyz as clients ask"


def confinement(documents: list[Document]) -> Iterator[str]:
    """No container runs as root, writes to its image, gains rights, or has an account to spare."""
    for pod in pods(documents):
        security = pod.spec.get("securityContext", {})
        if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
            yield f"{pod.where}: may run as root"
        if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{pod.where}: has no seccomp profile"
        uses = pod.of == "CronJob" or pod.labels.get("ray.io/group") == "headgroup"
        account = pod.spec.get("serviceAccountName")
        if not account or (account == "waypost-head" and not uses):
            yield f"{pod.where}: runs under the account {account}"
        for container in pod.containers:
            own = container.get("securityContext", {})
            if (
                own.get("readOnlyRootFilesystem") is not True
                or own.get("allowPrivilegeEscalation") is not False
                or own.get("capabilities") != {"drop": ["ALL"]}
            ):
                yield f"{pod.where} {container['name']}: is not confined"


def labels(documents: list[Document]) -> Iterator[str]:
    """Every object has our labels; Ray pods have those that KubeRay leaves to us."""
    for document in documents:
        has = document["metadata"].get("labels", {})
        if missing := [name for name in LABELS if name not in has]:
            yield f"{named(document)}: no label {', '.join(missing)}"
    for pod in pods(documents):
        if missing := [name for name in LABELS if name not in pod.labels]:
            yield f"{pod.where}: no label {', '.join(missing)}"
        if pod.is_ray and pod.labels["app.kubernetes.io/name"] != "kuberay":
            yield f"{pod.where}: the operator's Service of the head would not find it"


def leaving(documents: list[Document]) -> Iterator[str]:
    """A pod has more time to end than the longest answer takes, and uses it."""
    args = graph_args(documents)
    longest = args["limits"]["total_timeout_s"]
    for place, node in {"gateway": args["gateway"], **{e["name"]: e for e in args["pool"]}}.items():
        if node["graceful_shutdown_timeout_s"] <= longest:
            yield f"{place}: stops before its longest answer of {longest} s"
    longest_stop = max(
        args["gateway"]["graceful_shutdown_timeout_s"],
        *(entry["graceful_shutdown_timeout_s"] for entry in args["pool"]),
    )
    for pod in pods(of_kind(documents, "RayService")):
        if pod.labels["ray.io/node-type"] != "worker":
            continue
        hook = pod.spec["containers"][0].get("lifecycle", {}).get("preStop", {})
        command = hook.get("exec", {}).get("command", [])
        within = float(command[-1]) if LEAVE in command else 0.0
        if within <= longest_stop:
            yield f"{pod.where}: preStop waits {within:g} s, replicas need {longest_stop:g}"
        if pod.spec.get("terminationGracePeriodSeconds", 30) <= within:
            yield f"{pod.where}: is killed before preStop ends"
    for service in of_kind(documents, "RayService"):
        if service["spec"].get("rayClusterDeletionDelaySeconds", 60) <= longest_stop:
            yield "after an upgrade the old cluster is deleted with streams open"


def ports(documents: list[Document]) -> Iterator[str]:
    """The ports of containers, Services, probes and routes are those that Serve listens on."""
    http = serve_config(documents)["http_options"]
    args = graph_args(documents)
    for pod in pods(of_kind(documents, "RayService")):
        has = pod.ports()
        if has.get("serve") != http["port"]:
            yield f"{pod.where}: its port serve is not {http['port']}"
        own = args["gateway"].get("port")
        if pod.labels.get("app.kubernetes.io/component") == "gateway" and has.get("gateway") != own:
            yield f"{pod.where}: its port gateway is not {own}"
    for host in (http["host"], args["gateway"].get("host")):
        if host != "0.0.0.0":
            yield f"Serve listens on {host}, where no other pod reaches it"
    for service in of_kind(documents, "RayService"):
        offered = service["spec"]["serveService"]["spec"]["ports"]
        # KubeRay 1.7 keeps the head's port of this name, and no other
        if [(p["name"], p["port"]) for p in offered] != [("serve", http["port"])]:
            yield f"{named(service)}: serveService promises a port that it does not get"


def resources_of(group: dict[str, Any]) -> set[str]:
    """Return the names of Ray's custom resources that a worker group brings."""
    return set(re.findall(r'\\"([^"\\]+)\\":', group["rayStartParams"].get("resources", "")))


def placing(documents: list[Document]) -> Iterator[str]:
    """Each resource that the graph asks for is there, and groups grow as their LLMs do."""
    args = graph_args(documents)
    groups = {
        name: pod.group
        for pod in pods(of_kind(documents, "RayService"))
        if pod.group is not None and "groupName" in pod.group
        for name in resources_of(pod.group)
    }
    for node in (args["gateway"], args["router"], *args["pool"]):
        place = node.get("name", "gateway and router")
        for name in node.get("ray_actor_options", {}).get("resources", {}) or {"": 0}:
            if name not in groups:
                yield f"{place}: no worker group has the resource {name!r}"
                continue
            scaling = node.get("autoscaling")
            if scaling is None:
                continue
            group = groups[name]
            has = (group["minReplicas"], group["maxReplicas"])
            if has != (scaling["min_replicas"], scaling["max_replicas"]):
                yield f"{place}: its group grows from {has[0]} to {has[1]}, not as it does"
