"""Inputs and outputs of commands: a local path, or a URI of a store of pyarrow or fsspec.

    with local_copy("s3://bucket/routing") as folder: ...       read an input
    with mirrored("s3://bucket/runs/knn") as folder: ...        write an output; existing files stay
    with alone_in(place("s3://bucket/data")): ...               lock out other processes

Commands work on local folders only. A plain path or a file:// URI is used directly. Any other URI
is copied to a local temporary folder and, for an output, back to the store. Credentials come from
the store's usual places (its environment variables and files). A URI may contain credentials, too;
messages hide them.
"""

from __future__ import annotations

from waypost.storage.folders import local_copy, mirrored
from waypost.storage.lock import alone_in
from waypost.storage.uri import Place, Uri, is_uri, place

__all__ = ["Place", "Uri", "alone_in", "is_uri", "local_copy", "mirrored", "place"]
