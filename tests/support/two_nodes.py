"""A Ray head and a further node on this machine, with a Serve file on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support import one_ray
from waypost import ray_compat
from waypost.serve import launch
from waypost.serve.config_file import validate_serve_config


def started(head: dict[str, float], further: dict[str, float]) -> tuple[Any, Any]:
    """Start both with these resources; a busy machine may need several attempts."""
    from ray.cluster_utils import Cluster

    for attempt in range(one_ray.TRIES):
        cluster = Cluster()
        try:
            cluster.add_node(num_cpus=4, resources=head, include_dashboard=False)
            return cluster, cluster.add_node(num_cpus=2, resources=further)
        except Exception as error:
            cluster.shutdown()
            if "timed out during startup" not in str(error) or attempt == one_ray.TRIES - 1:
                raise
    raise AssertionError


@contextmanager
def two_nodes(
    path: Path, head: dict[str, float], further: dict[str, float]
) -> Iterator[tuple[Any, Any]]:
    """Serve a file on a head and a further node; yield the cluster and that node.

    Args:
        path: The Serve file.
        head, further: Custom resources of each.
    """
    import ray

    cluster, node = started(head, further)
    try:
        ray.init(cluster.address, namespace="serve", log_to_driver=False)
        ray_compat.start_serve({**validate_serve_config(path).data, "proxy_location": "Disabled"})
        launch.wait_until_running(lambda _: None)
        yield cluster, node
    finally:
        ray.shutdown()
        cluster.shutdown()
