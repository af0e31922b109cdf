"""A Ray that does not start, as on a busy machine: tried twice, then told with what to do."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from waypost.contracts.errors import ClusterError
from waypost.ray_session import start_ray
from waypost.serve import launch

# what Ray 2.60 raises after 30 s (_private/node.py); such a start cannot be had in a moment
SAID = "The current node timed out during startup. This could happen because of the raylet."


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    import ray

    found: list[dict] = []

    def init(**options):
        found.append(options)
        raise Exception(f"{SAID}\nmore lines")

    monkeypatch.setattr(ray, "init", init)
    return found


def test_what_happened_and_what_to_do_are_told(tries):
    with pytest.raises(ClusterError) as caught:
        launch.start(SimpleNamespace(data={}), num_cpus=None, logs=False)
    assert str(caught.value).startswith(f"Ray does not start on this machine: {SAID} The machine ")
    assert "ports is taken; end other programs and try again" in str(caught.value)
    assert "more lines" not in str(caught.value)
    assert [one["address"] for one in tries] == ["local", "local"]


def test_a_named_cluster_is_asked_once(tries):
    with pytest.raises(ClusterError, match=r"Ray at 10\.0\.0\.1:6379 does not answer"):
        start_ray(address="10.0.0.1:6379")
    assert len(tries) == 1
