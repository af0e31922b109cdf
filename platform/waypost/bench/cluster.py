"""Kill parts of a cluster of pods on this machine, and count what each costs its clients.

A head and two workers run in namespaces of their own, with the environment, ports, token and probes
of k8s/base, and Redis behind the head. Clients ask whole answers and streams in turns of the pods
that the readiness probe finds, as a Service would lead them. Not a real cluster: there is no
kubelet, no operator and no scheduler; a killed pod is started again after a second.

Example: waypost bench cluster --fault worker --fault head
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import aiohttp
import yaml
from pydantic import Field

from waypost.bench import harness
from waypost.bench._pods import Pod, Pods
from waypost.bench._service import ANSWERED, BAD, PAUSE_S, SERVE, Ended, Service, ask_on
from waypost.bench._targets import ARTIFACT
from waypost.bench.harness import BenchError, Result, Table, Tell
from waypost.config import resolve_path

Fault = Literal["gateway", "worker", "head", "redis", "drain", "upgrade"]
WHAT: dict[Fault, str] = {
    "gateway": "a gateway's process is killed",
    "worker": "a worker pod is killed",
    "head": "the head pod is killed",
    "redis": "Redis is killed",
    "drain": "a worker pod leaves (preStop), another comes",
    "upgrade": "a new cluster beside the old one, then the old one leaves",
}
MANIFEST = "k8s/base/rayservice.yaml"
START_S = 300.0
HEAL_S = 180.0
CALM_S = 10.0
"""Time without a bad answer after which a fault counts as healed."""

RESTART_S = 1.0
POLL_S = 0.5
LEAVE_S = 60
DASHBOARD, GCS, AGENT, METRICS, REDIS = 8265, 6379, 52365, 8080, 6379
OURS = ("HOME", "HF_HOME", "WAYPOST_CACHE", "WAYPOST_ROOT")
TALK = {"tokens": 24, "tokens_per_s": 30}


class Options(harness.Options):
    """Options of ``waypost bench cluster``."""

    fault: tuple[Fault, ...] = Field(tuple(WHAT), description="What is done.")
    clients: int = Field(8, ge=1, description="Clients that ask all the time.")


@dataclass
class Cluster:
    """A head and its workers.

    Attributes:
        head: The head.
        workers: The others, which serve.
        token: Ray's token.
        space: Name of its part of Redis.
    """

    head: Pod
    workers: list[Pod]
    token: str
    space: str


class Trial:
    """The cluster under trial.

    Args:
        pods: What makes pods.
    """

    def __init__(self, pods: Pods) -> None:
        manifest = yaml.safe_load(resolve_path(MANIFEST).read_text(encoding="utf-8"))
        spec = manifest["spec"]["rayClusterConfig"]
        worker = spec["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
        told = {one["name"]: one["value"] for one in worker["env"] if "value" in one}
        # this machine's own models and packages stand for those of the image
        own = {name: os.environ[name] for name in OURS if name in os.environ}
        kept = {name: value for name, value in told.items() if name not in OURS}
        self._environment = {**kept, **own, "WAYPOST_ROOT": str(resolve_path("."))}
        probe = worker["readinessProbe"]
        self.service = Service(probe["periodSeconds"], probe["failureThreshold"])
        self._pods = pods
        self._kept: dict[str, tuple[Pod, Callable[[], None]]] = {}
        self.restarts = 0
        self.over = threading.Event()
        self._redis = pods.make("redis")
        self._password = secrets.token_hex(16)
        self.clusters: list[Cluster] = []
        self._start_redis()

    def _start_redis(self) -> None:
        words = ["redis-server", "--bind", "0.0.0.0", "--port", str(REDIS), "--appendonly", "yes"]  # noqa: S104 - in its own network
        words += ["--dir", str(self._pods.shared.parent), "--requirepass", self._password]
        self._keep(self._redis, words, {})

    def add(self) -> Cluster:
        """Start a cluster and its graph; return before it answers."""
        number = len(self.clusters)
        made = [self._pods.make(f"{role}{number}") for role in ("head", "one", "two")]
        cluster = Cluster(made[0], made[1:], secrets.token_hex(32), f"trial{number}")
        self.clusters.append(cluster)
        self.start_head(cluster)
        self.wait(lambda: self._ask_head(cluster, "/api/version") is not None, "the head answers")
        for worker in cluster.workers:
            self.start_worker(cluster, worker)
        self._deploy(cluster)
        return cluster

    def start_head(self, cluster: Cluster) -> None:
        """Start the head's pod."""
        own = {
            "RAY_REDIS_ADDRESS": f"redis://{self._redis.address}:{REDIS}",
            "REDIS_PASSWORD": self._password,
            "RAY_external_storage_namespace": cluster.space,
        }
        words = ["--head", f"--port={GCS}", "--num-cpus=0", "--dashboard-host=0.0.0.0"]
        words += [f"--dashboard-port={DASHBOARD}", f"--redis-password={self._password}"]
        words.append(f"--temp-dir={self._pods.shared}")
        self._start(cluster, cluster.head, words, own)

    def start_worker(self, cluster: Cluster, worker: Pod) -> None:
        """Start a worker's pod."""
        own = {"RAY_gcs_rpc_server_reconnect_timeout_s": "600"}  # as the operator sets it
        resources = json.dumps({"gateway": 1, "llm": 1})
        words = [f"--address={cluster.head.address}:{GCS}", "--num-cpus=4"]
        self._start(cluster, worker, [*words, f"--resources={resources}"], own)
        self.service.pods.setdefault(worker.address, 0)

    def _start(self, cluster: Cluster, pod: Pod, words: Sequence[str], own: dict[str, str]) -> None:
        ray = str(Path(sys.executable).with_name("ray"))
        ports = [f"--dashboard-agent-listen-port={AGENT}", f"--metrics-export-port={METRICS}"]
        limits = ["--object-store-memory=200000000", f"--node-ip-address={pod.address}"]
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": cluster.token}
        environment = self._environment | token | own
        self._keep(pod, [ray, "start", "--block", *ports, *limits, *words], environment)

    def _keep(self, pod: Pod, words: Sequence[str], environment: dict[str, str]) -> None:
        """Start a pod, and have it started again when it ends."""
        start = partial(self._pods.start, pod, words, environment)
        self._kept[pod.name] = pod, start
        start()

    async def keep(self) -> None:
        """Start pods that ended, as a kubelet does with their containers."""
        while True:
            await asyncio.sleep(RESTART_S)
            for pod, start in list(self._kept.values()):
                if pod.process is not None and pod.process.poll() is not None:
                    self.restarts += 1
                    start()

    def _end(self, pod: Pod) -> None:
        self._kept.pop(pod.name, None)
        self._pods.remove(pod)

    def wait(self, holds: Callable[[], object], what: str) -> None:
        """Wait until something holds.

        Raises:
            BenchError: It does not within `START_S`, or the trial is over.
        """
        end = time.monotonic() + START_S
        while not holds():
            if self.over.wait(POLL_S) or time.monotonic() > end:
                raise BenchError(f"not within {START_S:g} s: {what}")

    def is_whole(self) -> bool:
        """Return whether the head answers and every worker is ready."""
        cluster = self.clusters[-1]
        ready = {worker.address for worker in cluster.workers} <= set(self.service.ready)
        return ready and self._ask_head(cluster, "/api/serve/applications/") is not None

    def _deploy(self, cluster: Cluster) -> None:
        own = {"ray_actor_options": {"num_cpus": 0.1, "resources": {"llm": 0.4}}}
        pool = [
            {"name": name, "engine": "echo", "config": TALK, "num_replicas": 2, **own}
            for name in ("smollm2-135m", "qwen2.5-coder-0.5b")
        ]
        here = {"num_cpus": 0.1, "resources": {"gateway": 0.5}}
        args = {
            "artifact": str(resolve_path(ARTIFACT)),
            "router": {"placement": "inline"},
            "gateway": {"num_replicas": 2, "ray_actor_options": here},
            "pool": pool,
        }
        application = {"name": "waypost", "import_path": "waypost.serve.app:build", "args": args}
        http = {"host": "0.0.0.0", "port": SERVE}  # noqa: S104 - in its own network
        body = {"http_options": http, "applications": [application | {"route_prefix": "/"}]}
        said = self._ask_head(cluster, "/api/serve/applications/", json.dumps(body).encode())
        if said is None:
            raise BenchError("the head does not take the graph")

    def _ask_head(self, cluster: Cluster, path: str, body: bytes | None = None) -> bytes | None:
        url = f"http://{cluster.head.address}:{DASHBOARD}{path}"
        headers = {"authorization": f"Bearer {cluster.token}", "content-type": "application/json"}
        request = urllib.request.Request(
            url, body, headers, method="GET" if body is None else "PUT"
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310
                return bytes(reply.read())
        except urllib.error.HTTPError as error:
            if body is not None:
                raise BenchError(f"the head refuses the graph: {error.read()[:500]!r}") from None
        except OSError:
            pass
        return None

    # -- faults ---------------------------------------------------------------------------------

    def do(self, fault: Fault) -> None:
        """Cause a fault."""
        cluster = self.clusters[-1]
        worker = cluster.workers[0]
        if fault == "gateway":
            found = worker.processes("ray::ServeReplica:waypost:Gateway")
            if not found:
                raise BenchError("the worker has no gateway")
            os.kill(found[0], signal.SIGKILL)
        elif fault in ("worker", "head", "redis"):
            {"worker": worker, "head": cluster.head, "redis": self._redis}[fault].kill()
        elif fault == "drain":
            new = self._pods.make("three")
            cluster.workers.append(new)
            self.start_worker(cluster, new)
            # it is ready once a replica has moved to it
            self.wait(lambda: new.processes("ray::"), "the new worker runs")
            self._leave(cluster, worker)
        else:
            self._upgrade()

    def _leave(self, cluster: Cluster, worker: Pod) -> None:
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": cluster.token}
        words = [sys.executable, "-m", "waypost.serve.leave", "--within", str(LEAVE_S)]
        # a pod that ends leaves its Service at once, while its preStop hook runs
        self.service.pods.pop(worker.address, None)
        with suppress(ValueError):
            self.service.ready.remove(worker.address)
        environment = os.environ | self._environment | token
        subprocess.run(worker.command(words), env=environment, check=False, timeout=2 * LEAVE_S)
        cluster.workers.remove(worker)
        self._end(worker)

    def _upgrade(self) -> None:
        old = self.clusters[-1]
        new = self.add()
        addresses = {worker.address for worker in new.workers}
        self.wait(lambda: addresses <= set(self.service.ready), "the new cluster is ready")
        for worker in list(old.workers):
            self._leave(old, worker)
        self._end(old.head)
        self.clusters.remove(old)


def run(options: Options, tell: Tell) -> Result:
    """Start a cluster, and cause each fault under load.

    Returns:
        Figures: ``cells``, one for each fault: requests, bad ends by kind, seconds to heal.

    Raises:
        BenchError: This is not root, or the cluster does not start.
    """
    cells: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wpt")))
        pods = stack.enter_context(Pods(folder).network())
        trial = Trial(pods)
        tell("starting a head and two workers")
        asyncio.run(_trials(trial, options, tell, cells, failed))
    return Result([table(cells)], _facts(options), (), {"cells": cells}, failed)


async def _trials(
    trial: Trial,
    options: Options,
    tell: Tell,
    cells: list[dict[str, Any]],
    failed: dict[str, str],
) -> None:
    beside = [asyncio.create_task(trial.service.look()), asyncio.create_task(trial.keep())]
    try:
        await _each(trial, options, tell, cells, failed)
    finally:
        trial.over.set()  # threads that wait hold up the end
        for task in beside:
            task.cancel()


async def _each(
    trial: Trial,
    options: Options,
    tell: Tell,
    cells: list[dict[str, Any]],
    failed: dict[str, str],
) -> None:
    await asyncio.to_thread(trial.add)
    await asyncio.to_thread(trial.wait, trial.is_whole, "all pods are ready")
    for fault in options.fault:
        tell(fault)
        try:
            cells.append({"fault": fault, **await _cost(trial, fault, options.clients)})
        except BenchError as error:
            failed[fault] = str(error)


async def _cost(trial: Trial, fault: Fault, clients: int) -> dict[str, Any]:
    ended: list[Ended] = []
    timeout = aiohttp.ClientTimeout(total=HEAL_S)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        asking = [
            asyncio.create_task(ask_on(http, trial.service, ended, number % 2 == 1))
            for number in range(clients)
        ]
        try:
            while sum(one.kind == ANSWERED for one in ended) < 4 * clients:  # noqa: ASYNC110
                await asyncio.sleep(PAUSE_S)
            begin, before = time.monotonic(), trial.restarts
            doing = asyncio.create_task(asyncio.to_thread(trial.do, fault))
            while not (doing.done() and _calm(ended, begin)):
                await asyncio.sleep(PAUSE_S)
                if time.monotonic() > begin + START_S + HEAL_S:
                    raise BenchError(f"not every request is answered {HEAL_S:g} s later")
            doing.result()
            await asyncio.to_thread(trial.wait, trial.is_whole, "all pods are ready again")
            whole = time.monotonic() - begin
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
    after = [one for one in ended if one.end >= begin]
    bad = [one for one in after if one.kind != ANSWERED]
    healed = max((one.end for one in bad), default=begin) - begin
    counts = dict(Counter(one.kind for one in bad))
    restarts = trial.restarts - before
    told = {"healed_s": healed, "whole_s": whole, "restarts": restarts}
    return {"asked": len(after), "bad": counts, **told}


def _calm(ended: Sequence[Ended], begin: float) -> bool:
    last = max((one.end for one in ended if one.kind != ANSWERED), default=begin)
    return time.monotonic() > max(begin, last) + CALM_S and ended[-1].begin > last


def table(cells: Sequence[dict[str, Any]]) -> Table:
    """Return a row for each fault."""
    rows = [
        [
            WHAT[cell["fault"]],
            str(cell["asked"]),
            *(str(cell["bad"].get(kind, 0)) for kind in BAD),
            f"{cell['healed_s']:.1f}",
            f"{cell['whole_s']:.0f}",
        ]
        for cell in cells
    ]
    heads = ("what", "requests", *BAD, "all answered after, s", "all ready after, s")
    return Table("A cluster of pods on one machine", heads, rows)


def _facts(options: Options) -> str:
    return (
        f"{options.clients} clients, whole answers and streams in turns, answers of "
        f"{TALK['tokens']} tokens at {TALK['tokens_per_s']} a second, no retries. A head, two "
        "workers with a gateway and LLMs each, Redis; namespaces of one machine, not a real "
        "cluster: no kubelet, operator or scheduler. A pod that ends starts again within "
        f"{RESTART_S:g} s; *all ready* is at least the {CALM_S:g} s of calm."
    )
