"""Inputs and outputs of commands: a local path, or a URI of any store that pyarrow or fsspec knows.

    with local_copy("s3://bucket/routing") as folder: ...       read what is there
    with mirrored("s3://bucket/runs/knn") as folder: ...        write; what was there is there again
    with alone_in(place("s3://bucket/data")): ...               no other process works there

Commands work on local folders only. A plain path, or file://, is itself: nothing is copied. Any
other URI is copied to a temporary folder of this machine and, for an output, back. Credentials come
from the store's usual places (its environment variables and files); a URI may hold them, too, and
then no message does.
"""

from __future__ import annotations

from waypost.storage.folders import local_copy, mirrored
from waypost.storage.lock import alone_in
from waypost.storage.uri import Place, Uri, is_uri, place

__all__ = ["Place", "Uri", "alone_in", "is_uri", "local_copy", "mirrored", "place"]
