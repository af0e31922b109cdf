"""LLMRouter's file formats: routing JSONL lines, .pt vectors, and vectors stored in our folders."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from waypost.contracts.errors import MissingExtraError, SchemaError, names
from waypost.contracts.tables import ROUTING_SCHEMA
from waypost.pipelines.data.embeddings import embeddings_path, text_digest

FURTHER = {
    **dict.fromkeys(("task_id", "fig_id", "user_id", "session_id"), pa.string()),
    "turn": pa.int64(),
    "rating": pa.float64(),
}
"""Columns of LLMRouter's lines that are kept in addition to those of our schema."""

FAILED = ("ERROR:", "API Error")
"""Prefixes of the answer of a failed call, which LLMRouter scores like any other."""

_SPECIAL = ("query", "model_name", "performance", "ground_truth", "choices")
_TYPES = {
    **{field.name: field.type for field in ROUTING_SCHEMA if field.name not in _SPECIAL},
    **FURTHER,
    "token_num": pa.int64(),
    "embedding_id": pa.int64(),
    "response_time": pa.float64(),
}
_KNOWN = {*_TYPES, *_SPECIAL, "gt"}


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, row) of a routing JSONL file.

    A row has the columns of a routing table, ``embedding_id`` (int or None), ``token_num``, and
    ``unknown``, the names of fields without a column. For a failed call ``performance`` is None and
    ``error`` holds the text in place of the answer.

    Raises:
        SchemaError: A line is invalid; the message has file and line.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _row(line, f"{path}: line {number}")
    except OSError as error:
        raise SchemaError(f"{path}: cannot be read: {error.strerror}") from None


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        data = json.loads(line.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise SchemaError(f"{where}: not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        kind = "not UTF-8" if isinstance(error, UnicodeDecodeError) else "not JSON"
        raise SchemaError(f"{where}: {kind}") from None
    if not isinstance(data, dict):
        raise SchemaError(f"{where}: expected an object with query, model_name, performance")
    if missing := [key for key in ("query", "model_name", "performance") if key not in data]:
        raise SchemaError(f"{where}: lacks {names(missing)}")
    for key in ("query", "model_name"):
        if not isinstance(data[key], str):
            raise SchemaError(f"{where}: {key} is {type(data[key]).__name__}; expected a text")
    row: dict[str, Any] = {"query": data["query"], "model_name": data["model_name"]}
    for key, kind in _TYPES.items():
        value = data.get(key)
        row[key] = _text(value) if pa.types.is_string(kind) else _amount(value, key, kind, where)
    row["ground_truth"] = _text(data.get("ground_truth", data.get("gt")))
    row["choices"] = _choices(data.get("choices"))
    row["performance"] = _performance(data["performance"], where)
    seconds = row.pop("response_time")
    row["latency_s"] = seconds if row["latency_s"] is None else row["latency_s"]
    if (row["response"] or "").startswith(FAILED) and not row["token_num"]:
        row |= {"performance": None, "error": row["response"], "response": None}
    for key, value in row.items():
        if isinstance(value, str) and not _encodable(value):
            raise SchemaError(f"{where}: {key} has half of a surrogate pair, which is not text")
    row["unknown"] = sorted(set(data) - _KNOWN)
    return row


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _text(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _amount(value: Any, key: str, kind: pa.DataType, where: str) -> Any:
    # LLMRouter writes with pandas, which turns missing numbers into NaN.
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SchemaError(f"{where}: {key} is {type(value).__name__}; expected a number or null")
    whole = pa.types.is_integer(kind)
    low = -(2**31) if key == "rating" else 0
    if not low <= value < 2**31 or (whole and value != int(value)):
        expected = "a whole number from 0" if whole else "a number from 0"
        raise SchemaError(f"{where}: {key} is {value}; expected {expected}")
    return int(value) if whole else float(value)


def _performance(value: Any, where: str) -> float | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, int | float):
        kind = type(value).__name__
        raise SchemaError(f"{where}: performance is {kind}; expected a number or null")
    if not 0 <= value <= 1:
        raise SchemaError(f"{where}: performance is {value}; expected 0 to 1")
    return float(value)


def _choices(value: Any) -> str | None:
    """Return choices as JSON text; LLMRouter stores Python literals in a string."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        value = _parsed(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _parsed(text: str) -> Any:
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
            json.dumps(value)
            return value
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
    return text


def line_of(row: Mapping[str, Any], embedding_id: int | None) -> str:
    """Return the JSONL line of one row of a routing table."""
    known = (row.get("input_tokens"), row.get("output_tokens"))
    total = row.get("token_num") if None in known else sum(filter(None, known))
    choices = row.get("choices")
    data = {
        "task_name": row.get("task_name"),
        "query": row["query"],
        "ground_truth": row.get("ground_truth"),
        "metric": row.get("metric"),
        "choices": None if choices is None else _notation(choices),
        "task_id": row.get("task_id"),
        "model_name": row["model_name"],
        "response": row.get("response"),
        "token_num": total,
        "input_tokens": row.get("input_tokens"),
        "output_tokens": row.get("output_tokens"),
        "response_time": row.get("latency_s"),
        "performance": row["performance"],
        "embedding_id": embedding_id,
        "user_id": row.get("user_id"),
        "fig_id": row.get("fig_id"),
    }
    # LLMRouter ignores unknown fields, so all of ours can be included.
    data |= {
        name: row[name]
        for name in (*ROUTING_SCHEMA.names, *FURTHER)
        if name not in (*data, "latency_s") and row.get(name) is not None
    }
    return json.dumps(data, ensure_ascii=False)


def _notation(choices: str) -> str:
    value = _parsed(choices)
    return value if isinstance(value, str) else str(value)


ORIGIN = "llmrouter"
Vectors = NDArray[np.float32]


def read_pt(path: Path) -> dict[int, Vectors]:
    """Read the vectors of a .pt file by embedding id, without running code in it.

    Raises:
        SchemaError: The file is not a tensor or a dict of tensors, or a vector is of another width
            or not finite.
        MissingExtraError: torch is not installed.
    """
    torch = _torch()
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    # torch.load raises errors of a dozen types.
    except Exception as error:  # noqa: BLE001
        raise SchemaError(
            f"{path}: not readable as tensors ({type(error).__name__}); expected a tensor or a "
            "dict of tensors, saved by torch.save"
        ) from None
    if isinstance(data, torch.Tensor) and data.dim() == 2:
        data = dict(enumerate(data))
    if not isinstance(data, dict) or not data:
        raise SchemaError(f"{path}: holds {type(data).__name__}; expected a matrix or a dict")
    return _checked(data, path, torch)


def _checked(data: Mapping[Any, Any], path: Path, torch: Any) -> dict[int, Vectors]:
    found: dict[int, Vectors] = {}
    width = None
    for key, value in data.items():
        if isinstance(key, bool) or not isinstance(key, int):
            raise SchemaError(f"{path}: a key is {type(key).__name__}; expected embedding ids")
        if not isinstance(value, torch.Tensor) or value.dim() != 1:
            raise SchemaError(f"{path}: embedding_id {key}: expected a vector")
        width = width or len(value)
        vector = value.to(torch.float32).numpy()
        if len(vector) != width:
            raise SchemaError(f"{path}: embedding_id {key} is {len(vector)} wide; others {width}")
        if not np.isfinite(vector).all():
            raise SchemaError(f"{path}: embedding_id {key} is not finite")
        found[key] = vector
    return found


def write_pt(path: Path, vectors: Mapping[int, Vectors]) -> None:
    """Write vectors in LLMRouter's format, a dict embedding id -> tensor."""
    torch = _torch()
    torch.save({key: torch.from_numpy(np.array(value)) for key, value in vectors.items()}, path)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise MissingExtraError("torch", "train") from None
    return torch


def store_vectors(folder: Path, texts: Sequence[str], vectors: Sequence[Vectors]) -> None:
    """Write vectors of texts into a routing-data folder; of equal texts the first counts."""
    from safetensors.numpy import save_file

    first: dict[bytes, Vectors] = {}
    for text, vector in zip(texts, vectors, strict=True):
        first.setdefault(text_digest(text), vector)
    arrays = {
        "embeddings": np.stack(list(first.values())),
        "texts": np.frombuffer(b"".join(first), np.uint8).reshape(-1, 16).copy(),
    }
    path = embeddings_path(folder, ORIGIN)
    save_file(arrays, str(path))
    path.chmod(0o644)


def stored_vectors(folder: Path, texts: Sequence[str]) -> tuple[str, Vectors] | None:
    """Return (origin, vectors) of a file with vectors of every text; None without one.

    LLMRouter's own vectors take precedence, then encoders by name.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    pattern = embeddings_path(folder, "*")
    own = embeddings_path(folder, ORIGIN)
    for path in sorted(folder.glob(pattern.name), key=lambda p: (p != own, p.name)):
        try:
            arrays = load_file(str(path))
            rows, digests = arrays["embeddings"], arrays["texts"]
        except (SafetensorError, OSError, KeyError) as error:
            raise SchemaError(f"{path}: not readable ({error}); delete it") from None
        known = {digest.tobytes(): row for digest, row in zip(digests, rows, strict=False)}
        keys = [text_digest(text) for text in texts]
        if all(key in known for key in keys):
            origin = path.name.removeprefix("query_embeddings-").removesuffix(".safetensors")
            return origin, np.stack([known[key] for key in keys]).astype(np.float32)
    return None
