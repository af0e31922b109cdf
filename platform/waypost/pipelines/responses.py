"""Asks every LLM every question, scores and prices the answers, writes a routing-data folder.

The run may be ended at any moment and started again (see `waypost.pipelines.cells`). A failed
call is kept with its error and is not scored.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from waypost.config import StrictModel, faults, load_config
from waypost.contracts.errors import ConfigError, Fault
from waypost.contracts.generation import GenerateRequest
from waypost.contracts.records import LLMInfo
from waypost.contracts.tables import SPLITS, split_path, write_llms, write_routing_table
from waypost.pipelines.cells import Progress, ask_all, cell_id
from waypost.scorers import SCORER_VERSION, score

logger = logging.getLogger(__name__)

CELLS = ".cells"
"""Folder of the answers as they came, inside the routing-data folder."""


class Candidate(StrictModel):
    """One LLM of the run: how it is called, and what ``llms.json`` will say of it."""

    engine: str
    config: dict[str, Any] = Field(default_factory=dict)
    concurrency: int = Field(default=8, ge=1, description="requests in flight")
    size: str | None = None
    feature: str = ""
    input_price: float | None = Field(default=None, ge=0)
    output_price: float | None = Field(default=None, ge=0)
    context_length: int | None = Field(default=None, gt=0)

    def info(self, name: str) -> LLMInfo:
        """Return the facts that ``llms.json`` holds."""
        facts = self.model_dump(exclude={"engine", "config", "concurrency"}, exclude_none=True)
        return LLMInfo(name=name, model=self.config.get("model"), **facts)

    def cost_usd(self, input_tokens: int, output_tokens: int) -> float | None:
        """Dollars of one call, or None where a price is unknown."""
        if self.input_price is None or self.output_price is None:
            return None
        return (input_tokens * self.input_price + output_tokens * self.output_price) / 1e6


class ResponsesConfig(StrictModel):
    """A run: questions, LLMs, sampling, and how the questions are split.

    Attributes:
        queries: JSONL of questions, relative to the config file.
        out: Routing-data folder to write, relative to the config file.
        llms: The candidates by name.
        temperature: 0 is greedy.
        seed: Of sampling and of the split.
        test_share: Share of the questions of each task held out as the test split.
    """

    queries: str
    out: str
    llms: dict[str, Candidate] = Field(min_length=1)
    temperature: float = Field(default=0.0, ge=0)
    seed: int = 0
    test_share: float = Field(default=0.2, ge=0, lt=1)


class Question(StrictModel):
    """One line of the questions file.

    Attributes:
        query_id: Unique key.
        task_name: Benchmark kind.
        query: What the LLM is asked, whole.
        choices: Options of a multiple-choice question (``label`` and ``text``), or null.
        ground_truth: Accepted strings, a letter, a number, or the tests of a program.
        metric: Name of the scorer.
        max_tokens: Cap of the answer.
    """

    query_id: str
    task_name: str
    query: str
    choices: list[dict[str, str]] | None = None
    ground_truth: str | list[str]
    metric: str
    max_tokens: int = Field(ge=1)


def read_questions(path: Path) -> list[Question]:
    """Read a questions file.

    Raises:
        ConfigError: with a fault for each line that is not a question, and for each doubled id.
    """
    if not path.is_file():
        raise ConfigError([Fault(str(path), "no such file")])
    questions: list[Question] = []
    found: list[Fault] = []
    seen: set[str] = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        where = f"{path}:{number}"
        try:
            question = Question.model_validate_json(line)
        except ValidationError as error:
            found.extend(faults(error, where))
            continue
        if question.query_id in seen:
            found.append(Fault(where, f"query_id {question.query_id} stands twice"))
        seen.add(question.query_id)
        questions.append(question)
    if found:
        raise ConfigError(found)
    return questions


def run(
    config_path: str | Path, overrides: Sequence[str] = (), progress: Progress | None = None
) -> Path:
    """Answer what is not answered yet, then write the routing-data folder.

    Args:
        config_path: YAML of a `ResponsesConfig`.
        overrides: ``key=value`` settings on top of it.
        progress: Told about every answer.

    Returns:
        The folder. Its parquet files hold one row a cell, failed ones with ``error`` and no
        performance.

    Raises:
        ConfigError: with every fault of the config and of the questions file.
        WaypostError: an engine cannot start.
    """
    config_path = Path(config_path)
    config = load_config(ResponsesConfig, config_path, overrides)
    questions = read_questions(config_path.parent / config.queries)
    out = config_path.parent / config.out
    rows: list[dict[str, Any]] = []
    for name, candidate in config.llms.items():
        requests = [_request(name, candidate, config, question) for question in questions]
        # Longest first: the batch then stays full until the end.
        todo = sorted(requests, key=lambda request: -(request.max_tokens or 0))
        records = asyncio.run(
            ask_all(
                name,
                candidate.engine,
                candidate.config,
                candidate.concurrency,
                todo,
                out / CELLS / f"{name}.jsonl",
                progress,
            )
        )
        rows.extend(
            _row(name, candidate, question, records[request.request_id])
            for question, request in zip(questions, requests, strict=True)
        )
    _write(out, config, questions, rows)
    return out


def _request(
    name: str, candidate: Candidate, config: ResponsesConfig, question: Question
) -> GenerateRequest:
    return GenerateRequest(
        request_id=cell_id(
            model=candidate.config.get("model", name),
            engine=candidate.engine,
            query=question.query,
            max_tokens=question.max_tokens,
            temperature=config.temperature,
            seed=config.seed,
        ),
        messages=[{"role": "user", "content": question.query}],
        max_tokens=question.max_tokens,
        temperature=config.temperature,
        seed=config.seed,
    )


def _row(
    name: str, candidate: Candidate, question: Question, record: Mapping[str, Any]
) -> dict[str, Any]:
    truth = question.ground_truth
    failed = record["error"] is not None
    performance = None
    if not failed:
        performance = score(
            question.metric, record["response"], truth, question.choices, query=question.query
        )
    return {
        "query_id": question.query_id,
        "task_name": question.task_name,
        "query": question.query,
        "ground_truth": truth if isinstance(truth, str) else json.dumps(truth, ensure_ascii=False),
        "metric": question.metric,
        "choices": None if question.choices is None else json.dumps(question.choices),
        "model_name": name,
        "response": record.get("response"),
        "performance": performance,
        "input_tokens": record.get("input_tokens"),
        "output_tokens": record.get("output_tokens"),
        "cost_usd": None
        if failed
        else candidate.cost_usd(record["input_tokens"], record["output_tokens"]),
        "latency_s": record.get("latency_s"),
        "scorer_version": SCORER_VERSION,
        "error": record["error"],
    }


def split_of(questions: Iterable[Question], test_share: float, seed: int) -> dict[str, str]:
    """Assign each question to ``train`` or ``test``, the same share of every task.

    Within a task the questions are ordered by a hash of seed and id, so that adding a question
    moves at most one other.
    """
    by_task: dict[str, list[str]] = {}
    for question in questions:
        by_task.setdefault(question.task_name, []).append(question.query_id)
    assigned: dict[str, str] = {}
    for ids in by_task.values():
        ids.sort(key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
        n_test = round(len(ids) * test_share)
        assigned.update({key: "test" if i < n_test else "train" for i, key in enumerate(ids)})
    return assigned


def _write(
    out: Path,
    config: ResponsesConfig,
    questions: Sequence[Question],
    rows: Sequence[dict[str, Any]],
) -> None:
    assigned = split_of(questions, config.test_share, config.seed)
    for split in SPLITS:
        part = [row for row in rows if assigned[row["query_id"]] == split]
        if part:
            columns = {key: [row[key] for row in part] for key in part[0]}
            write_routing_table(split_path(out, split), columns)
    write_llms(out / "llms.json", [llm.info(name) for name, llm in config.llms.items()])
