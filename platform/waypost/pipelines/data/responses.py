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
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa

from waypost.benchmarks.base import CUSTOM
from waypost.config import environment_value, parse
from waypost.contracts.encoder import Encoder
from waypost.contracts.errors import (
    ConfigError,
    Fault,
    MissingExtraError,
    PipelineError,
    RegistryError,
)
from waypost.contracts.tables import write_llms
from waypost.encoders import EncoderSpec, make_encoder
from waypost.engines import engine_class
from waypost.pipelines.data.assemble import Answers, write_tables
from waypost.pipelines.data.calls.parallel import side_by_side
from waypost.pipelines.data.calls.rate_limits import Ledger, Rates, Tally
from waypost.pipelines.data.calls.requests import mixed
from waypost.pipelines.data.config import Candidate, DataConfig, load_data_config, run_folder
from waypost.pipelines.data.embeddings import Progress, keep_embeddings
from waypost.pipelines.data.llm_run import Job, start_scorers
from waypost.pipelines.data.questions_table import Texts, question_table, strata
from waypost.pipelines.ray_session import quiet_ray_data, ray_session
from waypost.scorers import SCORER_VERSION, metric_name
from waypost.secrets import key_ring
from waypost.storage.uri import Uri, is_uri

logger = logging.getLogger(__name__)

CELLS = ".cells"
"""Folder of the logs, inside the routing-data folder."""


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
    encoder = _encoder_without_cache(config)
    questions = question_table(folder)
    _check_metrics(folder, questions)
    order = mixed(strata(questions), config.seed)
    jobs = {
        name: Job(
            name,
            _with_defaults(candidate),
            cells_folder(folder, name),
            questions,
            order,
            config,
            SCORER_VERSION,
        )
        for name, candidate in config.llms.items()
    }
    if any(job.todo for job in jobs.values()):
        with ray_session():
            quiet_ray_data()
            _ask(jobs, questions, config, watcher, began)
    cells = {
        name: Answers(job.folder, job.row_keys, job.candidate.cost_usd)
        for name, job in jobs.items()
    }
    unanswered = write_tables(folder, cells, questions)
    write_llms(folder / "llms.json", [llm.info(name) for name, llm in config.llms.items()])
    keep_embeddings(Texts(questions["query"]), encoder, folder, embedding)
    n_cells = questions.num_rows * len(jobs)
    if n_cells and sum(unanswered.values()) == n_cells:
        raise PipelineError(f"{folder}: no call was answered: {_why(jobs)}")
    tallies = {name: job.tally for name, job in jobs.items()}
    shown = str(Uri(config.out)) if is_uri(config.out) else config.out  # without secrets
    reasons = {name: job.reasons for name, job in jobs.items()}
    return Summary(shown, n_cells, tallies, reasons, unanswered, time.monotonic() - began)


def _encoder_without_cache(config: DataConfig) -> Encoder:
    # every text is embedded once: a cache would be memory for nothing
    one = config.encoder
    spec = EncoderSpec.of(one) if isinstance(one, str) else one
    return make_encoder(spec.model_copy(update={"cache_mb": 0}))


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
        try:
            engine = engine_class(candidate.engine)
        except (RegistryError, MissingExtraError) as error:
            found.append(Fault(f"{at}.engine", str(error)))
            continue
        try:
            parse(engine.config_class, dict(_with_defaults(candidate).config), f"{at}.config")
        except ConfigError as error:
            found += error.faults
        # on a cluster the keys are in the environment of its nodes
        service = candidate.config.get("service") if engine.sends_keys else None
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
    return 0.0 if engine_class(candidate.engine).remote else 1.0


def _with_defaults(candidate: Candidate) -> Candidate:
    defaults = engine_class(candidate.engine).data_defaults
    return candidate.model_copy(update={"config": {**defaults, **candidate.config}})


def _ask(
    jobs: Mapping[str, Job],
    questions: pa.Table,
    config: DataConfig,
    watcher: Watcher | None,
    began: float,
) -> None:
    import ray

    rates = {
        name: Rates(llm.requests_per_minute, llm.tokens_per_minute)
        for name, llm in config.llms.items()
    }
    wishes = {name: job.wish_usd for name, job in jobs.items()}
    ledger = ray.remote(num_cpus=0)(Ledger).remote(rates, config.budget_usd, wishes)
    # askers and scorers may be on other machines, which the mapped file is not
    shared = ray.put(questions)
    if _alone():
        start_scorers(os.cpu_count() or 1)
    # a Ray of our own has more logical CPUs than cores, so that its stages need not queue
    cpus = float(os.cpu_count() or 1) if _alone() else ray.cluster_resources().get("CPU", 1.0)
    todo = {name: job for name, job in jobs.items() if job.todo}

    def work(job: Job) -> Callable[[], None]:
        limited = rates[job.llm] != Rates() or config.budget_usd is not None
        taken = min(actor_cpus(job.candidate), cpus)
        return lambda: job.run(ledger, limited, taken, shared, max(1, int(cpus)))

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


def _why(jobs: Mapping[str, Job]) -> str:
    """Return the first thing that went wrong with each LLM, for a message."""
    found = [
        f"{name}: {next(iter(job.reasons.values()))}" for name, job in jobs.items() if job.reasons
    ]
    return "; ".join(found) or "the budget holds no call"
