"""Jobs on a real head with ports and a token of its own: run, killed midway, gone on with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from support.counting_upstream import counting_upstream
from support.ray_head import RayHead, ray_head
from waypost import load_router
from waypost.contracts.errors import JobError
from waypost.jobs import client as jobs

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

N = 160
IN_FLIGHT = 8
QUICK_S, SLOW_S = 0.1, 5.0


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    folder = Path(tempfile.mkdtemp(prefix="wp-"))  # Ray's sockets need a short path
    try:
        with ray_head(folder) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def here(head: RayHead, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be a client of the head."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.setenv(name, head.environment[name])


def start(head: RayHead, *words: str, cwd: Path, options: tuple[str, ...] = ()):
    call = [sys.executable, "-m", "waypost.cli", "submit", "--ship", "nothing", *options]
    return subprocess.Popen(
        [*call, "--", "waypost", *words], cwd=cwd, env=head.environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def end(process) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=180)
    return process.returncode, out, err


def wait(for_: Callable[[], object], process, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not for_():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def write_run(folder: Path, url: str) -> list[str]:
    """Write a data run and return the command that makes it."""
    kinds = [("Which number has question {} in mind?", "7"), ("{}: how many sides?", "3")]
    questions = [
        {"query_id": f"q{i}", "task_name": "sums", "query": text.format(i), "metric": "number",
         "ground_truth": truth, "max_tokens": 8}
        for i in range(N) for text, truth in [kinds[i % 2]]
    ]  # fmt: skip
    (folder / "mine.jsonl").write_text("\n".join(map(json.dumps, questions)))
    llm = {"engine": "openai", "concurrency": IN_FLIGHT, "input_price": 1, "output_price": 1,
           "config": {"base_url": url, "model": "m"}}  # fmt: skip
    free = {"engine": "echo", "config": {"text": "It is 3"}, "input_price": 0, "output_price": 0}
    config = {
        "out": f"{folder}/data",
        "questions": ["mine.jsonl"],
        "encoder": {"kind": "hashing", "dimension": 32},
        "llms": {"seven": llm, "three": free},
    }
    (folder / "data.yaml").write_text(yaml.safe_dump(config))
    return ["data", "run", "--config", "data.yaml"]


@pytest.fixture(scope="module")
def data(head: RayHead, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Routing data that a job made: stopped, submitted again, and with a worker killed."""
    folder = tmp_path_factory.mktemp("run")
    with counting_upstream(QUICK_S) as upstream:
        words = write_run(folder, upstream.url)
        first = start(head, *words, cwd=folder, options=("--stop-on-interrupt",))
        wait(lambda: len(upstream.calls) > 40, first)
        upstream.delay_s = SLOW_S  # it cannot end before it is stopped
        first.send_signal(signal.SIGINT)
        code, _, said = end(first)
        assert code == 130, said
        assert "is stopped" in said
        asked = len(upstream.calls)
        assert asked < N

        upstream.delay_s = QUICK_S
        again = start(head, *words, cwd=folder)
        wait(lambda: len(upstream.calls) > asked + 10, again)
        upstream.delay_s = SLOW_S
        watching = start(head, *words, cwd=folder)
        assert "-2 is running already" in watching.stderr.readline()
        killed = head.workers("CallWorker")
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        assert killed
        upstream.delay_s = QUICK_S
        watching.send_signal(signal.SIGINT)
        code, _, said = end(watching)
        assert code == 130, said
        assert "-2 goes on; run the same command to follow it again" in said
        code, out, said = end(again)
        assert code == 0, f"{out}\n{said}"
        assert "stopped; the same command goes on" in said
        assert "wrote " in out
        assert len(upstream.calls) <= N + 2 * IN_FLIGHT
    return folder / "data"


def test_a_data_run_stopped_and_killed_is_whole(data: Path) -> None:
    rows = pq.read_table(data / "routing_train.parquet").to_pylist()
    rows += pq.read_table(data / "routing_test.parquet").to_pylist()
    assert len(rows) == len({(row["query_id"], row["model_name"]) for row in rows}) == 2 * N
    assert all(row["response"] for row in rows)


def test_train_as_a_job_with_the_package_along(head: RayHead, data: Path, tmp_path: Path) -> None:
    words = ["train", "--router", "knnrouter", "--encoder", "hashing", "--folds", "0"]
    place = ["--data", f"file://{data}", "--out", f"file://{tmp_path}/knn"]
    job = start(head, *words, *place, cwd=tmp_path, options=("--ship", "package"))
    code, out, said = end(job)
    assert code == 0, f"{out}\n{said}"
    assert f"-> {tmp_path}/knn" in out
    assert load_router(tmp_path / "knn").name == "knnrouter"


def test_a_sweep_with_a_worker_killed_measures_every_trial(
    head: RayHead, data: Path, root: Path, tmp_path: Path
) -> None:
    trials = 60
    shutil.copy(root / "tune_configs" / "knnrouter.yaml", tmp_path)
    words = [
        "tune",
        "--config",
        "knnrouter.yaml",
        "--encoder",
        "hashing",
        f"budget.trials={trials}",
    ]
    place = ["--data", str(data), "--out", f"file://{tmp_path}/sweep"]
    job = start(head, *words, *place, cwd=tmp_path)
    journal = tmp_path / "sweep" / "trials.jsonl"
    wait(lambda: journal.is_file() and len(journal.read_text().splitlines()) > 3, job)
    killed = head.workers("ImplicitFunc")
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    assert killed
    code, out, said = end(job)
    assert code == 0, f"{out}\n{said}"
    report = json.loads((tmp_path / "sweep" / "report.json").read_text())
    assert (report["trials"]["tried"], report["trials"]["failed"]) == (trials, 0)
    assert load_router(tmp_path / "sweep" / "best").name == "knnrouter"


def test_the_exit_code_and_what_the_cluster_has(head: RayHead, tmp_path: Path) -> None:
    words = ["train", "--router", "no-such-router", "--data", str(tmp_path), "--out", "/nowhere"]
    job = start(head, *words, cwd=tmp_path, options=("--ship", "auto"))
    code, out, said = end(job)
    assert code == 2, f"{out}\n{said}"
    assert "no-such-router" in out
    assert "Traceback" not in out + said
    assert "packages" not in said  # this environment has all of them


# Ray's client calls aiohttp so.
@pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")
def test_without_waiting_the_job_goes_on_and_can_be_followed(head, here, tmp_path) -> None:
    code, out, _ = end(start(head, "list-routers", cwd=tmp_path, options=("--no-wait",)))
    assert code == 0
    seen: list[str] = []
    assert jobs.follow(jobs.connect(head.address), out.strip(), seen.append) == 0
    assert "knnrouter" in "".join(seen)


def test_a_wrong_token_and_a_wrong_address_are_said(head: RayHead, tmp_path: Path) -> None:
    call = [sys.executable, "-m", "waypost.cli", "submit", "--", "waypost", "list-routers"]
    for change, says in (
        ({"RAY_AUTH_TOKEN": "x" * 32}, "refuses the token; set RAY_AUTH_TOKEN"),
        ({"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"}, "no Ray head answers there"),
    ):
        env = {**head.environment, **change}
        done = subprocess.run(call, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 1
        assert says in done.stderr
        assert "x" * 32 not in done.stderr + done.stdout
        assert "Traceback" not in done.stderr


def test_a_job_that_is_not_there_is_said(head: RayHead, here) -> None:
    with pytest.raises(JobError, match="does not exist"):
        jobs.stop(jobs.connect(head.address), "waypost-none-1")
