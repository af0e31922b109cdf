"""SIGKILL while vLLM starts its processes; in the environments of test_engine_vllm_environments."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import time

import pytest

from waypost.survivors import marked

START = """
import asyncio, sys
from waypost.engines import make_engine, _vllm_batch
from waypost.survivors import Watch
class Told(Watch):
    def __enter__(self):
        watch = super().__enter__()
        print(watch.mark, flush=True)
        return watch
_vllm_batch.Watch = Told
if __name__ == "__main__":
    asyncio.run(make_engine("vllm", {
        "model": "HuggingFaceTB/SmolLM2-135M-Instruct", "dtype": "float32", "context_length": 256,
    }).start())
    print("started", flush=True)
"""


@pytest.mark.engine
@pytest.mark.timeout(300)
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="has vLLM elsewhere")
def test_no_process_outlives_one_that_is_killed_while_vllm_starts(tmp_path):
    script = tmp_path / "start.py"  # vLLM's processes import the program that starts them
    script.write_text(START)
    with (tmp_path / "said").open("wb") as said:
        loader = subprocess.Popen(
            [sys.executable, "-P", script], stdout=subprocess.PIPE, stderr=said, text=True
        )
    try:
        mark = int(loader.stdout.readline())
        while set(marked(mark)) <= {loader.pid}:  # until it has started a process
            assert loader.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.05)
        time.sleep(0.5)
        loader.send_signal(signal.SIGKILL)
        assert "started" not in loader.stdout.read()  # ends once nobody holds its output
        end = time.monotonic() + 30
        while left := list(marked(mark)):
            assert time.monotonic() < end, left
            time.sleep(0.05)
    finally:
        loader.kill()
        loader.wait()
        loader.stdout.close()
