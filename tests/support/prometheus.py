"""A real Prometheus (Debian's package) that scrapes a server of a test."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from support.served import free_port

START_S = 30.0


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: make system")
    return found


def promtool() -> str:
    """Return the path of promtool; skip the test where it is not installed."""
    return _program("promtool")


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Return the series of a query now: ``metric`` (labels) and ``value`` (time, text)."""
        result: list[dict[str, Any]] = self._get("query", query=expr)["result"]
        return result

    def value(self, expr: str) -> float | None:
        """Return the value of a query with one series; None where there is none."""
        found = self.query(expr)
        return float(found[0]["value"][1]) if found else None

    def rules(self) -> list[dict[str, Any]]:
        """Return the state of every rule."""
        groups: list[dict[str, Any]] = self._get("rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def _get(self, path: str, **parameters: str) -> Any:
        with urlopen(f"{self.url}/api/v1/{path}?{urlencode(parameters)}", timeout=10) as reply:
            return json.load(reply)["data"]


@contextmanager
def prometheus(
    folder: Path,
    jobs: Mapping[str, Sequence[str]],
    rules: str,
    extra: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Prometheus]:
    """Run Prometheus on a free port, with a scrape each second.

    Args:
        folder: Folder for its files.
        jobs: Addresses (host:port) to scrape, by the name of the job.
        rules: Content of a rules file.
        extra: Further keys of a job's configuration.
    """
    (folder / "rules.yaml").write_text(rules)
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [*targets]}]}
            | dict((extra or {}).get(job, {}))
            for job, targets in jobs.items()
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    command = [
        _program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait(f"http://{address}/-/ready", process, folder / "log.txt")
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait(10)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"Prometheus does not start: {log.read_text()[-2000:]}")
