"""Locations: a local path, or a URI whose credentials are hidden."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

from waypost.contracts.errors import (
    MissingExtraError,
    StorageAccessError,
    StorageError,
    StorageMissingError,
    StorageSchemeError,
)
from waypost.secrets import HIDDEN, Secret, redact

# In these schemes the text before the @ is a part of the address, not a key.
_NAMED = ("abfs", "abfss", "wasb", "wasbs", "hdfs", "sftp", "ssh")
_HARMLESS = ("region", "scheme", "endpoint_override", "allow_bucket_creation", "anonymous")

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_uri(text: object) -> bool:
    """Return whether this is ``scheme://...``; a single letter is a drive, not a scheme."""
    return isinstance(text, Uri) or (isinstance(text, str) and _URI.match(text) is not None)


class Uri:
    """A URI in a store.

    ``str`` omits the parts that may be credentials: before the host's ``@`` and after ``?``. Their
    values are registered with `waypost.secrets.redact`.

    Attributes:
        scheme: Scheme in lower case.
        name: Last part of the path; the host if there is no path.
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
        """Return the complete text. Pass it only to the store's library."""
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
        """Whether the URI contains credentials, which ``str`` omits."""
        return bool(self._secrets)

    def hide(self, text: str) -> str:
        """Return a text without the hidden parts of this URI, even short ones."""
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
"""Location of an input or output."""


def place(text: str | Place) -> Place:
    """Return the location of a text; a ``file://`` URI gives a path.

    Raises:
        StorageSchemeError: a ``file://`` URI has the name of another machine.
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


# Words in the messages of stores; pyarrow raises OSError for most causes.
_DENIED = ("access_denied", "access denied", "forbidden", "permission", "unauthorized",
           "invalid_access_key", "signature", "no credentials", "expiredtoken", "status 403",
           "(403)", "error 403", "unauthenticated")  # fmt: skip
_MISSING = ("no_such_bucket", "no such bucket", "bucket does not exist", "no_such_key",
            "does not exist", "not found", "(404)")  # fmt: skip

_OBJECT_STORES = ("s3", "gcs", "abfs")


def open_store(uri: Uri) -> tuple[Any, str]:
    """Return a ``pyarrow.fs.FileSystem`` and the path in it: pyarrow's own, else fsspec's.

    Raises:
        StorageSchemeError, MissingExtraError: the scheme is unknown, or its library is missing.
        StorageError: the store cannot be opened.
    """
    from pyarrow.fs import FileSystem
    from pyarrow.lib import ArrowInvalid

    with store_errors(uri):
        try:
            store, path = FileSystem.from_uri(uri.reveal())
        except ArrowInvalid as error:
            if "Unrecognized filesystem type" not in str(error):
                raise
            store, path = _from_fsspec(uri)
    return store, path.rstrip("/")


def _from_fsspec(uri: Uri) -> tuple[Any, str]:
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    try:
        import fsspec
    except ImportError:
        raise MissingExtraError("fsspec", "data") from None
    try:
        fsspec.get_filesystem_class(uri.scheme)
    except ValueError:
        raise StorageSchemeError(
            f"{uri}: unknown kind of store {uri.scheme}://; expected a path, file://, s3://, "
            "gs://, abfs://, hdfs://, or another one of fsspec"
        ) from None
    except ImportError as error:  # its message has the package to install
        raise StorageSchemeError(f"{uri}: {uri.hide(str(error))}") from None
    store, path = fsspec.core.url_to_fs(uri.reveal())
    return PyFileSystem(FSSpecHandler(store)), path


@contextmanager
def store_errors(uri: Uri) -> Iterator[None]:
    """Translate the errors of a store; the messages contain the URI without credentials.

    Raises:
        StorageMissingError, StorageAccessError, StorageError: depending on the store's error.
    """
    from pyarrow.lib import ArrowException

    try:
        yield
    # fsspec's stores raise errors of their libraries, which have many classes
    except (OSError, ArrowException, ValueError, RuntimeError, KeyError) as error:
        problem, kind = _reason(error, uri), _kind(error)
    else:
        return
    # without the store's own error, which may contain the complete URI
    raise kind(f"{uri}: {problem}") from None


def move(store: Any, old: str, new: str) -> None:
    """Rename a file, replacing an existing file of the new name."""
    files = _fsspec_of(store)
    if files is None:
        store.move(old, new)
        return
    # The handler's own move and delete read [, * and ? in a name as a pattern.
    try:
        files.cp_file(old, new)
    except NotImplementedError:  # sftp, ftp, smb: rename, to an unused name only
        if files.exists(new):
            files.rm_file(new)
        files.mv(old, new)
    else:
        files.rm_file(old)


def make_parent(store: Any, path: str) -> None:
    """Create the folder of a file, if the store has folders."""
    # In an object store this would create an empty object, or a bucket.
    if store.type_name not in _OBJECT_STORES:
        store.create_dir(path.rpartition("/")[0], recursive=True)


def delete(store: Any, path: str) -> None:
    """Delete a file; a missing file is not an error."""
    files = _fsspec_of(store)
    try:
        store.delete_file(path) if files is None else files.rm_file(path)
    except FileNotFoundError:
        return


def _fsspec_of(store: Any) -> Any:
    return getattr(getattr(store, "handler", None), "fs", None)


def _kind(error: Exception) -> type[StorageError]:
    said = str(error).lower()
    if isinstance(error, PermissionError) or any(word in said for word in _DENIED):
        return StorageAccessError
    if isinstance(error, FileNotFoundError) or any(word in said for word in _MISSING):
        return StorageMissingError
    return StorageError


def _reason(error: Exception, uri: Uri) -> str:
    lines = uri.hide(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
