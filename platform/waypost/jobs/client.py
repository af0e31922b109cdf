"""Client of Ray jobs: submit a command once, follow it to its end, stop it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from waypost.config import environment_value, set_default_environment
from waypost.contracts.errors import (
    ClusterAuthError,
    ClusterUnreachableError,
    JobError,
    MissingExtraError,
)

logger = logging.getLogger(__name__)

PREFIX = "waypost-"
STOPPED = 130
_ADDRESS = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_TOKEN = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_START_S = 60.0
_STOP_S = 30.0
_POLL_S = 0.5


def connect(address: str | None) -> Any:
    """Return ``ray.job_submission.JobSubmissionClient`` of a cluster that answers.

    Args:
        address: Of its dashboard, ``http://host:port``; None takes Ray's environment variables,
            else this machine.

    Raises:
        MissingExtraError: Ray is not installed.
        ClusterUnreachableError, ClusterAuthError: no answer, or the token is refused.
    """
    if address is not None:
        os.environ[_ADDRESS[0]] = address  # Ray's variable overrides the argument
    if any(environment_value(name) for name in _TOKEN):
        set_default_environment({"RAY_AUTH_MODE": "token"})
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError:
        raise MissingExtraError("ray", "tune") from None
    for handler in logging.getLogger("ray").handlers:
        handler.setLevel(logging.WARNING)  # hides the progress of uploads
    asked = next((value for name in _ADDRESS if (value := environment_value(name))), None)
    with cluster_errors(asked or "http://127.0.0.1:8265"):
        return JobSubmissionClient(asked)


@contextmanager
def cluster_errors(address: str) -> Iterator[None]:
    """Translate the exceptions of Ray's client.

    Raises:
        ClusterUnreachableError, ClusterAuthError, JobError: by cause.
    """
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError:
        raise ClusterAuthError(
            f"{address}: refuses the token; set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file, "
            "to the one that its head was started with"
        ) from None
    except OSError:  # includes the errors of requests
        raise ClusterUnreachableError(
            f"{address}: no Ray head answers there; give --address http://HOST:8265, its dashboard"
        ) from None
    except (RuntimeError, ValueError) as error:
        raise JobError(f"{address}: {error}") from None


def job_key(words: Sequence[str]) -> str:
    """Return the prefix of the job ids of a command."""
    digest = hashlib.sha256("\0".join(words).encode()).hexdigest()
    name = words[0] if words and words[0].isidentifier() else "job"
    return f"{PREFIX}{name}-{digest[:10]}"


def submit(client: Any, words: Sequence[str], runtime_env: Callable[[], dict[str, Any]]) -> str:
    """Start ``python -m waypost.cli`` with these words, or find its running job.

    A cluster accepts a job id once, so another run of a finished command gets the next number.

    Args:
        client: See `connect`.
        words: Of the command, without ``waypost``.
        runtime_env: Makes the environment; called only if a job is started.

    Returns:
        The job's id.
    """
    with cluster_errors(client.get_address()):
        last = _last_try(client, words)
        if last is not None:
            name, status = last.submission_id, last.status
            if not status.is_terminal():
                logger.info("%s is %s already", name, status.lower())
                return str(name)
            logger.info("%s %s; the same command goes on", name, status.lower())
        number = 1 if last is None else int(last.submission_id.rpartition("-")[2]) + 1
        return _submit(
            client,
            entrypoint=shlex.join(["python", "-m", "waypost.cli", *words]),
            submission_id=f"{job_key(words)}-{number}",
            runtime_env=runtime_env(),
        )


def running(client: Any, words: Sequence[str]) -> str | None:
    """Return the id of the running job of a command; None without one."""
    with cluster_errors(client.get_address()):
        last = _last_try(client, words)
    return None if last is None or last.status.is_terminal() else str(last.submission_id)


def _last_try(client: Any, words: Sequence[str]) -> Any:
    """Return Ray's details of the newest job of this command, or None."""
    id_ = re.compile(rf"{re.escape(job_key(words))}-(\d+)")
    tries = {
        int(match[1]): job
        for job in client.list_jobs()
        if (match := id_.fullmatch(job.submission_id or ""))
    }
    return tries[max(tries)] if tries else None


def _submit(client: Any, **job: Any) -> str:
    """Submit a job, retrying while a new cluster head accepts none yet."""
    deadline = time.monotonic() + _START_S
    while True:
        try:
            return str(client.submit_job(**job))
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)


def follow(client: Any, job: str, write: Callable[[str], None]) -> int:
    """Write a job's log as it grows, and return its exit code.

    Raises:
        KeyboardInterrupt: from the user; the job continues.
        ClusterUnreachableError: the cluster stopped answering.
    """
    with cluster_errors(client.get_address()):
        asyncio.run(_tail(client, job, write))
        info = client.get_job_info(job)
    if info.driver_exit_code is not None and info.status != "STOPPED":
        return int(info.driver_exit_code)
    if info.status == "SUCCEEDED":
        return 0
    logger.error("%s: %s", job, (info.message or str(info.status)).strip())
    return STOPPED if info.status == "STOPPED" else 1


async def _tail(client: Any, job: str, write: Callable[[str], None]) -> None:
    written = 0
    while True:
        seen = 0
        try:
            # a new connection starts at the beginning of the log
            async for text in client.tail_job_logs(job):
                new = text[max(written - seen, 0) :]
                seen += len(text)
                if new:
                    write(new)
                    written += len(new)
        except RuntimeError as error:  # the connection broke; the status tells the end
            logger.debug("%s: %s", job, error)
        if client.get_job_status(job).is_terminal():
            return
        await asyncio.sleep(_POLL_S)


def run_quietly(client: Any, entrypoint: str, timeout_s: float = 120.0) -> str:
    """Run a short job in the cluster's own environment and return its log.

    Raises:
        JobError: it failed or took too long.
    """
    with cluster_errors(client.get_address()):
        job = _submit(client, entrypoint=entrypoint)
        deadline = time.monotonic() + timeout_s
        while not (status := client.get_job_status(job)).is_terminal():
            if time.monotonic() > deadline:
                client.stop_job(job)
                raise JobError(f"the cluster started no job in {timeout_s:g} s; is it out of CPUs?")
            time.sleep(_POLL_S)
        if status != "SUCCEEDED":
            raise JobError(f"the cluster runs no jobs: {client.get_job_info(job).message}")
        return str(client.get_job_logs(job))


def stop(client: Any, job: str) -> bool:
    """Stop a job and return whether it has ended.

    Ray sends its process a signal and kills it some seconds later.
    """
    with cluster_errors(client.get_address()):
        client.stop_job(job)
        deadline = time.monotonic() + _STOP_S
        while time.monotonic() < deadline:
            if client.get_job_status(job).is_terminal():
                return True
            time.sleep(_POLL_S)
    return False
