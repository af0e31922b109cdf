"""The list of talks, and talks as files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from waypost.chat import export
from waypost.chat.layout import NOTHING, Parts, Update
from waypost.chat.visit import Visit


class Talks:
    """Handlers that open, delete and export talks.

    Args:
        parts: The components.
        picture: Returns all that follows from a visit.
    """

    def __init__(self, parts: Parts, picture: Callable[[Visit], Update]) -> None:
        self._parts, self._picture = parts, picture

    def new(
        self, visit: Visit, view: str, dial: float, left: str, right: str, *more: Any
    ) -> Update:
        """Begin a talk."""
        if visit.running:
            visit.stop()
        visit.new(view, [left] if view == "chat" else [left, right])  # type: ignore[arg-type]
        return {**self._picture(visit), self._parts.next: ""}

    def open(self, visit: Visit, talk_id: str) -> Update:
        """Open an earlier talk."""
        if visit.running:
            visit.stop()
        visit.open(talk_id)
        return {**self._picture(visit), self._parts.next: ""}

    def delete(self, visit: Visit) -> Update:
        """Forget the open talk."""
        if visit.running:
            return NOTHING
        visit.delete()
        return self._picture(visit)

    def export_json(self, visit: Visit) -> Update:
        """Give the open talk as a file."""
        text = export.as_json(visit.talk) if visit.talk.turns else ""
        return self._file(visit, text, f"{visit.talk.id}.json", "There is nothing to export yet.")

    def export_votes(self, visit: Visit) -> Update:
        """Give the votes of all talks as a file."""
        text = export.as_votes(visit.talks)
        return self._file(visit, text, "votes.jsonl", "There are no votes to export yet.")

    def _file(self, visit: Visit, text: str, name: str, nothing: str) -> Update:
        notice = None if text else nothing
        return {
            self._parts.file: text,
            self._parts.file_name: name,
            self._parts.notice: gr.update(value=notice or "", visible=bool(notice)),
        }
