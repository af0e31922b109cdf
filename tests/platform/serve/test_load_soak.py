"""Many requests of every kind, and what the processes of the graph hold after each batch.

3,000 requests in CI. ``WAYPOST_SOAK_REQUESTS=30000 make test TIERS=ray`` or, with the figures::

    WAYPOST_SOAK_REQUESTS=30000 pytest tests/platform/serve/test_load_soak.py \\
        -o log_cli_level=INFO -o log_cli=true -o timeout=3600
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from support import processes
from support.fake_upstream import FakeUpstream, Reply
from support.gateway import COOKING, knn_artifact
from support.load import Ask, Load, planted_asks
from support.load_graph import gauges
from support.served import application, served
from support.slopes import slope

pytestmark = [
    pytest.mark.ray,
    pytest.mark.asyncio(loop_scope="module"),
    # Ray leaves sockets and log files of its own to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

logger = logging.getLogger(__name__)

REQUESTS = int(os.environ.get("WAYPOST_SOAK_REQUESTS", "3000"))
BATCHES = 15
WARM_UP = 5
"""Batches after which memory is at its level: pools filled, modules imported, decisions kept."""

MOST_MB = 0.5 if REQUESTS >= 20_000 else 3.0
"""A process that has certainly grown by more than this for 1,000 requests has a leak. Over their
first thousands Ray's processes fill buffers of their own, by about 1 MB for 1,000; of 30,000
requests the last 20,000 show -0.2 to +0.4 MB."""

DEPLOYMENTS = ("Gateway", "Router", "cook", "prover")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def upstream():
    async with FakeUpstream(Reply(token_s=0.01)) as server:
        yield server


@pytest.fixture(scope="module")
def url(upstream, tmp_path_factory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("soak")
    remote = {"base_url": upstream.url, "model": "m", "max_retries": 0}
    pool = [
        {"name": "cook", "engine": "echo"},
        {"name": "prover", "engine": "echo"},
        {"name": "tiny", "engine": "openai", "placement": "inline", "config": remote},
    ]
    # what is remembered for feedback is full after the warm-up
    remember = max(1, REQUESTS // BATCHES * WARM_UP // 2)
    artifact = knn_artifact(folder / "artifact")
    graph = {"applications": [application("soak", artifact, pool, remember_decisions=remember)]}
    with served(graph, folder, throughput=True) as found:
        yield f"{found}/soak"


async def batch(url: str, count: int) -> Counter[str]:
    """Send requests of every kind: routed, pinned, refused, and clients that leave."""
    asks = [*planted_asks(["tiny"]), Ask("nobody")]
    long = [Ask("tiny", " ".join([COOKING] * 9), stream=stream) for stream in (False, True)]
    leaving = count // 20
    async with (
        Load(f"{url}/v1", asks, workers=24, total=count - leaving) as load,
        Load(f"{url}/v1", long, workers=4, total=leaving, timeout_s=0.3) as leavers,
    ):
        await load.ended()
        await leavers.ended()
    assert {sample.ask.model for sample in load.failed} == {"nobody"}
    return Counter(sample.end for sample in (*load.samples, *leavers.samples))


@pytest.mark.long
@pytest.mark.timeout(max(300, REQUESTS // 10))
async def test_nothing_grows(url, upstream):
    size = REQUESTS // BATCHES
    pids = {name: processes.replicas("soak", name)[0] for name in DEPLOYMENTS}
    held: dict[str, list[processes.Usage]] = {name: [] for name in DEPLOYMENTS}
    tasks, ends = [], Counter[str]()
    for _ in range(BATCHES):
        ends += await batch(url, size)
        for name, pid in pids.items():
            held[name].append(processes.usage(pid))
        state = await gauges(url)
        assert (state["waypost_requests_in_flight"], state["waypost_requests_queued"]) == (0, 0)
        tasks.append(state["waypost_event_loop_tasks"])
    logger.info("%d requests: %s", REQUESTS, dict(ends))
    thousands = [size * (number + 1) / 1000 for number in range(BATCHES)][WARM_UP:]
    for name, usages in held.items():
        late = usages[WARM_UP:]
        memory = slope(thousands, [usage.rss_mb for usage in late])
        logger.info(
            "%s: %.1f MB after the warm-up, %s MB for 1,000 requests; files %s, sockets %s",
            name,
            late[0].rss_mb,
            memory,
            [usage.files for usage in late],
            [usage.sockets for usage in late],
        )
        assert memory.least < MOST_MB
        # one for each of the generator's and the upstream's connections comes and goes
        assert late[-1].files <= late[0].files + 8
        assert late[-1].sockets <= late[0].sockets + 8
        assert late[-1].threads <= late[0].threads + 4
    logger.info("tasks of the gateway: %s", tasks)
    assert tasks[-1] <= tasks[WARM_UP] + 4
    assert upstream.active == 0
    assert ends["late"] > 0
    assert {"whole", "done", "refused"} <= set(ends)
