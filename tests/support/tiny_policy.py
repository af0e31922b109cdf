"""A tiny Router-R1 policy: a real checkpoint that asks one LLM one question and then answers."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from waypost.testing.tiny_model import write_tiny_model

QUERY = "what is it about?"
ANSWER = "a lemma"
TURNS = (
    (">", "<think>", "who knows", "</think>", "<search>", f"cook:{QUERY}", "</search>"),
    ("Ċ", "<think> ", "clear", " </think>", "<answer>", ANSWER, "</answer>"),
)
"""Chains of tokens: the last token of a prompt, and what the policy writes after it.

A prompt ends with ``<|assistant|>`` at first, and with a line break after an information block.
"""


def write_tiny_policy(folder: Path) -> Path:
    """Write the checkpoint in the form of a published one, and return its folder.

    A Llama whose layers add nothing, so that the next token depends on the last one only. Its form
    is that of transformers 4, which transformers 5 and vLLM 0.6.3 read; the size of its heads is
    one of those that vLLM's attention has.
    """
    import torch
    from transformers import AddedToken, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    write_tiny_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    added = [AddedToken(one, normalized=False) for chain in TURNS for one in chain[1:]]
    tokenizer.add_tokens(added)
    config = LlamaConfig.from_pretrained(
        folder,
        vocab_size=len(tokenizer),
        hidden_size=256,
        head_dim=64,
        max_position_embeddings=4096,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        tokens = model.model.embed_tokens.weight
        model.lm_head.weight.zero_()
        for chain in TURNS:
            ids = tokenizer.convert_tokens_to_ids(list(chain))
            for last, following in pairwise(ids):
                model.lm_head.weight[following] += tokens[last]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_tokenizer_config(folder, tokenizer)
    return folder


def write_tokenizer_config(folder: Path, tokenizer: Any) -> None:
    """Describe a saved tokenizer in the form of transformers 4, which transformers 5 reads, too."""
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": tokenizer.eos_token,
        "clean_up_tokenization_spaces": False,
    }
    if tokenizer.chat_template is not None:
        settings["chat_template"] = tokenizer.chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
