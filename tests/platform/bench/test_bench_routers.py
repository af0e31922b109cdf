"""The bench of routers: its data, its aims, and the command on little of everything."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from waypost.bench import routers as bench
from waypost.bench._made_up import made_up
from waypost.bench.harness import Tell
from waypost.bench.routers import NEIGHBOURS, Subject, Timing, aims, timings
from waypost.cli import command
from waypost.contracts.errors import RegistryError
from waypost.contracts.routing_data import write_routing_data
from waypost.registry import make_router
from waypost.testing.synthetic import planted

TINY = ["--n", "60", "--llms", "3", "--dim", "8", "--quick"]


def timing(fit_s=1.0, per_s=1e6, p50_ms=0.1):
    return Timing(fit_s, per_s, p50_ms, 2 * p50_ms, 1.0)


def reached(routers, references=None, large=None, *, whole=True):
    found = aims(routers, references or {}, large or {}, whole=whole)
    return {aim.aim.partition(":")[0]: (aim.value, aim.reached) for aim in found}


def test_made_up_data_is_of_the_size_asked_for_and_repeats_with_its_seed():
    data, again, other = made_up(50, 4, 16, 1), made_up(50, 4, 16, 1), made_up(50, 4, 16, 2)
    assert data.quality.shape == (50, 4)
    np.testing.assert_allclose(np.linalg.norm(data.embeddings, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(data.embeddings, again.embeddings)
    assert data.queries == again.queries != other.queries
    assert (data.cost_usd > 0).all()
    for name in ("largest_llm", "smallest_llm"):  # these ask for sizes
        make_router(name).fit(data)


def test_aims_by_hand():
    routers = {
        "auto": timing(fit_s=100),
        "linearrouter": timing(fit_s=30, per_s=2e5),
        "clusterrouter": timing(fit_s=1, per_s=3e5),
        "knnrouter": timing(fit_s=1, per_s=6000, p50_ms=1.5),
    }
    theirs = {f"{NEIGHBOURS}, a": timing(per_s=4000), f"{NEIGHBOURS}, b": timing(per_s=8000)}
    found = reached(routers, theirs, {"index": {"p50_ms": 2.0, "p99_ms": 7.0}})
    assert found["fits of all routers in all, s"] == (132.0, False)
    assert found["fits of all routers but auto in all, s"] == (32.0, True)
    assert found["linear routers, the slowest, decisions/s"] == (2e5, True)
    assert found["neighbours, decisions/s"] == (6000, True)
    assert found["neighbours over scikit-learn's faster ones, decisions/s"] == (0.75, False)
    assert found["one decision, the slowest router's p50, ms"] == (1.5, False)
    assert found["neighbours with an index, p50, ms"] == (2.0, True)
    assert found["neighbours with an index, p99, ms"] == (7.0, False)


def test_what_was_not_measured_is_neither_reached_nor_missed():
    found = reached({"best_single": timing()}, whole=False)
    del found["one decision, the slowest router's p50, ms"]
    assert set(found.values()) == {(None, None)}


def test_all_score_routers_but_those_that_fine_tune_are_measured():
    names = bench.measured_routers()
    assert {"auto", "knnrouter", "linearrouter", "best_single"} <= set(names)
    assert not {"routerdc", "causallm_router", "automix"} & set(names)


@pytest.mark.parametrize("name", ["routerdc", "automix"])
def test_a_router_that_cannot_be_measured_is_refused(name):
    with pytest.raises(RegistryError, match=name):
        bench.measured_routers([name])


def test_batches_are_timed_in_turn_and_queries_one_by_one():
    calls, asked = [], []
    one = Subject(1.0, lambda: calls.append("one"), asked.append)
    other = Subject(2.0, lambda: calls.append("other"), lambda i: None)
    found = timings({"one": one, "other": other}, 1000, repeats=3, alone=8)
    assert calls == ["one", "other"] * 3
    assert asked == [*range(5), *range(8)]  # five to warm up
    assert [found[name].fit_s for name in ("one", "other")] == [1.0, 2.0]
    assert all(0 < timing.p50_ms <= timing.p99_ms for timing in found.values())
    assert all(timing.per_s > 1000 for timing in found.values())  # far less than a second


def test_the_command_measures_tells_and_inserts(tmp_path):
    readme, out = tmp_path / "r.md", tmp_path / "out.json"
    readme.write_text("before\n<!-- speed begin -->\nold\n<!-- speed end -->\nafter\n")
    names = ["--router", "knnrouter", "--router", "linearrouter"]
    where = ["--insert", f"{readme}:speed", "--out", str(out)]
    done = CliRunner().invoke(command, ["bench", "routers", *TINY, *names, *where])
    assert done.exit_code == 0, done.output
    result = json.loads(out.read_text())
    assert set(result["routers"]) == {"knnrouter", "linearrouter"}
    assert len(result["references"]) == 3
    for one in (*result["routers"].values(), *result["references"].values()):
        assert one["fit_s"] > 0
        assert one["per_s"] > 0
        assert 0 < one["p50_ms"] <= one["p99_ms"]
    assert set(result["large"]) == {"exact", "index"}
    assert result["large"]["exact"]["recall"] == 1
    assert result["large"]["index"]["recall"] > 0.5
    text = readme.read_text()
    assert text.startswith("before\n<!-- speed begin -->\n")
    assert "old" not in text
    assert "| knnrouter |" in text
    assert (
        "waypost bench routers --router knnrouter --router linearrouter --n 60 --llms 3 --dim 8 "
        "--quick\n" in text
    )
    assert "not reached" in done.output or "reached" in done.output


def test_given_data_is_fitted(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "ENCODER", "hashing+d64+t512")
    write_routing_data(tmp_path, planted(40))
    options = bench.Options(
        data=tmp_path, router=("best_single",), batch=64, repeats=1, alone=8, large=False
    )
    result = bench.run(options, Tell())
    assert result.figures["data"] == {
        "made_up": False, "queries": 40, "llms": 3, "dimension": 64, "k": 320,
    }  # fmt: skip
    assert result.figures["large"] == {}
    assert result.tables[0].title.startswith("40 questions x 3 LLMs")


def test_a_place_that_is_not_there_is_said_before_anything_is_measured(tmp_path):
    (tmp_path / "r.md").write_text("no marker")
    done = CliRunner().invoke(command, ["bench", "routers", "--insert", f"{tmp_path}/r.md:speed"])
    assert done.exit_code == 2
    assert "speed begin" in done.output
