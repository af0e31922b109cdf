"""The owner of ``feedback_dir`` beside gateways in this process: only plain data passes."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from waypost.contracts.errors import StorageError
from waypost.serve.backends.owner import FeedbackOwner, TurnsOwner


class Wire:
    """Carries plain data to an owner and back; may be cut.

    Attributes:
        owner: The owner of feedback.
        cut: Whether the owner is down.
        fails: What a call raises.
        asked: Names of the methods that were called.
    """

    def __init__(self, owner: FeedbackOwner, turns: TurnsOwner) -> None:
        self.owner, self._turns, self.cut = owner, turns, False
        self.fails: Exception | None = None
        self.asked: list[str] = []

    async def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the owner."""
        self.asked.append(method)
        if self.cut:
            raise StorageError("the owner is down")
        if self.fails:
            raise self.fails
        owner = self.owner if hasattr(self.owner, method) else self._turns
        found = await getattr(owner, method)(*literal_eval(repr(arguments)))
        return literal_eval(repr(found))


@asynccontextmanager
async def owned(folder: Path) -> AsyncIterator[Wire]:
    """Own a folder."""
    owner, turns = FeedbackOwner(folder), TurnsOwner(folder)
    await owner.start()
    try:
        yield Wire(owner, turns)
    finally:
        await turns.close()
        await owner.close()
