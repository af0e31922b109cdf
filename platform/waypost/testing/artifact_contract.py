"""Check that a saved router gives the same scores in a new process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from waypost.contracts.router import ScoreRouter
from waypost.contracts.routing_data import RoutingData
from waypost.loading import save_router
from waypost.testing.fitted_routers import fitted
from waypost.testing.synthetic import planted

_LOAD = """
import sys
import numpy as np
from waypost import load_router
from waypost.testing.synthetic import planted

data = planted(20, seed=3)
for folder in sys.argv[1:]:
    router = load_router(folder)
    models = [decision.model for decision in router.route_batch(data.queries)]
    np.savez(f"{folder}.npz", scores=router.predict_quality(data.batch()), models=models)
"""


def check_fresh_process(names: Sequence[str], folder: Path) -> None:
    """Save the routers, load them in one new process, and compare scores and choices.

    Args:
        names: Registry names of score routers.
        folder: An empty folder for the artifacts.
    """
    check_loads_elsewhere([fitted(name) for name in names], planted(160), folder)


def check_loads_elsewhere(
    routers: Sequence[ScoreRouter], training: RoutingData, folder: Path
) -> None:
    """Check like `check_fresh_process` the given routers, which were fitted on ``training``."""
    data = planted(20, seed=3)
    for router in routers:
        save_router(router, folder / router.name, training)
    paths = [str(folder / router.name) for router in routers]
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, *paths], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for router in routers:
        with np.load(folder / f"{router.name}.npz") as there:
            np.testing.assert_allclose(
                there["scores"], router.predict_quality(data.batch()), atol=1e-6
            )
            chosen = [decision.model for decision in router.route_batch(data.queries)]
            assert there["models"].tolist() == chosen, router.name
