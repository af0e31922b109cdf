"""The thread that generates: requests join the running batch between tokens and leave it when
they are finished.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from waypost.contracts.errors import EngineError
from waypost.engines._lm_batch import LiveSequence, down, full, stand_back
from waypost.engines._lm_cache import RowCache
from waypost.engines._lm_guided import Guided
from waypost.engines._lm_model import LanguageModel

GREEDY_BELOW = 1e-5
"""Temperatures below this are greedy; dividing by less overflows nothing but says nothing."""

_NUCLEUS = 256
"""Sorting a vocabulary of 150,000 takes longer than a small model's step, and the nucleus of
most steps is within the first few tokens: the whole is sorted only where it is not."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen: `temperature` 0 is greedy; `generator` is this request's own.

    `guided` leaves only tokens that keep the answer to its format.
    """

    temperature: float
    top_p: float
    generator: torch.Generator
    guided: Guided | None = None


def sample(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> int:
    """Draw one token.

    Args:
        logits: float32 (vocabulary).
        temperature: At least `GREEDY_BELOW`.
        top_p: Mass of the nucleus in (0, 1]: the fewest most likely tokens that reach it.
        generator: The request's own, so that its draws depend on no other request.
    """
    weights = torch.softmax(logits / temperature, dim=-1)
    if top_p >= 1.0:
        return int(torch.multinomial(weights, 1, generator=generator))
    best, tokens = torch.topk(weights, min(_NUCLEUS, len(weights)))
    if float(best.sum()) < top_p:
        best, tokens = torch.sort(weights, descending=True)
    before = torch.cumsum(best, dim=-1) - best
    best = torch.where(before < top_p, best, 0.0)
    return int(tokens[torch.multinomial(best, 1, generator=generator)])


LMSequence = LiveSequence[Sampling]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the loop: rows of a batch, requests that may wait, prompt tokens a turn."""

    max_batch_size: int
    max_waiting: int
    prefill_tokens: int


class BatchLoop:
    """Runs one model in a thread of its own.

    Args:
        limits: Its bounds.
        threads: CPU threads of a forward pass; None leaves torch's default.
        nice: How far they stand back behind other threads, where the model is on the CPU.
        flush: Called in the thread after each turn: hands what was put out to the readers.

    Attributes:
        model: The model, once `start` has returned.
        output_tokens: Tokens made since the start.
        steps: Steps of the batch since the start; each makes one token for every row.
    """

    def __init__(
        self, limits: Limits, threads: int | None, nice: int, flush: Callable[[], None]
    ) -> None:
        self.output_tokens = 0
        self.steps = 0
        self._limits = limits
        self._threads = threads
        self._nice = nice
        self._flush = flush
        self._changed = threading.Condition()
        self._waiting: deque[LMSequence] = deque()
        self._reading: LMSequence | None = None  # its prompt is being read
        self._read_cache = RowCache()
        self._read_cache.lengths = [0]
        self._read_prompt: list[int] = []  # what the read cache holds
        self._read_logits: Tensor | None = None  # of its last token
        self._running: list[LMSequence] = []  # row i of the batch is the i-th
        self._cache = RowCache()
        self._stopping = False
        self._failed = False
        self._thread: threading.Thread | None = None

    def start(self, load: Callable[[], LanguageModel]) -> None:
        """Load the model and begin. Blocks until the model is ready.

        Raises:
            WeightsError: as `load` does.
        """
        ready = threading.Event()
        failure: list[BaseException] = []

        def body() -> None:
            # torch's thread count belongs to the thread that computes
            if self._threads is not None:
                torch.set_num_threads(self._threads)
            try:
                if not torch.cuda.is_available():
                    stand_back(self._nice)
                self.model = load()
            except BaseException as error:  # noqa: BLE001 - handed to the caller of start
                failure.append(error)
                return
            finally:
                ready.set()
            self._run()

        self._thread = threading.Thread(target=body, name="waypost-generate", daemon=True)
        self._thread.start()
        ready.wait()
        if failure:
            raise failure[0]

    @property
    def alive(self) -> bool:
        """Whether it takes requests."""
        return self._thread is not None and not self._stopping and not self._failed

    def __len__(self) -> int:
        with self._changed:  # a request that moves on is counted once
            return len(self._waiting) + len(self._running) + (self._reading is not None)

    def submit(self, sequence: LMSequence) -> None:
        """Let a request wait for its turn.

        Raises:
            EngineOverloadedError: where `max_waiting` requests wait already.
            EngineServerError: after a crash of the loop.
            EngineConnectionError: after `stop`.
        """
        with self._changed:
            if not self.alive:
                raise self._down()
            if len(self) >= self._limits.max_batch_size + self._limits.max_waiting:
                raise full(self.model.name, len(self))
            self._waiting.append(sequence)
            self._changed.notify()

    def cancel(self, sequence: LMSequence) -> None:
        """Let a request end before its next token."""
        with self._changed:
            sequence.cancelled = True
            self._changed.notify()

    def stop(self) -> None:
        """End the thread; what runs or waits fails with an EngineConnectionError. Blocks."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                while self._wait_for_work():
                    self._turn()
                    self._flush()
        except Exception:
            # The edge of the thread: whatever failed, nobody may wait for ever.
            logger.exception("%s: generation crashed; the engine stops", self.model.name)
            self._failed = True
        with self._changed:
            self._stopping = True
            for sequence in self._all():
                sequence.fail(self._down())
            self._waiting.clear()
            self._running, self._reading = [], None
        self._flush()

    def _wait_for_work(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or len(self) > 0)
            return not self._stopping

    def _all(self) -> list[LMSequence]:
        reading = [] if self._reading is None else [self._reading]
        return [*self._running, *reading, *self._waiting]

    def _down(self) -> EngineError:
        return down(self.model.name, crashed=self._failed)

    def _turn(self) -> None:
        self._drop_cancelled()
        self._read_prompts()
        if self._running:
            logits = self.model.next_logits([[s.last] for s in self._running], self._cache)
            self.steps += 1
            self._accept(self._running, logits)
            for row in range(len(self._running) - 1, -1, -1):
                if self._running[row].finished:
                    self._leave(row)

    def _drop_cancelled(self) -> None:
        with self._changed:
            gone = [sequence for sequence in self._all() if sequence.cancelled]
            for sequence in gone:
                sequence.cancel()
                if sequence in self._waiting:
                    self._waiting.remove(sequence)
        if self._reading in gone:
            self._reading = None
        for row in range(len(self._running) - 1, -1, -1):
            if self._running[row].finished:
                self._leave(row)

    def _read_prompts(self) -> None:
        left = self._limits.prefill_tokens
        while left > 0 and (sequence := self._next_prompt()) is not None:
            part = sequence.prompt[sequence.done : sequence.done + left]
            if part:
                self._read_logits = self.model.next_logits([part], self._read_cache)
                left -= len(part)
                sequence.done += len(part)
                self._read_prompt = sequence.prompt[: sequence.done]
            if sequence.done == len(sequence.prompt):
                assert self._read_logits is not None  # of the prompt's last token
                self._accept([sequence], self._read_logits)
                if not sequence.finished:
                    self._cache.append(self._read_cache)
                with self._changed:
                    self._reading = None
                    if not sequence.finished:
                        self._running.append(sequence)

    def _next_prompt(self) -> LMSequence | None:
        if self._reading is None and len(self._running) < self._limits.max_batch_size:
            with self._changed:
                self._reading = self._waiting.popleft() if self._waiting else None
            if self._reading is not None:
                self._keep_common(self._reading)
        return self._reading

    def _keep_common(self, sequence: LMSequence) -> None:
        if sequence.prompt == self._read_prompt and self._read_logits is not None:
            sequence.done = len(sequence.prompt)
            return
        # The last token is read in any case: its logits are the first of the answer.
        most = min(len(self._read_prompt), len(sequence.prompt) - 1)
        pairs = zip(self._read_prompt[:most], sequence.prompt, strict=False)
        common = next((i for i, (a, b) in enumerate(pairs) if a != b), most)
        self._read_cache.lengths = [common]
        self._read_prompt = self._read_prompt[:common]
        self._read_logits = None
        sequence.done = common

    def _accept(self, sequences: list[LMSequence], logits: Tensor) -> None:
        logits = _guided_logits(sequences, logits)
        best = logits.argmax(dim=-1).tolist()
        self.output_tokens += len(sequences)
        for row, sequence in enumerate(sequences):
            if sequence.finished:  # its format could not be kept
                continue
            how = sequence.sampling
            token = best[row]
            if how.temperature >= GREEDY_BELOW:
                token = sample(logits[row], how.temperature, how.top_p, how.generator)
            sequence.accept(token, self.model.end_ids)
            if how.guided is not None and not sequence.finished:
                how.guided.take(token)
                if how.guided.complete:  # only an end token could follow
                    sequence.end("stop")

    def _leave(self, row: int) -> None:
        # as RowCache.remove: the last row takes the place
        self._cache.remove(row)
        last = self._running.pop()
        if row < len(self._running):
            self._running[row] = last


def _guided_logits(sequences: list[LMSequence], logits: Tensor) -> Tensor:
    """Return the logits with those forbidden that would break a row's format.

    A row whose format cannot be kept any more fails.
    """
    guided = {row: s.sampling.guided for row, s in enumerate(sequences) if s.sampling.guided}
    if not guided:
        return logits
    logits = logits.clone()  # those of a prompt are kept for the next request
    for row, one in guided.items():
        try:
            forbidden = torch.from_numpy(one.forbidden()).to(logits.device)
        except EngineError as error:
            sequences[row].fail(error)
            continue
        logits[row].masked_fill_(forbidden, -torch.inf)
    return logits
