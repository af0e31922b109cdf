"""`waypost init`: from URLs, services and names to the files of a pool."""

from __future__ import annotations

import asyncio
import json
import subprocess

import pytest
import yaml
from click.testing import CliRunner

from support.fake_upstream import FakeUpstream, Reply
from waypost import Gateway
from waypost.cli import command
from waypost.config import parse
from waypost.contracts.errors import ConfigError
from waypost.pipelines.data.config import load_data_config
from waypost.serve.config import ServeArgs
from waypost.serve.config_file import validate_serve_config
from waypost.serve.plan import make_plan
from waypost.start import pool
from waypost.start.providers import service_of

KEY = "key-of-a-test-that-nobody-may-read"


def init(folder, *options, **more):
    return CliRunner().invoke(command, ["init", str(folder), *options], **more)


def args_of(folder):
    data = yaml.safe_load((folder / "serve.yaml").read_text())
    return data, parse(ServeArgs, data["applications"][0]["args"])


def test_names_of_known_providers_are_enough(tmp_path):
    done = init(tmp_path, "--llm", "openai/gpt-4.1-mini", "--llm", "anthropic/claude-sonnet-4-5",
                "--no-try")  # fmt: skip
    assert done.exit_code == 0, done.output
    validate_serve_config(tmp_path / "serve.yaml")
    _, args = args_of(tmp_path)
    first, second = args.pool
    assert (first.name, first.engine, first.placement) == ("gpt-4.1-mini", "openai", "inline")
    assert first.config["base_url"] == "https://api.openai.com/v1"
    assert first.config["max_tokens_field"] == "max_completion_tokens"
    assert (second.engine, second.config["service"]) == ("anthropic", "anthropic")
    assert first.input_price is None  # looked up at each start, so that it stays true
    text = (tmp_path / "serve.yaml").read_text()
    assert "# 0.4 / 1.6 USD per million tokens (openai/gpt-4.1-mini, genai-prices" in text


def test_the_data_file_asks_the_same_llms(tmp_path):
    init(tmp_path, "--llm", "openai/gpt-4.1-mini", "--no-try")
    config = load_data_config(tmp_path / "data.yaml")
    (llm,) = config.llms.values()
    assert (llm.prices, llm.context_length) == ((0.4, 1.6), 1_000_000)
    assert config.budget_usd == 5


def test_a_size_is_read_from_a_name_and_no_other_number_is():
    assert pool.size_in("meta-llama/Llama-3.3-70B-Instruct") == "70B"
    assert pool.size_in("mixtral-8x22b-instruct") == "8x22B"
    assert pool.size_in("SmolLM2-135M-Instruct") == "135M"
    assert pool.size_in("gpt-4.1-mini") is None
    assert pool.size_in("gemma-3n-e4b") is None


async def test_each_endpoint_is_tried_once_with_its_key_which_no_file_holds(tmp_path, monkeypatch):
    monkeypatch.setenv("API_KEYS", json.dumps({"acme": KEY}))
    async with FakeUpstream() as good, FakeUpstream() as bad:
        bad.script(Reply(status=500, body={"error": {"message": "out of order"}}))
        done = await asyncio.to_thread(
            init, tmp_path, "--endpoint", good.url, "acme", "small,large",
            "--endpoint", bad.url, "-", "broken", "--price", "small=0.1,0.4",
        )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert [r.headers["Authorization"] for r in good.requests] == [f"Bearer {KEY}"] * 2
    assert {r.body["model"] for r in good.requests} == {"small", "large"}
    assert "Authorization" not in bad.requests[0].headers
    assert done.stdout.count("yes, ") == 2
    assert "broken did not answer: " in done.stderr
    assert "out of order" in done.stderr
    written = [path.read_text() for path in tmp_path.iterdir()]
    assert len(written) == 3
    assert not any(KEY in text for text in (*written, done.output))
    _, args = args_of(tmp_path)
    assert args.pool[0].prices == (0.1, 0.4)
    assert "service" not in args.pool[2].config
    assert "# price unknown" in (tmp_path / "serve.yaml").read_text()
    assert 'API_KEYS=\'{"acme": ""}\'' in (tmp_path / ".env.example").read_text()


def test_a_missing_key_is_told_and_the_files_are_written(tmp_path):
    done = init(tmp_path, "--endpoint", "http://127.0.0.1:9/v1", "acme", "small")
    assert done.exit_code == 0
    assert "small did not answer: no key for the service 'acme'" in done.stderr
    assert (tmp_path / "serve.yaml").is_file()


def test_the_keys_of_known_providers_may_stand_in_their_usual_variables(tmp_path):
    init(tmp_path, "--llm", "openai/gpt-4.1", "--llm", "groq/llama-3.3-70b-versatile", "--no-try")
    text = (tmp_path / ".env.example").read_text()
    line = next(line for line in text.splitlines() if line.startswith("# API_KEYS"))
    script = f'OPENAI_API_KEY=one GROQ_API_KEY=two; {line.removeprefix("# ")}; echo "$API_KEYS"'
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert json.loads(said) == {"groq": "two", "openai": "one"}


def test_files_are_replaced_only_with_force(tmp_path):
    assert init(tmp_path, "--llm", "openai/gpt-4.1", "--no-try").exit_code == 0
    before = (tmp_path / "serve.yaml").read_text()
    again = init(tmp_path, "--llm", "openai/gpt-4.1-mini", "--no-try")
    assert again.exit_code == 2
    assert again.stderr.count("--force replaces it") == 3
    assert (tmp_path / "serve.yaml").read_text() == before
    forced = init(tmp_path, "--llm", "openai/gpt-4.1-mini", "--no-try", "--force")
    assert forced.exit_code == 0
    assert "gpt-4.1-mini" in (tmp_path / "serve.yaml").read_text()


def test_it_asks_where_no_option_names_an_llm(tmp_path):
    answers = "\nopenay\nhttps://api.acme.example/v1\n\nsmall, large\nopenai\ngpt-4.1-mini\n\n"
    done = init(tmp_path, "--no-try", "--port", "8123", input=answers)
    assert done.exit_code == 0, done.output
    data, args = args_of(tmp_path)
    assert [entry.name for entry in args.pool] == ["small", "large", "gpt-4.1-mini"]
    assert args.pool[0].config["service"] == "acme"
    assert data["http_options"]["port"] == 8123
    assert "no provider is named 'openay' (did you mean 'openai'?)" in done.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--llm", "gpt-4"], "expected PROVIDER/MODEL"),
        (["--llm", "opena/gpt-4"], "did you mean 'openai'?"),
        (["--endpoint", "api.acme.example/v1", "acme", "m"], "expected a URL"),
        (["--endpoint", "https://api.acme.example/v1", "acme", ","], "names no model"),
        (["--llm", "openai/gpt-4.1", "--price", "gpt=1,2"], "the pool has gpt-4.1"),
        (["--llm", "openai/gpt-4.1", "--price", "gpt-4.1=1"], "expected NAME=IN,OUT"),
        (["--endpoint", "http://127.0.0.1:9/v1", "-", "auto"], "name of a router"),
        (["--from-litellm", "nowhere.yaml"], "no such file"),
        (["--from-litellm", "a", "--llm", "openai/gpt-4.1"], "--from-litellm, or --llm"),
    ],
)
def test_wrong_options_are_told_and_nothing_is_written(tmp_path, options, told):
    done = init(tmp_path / "new", *options, "--no-try")
    assert done.exit_code == 2
    assert told in done.stderr
    assert not list((tmp_path / "new").glob("*"))


def test_a_model_that_the_library_does_not_know_asks_for_its_price(tmp_path):
    done = init(tmp_path, "--llm", "openai/gpt-4.1-minii", "--no-try")
    assert done.exit_code == 2
    assert "--price gpt-4.1-minii=IN,OUT: genai-prices" in done.stderr
    assert not (tmp_path / "serve.yaml").exists()
    priced = ["--price", "gpt-4.1-minii=1,2", "--force"]
    assert (
        "--price" not in init(tmp_path, "--llm", "openai/gpt-4.1-minii", "--no-try", *priced).stderr
    )


def test_at_the_terminal_it_asks_for_that_price(tmp_path):
    done = init(tmp_path, "--no-try", input="openai\ngpt-4.1-minii\n\n1,2\n")
    assert done.exit_code == 0, done.output
    _, args = args_of(tmp_path)
    assert args.pool[0].prices == (1, 2)


def test_two_models_of_one_name_get_names_of_their_own():
    llms = pool.from_endpoint("http://127.0.0.1:9/v1", None, ["m"])
    llms += [pool.from_provider("groq/m"), pool.from_provider("groq/m")]
    assert list(pool.named(llms)) == ["m", "groq-m", "groq-m-2"]


@pytest.mark.parametrize(
    ("url", "service"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://llm.acme.example/v1", "acme"),
        ("http://127.0.0.1:8001/v1", None),
        ("http://localhost:11434/v1", None),
        ("http://vllm:8000/v1", None),
    ],
)
def test_the_service_of_a_host(url, service):
    assert service_of(url) == service


def test_a_url_with_a_key_is_refused():
    with pytest.raises(ConfigError, match="a URL holds no key"):
        pool.from_endpoint(f"https://user:{KEY}@api.acme.example/v1", "acme", ["m"])


def routed(folder):
    data, _ = args_of(folder)
    return data["applications"][0]["args"]["router"]


def test_the_router_needs_no_training_and_fits_what_is_known(tmp_path):
    local = ("--endpoint", "http://127.0.0.1:9/v1", "-")
    init(tmp_path / "a", "--llm", "openai/gpt-4.1-mini", "--llm", "openai/gpt-4.1", "--no-try")
    assert routed(tmp_path / "a") == "difficulty"
    init(tmp_path / "b", *local, "m-7b,m-70b,other", "--no-try")
    ends = {"strong": "m-70b", "weak": "m-7b"}
    assert routed(tmp_path / "b") == {"name": "difficulty", "parameters": ends}
    init(tmp_path / "c", *local, "one,other", "--no-try")
    assert routed(tmp_path / "c") == "in_order"
    for name in "abc":
        _, args = args_of(tmp_path / name)
        assert make_plan(args, "serve.yaml").router_names


async def test_what_it_writes_answers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with FakeUpstream() as upstream:
        folder = await asyncio.to_thread(init_two, tmp_path, upstream.url)
        with Gateway(folder / "serve.yaml") as gateway:
            easy = await asyncio.to_thread(gateway.ask, "hi")
    assert easy.text == "hi"
    assert easy.router == "difficulty"


def init_two(folder, url):
    prices = ("--price", "small=0.1,0.4", "--price", "large=2,8")
    assert init(folder, "--endpoint", url, "-", "small,large", *prices, "--no-try").exit_code == 0
    return folder
