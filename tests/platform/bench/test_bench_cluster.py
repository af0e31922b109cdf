"""The parts of the trial of a cluster that need no pods: ends of requests, readiness, the table."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from waypost.bench import _service, cluster
from waypost.bench._pods import Pods
from waypost.bench.harness import BenchError

DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("status", "text", "stream", "kind"),
    [
        (200, b"{}", False, "answered"),
        (503, b"{}", False, "error status"),
        (200, b"data: {}\n\n" + DONE, True, "answered"),
        (200, b"data: {}\n\n", True, "stream: cut"),
        (200, b'data: {"error": {}}\n\n' + DONE, True, "stream: error event"),
        (200, b'data: {"error": {}}\n\n', True, "stream: error event"),
    ],
)
def test_the_ends_of_requests(status: int, text: bytes, stream: bool, kind: str) -> None:
    assert _service.kind_of(status, text, stream) == kind


async def test_a_pod_takes_requests_while_its_probe_succeeds(monkeypatch) -> None:
    told = {"status": 503}

    async def ready(request: web.Request) -> web.Response:
        return web.Response(status=told["status"])

    app = web.Application()
    app.router.add_get("/readyz", ready)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    monkeypatch.setattr(_service, "SERVE", runner.addresses[0][1])
    service = _service.Service(0.02, 2, {"127.0.0.1": 0})
    looking = asyncio.create_task(service.look())

    async def until(found: list[str]) -> None:
        async with asyncio.timeout(10):
            while service.ready != found:
                await asyncio.sleep(0.01)

    await asyncio.sleep(0.1)
    assert service.ready == []
    for status, found in ((200, ["127.0.0.1"]), (503, []), (200, ["127.0.0.1"])):
        told["status"] = status
        await until(found)
    looking.cancel()
    await runner.cleanup()


def test_a_row_has_what_was_lost_and_how_long() -> None:
    cell = {"fault": "head", "asked": 9, "bad": {"refused": 2}, "healed_s": 1.5, "whole_s": 30.2}
    (row,) = cluster.table([cell]).rows
    assert row == ["the head pod is killed", "9", "0", "0", "0", "0", "2", "1.5", "30"]


def test_pods_need_root_and_programs(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(BenchError, match="need root"), Pods(tmp_path).network():
        pass
