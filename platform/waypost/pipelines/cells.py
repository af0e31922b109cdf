"""Asks LLMs and keeps every answer in an append-only file: a run may be ended at any moment.

An answer is a line, found again by a key that is a hash of everything that decides it. A failed
call is kept with its error and is tried again by the next run.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from waypost.contracts.errors import EngineError
from waypost.contracts.generation import GenerateRequest
from waypost.engines import make_engine
from waypost.engines.base import Engine, collect

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with an LLM's name, its answered requests so far, and the number of requests."""

Record = dict[str, Any]
"""One answer: ``cell`` (the request's id), ``error``, and where that is None ``response``,
``input_tokens``, ``output_tokens``, ``latency_s``."""


def cell_id(**decides: Any) -> str:
    """Return the key of an answer: a hash of what decides it."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]


async def ask_all(
    name: str,
    engine_name: str,
    engine_config: Mapping[str, Any],
    concurrency: int,
    requests: Sequence[GenerateRequest],
    path: Path,
    progress: Progress | None,
) -> dict[str, Record]:
    """Ask one LLM what was not answered yet, in the given order.

    Args:
        name: Of the LLM, for `progress` and the log.
        engine_name: The engine's kind.
        engine_config: Its config; it starts only where something is left to ask.
        concurrency: Requests in flight.
        requests: Their ids are the keys (see `cell_id`).
        path: JSONL of the answers.
        progress: Told about every answer.

    Returns:
        The records of all requests, by key.

    Raises:
        WaypostError: the engine cannot start.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    done = {key for key, record in _recorded(path).items() if record["error"] is None}
    todo = [request for request in requests if request.request_id not in done]
    logger.info("%s: %d of %d answers to make", name, len(todo), len(requests))
    if todo:
        engine = make_engine(engine_name, dict(engine_config))
        await engine.start()
        slots = asyncio.Semaphore(concurrency)
        finished = len(requests) - len(todo)
        try:
            with _open(path) as file:

                async def ask(request: GenerateRequest) -> None:
                    nonlocal finished
                    async with slots:
                        _append(file, await _answer(engine, request))
                    finished += 1
                    if progress is not None:
                        progress(name, finished, len(requests))

                await asyncio.gather(*(ask(request) for request in todo))
        finally:
            await engine.close()
    return _recorded(path)


async def _answer(engine: Engine, request: GenerateRequest) -> Record:
    started = time.perf_counter()
    record: Record = {"cell": request.request_id, "error": None}
    try:
        answer = await collect(engine, request)
    except EngineError as error:
        return {**record, "error": f"{type(error).__name__}: {error}"}
    return {
        **record,
        "response": answer.text,
        "input_tokens": answer.usage.input_tokens,
        "output_tokens": answer.usage.output_tokens,
        "latency_s": round(time.perf_counter() - started, 4),
    }


def _open(path: Path) -> TextIO:
    file = path.open("a", encoding="utf-8")
    if file.tell() and not path.read_bytes().endswith(b"\n"):
        file.write("\n")  # ends the line that a killed run was writing
    return file


def _append(file: TextIO, record: Mapping[str, Any]) -> None:
    file.write(json.dumps(record, ensure_ascii=False) + "\n")
    file.flush()


def _recorded(path: Path) -> dict[str, Record]:
    if not path.is_file():
        return {}
    records: dict[str, Record] = {}
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the line that a killed run was writing
        records[record["cell"]] = record
    return records
