"""`waypost bench gateway` from its command line to its JSON, with a real graph."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest
from click.testing import CliRunner

from waypost.cli import command


def run(*arguments):
    return CliRunner().invoke(command, ["bench", "gateway", *arguments])


def test_an_unknown_target_is_wrong_input():
    result = run("--target", "nginx")
    assert result.exit_code == 2
    assert "no target 'nginx'" in result.stderr


# LiteLLM is not measured here: its environment is 117 packages to download.
@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_quick_run_of_the_inline_graph_gives_sane_figures(root, tmp_path, monkeypatch):
    monkeypatch.setenv("WAYPOST_ROOT", str(root))
    out = tmp_path / "out.json"
    result = run(
        *("--quick", "--target", "inline/direct", "--target", "decision"),
        *("--target", "forwarder"),
        *("--json", "--out", str(out)),
    )
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    assert json.loads(result.stdout) == found
    assert found["format"] == "waypost-bench-gateway/2"
    assert found["failed"] == {}
    assert set(found["targets"]) == {"inline/direct", "forwarder"}
    assert 0 < found["decision"]["ms"]["p50"]["median"] < 100
    target = found["targets"]["inline/direct"]
    cells = {(entry["stream"], entry["concurrency"]): entry for entry in target["latency"]}
    assert set(cells) == {(stream, step) for stream in (False, True) for step in (1, 64)}
    for entry in cells.values():
        assert entry["errors"] == 0
        assert entry["pairs"] > 0
        added = entry["added_ms"]
        assert 0 < added["p50"]["median"] <= added["p95"]["median"] <= added["p99"]["median"]
        assert entry["through_ms"]["p50"]["median"] > entry["direct_ms"]["p50"]["median"]
    assert (
        cells[False, 64]["added_ms"]["p50"]["median"] > cells[False, 1]["added_ms"]["p50"]["median"]
    )
    alone = max(entry["requests_per_s"]["median"] for entry in found["direct"])
    rates = [entry["requests_per_s"]["median"] for entry in target["throughput"]]
    assert len(rates) == 2
    assert all(0 < rate < alone for rate in rates)
    # the gateway does more than the forwarder, and all of it is counted
    costs = [entry["cpu_ms"]["median"] for entry in target["throughput"]]
    bare = [entry["cpu_ms"]["median"] for entry in found["targets"]["forwarder"]["throughput"]]
    assert all(0.1 < over < ours for over, ours in zip(bare, costs, strict=True))
    assert found["over"]["forwarder"]["inline/direct"]["cpu"] == pytest.approx(costs[0] / bare[0])


@pytest.mark.ray
@pytest.mark.timeout(200)
def test_sigterm_ends_the_servers_too(root):
    environment = os.environ | {"WAYPOST_ROOT": str(root)}
    words = ["bench", "gateway", "--quick", "--target", "forwarder"]
    command = [sys.executable, "-m", "waypost.cli", *words]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as bench:
        begun: dict[int, psutil.Process] = {}
        wanted = {"_turn", "_upstream", "_forwarder"}
        until = time.monotonic() + 120
        while wanted and time.monotonic() < until:
            for one in psutil.Process(bench.pid).children(recursive=True):
                begun[one.pid] = one
                with suppress(psutil.Error):
                    wanted -= {
                        name for name in wanted if f"bench.{name}" in " ".join(one.cmdline())
                    }
            time.sleep(0.02)
        bench.terminate()
        assert bench.wait(60) == 128 + signal.SIGTERM
    assert not wanted
    _, left = psutil.wait_procs(list(begun.values()), timeout=10)
    assert left == []
