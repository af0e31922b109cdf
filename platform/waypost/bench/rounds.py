"""Evaluate multi-round routers on questions that need two facts, beside single-round ones.

The questions are drawn from tables of common knowledge. The LLMs of a data run answer them whole;
then the routers are fitted on the training split of the same LLMs and evaluated, with the calls of
the multi-round ones made live. Running the same command again continues an interrupted run.

Example: waypost bench rounds --per-family 2 --out runs/rounds-small
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from pydantic import DirectoryPath, Field, FilePath

from waypost.bench import harness
from waypost.bench._two_facts import CHAINED, FAMILIES, JOINED, MAX_PER_FAMILY, two_facts
from waypost.bench.harness import BenchError, Result, Table, Tell, at_least
from waypost.contracts.atomic import new_folder, write_text
from waypost.contracts.errors import SchemaError, names
from waypost.contracts.questions import write_questions
from waypost.contracts.tables import read_llms, split_path
from waypost.metrics.table import BY_KEY
from waypost.pipelines.data import questions, responses
from waypost.pipelines.data.config import DataConfig, load_data_config
from waypost.pipelines.data.responses import LLMProgress
from waypost.pipelines.evaluation.run import EvaluateConfig
from waypost.pipelines.evaluation.write import DECISIONS, evaluate_to
from waypost.ray_session import ray_session
from waypost.report.numbers import UNKNOWN, fixed, percent, plain, usd
from waypost.report.tables import Report, written

SINGLE = ("best_single", "knnrouter")
MULTI = ("knnmultiroundrouter", "llmmultiroundrouter")
SHOWN = ("quality", "delta_best_single", "cost_usd_per_1k", "calls", "answer_s", "answer_s_p95")
"""Metrics of the table of routers."""

ASKED = "asked"
"""Folder of the data run, inside ``out``."""

SPLIT_CALLS = 4
"""Fewest calls of a question that was split: plan, two steps, merge."""


class Options(harness.Options):
    """Options of ``waypost bench rounds``.

    Attributes:
        scripted: Whether the `echo` engine takes the place of the LLMs.
    """

    config: FilePath = Field(
        Path("serve_configs/starter/data.yaml"),
        description="File of the data run whose LLMs are called.",
    )
    data: DirectoryPath = Field(
        Path("serve_configs/starter/data"),
        description="Its routing data; the routers learn from the training split.",
    )
    per_family: int = Field(
        7,
        ge=1,
        le=MAX_PER_FAMILY,
        description=f"Questions of each of the {len(FAMILIES)} families, at most {MAX_PER_FAMILY}.",
    )
    max_tokens: int = Field(48, ge=1, description="Maximum tokens of an answer, and of a step's.")
    plan_tokens: int = Field(160, ge=1, description="Maximum tokens of a plan.")
    encoder: str = Field("static", description="Query encoder.")
    seed: int = Field(0, ge=0, description="Seed of the questions, the routers and the intervals.")
    out: Path = Field(
        Path("runs/rounds"),
        description="Folder of the questions, the answers and the report; answers in it are kept.",
    )
    fresh: bool = Field(False, description="Delete earlier results in --out first.")
    scripted: bool = False


QUICK = {"per_family": 1, "scripted": True, "out": "runs/rounds-quick"}


def run(options: Options, tell: Tell) -> Result:
    """Make the questions, have them answered, and evaluate the routers.

    Returns:
        Figures: ``questions``, ``routers`` (by name: `SHOWN`, ``split``, and quality by task),
        ``oracle``, and ``live`` (counts of live calls by router). They are also written to
        ``result.json`` in ``out``.

    Raises:
        BenchError: An LLM gave no answer to a question.
        WaypostError: See `responses.run` and `evaluate_to`.
    """
    out = options.out
    if options.fresh:
        shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    with ray_session():
        config = write_run(options, out)
        tell(f"questions of {len(FAMILIES)} families")
        questions.run(config)
        tell("answers of single LLMs")
        summary = responses.run(config, watcher=_bar(tell))
        if not summary.complete:
            raise BenchError(
                f"{out}: without an answer: {dict(summary.unanswered)}; run the same command again"
            )
        data = evaluated_data(out / ASKED, options.data, out / "data")
        tell(f"routers: {', '.join((*SINGLE, *MULTI))}")
        report = evaluate_to(
            evaluation(options, config),
            data,
            out / "report",
            told=lambda done, total: tell.bar(done, total, "routers"),
            asked=lambda done, total: tell.bar(done, total, "live calls"),
        )
    decisions = pq.read_table(out / "report" / DECISIONS).to_pylist()
    found: dict[str, Any] = plain(figures(report, decisions))
    write_text(out / "result.json", json.dumps(found, indent=2) + "\n")
    return result(found, report, options)


def _bar(tell: Tell) -> responses.RunWatcher:
    def watch(states: Sequence[LLMProgress], seconds: float) -> None:
        tell.bar(sum(s.tally.done for s in states), sum(s.total for s in states), "answers")

    return watch


# -- the run --------------------------------------------------------------------------------------

PLAN = {
    "needs_split": True,
    "steps": [
        {"id": 1, "text": "Which fact comes first?", "depends_on": []},
        {"id": 2, "text": "Which fact follows from it?", "depends_on": [1]},
    ],
}
"""What the last scripted LLM always says; the others say a number."""


def write_run(options: Options, out: Path) -> Path:
    """Write the questions and the file of the data run that asks them; return the file.

    The run's own LLMs are taken, at temperature 0. All questions are of one split.
    """
    asked = two_facts(options.per_family, options.seed, options.max_tokens)
    write_questions(out / "questions.jsonl", asked)
    config = load_data_config(options.config)
    llms = {name: one.model_dump(exclude_defaults=True) for name, one in config.llms.items()}
    if options.scripted:
        said = [str(number) for number in range(6, 6 + len(llms) - 1)]
        for one, text in zip(llms.values(), [*said, json.dumps(PLAN)], strict=True):
            one |= {"engine": "echo", "config": {"text": text}}
    run = {
        "out": ASKED,
        "questions": ["questions.jsonl"],
        "test_share": 0.0,
        "seed": options.seed,
        "encoder": options.encoder,
        "llms": llms,
    }
    DataConfig.model_validate(run)
    path = out / "data.yaml"
    write_text(path, yaml.safe_dump(run, sort_keys=False))
    return path


def evaluated_data(asked: Path, trained: Path, target: Path) -> Path:
    """Make routing data of another folder's training split and these answers as test split.

    Args:
        asked: Folder of a data run without a test split.
        trained: Routing data of the same LLMs.
        target: Folder to write; an earlier one is replaced.

    Raises:
        SchemaError: The LLMs of the two folders differ.
    """
    llms = [[llm.name for llm in read_llms(folder / "llms.json")] for folder in (asked, trained)]
    if sorted(llms[0]) != sorted(llms[1]):
        raise SchemaError(
            f"{trained}: has the LLMs {names(llms[1])}; expected those of the data run, "
            f"{names(llms[0])}"
        )
    shutil.rmtree(target, ignore_errors=True)
    with new_folder(target) as folder:
        shutil.copyfile(asked / "llms.json", folder / "llms.json")
        shutil.copyfile(split_path(trained, "train"), split_path(folder, "train"))
        shutil.copyfile(split_path(asked, "train"), split_path(folder, "test"))
    return target


def evaluation(options: Options, pool: Path) -> EvaluateConfig:
    """Return the comparison; the LLMs of ``pool`` are called live."""
    caps = f"step_tokens={options.max_tokens},plan_tokens={options.plan_tokens}"
    return EvaluateConfig(
        routers=(*SINGLE, *(f"{name}:{caps}" for name in MULTI)),
        encoder=options.encoder,
        seed=options.seed,
        pool=str(pool),
    )


# -- figures --------------------------------------------------------------------------------------


def figures(report: Report, decisions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of `run` from a report and the rows of its decision log.

    A question without a score counts as 0 in the quality by task, as it does for whoever asked.
    """
    rows = {}
    for label, row in report["routers"].items():
        own = [one for one in decisions if one["router"] == label]
        rows[label.partition(":")[0]] = {
            **{key: row[key] for key in SHOWN},
            "split": sum(one["calls"] >= SPLIT_CALLS for one in own) / len(own),
            **{task: _mean(own, task) for task in (CHAINED, JOINED)},
        }
    return {
        "questions": report["n_queries"],
        "routers": rows,
        "oracle": report["reference"]["oracle"]["quality"],
        "live": {label.partition(":")[0]: one for label, one in report["live"].items()},
        "failed_routers": report["failed"],
    }


def _mean(rows: Sequence[Mapping[str, Any]], task: str) -> float | None:
    scores = [one["quality"] or 0.0 for one in rows if one["task_name"] == task]
    return sum(scores) / len(scores) if scores else None


def result(found: Mapping[str, Any], report: Report, options: Options) -> Result:
    """Return the result of these figures."""
    metrics = [BY_KEY[key] for key in SHOWN]
    shown = {label.partition(":")[0]: row for label, row in report["routers"].items()}
    heads = ("router", *(one.title for one in metrics), "split", "chained", "joined")
    rows = [
        [
            name,
            *(written(one, shown[name]) for one in metrics),
            percent(own["split"]) if name in MULTI else UNKNOWN,
            fixed(own[CHAINED]),
            fixed(own[JOINED]),
        ]
        for name, own in found["routers"].items()
    ]
    tables = [Table("Questions that need two facts", heads, rows)]
    if found["live"]:
        live = [
            [name, *(f"{one[key]:g}" for key in ("calls", "failed", "unanswered")),
             usd(one["cost_usd"])]
            for name, one in found["live"].items()
        ]  # fmt: skip
        tables.append(Table("Live calls", ("router", "calls", "failed", "unanswered", "USD"), live))
    quality = {name: row["quality"] for name, row in found["routers"].items()}
    aims = [
        at_least(f"{name}: quality less knnrouter's", _less(quality, name), 0.0) for name in MULTI
    ]
    llms = ", ".join(load_data_config(options.config).llms)
    chained = sum(family.chained for family in FAMILIES)
    facts = (
        f"{found['questions']:g} questions of {len(FAMILIES)} families ({chained} of them chained: "
        "the second fact is asked of the answer to the first; those of the others are joined), "
        f"seed {options.seed}; LLMs {'scripted' if options.scripted else llms}; answers and steps "
        f"of at most {options.max_tokens} tokens, plans of {options.plan_tokens}. Routers learn "
        f"from {options.data}; the oracle reaches {fixed(found['oracle'])}. Split: share of "
        f"questions with at least {SPLIT_CALLS} calls. Seconds are those of calls that were made "
        "many at a time, which take longer than alone. Intervals draw near-duplicates together."
    )
    return Result(tables, facts, aims, dict(found), dict(found["failed_routers"]))


def _less(quality: Mapping[str, float | None], name: str) -> float | None:
    pair = [quality.get(one) for one in (name, "knnrouter")]
    return None if None in pair else pair[0] - pair[1]  # type: ignore[operator]
