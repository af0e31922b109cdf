"""The bench of kills, on a small server in this process; no Ray."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from support.served import free_port
from waypost.bench import faults
from waypost.bench.harness import BenchError

HEAD = b"HTTP/1.1 %d Said\r\ncontent-length: 2\r\n%s\r\n{}"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name in ("CALM_S", "LLM_S"):
        monkeypatch.setattr(faults, name, 0.15)
    monkeypatch.setattr(faults, "PAUSE_S", 0.01)
    monkeypatch.setattr(faults, "WITHIN_S", 30.0)


class Small:
    """A server that says what `said` is, and drops all where that is None."""

    def __init__(self) -> None:
        self.said: bytes | None = HEAD % (200, b"")
        self.port = free_port()
        self._ended: list[asyncio.Future[None]] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended.append(ended)
        try:
            while self.said is not None:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                await asyncio.sleep(0.01)
                if self.said is not None:
                    writer.write(self.said)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()
        await asyncio.sleep(0)  # its transport closes in the next turn
        ended.set_result(None)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        async with await asyncio.start_server(self._serve, "127.0.0.1", self.port):
            yield f"http://127.0.0.1:{self.port}"
        await asyncio.gather(*self._ended)

    def say(self, said: bytes | None, for_s: float) -> int:
        before, self.said = self.said, said
        asyncio.get_running_loop().call_later(for_s, setattr, self, "said", before)
        return 1


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (None, "open: cut or lost"),
        (HEAD % (503, b"retry-after: 1\r\n"), "503 with Retry-After"),
        (HEAD % (500, b""), "other error"),
    ],
)
async def test_bad_answers_are_counted_until_all_is_well_again(said, kind):
    server = Small()
    async with server.running() as url:
        found = await faults.cost(url, 3, lambda: server.say(said, 0.3))
    assert set(found.bad) == {kind}
    assert found.bad[kind] >= 3
    assert 0.2 < found.healed_s < 20
    assert found.asked > found.bad[kind]


async def test_a_fault_that_nobody_feels_costs_nothing():
    server = Small()
    async with server.running() as url:
        found = await faults.cost(url, 3, lambda: 1)
    assert (found.bad, found.healed_s) == ({}, 0.0) or found.healed_s > 0.3  # a busy machine


async def test_where_nothing_is_to_be_killed_there_is_no_figure():
    server = Small()
    async with server.running() as url:
        with pytest.raises(BenchError, match="no process"):
            await faults.cost(url, 1, lambda: 0)


def test_descendants_are_killed_by_how_their_command_lines_begin():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    inner = "import time; time.sleep(60)"
    outer = subprocess.Popen([sys.executable, "-c", code, inner])
    title = f"{sys.executable} -c {inner}"
    try:
        while not faults.kill(os.getpid(), title):
            pass
        assert outer.wait(30) == 0  # it goes on once its own child has ended
        assert faults.kill(os.getpid(), title) == 0
    finally:
        if outer.poll() is None:
            outer.send_signal(signal.SIGKILL)
            outer.wait()


def test_a_row_for_each_mode_and_fault():
    kills = [
        {"asked": 90, "bad": {"open: cut or lost": 4}, "healed_s": 1.0},
        {"asked": 80, "bad": {"refused": 7, "open: cut or lost": 2}, "healed_s": 2.0},
    ]
    found = faults.table([{"mode": "direct", "fault": "gateway", "kills": kills}])
    assert list(found.rows) == [["gateway, direct", "170", "6", "0", "0", "7", "1.5 / 2.0"]]
