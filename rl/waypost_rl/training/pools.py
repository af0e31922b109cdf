"""Open the pool of candidates that a config names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from waypost.config import resolve_path
from waypost_rl.training.config import HttpSource, ReplayedSource, RunConfig
from waypost_rl.training.parts import Ask, DelegatePool, Reply

ANSWERS = "answers"


class RenamedPool:
    """A pool under the names of the prompt.

    Args:
        pool: Where the candidates answer.
        names: Name in the prompt -> name in the pool.
    """

    def __init__(self, pool: DelegatePool, names: Mapping[str, str]) -> None:
        self._pool = pool
        self._names = names

    async def ask(self, ask: Ask) -> Reply:
        """Ask the candidate under its name in the pool."""
        return await self._pool.ask(replace(ask, candidate=self._names[ask.candidate]))

    async def close(self) -> None:
        """Close the pool."""
        await self._pool.close()


def check_source(config: RunConfig) -> None:
    """Read the recorded answers of a replayed pool.

    Raises:
        SchemaError: They cannot be read.
    """
    if isinstance(config.pool, ReplayedSource):
        from waypost_rl.training.replayed_pool import ReplayedPool

        ReplayedPool(resolve_path(config.pool.data))


def open_pool(config: RunConfig, run: Path, rank: int) -> DelegatePool:
    """Return the pool of a run; answers of a live one are recorded in the run's folder.

    Args:
        config: The run.
        run: Its folder.
        rank: Of the worker: each records in a file of its own.

    Raises:
        ConfigError, SchemaError: The source of a replayed pool cannot be read.
    """
    source = config.pool
    pooled = {name: one.pool_name or name for name, one in config.candidates.items()}
    if isinstance(source, ReplayedSource):
        from waypost_rl.training.replayed_pool import ReplayedPool

        return RenamedPool(ReplayedPool(resolve_path(source.data)), pooled)
    from waypost_rl.training.live_pool import HandlePool, HttpPool
    from waypost_rl.training.recorded import RecordedPool

    pool: DelegatePool
    if isinstance(source, HttpSource):
        pool = HttpPool(
            source.base_url,
            api_key_env=source.api_key_env,
            timeout_s=source.timeout_s,
            at_once=source.at_once,
            max_tokens=source.max_tokens,
        )
    else:
        pool = HandlePool(
            source.app,
            timeout_s=source.timeout_s,
            at_once=source.at_once,
            max_tokens=source.max_tokens,
        )
    if config.cache:
        folder = run / ANSWERS
        folder.mkdir(parents=True, exist_ok=True)
        pool = RecordedPool(pool, folder / f"worker_{rank}.jsonl")
    return RenamedPool(pool, pooled)
