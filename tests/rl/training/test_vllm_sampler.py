"""vLLM 0.6.3 as the sampler of a policy that is trained beside it."""

from __future__ import annotations

import pytest
import torch

from support.sampling import LENGTHS, assert_greedy_turns, generated, policy, prompts, tokenizer
from waypost import weights
from waypost.contracts.errors import ContextLengthError, EngineRequestError, WeightsError
from waypost_rl.training.cached_sampler import CachedSampler
from waypost_rl.training.vllm_sampler import VllmSampler

pytestmark = pytest.mark.rl

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
FREE = {"stop": (), "end_ids": ()}


def large(kind: str = "llama"):
    # vLLM's attention on a CPU wants heads of at least 64
    return policy(kind, hidden_size=256)


def adapted(model):
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    return wrapped.base_model.model


def learn(model) -> None:
    """Move what is trainable, as a learning step does."""
    torch.manual_seed(7)
    with torch.no_grad():
        for one in model.parameters():
            if one.requires_grad:
                one.add_(0.3 * one.std() * torch.randn_like(one) + 0.02)


def first_tokens(sampler, added, count: int = 32):
    sampler.begin(len(added), seed=0, temperature=0)
    return {row: one.ids for row, one in sampler.turn(added, dict.fromkeys(added, count)).items()}


@pytest.fixture
def made():
    """Make samplers that are closed after the test."""
    samplers = []

    def make(model, **options):
        samplers.append(VllmSampler(model, tokenizer(), context_length=512, **options))
        return samplers[-1]

    yield make
    for one in samplers:
        one.close()
        one.close()


@pytest.mark.parametrize("adapters", [False, True])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])  # the second has tied embeddings
def test_engine_and_policy_agree_before_and_after_an_update(made, kind, adapters):
    model = adapted(large(kind)) if adapters else large(kind)
    sampler = made(model, **FREE)
    before = first_tokens(sampler, prompts())
    assert before == {row: generated(model, ids, 32) for row, ids in prompts().items()}
    learn(model)
    assert first_tokens(sampler, prompts()) == before
    kept = {name: one.clone() for name, one in model.state_dict().items()}
    sampler.update()
    after = first_tokens(sampler, prompts())
    assert after != before
    assert after == {row: generated(model, ids, 32) for row, ids in prompts().items()}
    assert all(torch.equal(one, kept[name]) for name, one in model.state_dict().items())
    assert_greedy_turns(sampler, model)


def test_rows_are_cut_and_seeded_as_by_the_cached_sampler(made):
    model = large()
    free = made(model, **FREE)
    text = tokenizer().backend_tokenizer.decode
    said = first_tokens(free, prompts())
    stops = [text(list(said[0][10:13])), text(list(said[2][3:5]))]
    end = said[4][20]
    free.close()
    options = {"stop": stops, "end_ids": {end}}
    sampler, cached = made(model, **options), CachedSampler(model, tokenizer(), **options)
    results = []
    for one in (sampler, cached):
        one.begin(5, seed=0, temperature=0)
        first = one.turn(prompts(), dict.fromkeys(LENGTHS, 32))
        results.append((first, one.turn({1: [3, 4], 4: [5]}, {1: 5, 4: 6})))
    assert results[0] == results[1]
    assert {one.reason for one in results[0][0].values()} >= {"stop", "end"}

    def drawn(seed: int, rows=LENGTHS):
        sampler.begin(5, seed=seed)
        return sampler.turn({row: prompts()[row] for row in rows}, dict.fromkeys(rows, 6))

    once = drawn(1)
    assert drawn(1) == once
    assert drawn(2) != once
    assert drawn(1, rows=[3])[3] == once[3]


def test_what_does_not_fit_is_said(made):
    sampler = made(large())
    sampler.begin(1, seed=0)
    with pytest.raises(ContextLengthError, match="exceed the context of 512"):
        sampler.turn({0: [1] * 500}, {0: 13})
    with pytest.raises(EngineRequestError, match="row 0 has 0 tokens"):
        sampler.turn({0: []}, {0: 1})
    sampler.begin(1, seed=0, temperature=0)
    first = sampler.turn({0: prompts()[0]}, {0: 2})[0].ids
    more = sampler.turn({0: []}, {0: 2})[0].ids
    sampler.begin(1, seed=0, temperature=0)
    assert sampler.turn({0: prompts()[0]}, {0: 4})[0].ids == first + more
    sampler.update()
    with pytest.raises(EngineRequestError, match="row 0 of a batch of 0"):
        sampler.turn({0: [1]}, {0: 1})


def test_a_model_that_vllm_does_not_run_is_refused():
    from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

    model = OpenAIGPTLMHeadModel(OpenAIGPTConfig(vocab_size=257, n_embd=32, n_layer=1, n_head=1))
    with pytest.raises(WeightsError, match="vLLM does not run the policy"):
        VllmSampler(model, tokenizer())


def test_smollm2_agrees_after_an_update(made):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = weights.resolve(SMOLLM2)
    model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32)
    words = AutoTokenizer.from_pretrained(folder)
    texts = ["Say in one sentence what a prime number is.", "The capital of France is"]
    added = {row: words(text).input_ids for row, text in enumerate(texts)}
    sampler = VllmSampler(model, words, context_length=256, **FREE)
    try:
        assert first_tokens(sampler, added) == {
            row: generated(model, ids, 32) for row, ids in added.items()
        }
        model = model.train()
        loss = model(**words(texts[0], return_tensors="pt"), labels=torch.tensor([added[0]])).loss
        loss.backward()
        torch.optim.SGD(model.parameters(), lr=0.02).step()
        sampler.update()
        after = first_tokens(sampler, added)
        assert after == {row: generated(model, ids, 32) for row, ids in added.items()}
    finally:
        sampler.close()
