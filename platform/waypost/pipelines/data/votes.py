"""FastChat's vote lines: routing data from them, and back.

A line of its conversation logs with the type ``leftvote``, ``rightvote``, ``tievote`` or
``bothbad_vote`` is a preference between the last answers of two conversations.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from waypost.contracts.atomic import write_text
from waypost.contracts.errors import SchemaError
from waypost.contracts.feedback import VOTES, events_path, read_events
from waypost.contracts.tables import SPLITS, read_routing_table, split_path
from waypost.pipelines.data.rated import Row, write_rated

_NAMELESS = ("", "Model A", "Model B")


def import_votes(
    files: Sequence[Path],
    target: Path,
    *,
    test: float = 0.2,
    seed: int = 0,
    llms: Path | None = None,
) -> dict[str, Any]:
    """Make routing data of vote lines.

    The question is the last message of the user. Users are numbered (``arena_user_3``) in the order
    of their first vote; their addresses are not kept.

    Args:
        files: JSONL files; lines that are no votes are left out.
        target: The routing data; must not exist.
        test: Share of the questions in the test split; 0 makes none.
        seed: Seed of the split.
        llms: An ``llms.json`` with facts of the LLMs.

    Returns:
        As `write_rated`, with ``votes`` and ``left_out``: votes without two names or two answers to
        one question.

    Raises:
        SchemaError: a line is not JSON, or there is no vote.
        ConfigError: the target exists.
    """
    events: list[Row] = []
    requests: dict[str, Row] = {}
    users: dict[str, str] = {}
    votes = 0
    for line in _lines(files):
        if line.get("type") not in VOTES:
            continue
        votes += 1
        states = _states(line)
        if states is None:
            continue
        user = line.get("user_id") or line.get("judge")
        if user is None and line.get("ip"):
            user = users.setdefault(str(line["ip"]), f"arena_user_{len(users)}")
        ids = [f"{state['id']}-{side}-{votes}" for side, state in zip("ab", states, strict=True)]
        for request_id, state in zip(ids, states, strict=True):
            requests[request_id] = {
                "query": state["query"],
                "model_name": state["model"],
                "response": state["response"],
                "session_id": state["id"],
            }
        events.append(
            {
                "kind": "preference",
                "request_id": ids[0],
                "other_request_id": ids[1],
                "rating": None,
                "preference": VOTES[line["type"]],
                "verdict": None,
                "source": "user",
                "user_id": None if user is None else str(user)[:200],
                "reason": None,
                "idempotency_key": None,
                "time": line.get("tstamp"),
            }
        )
    if not events:
        kinds = ", ".join(VOTES)
        raise SchemaError(f"{files[0]}: no usable vote; expected lines with a type of {kinds}")
    told = write_rated(target, events, requests, test=test, seed=seed, llms=llms)
    return {**told, "votes": votes, "left_out": votes - len(events)}


def _lines(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for path in files:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                if not text.strip():
                    continue
                try:
                    line = json.loads(text)
                except (ValueError, RecursionError):
                    line = None
                if not isinstance(line, dict):
                    raise SchemaError(f"{path}: line {number} is not a JSON object")
                yield line


def _states(line: dict[str, Any]) -> list[dict[str, str]] | None:
    """Return question, answer, LLM and id of both sides; None where one lacks something."""
    states, models = line.get("states"), line.get("models")
    if not (isinstance(states, list) and len(states) == 2):
        return None
    found = []
    for side, state in enumerate(states):
        if not isinstance(state, dict):
            return None
        named = models[side] if isinstance(models, list) and len(models) == 2 else ""
        model = state.get("model_name") if named in _NAMELESS else named
        texts = [_text(message) for message in state.get("messages") or []]
        if not model or len(texts) < 2 or not texts[-1] or not texts[-2]:
            return None
        found.append(
            {
                "query": str(texts[-2]),
                "response": str(texts[-1]),
                "model": str(model),
                "id": str(state.get("conv_id") or f"conversation-{side}")[:100],
            }
        )
    return found if found[0]["query"] == found[1]["query"] else None


def _text(message: Any) -> str | None:
    content = message[1] if isinstance(message, list) and len(message) > 1 else None
    if isinstance(content, list):  # a text with images
        content = content[0] if content else None
    return content if isinstance(content, str) else None


def export_votes(source: Path, target: Path) -> dict[str, Any]:
    """Write the preferences of routing data as vote lines of FastChat.

    An answer whose text the data lacks is null. Ratings and verdicts have no counterpart.

    Args:
        source: Routing data with ``feedback_<split>.parquet``.
        target: The JSONL file, which is replaced.

    Returns:
        JSON-able: ``votes``, and ``left_out``: events of another kind.

    Raises:
        SchemaError: the folder has no feedback, or is no routing data.
    """
    kinds = {preference: kind for kind, preference in VOTES.items()}
    written: list[str] = []
    left_out = 0
    splits = [split for split in SPLITS if events_path(source, split).is_file()]
    if not splits:
        raise SchemaError(f"{source}: holds no feedback_<split>.parquet; there are no votes in it")
    for split in splits:
        table = read_routing_table(split_path(source, split))
        wanted = [
            c for c in ("query_id", "model_name", "query", "response") if c in table.schema.names
        ]
        rows = table.select(wanted).to_pylist()
        cells = {(row["query_id"], row["model_name"]): row for row in rows}
        for event in read_events(events_path(source, split)).to_pylist():
            if event["kind"] != "preference":
                left_out += 1
                continue
            models = [event["model_name"], event["other_model_name"]]
            states = []
            for model, request in zip(
                models, (event["request_id"], event["other_request_id"]), strict=True
            ):
                row = cells[event["query_id"], model]
                states.append(
                    {
                        "template_name": model,
                        "system_message": "",
                        "roles": ["user", "assistant"],
                        "messages": [["user", row["query"]], ["assistant", row.get("response")]],
                        "offset": 0,
                        "conv_id": request,
                        "model_name": model,
                    }
                )
            line = {
                "tstamp": event["time"],
                "type": kinds[event["preference"]],
                "models": models,
                "states": states,
                "user_id": event["user_id"],
            }
            written.append(json.dumps(line, ensure_ascii=False))
    write_text(target, "".join(f"{line}\n" for line in written))
    return {"votes": len(written), "left_out": left_out}
