"""From a URI to pyarrow's file system, and from a store's errors to ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from waypost.contracts.errors import (
    MissingExtraError,
    StorageAccessError,
    StorageError,
    StorageMissingError,
    StorageSchemeError,
)

if TYPE_CHECKING:
    from waypost.storage.uri import Uri

# Stores say it in words of their own; pyarrow raises OSError for most of them.
_DENIED = ("access_denied", "access denied", "forbidden", "permission", "unauthorized",
           "invalid_access_key", "signature", "no credentials", "expiredtoken", "status 403",
           "(403)", "error 403", "unauthenticated")  # fmt: skip
_MISSING = ("no_such_bucket", "no such bucket", "bucket does not exist", "no_such_key",
            "does not exist", "not found", "(404)")  # fmt: skip

_OBJECT_STORES = ("s3", "gcs", "abfs")


def open_store(uri: Uri) -> tuple[Any, str]:
    """Return ``pyarrow.fs.FileSystem`` and the path in it: pyarrow's own where it has one.

    Raises:
        StorageSchemeError: nobody knows the scheme, or its library is not installed.
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
            "gs://, abfs://, hdfs://, or another that fsspec has"
        ) from None
    except ImportError as error:  # fsspec says which package to install
        raise StorageSchemeError(f"{uri}: {uri.hide(str(error))}") from None
    store, path = fsspec.core.url_to_fs(uri.reveal())
    return PyFileSystem(FSSpecHandler(store)), path


@contextmanager
def store_errors(uri: Uri) -> Iterator[None]:
    """Translate what a store raises; the message names the URI and holds no credentials.

    Raises:
        StorageMissingError, StorageAccessError, StorageError: by what the store said.
    """
    from pyarrow.lib import ArrowException

    try:
        yield
    # fsspec's stores raise errors of their libraries, which are of any kind
    except (OSError, ArrowException, ValueError, RuntimeError, KeyError) as error:
        problem, kind = _reason(error, uri), _kind(error)
    else:
        return
    # without the store's own error, which may hold the whole URI
    raise kind(f"{uri}: {problem}") from None


def move(store: Any, old: str, new: str) -> None:
    """Give a file another name, in place of what had it."""
    files = _fsspec_of(store)
    if files is None:
        store.move(old, new)
        return
    # The handler's own move and delete take [, * and ? of a name for a pattern.
    try:
        files.cp_file(old, new)
    except NotImplementedError:  # sftp, ftp, smb: a rename, and only to a free name
        if files.exists(new):
            files.rm_file(new)
        files.mv(old, new)
    else:
        files.rm_file(old)


def make_parent(store: Any, path: str) -> None:
    """Make the folder of a file, where the store has folders."""
    # An object store has none: to make one writes an empty object, or a bucket.
    if store.type_name not in _OBJECT_STORES:
        store.create_dir(path.rpartition("/")[0], recursive=True)


def delete(store: Any, path: str) -> None:
    """Delete a file; one that is gone is no error."""
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
