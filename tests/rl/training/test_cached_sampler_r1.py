"""The cached sampler in the environment of training: transformers 4.45, adapters of PEFT."""

from __future__ import annotations

import pytest
import torch

from support.sampling import assert_greedy_turns, policy, tokenizer
from waypost.contracts.errors import WeightsError
from waypost_rl.training.cached_sampler import CachedSampler

pytestmark = pytest.mark.rl


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral"])
def test_greedy_turns_are_those_of_generate(kind):
    model = policy(kind)
    assert_greedy_turns(CachedSampler(model, tokenizer(), stop=(), end_ids=()), model)


def test_adapters_take_part_and_their_dropout_does_not():
    from peft import LoraConfig, get_peft_model

    plain = policy()
    before = policy().lm_head.weight
    lora = LoraConfig(r=4, lora_dropout=0.5, target_modules=["q_proj", "down_proj"])
    wrapped = get_peft_model(plain, lora).train()
    torch.manual_seed(1)
    for name, one in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(one, std=0.3)
    sampler = CachedSampler(plain, tokenizer(), stop=(), end_ids=())
    sampler.begin(1, seed=0, temperature=0)
    said = sampler.turn({0: [1, 2, 3]}, {0: 8})
    assert wrapped.training
    with wrapped.disable_adapter():
        sampler.update()
        sampler.begin(1, seed=0, temperature=0)
        assert sampler.turn({0: [1, 2, 3]}, {0: 8}) != said
    assert torch.equal(plain.lm_head.weight, before)
    sampler.update()
    assert_greedy_turns(sampler, plain)


def test_a_cache_of_the_old_form_is_refused():
    with pytest.raises(WeightsError, match="cache has another form before transformers 5"):
        CachedSampler(policy("gpt2"), tokenizer())


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_packed_query_heads_give_the_logits_of_repeated_keys(kind):
    from waypost.engines._lm_cache import RowCache
    from waypost.engines._lm_model import LanguageModel

    model = LanguageModel(policy(kind), tokenizer(), "tiny")
    assert model._packs
    found = []
    with torch.no_grad():
        for packs in (True, False):
            model._packs = packs
            cache = RowCache()
            cache.open(3)
            model.next_logits([[1, 2, 3, 4], [5], [6, 7]], cache)
            found.append(model.next_logits([[8], [9], [10]], cache))
    assert torch.allclose(*found, atol=1e-5)
    assert model._model.model.layers[0].self_attn.num_key_value_groups == 2
