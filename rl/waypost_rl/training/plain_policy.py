"""Sample from a plain checkpoint of a policy, without what trains it."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from waypost.contracts.errors import WeightsError
from waypost_rl.training.cached_sampler import CachedSampler
from waypost_rl.training.parts import Sampler


def load_policy(folder: Path) -> Sampler:
    """Return a sampler on a checkpoint, in float32, on a GPU where there is one.

    Raises:
        WeightsError: The checkpoint does not load.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise WeightsError(f"{folder}: the policy does not load: {error}") from error
    return CachedSampler(model.float().to(device), tokenizer)
