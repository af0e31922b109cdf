"""``waypost rl import``: an artifact of router_r1 from a tiny checkpoint with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from waypost.cli import command
from waypost.contracts.artifact import read_manifest
from waypost.contracts.records import Query
from waypost.contracts.routing_data import write_routing_data
from waypost.contracts.steps import CallResult, Delegate, EpisodeState, FinalAnswer
from waypost.loading import load_router
from waypost.registry import make_trainable
from waypost.testing.synthetic import planted
from waypost.testing.tiny_model import write_tiny_model

pytestmark = pytest.mark.engine  # loads transformers

FALLBACK = ("--fallback", "prover")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("policy") / "router-r1")


@pytest.fixture
def changed(checkpoint, tmp_path) -> Path:
    """A copy whose files a test may change."""
    return Path(shutil.copytree(checkpoint, tmp_path / "changed"))


def pool_file(folder: Path, model: Path | str, **more: Any) -> Path:
    entry = {"engine": "transformers", "input_price": 0.1, "output_price": 0.2}
    pool = [{"name": name, **entry, "config": {"model": f"org/{name}"}} for name in
            ("cook", "prover")]  # fmt: skip
    pool.append({"name": "policy", **entry, "config": {"model": str(model)}, **more})
    args = {"artifact": "artifacts/router_r1", "pool": pool}
    application = {"name": "waypost", "import_path": "waypost.serve.app:build", "args": args}
    path = folder / "pool.yaml"
    path.write_text(yaml.safe_dump({"applications": [application]}), encoding="utf-8")
    return path


def run(*words: object) -> Any:
    return CliRunner().invoke(command, ["rl", "import", *map(str, words)])


def failed(*words: object) -> str:
    done = run(*words)
    assert done.exit_code != 0
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.output + (done.stderr or "")


def test_an_artifact_names_the_checkpoint_and_acts_like_a_router_made_by_hand(checkpoint, tmp_path):
    pool = pool_file(tmp_path, checkpoint)
    out = tmp_path / "artifact"
    done = run(checkpoint, "--pool", pool, "--out", out, *FALLBACK)
    assert done.exit_code == 0, done.output
    assert f"policy: policy, from {checkpoint}" in done.output
    assert "candidate: cook\ncandidate: prover\n" in done.output
    assert "at least 9" in done.output
    manifest = read_manifest(out)
    assert (manifest.router, manifest.kind) == ("router_r1", "step")
    assert manifest.metrics["checkpoint"]["model"] == str(checkpoint)
    assert manifest.metrics["checkpoint"]["architecture"] == "LlamaForCausalLM"
    assert len(manifest.metrics["checkpoint"]["config_sha256"]) == 64
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    assert size < 20_000  # no weights
    assert not [path for path in out.rglob("*") if path.suffix in {".pkl", ".bin", ".pt"}]
    router: Any = load_router(out)
    assert router.model_names == ("cook", "prover", "policy")
    assert router.frame == ["<|user|>", "\n<|assistant|>"]
    assert router.reserved == ["<|end|>"]
    (first,) = router.step(EpisodeState(Query("why <|end|>?"))).calls
    assert first.raw
    assert first.prompt.startswith("<|user|>Answer the question")
    assert first.prompt.endswith("Question: why < |end|>?\n\n<|assistant|>")
    assert "Budget" not in first.prompt
    by_hand = make_trainable("router_r1", router.get_params()).fit(planted().select_llms(
        ["cook", "prover"]))  # fmt: skip
    by_hand.llms_ = router.llms_
    assert by_hand.step(EpisodeState(Query("why <|end|>?"))).calls == (first,)


def test_names_and_prompt_of_the_checkpoint(checkpoint, tmp_path):
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Names: {models}. Question: {question}", encoding="utf-8")
    names = ("--candidate", "Qwen2.5-7B=cook", "--candidate", "a=b=cook")
    done = run(
        checkpoint, "--pool", pool_file(tmp_path, checkpoint), "--out", tmp_path / "A", *FALLBACK,
        *names, "--prompt", prompt, "--json", "max_turns=2", "corrective=false",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["parameters"]["delegates"] == {"Qwen2.5-7B": "cook", "a=b": "cook"}
    assert told["parameters"]["max_turns"] == 2
    assert told["parameters"]["corrective"] is False
    router: Any = load_router(tmp_path / "A")
    state = EpisodeState(Query("why?"))
    (first,) = router.step(state).calls
    text = "Names: - Qwen2.5-7B\n- a=b. Question: why?"
    assert first.prompt == f"<|user|>{text}\n<|assistant|>"
    state = state.after([CallResult(first, "<think>x</think><search>qwen2.5-7b: why is it so?")])
    (search,) = router.step(state).calls
    assert (search.model, search.prompt) == ("cook", "why is it so?")
    state = state.after([CallResult(search, "so")])
    (second,) = router.step(state).calls
    assert second.prompt.endswith("</search>\n\n<information>so</information>\n\n")
    state = state.after([CallResult(second, "<think>x</think><answer>so")])
    assert router.step(state) == FinalAnswer("so", "policy")


def test_routing_data_give_the_fallback_and_the_facts(checkpoint, tmp_path):
    write_routing_data(tmp_path / "data", planted())
    pool = pool_file(tmp_path, checkpoint)
    done = run(checkpoint, "--pool", pool, "--out", tmp_path / "A", "--data", tmp_path / "data")
    assert done.exit_code == 0, done.output
    router: Any = load_router(tmp_path / "A")
    assert router.route_single("why?").ranking == ("prover", "cook", "policy")
    action = router.step(EpisodeState(Query("why?")))
    assert isinstance(action, Delegate)
    assert "- cook: 7B" in action.calls[0].prompt
    assert {llm.name: llm.input_price for llm in router.llms_}["cook"] == 0.1
    few = planted().select_llms(["cook", "tiny"])
    write_routing_data(tmp_path / "few", few)
    told = failed(checkpoint, "--pool", pool, "--out", tmp_path / "B", "--data", tmp_path / "few")
    assert "no score at all for prover" in told
    write_routing_data(tmp_path / "none", planted().select_llms(["tiny"]))
    told = failed(checkpoint, "--pool", pool, "--out", tmp_path / "B", "--data", tmp_path / "none")
    assert "has no score of an LLM of the pool" in told
    assert not (tmp_path / "B").exists()


def test_the_entry_of_the_policy_is_found_or_named(checkpoint, tmp_path):
    served = pool_file(tmp_path, "org/served-elsewhere")
    words = ("--pool", served, "--out", tmp_path / "A", *FALLBACK)
    assert "name the policy's entry with --policy" in failed(checkpoint, *words)
    done = run(checkpoint, *words, "--policy", "policy")
    assert done.exit_code == 0, done.output
    assert "serves org/served-elsewhere there" in done.output + (done.stderr or "")
    assert "the pool has no LLM nobody" in failed(checkpoint, *words, "--policy", "nobody")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "set fallback_llm"),
        (("--fallback", "policy"), "policy is not an LLM that can be asked"),
        ((*FALLBACK, "--candidate", "x=nobody"), "--candidate x"),
        ((*FALLBACK, "--candidate", "x"), "expected NAME=ENTRY"),
        ((*FALLBACK, "max_turn=3"), "max_turns"),
        ((*FALLBACK, "max_turns=0"), "a whole number from 1"),
    ],
)
def test_faults_of_the_arguments(checkpoint, tmp_path, words, told):
    pool = pool_file(tmp_path, checkpoint)
    assert told in failed(checkpoint, "--pool", pool, "--out", tmp_path / "A", *words)
    assert not (tmp_path / "A").exists()


def test_a_pool_file_without_a_pool(checkpoint, tmp_path):
    path = tmp_path / "pool.yaml"
    for text in ("applications: []", "pool: []", "pool: [3]", "applications: [{args: {pool: 3}}]"):
        path.write_text(text, encoding="utf-8")
        assert "has no pool" in failed(checkpoint, "--pool", path, "--out", tmp_path / "A")


def test_what_is_no_whole_language_model(changed, tmp_path):
    words = ("--pool", pool_file(tmp_path, changed), "--out", tmp_path / "A", *FALLBACK)
    config = json.loads((changed / "config.json").read_text())
    for architectures in (["LlamaForSequenceClassification"], None):
        (changed / "config.json").write_text(json.dumps({**config, "architectures": architectures}))
        assert "expected a causal language model" in failed(changed, *words)
    (changed / "config.json").write_text("[]")
    assert "config.json" in failed(changed, *words)
    (changed / "config.json").write_text(json.dumps(config))
    (changed / "tokenizer.json").write_text("{}")
    assert "its tokenizer cannot be used" in failed(changed, *words)
    weights = changed / "model.safetensors"
    weights.rename(changed / "pytorch_model.bin")
    assert "model.safetensors" in failed(changed, *words)


def test_a_checkpoint_without_a_chat_template_continues_the_prompt(changed, tmp_path):
    settings = json.loads((changed / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (changed / "tokenizer_config.json").write_text(json.dumps(settings))
    (changed / "chat_template.jinja").unlink(missing_ok=True)
    pool = pool_file(tmp_path, changed)
    done = run(changed, "--pool", pool, "--out", tmp_path / "A", *FALLBACK)
    assert done.exit_code == 0, done.output
    assert read_manifest(tmp_path / "A").parameters["frame"] == ["", ""]


def test_a_begin_token_that_encoding_adds_is_not_there_twice(changed, tmp_path):
    tokenizer = json.loads((changed / "tokenizer.json").read_text())
    end = tokenizer["added_tokens"][0]["id"]
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|end|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [end], "tokens": ["<|end|>"]}},
    }  # fmt: skip
    (changed / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = json.loads((changed / "tokenizer_config.json").read_text())
    settings |= {"bos_token": "<|end|>"}
    (changed / "tokenizer_config.json").write_text(json.dumps(settings))
    template = changed / "chat_template.jinja"
    old = template.read_text() if template.exists() else settings["chat_template"]
    template.write_text("{{ bos_token }}" + old)
    pool = pool_file(tmp_path, changed)
    assert run(changed, "--pool", pool, "--out", tmp_path / "A", *FALLBACK).exit_code == 0
    assert read_manifest(tmp_path / "A").parameters["frame"][0] == "<|user|>"
