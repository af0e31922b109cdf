"""The CPU bench: the gateway alone in a process, and from measurements to a table."""

from __future__ import annotations

import json

import pytest

from waypost.bench import _cpu, cpu
from waypost.bench._processes import fetch, upstream
from waypost.bench._targets import ARTIFACT, Scene
from waypost.bench._upstream import PATH, TOKEN, chat
from waypost.config import resolve_path


@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_the_gateway_alone_answers_through_the_router_and_uses_cpu(tmp_path):
    with upstream("--tokens", "3") as port:
        scene = Scene(port, resolve_path(ARTIFACT), tmp_path)
        with _cpu.alone(scene) as server:
            before = _cpu.cpu_s(server.pid)
            for _ in range(20):
                asked = chat("auto", "How many lamps are there?", stream=False)
                status, body = fetch(server.endpoint.port, "POST", PATH, asked)
            spent = _cpu.cpu_s(server.pid) - before
    assert status == 200
    answer = json.loads(body)
    assert answer["choices"][0]["message"]["content"] == TOKEN * 3
    assert answer["usage"]["waypost"]["router"] == "knnrouter"
    assert 0 < spent < 60


def test_a_row_for_each_server_and_a_column_for_each_kind():
    spread = {"median": 512.0, "least": 500.0, "most": 530.0}
    cells = [
        {"server": name, "stream": stream, "concurrency": 64, "cpu_us": spread}
        for stream in (False, True)
        for name in (cpu.HERE, cpu.FORWARDER)
    ]
    table = _cpu.table(cells)
    assert list(table.heads) == ["server", "whole, 64 in flight", "streams, 64 in flight"]
    assert [row[0] for row in table.rows] == [cpu.HERE, cpu.FORWARDER]
    assert all("512" in cell for row in table.rows for cell in row[1:])
