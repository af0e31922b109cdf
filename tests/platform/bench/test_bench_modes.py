"""The bench of what is routed on."""

from __future__ import annotations

from support.gateway import knn_artifact
from waypost.bench import modes
from waypost.bench.harness import Tell


def test_every_mode_is_timed_beside_the_last_message(tmp_path) -> None:
    artifact = knn_artifact(tmp_path / "artifact")
    options = modes.Options(**modes.QUICK, artifact=artifact)
    found = modes.run(options, Tell())
    assert set(found.figures["p50_ms"]) == {"2", "8"}
    for one in found.figures["ratio"].values():
        assert set(one) == set(modes.WAYS)
        assert one["current_only"] == 1.0
        assert all(value > 0 for value in one.values())
    assert [aim.value for aim in found.aims] == [
        found.figures["ratio"][turns]["retrieval"] for turns in ("2", "8")
    ]
