"""Routing data from the published results of other projects.

    RouterBench  a table with a row for each question: sample_id, prompt, eval_name, and for each
                 LLM its score, ``LLM|model_response`` and ``LLM|total_cost`` (arXiv 2403.12031)
    RouteLLM     a table with a row for each question: prompt, and for each LLM whether it was
                 right, and ``LLM_response`` (arXiv 2406.18665)
    RouterArena  cached_results: JSON lines with a line for each question and LLM
                 (arXiv 2510.00202)

Which of them a file is, its columns say.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from waypost.benchmarks.rows import SUFFIXES, UNREADABLE, rows_of
from waypost.contracts.atomic import new_folder
from waypost.contracts.duplicates import duplicate_groups
from waypost.contracts.errors import ConfigError, Fault, SchemaError, names
from waypost.contracts.records import LLMInfo
from waypost.contracts.splits import share_out
from waypost.contracts.tables import read_llms, split_path, write_llms, write_routing_table
from waypost.feedback import query_digest

Row = dict[str, Any]

_COST, _RESPONSE, _ANSWERED = "|total_cost", "|model_response", "_response"
_ABOUT = ("sample_id", "prompt", "eval_name", "oracle_model_to_route_to")


def import_results(
    sources: Sequence[Path],
    target: Path,
    *,
    test: float = 0.2,
    seed: int = 0,
    llms: Path | None = None,
) -> dict[str, Any]:
    """Write a routing-data folder of other projects' results.

    Near-duplicate questions stay in one split, and each task is split alike.

    Args:
        sources: Files, or folders of files.
        target: Written atomically; must not exist.
        test: Share of the questions in the test split; 0 makes none.
        seed: Seed of the split.
        llms: An ``llms.json`` with facts of the LLMs, such as prices.

    Returns:
        JSON-able: ``splits`` (name -> questions, rows), ``llms``, ``formats`` (name -> files),
        ``unscored`` rows, and ``repeated`` rows of one question and LLM, which are left out.

    Raises:
        SchemaError: a file is of no known format or a value is wrong; the message has file, row
            and column. Also raised where no row has a score.
        ConfigError: there is no file, the share is wrong, or the target exists.
    """
    if not 0 <= test < 1:
        raise ConfigError([Fault("test", f"is {test}; expected at least 0 and below 1")])
    rows: dict[tuple[str, str], Row] = {}
    formats: dict[str, int] = {}
    repeated = 0
    for file in _files(sources):
        kind, found = _read(file)
        formats[kind] = formats.get(kind, 0) + 1
        for row in found:
            key = (row["query_id"], row["model_name"])
            repeated += key in rows
            rows.setdefault(key, row)
    unscored = sum(row["performance"] is None for row in rows.values())
    if unscored == len(rows):
        raise SchemaError(
            f"{names([str(path) for path in sources])}: none of {len(rows)} rows has a score; "
            "evaluate the answers first, as the project does"
        )
    facts = {} if llms is None else {llm.name: llm for llm in read_llms(llms)}
    listed = list(dict.fromkeys(row["model_name"] for row in rows.values()))
    in_test = _in_test(list(rows.values()), test, seed)
    told = {}
    with new_folder(target) as folder:
        for split in ("train", "test"):
            mine = [r for r in rows.values() if (r["query_id"] in in_test) == (split == "test")]
            if mine:
                columns = {name: [row[name] for row in mine] for name in mine[0]}
                write_routing_table(split_path(folder, split), columns)
                questions = len({row["query_id"] for row in mine})
                told[split] = {"questions": questions, "rows": len(mine)}
        write_llms(folder / "llms.json", [facts.get(n) or LLMInfo(name=n) for n in listed])
    return {
        "splits": told,
        "llms": listed,
        "formats": formats,
        "unscored": unscored,
        "repeated": repeated,
    }


def _files(sources: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for source in sources:
        if source.is_dir():
            inside = sorted(f for f in source.rglob("*") if f.name.endswith(SUFFIXES))
            if not inside:
                kinds = ", ".join(SUFFIXES)
                raise ConfigError([Fault(str(source), f"contains no file of results ({kinds})")])
            found += inside
        elif source.suffix in (".pkl", ".pickle"):
            raise SchemaError(
                f"{source}: is a pickle, which can run code, so it is not read; where you trust "
                "it, write it as parquet: pandas.read_pickle(...).to_parquet(...)"
            )
        elif not source.name.endswith(SUFFIXES):
            raise SchemaError(f"{source}: is no file of results; expected {', '.join(SUFFIXES)}")
        else:
            found.append(source)
    return found


def _in_test(rows: Sequence[Row], test: float, seed: int) -> set[str]:
    """Return the ids of the test questions."""
    first = {row["query_id"]: row for row in reversed(rows)}
    texts = [row["query"] for row in first.values()]
    if not test or int(duplicate_groups(texts).max()) == 0:
        return set()  # near-duplicates stay together
    chosen = share_out(texts, [row["task_name"] for row in first.values()], test, seed)
    return {query_id for query_id, one in zip(first, np.asarray(chosen), strict=True) if one}


def _read(file: Path) -> tuple[str, list[Row]]:
    """Return the format and the rows of a file."""
    try:
        raw = list(rows_of(file, _told_apart(file)))
    except UNREADABLE as error:
        raise SchemaError(f"{file}: cannot be read: {type(error).__name__}: {error}") from None
    if not raw:
        raise SchemaError(f"{file}: holds no row")
    for one in FORMATS:
        if one.fits(raw[0]):
            found: list[Row] = []
            for number, row in enumerate(raw, start=1):
                try:
                    found += one.read(row, file)
                except _ValueError as error:
                    raise SchemaError(f"{file}: row {number}: {error}") from None
            return one.name, found
    raise SchemaError(
        f"{file}: is no known format of results; expected columns of "
        f"{', '.join(f'{one.name} ({one.columns})' for one in FORMATS)}; "
        f"found {names(sorted(map(str, raw[0])))}"
    )


def _told_apart(file: Path) -> tuple[str, ...]:
    # A parquet file need not have them; in a CSV file they tell the separator.
    return ("prompt", *_ABOUT) if file.suffix == ".csv" else ()


class _ValueError(Exception):
    """What is wrong with a value of a row."""


@dataclass(frozen=True)
class _Format:
    """A format of results.

    Attributes:
        name: The project.
        columns: What tells the format, for messages.
        fits: Whether a row has it.
        read: The routing rows of a row of this file.
    """

    name: str
    columns: str
    fits: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any], Path], Iterator[Row]]


def _row(query_id: Any, task: Any, query: Any, model: Any, score: float | None, **more: Any) -> Row:
    if not isinstance(query, str) or not query.strip():
        raise _ValueError("the question is empty")
    if not isinstance(model, str) or not model:
        raise _ValueError("the LLM has no name")
    row: Row = {
        "query_id": query_digest(query) if query_id in (None, "") else str(query_id),
        "task_name": str(task or ""),
        "query": query,
        "model_name": model,
        "performance": score,
    }
    for name in ("response", "ground_truth", "input_tokens", "output_tokens", "cost_usd", "error"):
        row[name] = more.get(name)
    return row


def _number(value: Any, column: str, most: float = float("inf")) -> float | None:
    """Return a number, a truth value or nothing, also where a CSV file writes it as text."""
    words = {"true": 1.0, "false": 0.0, "": None, "nan": None}
    if value is None or (isinstance(value, str) and value.strip().lower() in words):
        return None if value is None else words[value.strip().lower()]
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise _ValueError(f"{column} is {str(value)[:40]!r}; expected a number") from None
    if np.isnan(number):
        return None
    if not 0 <= number <= most:
        raise _ValueError(f"{column} is {number:g}; expected 0 to {most:g}")
    return number


def _count(value: Any, column: str) -> int | None:
    number = _number(value, column, 2.0**31 - 1)
    return None if number is None else round(number)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


# -- RouterBench ------------------------------------------------------------------------------


def _is_routerbench(row: Mapping[str, Any]) -> bool:
    return "prompt" in row and "eval_name" in row and bool(_scored(row))


def _scored(row: Mapping[str, Any]) -> list[str]:
    """Return the LLMs of a table: columns with a column of costs or answers, else all others."""
    beside = [name for name in row if f"{name}{_COST}" in row or f"{name}{_RESPONSE}" in row]
    return beside or [
        name for name in row if name not in _ABOUT and name and not name.startswith("Unnamed")
    ]


def _routerbench(row: Mapping[str, Any], file: Path) -> Iterator[Row]:
    query = _prompt(row["prompt"])
    for model in _scored(row):
        yield _row(
            row.get("sample_id"), row["eval_name"], query, model,
            _number(row[model], model, 1.0),
            response=_text(row.get(f"{model}{_RESPONSE}")),
            cost_usd=_number(row.get(f"{model}{_COST}"), f"{model}{_COST}"),
        )  # fmt: skip


def _prompt(value: Any) -> Any:
    """Return the prompt; RouterBench writes some as a Python list of texts."""
    if not isinstance(value, str) or not value.startswith("["):
        return value
    try:
        parts = ast.literal_eval(value)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return value
    listed = isinstance(parts, list) and all(isinstance(part, str) for part in parts)
    return "\n".join(parts) if listed else value


# -- RouteLLM ---------------------------------------------------------------------------------


def _is_routellm(row: Mapping[str, Any]) -> bool:
    return "prompt" in row and "eval_name" not in row and bool(_judged(row))


def _judged(row: Mapping[str, Any]) -> list[str]:
    """Return the columns that hold whether an LLM was right."""
    return [
        name
        for name, value in row.items()
        if name != "prompt" and str(value).strip().lower() in ("true", "false")
    ]


def _routellm(row: Mapping[str, Any], file: Path) -> Iterator[Row]:
    task = file.name.partition(".")[0].removesuffix("_responses")
    answers = {name for name in row if name.removesuffix(_ANSWERED) in row and name != "prompt"}
    for model in row:
        if model == "prompt" or not model or (model.endswith(_ANSWERED) and model in answers):
            continue
        yield _row(
            None, task, row["prompt"], model, _number(row[model], model, 1.0),
            response=_text(row.get(f"{model}{_ANSWERED}")),
        )  # fmt: skip


# -- RouterArena ------------------------------------------------------------------------------


def _is_routerarena(row: Mapping[str, Any]) -> bool:
    return {"global_index", "question", "generated_answer"} <= set(row)


def _routerarena(row: Mapping[str, Any], file: Path) -> Iterator[Row]:
    judged = _mapping(row.get("evaluation_result"), "evaluation_result")
    used = _mapping(row.get("token_usage"), "token_usage")
    index = str(row["global_index"])
    failed = row.get("error") or (None if row.get("success", True) else "failed")
    gold = judged.get("ground_truth")
    yield _row(
        index, index.rpartition("_")[0], row["question"], row.get("llm_selected"),
        _number(judged.get("score"), "evaluation_result.score", 1.0),
        response=_text(row["generated_answer"]),
        ground_truth=None if gold is None else str(gold),
        input_tokens=_count(used.get("input_tokens"), "token_usage.input_tokens"),
        output_tokens=_count(used.get("output_tokens"), "token_usage.output_tokens"),
        cost_usd=_number(judged.get("inference_cost"), "evaluation_result.inference_cost"),
        error=None if failed is None else str(failed),
    )  # fmt: skip


def _mapping(value: Any, column: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _ValueError(f"{column} is {type(value).__name__}; expected an object or null")
    return value


FORMATS = (
    _Format("RouterBench", "prompt, eval_name, LLM|total_cost", _is_routerbench, _routerbench),
    _Format("RouteLLM", "prompt, and LLMs with True or False", _is_routellm, _routellm),
    _Format(
        "RouterArena", "global_index, question, generated_answer", _is_routerarena, _routerarena
    ),
)
