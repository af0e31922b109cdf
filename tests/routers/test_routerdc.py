from dataclasses import replace

import numpy as np
import pytest

from waypost.contracts.errors import EncoderMismatchError, MissingExtraError, WeightsError
from waypost.registry import make_router
from waypost.testing.artifact_contract import check_loads_elsewhere
from waypost.testing.fitted_routers import models, new_router, scores
from waypost.testing.synthetic import SPECIALIST, planted, shuffled
from waypost.testing.tiny_model import stand_in, write_tiny_encoder
from waypost_routers._finetune.base import calibrated_loss, load_base
from waypost_routers._finetune.split_encoder import SplitEncoder
from waypost_routers.routerdc import first_vectors


@pytest.fixture(scope="module")
def tuned():
    return new_router("routerdc", probe_steps=20, steps=3).fit(planted(60))


@pytest.fixture
def encoder():
    return SplitEncoder(load_base(stand_in("encoder"), "encoder", "cpu"), 1, 40)


def test_states_are_unit_vectors_that_padding_does_not_change(encoder):
    texts = ["garlic", "matrix kernel prime ring vector scalar", "oven dough", ""]
    alone = encoder.encode(texts)
    together = encoder.pool(encoder.read(texts)).detach().numpy()
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_split_in_two_it_computes_what_the_whole_model_does(encoder):
    import torch

    base = load_base(stand_in("encoder"), "encoder", "cpu")
    ids = torch.tensor([encoder._tokenizer.encode("garlic butter").ids])
    whole = base.model(input_ids=ids).last_hidden_state.mean(dim=1)[0]
    expected = (whole / whole.norm()).numpy()
    np.testing.assert_allclose(encoder.encode(["garlic butter"])[0], expected, atol=1e-5)


def test_only_trained_layers_are_kept_and_they_were_trained(tuned):
    arrays, values = tuned.get_state()
    layers = {name.split(".")[1] for name in arrays if name.startswith("weights_.")}
    assert layers == {"0", "1"}  # two of three
    untouched = SplitEncoder(load_base(stand_in("encoder"), "encoder", "cpu"), 2, 48).arrays()
    name = "1.output.dense.weight"
    assert not np.array_equal(arrays[f"weights_.{name}"], untouched[name])
    assert values["base_"]["name"] == stand_in("encoder")


def test_the_shared_pretrained_model_stays_as_it_was(tuned):
    base = load_base(stand_in("encoder"), "encoder", "cpu")
    assert tuned.base_["digest"] == base.digest
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_other_weights_under_the_same_name_are_refused(tuned, tmp_path):
    other = write_tiny_encoder(tmp_path / "other", seed=1)
    arrays, values = tuned.get_state()
    values["base_"] = {**values["base_"], "name": str(other)}
    router = new_router("routerdc")
    with pytest.raises(EncoderMismatchError, match="other weights than the router was trained on"):
        router.set_state(tuned.llms_, arrays, values)


def test_answers_are_predicted_longer_where_they_were(tuned):
    data = planted(80)
    tokens = data.output_tokens.copy()
    tokens[[task == "algebra" for task in data.task_names]] *= 5
    router = new_router("routerdc", probe_steps=5, steps=0).fit(replace(data, output_tokens=tokens))
    short, long = (
        router.predict(planted(2, seed=9).select([i]).batch()).output_tokens[0] for i in (0, 1)
    )
    assert (long > 2 * short).all()


def test_without_recorded_lengths_none_are_predicted():
    data = planted(30)
    nothing = np.full(data.quality.shape, np.nan)
    data = replace(data, output_tokens=nothing, cost_usd=nothing)
    router = new_router("routerdc", probe_steps=5, steps=0).fit(data)
    assert router.predict(data.batch()).output_tokens is None


def test_an_llms_first_vector_depends_on_its_name_alone():
    one, two = first_vectors(["a", "b"], 5, seed=0), first_vectors(["b"], 5, seed=0)
    np.testing.assert_array_equal(one[1], two[0])
    assert not np.array_equal(first_vectors(["b"], 5, seed=1)[0], two[0])


def test_calibrated_loss_is_less_for_scores_that_say_something():
    quality = np.array([[1.0, 0.0], [0.0, 1.0]] * 40)
    assert calibrated_loss(quality, quality) < 0.4
    assert calibrated_loss(np.zeros((80, 2)), quality) == pytest.approx(np.log(2), abs=1e-6)


def test_without_torch_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"waypost\[train\]"):
        make_router("routerdc").fit(planted(20))


def test_weights_that_cannot_be_had_are_an_error(monkeypatch):
    monkeypatch.setenv("WAYPOST_OFFLINE", "1")
    with pytest.raises(WeightsError, match="nobody/nothing"):
        make_router("routerdc", {"model": "nobody/nothing"}).fit(planted(20))


def test_a_language_model_is_no_encoder():
    with pytest.raises(WeightsError, match="BERT's form"):
        make_router("routerdc", {"model": stand_in("causal")}).fit(planted(20))


@pytest.mark.engine
def test_minilm_learns_the_planted_rule_and_loads_elsewhere(tmp_path):
    data, other = planted(150), planted(100, seed=7)
    router = make_router("routerdc", {"max_tokens": 32, "steps": 12}).fit(data)
    chosen = models(router.route_batch(other.queries))
    right = [SPECIALIST[t] == m for t, m in zip(other.task_names, chosen, strict=True)]
    assert np.mean(right) >= 0.95
    check_loads_elsewhere([router], data, tmp_path)


@pytest.mark.engine
def test_minilm_finds_nothing_in_shuffled_outcomes():
    data = shuffled(planted(150))
    router = make_router("routerdc", {"max_tokens": 32, "steps": 12}).fit(data)
    spread = scores(router, planted(60, seed=7)).std(axis=0)
    assert spread.max() < 0.15
