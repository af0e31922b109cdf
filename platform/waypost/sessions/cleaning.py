"""Take out of a text what a harness wrote into it: spans between literal marks.

The text is only cleaned for routing; LLMs get it whole. Marks are literal, so the time is linear in
the text whatever the marks are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

Mark: TypeAlias = tuple[str, str]
"""Start and end of a span."""


def _tags(*names: str) -> tuple[Mark, ...]:
    return tuple((f"<{name}>", f"</{name}>") for name in names)


KNOWN: Mapping[str, tuple[Mark, ...]] = {
    "claude-code": _tags(
        "system-reminder", "command-name", "command-message", "local-command-stdout",
        "local-command-caveat",
    ),
    "cline": _tags("environment_details"),
    "codex": _tags("environment_context", "user_instructions"),
    "copilot": _tags(
        "reminderInstructions", "context", "attachments", "editorContext", "environment_info",
        "workspace_info",
    ),
    "openhands": _tags("EXTRA_INFO"),
}  # fmt: skip
"""Marks of harnesses by name, each a pair of tags. Cline's are Roo Code's and Kilo Code's, too."""


def marks_of(names: Iterable[str]) -> tuple[Mark, ...]:
    """Return the marks of named sets of `KNOWN`.

    Raises:
        KeyError: there is no set of that name.
    """
    return tuple(mark for name in names for mark in KNOWN[name])


def clean(text: str, marks: Sequence[Mark]) -> str:
    """Return the text without the spans between marks, and without white space around.

    A span ends at the first end mark. A start mark without an end is no span. A text without any
    span is returned as it is.
    """
    found = text
    for start, end in marks:
        found = _without(found, start, end)
    return text if found is text else found.strip()


def _without(text: str, start: str, end: str) -> str:
    parts = []
    done = 0
    while (begin := text.find(start, done)) >= 0:
        over = text.find(end, begin + len(start))
        if over < 0:
            break
        parts.append(text[done:begin])
        done = over + len(end)
    if not done:
        return text
    parts.append(text[done:])
    return "".join(parts)
