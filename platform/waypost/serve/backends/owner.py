"""Folders that one process owns for gateways on several machines: the two sides of a call.

A further kind of folder is a class beside `FeedbackOwner`, with a method of `OwnerNode` for each of
its own, and a client beside `OwnedFeedback`. Only plain data travels.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from waypost.contracts.errors import StorageError
from waypost.contracts.feedback import FeedbackEvent
from waypost.feedback import FolderWriter, Retention, Row, Taken
from waypost.serve.backends.messages import Reply, failure_reply

Ask = Callable[..., Awaitable[Any]]
"""Calls a method of the owner, given its name and arguments; raises StorageError where there is no
owner at the moment."""


class FeedbackOwner:
    """The side of the owner.

    Args:
        folder: The folder, on a disk of this machine.
    """

    def __init__(self, folder: Path) -> None:
        self._writer = FolderWriter(folder)

    async def start(self) -> None:
        """Open the folder.

        Raises:
            StorageError: it cannot be made or read.
        """
        await self._writer.start()

    async def close(self) -> None:
        """Close the folder."""
        await self._writer.close()

    async def write_feedback(
        self,
        rows: Sequence[Row],
        batches: Sequence[Sequence[dict[str, Any]]],
        most: int,
        max_age_s: float,
    ) -> Reply:
        """Write records, then events; see `Ledger.write`.

        Args:
            rows: Columns of answered requests.
            batches: `FeedbackEvent` as plain data.
            most: See `Retention`.
            max_age_s: See `Retention`.

        Returns:
            ``{"taken": batches of the values of `Taken`}``, or ``{"error": ...}``.
        """
        events = [[FeedbackEvent(**event) for event in batch] for batch in batches]
        try:
            found = await self._writer.write(rows, events, Retention(most, max_age_s))
        except StorageError as error:
            return failure_reply(error)
        return {"taken": [[astuple(each) for each in batch] for batch in found]}


class OwnedFeedback:
    """The side of a gateway: a `Writer` of feedback.

    Args:
        ask: Calls the owner.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def __str__(self) -> str:
        return "the owner of feedback_dir"

    async def start(self) -> None:
        """Do nothing: requests are answered without the owner."""

    async def close(self) -> None:
        """Do nothing: the owner outlives its gateways."""

    async def write(
        self, rows: Sequence[Row], batches: Sequence[Sequence[FeedbackEvent]], kept: Retention
    ) -> list[list[Taken]]:
        """Write records, then events; see `Writer.write`."""
        plain = [[event.model_dump(exclude_none=True) for event in batch] for batch in batches]
        reply: Reply = await self._ask("write_feedback", rows, plain, *kept)
        if (error := reply.get("error")) is not None:
            raise StorageError(error["message"])
        return [[Taken(*each) for each in batch] for batch in reply["taken"]]
