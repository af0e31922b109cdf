"""``waypost infer`` and ``waypost serve --check``: no server, no Ray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from support.gateway import ALGEBRA, COOKING, arguments, echo_pool
from waypost.cli import command
from waypost.engines.echo import EchoEngine


@pytest.fixture
def pool(tmp_path) -> Path:
    path = tmp_path / "pool.yaml"
    path.write_text(yaml.safe_dump({"pool": echo_pool()}))
    return path


def waypost(*arguments: object):
    return CliRunner().invoke(command, [str(each) for each in arguments])


def test_a_query_is_decided_and_answered(artifact, pool):
    done = waypost("infer", "--artifact", artifact, "--pool", pool, "--query", COOKING)
    assert (done.exit_code, done.stdout) == (0, f"{COOKING}\n")
    assert done.stderr.startswith("cook (highest predicted quality")


def test_as_json_it_tells_decision_answer_and_cost(artifact, pool):
    done = waypost("infer", "--artifact", artifact, "--pool", pool, "--query", ALGEBRA, "--json")
    row = json.loads(done.stdout)
    assert (row["model"], row["answer"], row["attempts"]) == ("prover", ALGEBRA, 1)
    assert row["decision"]["router"] == "knnrouter"
    assert row["cost_usd"] > 0


def test_lines_are_answered_in_order_and_their_own_options_win(artifact, pool, tmp_path):
    lines = [COOKING, {"query": COOKING, "query_id": "q2", "allowed_models": ["prover"]}]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    output = tmp_path / "out.jsonl"
    given = ("--artifact", artifact, "--pool", pool, "--input", source, "--output", output)
    assert waypost("infer", *given, "--allowed", "tiny").exit_code == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["model"] for row in rows] == ["tiny", "prover"]
    assert rows[1]["query_id"] == "q2"


def test_a_chat_is_routed_on_by_mode_and_the_llm_gets_it_whole(artifact, pool, tmp_path):
    said = [{"role": "user", "content": text} for text in (COOKING, "And for two?")]
    said.insert(1, {"role": "assistant", "content": "ok"})
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"messages": said}))
    given = ("infer", "--artifact", artifact, "--pool", pool, "--input", source)
    assert json.loads(waypost(*given).stdout)["model"] == "prover"
    row = json.loads(waypost(*given, "--mode", "retrieval", "--top-k", 2).stdout)
    assert (row["model"], row["retrieved"]) == ("cook", {"turns": 1, "of": 1})
    assert row["answer"] == "And for two?"  # echo says the last message of the user
    assert row["usage"]["input_tokens"] > len(["And", "for", "two?"])


def test_failover_is_that_of_the_gateway(artifact, tmp_path):
    path = tmp_path / "pool.yaml"
    path.write_text(yaml.safe_dump({"pool": echo_pool(cook={"fail_with": "500"})}))
    given = ("--artifact", artifact, "--pool", path, "--query", COOKING, "--json")
    row = json.loads(waypost("infer", *given).stdout)
    assert row["attempts"] == 2
    assert row["model"] != "cook"


def test_a_query_that_nobody_answers_is_exit_code_1(artifact, pool):
    given = ("infer", "--artifact", artifact, "--pool", pool, "--query", "x")
    done = waypost(*given, "--max-cost-usd", 0)
    assert done.exit_code == 1
    assert "no allowed model fits max_cost_usd" in done.stderr


def test_a_model_may_be_named(artifact, pool):
    given = ("infer", "--artifact", artifact, "--pool", pool, "--query", COOKING, "--model")
    assert waypost(*given, "tiny").stderr.startswith("tiny (asked for by name)")
    assert waypost(*given, "other").exit_code == 2


def test_a_serve_config_is_a_pool_too(artifact, tmp_path):
    path = tmp_path / "serve.yaml"
    application = {"import_path": "waypost.serve.app:build", "args": arguments(artifact)}
    path.write_text(yaml.safe_dump({"applications": [application]}))
    assert waypost("infer", "--pool", path, "--query", COOKING).stdout == f"{COOKING}\n"


def test_an_artifact_that_a_pool_file_names_and_that_is_missing(artifact, tmp_path):
    path = tmp_path / "serve.yaml"
    missing = tmp_path / "none"
    path.write_text(yaml.safe_dump(arguments(artifact) | {"artifact": str(missing)}))
    done = waypost("infer", "--pool", path, "--query", COOKING)
    assert done.exit_code == 1
    assert f"{path}: artifact: {missing}: no manifest.json" in done.stderr
    assert done.stderr.endswith("; train it, or give another with --artifact\n")


def test_only_llms_that_are_called_are_loaded(artifact, pool, monkeypatch, caplog):
    started, real = [], EchoEngine.start

    async def start(self):
        started.append(self)
        await real(self)

    monkeypatch.setattr(EchoEngine, "start", start)
    given = ("--artifact", artifact, "--pool", pool)
    done = waypost("infer", *given, "--query", COOKING)
    assert (done.exit_code, len(started)) == (0, 1), done.output
    assert "a decision takes" not in caplog.text
    waypost("--debug", "infer", *given, "--query", "x")
    assert "a decision takes" in caplog.text


def test_an_empty_query_is_wrong_input(artifact, pool):
    done = waypost("infer", "--artifact", artifact, "--pool", pool, "--query", "")
    assert done.exit_code == 2
    assert "--query: empty; expected a text" in done.stderr


def test_a_wrong_pool_is_exit_code_2_and_every_fault_is_told(artifact, tmp_path):
    path = tmp_path / "pool.yaml"
    path.write_text(yaml.safe_dump({"pool": [{"name": "a", "engin": "echo"}], "polcy": {}}))
    done = waypost("infer", "--artifact", artifact, "--pool", path, "--query", "x")
    assert done.exit_code == 2
    assert "pool.0.engin: unknown key" in done.stderr
    assert "polcy: unknown key" in done.stderr


def test_serve_check_names_every_fault_and_starts_nothing(tmp_path, root):
    assert waypost("serve", "--check", root / "serve_configs" / "openai_pool.yaml").exit_code == 0
    path = tmp_path / "file.yaml"
    path.write_text("http_options: {hots: x}\napplications: []\nextra: 1\n")
    done = waypost("serve", "--check", path)
    assert done.exit_code == 2
    for part in ("http_options.hots", "http_options.host", "extra: unknown key"):
        assert part in done.stderr


@pytest.mark.parametrize("name", ["serve", "infer"])
def test_help_has_an_example(name):
    assert f"Example: waypost {name}" in waypost(name, "--help").stdout


def test_a_line_with_earlier_turns_keeps_its_llm(artifact, pool, tmp_path):
    session = {"earlier": [COOKING], "stay_bonus": 1}
    lines = [{"query": ALGEBRA, "session": session}, {"query": ALGEBRA, "session": {"earlier": 1}}]
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps(lines[0]) + "\n")
    given = ("--artifact", artifact, "--input", source, "--output", output)
    for call in (("route",), ("infer", "--pool", pool)):
        assert waypost(*call, *given).exit_code == 0
        row = json.loads(output.read_text())
        decision = row.get("decision", row)
        assert (decision["model_name"], decision["session"]) == ("cook", "kept")
        assert decision["reason"].startswith("kept: prover is ahead by ")
    source.write_text(json.dumps(lines[1]) + "\n")
    for call in (("route",), ("infer", "--pool", pool)):
        done = waypost(*call, *given)
        assert done.exit_code == 1
        assert "line 1: session: earlier: expected a list" in done.stderr
