"""`waypost bench gateway` from its command line to its JSON, with a real graph."""

from __future__ import annotations

import json

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
    assert set(cells) == {(stream, step) for stream in (False, True) for step in (1, 8, 32, 64)}
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
    assert len(rates) == 4
    assert all(0 < rate < alone for rate in rates)
