"""Through how many of our files a request passes."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from pathlib import Path

import pytest

from support import tracing
from support.gateway import ALGEBRA, COOKING, chat, knn_artifact, running
from support.served import application, served

MOST_FILES = 44
"""Files that one warm, whole `auto` request may pass through."""

MOST_DEPLOYED = 49
"""The same where router and LLM are deployments: the node and what crosses to it come in."""

TESTS = Path(__file__).parents[2]


async def test_a_request_through_a_gateway_with_all_inline(tmp_path):
    seen: tracing.Seen = {}
    async with running(knn_artifact(tmp_path / "artifact")) as up:
        for _ in range(2):
            await up.client.post("/v1/chat/completions", chat(ALGEBRA))
        tracing.record(seen)
        try:
            reply = await up.client.post("/v1/chat/completions", chat(COOKING))
        finally:
            tracing.stop()
    assert reply.status == 200
    assert "waypost/contracts/policy.py" in seen, sorted(seen)
    assert len(seen) <= MOST_FILES, "\n".join(sorted(seen))


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_request_through_deployments(tmp_path):
    notes, site = tmp_path / "notes", tmp_path / "site"
    notes.mkdir()
    site.mkdir()
    begin = f"from support.tracing import record_into\nrecord_into({str(notes)!r})\n"
    (site / "sitecustomize.py").write_text(begin)
    path = os.pathsep.join([str(site), str(TESTS), os.environ.get("PYTHONPATH", "")])
    environment = {"env_vars": {"PYTHONPATH": path.rstrip(os.pathsep)}}
    own = {"ray_actor_options": {"runtime_env": environment}}  # in place of the application's
    pool = [{"name": name, "engine": "echo", **own} for name in ("cook", "prover")]
    pool.append({"name": "tiny", "engine": "echo", "placement": "inline"})  # is not asked
    app = application("way", knn_artifact(tmp_path / "artifact"), pool)
    app["runtime_env"] = environment
    with served({"applications": [app]}, tmp_path) as url:
        for _ in range(3):
            assert _asked(url, ALGEBRA) == 200
        time.sleep(2 * tracing.APART_S)
        begin_s = time.time()
        assert _asked(url, COOKING) == 200
        end_s = time.time()
        seen: set[str] = set()
        while "waypost/engines/echo.py" not in seen and time.time() < end_s + 60:
            time.sleep(2 * tracing.EVERY_S)  # until each process has written down what it ran
            seen = _between(notes, begin_s, end_s)
    assert {"waypost/contracts/policy.py", "waypost/engines/echo.py"} <= seen, "\n".join(
        sorted(seen)
    )
    assert len(seen) <= MOST_DEPLOYED, "\n".join(sorted(seen))


def _between(notes: Path, begin_s: float, end_s: float) -> set[str]:
    found = [json.loads(file.read_text()) for file in notes.glob("*.json")]
    return {
        name
        for each in found
        for name, times in each.items()
        if any(begin_s <= at <= end_s for at in times)
    }


def _asked(url: str, text: str) -> int:
    body = json.dumps(chat(text)).encode()
    request = urllib.request.Request(f"{url}/way/v1/chat/completions", data=body)
    with urllib.request.urlopen(request, timeout=120) as reply:
        return reply.status
