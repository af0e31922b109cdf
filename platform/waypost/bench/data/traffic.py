"""What the endpoint saw of one way of asking."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_EDGE = 0.1
_SLOT_S = 0.1


@dataclass(frozen=True)
class Traffic:
    """Calls at the endpoint.

    Attributes:
        calls: Begun.
        answered: Whose answer was sent.
        begin: Monotonic second of the first call.
        end: Of the last answer.
        per_s: Answers a second between the two.
        steady_per_s: The same over the middle 80 % of the answers, without start and end.
        most_at_once: Calls in flight.
        mean_at_once: The same on average, from `begin` to `end`.
        timeline: Answers in each tenth of a second.
    """

    calls: int
    answered: int
    begin: float
    end: float
    per_s: float
    steady_per_s: float
    most_at_once: int
    mean_at_once: float
    timeline: tuple[int, ...]


def traffic(begins: Sequence[float], ends: Sequence[float]) -> Traffic:
    """Sum a record up.

    Args:
        begins: Monotonic seconds of calls.
        ends: Of answers.

    Raises:
        ValueError: nothing was answered.
    """
    if not len(ends):
        raise ValueError("no call was answered")
    came, went = np.sort(np.asarray(begins)), np.sort(np.asarray(ends))
    begin, end = float(came[0]), float(went[-1])
    low, high = int(len(went) * _EDGE), int(len(went) * (1 - _EDGE)) - 1
    middle = float(went[high] - went[low]) if high > low else 0.0
    # calls that came up to each moment, less the answers that went before it
    at_once = np.arange(1, len(came) + 1) - np.searchsorted(went, came, side="right")
    slots = np.bincount(((went - begin) / _SLOT_S).astype(int))
    seconds = end - begin
    unanswered = (len(came) - len(went)) * end
    return Traffic(
        calls=len(came),
        answered=len(went),
        begin=begin,
        end=end,
        per_s=len(went) / seconds,
        steady_per_s=(high - low) / middle if middle else len(went) / seconds,
        most_at_once=int(at_once.max()),
        mean_at_once=float(went.sum() + unanswered - came.sum()) / seconds,
        timeline=tuple(slots.tolist()),
    )


def take(port: int) -> Traffic:
    """Ask the endpoint for its record, which begins anew there.

    Raises:
        ValueError: nothing was answered.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/traffic")
        record = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return traffic(record["begins"], record["ends"])
