"""An address at which no Ray is, told at once."""

from __future__ import annotations

import pytest

from support.served import free_port
from waypost.contracts.errors import ClusterError
from waypost.ray_session import ray_session


@pytest.mark.parametrize("port", ["free", "99999"])
def test_an_address_without_a_ray_is_told(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    address = f"127.0.0.1:{free_port() if port == 'free' else port}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setenv("RAY_ENABLE_AUTO_CONNECT", "0")  # the session would set it for good
    said = f"RAY_ADDRESS {address}: no Ray answers there"
    with pytest.raises(ClusterError, match=said), ray_session():
        pass
