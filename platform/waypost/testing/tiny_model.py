"""A language model that fits a test: random weights, every text in, lower-case letters out."""

from __future__ import annotations

from pathlib import Path
from string import ascii_lowercase
from typing import Any

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def write_tiny_model(
    folder: Path, seed: int = 0, context_length: int = 1024, letters: str = ascii_lowercase
) -> Path:
    """Write a Llama of 2 layers and width 64 with a byte-level tokenizer, and return its folder.

    Reads like any model folder (config, safetensors, tokenizer with a chat template). Greedy
    answers depend on the whole prompt; they hold ``letters`` and spaces only and never end by
    themselves, so that a test decides by ``max_tokens`` and ``stop`` when they do.

    Args:
        folder: Made where it is missing.
        seed: Of the weights.
        context_length: Positions the model has.
        letters: What it may say; any other token is never the likeliest.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context_length,
        initializer_range=0.3,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    spoken = [tokenizer.convert_tokens_to_ids(letter) for letter in (*letters, "Ġ")]
    silent = torch.ones(len(tokenizer), dtype=torch.bool)
    silent[spoken] = False
    with torch.no_grad():
        model.lm_head.weight[silent] = 0.0  # a logit of 0 never beats the best of many letters
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate([*alphabet, "<|end|>"])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|end|>",  # noqa: S106 - no password
        chat_template=CHAT_TEMPLATE,
    )
