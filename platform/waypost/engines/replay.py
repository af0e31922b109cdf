"""The `replay` engine: gives back recorded answers, so that a pool runs without its models.

Records come from a routing-data folder (the rows of one model that have a response) or from a
JSONL file, one object a line with ``query`` and ``response`` and, optionally, ``model_name``,
``input_tokens`` and ``output_tokens``. The key is the text of the query: the request's last
message of the user, or its prompt, compared without the space around it. Where a query was
recorded twice, the first counts.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from waypost.config import StrictModel, resolve_path
from waypost.contracts.errors import EngineRequestError, SchemaError
from waypost.contracts.generation import Chunk, GenerateRequest
from waypost.contracts.tables import SPLITS, read_routing_table, split_path
from waypost.engines.base import Engine
from waypost.engines.calls import Calls, Script, last_user_text, pieces, play


class Config(StrictModel):
    """Settings of the `replay` engine."""

    data: str = Field(min_length=1)
    """Routing-data folder or ``.jsonl`` file; a relative path is below WAYPOST_ROOT."""

    model: str | None = None
    """Whose answers: a ``model_name`` of the data. Needed for a folder; for a JSONL file,
    None takes every line."""

    delay_s: float = Field(default=0.0, ge=0)
    """Wait before the first token."""

    tokens_per_s: float | None = Field(default=None, gt=0)
    """Pace; without it, no wait between tokens."""


@dataclass(frozen=True, slots=True)
class _Record:
    response: str
    input_tokens: int | None
    output_tokens: int | None


class ReplayEngine(Engine):
    """Answers with what was recorded; a query without a record is an EngineRequestError.

    Tokens are the words of the answer; the usage gives the recorded counts where the answer is
    played to its end, and a quarter of the characters for a prompt whose count was not recorded.

    Attributes:
        calls: What runs now, and the tokens made so far.
    """

    name: ClassVar[str] = "replay"
    config_class: ClassVar[type[StrictModel]] = Config
    remote: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        self.config = config
        self.calls = Calls(self.name)
        self._records: dict[str, _Record] = {}

    async def start(self) -> None:
        """Read the records.

        Raises:
            SchemaError: where the data is absent, not of the agreed form, or has no answer of
                that model.
        """
        self._records = await asyncio.to_thread(read_records, self.config)
        self.calls.open = True

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Play the recorded answer; see `Engine.generate`."""
        return play(self.calls, request, self._script)

    async def abort(self, request_id: str) -> None:
        """End that request with the finish reason ``cancelled``."""
        self.calls.abort(request_id)

    async def healthy(self) -> bool:
        """Say whether the records are read and the engine is not closed."""
        return self.calls.open

    async def close(self) -> None:
        """Drop the records; end every request with an EngineConnectionError."""
        self.calls.close()
        self._records = {}

    def _script(self, request: GenerateRequest) -> Script:
        query = last_user_text(request).strip()
        record = self._records.get(query)
        if record is None:
            raise EngineRequestError(
                f"replay: {self.config.data} has no answer"
                + (f" of {self.config.model}" if self.config.model else "")
                + " to this query; record it first, or use another engine"
            )
        pace = self.config.tokens_per_s
        known = record.input_tokens
        return Script(
            pieces=pieces(record.response),
            input_tokens=-(-len(query) // 4) if known is None else known,
            output_tokens=record.output_tokens,
            delay_s=self.config.delay_s,
            token_s=1 / pace if pace else 0.0,
        )


def read_records(config: Config) -> dict[str, _Record]:
    """Read the records of one model, keyed by the text of the query."""
    path = resolve_path(config.data)
    if path.is_dir():
        if config.model is None:
            raise SchemaError(f"replay: {path} is a folder of several models: set `model`")
        rows: Iterable[Mapping[str, Any]] = _folder_rows(path)
    else:
        rows = _jsonl_rows(path)
    records: dict[str, _Record] = {}
    for row in rows:
        if config.model not in (None, row.get("model_name")) or row.get("response") is None:
            continue
        record = _Record(row["response"], row.get("input_tokens"), row.get("output_tokens"))
        records.setdefault(row["query"].strip(), record)
    if not records:
        raise SchemaError(f"replay: {path} has no recorded answer of {config.model or 'any model'}")
    return records


def _folder_rows(folder: Path) -> Iterator[dict[str, Any]]:
    found = [path for split in SPLITS if (path := split_path(folder, split)).is_file()]
    if not found:
        raise SchemaError(f"replay: {folder} holds no routing_<split>.parquet")
    wanted = ("query", "model_name", "response", "input_tokens", "output_tokens")
    for path in found:
        table = read_routing_table(path)
        yield from table.select([n for n in wanted if n in table.column_names]).to_pylist()


def _jsonl_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # U+2028 may stand in JSON
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(f"replay: {path} cannot be read ({type(error).__name__})") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _line(line, f"{path}:{number}")


def _line(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        row = None
    kinds = {"query": str, "response": str | None, "model_name": str | None}
    counts = {"input_tokens": int | None, "output_tokens": int | None}
    if not isinstance(row, dict) or "query" not in row:
        raise SchemaError(f"replay: {where} is not a JSON object with `query` and `response`")
    for key, type_ in (kinds | counts).items():
        if not isinstance(row.get(key), type_):
            raise SchemaError(f"replay: {where}: `{key}` is not of type {type_}")
    return row
