"""Logging of the nodes: plain or JSON lines, without keys, prompts and answers."""

from __future__ import annotations

import json
import logging
import time
import traceback

from waypost.secrets import guard_logging
from waypost.serve.limits import LogArgs

PLAIN = "%(levelname)s %(asctime)s %(name)s: %(message)s"


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (UTC), level, logger, message, and the error if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of one record."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_text:
            line["error"] = record.exc_text
        return json.dumps(line)


def set_up_logging(log: LogArgs) -> None:
    """Send Waypost's log lines to stderr, once per process, through the redacting filter."""
    logger = logging.getLogger("waypost")
    logger.setLevel(log.level)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter() if log.format == "json" else logging.Formatter(PLAIN))
        logger.addHandler(handler)
        logger.propagate = False
    for name in ("waypost", "ray.serve", ""):
        guard_logging(logging.getLogger(name).handlers)


def where_raised(error: BaseException) -> str:
    """Return an exception's type and the locations of its traceback, without its message.

    A message may hold a user's text; file and line never do.
    """
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(error).__name__} at {places}"
