import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from waypost.contracts.errors import MissingExtraError
from waypost.contracts.records import LLMInfo
from waypost.loading import save_router
from waypost.testing.fitted_routers import new_router
from waypost.testing.synthetic import planted, shuffled
from waypost.testing.tables import outcomes
from waypost_routers._graph.data import build_graph, describe
from waypost_routers._graph.net import build_net, message_passing, tensors
from waypost_routers._graph.state import GraphState
from waypost_routers._neighbors.memory import nearest
from waypost_routers._shared import distinct
from waypost_routers.graphrouter import GraphRouter

QUICK = {"hidden": 8, "k": 4, "epochs": 6}


def graph_of(data):
    known = distinct(data)
    return build_graph(data, known, known.rows), known


# -- the graph ------------------------------------------------------------------------------


def test_edges_are_the_measured_cells():
    data = outcomes(
        {"b": [1.0, None, 0.5], "a": [0.0, 1.0, None]},
        vectors=[[1, 0], [3, 4], [0, 1]],
        cost_usd={"b": [0.01, None, 0.1]},
    )
    graph, known = graph_of(data)
    found = {
        (int(q), int(m)): facts.tolist()
        for q, m, facts in zip(*graph.answered, graph.facts, strict=True)
    }
    one, two, three = known.row_of
    a, b = 0, 1  # by name
    assert set(found) == {(one, a), (two, a), (one, b), (three, b)}
    # means: a .5, b .75; log costs of b are a decade apart, so one spread on either side
    assert found[one, a] == pytest.approx([-0.5, 0.0])
    assert found[one, b] == pytest.approx([0.25, -1.0])
    assert found[three, b] == pytest.approx([-0.25, 1.0])


def test_task_nodes_are_there_where_tasks_are_named():
    graph, known = graph_of(planted(10))
    assert len(graph.tasks) == 2
    assert graph.asked.shape == (2, 10)
    assert sorted(graph.asked[0].tolist()) == sorted(known.row_of.tolist())
    nameless = replace(planted(10), task_names=("",) * 10)
    assert len(graph_of(nameless)[0].tasks) == 0


def test_descriptions_are_the_same_in_every_process():
    llms = (LLMInfo(name="one", size="7B", feature="writes code"), LLMInfo(name="two"))
    here = describe(llms, np.array([0.5, 0.25]), np.zeros(2))
    assert not np.array_equal(here[0], here[1])
    code = (
        "import numpy as np; from waypost.contracts.records import LLMInfo;"
        "from waypost_routers._graph.data import describe;"
        "l = (LLMInfo(name='one', size='7B', feature='writes code'), LLMInfo(name='two'));"
        "print(describe(l, np.array([.5, .25]), np.zeros(2)).tobytes().hex())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here.tobytes().hex()


# -- the network ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def net():
    import torch

    graph, known = graph_of(planted(12))
    torch.manual_seed(0)
    built = build_net(graph, 8, 0.5).eval()
    return built, tensors(graph), known


def test_hidden_edges_carry_no_message(net):
    import torch

    built, graph, _ = net
    visible = torch.arange(12) < 6
    changed = dict(graph)
    facts = graph["facts"].clone()
    facts[~visible[graph["answered"][0]]] += 5.0
    changed["facts"] = facts
    with torch.no_grad():
        one, two = (built.states(g, visible) for g in (graph, changed))
        everything = built.states(changed, torch.ones(12, dtype=torch.bool))
    for before, after in zip(one, two, strict=True):
        assert torch.equal(before, after)
    assert not torch.equal(one[1], everything[1])


def test_messages_go_both_ways(net):
    import torch

    built, graph, _ = net
    every = torch.ones(12, dtype=torch.bool)
    other = {**graph, "llms": graph["llms"] + 1.0}
    third = {**graph, "queries": graph["queries"] + 1.0}
    with torch.no_grad():
        queries, llms = built.states(graph, every)
        assert not torch.equal(built.states(other, every)[0], queries)
        assert not torch.equal(built.states(third, every)[1], llms)


def test_precomputed_states_give_the_scores_of_the_network(net):
    import torch

    built, _, _ = net
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    data = planted(12)
    learner = GraphRouter(hidden=8, k=4)._learner(data, judged=False)
    graph, known = learner._graph, learner.known  # its rows are scaled, unlike those of `net`
    learner.averaged = built
    state = learner.model()
    rows = planted(5, seed=8).embeddings
    found = nearest(known.rows, rows, 3)
    with torch.no_grad():
        states, llms = built.states(graph, torch.ones(12, dtype=torch.bool))
        theirs = built.logits(
            torch.as_tensor((rows - learner._centre) * np.float32(learner._scale)),
            states,
            llms,
            torch.as_tensor(found.index),
            torch.as_tensor(found.similarity.astype(np.float32)),
            torch.as_tensor(found.share.astype(np.float32)),
        )
    np.testing.assert_allclose(state.logits(rows, found), theirs.numpy(), atol=1e-4)


def test_logits_by_hand():
    # state = relu(x + mean of the two neighbours' + bias) = relu(1 + (2 + 4) / 2 - 1) = 3
    state = GraphState(
        memory=np.array([[1.0], [1.0]], np.float32),
        near=np.array([[2.0], [4.0]], np.float32),
        projection=np.array([[1.0]], np.float32),
        bias=np.array([-1.0]),
        llms=np.array([[2.0], [-1.0]]),
        level=np.array([0.5, 0.0]),
        tau=np.array([0.1]),
    )
    rows = np.array([[1.0]], np.float32)
    assert state.logits(rows, nearest(state.memory, rows, 2))[0] == pytest.approx([6.5, -3.0])


def test_without_torch_geometric_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_geometric.nn.conv", None)
    with pytest.raises(MissingExtraError, match=r"waypost\[train\]"):
        message_passing()


# -- the router -----------------------------------------------------------------------------


def test_epochs_are_chosen_and_fits_repeat():
    import torch

    data = planted(70)
    before = torch.get_rng_state()
    one, two = (GraphRouter(**QUICK).fit(data) for _ in range(2))
    assert 1 <= one.epochs_ <= 6
    np.testing.assert_array_equal(
        one.predict_quality(data.batch()), two.predict_quality(data.batch())
    )
    assert torch.equal(torch.get_rng_state(), before)


def test_where_nothing_can_be_learned_the_means_are_kept():
    router = GraphRouter().fit(shuffled(planted(200)))
    assert router.epochs_ == 0
    quality = router.predict_quality(planted(9, seed=3).batch())
    np.testing.assert_allclose(quality, router.mean_quality_[None].repeat(9, axis=0), atol=1e-5)


def test_data_without_tasks_and_with_holes_is_learned_from():
    data = planted(120)
    quality = data.quality.copy()
    quality[np.random.default_rng(0).random(quality.shape) < 0.5] = np.nan
    router = GraphRouter().fit(replace(data, task_names=("",) * 120, quality=quality))
    other = planted(40, seed=6)
    best = router.predict_quality(other.batch()).argmax(axis=1)
    right = np.array([0 if task == "cooking" else 1 for task in other.task_names])
    assert (best == right).mean() > 0.9


def test_a_loaded_router_needs_neither_torch_nor_scikit_learn(tmp_path):
    router = new_router("graphrouter", **QUICK).fit(planted(40))
    save_router(router, tmp_path / "artifact", planted(40))
    code = (
        "import sys; sys.modules.update(torch=None, torch_geometric=None, sklearn=None);"
        "from waypost import load_router;"
        f"print(load_router({str(tmp_path / 'artifact')!r}).route_single('garlic butter').model)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == router.route_single("garlic butter").model
