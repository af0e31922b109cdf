"""Routers of another distribution: a wheel, built and installed into an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import uv

from support.distribution import acme_wheel
from waypost.contracts.artifact import read_manifest
from waypost.contracts.routing_data import write_routing_data
from waypost.testing.synthetic import ENCODER_ID, planted

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that sees this environment and, besides, acme-routing."""
    folder = tmp_path_factory.mktemp("acme")
    wheel = acme_wheel(folder)
    env = folder / "env"
    subprocess.run([uv.find_uv_bin(), "venv", "-q", "-p", sys.executable, str(env)], check=True)
    (site,) = env.glob("lib/python*/site-packages")
    here = sysconfig.get_path("purelib")
    (site / "parent.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    found = env / "bin" / "python"
    install = ["pip", "install", "-q", "--offline", "--no-deps", "-p", str(found), str(wheel)]
    subprocess.run([uv.find_uv_bin(), *install], check=True)
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_routing_data(folder, planted(40))
    write_routing_data(folder, planted(20, seed=4), split="test")
    return folder


def waypost(python: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    words = [str(argument) for argument in arguments]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [str(python), "-P", "-m", "waypost.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def done(python: Path, *arguments: object) -> str:
    run = waypost(python, *arguments)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_its_routers_are_listed_without_importing_it(python: Path) -> None:
    run = waypost(python, "list-routers", "--json")
    assert "was imported" not in run.stderr
    rows = json.loads(run.stdout)
    found = {row["name"]: row for row in rows if row["source"] == "entry point"}
    assert found["acme_score"]["location"] == "acme_routing.scores:AcmeScore"
    assert found["acme_score"]["distribution"] == ["acme-routing", "1.2"]
    assert found["acme_plain"]["summary"] == "Always the last candidate."
    assert "taken by the built-in router" in found["knnrouter"]["error"]
    assert "acme_score" not in done(Path(sys.executable), "list-routers")


def test_a_check_names_what_is_broken_and_what_the_others_are(python: Path) -> None:
    # it prints when it is imported, but not among the JSON
    text = done(python, "list-routers", "--check", "--json")
    found = {row["name"]: row for row in json.loads(text)}
    assert "No module named 'acme_routing.gone'" in found["acme_gone"]["error"]
    assert "No module named 'a_package_that_nobody_has'" in found["acme_needy"]["error"]
    kinds = {name: found[name]["kind"] for name in ("acme_score", "acme_plain", "knnrouter")}
    assert kinds == {"acme_score": "score", "acme_plain": "meta", "knnrouter": None}


@pytest.mark.parametrize(("name", "kind"), [("acme_score", "score"), ("acme_plain", "meta")])
def test_a_router_of_it_is_trained_asked_and_compared(
    python: Path, data: Path, tmp_path: Path, name: str, kind: str
) -> None:
    out = tmp_path / "artifact"
    done(python, "train", "--router", name, "--data", data, "--out", out, "--encoder", ENCODER_ID)
    manifest = read_manifest(out)
    assert (manifest.kind, manifest.plugins) == (kind, ())  # its code stays where it is installed
    assert manifest.versions["acme-routing"] == "1.2"
    said = done(python, "route", "--artifact", out, "--query", "Why?", "--json")
    assert json.loads(said)["router"] == name
    report = tmp_path / "report"
    compared = (out, name, "best_single", "--data", data, "--out", report)
    done(python, "evaluate", *compared, "--encoder", ENCODER_ID)
    rows = json.loads((report / "report.json").read_text())["routers"]
    assert len(rows) == 3
    assert rows[name]["quality"] == pytest.approx(rows["artifact"]["quality"])

    elsewhere = waypost(Path(sys.executable), "route", "--artifact", out, "--query", "Why?")
    assert elsewhere.returncode == 2
    assert "acme-routing 1.2" in elsewhere.stderr
    assert f"no router is named '{name}'" in elsewhere.stderr


@pytest.mark.parametrize("name", ["acme_gone", "acme_needy", "acme_nothing"])
def test_a_broken_one_is_named(python: Path, data: Path, tmp_path: Path, name: str) -> None:
    run = waypost(python, "train", "--router", name, "--data", data, "--out", tmp_path / "a")
    assert run.returncode == 2
    assert name in run.stderr
    assert "Traceback" not in run.stderr


def test_wrong_parameters_of_it_are_named(python: Path, data: Path, tmp_path: Path) -> None:
    given = ("--router", "acme_score", "--data", data, "--out", tmp_path / "a", "scale=2", "x=1")
    run = waypost(python, "train", *given)
    assert run.returncode == 2
    assert "acme_score: scale: is 2; expected a number from 0 to 1" in run.stderr
    assert "acme_score: x: unknown parameter" in run.stderr
