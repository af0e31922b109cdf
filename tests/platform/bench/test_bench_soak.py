"""The soak of the gateway bench: its requests, and from memory to growth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import islice

import pytest

from waypost.bench import _soak as soak
from waypost.bench._http1 import Endpoint, Wire
from waypost.bench._upstream import TOKEN, listen
from waypost.bench.harness import BenchError, Tell


def held(*values: float) -> list[soak.Held]:
    return [soak.Held(1000 * (n + 1), value, value / 2) for n, value in enumerate(values)]


def test_growth_is_the_last_fifth_over_the_second():
    # the first fifth is a warm-up and does not count
    found = soak.growth(held(10, 20, 100, 100, 100, 100, 100, 100, 110, 110))
    rss = found["rss"]
    assert (rss["second_fifth_mb"], rss["last_fifth_mb"]) == (100, 110)
    assert rss["ratio"] == found["pss"]["ratio"] == pytest.approx(1.1)


def test_the_slope_is_for_1000_requests_behind_the_warm_up():
    found = soak.growth(held(500, 0, *(200 + 0.25 * n for n in range(8))))
    assert found["rss"]["kb_per_1000"] == pytest.approx(250)
    assert found["pss"]["kb_per_1000"] == pytest.approx(125)
    assert soak.growth(held(*[300.0] * 10))["rss"]["kb_per_1000"] == pytest.approx(0)


def test_fifths_need_ten_samples():
    with pytest.raises(BenchError, match="9 samples"):
        soak.growth(held(*[1.0] * 9))


def test_long_prompts_and_bodies_are_among_the_requests():
    asked = list(islice(soak.bodies("auto", 0), 2 * soak.BODY_EVERY))
    sizes = [len(body) for body, _ in asked]
    assert sizes.count(soak.LONG_BODY) == max(sizes) // soak.LONG_BODY * 2 == 2
    prompts = [size for size in sizes if soak.LONG_PROMPT <= size < soak.LONG_BODY]
    assert len(prompts) == 2 * soak.BODY_EVERY // soak.PROMPT_EVERY
    assert sum(stream for _, stream in asked) == pytest.approx(len(asked) / 2, rel=0.02)
    for kind in (soak.LONG_BODY, max(prompts)):
        same = [(body, stream) for body, stream in asked if abs(len(body) - kind) < 100]
        assert {stream for _, stream in same} == {True, False}
        body, stream = same[0]
        read = json.loads(body)
        assert read["stream"] is stream
        assert read["messages"][-1]["role"] == "user"


async def test_requests_are_counted_and_memory_is_read_meanwhile():
    seen = []
    tell = Tell(bar=lambda done, total, what="": seen.append((done, total)))
    async with await listen([TOKEN] * 3) as server:
        endpoint = Endpoint(server.sockets[0].getsockname()[1], "echo")
        found = []
        load = soak._Load(soak.bodies("echo", 0), 200, os.getpid(), found, tell)
        assert await load.run([Wire(endpoint) for _ in range(4)]) == 0
    assert [one.requests for one in found] == list(range(2, 201, 2))
    assert all(one.rss_mb >= one.pss_mb > 1 for one in found)
    assert seen[-1] == (200, 200)


def test_the_result_holds_growth_and_errors_as_aims():
    flat, grown = soak.growth(held(*[300.0] * 10)), soak.growth(held(*range(100, 200, 10)))
    figures = {"inline/direct": {"errors": 0, **flat}, "inline/serve": {"errors": 2, **grown}}
    (table,) = soak._tables(figures)
    assert table.rows[0] == ["inline/direct", "RSS", "300", "300", "1.000", "+0.0"]
    assert [row[0] for row in table.rows] == ["inline/direct"] * 2 + ["inline/serve"] * 2
    aims = list(soak._aims(figures))
    assert [aim.reached for aim in aims] == [True, True, True, False, False, False]


async def test_a_replica_that_ends_leaves_what_was_read_of_it():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as replica:
        found = []

        def end(done, total, what=""):
            if len(found) == 3:
                replica.kill()
                replica.wait()

        async with await listen([TOKEN] * 3) as server:
            endpoint = Endpoint(server.sockets[0].getsockname()[1], "echo")
            asked = soak.bodies("echo", 0)
            load = soak._Load(asked, 200, replica.pid, found, Tell(bar=end))
            with pytest.raises(BenchError, match="replica ended"):
                await load.run([Wire(endpoint)])
    assert [one.requests for one in found] == [2, 4, 6]
