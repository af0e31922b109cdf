"""One of two processes that learn together: ``python -P -m support.one_of_two_learners BASE LORA``.

The variables RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are those of torch. Prints a
JSON list with the outcome of each step.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

OVER, UNDER = 1e-6, 10.0
LIMITS = (
    ((UNDER, UNDER), (UNDER, UNDER)),
    ((UNDER, OVER), (UNDER, UNDER)),
    ((UNDER, UNDER), (OVER, OVER)),
    ((UNDER, UNDER), (OVER, UNDER)),
)
"""For each step and worker, the limits of the probability ratio of its two mini-batches.

A mini-batch left out makes torch join the gradients of the next one early, so the case in which
nothing else joins them, a last one left out, comes before the others."""
SKIPPED = (0, 1, 2, 1)


def samples(seed: int) -> list[Any]:
    """Return four episodes with a gap of foreign tokens each."""
    from waypost_rl.training.parts import Sample

    random = np.random.default_rng(seed)

    def ids(number: int) -> tuple[int, ...]:
        return tuple(int(one) for one in random.integers(5, 60, number))

    masks = [(1,) * 5 + (0,) * (4 + at) + (1,) * (3 + at + seed % 3) for at in range(4)]
    return [Sample(ids(6), ids(len(mask)), mask, float(random.random())) for mask in masks]


def digest(learner: Any) -> str:
    """Return a digest of all that learning changes."""
    found = hashlib.sha256()
    for _, tensor in sorted(learner._trained().items()):
        found.update(tensor.numpy().tobytes())
    return found.hexdigest()


def main(base: Path, lora: bool) -> None:
    import torch

    from waypost_rl.training.config import LoraConfig, PPOConfig
    from waypost_rl.training.trl_compat import PPOLearner

    torch.distributed.init_process_group("gloo")
    rank = int(os.environ["RANK"])
    settings = PPOConfig(
        batch_size=8,
        mini_batch_size=2,
        accumulation=2,
        learning_rate=1e-3,
        critic_learning_rate=1e-3,
        lora=LoraConfig(rank=4, scale=8) if lora else None,
    )
    learner = PPOLearner(base, settings, seed=0, workers=2)
    trainer = learner._trainer
    judge = trainer._too_far
    steps = [{"digest": digest(learner)}]
    for number, limits in enumerate(LIMITS):
        left = iter(limits[rank])

        def too_far(ratio: Any, mask: Any, left: Any = left) -> bool:
            trainer.settings = settings.model_copy(update={"max_ratio": next(left)})
            return bool(judge(ratio, mask))

        trainer._too_far = too_far
        statistics = learner.step(samples(10 * number + rank))
        steps.append({"digest": digest(learner), **statistics})
    sys.stdout.write(json.dumps(steps) + "\n")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "lora")
