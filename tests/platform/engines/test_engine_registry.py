from __future__ import annotations

import subprocess
import sys

import pytest

from waypost.contracts.errors import ConfigError, RegistryError
from waypost.contracts.generation import GenerateRequest
from waypost.engines import engine_class, engine_config, engine_names, make_engine


def test_names_are_sorted():
    assert engine_names() == ("anthropic", "echo", "openai", "replay", "transformers", "vllm")


@pytest.mark.parametrize("name", engine_names())
def test_an_engines_own_name_is_its_registry_name(name):
    needed = {
        "anthropic": {"model": "m"},
        "openai": {"base_url": "http://localhost/v1", "model": "m"},
        "replay": {"data": "nowhere.jsonl"},
        "transformers": {"model": "nowhere"},
        "vllm": {"model": "nowhere"},
    }
    assert make_engine(name, needed.get(name, {})).name == name


def test_unknown_engine_names_the_known_ones():
    with pytest.raises(RegistryError, match=r"'gpt'.*echo, openai, replay, transformers"):
        make_engine("gpt", {})
    with pytest.raises(RegistryError):
        engine_config("gpt")


def test_all_faults_of_a_config_come_at_once():
    config = {"tokens": -1, "delay_s": "soon", "speed": 3}
    with pytest.raises(ConfigError) as caught:
        make_engine("echo", config, "pool.yaml: llms.a")
    where = [fault.where for fault in caught.value.faults]
    assert where == [f"pool.yaml: llms.a: {key}" for key in ("tokens", "delay_s", "speed")]


def test_only_the_named_engine_is_imported():
    code = (
        "import sys; from waypost.engines import make_engine; make_engine('echo', {});"
        "assert not {'torch', 'transformers', 'aiohttp', 'pyarrow', 'waypost.engines.replay'}"
        " & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_naming_the_transformers_engine_imports_no_torch():
    code = (
        "import sys; from waypost.engines import make_engine;"
        "make_engine('transformers', {'model': 'x'});"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_tools_of_a_local_llm_are_told_because_its_calls_stay_text(engine):
    tools = [{"type": "function", "function": {"name": "look"}}]
    asked = GenerateRequest(
        "id", messages=[], tools=tools, extra={"response_format": {}, "user": 1}
    )
    config = engine_config(engine)(model="a/b")
    assert engine_class(engine).ignored(config, asked) == ("tools", "user")
