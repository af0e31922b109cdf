"""Folders that one process owns for gateways on several machines: the two sides of a call.

A further kind of folder is a class beside `FeedbackOwner`, with a method of `OwnerNode` for each of
its own, and a client beside `OwnedFeedback`. Only plain data travels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import Any

from waypost.contracts.errors import ConfigError, StorageError
from waypost.contracts.feedback import FeedbackEvent
from waypost.contracts.user_state import UserHistory
from waypost.feedback import FolderWriter, Retention, Row, Taken
from waypost.learning.user_turns import TurnFolder
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


class TurnsOwner:
    """The side of the owner of users' turns, for routers on several machines.

    Args:
        folder: The folder of feedback, which exists.
    """

    def __init__(self, folder: Path) -> None:
        self._files = TurnFolder(folder)
        self._thread = ThreadPoolExecutor(1, "turns")

    async def close(self) -> None:
        """Close the files."""
        await asyncio.to_thread(self._thread.shutdown)
        self._files.close()

    async def read_turns(self, encoder_id: str, users: Sequence[str], since: int | None) -> Reply:
        """Return what changed after a version, and the turns of users; see `UserTurns`.

        Returns:
            ``version``, ``changed`` (names), ``forgotten`` (digests), and ``histories``: name ->
            ``llms``, ``others``, ``values``, ``embeddings`` (bytes); or ``{"error": ...}``.
        """
        work = partial(self._read, encoder_id, users, since)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (ConfigError, StorageError) as error:
            return failure_reply(error)

    def _read(self, encoder_id: str, users: Sequence[str], since: int | None) -> Reply:
        turns = self._files.of(encoder_id)
        # before the histories: what changes in between is told at the next look
        version, changed, forgotten = turns.changes(since)
        found: Reply = {"version": version, "changed": changed, "forgotten": forgotten}
        found["histories"] = {user: _plain(turns.history(user)) for user in users}
        return found


def _plain(history: UserHistory) -> dict[str, Any]:
    return {
        "llms": list(history.llms),
        "others": list(history.others),
        "values": history.values.tolist(),
        "embeddings": history.embeddings.astype("<f4").tobytes(),
    }


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
