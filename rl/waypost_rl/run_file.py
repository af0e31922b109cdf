"""What a training run leaves for an export: ``run.json`` and the folder ``policy`` beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from waypost.config import StrictModel, parse
from waypost.contracts.atomic import write_text
from waypost.contracts.errors import ConfigError, Fault
from waypost_rl.prompt import MAX_SEARCHES
from waypost_rl.protocol import INFORMATION_TOKENS

RUN_FILE = "run.json"
POLICY = "policy"
"""Folder of the trained policy: a plain checkpoint with its tokenizer."""


class CostBounds(StrictModel):
    """Bounds of the cost scale, see `waypost_rl.reward.FixedScale`.

    Attributes:
        low: Root of the cost, in millionths of a dollar, whose reward is 1.
        high: Root of the cost whose reward is 0.
    """

    low: float = Field(ge=0)
    high: float = Field(ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> CostBounds:
        if self.low > self.high:
            raise ValueError("high: expected at least low")
        return self


class TrainedRun(StrictModel):
    """How a policy was trained: what it reads, and the rules of its episodes.

    Attributes:
        format: Version of this file.
        candidates: Name in the prompt -> description, in the prompt's order.
        prompt: Text of the prompt with ``{question}``; None is Waypost's.
        frame: Text before and after the prompt: the chat template. None takes it from the policy's
            tokenizer.
        reserved: Special tokens that questions and replies do not contain.
        budget: Whether the prompt has the budget in words.
        corrective: Whether malformed actions are corrected.
        max_turns: Maximum searches and malformed actions.
        policy_tokens: Maximum tokens of a generation.
        information_tokens: Maximum tokens of a reply in the context.
        cost_scale: Scale of the cost reward; None where cost had none.
        pool_names: Candidate -> its name in the pool of the training, where that is another one.
        base: Model that the training started from.
        steps: Steps done.
        ended: Why the training ended before its last step; empty if it did not.
    """

    format: Literal[1] = 1
    candidates: dict[str, str] = Field(min_length=1)
    prompt: str | None = None
    frame: tuple[str, str] | None = None
    reserved: tuple[str, ...] = ()
    budget: bool = False
    corrective: bool = True
    max_turns: int = Field(default=MAX_SEARCHES, ge=1, le=16)
    policy_tokens: int = Field(default=1024, ge=1)
    information_tokens: int = Field(default=INFORMATION_TOKENS, ge=1)
    cost_scale: CostBounds | None = None
    pool_names: dict[str, str] = Field(default_factory=dict)
    base: str
    steps: int = Field(default=0, ge=0)
    ended: str = ""

    @field_validator("prompt")
    @classmethod
    def _asks(cls, prompt: str | None) -> str | None:
        if prompt is not None and "{question}" not in prompt:
            raise ValueError("expected a text that contains {question}, or null")
        return prompt


def write_run_file(folder: Path, run: TrainedRun) -> None:
    """Write ``run.json`` of a run's folder, replacing it in one step."""
    text = json.dumps(run.model_dump(mode="json"), indent=2, ensure_ascii=False)
    write_text(folder / RUN_FILE, f"{text}\n")


def read_run_file(folder: Path) -> TrainedRun:
    """Read ``run.json`` of a run's folder.

    Raises:
        ConfigError: There is none, it is not of this form, or there is no policy beside it.
    """
    path = folder / RUN_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problem = f"no {RUN_FILE}; expected the folder of a run of `waypost rl train`"
        raise ConfigError([Fault(str(folder), problem)]) from None
    except (OSError, ValueError) as error:
        raise ConfigError([Fault(str(path), f"is not readable as JSON: {error}")]) from None
    run = parse(TrainedRun, data, str(path))
    if not (folder / POLICY / "config.json").is_file():
        problem = f"has no {POLICY}/config.json; the run has not written its policy yet"
        raise ConfigError([Fault(str(folder), problem)])
    return run
