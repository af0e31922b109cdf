import math

import numpy as np
import pytest
import torch

from waypost.contracts.errors import MissingExtraError, SchemaError, WeightsError
from waypost.contracts.records import LLMInfo
from waypost.registry import make_router
from waypost.testing.artifact_contract import check_loads_elsewhere
from waypost.testing.fitted_routers import models, new_router
from waypost.testing.synthetic import LLMS, SPECIALIST, planted
from waypost.testing.tiny_model import stand_in
from waypost_routers._finetune.base import load_base
from waypost_routers._finetune.letter_training import letter_loss, soft_targets
from waypost_routers._finetune.letters import LetterModel, LetterPrompt, LoraSettings, describe

NAN = math.nan


@pytest.fixture(scope="module")
def base():
    return load_base(stand_in("causal"), "causal", "cpu")


@pytest.fixture(scope="module")
def prompt(base):
    return LetterPrompt(base, LLMS, feature_words=0, max_tokens=12)


@pytest.fixture(scope="module")
def tuned():
    return new_router("causallm_router").fit(planted(24))


def text_of(prompt, ids):
    return prompt._tokenizer.decode(ids)


def test_the_list_is_in_the_order_asked_for(prompt):
    text = text_of(prompt, prompt.head([2, 0, 1]))
    assert "A. tiny (500M)\nB. cook (7B)\nC. prover (8x7B)\n" in text
    assert text.endswith("Question: ")


def test_a_long_question_loses_its_beginning_and_nothing_else(prompt):
    text = text_of(prompt, prompt.rest("x" * 500 + "the end of it"))
    assert text.startswith("he end of it\n\nAnswer with its letter.")
    assert text.endswith("<|assistant|>")
    assert len(prompt.rest("a" * 500)) == len(prompt.rest("a" * 12))


def test_the_feature_stands_in_the_list_where_asked():
    llm = LLMInfo(name="a", size="7B", feature="Good at\nlong proofs.")
    assert describe(llm, 0) == "a (7B)"
    assert describe(llm, 3) == "a (7B): Good at long"
    assert describe(LLMInfo(name="b"), 3) == "b"


def test_letters_are_enough_for_26_and_more_is_an_error(base):
    llms = [LLMInfo(name=f"m{i}") for i in range(27)]
    assert len(LetterPrompt(base, llms[:26], 0, 64).letters) == 26
    with pytest.raises(SchemaError, match="there are 27: leave some out"):
        LetterPrompt(base, llms, 0, 64)


def test_a_list_that_fills_the_context_is_an_error(base):
    llms = [LLMInfo(name=f"m{i}", feature="word " * 400) for i in range(3)]
    with pytest.raises(SchemaError, match="lower feature_words"):
        LetterPrompt(base, llms, 400, 64)


def test_the_frame_of_the_training_is_kept(base):
    prompt = LetterPrompt(base, LLMS, 0, 12, frame=("on Monday: ", " so?"))
    assert text_of(prompt, prompt.head([0, 1, 2])).startswith("on Monday: Which model")
    assert text_of(prompt, prompt.rest("x")) == "x so?"


def test_soft_targets_by_hand():
    found = soft_targets(np.array([[1.0, 0.5, NAN], [0.0, 0.0, NAN]]), 0.5)
    e = math.exp(-1)
    expected = [[1 / (1 + e), e / (1 + e), NAN], [0.5, 0.5, NAN]]
    assert found == pytest.approx(np.array(expected), nan_ok=True)


def test_the_loss_by_hand_and_without_the_unmeasured():
    # softmax over the first two only: shares 3/4 and 1/4
    logits = torch.tensor([[math.log(3.0), 0.0, 50.0]], requires_grad=True)
    loss = letter_loss(logits, np.array([[0.5, 0.5, NAN]]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(
        -0.5 * math.log(0.75) - 0.5 * math.log(0.25), abs=1e-6
    )
    assert logits.grad[0].tolist() == pytest.approx([0.25, -0.25, 0.0], abs=1e-6)


def test_kept_lists_give_what_whole_prompts_give_averaged_over_both_orders(base, prompt):
    model = LetterModel(base, prompt, LoraSettings(4, 8, 2), seed=0)
    orders = [np.array([1, 2, 0]), np.array([0, 2, 1])]
    model.keep_heads(orders)
    expected = np.zeros(3)
    for order in orders:
        whole = [prompt.head(order.tolist()) + prompt.rest("garlic oven")]
        logits = model.letter_logits(whole).detach()
        expected[order] += torch.log_softmax(logits, -1)[0].numpy() / 2
    np.testing.assert_allclose(model.log_shares("garlic oven"), expected, atol=1e-4)


def test_padding_changes_no_logit(base, prompt):
    model = LetterModel(base, prompt, LoraSettings(4, 8, 2), seed=0)
    prompts = [prompt.head([0, 1, 2]) + prompt.rest(text) for text in ("ring", "garlic oven")]
    with torch.no_grad():
        together = model.letter_logits(prompts)
        alone = torch.cat([model.letter_logits([ids]) for ids in prompts])
    np.testing.assert_allclose(together.numpy(), alone.numpy(), atol=1e-4)


def test_the_state_is_the_adapter_which_was_trained(tuned, base):
    arrays, values = tuned.get_state()
    lora = {name: value for name, value in arrays.items() if name.startswith("weights_.")}
    assert len(lora) == 2 * 4 * 2  # layers, projections, matrices
    assert all("lora" in name for name in lora)
    assert any(np.abs(value).max() > 0 for name, value in lora.items() if "lora_B" in name)
    assert values["base_"]["digest"] == base.digest
    assert values["base_"]["frame"][0] == "<|user|>"
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_without_epochs_the_model_is_as_it_was():
    router = new_router("causallm_router", epochs=0).fit(planted(12))
    arrays, _ = router.get_state()
    assert all(not value.any() for name, value in arrays.items() if "lora_B" in name)


def test_without_peft_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"waypost\[train\]"):
        new_router("causallm_router").fit(planted(20))


def test_an_encoder_is_no_language_model():
    with pytest.raises(WeightsError, match=r"does not load|lacks parameters"):
        make_router("causallm_router", {"model": stand_in("encoder")}).fit(planted(20))


@pytest.mark.engine
@pytest.mark.timeout(1200)
def test_smollm2_beats_chance_and_the_best_single_and_loads_elsewhere(tmp_path):
    data, other = planted(150), planted(60, seed=7)
    params = {"max_queries": 110, "max_tokens": 32, "trained_layers": 10}
    router = make_router("causallm_router", params).fit(data)
    chosen = models(router.route_batch(other.queries))
    right = [SPECIALIST[t] == m for t, m in zip(other.task_names, chosen, strict=True)]
    assert np.mean(right) >= 0.7  # a third by chance, half by the best single one
    check_loads_elsewhere([router], data, tmp_path)
