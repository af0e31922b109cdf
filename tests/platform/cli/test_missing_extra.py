"""A missing optional library: the command says how to install it, without a traceback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from waypost.contracts.errors import MissingExtraError
from waypost.contracts.routing_data import write_routing_data
from waypost.testing.synthetic import planted

# The command line in an interpreter in which some libraries cannot be imported.
SCRIPT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from waypost.cli import main
sys.argv = ["waypost", *{arguments!r}]
main()
"""

CONFIG = """
http_options: {host: 127.0.0.1}
applications:
  - name: waypost
    import_path: waypost.serve.app:build
    args: {artifact: artifact, pool: [{name: small, engine: echo}]}
"""


def waypost_without(
    absent: Sequence[str], *arguments: str, cwd: Path
) -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(absent=list(absent), arguments=list(arguments))
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=cwd, capture_output=True, check=False, text=True)


@pytest.mark.parametrize(
    ("module", "extra", "arguments"),
    [
        ("ray", "serve", ("serve", "config.yaml")),
        (
            "onnxruntime",
            "serve",
            ("train", "--router", "knnrouter", "--encoder", "onnx", "--data", ".", "--out", "a"),
        ),
    ],
)
def test_the_command_that_installs_it_is_named(
    tmp_path: Path, module: str, extra: str, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG, encoding="utf-8")
    write_routing_data(tmp_path, planted(20))
    done = waypost_without([module], *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert MissingExtraError(module, extra).command in done.stderr
    assert module in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["list-routers", "--json"]])
def test_help_and_the_list_of_routers_need_no_extra(tmp_path: Path, arguments: list[str]) -> None:
    done = waypost_without(["ray", "torch", "transformers"], *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
