"""Third phase of a data run: every LLM answers every question, and answers are scored and priced.

Inside the routing-data folder, ``.cells/<llm>`` holds two logs. ``answers`` is a cache of responses
by cell id, written by the worker at the moment of the answer. ``rows`` holds the scored answers.
A run makes the missing rows (an anti-join); an answer without a row is scored and not asked again.
At the end the rows replace the tables of the folder.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from waypost.benchmarks.base import CUSTOM
from waypost.config import parse
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
from waypost.pipelines.data.assemble import AnswerLog, write_tables
from waypost.pipelines.data.calls.log import log_folder
from waypost.pipelines.data.calls.parallel import cpus_of_run, owns_ray, run_parallel
from waypost.pipelines.data.calls.rate_limits import RateLimiter, RateLimits, Tally
from waypost.pipelines.data.calls.requests import mixed
from waypost.pipelines.data.config import DataConfig, LLMConfig, load_data_config, run_folder
from waypost.pipelines.data.embeddings import Progress, keep_embeddings
from waypost.pipelines.data.llm_run import LLMRun, start_scorers
from waypost.pipelines.data.questions_table import Texts, question_table, strata
from waypost.ray_session import quiet_ray_data, ray_session
from waypost.scorers import SCORER_VERSION, metric_name
from waypost.secrets import key_ring
from waypost.storage.uri import Uri, is_uri

logger = logging.getLogger(__name__)

CELLS = ".cells"
"""Folder of the logs, inside the routing-data folder."""


@dataclass(frozen=True)
class LLMProgress:
    """Progress of one LLM in a run.

    Attributes:
        llm: Name of the LLM.
        total: Number of its cells in this run.
        tally: Counts so far.
    """

    llm: str
    total: int
    tally: Tally


RunWatcher = Callable[[Sequence[LLMProgress], float], None]
"""Called about twice a second with the progress of all LLMs and the seconds since the start."""


@dataclass(frozen=True)
class Summary:
    """Result of a run.

    Attributes:
        folder: Routing-data folder as in the config.
        cells: Number of pairs of question and LLM.
        llms: Counts of this run, by LLM.
        reasons: LLM -> kind of error (`Tally.errors`) -> its first message.
        unanswered: Cells without an answer after the run, by LLM.
        seconds: Duration.
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
    watcher: RunWatcher | None = None,
    embedding: Progress | None = None,
) -> Summary:
    """Get the missing answers, then write the tables of the routing-data folder.

    Args:
        config_path: YAML of a `DataConfig`; its folder holds the questions of the first phase.
        overrides: ``key=value`` settings on top of it.
        watcher: Called with the progress of the answers.
        embedding: Called with the progress of the question embeddings.

    Raises:
        ConfigError: With all faults of the config and of the questions.
        StorageError, WeightsError: The store or the encoder is not available.
        PipelineError: No cell was answered.
    """
    config_path = Path(config_path)
    config = load_data_config(config_path, overrides)
    check_llms(config, str(config_path))
    with run_folder(config_path, config) as folder:
        return _run(folder, config, watcher, embedding)


def _run(
    folder: Path, config: DataConfig, watcher: RunWatcher | None, embedding: Progress | None
) -> Summary:
    began = time.monotonic()
    encoder = _encoder_without_cache(config)
    questions = question_table(folder)
    _check_metrics(folder, questions)
    order = mixed(strata(questions), config.seed)
    llm_runs = {
        name: LLMRun(
            name,
            with_defaults(llm_config),
            cells_folder(folder, name),
            questions,
            order,
            config,
            SCORER_VERSION,
        )
        for name, llm_config in config.llms.items()
    }
    if any(llm_run.todo for llm_run in llm_runs.values()):
        with ray_session():
            quiet_ray_data()
            _ask(llm_runs, questions, config, watcher, began)
    cells = {
        name: AnswerLog(llm_run.folder, llm_run.row_keys, llm_run.llm_config.cost_usd)
        for name, llm_run in llm_runs.items()
    }
    unanswered = write_tables(folder, cells, questions)
    write_llms(folder / "llms.json", [llm.info(name) for name, llm in config.llms.items()])
    keep_embeddings(Texts(questions["query"]), encoder, folder, embedding)
    n_cells = questions.num_rows * len(llm_runs)
    if n_cells and sum(unanswered.values()) == n_cells:
        raise PipelineError(f"{folder}: no call was answered: {_why(llm_runs)}")
    tallies = {name: llm_run.tally for name, llm_run in llm_runs.items()}
    shown = str(Uri(config.out)) if is_uri(config.out) else config.out  # without secrets
    reasons = {name: llm_run.reasons for name, llm_run in llm_runs.items()}
    return Summary(shown, n_cells, tallies, reasons, unanswered, time.monotonic() - began)


def _encoder_without_cache(config: DataConfig) -> Encoder:
    # Each text is embedded once, so a cache would only take memory.
    one = config.encoder
    spec = EncoderSpec.of(one) if isinstance(one, str) else one
    return make_encoder(spec.model_copy(update={"cache_mb": 0}))


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
    """Return the folder of an LLM's logs in a routing-data folder."""
    return log_folder(folder / CELLS, llm)


def check_llms(config: DataConfig, where: str) -> None:
    """Check the settings of every engine, and the prices that a budget needs.

    Raises:
        ConfigError: With all faults.
    """
    found: list[Fault] = []
    for name, llm_config in config.llms.items():
        at = f"{where}: llms.{name}"
        try:
            engine = engine_class(llm_config.engine)
        except (RegistryError, MissingExtraError) as error:
            found.append(Fault(f"{at}.engine", str(error)))
            continue
        try:
            parse(engine.config_class, dict(with_defaults(llm_config).config), f"{at}.config")
        except ConfigError as error:
            found += error.faults
        # On a cluster the keys are in the environment of its nodes.
        service = llm_config.config.get("service") if engine.sends_keys else None
        if isinstance(service, str) and owns_ray() and not key_ring().count(service):
            problem = f"no key for the service {service!r}: set it in API_KEYS"
            found.append(Fault(f"{at}.config.service", problem))
        if config.budget_usd is not None and llm_config.cost_usd(1, 1) is None:
            found.append(Fault(at, "needs input_price and output_price: the run has budget_usd"))
    if found:
        raise ConfigError(found)


def actor_cpus(llm_config: LLMConfig) -> float:
    """Return the CPUs of an actor of this LLM."""
    if llm_config.cpus is not None:
        return llm_config.cpus
    return 0.0 if engine_class(llm_config.engine).remote else 1.0


def with_defaults(llm_config: LLMConfig) -> LLMConfig:
    """Return the configuration with the engine's settings of data runs where it gives no other."""
    defaults = engine_class(llm_config.engine).data_defaults
    return llm_config.model_copy(update={"config": {**defaults, **llm_config.config}})


def _ask(
    llm_runs: Mapping[str, LLMRun],
    questions: pa.Table,
    config: DataConfig,
    watcher: RunWatcher | None,
    began: float,
) -> None:
    import ray

    rates = {
        name: RateLimits(llm.requests_per_minute, llm.tokens_per_minute)
        for name, llm in config.llms.items()
    }
    max_costs = {name: llm_run.max_cost_usd for name, llm_run in llm_runs.items()}
    limiter = ray.remote(num_cpus=0)(RateLimiter).remote(rates, config.budget_usd, max_costs)
    # Workers and scorers can run on machines without the mapped file.
    shared = ray.put(questions)
    if owns_ray():
        start_scorers(os.cpu_count() or 1)
    cpus = cpus_of_run()
    todo = {name: llm_run for name, llm_run in llm_runs.items() if llm_run.todo}

    def work(llm_run: LLMRun) -> Callable[[], None]:
        limited = rates[llm_run.llm] != RateLimits() or config.budget_usd is not None
        taken = min(actor_cpus(llm_run.llm_config), cpus)
        return lambda: llm_run.run(limiter, limited, taken, shared, max(1, int(cpus)))

    def poll() -> None:
        if watcher is not None:
            live = ray.get(limiter.tallies.remote())
            states = [LLMProgress(n, j.todo, live.get(n, Tally())) for n, j in todo.items()]
            watcher(states, time.monotonic() - began)

    failed = run_parallel(
        {name: work(llm_run) for name, llm_run in todo.items()},
        {
            name: actor_cpus(llm_run.llm_config) * llm_run.llm_config.actors
            for name, llm_run in todo.items()
        },
        cpus,
        poll,
    )
    for name, error in failed.items():
        logger.error("%s: the run of this LLM ended early: %s", name, error)
        todo[name].reasons.setdefault(type(error).__name__, str(error))


def _why(llm_runs: Mapping[str, LLMRun]) -> str:
    """Return the first error of each LLM, for a message."""
    found = [
        f"{name}: {next(iter(llm_run.reasons.values()))}"
        for name, llm_run in llm_runs.items()
        if llm_run.reasons
    ]
    return "; ".join(found) or "the budget holds no call"
