"""A CronJob starts a copy of a RayJob: against an API server over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from support.manifests import of_kind, rendered
from waypost.contracts.errors import JobError
from waypost.jobs import again

PATH = "/apis/ray.io/v1/namespaces/waypost/rayjobs"


class Server(ThreadingHTTPServer):
    """What of Kubernetes' API is about RayJobs of one namespace.

    Attributes:
        jobs: The RayJobs by name.
    """

    def __init__(self, jobs: dict[str, Any]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.jobs = jobs


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def _reply(self, status: int, body: Any) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def _refused(self) -> bool:
        if self.headers["authorization"] == "Bearer right":
            return False
        self._reply(403, {"kind": "Status", "message": "rayjobs.ray.io is forbidden"})
        return True

    def do_GET(self) -> None:
        if self._refused():
            return
        path, _, query = self.path.partition("?")
        if path == PATH:
            name, value = query.removeprefix("labelSelector=").split("%3D")
            jobs = self.server.jobs.values()
            found = [j for j in jobs if j["metadata"].get("labels", {}).get(name) == value]
            self._reply(200, {"items": found})
        elif (name := path.removeprefix(f"{PATH}/")) in self.server.jobs:
            self._reply(200, self.server.jobs[name])
        else:
            self._reply(404, {"kind": "Status", "message": f'rayjobs.ray.io "{name}" not found'})

    def do_POST(self) -> None:
        if self._refused():
            return
        job = json.loads(self.rfile.read(int(self.headers["content-length"])))
        job["metadata"]["name"] = f"{job['metadata'].pop('generateName')}{len(self.server.jobs)}"
        self.server.jobs[job["metadata"]["name"]] = job
        self._reply(201, job)


@contextmanager
def serving(jobs: dict[str, Any], token: str = "right") -> Iterator[again.Api]:
    with Server(jobs) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield again.Api(f"http://127.0.0.1:{server.server_port}", "waypost", token)
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def pattern() -> dict[str, Any]:
    """The RayJob of overlay jobs, as the server has it."""
    (job,) = [j for j in of_kind(rendered("jobs"), "RayJob") if "retrain" in j["metadata"]["name"]]
    job["metadata"] |= {"uid": "1", "resourceVersion": "7"}
    job["status"] = {"jobDeploymentStatus": "Suspended"}
    return job


def test_a_copy_starts_and_the_pattern_stays(pattern: dict[str, Any]) -> None:
    jobs = {"waypost-retrain": pattern}
    with serving(jobs) as api:
        assert again.start_again(api, "waypost-retrain") == "waypost-retrain-1 is started"
    made = jobs["waypost-retrain-1"]
    assert made["spec"] == {**pattern["spec"], "suspend": False}
    assert pattern["spec"]["suspend"] is True
    assert made["metadata"]["labels"][again.OF] == "waypost-retrain"
    assert made["metadata"]["labels"]["app.kubernetes.io/part-of"] == "waypost"
    assert not {"uid", "resourceVersion"} & set(made["metadata"])
    assert "status" not in made


@pytest.mark.parametrize("state", ["Running", "Initializing", ""])
def test_nothing_starts_while_a_copy_runs(pattern: dict[str, Any], state: str) -> None:
    jobs = {"waypost-retrain": pattern}
    with serving(jobs) as api:
        again.start_again(api, "waypost-retrain")
        jobs["waypost-retrain-1"]["status"] = {"jobDeploymentStatus": state}
        said = again.start_again(api, "waypost-retrain")
        assert said.startswith("waypost-retrain-1 still runs")
        assert len(jobs) == 2
        jobs["waypost-retrain-1"]["status"] = {"jobDeploymentStatus": "Complete"}
        assert again.start_again(api, "waypost-retrain") == "waypost-retrain-2 is started"


def test_what_the_server_says_is_told(pattern: dict[str, Any]) -> None:
    with serving({}) as api, pytest.raises(JobError, match=r'404: .* "gone" not found'):
        again.start_again(api, "gone")
    with (
        serving({"waypost-retrain": pattern}, token="wrong") as api,
        pytest.raises(JobError, match=r"403: rayjobs.ray.io is forbidden") as refused,
    ):
        again.start_again(api, "waypost-retrain")
    assert "wrong" not in str(refused.value)
    with pytest.raises(JobError, match="refused"):
        again.start_again(again.Api("http://127.0.0.1:1", "waypost", "t"), "waypost-retrain")


def test_a_pod_knows_its_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t\n")
    (tmp_path / "namespace").write_text("waypost")
    for host, shown in (("10.96.0.1", "10.96.0.1"), ("fd00::1", "[fd00::1]")):
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
        api = again.Api.of_pod(tmp_path)
        assert api == again.Api(f"https://{shown}:443", "waypost", "t", tmp_path / "ca.crt")
    (tmp_path / "token").unlink()
    with pytest.raises(JobError, match="the pod's account has no token here"):
        again.Api.of_pod(tmp_path)


def test_outside_of_a_pod_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert again.main(["waypost-retrain"]) == 1
    assert "run this in a pod" in capsys.readouterr().err
    assert again.main([]) == 2
