"""Make a routing-data folder of rated answers: scores, splits without leaks, tables of events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from waypost.contracts.atomic import new_folder
from waypost.contracts.duplicates import duplicate_groups, same_text_key
from waypost.contracts.errors import ConfigError, Fault, SchemaError
from waypost.contracts.feedback import events_path, write_events
from waypost.contracts.records import LLMInfo
from waypost.contracts.splits import share_out
from waypost.contracts.tables import read_llms, split_path, write_llms, write_routing_table
from waypost.feedback import query_digest

VERDICT_SCORES: Mapping[str, float] = {
    "good_fit": 1.0,
    "overpowered": 1.0,
    "underpowered": 0.0,
    "wrong": 0.0,
    "refused": 0.0,
    "format": 0.0,
}
"""Score of an answer by the verdict on it; an overpowered LLM answers well, but dear."""

PREFERENCE_SCORES: Mapping[str, tuple[float, float]] = {
    "left": (1.0, 0.0),
    "right": (0.0, 1.0),
    "tie": (0.5, 0.5),
    "both_bad": (0.0, 0.0),
}
"""Scores of the left and the right answer by the preference between them."""

_MEANS = (
    "input_tokens", "output_tokens", "cost_usd", "latency_s", "propensity", "predicted_quality",
    "predicted_usd", "characters", "routed_tokens",
)  # fmt: skip
_COUNTS = ("input_tokens", "output_tokens", "characters", "routed_tokens")
_PINNED = "pinned"
"""The router of a request that named its LLM, which no propensity of a router is about."""

_OF_REQUEST = ("propensity", "decided_model", "router", "router_version", "lambda")

Row = dict[str, Any]


def scores_of(event: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return the request ids that an event is about, each with its score in [0, 1]."""
    if event["kind"] == "rating":
        return [(event["request_id"], event["rating"])]
    if event["kind"] == "verdict":
        return [(event["request_id"], VERDICT_SCORES[event["verdict"]])]
    left, right = PREFERENCE_SCORES[event["preference"]]
    return [(event["request_id"], left), (event["other_request_id"], right)]


def write_rated(
    target: str | Path,
    events: Sequence[Row],
    requests: Mapping[str, Row],
    *,
    others: Sequence[Row] = (),
    test: float = 0.2,
    seed: int = 0,
    llms: Path | None = None,
) -> dict[str, Any]:
    """Write routing data and tables of events.

    Args:
        target: The folder, which must not exist.
        events: Columns of `FeedbackEvent`.
        requests: Request id -> ``query`` and ``model_name``, and where they are known further
            columns of routing data, ``session_id``, ``propensity`` and facts of the decision.
        others: Requests that no event is about, alike. Where they ask a rated question, of an LLM
            that was rated anywhere, their tokens, dollars, seconds and predictions count; an LLM
            that nobody rated on a question has a row without a score.
        test: Share of the questions in the test split; 0 makes none.
        seed: Seed of the split.
        llms: An ``llms.json`` with facts of the LLMs.

    Returns:
        JSON-able: ``splits`` (name -> questions, rows, events), ``llms``, ``groups`` of
        near-duplicates, and ``without_text``: events about requests without a text.

    Raises:
        SchemaError: no event is about a request with a text, or ``llms`` cannot be read.
        ConfigError: the share is wrong, or the target exists.
    """
    if not 0 <= test < 1:
        raise ConfigError([Fault("test", f"is {test}; expected at least 0 and below 1")])
    usable = [
        event
        for event in events
        if all(requests[request_id]["query"] is not None for request_id, _ in scores_of(event))
    ]
    if not usable:
        raise SchemaError(
            f"feedback: none of the {len(events)} events is about a request whose text was kept; "
            "routers learn from texts: set log_queries: true in the Serve file"
        )
    facts = {} if llms is None else {llm.name: llm for llm in read_llms(llms)}
    question_of = _questions(usable, requests)
    questions = list(dict.fromkeys(question_of.values()))
    in_test = _split(questions, test, seed)
    cells = _cells(usable, requests, question_of, others)
    names = sorted({model for _, model in cells})
    splits = {"train": ~in_test} | ({"test": in_test} if in_test.any() else {})
    told: dict[str, Any] = {}
    with new_folder(target) as folder:
        for split, chosen in splits.items():
            mine = {question for question, one in zip(questions, chosen, strict=True) if one}
            rows = [row for (question, _), row in cells.items() if question in mine]
            write_routing_table(split_path(folder, split), _columns(rows))
            listed = _events(usable, requests, question_of, mine)
            if listed:
                write_events(events_path(folder, split), _columns(listed))
            told[split] = {"questions": len(mine), "rows": len(rows), "events": len(listed)}
        write_llms(folder / "llms.json", [facts.get(n) or LLMInfo(name=n) for n in names])
    return {
        "splits": told,
        "llms": names,
        "groups": int(duplicate_groups(questions).max()) + 1,
        "without_text": len(events) - len(usable),
    }


def _questions(events: Sequence[Row], requests: Mapping[str, Row]) -> dict[str, str]:
    """Return request id -> text of its question: the first text that asks the same."""
    first: dict[str, str] = {}
    found = {}
    for event in events:
        for request_id, _ in scores_of(event):
            text = requests[request_id]["query"]
            found[request_id] = first.setdefault(same_text_key(text), text)
    return found


def _split(questions: list[str], test: float, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    if not test or int(duplicate_groups(questions).max()) == 0:
        return np.zeros(len(questions), bool)  # near-duplicates stay together
    return share_out(questions, [""] * len(questions), test, seed)


def _cells(
    events: Sequence[Row],
    requests: Mapping[str, Row],
    question_of: Mapping[str, str],
    others: Sequence[Row],
) -> dict[tuple[str, str], Row]:
    scores: dict[tuple[str, str], list[float]] = {}
    about: dict[tuple[str, str], dict[str, Row]] = {}
    for event in events:
        for request_id, score in scores_of(event):
            request = requests[request_id]
            cell = (question_of[request_id], request["model_name"])
            scores.setdefault(cell, []).append(score)
            about.setdefault(cell, {})[request_id] = request
    first = {same_text_key(question): question for question, _ in about}
    rated = {model for _, model in about}
    for request in others:
        text = request["query"]
        question = None if text is None else first.get(same_text_key(text))
        if question is not None and request["model_name"] in rated:
            cell = (question, request["model_name"])
            about.setdefault(cell, {})[request["request_id"]] = request
    return {
        cell: {
            "query_id": query_digest(cell[0]),
            "task_name": "",
            "query": cell[0],
            "model_name": cell[1],
            "response": next((r["response"] for r in rows.values() if r.get("response")), None),
            "performance": fmean(scores[cell]) if cell in scores else None,
            **{name: _mean(rows.values(), name) for name in _MEANS},
            "ratings": len(scores.get(cell, ())),
            "requests": len(rows),
        }
        for cell, rows in about.items()
    }


def _mean(rows: Any, name: str) -> float | int | None:
    known = [
        row[name]
        for row in rows
        if row.get(name) is not None and not (name == "propensity" and row.get("router") == _PINNED)
    ]
    if not known:
        return None
    return round(fmean(known)) if name in _COUNTS else fmean(known)


def _events(
    events: Sequence[Row],
    requests: Mapping[str, Row],
    question_of: Mapping[str, str],
    mine: set[str],
) -> list[Row]:
    """Return the events on some questions; a preference is on one question."""
    found = []
    for event in events:
        about = [request_id for request_id, _ in scores_of(event)]
        question = question_of[about[0]]
        if question not in mine or question_of[about[-1]] != question:
            continue
        request = requests[about[0]]
        other = requests[about[1]]["model_name"] if len(about) > 1 else None
        found.append(
            {
                **event,
                "session_id": request.get("session_id"),
                "query_id": query_digest(question),
                "model_name": request["model_name"],
                "other_model_name": other,
                **{name: request.get(name) for name in _OF_REQUEST},
            }
        )
    return found


def _columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}
