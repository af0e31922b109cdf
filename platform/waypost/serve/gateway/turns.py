"""Turns of users that a gateway keeps in memory, and the users that were forgotten meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from waypost.contracts.errors import StorageError
from waypost.feedback import FORGOTTEN, read_forgotten
from waypost.feedback.outcome import plain, query_digest
from waypost.serve.plan import Plan
from waypost.sessions.kept_turns import KeptTurns
from waypost.storage import is_uri

logger = logging.getLogger(__name__)

SWEEP_S = 60.0
"""Seconds between two looks at turns that nobody asks for."""


class ForgottenUsers:
    """Who was forgotten by ``waypost data forget``, as files of folders tell; see `FORGOTTEN`.

    Args:
        folders: Folders of this machine.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._paths = [folder / FORGOTTEN for folder in folders]
        self._seen: dict[Path, tuple[int, int]] = {}
        self._found: dict[Path, dict[str, float]] = {}

    def until(self, user_id: str) -> float | None:
        """Return the Unix seconds until which all of a user is deleted; None where nothing is."""
        for path in self._paths:
            self._look(path)
        user = query_digest(plain(user_id) or "")
        return max((known[user] for known in self._found.values() if user in known), default=None)

    def _look(self, path: Path) -> None:
        try:
            stat = path.stat()
            changed = stat.st_mtime_ns, stat.st_ino
            if self._seen.get(path) != changed:
                self._found[path] = read_forgotten(path.read_bytes())
                self._seen[path] = changed
        except FileNotFoundError:
            return
        except (OSError, StorageError) as error:  # what was read before still holds
            logger.error("%s cannot be read: %s", path, error)


def kept_turns(plan: Plan) -> KeptTurns | None:
    """Return the store of users' turns that a plan asks for; None where it asks for none."""
    settings = plan.retrieval.keep_turns
    if settings is None:
        return None
    places = (plan.feedback_dir, plan.decision_log)
    folders = [Path(one) for one in places if one is not None and not is_uri(one)]
    return KeptTurns(
        settings.most_turns,
        settings.most_mb * 1_000_000,
        settings.hours * 3600.0,
        ForgottenUsers(folders).until,
    )


async def sweep(turns: KeptTurns) -> None:
    """Delete old turns and those of forgotten users, again and again."""
    while True:
        await asyncio.sleep(SWEEP_S)
        turns.sweep()
