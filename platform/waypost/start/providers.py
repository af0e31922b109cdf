"""Known providers of LLMs: where they answer, how, and what others call their key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from waypost.contracts.errors import ConfigError, Fault
from waypost.contracts.wording import did_you_mean


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider.

    Attributes:
        base_url: Base URL of its API.
        key: Environment variable that its own documentation names; None where it needs no key.
        engine: The engine that calls it.
        config: Further settings of the engine.
    """

    base_url: str
    key: str | None
    engine: str = "openai"
    config: Mapping[str, Any] = field(default_factory=dict)


PROVIDERS: Mapping[str, Provider] = {
    "openai": Provider(
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        config={"max_tokens_field": "max_completion_tokens"},
    ),
    "anthropic": Provider("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY", "anthropic"),
    "google": Provider("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "mistral": Provider("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "deepseek": Provider("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "groq": Provider("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "together": Provider("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "fireworks": Provider("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    "openrouter": Provider("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "x-ai": Provider("https://api.x.ai/v1", "XAI_API_KEY"),
    "cerebras": Provider("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    "moonshotai": Provider("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY"),
    "perplexity": Provider("https://api.perplexity.ai", "PERPLEXITY_API_KEY"),
    "nvidia": Provider("https://integrate.api.nvidia.com/v1", "NVIDIA_API_KEY"),
    "ollama": Provider("http://127.0.0.1:11434/v1", None),
}
"""Provider by the name of its key's service, which is that of the price library where it has it."""


def provider_named(name: str, where: str) -> Provider:
    """Return a provider.

    Raises:
        ConfigError: There is none of that name.
    """
    if name in PROVIDERS:
        return PROVIDERS[name]
    problem = f"no provider is named {name!r}{did_you_mean(name, PROVIDERS)}; known: "
    problem += f"{', '.join(PROVIDERS)}. Give another one's base URL: --endpoint URL SERVICE MODELS"
    raise ConfigError([Fault(where, problem)])


def service_of(base_url: str) -> str | None:
    """Return the name under which the keys of a URL's host stand; None for this machine.

    A known provider's is its own name, another one's is taken from its host.
    """
    host = urlsplit(base_url).hostname or ""
    for name, provider in PROVIDERS.items():
        if provider.key is not None and urlsplit(provider.base_url).hostname == host:
            return name
    if host in {"localhost", "::1"} or host.startswith("127.") or "." not in host:
        return None
    return host.split(".")[-2]
