"""Supervised warm start: a base model learns the form of an episode from synthetic ones.

Each synthetic episode asks one candidate, drawn uniformly at random, and answers by its reply, so
that the policy starts without a preference. Small base models write no well-formed episode by
themselves, and every episode would be rewarded -1.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from waypost.contracts.atomic import replacing_folder
from waypost.contracts.errors import SchemaError
from waypost.contracts.questions import Question
from waypost_rl.environment import Environment
from waypost_rl.protocol import Delegate, is_ellipsis, parse_search
from waypost_rl.token_episode import TokenEpisode
from waypost_rl.training.config import WarmStartConfig
from waypost_rl.training.parts import Ask, DelegatePool, Reply

T = TypeVar("T")

logger = logging.getLogger(__name__)

_THOUGHTS = (
    "I ask a model that may know this.",
    "One of the models can answer this.",
    "I do not know this myself. I ask.",
)
_CONCLUSIONS = (
    "The reply gives the answer.",
    "I take the answer of the reply.",
    "That settles it.",
)
_LETTER = re.compile(r"answer is \(?([A-Z])\)?")
_ANSWER_WORDS = 12
_PART_TOKENS = 1536


@dataclass(frozen=True)
class SyntheticEpisode:
    """Tokens of a synthetic episode.

    Attributes:
        ids: Prompt and response.
        mask: 1 for the tokens that the policy has to learn.
    """

    ids: tuple[int, ...]
    mask: tuple[int, ...]


async def synthesize(
    questions: Sequence[Question],
    environment: Environment,
    pool: DelegatePool,
    encode: Callable[[str], Sequence[int]],
    settings: WarmStartConfig,
    seed: int,
    alphas: Sequence[float],
) -> list[SyntheticEpisode]:
    """Return well-formed episodes about questions, whose replies are the pool's.

    Args:
        questions: At least one.
        environment: Rules of an episode.
        pool: Where the candidates answer.
        encode: Text -> tokens without special ones.
        settings: Of the warm start.
        seed: Of candidates, questions and wording.
        alphas: Weights of cost; each episode draws one.

    Raises:
        SchemaError: No episode could be made: every prompt is too long, or no candidate answers.
    """
    random = np.random.default_rng(seed)
    names = environment.candidates.names

    made: list[SyntheticEpisode] = []
    tries = 0
    while len(made) < settings.episodes and tries < 4 * settings.episodes + 64:
        batch = min(256, settings.episodes - len(made))
        tries += batch
        chosen = [questions[at] for at in random.integers(len(questions), size=batch)]
        asks = [
            Ask(_one_of(names, random), _query(one.query, settings.query_words), one)
            for one in chosen
        ]
        replies = await asyncio.gather(*(pool.ask(ask) for ask in asks))
        for ask, reply in zip(asks, replies, strict=True):
            alpha = _one_of(alphas, random)
            one = _episode(ask, reply, environment, encode, random, alpha)
            if one is not None:
                made.append(one)
    if not made:
        raise SchemaError(
            "warm start: no synthetic episode; expected questions whose prompt fits "
            "episode.prompt_tokens, and candidates that answer them"
        )
    return made


def _one_of(options: Sequence[T], random: np.random.Generator) -> T:
    return options[int(random.integers(len(options)))]


def _query(question: str, words: int) -> str:
    return " ".join(question.split()[:words]).replace("<", " ").replace(">", " ")


def _episode(
    ask: Ask,
    reply: Reply,
    environment: Environment,
    encode: Callable[[str], Sequence[int]],
    random: np.random.Generator,
    alpha: float,
) -> SyntheticEpisode | None:
    """Return an episode; None where the reply has no answer or the prompt does not fit."""
    answer = _answer(reply.text, ask.question.ground_truth)
    action = parse_search(f"{ask.candidate}:{ask.query}", environment.candidates)
    if answer is None or not isinstance(action, Delegate):
        return None
    try:
        episode = environment.start(ask.question, alpha)
    except SchemaError:
        return None
    search = f"<search>{ask.candidate}:{ask.query}</search>"
    episode = _wrote(episode, f"<think>{_one_of(_THOUGHTS, random)}</think>{search}", encode)
    episode = environment.replied(replace(episode, pending=action, turns=1), reply)
    final = f"<think>{_one_of(_CONCLUSIONS, random)}</think><answer>{answer}</answer>"
    episode = _wrote(episode, final, encode)
    mask = (0,) * len(episode.prompt_ids) + episode.mask
    return SyntheticEpisode(episode.prompt_ids + episode.response_ids, mask)


def _wrote(
    episode: TokenEpisode, text: str, encode: Callable[[str], Sequence[int]]
) -> TokenEpisode:
    return episode.add("policy", tuple(encode(text)), text)


def _answer(reply: str | None, accepted: str | Sequence[str]) -> str | None:
    """Return what the reply answers: its letter, an accepted answer in it, or a short reply."""
    if reply is None:
        return None
    letter = _LETTER.search(reply)
    if letter:
        return letter[1]
    for one in [accepted] if isinstance(accepted, str) else accepted:
        if len(one) > 1 and one.casefold() in reply.casefold():
            return one
    words = reply.split()
    short = " ".join(words[:_ANSWER_WORDS])
    return None if is_ellipsis(short) or len(words) > _ANSWER_WORDS or "<" in short else short


def warm_start(
    base: Path,
    out: Path,
    episodes: Sequence[SyntheticEpisode],
    settings: WarmStartConfig,
    seed: int,
    *,
    bf16: bool = False,
) -> list[float]:
    """Train a base model on synthetic episodes and write it to a folder; return the losses.

    Args:
        base: Folder of the base model.
        out: Folder of the result: a plain checkpoint with its tokenizer.
        episodes: What it learns.
        settings: Of the warm start.
        seed: Of the order.
        bf16: Compute in bfloat16; weights are float32 in any case.

    Returns:
        Mean cross-entropy of the policy's tokens, in nats, of each step.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(
        base, torch_dtype=torch.float32, local_files_only=True
    )
    model.to("cuda" if torch.cuda.is_available() else "cpu").train()
    losses = _fit(model, episodes, settings, seed, bf16)
    with replacing_folder(out) as partial:
        model.save_pretrained(partial, safe_serialization=True)
        tokenizer.save_pretrained(partial)
    return losses


def _fit(
    model: Any,
    episodes: Sequence[SyntheticEpisode],
    settings: WarmStartConfig,
    seed: int,
    bf16: bool,
) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    steps = settings.epochs * -(-len(episodes) // settings.batch_size)
    losses: list[float] = []
    for epoch in range(settings.epochs):
        random = np.random.default_rng([seed, epoch])
        order = random.permutation(len(episodes)).tolist()
        # of similar length together, as padding costs as much as text; batches in random order
        order.sort(key=lambda at: len(episodes[at].ids) // 32)
        size = settings.batch_size
        batches = [order[at : at + size] for at in range(0, len(order), size)]
        random.shuffle(batches)
        for batch in batches:
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * (1 - len(losses) / steps)
            optimizer.zero_grad()
            learned = sum(sum(episodes[at].mask[1:]) for at in batch)
            total = 0.0
            for part in _parts([episodes[at] for at in batch]):
                with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16):
                    loss = _loss(model, part) / learned
                loss.backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(total)
            if len(losses) % 5 == 0 or len(losses) == steps:
                logger.info("warm start %d/%d: loss %.3f", len(losses), steps, losses[-1])
    return losses


def _parts(batch: Sequence[SyntheticEpisode]) -> Iterator[list[SyntheticEpisode]]:
    """Yield the episodes in parts of at most `_PART_TOKENS` tokens, or single ones: for memory."""
    part: list[SyntheticEpisode] = []
    for one in batch:
        longest = max(len(other.ids) for other in (*part, one))
        if part and (len(part) + 1) * longest > _PART_TOKENS:
            yield part
            part = []
        part.append(one)
    yield part


def _loss(model: Any, batch: Sequence[SyntheticEpisode]) -> Tensor:
    """Return the sum of the cross-entropy of the policy's tokens."""
    longest = max(len(one.ids) for one in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    own = torch.zeros(len(batch), longest, dtype=torch.bool)
    seen = torch.zeros(len(batch), longest, dtype=torch.long)
    for row, one in enumerate(batch):
        ids[row, : len(one.ids)] = torch.tensor(one.ids)
        own[row, : len(one.ids)] = torch.tensor(one.mask, dtype=torch.bool)
        seen[row, : len(one.ids)] = 1
    ids, own, seen = (part.to(model.device) for part in (ids, own, seen))
    hidden = model.base_model(input_ids=ids, attention_mask=seen).last_hidden_state
    # logits of the learned tokens alone: a vocabulary is wide
    chosen = own[:, 1:]
    logits = model.lm_head(hidden[:, :-1][chosen]).float()
    loss: Tensor = torch.nn.functional.cross_entropy(logits, ids[:, 1:][chosen], reduction="sum")
    return loss
