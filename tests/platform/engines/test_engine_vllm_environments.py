"""Runs test_engine_vllm.py in each environment that has a vLLM."""

from __future__ import annotations

import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from waypost.contracts.errors import ConfigError
from waypost.serve.environments import interpreter

LEAST_TESTS = 25


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("router-r1-cpu", marks=pytest.mark.engine),
        pytest.param("vllm-cpu", marks=pytest.mark.engine),
        pytest.param("router-r1", marks=pytest.mark.gpu),
    ],
)
def test_the_vllm_engine_passes_its_tests(name: str, root: Path, tmp_path: Path) -> None:
    if (root / f".venv-{name}" / ".waypost-unfinished").exists():
        pytest.skip(f"the installation of .venv-{name} did not succeed; see `make env-{name}`")
    try:
        python = interpreter(name, "test")
    except ConfigError as error:
        pytest.skip(str(error))
    report = tmp_path / "report.xml"
    # what vLLM and its libraries warn of is not ours to mend
    command = [str(python), "-P", "-m", "pytest", "-q", "--tb=short", "-m", "engine"]
    command += ["-o", "filterwarnings=", "-p", "no:cacheprovider", f"--junit-xml={report}"]
    done = subprocess.run(
        [*command, "tests/platform/engines/test_engine_vllm.py"],
        cwd=root,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    suite = next(ElementTree.parse(report).iter("testsuite"))
    assert int(suite.get("skipped", 0)) == 0, done.stdout
    assert int(suite.get("tests", 0)) >= LEAST_TESTS
