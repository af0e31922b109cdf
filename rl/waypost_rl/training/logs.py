"""What a run writes while it trains: numbers of each step, TensorBoard, transcripts."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from waypost.contracts.atomic import write_text
from waypost.contracts.errors import ConfigError, Fault
from waypost_rl.episode_reward import EpisodeReward
from waypost_rl.token_episode import TokenEpisode

METRICS = "metrics.jsonl"
TRANSCRIPTS = "transcripts"
TENSORBOARD = "tensorboard"

logger = logging.getLogger(__name__)


class RunLog:
    """Writes the numbers of each step.

    Lines of `METRICS` after the step from which a run continues are dropped, so that each step
    has one line.

    Args:
        run: Folder of the run.
        step: Steps done already.
        steps: Steps of the whole run.
    """

    def __init__(self, run: Path, step: int, steps: int) -> None:
        self._run = run
        self._steps = steps
        self._begun = step
        self._since = time.monotonic()
        kept = [line for line in read_metrics(run) if line["step"] <= step]
        write_text(run / METRICS, "".join(json.dumps(line) + "\n" for line in kept))
        self._board = _board(run / TENSORBOARD, step)

    def step(self, step: int, numbers: Mapping[str, float | None]) -> None:
        """Write the numbers of a finished step, counted from 1; log a progress line.

        A number is None where it is not defined, as the evenness of routes without a search.
        """
        with (self._run / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **numbers}) + "\n")
        if self._board is not None:
            for name, value in numbers.items():
                if value is not None:
                    self._board.add_scalar(name, value, step)
        each_s = (time.monotonic() - self._since) / (step - self._begun)
        logger.info("%s", progress_line(step, self._steps, numbers, each_s))

    def transcripts(
        self, step: int, episodes: Sequence[TokenEpisode], rewards: Sequence[EpisodeReward]
    ) -> None:
        """Write the episodes of a step as JSON lines."""
        folder = self._run / TRANSCRIPTS
        folder.mkdir(exist_ok=True)
        lines = [
            transcript_line(episode, reward)
            for episode, reward in zip(episodes, rewards, strict=True)
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_text(folder / f"step_{step:06d}.jsonl", text)

    def close(self) -> None:
        """Close the files."""
        if self._board is not None:
            self._board.close()


def transcript_line(episode: TokenEpisode, reward: EpisodeReward) -> dict[str, Any]:
    """Return a JSON-able record of an episode."""
    return {
        "query_id": episode.question.query_id,
        "question": episode.question.query,
        "ground_truth": episode.question.ground_truth,
        "alpha": episode.alpha,
        "segments": [[one.author, one.text] for one in episode.segments],
        "calls": [[one.candidate, one.input_tokens, one.output_tokens] for one in episode.calls],
        "reward": reward.total,
        "outcome": reward.outcome,
        "cost_reward": reward.cost,
        "cost_usd": reward.cost_usd_millionths / 1e6,
        "faults": list(reward.faults),
    }


def progress_line(step: int, steps: int, numbers: Mapping[str, float | None], each_s: float) -> str:
    """Return the line of a step: reward and its parts, divergence, speed, time left."""
    left = (steps - step) * each_s
    parts = [
        f"step {step}/{steps}",
        f"reward {numbers['reward']:.3f}",
        f"(well formed {numbers['well_formed']:.2f}, outcome {numbers['outcome']:.2f}, "
        f"cost {numbers['cost_reward']:.2f})",
        f"kl {numbers['kl']:.3f}" if "kl" in numbers else "no learning",
        f"{numbers['tokens_per_s']:.0f} tokens/s",
        f"{each_s:.1f} s a step",
        f"{left / 60:.0f} min left" if left >= 90 else f"{left:.0f} s left",
    ]
    return " ".join(parts)


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Return the numbers of all steps of a run, by step; a torn last line is left out.

    Raises:
        ConfigError: A line is not of a run.
    """
    path = run / METRICS
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    found: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, 1):
        try:
            one = json.loads(line) if line else None
            if one is not None:
                found[int(one["step"])] = one
        except (ValueError, KeyError, TypeError):
            if number == len(lines):  # cut off as the process was killed
                continue
            raise ConfigError([Fault(f"{path}:{number}", "not a line of a training run")]) from None
    return [found[step] for step in sorted(found)]


def _board(folder: Path, step: int) -> Any:
    """Return a writer for TensorBoard; None where tensorboardX is not installed."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        logger.warning("tensorboardX is not installed: no curves for TensorBoard")
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
