"""Random policies of several architectures, and plain `generate` to compare a sampler with."""

from __future__ import annotations

import random
from typing import Any

import torch
from transformers import AutoModelForCausalLM as AutoModel
from transformers import AutoTokenizer, GPT2Config, LlamaConfig, MistralConfig, Qwen2Config

from waypost.testing.tiny_model import stand_in

VOCABULARY = 257
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONFIGS = {
    "llama": lambda **more: LlamaConfig(**SIZES | more),
    "qwen2": lambda **more: Qwen2Config(tie_word_embeddings=True, **SIZES | more),
    "mistral": lambda **more: MistralConfig(sliding_window=4096, **SIZES | more),
    "gpt2": lambda: GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4),
}
LENGTHS = {0: 30, 1: 12, 2: 41, 3: 7, 4: 29}


def policy(kind: str = "llama", **more: Any) -> Any:
    """A random model that says much, and stays in training mode as a learner's does."""
    torch.manual_seed(0)
    config = CONFIGS[kind](**more)
    config.initializer_range = 0.3
    return AutoModel.from_config(config).train()


def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(stand_in("causal"))


def tokens(count: int, seed: int) -> list[int]:
    return [random.Random(seed * 1000 + n).randrange(250) for n in range(count)]


def prompts(lengths: dict[int, int] = LENGTHS, seed: int = 1) -> dict[int, list[int]]:
    return {row: tokens(length, seed * 50 + row) for row, length in lengths.items()}


def generated(model: Any, context: list[int], count: int) -> tuple[int, ...]:
    """What `generate` makes of one unpadded context, greedily."""
    model.eval()
    output = model.generate(
        torch.tensor([context]), max_new_tokens=count, do_sample=False, eos_token_id=None,
        pad_token_id=0, attention_mask=torch.ones(1, len(context), dtype=torch.long),
    )  # fmt: skip
    model.train()
    return tuple(output[0, len(context) :].tolist())


def assert_greedy_turns(sampler: Any, model: Any, turns: int = 3) -> None:
    """Compare a sampler with `generate` on turns of which each has other rows and lengths."""
    sampler.begin(5, seed=3, temperature=0)
    contexts: dict[int, list[int]] = {row: [] for row in range(5)}
    for turn in range(turns):
        added = {row: ids for row, ids in prompts(seed=turn).items() if (row + turn) % 4}
        limits = {row: 3 + (5 * row + turn) % 9 for row in added}
        sampled = sampler.turn(added, limits)
        assert set(sampled) == set(added)
        for row, ids in added.items():
            contexts[row] += ids
            assert sampled[row].ids == generated(model, contexts[row], limits[row])
            assert sampled[row].reason == "length"
            contexts[row] += sampled[row].ids
