"""Build a small distribution with routers of its own, as its authors would build it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "acme-routing"
version = "1.2"

[project.entry-points."waypost.routers"]
acme_score = "acme_routing.scores:AcmeScore"
acme_plain = "acme_routing.plain"
acme_gone = "acme_routing.gone:Gone"
acme_needy = "acme_routing.needy:Needy"
knnrouter = "acme_routing.plain"
"""

FILES = {
    "__init__.py": '"""Not imported by a listing."""\nprint("acme_routing was imported")\n',
    "scores.py": '''"""Prefers the LLM that was best on the longest training question."""

import numpy as np

from waypost import ScoreRouter
from waypost.contracts.parameters import Real
from waypost.contracts.router import Prediction


class AcmeScore(ScoreRouter):
    """Scores of one question, for every question."""

    needs_embeddings = False
    parameter_constraints = {"scale": Real(0, 1)}

    def __init__(self, scale=1.0):
        self.scale = scale

    def _fit(self, data):
        longest = max(range(len(data)), key=lambda i: len(data.queries[i]))
        self.scores_ = np.nan_to_num(data.quality[longest]) * self.scale

    def _predict(self, batch):
        return Prediction(np.repeat(self.scores_[None], len(batch), axis=0))
''',
    "plain.py": '''"""Always the last candidate."""

from waypost import Decision, MetaRouter


class Last(MetaRouter):
    def route_single(self, query):
        name = self.candidates[-1].name
        return Decision(name, (name,))
''',
    "needy.py": "import a_package_that_nobody_has\n",
}


def build_wheel(project: Path, out: Path) -> Path:
    """Build a project's wheel with the installed backend and return its path."""
    command = [sys.executable, "-P", "-m", "build", "--wheel", "--no-isolation", "-o", str(out)]
    subprocess.run([*command, str(project)], cwd=out, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    return wheel


def acme_wheel(folder: Path) -> Path:
    """Build acme-routing 1.2 in an empty folder.

    Its entry points are ``acme_score`` (predicts scores), ``acme_plain`` (decides by a rule) and
    three unusable ones: ``acme_gone`` and ``acme_needy`` need a missing module, and the name
    ``knnrouter`` is already taken.
    """
    project, out = folder / "project", folder / "dist"
    (project / "acme_routing").mkdir(parents=True)
    out.mkdir()
    (project / "pyproject.toml").write_text(PYPROJECT)
    for name, text in FILES.items():
        (project / "acme_routing" / name).write_text(text)
    return build_wheel(project, out)
