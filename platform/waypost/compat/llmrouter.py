"""LLMRouter's routers from their YAML (llmrouter-lib 0.4; Feng et al., 2025) over Waypost's.

In place of ``from llmrouter.models import KNNRouter, MetaRouter``. The YAML and the files that it
names stay as they are. A router is fitted on them when it is made; LLMRouter's saved models are
pickles, which are not read. `MetaRouter.route_batch` routes and calls no LLM: `waypost infer` and
`waypost.Gateway` do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from waypost.api import train
from waypost.contracts.errors import ConfigError, Fault
from waypost.contracts.records import Query
from waypost.contracts.router import TrainableRouter
from waypost.contracts.routing_data import read_routing_data
from waypost.contracts.tables import split_path
from waypost.loading import save_router
from waypost.pipelines.data.llmrouter.configs import map_config
from waypost.pipelines.data.llmrouter.importing import import_llmrouter

NAMES = {
    "AutomixRouter": "automix",
    "CausalLMRouter": "causallm_router",
    "DCRouter": "routerdc",
    "EloRouter": "elorouter",
    "GMTRouter": "gmtrouter",
    "GraphRouter": "graphrouter",
    "HybridLLMRouter": "hybrid_llm",
    "KNNMultiRoundRouter": "knnmultiroundrouter",
    "KNNRouter": "knnrouter",
    "LLMMultiRoundRouter": "llmmultiroundrouter",
    "LargestLLM": "largest_llm",
    "MFRouter": "mfrouter",
    "MLPRouter": "mlprouter",
    "PersonalizedRouter": "personalizedrouter",
    "SVMRouter": "svmrouter",
    "SmallestLLM": "smallest_llm",
}
"""Class of ``llmrouter.models`` -> registry name."""


class MetaRouter:
    """A router made and fitted from a config of LLMRouter's.

    Args:
        yaml_path: The config, with ``data_path`` and optionally ``hparam``.
        router: Registry name; None takes the class's, else the one that the config's name or its
            ``model_path`` tells.
        encoder: Query encoder; the vectors of ``query_embedding_data`` are not used, because new
            queries cannot be embedded by their encoder.

    Attributes:
        router: The fitted router.
        unmapped: Keys of the config that have no counterpart.
        query_data_test: The questions of the test split, as mappings with ``query``.

    Raises:
        ConfigError: The config or a file that it names is missing or wrong.
        SchemaError: A file has another form; the message names the line.
    """

    name: ClassVar[str] = ""

    def __init__(
        self, yaml_path: str | Path, router: str | None = None, encoder: str = "static"
    ) -> None:
        path = Path(yaml_path)
        mapped = map_config(path)
        name = router or self.name or mapped.router
        if not name:
            problem = "tells no router that is known; give router=NAME (`waypost list-routers`)"
            raise ConfigError([Fault(str(path), problem)])
        given = mapped.train.get("parameters", {}) if name == mapped.router else {}
        with tempfile.TemporaryDirectory(prefix="waypost-llmrouter-") as folder:
            data = Path(folder) / "data"
            import_llmrouter(path, data)
            self._data = read_routing_data(data)
            self.query_data_test: list[dict[str, Any]] = []
            if split_path(data, "test").is_file():
                test = read_routing_data(data, "test")
                rows = zip(test.queries, test.task_names, strict=True)
                self.query_data_test = [{"query": q, "task_name": task} for q, task in rows]
        seed = mapped.train.get("seed", 0)
        self.router: TrainableRouter = train(name, self._data, encoder=encoder, seed=seed, **given)
        self.unmapped = mapped.unmapped

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.router!r})"

    def route_single(self, query: Mapping[str, Any]) -> dict[str, Any]:
        """Return a query with ``model_name``, the LLM that should answer it.

        Raises:
            SchemaError: The query has no text under ``query``.
        """
        return self.route_batch([query])[0]

    def route_batch(
        self, batch: Sequence[Mapping[str, Any]] | None = None, task_name: str | None = None
    ) -> list[dict[str, Any]]:
        """Return queries, each with ``model_name``; None takes `query_data_test`.

        Args:
            batch: The queries.
            task_name: Task of those that name none.
        """
        rows = self.query_data_test if batch is None else batch
        tasks = {} if task_name is None else {"task_name": task_name}
        decisions = self.router.route_batch([Query.of({**tasks, **row}) for row in rows])
        found = zip(rows, decisions, strict=True)
        return [{**row, "model_name": decision.model} for row, decision in found]

    def save_router(self, path: str | Path) -> None:
        """Write the router as an artifact, which ``waypost serve`` and `load_router` read.

        Raises:
            ArtifactError: The folder cannot be written.
        """
        save_router(self.router, path, self._data)


def __getattr__(name: str) -> type[MetaRouter]:
    if name not in NAMES:
        raise AttributeError(f"module 'waypost.compat.llmrouter' has no attribute {name!r}")
    return type(name, (MetaRouter,), {"name": NAMES[name], "__doc__": MetaRouter.__doc__})
