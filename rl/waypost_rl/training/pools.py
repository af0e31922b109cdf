"""Open the pool of candidates that a config names."""

from __future__ import annotations

from pathlib import Path

from waypost.config import resolve_path
from waypost_rl.training.config import HttpSource, ReplayedSource, RunConfig
from waypost_rl.training.parts import DelegatePool

ANSWERS = "answers"


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
        ConfigError, SchemaError: The source of a replayed pool cannot be read, or the application
            of handles or one of its LLMs is not there.
        ClusterError: The Ray of the application does not answer.
    """
    source = config.pool
    pooled = {name: one.pool_name or name for name, one in config.candidates.items()}
    if isinstance(source, ReplayedSource):
        from waypost_rl.training.replayed_pool import ReplayedPool

        return ReplayedPool(resolve_path(source.data), names=pooled)
    from waypost_rl.training.live_pool import HandlePool, HttpPool
    from waypost_rl.training.recorded import RecordedPool

    pool: HttpPool | HandlePool
    if isinstance(source, HttpSource):
        pool = HttpPool(
            source.base_url,
            pooled,
            api_key_env=source.api_key_env,
            timeout_s=source.timeout_s,
            at_once=source.at_once,
            max_tokens=source.max_tokens,
        )
    else:
        pool = HandlePool(
            source.app,
            pooled,
            timeout_s=source.timeout_s,
            at_once=source.at_once,
            max_tokens=source.max_tokens,
        )
        pool.connect()
    if not config.cache:
        return pool
    folder = run / ANSWERS
    folder.mkdir(parents=True, exist_ok=True)
    return RecordedPool(pool, folder / f"worker_{rank}.jsonl")
