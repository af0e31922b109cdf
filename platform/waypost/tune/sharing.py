"""What several fitted routers learned alike is held once, so that decisions compute it once.

Members of an ensemble that were fitted on one data set hold the same training vectors, and many
predict the same lengths of answers. Who computes something of a batch with such a part keeps it by
the part's identity (`QueryBatch.once`): where members hold one object, the first computes for all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.router import TrainableRouter

Key = tuple[Any, ...]


def share_learned(routers: Iterable[TrainableRouter]) -> None:
    """Let routers hold the same object wherever they learned equal arrays or equal parts.

    Learned arrays and parts are replaced by a router that learns on, never changed in place; no
    router notices what another one does.

    Args:
        routers: Fitted ones.
    """
    arrays: dict[Key, NDArray[Any]] = {}
    parts: dict[Key, Any] = {}
    for router in routers:
        for name, value in list(vars(router).items()):
            if isinstance(value, np.ndarray) and name.endswith("_"):
                setattr(router, name, arrays.setdefault(_key(value), value))
            elif name in router.state_parts and value is not None:
                held = {key: (_key(own), own) for key, own in value.to_arrays().items()}
                whole = (type(value), *((key, of) for key, (of, _) in sorted(held.items())))
                if whole not in parts:
                    shared = {key: arrays.setdefault(of, own) for key, (of, own) in held.items()}
                    parts[whole] = type(value).from_arrays(shared)
                setattr(router, name, parts[whole])


def _key(array: NDArray[Any]) -> Key:
    flat = np.ascontiguousarray(array)
    digest = hashlib.blake2b(flat.tobytes(), digest_size=16).digest()
    return (array.shape, array.dtype.str, digest)
