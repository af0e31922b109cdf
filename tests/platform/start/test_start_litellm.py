"""LiteLLM's config becomes a pool; what has no counterpart is named."""

from __future__ import annotations

import pytest
import yaml
from click.testing import CliRunner

from waypost.cli import command
from waypost.config import parse
from waypost.contracts.errors import ConfigError
from waypost.serve.config import ServeArgs
from waypost.start.litellm import read_litellm

KEY = "sk-literal-key-of-litellm-config"

# as in LiteLLM's documentation of its proxy
CONFIG = f"""
model_list:
  - model_name: gpt-4o
    litellm_params:
      model: azure/my_azure_deployment
      api_base: https://acme.openai.azure.com
      api_key: "os.environ/AZURE_API_KEY"
      api_version: "2025-01-01-preview"
      rpm: 6
  - model_name: gpt-4o-mini
    litellm_params: {{model: openai/gpt-4o-mini, api_key: os.environ/OPENAI_API_KEY}}
  - model_name: claude
    litellm_params: {{model: anthropic/claude-sonnet-4-5, api_key: {KEY}, weight: 2}}
  - model_name: local
    litellm_params: {{model: hosted_vllm/acme/tiny-7b, api_base: "http://127.0.0.1:8001/v1"}}
    model_info:
      {{input_cost_per_token: 0.0000001, output_cost_per_token: 0.0000004, max_input_tokens: 8192}}
  - model_name: llama
    litellm_params: {{model: ollama/llama3.1, api_base: "http://localhost:11434"}}
  - model_name: many
    litellm_params: {{model: groq/llama-3.1-8b-instant, api_key: os.environ/GROQ_API_KEY}}
  - model_name: many
    litellm_params: {{model: together_ai/meta-llama/Llama-3.1-8B, api_key: os.environ/TOGETHER}}
  - model_name: bedrock
    litellm_params: {{model: bedrock/anthropic.claude-v2, aws_region_name: us-east-1}}
  - model_name: "*"
    litellm_params: {{model: "openai/*"}}
litellm_settings: {{drop_params: true, request_timeout: 120, success_callback: [langfuse]}}
router_settings:
  routing_strategy: usage-based-routing-v2
  fallbacks: [{{gpt-4o: [claude]}}]
general_settings: {{master_key: {KEY}, database_url: "postgresql://..."}}
"""


PRICES = ("--price", "gpt-4o=2.5,10", "--price", "meta-llama/Llama-3.1-8B=0.2,0.2")
"""Of a deployment's own name, and of a model that the price library does not know."""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "litellm.yaml"
    path.write_text(CONFIG)
    return path


def test_llms_that_an_engine_can_call(file):
    llms, _ = read_litellm(file)
    assert list(llms) == [
        "gpt-4o", "gpt-4o-mini", "claude", "local", "llama", "llama-3.1-8b-instant",
        "meta-llama/Llama-3.1-8B",
    ]  # fmt: skip
    urls = {name: llm.config["base_url"] for name, llm in llms.items()}
    assert urls["gpt-4o"] == "https://acme.openai.azure.com/openai/v1"
    assert urls["gpt-4o-mini"] == "https://api.openai.com/v1"
    assert urls["llama"] == "http://localhost:11434/v1"
    assert llms["claude"].engine == "anthropic"
    local = llms["local"]
    assert (local.config["model"], local.prices, local.context_length) == (
        "acme/tiny-7b", (0.1, 0.4), 8192
    )  # fmt: skip
    assert "service" not in local.config
    assert llms["gpt-4o"].requests_per_minute == 6


def test_keys_stay_where_they_are(file):
    llms, more = read_litellm(file)
    services = {name: llm.config.get("service") for name, llm in llms.items()}
    assert services["gpt-4o"] == "azure"
    assert services["claude"] == "anthropic"
    assert services["llama"] is None
    assert more.variables == {
        "azure": "AZURE_API_KEY", "openai": "OPENAI_API_KEY", "groq": "GROQ_API_KEY",
        "together": "TOGETHER",
    }  # fmt: skip


def test_what_has_no_counterpart_is_named(file):
    _, more = read_litellm(file)
    notes = "\n".join(more.notes)
    for part in (
        "gpt-4o: litellm_params.api_version",
        "gpt-4o: rpm: the gateway has no such limit; data.yaml has it",
        "claude: litellm_params.api_key: a key is not copied",
        "claude: litellm_params.weight",
        "bedrock (bedrock/anthropic.claude-v2): no engine",
        "* (openai/*): a wildcard",
        "2 entries named many",
        "router_settings.fallbacks: the router's ranking",
        "router_settings.routing_strategy",
        "litellm_settings.success_callback",
        "general_settings.database_url",
    ):
        assert part in notes
    assert KEY not in notes
    assert more.args == {
        "unknown_fields": "drop", "limits": {"total_timeout_s": 120.0}, "api_keys": True
    }  # fmt: skip


def test_init_writes_what_it_read(file, tmp_path):
    folder = tmp_path / "new"
    done = CliRunner().invoke(
        command, ["init", str(folder), "--from-litellm", str(file), "--no-try", *PRICES]
    )
    assert done.exit_code == 0, done.output
    data = yaml.safe_load((folder / "serve.yaml").read_text())
    args = parse(ServeArgs, data["applications"][0]["args"])
    assert (args.api_keys, args.unknown_fields) == (True, "drop")
    assert len(args.pool) == 7
    assert "not taken over: bedrock" in done.stderr
    texts = [path.read_text() for path in folder.iterdir()]
    assert not any(KEY in text for text in (*texts, done.output))
    assert "waypost-clients" in (folder / ".env.example").read_text()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}", "model_list: expected LiteLLM's list of models, found null"),
        ("model_list: [{litellm_params: {model: bedrock/x}}]", "no LLM can be called: bedrock/x"),
        ("model_list: [1]", "has no litellm_params"),
    ],
)
def test_a_file_without_an_llm_is_refused(tmp_path, text, told):
    path = tmp_path / "litellm.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"litellm\.yaml: model_list: ") as failed:
        read_litellm(path)
    assert told in str(failed.value)


def read(tmp_path, params, info="{}", rest=""):
    path = tmp_path / "config.yaml"
    path.write_text(
        f"model_list:\n- model_name: a\n  litellm_params: {params}\n  model_info: {info}\n"
        "- model_name: b\n  litellm_params: {model: openai/y}\n" + rest
    )
    pool, more = read_litellm(path)
    return pool, more, "\n".join(more.notes)


def test_prices_that_yaml_takes_for_text_are_numbers(tmp_path):
    costs = "input_cost_per_token: 1e-6, output_cost_per_token: 2e-6"
    pool, _, notes = read(tmp_path, f"{{model: openai/x, {costs}}}")
    assert (pool["a"].input_price, pool["a"].output_price) == (1.0, 2.0)
    assert "cost" not in notes


@pytest.mark.parametrize(
    ("params", "info", "note"),
    [
        ("{model: openai/x, rpm: many}", "{}", "a: litellm_params.rpm: expected a number"),
        ("{model: openai/x, timeout: os.environ/T}", "{}", "litellm_params.timeout: expected"),
        ("{model: openai/x, max_retries: true}", "{}", "litellm_params.max_retries: expected"),
        ("{model: openai/x}", "{max_input_tokens: 128k}", "model_info.max_input_tokens: expected"),
        ("{model: openai/x}", "[1]", "a: model_info: expected keys and values"),
    ],
)
def test_values_of_another_kind_are_named(tmp_path, params, info, note):
    pool, _, notes = read(tmp_path, params, info)
    assert set(pool) == {"a", "b"}
    assert note in notes


@pytest.mark.parametrize("model", ["azure/x", "openai/x"])
def test_an_endpoint_in_a_variable_is_named_as_such(tmp_path, model):
    pool, _, notes = read(tmp_path, f"{{model: {model}, api_base: os.environ/BASE}}")
    assert set(pool) == {"b"}
    assert "api_base stands in an environment variable" in notes


def test_no_master_key_asks_no_client_for_one(tmp_path):
    _, more, _ = read(tmp_path, "{model: openai/x}", rest="general_settings: {master_key: null}\n")
    assert "api_keys" not in more.args


def test_half_a_price_is_named_and_not_taken(tmp_path):
    pool, _, notes = read(tmp_path, "{model: openai/x, input_cost_per_token: 0.000001}")
    assert pool["a"].input_price is None
    assert "a: price: needs input_cost_per_token and output_cost_per_token" in notes
