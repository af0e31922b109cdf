"""Arguments that are folders: a path, or the URI of a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from waypost.contracts.errors import StorageError
from waypost.storage.uri import Place, Uri, is_uri, place


class Folder(click.ParamType):  # type: ignore[type-arg] # generic from click 8.4 on only
    """A folder, as `waypost.storage.Place`: what a pipeline takes.

    Args:
        exists: A path must be a folder that is there. What is at a URI its store says later, and
            what is wrong with a path to be written says who writes.
    """

    name = "folder or URI"

    def __init__(self, *, exists: bool = False) -> None:
        self._path = click.Path(exists=exists, file_okay=not exists, path_type=Path)

    def convert(self, value: Any, param: Any, ctx: Any) -> Place:
        """Return the place; a kind of store that nobody can have is a wrong argument."""
        try:
            found = place(value) if is_uri(value) else value
        except StorageError as error:
            self.fail(str(error), param, ctx)
        if isinstance(found, Uri):
            return found
        path: Path = self._path.convert(found, param, ctx)
        return path
