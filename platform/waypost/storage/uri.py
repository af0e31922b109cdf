"""Where something is: a local path or a URI whose secrets are not shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

from waypost.contracts.errors import StorageSchemeError
from waypost.secrets import HIDDEN, Secret, redact

# What stands before the @ names a part of the address here, and no key.
_NAMED = ("abfs", "abfss", "wasb", "wasbs", "hdfs", "sftp", "ssh")
_HARMLESS = ("region", "scheme", "endpoint_override", "allow_bucket_creation", "anonymous")

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_uri(text: object) -> bool:
    """Say whether this is ``scheme://...``; a single letter is a drive, not a scheme."""
    return isinstance(text, Uri) or (isinstance(text, str) and _URI.match(text) is not None)


class Uri:
    """An address in a store.

    ``str`` gives it without what may be a credential: what stands before the host's ``@`` and
    after ``?``. Those values are known to `waypost.secrets.redact` from here on.

    Attributes:
        scheme: In lower case.
        name: Last part of the path; the host where there is none.
    """

    __slots__ = ("_secrets", "_text", "name", "scheme")

    def __init__(self, text: str) -> None:
        parts = urlsplit(text)
        self._text = text
        self.scheme = parts.scheme.lower()
        self.name = parts.path.rstrip("/").rpartition("/")[2] or _host(text) or self.scheme
        user, _, password = parts.netloc.rpartition("@")[0].partition(":")
        found = [value for key, value in parse_qsl(parts.query) if key not in _HARMLESS]
        found += [password] if self.scheme in _NAMED else [user, password]
        spellings = [text for value in found if value for text in (value, unquote(value))]
        self._secrets = tuple(Secret(spelling) for spelling in spellings)

    def reveal(self) -> str:
        """Return the whole text, for the store's library and for nothing else."""
        return self._text

    def __str__(self) -> str:
        parts = urlsplit(self._text)
        user = parts.netloc.rpartition("@")[0].partition(":")[0]
        named = f"{user}@" if user and self.scheme in _NAMED else ""
        return f"{self.scheme}://{named}{_host(self._text)}{parts.path.rstrip('/')}"

    def __truediv__(self, name: str) -> Uri:
        parts = urlsplit(self._text)
        return Uri(parts._replace(path=f"{parts.path.rstrip('/')}/{name}").geturl())

    @property
    def holds_secrets(self) -> bool:
        """Whether the text says more than ``str`` shows."""
        return bool(self._secrets)

    def hide(self, text: str) -> str:
        """Return a text with what this URI hides taken out, however short it is."""
        parts = urlsplit(self._text)
        text = text.replace(self._text, str(self))
        for part in (parts.netloc.rpartition("@")[0], parts.query):
            text = text.replace(part, HIDDEN) if part else text
        return redact(text)

    def __repr__(self) -> str:
        return f"Uri({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Uri) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)


def _host(text: str) -> str:
    return urlsplit(text).netloc.rpartition("@")[2]


Place: TypeAlias = Path | Uri
"""Where something is read or written."""


def place(text: str | Place) -> Place:
    """Read a path or a URI; ``file://`` is a path.

    Raises:
        StorageSchemeError: ``file://`` names another machine.
    """
    if isinstance(text, Path | Uri):
        return text
    if not is_uri(text):
        return Path(text)
    uri = Uri(text)
    if uri.scheme != "file":
        return uri
    if _host(text) not in {"", "localhost"}:
        raise StorageSchemeError(f"{uri}: file:// has three slashes before an absolute path")
    return Path(unquote(urlsplit(text).path))
