"""A pool's answers are recorded once and survive a kill."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.r1_world import ScriptedPool, question
from waypost.contracts.errors import StorageAccessError
from waypost_rl.training.parts import Ask, Reply
from waypost_rl.training.recorded import RecordedPool


def ask(query: str = "What is a roast?", candidate: str = "cook", key: str = "q1") -> Ask:
    return Ask(candidate, query, question(key=key))


async def test_an_answer_is_asked_once_and_found_again(tmp_path):
    path = tmp_path / "folder" / "answers.jsonl"
    inner = ScriptedPool()
    pool = RecordedPool(inner, path)
    first = await pool.ask(ask())
    again = await pool.ask(ask(key="q2"))  # the question of the episode does not matter
    assert (first, again) == (Reply("cook says", 10, 5), Reply("cook says", 10, 5, cached=True))
    await pool.ask(ask(candidate="prover"))
    await pool.ask(ask("what is a roast?"))
    await pool.ask(ask("\ud800 \u2028\n\x00"))  # a lone surrogate, separators
    assert len(inner.asks) == len(pool) == 4
    await pool.close()
    later = ScriptedPool()
    found = RecordedPool(later, path)
    assert await found.ask(ask("\ud800 \u2028\n\x00")) == again
    assert await found.ask(ask(candidate="prover")) == Reply("prover says", 10, 5, cached=True)
    assert later.asks == []
    await found.close()


async def test_other_settings_are_another_answer(tmp_path):
    path = tmp_path / "answers.jsonl"
    pool = RecordedPool(ScriptedPool(), path)
    await pool.ask(ask())
    await pool.close()
    inner = ScriptedPool()
    inner.settings_of = lambda candidate: {"model": candidate, "max_tokens": 9}  # type: ignore[method-assign]
    other = RecordedPool(inner, path)
    assert not (await other.ask(ask())).cached
    await other.close()


async def test_a_failed_call_is_asked_again(tmp_path):
    replies = iter([Reply(None, fault="down"), Reply("meat", 3, 4)])
    pool = RecordedPool(ScriptedPool(lambda _: next(replies)), tmp_path / "answers.jsonl")
    assert (await pool.ask(ask())).fault == "down"
    assert not pool.path.exists()
    assert await pool.ask(ask()) == Reply("meat", 3, 4)
    assert await pool.ask(ask()) == Reply("meat", 3, 4, cached=True)
    await pool.close()


async def test_what_is_asked_several_times_at_once_is_sent_once(tmp_path):
    go = asyncio.Event()
    inner = ScriptedPool(pause=lambda _: go.wait())
    pool = RecordedPool(inner, tmp_path / "answers.jsonl")
    waiting = [asyncio.create_task(pool.ask(ask(key=f"q{n}"))) for n in range(4)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting[0].cancel()  # the first, for whom it was sent
    await asyncio.sleep(0)
    go.set()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert done[1:] == [Reply("cook says", 10, 5, cached=True)] * 3
    assert len(inner.asks) == 1
    await pool.close()


async def test_the_other_pool_is_closed_and_what_runs_is_ended(tmp_path):
    class Closing(ScriptedPool):
        closed = False

        async def close(self) -> None:
            self.closed = True

    inner = Closing(pause=lambda _: asyncio.Event().wait())
    pool = RecordedPool(inner, tmp_path / "answers.jsonl")
    waiting = asyncio.create_task(pool.ask(ask()))
    await asyncio.sleep(0)
    await pool.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert inner.closed


WHOLE = {"key": "k", "candidate": "c", "query": "q", "text": "t"}
WHOLE |= {"input_tokens": 1, "output_tokens": 2}


@given(st.integers(min_value=1, max_value=400))
def test_a_torn_line_is_skipped_and_later_answers_are_kept(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("torn") / "answers.jsonl"

    async def record(*queries: str) -> tuple[int, int]:
        inner = ScriptedPool()
        pool = RecordedPool(inner, path)
        for query in queries:
            await pool.ask(ask(query))
        await pool.close()
        return len(inner.asks), len(pool)

    assert asyncio.run(record("one?", "two?")) == (2, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    left = path.read_bytes().count(b"\n")
    kept = left + path.read_bytes().endswith(b"}")  # only the line's end is missing
    assert asyncio.run(record("one?", "two?", "three?")) == (3 - kept, 3)
    assert asyncio.run(record("one?", "two?", "three?")) == (0, 3)


@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe", b"null", b"[1]", b"{}", b"{" * 5000]
    + [json.dumps(WHOLE | of).encode() for of in (
        {"text": None}, {"key": 1}, {"input_tokens": "1"}, {"output_tokens": -1},
        {"input_tokens": True},
    )],
)  # fmt: skip
async def test_lines_that_are_no_answers_are_skipped(tmp_path, caplog, line):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b"\n" + line + b"\n" + json.dumps(WHOLE).encode() + b"\n")
    pool = RecordedPool(ScriptedPool(), path)
    assert len(pool) == 1
    assert "1 lines are no whole answers" in caplog.text
    await pool.close()


KILLED = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from support.r1_world import ScriptedPool, question
from waypost_rl.training.parts import Ask, Reply
from waypost_rl.training.recorded import RecordedPool

async def main():
    pool = RecordedPool(ScriptedPool(lambda ask: Reply(ask.query * 500, 1, 1)), Path(sys.argv[1]))
    for n in range(10**9):
        await pool.ask(Ask("cook", f"query {n}", question()))
        print(n, flush=True)

asyncio.run(main())
"""


async def test_answers_survive_a_kill(tmp_path):
    path = tmp_path / "answers.jsonl"
    support = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-P", "-c", KILLED, str(path), str(support)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = -1
        while seen < 50:
            seen = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read().split("\n")
        seen = max([seen, *(int(line) for line in rest[:-1])])
    inner = ScriptedPool()
    pool = RecordedPool(inner, path)
    for n in range(seen + 1):
        reply = await pool.ask(ask(f"query {n}"))
        assert reply == Reply(f"query {n}" * 500, 1, 1, cached=True)
    assert inner.asks == []
    await pool.close()


async def test_files_that_cannot_be_used_are_named(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    with pytest.raises(StorageAccessError, match="a folder: cannot be read: Is a directory"):
        RecordedPool(ScriptedPool(), folder)
    (tmp_path / "file").write_text("")
    pool = RecordedPool(ScriptedPool(), tmp_path / "late" / "answers.jsonl")
    (tmp_path / "late").write_text("")
    with pytest.raises(StorageAccessError, match="cannot be written"):
        await pool.ask(ask())
    await pool.close()
