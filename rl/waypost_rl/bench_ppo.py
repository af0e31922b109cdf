"""Time and memory of PPO steps, each kind in a process of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from waypost.bench.harness import BenchError

_STEPS = 2
"""Measured steps; one more comes before them."""


def measure(path: str, episodes: int, tokens: int, lora: bool) -> dict[str, float]:
    """Measure PPO steps in a new process.

    Args:
        path: Folder of the start policy.
        episodes: Of a step.
        tokens: Of each episode, half of them sampled.
        lora: Whether adapters are trained, or all weights.

    Returns:
        ``seconds`` of a step, ``outside`` (part of it outside of forward and backward passes and
        the optimizer, in [0, 1]) and ``peak_mb`` of the process (on a GPU: of its memory).

    Raises:
        BenchError: The process fails.
    """
    words = [path, str(episodes), str(tokens), str(int(lora))]
    done = subprocess.run(
        [sys.executable, "-m", "waypost_rl.bench_ppo", *words],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise BenchError(f"a PPO step failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def step(path: Path, episodes: int, tokens: int, lora: bool) -> dict[str, float]:
    """Measure PPO steps in this process; see `measure`."""
    import numpy as np
    import torch

    from waypost_rl.training.config import LoraConfig, PPOConfig
    from waypost_rl.training.parts import Sample
    from waypost_rl.training.trl_compat import PPOLearner

    settings = PPOConfig(
        batch_size=episodes,
        mini_batch_size=min(4, episodes),
        accumulation=1,
        lora=LoraConfig() if lora else None,
    )
    learner = PPOLearner(path, settings)
    rng = np.random.default_rng(0)
    half = tokens // 2

    def sample() -> Sample:
        ids = rng.integers(len(learner.tokenizer) // 2, size=tokens).tolist()
        response = tuple(ids[half:])
        return Sample(tuple(ids[:half]), response, (1,) * len(response), float(rng.random()))

    seconds, inside = [], []
    with ExitStack() as stack:
        watch = Watch(*learner.computing, stack)
        for _ in range(1 + _STEPS):
            samples = [sample() for _ in range(episodes)]
            watch.seconds = 0.0
            start = time.perf_counter()
            learner.step(samples)
            seconds.append(time.perf_counter() - start)
            inside.append(watch.seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 1e6
    return {
        "seconds": float(np.mean(seconds[1:])),
        "outside": 1 - float(np.sum(inside[1:]) / np.sum(seconds[1:])),
        "peak_mb": float(peak),
    }


class Watch:
    """Adds up the seconds of forward passes, backward passes and optimizer steps.

    Args:
        models: Whose forward passes count.
        optimizer: Whose steps count.
        stack: Ends the watch.

    Attributes:
        seconds: The sum so far.
    """

    def __init__(self, models: list[Any], optimizer: Any, stack: ExitStack) -> None:
        import torch

        self.seconds = 0.0
        self._begun = 0.0
        hooks = [one.register_forward_pre_hook(self._begin) for one in models]
        hooks += [one.register_forward_hook(self._end) for one in models]
        hooks += [
            optimizer.register_step_pre_hook(self._begin),
            optimizer.register_step_post_hook(self._end),
        ]
        for one in hooks:
            stack.callback(one.remove)
        backward: Any = torch.Tensor.backward
        self._sync: Any = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None

        def timed(*given: Any, **more: Any) -> None:
            self._begin()
            backward(*given, **more)
            self._end()

        torch.Tensor.backward = timed  # type: ignore[method-assign]
        stack.callback(setattr, torch.Tensor, "backward", backward)

    def _begin(self, *_: Any) -> None:
        self._sync()
        self._begun = time.perf_counter()

    def _end(self, *_: Any) -> None:
        self._sync()
        self.seconds += time.perf_counter() - self._begun


if __name__ == "__main__":
    folder, count, length, adapters = sys.argv[1:]
    print(json.dumps(step(Path(folder), int(count), int(length), adapters == "1")))  # noqa: T201
