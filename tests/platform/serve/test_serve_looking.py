"""What the gateway tells of itself: status, latest decisions, and the pages."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from support.gateway import ALGEBRA, COOKING, chat, echo_pool, running, unservable
from support.ingress import listening
from support.raw_http import read_reply
from waypost.serve.gateway.access import ClientKeys

CHAT = "/v1/chat/completions"
OWN = {"authorization": "Bearer canary-key"}


async def test_the_status_says_what_is_served_and_how_it_is(artifact, tmp_path) -> None:
    pool = [*echo_pool(tiny={"fail_with": "500"})[1:], unservable("cook")]
    async with running(artifact, pool=pool, feedback_dir=str(tmp_path)) as up:
        reply = await up.client.post(CHAT, chat(model="tiny"))
        assert reply.status == 502
        found = (await up.client.get("/v1/status")).json()
        assert found["routers"] == [{"name": "knnrouter", "default": True, "steps": False}]
        states = {one["name"]: one["state"] for one in found["models"]}
        assert states == {"prover": "ready", "tiny": "ready", "cook": "failed"}
        assert "no key" in found["failed"]["cook"]
        assert found["models"][0]["input_price"] == 1.0
        assert (found["status"], found["feedback"], found["chat"]) == ("ready", True, None)
        assert (found["route_on"], found["top_k"], found["lambda"]) == ("current_only", 3, 0.0)


async def test_the_latest_decisions_come_newest_first_without_a_text(artifact, tmp_path) -> None:
    pool = echo_pool(cook={"fail_with": "500"})
    async with running(artifact, pool=pool) as up:
        await up.client.post(CHAT, chat(ALGEBRA))
        await up.client.post(CHAT, chat(COOKING))
        await up.client.post("/v1/route", {"query": COOKING})
        reply = await up.client.get("/v1/decisions")
        asked, failed_over, first = reply.json()["decisions"]
        assert (asked["chosen"], asked["answered"], asked["attempts"]) == ("cook", None, 0)
        assert failed_over["chosen"] == "cook"
        assert failed_over["answered"] in {"prover", "tiny"}
        assert failed_over["failed"] == ["cook"]
        assert first["answered"] == "prover"
        assert first["cost_usd"] > 0
        assert first["seconds"] > 0
        assert COOKING.encode() not in reply.body
        assert ALGEBRA.encode() not in reply.body
    async with running(artifact, log_queries=True, feedback_dir=str(tmp_path)) as up:
        await up.client.post(CHAT, chat(COOKING))
        (told,) = (await up.client.get("/v1/decisions")).json()["decisions"]
        assert told["text"] == COOKING[:160]


async def test_no_more_than_the_latest_decisions_are_kept(artifact) -> None:
    async with running(artifact) as up:
        for _ in range(201):
            await up.client.post("/v1/route", {"query": COOKING})
        assert len((await up.client.get("/v1/decisions")).json()["decisions"]) == 200


async def test_the_pages_are_open_and_what_they_show_asks_for_a_key(artifact) -> None:
    async with running(artifact, keys=ClientKeys(["canary-key"])) as up:
        for page in ("/", "/docs"):
            assert (await up.client.get(page)).status == 200
        for data in ("/v1/status", "/v1/decisions"):
            assert (await up.client.get(data)).status == 401
            assert (await up.client.get(data, **OWN)).status == 200


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_page_runs_its_own_script_only_and_loads_nothing_from_elsewhere(
    artifact, path
) -> None:
    async with running(artifact) as up:
        reply = await up.client.get(path)
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    policy, text = reply.headers["content-security-policy"], reply.body.decode()
    assert "default-src 'none'" in policy
    for tag in ("script", "style"):
        (body,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "//" not in re.sub(r"<script>.*?</script>", "", text, flags=re.S)
    assert "{{" not in text
    for unsafe in ("innerHTML", "eval(", "style=", "onclick", "http:"):
        assert unsafe not in text


async def test_the_policy_of_a_page_reaches_the_browser_whole(artifact) -> None:
    async with running(artifact) as up:
        assert (
            "frame-ancestors 'none'"
            in (await up.client.get("/")).headers["content-security-policy"]
        )


async def test_below_a_prefix_the_page_is_at_its_root_and_nowhere_else(artifact) -> None:
    async with listening(artifact, prefix="/waypost") as there:
        for path, status in (("/waypost", 200), ("/waypost/", 200), ("/", 404), ("/other", 404)):
            reader, writer = await there.connect()
            writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
            assert (await read_reply(reader)).status == status
            writer.close()
