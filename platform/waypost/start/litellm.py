"""Read the config of LiteLLM's proxy: its ``model_list`` as a pool, and what has no counterpart."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from waypost.config import parse, read_yaml
from waypost.contracts.errors import ConfigError, Fault
from waypost.contracts.wording import kind
from waypost.engines import engine_config
from waypost.pipelines.data.config import LLMConfig
from waypost.start.files import More
from waypost.start.pool import named
from waypost.start.providers import PROVIDERS, Provider

_SAME = {
    "gemini": "google",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "xai": "x-ai",
    "moonshot": "moonshotai",
    "nvidia_nim": "nvidia",
    "ollama_chat": "ollama",
}
"""LiteLLM's name of a provider -> ours, where they differ."""

_ANYWHERE = {"openai", "custom_openai", "openai_like", "hosted_vllm", "vllm", "lm_studio",
             "litellm_proxy", "llamafile", "ollama", "ollama_chat"}  # fmt: skip
"""LiteLLM's providers whose endpoint speaks OpenAI's API at any ``api_base``."""

_ENVIRONMENT = "os.environ/"
_WHY_NOT = "no counterpart"

_PARAMS: Mapping[str, str] = {
    "rpm": "requests_per_minute",
    "tpm": "tokens_per_minute",
}
"""``litellm_params`` -> key of data.yaml. The gateway has no such limit."""

_KNOWN_PARAMS = {"model", "api_base", "api_key", "custom_llm_provider", "timeout", "stream_timeout",
                 "max_retries", "num_retries", "input_cost_per_token", "output_cost_per_token",
                 "cache_read_input_token_cost", *_PARAMS}  # fmt: skip
_KNOWN_INFO = {"id", "mode", "base_model", "input_cost_per_token", "output_cost_per_token",
               "cache_read_input_token_cost", "max_tokens", "max_input_tokens"}  # fmt: skip
_TIMES = {
    "timeout": "total_timeout_s",
    "stream_timeout": "token_timeout_s",
    "num_retries": "max_retries",
    "max_retries": "max_retries",
}
_COSTS = {
    "input_cost_per_token": "input_price",
    "output_cost_per_token": "output_price",
    "cache_read_input_token_cost": "cached_input_price",
}


@dataclass
class _Reading:
    """What is found while the file is read."""

    notes: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    args: dict[str, Any] = field(default_factory=dict)

    def drop(self, what: str, why: str = _WHY_NOT) -> None:
        self.notes.append(f"{what}: {why}")


def read_litellm(path: Path) -> tuple[dict[str, LLMConfig], More]:
    """Read a config file of LiteLLM's proxy.

    Returns:
        The LLMs by name, and what else the files say; its notes are what was not taken over.

    Raises:
        ConfigError: The file cannot be read, has no ``model_list``, or none of its LLMs can be
            called.
    """
    data = read_yaml(path)
    listed = data.get("model_list")
    if not isinstance(listed, list) or not listed:
        problem = f"expected LiteLLM's list of models, found {kind(listed)}"
        raise ConfigError([Fault(f"{path}: model_list", problem)])
    reading = _Reading()
    found: list[tuple[str, LLMConfig]] = []
    for index, entry in enumerate(listed):
        place = f"model_list.{index}"
        if not isinstance(entry, dict) or not isinstance(entry.get("litellm_params"), dict):
            reading.drop(place, "has no litellm_params")
            continue
        name = str(entry.get("model_name") or entry["litellm_params"].get("model"))
        info = entry.get("model_info") or {}
        if not isinstance(info, dict):
            reading.drop(f"{name}: model_info", f"expected keys and values, found {kind(info)}")
            info = {}
        llm = _llm(entry["litellm_params"], info, name, reading)
        if llm is not None:
            found.append((name, llm))
        for key in sorted(set(entry) - {"model_name", "litellm_params", "model_info"}):
            reading.drop(f"{name}: {key}")
    if not found:
        lines = "; ".join(reading.notes)
        raise ConfigError([Fault(f"{path}: model_list", f"no LLM can be called: {lines}")])
    for section in ("litellm_settings", "router_settings", "general_settings"):
        _settings(section, data.get(section) or {}, reading)
    for key in sorted(set(data) - {"model_list", *_SECTIONS}):
        reading.drop(key)
    pool = _by_name(found, reading)
    return pool, More(reading.args, reading.variables, tuple(reading.notes))


def _by_name(found: list[tuple[str, LLMConfig]], reading: _Reading) -> dict[str, LLMConfig]:
    """Name the LLMs; those of one name, among which LiteLLM balances, get names of their own."""
    names = [name for name, _ in found]
    pool: dict[str, LLMConfig] = {}
    for name in dict.fromkeys(names):
        same = [llm for other, llm in found if other == name]
        if len(same) == 1:
            pool[name] = same[0]
            continue
        apart = named(same)
        numbered = {f"{name}-{n}": llm for n, llm in enumerate(same, 1)}
        inner = apart if not set(apart) & {*names, *pool} else numbered
        pool |= inner
        why = f"LiteLLM balances load among them; here each is an LLM: {', '.join(inner)}"
        reading.drop(f"{len(same)} entries named {name}", why)
    return pool


def _llm(
    params: Mapping[str, Any], info: Mapping[str, Any], name: str, reading: _Reading
) -> LLMConfig | None:
    """Return one LLM, or None after noting why it cannot be called."""
    prefix, slash, rest = str(params.get("model", "")).partition("/")
    theirs = str(params.get("custom_llm_provider") or (prefix if slash else "openai"))
    model = rest if slash and prefix == theirs else str(params.get("model", ""))
    if "*" in model or "*" in name:
        reading.drop(f"{name} ({theirs}/{model})", "a wildcard names no LLM; list each")
        return None
    ours = _SAME.get(theirs, theirs)
    base = params.get("api_base")
    provider = _provider(ours, theirs, base)
    if provider is None:
        why = "no engine of Waypost speaks to this provider"
        if isinstance(base, str) and base.startswith(_ENVIRONMENT):
            why = "its api_base stands in an environment variable; write the URL itself"
        reading.drop(f"{name} ({theirs}/{model})", why)
        return None
    config: dict[str, Any] = {"base_url": provider.base_url, "model": model, **provider.config}
    if (service := _service(params.get("api_key"), provider, ours, name, reading)) is not None:
        config["service"] = service
    config |= _numbers(params, _TIMES, f"{name}: litellm_params", reading)
    facts: dict[str, Any] = {}
    for given, place in ((params, "litellm_params"), (info, "model_info")):
        costs = _numbers(given, _COSTS, f"{name}: {place}", reading)
        facts |= {key: round(1e6 * value, 9) for key, value in costs.items()}
    if len(facts.keys() & {"input_price", "output_price"}) == 1:
        facts = {}  # half a price is none
        reading.drop(f"{name}: price", "needs input_cost_per_token and output_cost_per_token")
    limits = _numbers(info, {"max_input_tokens": "context_length"}, f"{name}: model_info", reading)
    facts |= {key: int(value) for key, value in limits.items() if value}
    if (base_model := info.get("base_model")) and "/" in str(base_model):
        facts["priced_as"] = str(base_model)
    limits = _numbers(params, _PARAMS, f"{name}: litellm_params", reading)
    facts |= {key: value for key, value in limits.items() if value}
    for theirs, ours in _PARAMS.items():
        if facts.get(ours):
            reading.drop(f"{name}: {theirs}", "the gateway has no such limit; data.yaml has it")
    for key in sorted(set(params) - _KNOWN_PARAMS):
        reading.drop(f"{name}: litellm_params.{key}", _HINTS.get(key, _WHY_NOT))
    for key in sorted(set(info) - _KNOWN_INFO):
        reading.drop(f"{name}: model_info.{key}")
    try:
        parse(engine_config(provider.engine), config, name)
        return parse(LLMConfig, {"engine": provider.engine, "config": config, **facts}, name)
    except ConfigError as error:
        reading.drop(name, "; ".join(fault.problem for fault in error.faults))
        return None


def _provider(ours: str, theirs: str, base: object) -> Provider | None:
    known = PROVIDERS.get(ours)
    if isinstance(base, str) and theirs == "azure" and not base.startswith(_ENVIRONMENT):
        return Provider(f"{base.rstrip('/')}/openai/v1", "AZURE_API_KEY")
    if known is not None and (not isinstance(base, str) or base.rstrip("/") == known.base_url):
        return known
    if not isinstance(base, str) or base.startswith(_ENVIRONMENT):
        return None
    if known is not None and known.engine != "openai":
        return Provider(base, known.key, known.engine)
    if theirs.startswith("ollama") and not base.rstrip("/").endswith("/v1"):
        base = f"{base.rstrip('/')}/v1"  # LiteLLM calls Ollama's own API, below the same host
    return Provider(base, None) if known is not None or theirs in _ANYWHERE else None


def _service(
    key: object, provider: Provider, ours: str, name: str, reading: _Reading
) -> str | None:
    """Return the service of an LLM's key, and note the variable that holds it."""
    if not isinstance(key, str) or not key:
        return ours if provider.key is not None and ours in PROVIDERS else None
    if not key.startswith(_ENVIRONMENT):
        if key.lower() in {"none", "empty", "fake", "fake-key", "sk-1234", "anything", "dummy"}:
            return None  # a placeholder of servers that need no key
        reading.drop(f"{name}: litellm_params.api_key", "a key is not copied; write it into .env")
        return ours
    variable = key.removeprefix(_ENVIRONMENT)
    for service, other in reading.variables.items():
        if other == variable:
            return service
    service = ours if ours not in reading.variables else f"{ours}-{len(reading.variables)}"
    reading.variables[service] = variable
    return service


def _numbers(
    given: Mapping[str, Any], names: Mapping[str, str], where: str, reading: _Reading
) -> dict[str, Any]:
    """Return the numbers among the keys by our names; what is none is noted.

    YAML reads ``1e-6``, without a point, as text; it is taken as the number that LiteLLM takes it
    for.
    """
    found: dict[str, Any] = {}
    for theirs, ours in names.items():
        value = given.get(theirs)
        if value is None:
            continue
        try:
            number = float("nan") if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not math.isfinite(number):
            reading.drop(f"{where}.{theirs}", f"expected a number, found {kind(value)}")
        else:
            found[ours] = int(number) if number.is_integer() else number
    return found


_HINTS = {
    "api_version": "the endpoint's /v1 needs none",
    "weight": "routing decides; see routers",
    "max_tokens": "a limit of an LLM's answers is `max_tokens` of its pool entry",
    "extra_headers": "write them under `config: {headers: ...}`, never a key",
    "tags": "allowed_models of a request chooses among LLMs",
}
_SECTIONS = ("litellm_settings", "router_settings", "general_settings")
_SETTING_HINTS = {
    "fallbacks": "the router's ranking is the order of fallbacks",
    "context_window_fallbacks": "an LLM whose context is too short is passed over by itself",
    "default_fallbacks": "the router's ranking is the order of fallbacks",
    "routing_strategy": "the router decides (router, artifact)",
    "model_group_alias": "write the name clients use as `name` of the pool entry",
    "cache": "answers are not cached",
    "database_url": "users, budgets and spend need no database: see feedback_dir and decision_log",
    "callbacks": "see /metrics, decision_log and the page on monitoring",
    "success_callback": "see /metrics, decision_log and the page on monitoring",
    "failure_callback": "see /metrics, decision_log and the page on monitoring",
}


def _settings(section: str, given: Any, reading: _Reading) -> None:
    """Take over the settings of a section that have a counterpart; note the others."""
    if not isinstance(given, dict):
        reading.drop(section, f"expected keys and values, found {kind(given)}")
        return
    for key, value in given.items():
        known = _TAKEN.get(key)
        if known is None or not known(value, reading.args):
            reading.drop(f"{section}.{key}", _SETTING_HINTS.get(key, _WHY_NOT))


def _take_master_key(value: Any, args: dict[str, Any]) -> bool:
    if value:
        args["api_keys"] = True  # the key itself is not copied: .env.example names its service
    return bool(value)


def _take_drop_params(value: Any, args: dict[str, Any]) -> bool:
    if value is True:
        args["unknown_fields"] = "drop"
    return isinstance(value, bool)


def _take_timeout(value: Any, args: dict[str, Any]) -> bool:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    if fits:
        args["limits"] = {**args.get("limits", {}), "total_timeout_s": float(value)}
    return fits


_TAKEN: Mapping[str, Callable[[Any, dict[str, Any]], bool]] = {
    "master_key": _take_master_key,
    "drop_params": _take_drop_params,
    "request_timeout": _take_timeout,
    "timeout": _take_timeout,
}
