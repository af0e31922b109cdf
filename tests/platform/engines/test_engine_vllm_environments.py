"""Runs test_engine_vllm.py in each environment that has a vLLM."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from waypost.contracts.errors import ConfigError
from waypost.serve.environments import interpreter

LEAST_TESTS = 25
LONGEST_S = 600


@pytest.mark.timeout(LONGEST_S + 100)
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
    report, output = tmp_path / "report.xml", tmp_path / "output"
    # what vLLM and its libraries warn of is not ours to mend
    command = [str(python), "-P", "-m", "pytest", "-v", "--tb=short", "-m", "engine"]
    command += ["-o", "filterwarnings=", "-p", "no:cacheprovider", f"--junit-xml={report}"]
    command += ["tests/platform/engines/test_engine_vllm.py"]
    command += ["tests/platform/engines/test_engine_vllm_killed.py"]
    # To a file, by a group of its own: what is told of a run that takes too long is what it said,
    # and an engine whose tests ended badly does not compute on.
    with output.open("wb") as file:
        run = subprocess.Popen(
            command, cwd=root, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code: int | None = run.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
    said = output.read_text(encoding="utf-8", errors="replace")
    assert code is not None, f"not over after {LONGEST_S} s:\n{said}"
    assert code == 0, said
    suite = next(ElementTree.parse(report).iter("testsuite"))
    assert int(suite.get("skipped", 0)) == 0, said
    assert int(suite.get("tests", 0)) >= LEAST_TESTS
