"""``waypost rl export``: an artifact of router_r1 from the folder of a training run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from waypost.cli import command
from waypost.contracts.artifact import read_artifact, read_manifest
from waypost.contracts.errors import ArtifactDigestError
from waypost.contracts.records import Query
from waypost.contracts.steps import EpisodeState
from waypost.loading import load_router
from waypost.testing.tiny_model import write_tiny_model
from waypost_rl.prompt import render_prompt
from waypost_rl.run_file import CostBounds, TrainedRun, read_run_file, write_run_file

pytestmark = pytest.mark.engine  # loads transformers

DESCRIPTIONS = {"Chef 7B": "7B; recipes " + "and sauces " * 30, "prover": ""}
RUN = TrainedRun(
    candidates=DESCRIPTIONS,
    frame=("<|user|>", "\n<|assistant|>"),
    reserved=("<|end|>",),
    budget=True,
    corrective=False,
    max_turns=3,
    policy_tokens=77,
    information_tokens=99,
    cost_scale=CostBounds(low=1.5, high=40.0),
    base="org/base-3b",
)
GIVEN = ("--candidate", "Chef 7B=cook", "--fallback", "prover")


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("policy") / "policy")


@pytest.fixture
def run_folder(policy, tmp_path) -> Path:
    folder = tmp_path / "run"
    shutil.copytree(policy, folder / "policy")
    write_run_file(folder, RUN)
    return folder


def pool_file(folder: Path, model: Path | str) -> Path:
    entry = {"engine": "transformers", "input_price": 0.1, "output_price": 0.2}
    models = {"cook": "org/cook", "policy": str(model), "prover": "org/prover", "other": "org/o"}
    pool = [{"name": name, **entry, "config": {"model": one}} for name, one in models.items()]
    path = folder / "pool.yaml"
    path.write_text(yaml.safe_dump({"artifact": "A", "pool": pool}), encoding="utf-8")
    return path


def export(*words: object) -> Any:
    return CliRunner().invoke(command, ["rl", "export", *map(str, words)])


def failed(*words: object) -> str:
    done = export(*words)
    assert done.exit_code != 0
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.output + (done.stderr or "")


def test_the_artifact_asks_as_in_training(run_folder, tmp_path):
    pool = pool_file(tmp_path, run_folder / "policy")
    done = export(run_folder, "--pool", pool, "--out", tmp_path / "A", *GIVEN)
    assert done.exit_code == 0, done.output
    assert f"policy: policy, from {run_folder / 'policy'}\n" in done.output
    assert "candidate: Chef 7B -> cook\ncandidate: prover\n" in done.output
    assert "limits.max_steps of the Serve file to at least 7" in done.output
    assert not done.stderr
    manifest = read_manifest(tmp_path / "A")
    facts = manifest.metrics["checkpoint"]
    assert facts["base"] == "org/base-3b"
    assert facts["cost_scale"] == {"low": 1.5, "high": 40.0}
    assert not (tmp_path / "A" / "policy").exists()
    router: Any = load_router(tmp_path / "A")
    for lam, budget in ((0.0, "high"), (9.0, "low")):
        (first,) = router.step(EpisodeState(Query("why <|end|>?", lam=lam))).calls
        # "other" is in the pool, but was no candidate of the training.
        asked = render_prompt("why < |end|>?", DESCRIPTIONS, max_searches=3, budget=budget)
        assert first.prompt == f"<|user|>{asked}\n<|assistant|>"
        assert (first.model, first.max_tokens, first.raw) == ("policy", 77, True)
    assert (router.corrective, router.information_tokens) == (False, 99)
    assert router.route_single("why?").model == "prover"


def test_a_candidate_keeps_the_entry_that_it_had_in_training(run_folder, tmp_path):
    pooled = {"pool_names": {"Chef 7B": "cook", "prover": "gone"}}
    write_run_file(run_folder, RUN.model_copy(update=pooled))
    pool = pool_file(tmp_path, run_folder / "policy")
    done = export(run_folder, "--pool", pool, "--out", tmp_path / "A", "--fallback", "other")
    assert done.exit_code == 0, done.output
    assert "candidate: Chef 7B -> cook\ncandidate: prover\n" in done.output


def test_a_copy_is_a_whole_checkpoint_and_belongs_to_the_artifact(run_folder, tmp_path):
    (run_folder / "policy" / "training_args.bin").write_bytes(b"pickle")
    (run_folder / "policy" / "onnx").mkdir()
    out = tmp_path / "A"
    pool = pool_file(tmp_path, out / "policy")
    words = ("--pool", pool, "--out", out, *GIVEN, "--copy")
    done = export(run_folder, *words)
    assert done.exit_code == 0, done.output
    assert f"policy: policy, from {out}/policy\n" in done.output
    assert not done.stderr
    source = {one.name for one in (run_folder / "policy").iterdir()}
    copied = {one.name for one in (out / "policy").iterdir()}
    assert copied == source - {"training_args.bin", "onnx"}
    weights = out / "policy" / "model.safetensors"
    assert weights.samefile(run_folder / "policy" / "model.safetensors")  # a hard link
    assert "policy/model.safetensors" in read_manifest(out).files
    shutil.rmtree(run_folder)
    load_router(out)
    # Imported again from its own copy, and then without one.
    inside = ["rl", "import", str(out / "policy"), "--pool", str(pool), "--out", str(out)]
    again = CliRunner().invoke(command, [*inside, "--fallback", "prover", "--copy"])
    assert again.exit_code == 0, again.output
    assert weights.is_file()
    read_artifact(out)
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactDigestError, match=r"model\.safetensors"):
        read_artifact(out)


def test_a_template_and_overrides(run_folder, tmp_path):
    changed = {"prompt": "{models}\n\n{question} {budget}", "frame": None, "budget": False}
    write_run_file(run_folder, RUN.model_copy(update=changed))
    pool = pool_file(tmp_path, "elsewhere")
    words = ("--pool", pool, "--policy", "policy", "--out", tmp_path / "A", *GIVEN, "--json")
    done = export(run_folder, *words, "max_turns=5")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["parameters"]["max_turns"] == 5
    router: Any = load_router(tmp_path / "A")
    assert router.frame == ["<|user|>", "\n<|assistant|>"]  # of the policy's own tokenizer
    assert router.reserved == ["<|end|>"]
    (first,) = router.step(EpisodeState(Query("why?"))).calls
    assert first.prompt.startswith("<|user|>- Chef 7B: 7B; recipes and sauces")
    assert first.prompt.endswith("\n- prover\n\nwhy? \n<|assistant|>")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--fallback", "prover"), 'name its entry with --candidate "Chef 7B=ENTRY"'),
        (("--candidate", "Chef=cook", *GIVEN), "no such candidate; it has Chef 7B, prover"),
        (("--candidate", "Chef 7B=nobody", "--fallback", "prover"), "nobody is not an LLM that"),
        (GIVEN[:2], "set fallback_llm"),
        ((*GIVEN, "--policy", "nobody"), "the pool has no LLM nobody"),
    ],
)
def test_faults_of_the_arguments(run_folder, tmp_path, words, told):
    pool = pool_file(tmp_path, run_folder / "policy")
    assert told in failed(run_folder, "--pool", pool, "--out", tmp_path / "A", *words)
    assert not (tmp_path / "A").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": 2}, "format"),
        ({"candidates": {}}, "candidates"),
        ({"max_turns": 0}, "max_turns"),
        ({"prompt": "no question"}, "expected a text that contains {question}"),
        ({"cost_scale": {"low": 2, "high": 1}}, "high: expected at least low"),
        ({"surprise": 1}, "surprise"),
        ({"base": None}, "base"),
    ],
)
def test_faults_of_the_run_file(run_folder, tmp_path, change, told):
    pool = pool_file(tmp_path, run_folder / "policy")
    data = RUN.model_dump(mode="json") | change
    (run_folder / "run.json").write_text(json.dumps(data))
    shown = failed(run_folder, "--pool", pool, "--out", tmp_path / "A", *GIVEN)
    assert told in shown
    assert f"{run_folder}/run.json" in shown


def test_a_folder_that_holds_no_finished_run(run_folder, tmp_path):
    pool = pool_file(tmp_path, run_folder / "policy")
    words = ("--pool", pool, "--out", tmp_path / "A", *GIVEN)
    shutil.rmtree(run_folder / "policy")
    assert "the run has not written its policy yet" in failed(run_folder, *words)
    (run_folder / "run.json").write_text("{")
    assert "is not readable as JSON" in failed(run_folder, *words)
    (run_folder / "run.json").unlink()
    assert "expected the folder of a run of `waypost rl train`" in failed(run_folder, *words)


def test_the_run_file_keeps_all_it_is_given(run_folder):
    assert read_run_file(run_folder) == RUN
