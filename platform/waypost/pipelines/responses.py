"""The third phase of a data run: every LLM answers every question, answers are scored and priced.

Inside the routing-data folder, ``.cells/<llm>`` holds two logs. ``answers`` is written by whoever
asked, at the moment of the answer: a cache of responses by cell id. ``rows`` is written here, with
the scores. A run asks for what has no row (the anti-join); what has an answer and no row is scored
and not asked again. At the end the rows become the tables, which until then stay as they were.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from waypost.benchmarks.base import CUSTOM
from waypost.config import environment_value, parse, settings
from waypost.contracts.errors import (
    ConfigError,
    Fault,
    PipelineError,
    RegistryError,
    WaypostError,
)
from waypost.contracts.tables import write_llms
from waypost.encoders import make_encoder
from waypost.engines import engine_config, engine_names
from waypost.pipelines.asking.asker import LEFT
from waypost.pipelines.asking.crowd import side_by_side
from waypost.pipelines.asking.ledger import Ledger, Rates, Tally
from waypost.pipelines.asking.logs import AppendLog, LogIndex
from waypost.pipelines.asking.requests import cell_id, request_table
from waypost.pipelines.asking.stream import Stream
from waypost.pipelines.assembly import ERRORS, ROWS, Answers, write_tables
from waypost.pipelines.data_config import Candidate, DataConfig, load_data_config, run_folder
from waypost.pipelines.embed import Progress, query_embeddings
from waypost.pipelines.questions_table import question_table, row_key
from waypost.pipelines.ray_session import quiet_ray_data, ray_session
from waypost.pipelines.scoring import score_outcomes
from waypost.scorers import SCORER_VERSION, metric_name
from waypost.secrets import key_ring
from waypost.storage.uri import Uri, is_uri

logger = logging.getLogger(__name__)

CELLS = ".cells"
"""Folder of the logs, inside the routing-data folder."""

_REMOTE = {"openai", "replay", "echo"}
"""Engines that take no CPU worth counting."""

_PATIENT = {"stream": False, "max_retries": 5, "retry_max_s": 60.0}
"""How endpoints are called unless the run says otherwise: nobody waits for the first token, and
a minute's wait that an endpoint asks for is worth an answer."""


@dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes:
        llm: Name.
        total: Cells of this LLM that the run has to do.
        tally: What was done of them.
    """

    llm: str
    total: int
    tally: Tally


Watcher = Callable[[Sequence[State], float], None]
"""Told the states of all LLMs and the seconds since the start, about twice a second."""


@dataclass(frozen=True)
class Summary:
    """What a run left.

    Attributes:
        folder: Routing data, as the config names it.
        cells: Of questions and LLMs.
        llms: What this run did, by LLM.
        reasons: By LLM and kind of error (`Tally.errors`), the first one in its own words.
        unanswered: Cells without an answer after it, by LLM.
        seconds: It took.
    """

    folder: str
    cells: int
    llms: Mapping[str, Tally]
    reasons: Mapping[str, Mapping[str, str]]
    unanswered: Mapping[str, int]
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every cell has an answer."""
        return not any(self.unanswered.values())


def run(
    config_path: str | Path,
    overrides: Sequence[str] = (),
    watcher: Watcher | None = None,
    embedding: Progress | None = None,
) -> Summary:
    """Answer what is not answered yet, then write the tables of the routing-data folder.

    Args:
        config_path: YAML of a `DataConfig`; its folder holds the questions of the first phase.
        overrides: ``key=value`` settings on top of it.
        watcher: Told how far the answers are.
        embedding: Told how far the embeddings of the questions are.

    Raises:
        ConfigError: with every fault of the config and of the questions.
        StorageError, WeightsError: the store, or the encoder, cannot be had.
        PipelineError: no cell at all could be answered.
    """
    config_path = Path(config_path)
    config = load_data_config(config_path, overrides)
    check_candidates(config, str(config_path))
    with run_folder(config_path, config) as folder:
        return _run(folder, config, watcher, embedding)


def _run(
    folder: Path, config: DataConfig, watcher: Watcher | None, embedding: Progress | None
) -> Summary:
    began = time.monotonic()
    encoder = make_encoder(config.encoder)
    questions = question_table(folder)
    _check_metrics(folder, questions)
    jobs = {
        name: _Job(name, _with_patience(candidate), cells_folder(folder, name), questions, config)
        for name, candidate in config.llms.items()
    }
    if any(job.todo for job in jobs.values()):
        with ray_session():
            quiet_ray_data()
            _ask(jobs, config, watcher, began)
    cells = {
        name: Answers(job.folder, job.row_keys, job.candidate.cost_usd)
        for name, job in jobs.items()
    }
    unanswered = write_tables(folder, cells, questions)
    write_llms(folder / "llms.json", [llm.info(name) for name, llm in config.llms.items()])
    query_embeddings(questions["query"].to_pylist(), encoder, folder, embedding)
    n_cells = questions.num_rows * len(jobs)
    if n_cells and sum(unanswered.values()) == n_cells:
        raise PipelineError(f"{folder}: no call was answered: {_why(jobs)}")
    tallies = {name: job.tally for name, job in jobs.items()}
    shown = str(Uri(config.out)) if is_uri(config.out) else config.out  # without secrets
    reasons = {name: job.reasons for name, job in jobs.items()}
    return Summary(shown, n_cells, tallies, reasons, unanswered, time.monotonic() - began)


def _alone() -> bool:
    """Say whether the run has a Ray of its own on this machine."""
    return environment_value("RAY_ADDRESS") is None


def _check_metrics(folder: Path, questions: pa.Table) -> None:
    found = []
    for metric in questions["metric"].unique().to_pylist():
        try:
            if not metric.startswith(CUSTOM):
                metric_name(metric)
        except RegistryError as error:
            found.append(Fault(f"{folder}: questions", str(error)))
    if found:
        raise ConfigError(found)


def cells_folder(folder: Path, llm: str) -> Path:
    """Return the folder of an LLM's logs; names such as ``org/model`` are one folder, too."""
    return folder / CELLS / quote(llm, safe=" ").replace(".", "%2E", not llm.strip("."))


def check_candidates(config: DataConfig, where: str) -> None:
    """Check the settings of every engine, and that a budget can be kept.

    Raises:
        ConfigError: with every fault.
    """
    found: list[Fault] = []
    for name, candidate in config.llms.items():
        at = f"{where}: llms.{name}"
        if candidate.engine not in engine_names():
            problem = f"no engine {candidate.engine!r}; there are {', '.join(engine_names())}"
            found.append(Fault(f"{at}.engine", problem))
            continue
        try:
            given = _with_patience(candidate).config
            parse(engine_config(candidate.engine), dict(given), f"{at}.config")
        except ConfigError as error:
            found += error.faults
        except WaypostError as error:  # a package that the engine needs is not installed
            found.append(Fault(at, str(error)))
        # on a cluster the keys are in the environment of its nodes
        service = candidate.config.get("service") if candidate.engine == "openai" else None
        if isinstance(service, str) and _alone() and not key_ring().count(service):
            problem = f"no key for the service {service!r}: set it in API_KEYS"
            found.append(Fault(f"{at}.config.service", problem))
        if config.budget_usd is not None and candidate.cost_usd(1, 1) is None:
            found.append(Fault(at, "needs input_price and output_price: the run has budget_usd"))
    if found:
        raise ConfigError(found)


def actor_cpus(candidate: Candidate) -> float:
    """Return the CPUs that an actor of this LLM takes."""
    if candidate.cpus is not None:
        return candidate.cpus
    return 0.0 if candidate.engine in _REMOTE else 1.0


def _with_patience(candidate: Candidate) -> Candidate:
    if candidate.engine != "openai":
        return candidate
    return candidate.model_copy(update={"config": {**_PATIENT, **candidate.config}})


class _Job:
    """One LLM's share of a run."""

    def __init__(
        self, llm: str, candidate: Candidate, folder: Path, questions: pa.Table, config: DataConfig
    ) -> None:
        self.llm, self.candidate, self.folder = llm, candidate, folder
        self.questions = questions
        self.tally = Tally()
        self.reasons: dict[str, str] = {}
        sampling = {"temperature": config.temperature, "top_p": config.top_p, "seed": config.seed}
        cells, self.row_keys = self._keys(sampling)
        with LogIndex(folder, ROWS) as written:
            todo = [item for item, key in enumerate(self.row_keys) if key not in written]
        # Longest first: a batch then stays full until the end. A cell that several questions
        # share is asked once: the others follow when its answer is in the cache.
        longest = questions["max_tokens"].to_pylist()
        todo.sort(key=lambda item: -longest[item])
        asked: set[str] = set()
        first: list[int] = []
        others: list[int] = []
        for item in todo:
            (others if cells[item] in asked else first).append(item)
            asked.add(cells[item])
        self.rounds = [
            request_table(
                {
                    "key": cells[item],
                    "item": item,
                    "prompt": questions["query"][item].as_py(),
                    "max_tokens": longest[item],
                    **sampling,
                }
                for item in items
            )
            for items in (first, others)
        ]
        self.todo = len(todo)

    def _keys(self, sampling: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        cells, rows = [], []
        for batch in self.questions.to_batches(max_chunksize=4096):
            for question in batch.to_pylist():
                request = {"prompt": question["query"], "max_tokens": question["max_tokens"]}
                cell = cell_id(self.llm, self.candidate, {**request, **sampling})
                cells.append(cell)
                rows.append(row_key(cell, question, SCORER_VERSION))
        return cells, rows

    def run(self, ledger: Any, booked: bool, cpus: float, questions: Any) -> None:
        """Make every row that is missing."""
        import ray

        stream = Stream(self.llm, self.candidate, self.folder, ledger, booked, cpus)
        rows, errors = AppendLog(self.folder, ROWS), AppendLog(self.folder, ERRORS)
        try:
            for requests in self.rounds:
                stage = partial(
                    score_outcomes,
                    requests=ray.put(requests.select(["item"])),
                    questions=questions,
                    plugin_paths=settings().plugin_paths,
                )
                items = requests["item"]
                for table in stream.outcomes(requests, stage):
                    for row in table.to_pylist():
                        self._keep(row, self.row_keys[items[row["request"]].as_py()], rows, errors)
        finally:
            rows.close()
            errors.close()

    def _keep(self, row: dict[str, Any], key: str, rows: AppendLog, errors: AppendLog) -> None:
        del row["request"]
        cached = row.pop("cached")
        tally, error = self.tally, row["error"]
        tally.done += 1
        tally.cached += cached
        if error == LEFT:
            tally.left += 1
        elif error is not None:
            tally.failed += 1
            kind = error.partition(":")[0]
            tally.errors[kind] += 1
            self.reasons.setdefault(kind, error.removeprefix(f"{kind}: "))
            errors.append(key, row)
        else:
            rows.append(key, row)
        if not cached and row["cost_usd"] is not None:
            tally.usd += row["cost_usd"]


def _ask(
    jobs: Mapping[str, _Job], config: DataConfig, watcher: Watcher | None, began: float
) -> None:
    import ray

    rates = {
        name: Rates(llm.requests_per_minute, llm.tokens_per_minute)
        for name, llm in config.llms.items()
    }
    ledger = ray.remote(num_cpus=0)(Ledger).remote(rates, config.budget_usd)
    questions = ray.put(next(iter(jobs.values())).questions)
    # a Ray of our own has more logical CPUs than cores, so that its stages need not queue
    cpus = float(os.cpu_count() or 1) if _alone() else ray.cluster_resources().get("CPU", 1.0)
    todo = {name: job for name, job in jobs.items() if job.todo}

    def work(job: _Job) -> Callable[[], None]:
        limited = rates[job.llm] != Rates() or config.budget_usd is not None
        return lambda: job.run(ledger, limited, min(actor_cpus(job.candidate), cpus), questions)

    def poll() -> None:
        if watcher is not None:
            live = ray.get(ledger.tallies.remote())
            states = [State(n, j.todo, live.get(n, Tally())) for n, j in todo.items()]
            watcher(states, time.monotonic() - began)

    failed = side_by_side(
        {name: work(job) for name, job in todo.items()},
        {name: actor_cpus(job.candidate) * job.candidate.actors for name, job in todo.items()},
        cpus,
        poll,
    )
    for name, error in failed.items():
        logger.error("%s: the run of this LLM ended early: %s", name, error)
        todo[name].reasons.setdefault(type(error).__name__, str(error))


def _why(jobs: Mapping[str, _Job]) -> str:
    """Return the first thing that went wrong with each LLM, for a message."""
    found = [
        f"{name}: {next(iter(job.reasons.values()))}" for name, job in jobs.items() if job.reasons
    ]
    return "; ".join(found) or "the budget holds no call"
