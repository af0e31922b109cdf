"""Check the API keys of the gateway's clients, where the config requires them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from waypost.contracts.errors import ConfigError, Fault
from waypost.secrets import ANY_SERVICE, KeyRing, key_ring
from waypost.serve.gateway.errors import Problem

SERVICE = "waypost-clients"
"""Service name of the clients' keys in ``API_KEYS``."""


METRICS_SERVICE = "waypost-metrics"
"""Service name of keys that read /metrics, and may do nothing else."""


class ClientKeys:
    """The accepted keys; only their digests are kept.

    Args:
        keys: Keys of clients.
        readers: Keys that open /metrics alone.
    """

    def __init__(self, keys: Iterable[str], readers: Iterable[str] = ()) -> None:
        self._digests = frozenset(_digest(key) for key in keys)
        self._readers = frozenset(_digest(key) for key in readers)

    def accept(self, authorization: str | None, *, metrics: bool = False) -> bool:
        """Return whether an ``Authorization`` header holds an accepted key."""
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        digest = _digest(key.strip())
        return digest in self._digests or (metrics and digest in self._readers)

    def check(self, authorization: str | None, *, metrics: bool = False) -> None:
        """Check the ``Authorization`` header of a request, or of one for /metrics.

        Raises:
            Problem: 401.
        """
        if self.accept(authorization, metrics=metrics):
            return
        what = "is not known" if authorization else "is missing"
        raise Problem(
            401,
            f"the API key {what}; expected the header Authorization: Bearer <key>",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )


def client_keys(ring: KeyRing | None = None) -> ClientKeys:
    """Read the keys of the clients.

    Raises:
        ConfigError: there are none. Keys for any service do not count: they are keys to other
            services, which clients must not have.
    """
    ring = key_ring() if ring is None else ring
    own, shared = _all(ring, SERVICE), _all(ring, ANY_SERVICE)
    if not own - shared:
        problem = f"api_keys is on: give the clients' keys under {SERVICE!r}"
        raise ConfigError([Fault("API_KEYS", problem)])
    return ClientKeys(own, _all(ring, METRICS_SERVICE) - shared)


def _all(ring: KeyRing, service: str) -> set[str]:
    # a ring rotates its keys: as many calls as keys return each key once
    found = (ring.take(service) for _ in range(ring.count(service)))
    return {key.reveal() for key in found if key is not None}


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
