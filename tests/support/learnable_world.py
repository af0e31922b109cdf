"""A tiny world of Router-R1 in which learning takes seconds: one policy, two candidates.

``strong`` is always right and dear, ``cheap`` is right on three of four questions and costs a
tenth. The answer of a question is drawn at random, so a policy can only pass on what a candidate
said.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from support.tiny_policy import write_tokenizer_config
from waypost.testing.tiny_model import write_tiny_model

CANDIDATES = ("strong", "cheap")
CHEAP_RIGHT = 0.75
TOKENS = 20
"""Of every answer, so that the candidates' prices alone make the difference."""
PRICES = {"strong": 10.0, "cheap": 1.0}
PROMPT = "{budget}{question}"
PIECES = (
    "<think>", "</think>", "<search>", "</search>", "<information>", "</information>", "<answer>",
    "</answer>", "strong:", "cheap:", "The answer is (", ").", "Which letter", "low", "high",
    "I ask a model that may know this.", "One of the models can answer this.",
    "I do not know this myself. I ask.", "The reply gives the answer.",
    "I take the answer of the reply.", "That settles it.",
)  # fmt: skip


def write_policy(folder: Path, seed: int = 0) -> Path:
    """Write a Llama of two layers with random weights that has whole phrases as tokens."""
    import torch
    from transformers import AddedToken, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    write_tiny_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = None
    tokenizer.add_tokens([AddedToken(one, normalized=False) for one in PIECES])
    config = LlamaConfig.from_pretrained(
        folder,
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        initializer_range=0.05,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_tokenizer_config(folder, tokenizer)
    return folder


def write_answers(folder: Path, questions: int = 256) -> Path:
    """Write routing data with recorded letters of both candidates, in both splits."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    llms = {
        name: {"size": None, "feature": "", "input_price": 0.0, "output_price": price}
        for name, price in PRICES.items()
    }
    (folder / "llms.json").write_text(json.dumps(llms), encoding="utf-8")
    choices = json.dumps({"text": ["A", "B", "C", "D"], "labels": ["A", "B", "C", "D"]})
    for split, count in (("train", questions), ("test", questions // 2)):
        rows: list[dict[str, Any]] = []
        for at in range(count):
            right = int(random.integers(4))
            said = {"strong": right, "cheap": right}
            if random.random() > CHEAP_RIGHT:
                said["cheap"] = (right + 1) % 4
            question = {
                "query_id": f"{split}-{at}",
                "task_name": "letters",
                "query": "Which letter A B C D",
                "ground_truth": "ABCD"[right],
                "metric": "letter",
                "choices": choices,
                "input_tokens": 10,
                "output_tokens": TOKENS,
            }
            rows += [
                question
                | {
                    "model_name": name,
                    "response": "ABCD"[said[name]],
                    "performance": float(said[name] == right),
                    "cost_usd": TOKENS * PRICES[name] / 1e6,
                }
                for name in CANDIDATES
            ]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"routing_{split}.parquet")
    return folder


def run_config(base: Path, data: Path, out: Path, **changed: Any) -> dict[str, Any]:
    """Return the config of a run in this world."""
    return {
        "out": str(out),
        "base": str(base),
        "candidates": {name: {} for name in CANDIDATES},
        "pool": {"kind": "replayed", "data": str(data)},
        "questions": {"data": str(data), "split": "train"},
        "episode": {
            "prompt": PROMPT,
            "max_turns": 1,
            "policy_tokens": 16,
            "prompt_tokens": 64,
            "response_tokens": 96,
        },
        "ppo": {
            "batch_size": 32,
            "mini_batch_size": 32,
            "accumulation": 1,
            "epochs": 2,
            "learning_rate": 5e-4,
            "critic_learning_rate": 1e-2,
            "lam": 0.95,
            "kl": {"coefficient": 0.02},
            "max_grad_norm": 0.3,
            "entropy": 0.0,
        },
        "steps": 40,
        "checkpoint_every": 5,
        "transcripts_every": 20,
        **changed,
    }


def write_run(folder: Path, base: Path, data: Path, steps: int, **changed: Any) -> Path:
    """Write the config of a run with a warm start, budgets and checkpoints, into ``folder/run``."""
    import yaml

    warm = {"episodes": 320, "learning_rate": 3e-3, "batch_size": 32, "query_words": 2}
    config = run_config(base, data, folder / "run", steps=steps, warm_start=warm)
    config |= {"checkpoint_every": 3, "reward": {"alpha": [0.0, 0.9]}, **changed}
    folder.mkdir(exist_ok=True)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path
