"""Configuration of a data run, and the folder it writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from waypost.config import StrictModel, load_config, read_yaml
from waypost.contracts.errors import ConfigError, Fault, MissingExtraError, RegistryError
from waypost.contracts.pricing import PriceList
from waypost.contracts.records import LLM, LLMInfo
from waypost.encoders import EncoderSpec
from waypost.engines import engine_class
from waypost.price_library import priced
from waypost.storage import Place, alone_in, mirrored, place

_KEEP_S = 10.0
"""Seconds between two copies to a store; a killed run loses at most this time of work."""


class BenchmarkChoice(StrictModel):
    """Source and sample size of a benchmark.

    Attributes:
        path: File or folder with rows of the hub's schema (parquet, JSONL, JSONL.gz, CSV),
            relative to the config file; None loads the hub's own data set.
        split: Split of the hub's data set; None is the benchmark's default.
        revision: Revision of the hub's data set; None is the newest.
        n: Number of questions, drawn by seed; None takes all.
        max_tokens: Maximum tokens of an answer; None is the benchmark's default.
        instruction: Line added below each question, such as "Answer in a few words."; it is part of
            the question and of its id.
    """

    path: str | None = None
    split: str | None = None
    revision: str | None = None
    n: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    instruction: str = ""


class LLMConfig(LLM):
    """An LLM of the run: how it is called, and its facts for ``llms.json``.

    Attributes:
        revision: Revision of the model or its provider; part of the key of an answer.
        concurrency: Requests in flight, over all actors.
        actors: Worker processes; each loads a local model of its own.
        cpus: CPUs of an actor; None is 0 for remote endpoints, else 1.
        gpus: GPUs of an actor.
        requests_per_minute: Maximum calls started per minute, over all actors.
        tokens_per_minute: Maximum tokens of prompts and answers per minute, over all actors.
        timeout_s: Time limit of a call, including retries.
        size: Number of parameters, such as ``7B`` or ``8x22B``.
        feature: Description of its strengths; used by routers that embed the LLMs.
        context_length: Maximum tokens of prompt and answer together.
    """

    revision: str | None = None
    concurrency: int = Field(default=8, ge=1, le=4096)
    actors: int = Field(default=1, ge=1)
    cpus: float | None = Field(default=None, ge=0)
    gpus: float = Field(default=0, ge=0)
    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    timeout_s: float | None = Field(default=None, gt=0)
    size: str | None = None
    feature: str = ""
    context_length: int | None = Field(default=None, gt=0)

    def info(self, name: str) -> LLMInfo:
        """Return the LLM's entry of ``llms.json``."""
        keys = {"size", "feature", "context_length", *PriceList.model_fields}
        facts = self.model_dump(include=keys, exclude_none=True)
        endpoint, service = self.config.get("base_url"), self.config.get("service")
        return LLMInfo(
            name=name,
            model=self.config.get("model"),
            api_endpoint=endpoint,
            service=service,
            **facts,
        )


class DataConfig(StrictModel):
    """A data run: questions, LLMs, sampling, and how the questions are split.

    Attributes:
        out: Routing-data folder to write: a path relative to the config file, or a URI.
        benchmarks: Sources and sample sizes by benchmark name (``waypost list-benchmarks``).
        questions: Files of further questions (JSON lines, a JSON list or CSV; see
            `waypost.contracts.questions.Question`), relative to the config file. Each needs a
            ``query`` and a ``ground_truth``; the other keys have defaults.
        test_share: Share of the questions of each task held out as the test split; 1 leaves no
            other split.
        validation_share: The same for the validation split.
        seed: Seed of the sample, the split, and the LLMs' sampling.
        encoder: Encoder of the embeddings of queries and LLMs: a kind, an id, or its keys.
        llms: The LLMs by name; ``waypost data queries`` needs none.
        temperature: Sampling temperature; 0 is greedy.
        top_p: Probability mass of nucleus sampling.
        budget_usd: Maximum dollars for the answers of one run; None is no limit. With a budget
            every LLM needs prices. The budget covers the same share of each LLM's cells, across
            splits and tasks.
    """

    out: str
    benchmarks: dict[str, BenchmarkChoice] = Field(default_factory=dict)
    questions: list[str] = Field(default_factory=list)
    test_share: float = Field(default=0.2, ge=0, le=1)
    validation_share: float = Field(default=0.0, ge=0, lt=1)
    seed: int = Field(default=0, ge=0)
    encoder: str | EncoderSpec = "static"
    llms: dict[str, LLMConfig] = Field(default_factory=dict)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    budget_usd: float | None = Field(default=None, gt=0)

    @property
    def only_test(self) -> bool:
        """Whether all questions are of the test split."""
        return self.test_share == 1 and self.validation_share == 0

    @field_validator("benchmarks", mode="before")
    @classmethod
    def _all_of_it(cls, value: Any) -> Any:
        # `gsm8k:` without keys takes all of that benchmark
        if not isinstance(value, dict):
            return value
        return {key: {} if one is None else one for key, one in value.items()}


def load_data_config(
    path: Path, overrides: Sequence[str] = (), *, needs_llms: bool = True
) -> DataConfig:
    """Read a run.

    Args:
        path: YAML of a `DataConfig`.
        overrides: ``key=value`` settings on top of it.
        needs_llms: Whether the caller asks LLMs.

    Raises:
        ConfigError: With all faults of the file's form, or it has no LLM, or the price library
            lacks the price of one.
    """
    try:
        config = load_config(DataConfig, path, overrides)
    except ConfigError as error:
        raise ConfigError([*error.faults, *_engine_faults(path)]) from None
    if not needs_llms:
        return config
    need_llms(config, str(path))
    return with_library_prices(config, str(path))


def _engine_faults(path: Path) -> list[Fault]:
    """Return the faults of engines' names in a file whose other keys are wrong."""
    try:
        llms = read_yaml(path).get("llms")
    except ConfigError:  # told already
        return []
    found = []
    for name, entry in llms.items() if isinstance(llms, dict) else ():
        engine = entry.get("engine") if isinstance(entry, dict) else None
        try:
            _ = engine_class(engine) if isinstance(engine, str) else None
        except (RegistryError, MissingExtraError) as error:
            found.append(Fault(f"{path}: llms.{name}.engine", str(error)))
    return found


def with_library_prices(config: DataConfig, where: str) -> DataConfig:
    """Return a run in which LLMs without prices have those of the price library.

    Raises:
        ConfigError: The library should know a price and does not; with all faults.
    """
    llms, faults = dict(config.llms), list[Fault]()
    for name, llm in config.llms.items():
        try:
            found = None if llm.prices is not None else priced(llm, f"{where}: llms.{name}")
        except ConfigError as error:
            faults += error.faults
            continue
        if found is not None:
            llms[name] = llm.model_copy(update=found.prices.model_dump(exclude_none=True))
    if faults:
        raise ConfigError(faults)
    return config.model_copy(update={"llms": llms})


def need_llms(config: DataConfig, where: str) -> None:
    """Check that a run has LLMs.

    Raises:
        ConfigError: It has none.
    """
    if not config.llms:
        raise ConfigError([Fault(f"{where}: llms", "is empty; expected at least one LLM")])


@contextmanager
def run_folder(path: Path, config: DataConfig) -> Iterator[Path]:
    """Yield the local folder of a run's output; for a URI, a copy synchronised with the store.

    The folder is locked for this run (`waypost.storage.lock`); blocks of one run can be nested.

    Args:
        path: The config file.
        config: Its content.

    Raises:
        ConfigError: The path is not a folder and cannot be created as one.
        FolderInUseError: Another process works in it.
        StorageError: The store cannot be written.
    """
    with locked(path, config) as where, mirrored(where, _KEEP_S) as folder:
        yield folder


@contextmanager
def locked(path: Path, config: DataConfig) -> Iterator[Place]:
    """Lock the place of ``out`` and yield it; see `run_folder`."""
    where = _out(path, config)
    with alone_in(where):
        yield where


def _out(path: Path, config: DataConfig) -> Place:
    """Return the place of the output; a local folder is created."""
    where = place(config.out)
    if not isinstance(where, Path):
        return where
    folder = path.parent / where
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"{where}: cannot be a folder: {error.strerror}"
        raise ConfigError([Fault(f"{path}: out", problem)]) from None
    return folder
