"""Feedback of users: one event, its table, and the columns that routers learn from.

`FeedbackEvent` is what an API or a store accepts. A table of events (`EVENT_SCHEMA`) also has what
the rated requests were: question, LLMs, session and turn. `UserEvents` holds the ratings and
preferences of a table as arrays that refer to routing data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from waypost.contracts.errors import SchemaError, names
from waypost.contracts.tables import cast_columns, check_columns, replace_table
from waypost.contracts.types import Floats

Kind = Literal["rating", "preference", "verdict"]
Preference = Literal["left", "right", "tie", "both_bad"]
Verdict = Literal["good_fit", "underpowered", "overpowered", "wrong", "refused", "format"]
Source = Literal["user", "judge", "test", "tool"]

VOTES: Mapping[str, Preference] = {
    "leftvote": "left",
    "rightvote": "right",
    "tievote": "tie",
    "bothbad_vote": "both_bad",
}
"""FastChat's types of a vote line."""

PREFERENCE_VALUES: Mapping[str, float] = {"left": 1.0, "right": 0.0, "tie": 0.5, "both_bad": 0.5}
"""How much each preference favours the first of its two answers."""

_Id = Annotated[str, Field(min_length=1, max_length=200)]


class FeedbackEvent(BaseModel):
    """What someone said about one answer, or about two answers to one question.

    Attributes:
        kind: ``rating``, ``preference`` or ``verdict``.
        request_id: The request of the answer; of a preference the left one.
        other_request_id: The request of the right answer; of a preference only.
        rating: 0 to 1; of a rating only.
        preference: Of a preference only.
        verdict: Of a verdict only.
        source: Who said it.
        user_id: The user; None where it is not known.
        reason: Free text.
        idempotency_key: Events of one key are one event; None makes no such promise.
        time: Unix seconds; None where the receiver sets it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Kind
    request_id: _Id
    other_request_id: _Id | None = None
    rating: Annotated[float, Field(ge=0, le=1)] | None = None
    preference: Preference | None = None
    verdict: Verdict | None = None
    source: Source = "user"
    user_id: _Id | None = None
    reason: Annotated[str, Field(max_length=10_000)] | None = None
    idempotency_key: _Id | None = None
    time: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _one_value(self) -> Self:
        given = [key for key in get_args(Kind) if getattr(self, key) is not None]
        if given != [self.kind]:
            raise ValueError(f"a {self.kind} has the key {self.kind!r} and no other kind's value")
        if (self.kind == "preference") != (self.other_request_id is not None):
            raise ValueError("a preference, and nothing else, has other_request_id")
        if self.other_request_id == self.request_id:
            raise ValueError("request_id and other_request_id are one request")
        return self


EVENT_SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("request_id", pa.string()),
        ("other_request_id", pa.string()),
        ("rating", pa.float32()),
        ("preference", pa.string()),
        ("verdict", pa.string()),
        ("source", pa.string()),
        ("user_id", pa.string()),
        ("reason", pa.string()),
        ("idempotency_key", pa.string()),
        ("time", pa.float64()),
        ("session_id", pa.string()),
        ("turn", pa.int32()),
        ("query_id", pa.string()),
        ("model_name", pa.string()),
        ("other_model_name", pa.string()),
    ]
)
"""Columns of a table of events: those of `FeedbackEvent`, then those of the rated requests.
``model_name`` answered ``request_id``, ``other_model_name`` answered ``other_request_id``."""

_REQUIRED = ("kind", "request_id", "user_id", "query_id", "model_name")


def events_path(folder: Path, split: str) -> Path:
    """Return the file of the events on the questions of a split of a routing-data folder."""
    return folder / f"feedback_{split}.parquet"


def write_events(path: Path, columns: Mapping[str, Sequence[object]]) -> None:
    """Write a table of events in one step; absent columns are null, further ones follow."""
    n_rows = len(next(iter(columns.values())))
    arrays = {
        field.name: pa.array(columns.get(field.name, [None] * n_rows), type=field.type)
        for field in EVENT_SCHEMA
    }
    arrays |= {key: pa.array(values) for key, values in columns.items() if key not in arrays}
    replace_table(path, pa.table(arrays))


def read_events(path: Path) -> pa.Table:
    """Read a table of events, in its order.

    Raises:
        SchemaError: Names the file, the row and what is wrong.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise SchemaError(f"{path}: not a readable parquet file: {error}") from None
    check_columns(table, _REQUIRED, path)
    table = cast_columns(table, EVENT_SCHEMA, path)
    empty = pa.table({f.name: pa.nulls(len(table), f.type) for f in EVENT_SCHEMA})
    for name in EVENT_SCHEMA.names:
        if name not in table.column_names:
            table = table.append_column(name, empty[name])
    for row, line in enumerate(table.select(EVENT_SCHEMA.names).to_pylist()):
        event = {key: line[key] for key in FeedbackEvent.model_fields if line[key] is not None}
        try:
            FeedbackEvent(**event)
        except ValueError as error:
            first: Any = error.errors()[0] if hasattr(error, "errors") else {"msg": str(error)}
            where = ".".join(map(str, first.get("loc", ())))
            raise SchemaError(f"{path}: row {row}: {where or 'event'}: {first['msg']}") from None
        if line["kind"] == "preference" and line["other_model_name"] is None:
            raise SchemaError(f"{path}: row {row}: a preference without other_model_name")
    return table


@dataclass(frozen=True, eq=False)
class UserEvents:
    """Ratings and preferences of users on routing data; every array has shape (n_events,).

    Attributes:
        user_ids: The users.
        user: Index of the event's user.
        query: Row of the question in the routing data.
        llm: Column of the LLM that was rated, or stood left.
        other: Column of the LLM that stood right; -1 for a rating.
        value: The rating, or how much the left answer was preferred (`PREFERENCE_VALUES`).
        session: Number of the session; events of one user and session have the same.
    """

    user_ids: tuple[str, ...]
    user: NDArray[np.intp]
    query: NDArray[np.intp]
    llm: NDArray[np.intp]
    other: NDArray[np.intp]
    value: Floats
    session: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.user)

    def where(self, kept: NDArray[np.bool_]) -> UserEvents:
        """Return some of the events; the users stay, also those without an event."""
        columns = ("user", "query", "llm", "other", "value", "session")
        return replace(self, **{name: getattr(self, name)[kept] for name in columns})

    def of_rows(self, rows: NDArray[np.intp], n_rows: int) -> UserEvents:
        """Return the events that remain where data of ``n_rows`` questions is cut to ``rows``.

        Of a question that is repeated, the last copy has the events.
        """
        place = np.full(n_rows, -1, np.intp)
        place[rows] = np.arange(len(rows))
        query = place[self.query]
        return replace(self, query=query).where(query >= 0)

    def of_llms(self, columns: Sequence[int], n_llms: int) -> UserEvents:
        """Return the events that remain where data of ``n_llms`` LLMs is cut to ``columns``."""
        place = np.full(n_llms + 1, -1, np.intp)  # the last place is that of "no other LLM"
        place[list(columns)] = np.arange(len(columns))
        llm, other = place[self.llm], place[self.other]
        kept = (llm >= 0) & ((other >= 0) | (self.other < 0))
        return replace(self, llm=llm, other=other).where(kept)

    @property
    def digest(self) -> str:
        """sha256 over users, events and values."""
        sha = hashlib.sha256("\x1f".join(self.user_ids).encode("utf-8", "surrogatepass"))
        for part in (self.user, self.query, self.llm, self.other, self.session):
            sha.update(np.ascontiguousarray(part, "<i8").tobytes())
        sha.update(np.ascontiguousarray(self.value, "<f8").tobytes())
        return sha.hexdigest()

    @classmethod
    def of_table(
        cls, table: pa.Table, query_ids: Sequence[str], llms: Sequence[str], where: str
    ) -> UserEvents:
        """Read the ratings and preferences of known users about known questions and LLMs.

        Verdicts, and events without a user, are left out; so are events about other questions.

        Raises:
            SchemaError: An event names an LLM that is not among ``llms``.
        """
        row_of = {key: i for i, key in enumerate(query_ids)}
        column_of = {name: j for j, name in enumerate(llms)}
        users: dict[str, int] = {}
        sessions: dict[tuple[str, str | None], int] = {}
        rows: list[tuple[float, ...]] = []
        for line in table.select(EVENT_SCHEMA.names).to_pylist():
            user, row = line["user_id"], row_of.get(line["query_id"])
            if line["kind"] == "verdict" or user is None or row is None:
                continue
            found = [line["model_name"]]
            if line["kind"] == "preference":
                found.append(line["other_model_name"])
            if unknown := [name for name in found if name not in column_of]:
                raise SchemaError(f"{where}: model_name {names(unknown)} is not in the data")
            rated = line["kind"] == "rating"
            value = line["rating"] if rated else PREFERENCE_VALUES[line["preference"]]
            other = -1 if rated else column_of[found[1]]
            session = (user, line["session_id"] or line["request_id"])
            number = sessions.setdefault(session, len(sessions))
            place = users.setdefault(user, len(users))
            rows.append((place, row, column_of[found[0]], other, number, value))
        user_, query_, llm_, other_, session_, value_ = np.array(rows, float).reshape(-1, 6).T
        return cls(
            user_ids=tuple(users),
            user=user_.astype(np.intp),
            query=query_.astype(np.intp),
            llm=llm_.astype(np.intp),
            other=other_.astype(np.intp),
            value=value_,
            session=session_.astype(np.intp),
        )


def events_of(
    folder: Path, split: str, query_ids: Sequence[str], llms: Sequence[str]
) -> UserEvents | None:
    """Read the feedback on a split of a routing-data folder; None where it has none.

    Raises:
        SchemaError: See `read_events` and `UserEvents.of_table`.
    """
    path = events_path(folder, split)
    if not path.is_file():
        return None
    found = UserEvents.of_table(read_events(path), query_ids, llms, str(path))
    return found if len(found) else None
