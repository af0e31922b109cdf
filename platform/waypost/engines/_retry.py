"""When to try again."""

from __future__ import annotations

import random
import time
from email.utils import parsedate_to_datetime


def retry_after_s(header: str | None, now: float | None = None) -> float | None:
    """Read a Retry-After header.

    Args:
        header: Seconds (a fraction is accepted) or an HTTP date.
        now: Seconds since the epoch, for the date; default the clock.

    Returns seconds from now, never negative, or None where the header is absent or nonsense.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp()
        except (ValueError, TypeError):
            return None
        seconds -= time.time() if now is None else now
    return max(0.0, seconds) if seconds < float("inf") else None


def backoff_s(attempt: int, base_s: float, max_s: float) -> float:
    """Draw a wait before try `attempt` + 1 (the first is 0): full jitter.

    Uniform between 0 and ``base_s * 2 ** attempt``, at most `max_s`: clients that failed
    together do not come back together (AWS Architecture Blog, 2015).
    """
    return random.uniform(0.0, min(max_s, base_s * 2.0**attempt))  # noqa: S311 - no secret
