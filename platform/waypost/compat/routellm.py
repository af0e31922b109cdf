"""RouteLLM's `Controller` (lm-sys/RouteLLM 0.2; Ong et al., 2024) over Waypost's routers.

In place of ``from routellm.controller import Controller``. A query goes to the strong LLM where its
*win rate*, the router's estimate that the strong LLM's answer is the better one, reaches the
threshold. Of a trained router it is (1 + q_strong - q_weak) / 2 with the predicted scores q in
[0, 1]; of ``difficulty`` it is the difficulty; ``random`` draws it uniformly, as RouteLLM does.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Self

import numpy as np

from waypost.config import environment_value
from waypost.contracts.errors import ConfigError, Fault, WaypostError
from waypost.contracts.policy import decision_quality
from waypost.contracts.records import Query
from waypost.contracts.router import QueryBatch, ScoreRouter
from waypost.engines.calls import content_text
from waypost.loading import load_router
from waypost.pipelines.data.config import LLMConfig
from waypost.registry import make_router
from waypost.registry.rule_router import no_outcomes
from waypost.secrets import key_ring
from waypost.serve.local import Gateway
from waypost.start.pool import NO_KEY, from_endpoint, from_provider
from waypost.start.providers import PROVIDERS

ROUTERS = {
    "mf": "mfrouter",
    "sw_ranking": "elorouter",
    "bert": "causallm_router",
    "causal_llm": "causallm_router",
}
"""RouteLLM's name of a router -> the one of Waypost to train in its place."""

UNTRAINED = frozenset({"random", "difficulty"})

WinRates = Callable[[Sequence[str]], "np.ndarray[Any, np.dtype[np.float64]]"]


class RoutingError(WaypostError):
    """The name of a model, a router or a threshold is not one of the controller's."""


class Completion(dict[str, Any]):
    """A completion, whose keys are attributes as well: ``answer.choices[0].message.content``."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    @classmethod
    def of(cls, data: Any) -> Any:
        """Return plain data with every mapping in it as a completion."""
        if isinstance(data, Mapping):
            return cls({key: cls.of(value) for key, value in data.items()})
        return [cls.of(one) for one in data] if isinstance(data, list) else data


class Controller:
    """Routes between two LLMs by a threshold, and calls them.

    Args:
        routers: Names of routers: ``random``, ``difficulty`` (needs no data), or any other one with
            an artifact under ``config``; RouteLLM's names are known (`ROUTERS`).
        strong_model: The strong LLM in LiteLLM's form: ``openai/gpt-4.1``, or a name of OpenAI's.
        weak_model: The weak LLM.
        config: Router -> ``artifact`` (or ``checkpoint_path``): a folder that ``waypost train``
            wrote; and ``strong`` and ``weak``, the LLMs of its data, where their names are others.
        api_base: Base URL of an endpoint that serves both LLMs.
        api_key: Its key; without one those of ``API_KEYS`` and of the providers' own variables
            (``OPENAI_API_KEY``) are used.
        progress_bar: Accepted, and ignored.

    Attributes:
        model_counts: Router -> LLM -> number of routed completions.

    Raises:
        ConfigError: A router has no artifact, or an LLM cannot be called.
        ArtifactError: An artifact cannot be read, or has no such LLMs.
    """

    def __init__(
        self,
        routers: Sequence[str],
        strong_model: str,
        weak_model: str,
        config: Mapping[str, Mapping[str, Any]] | None = None,
        api_base: str | None = None,
        api_key: str | None = None,
        progress_bar: bool = False,
    ) -> None:
        self.model_pair = SimpleNamespace(strong=strong_model, weak=weak_model)
        self.model_counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.routers: dict[str, WinRates] = {
            name: _win_rates(name, (config or {}).get(name, {}), strong_model, weak_model)
            for name in routers
        }
        self._gateway: Gateway | None = None
        self._opening = threading.Lock()
        self._pool = {
            name: _llm(name, api_base, api_key)
            for name in dict.fromkeys((strong_model, weak_model))
        }
        _give_keys(self._pool, api_key)
        self.chat = SimpleNamespace(
            completions=SimpleNamespace(create=self.completion, acreate=self.acompletion)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connections to the LLMs."""
        if self._gateway is not None:
            self._gateway.close()
            self._gateway = None

    # -- decisions ----------------------------------------------------------------------------

    def route(self, prompt: str, router: str, threshold: float) -> str:
        """Return the name of the LLM for a prompt; no LLM is called.

        Raises:
            RoutingError: There is no such router, or the threshold is not from 0 to 1.
        """
        self._check(router, threshold)
        strong = float(self.routers[router]([prompt])[0]) >= threshold
        return str(self.model_pair.strong if strong else self.model_pair.weak)

    def batch_calculate_win_rate(self, prompts: Iterable[str], router: str) -> Any:
        """Return the win rates of prompts, float64 (n,), from 0 to 1.

        Raises:
            RoutingError: There is no such router.
        """
        self._check(router, 0.0)
        return self.routers[router](list(prompts))

    def calibrate_threshold(
        self, prompts: Iterable[str], router: str, strong_model_pct: float
    ) -> float:
        """Return the threshold at which a share of prompts goes to the strong LLM.

        It is the quantile 1 - ``strong_model_pct`` of their win rates, as ``python -m
        routellm.calibrate_threshold`` prints it.

        Raises:
            RoutingError: There is no such router, or the share is not from 0 to 1.
        """
        if not 0 <= strong_model_pct <= 1:
            raise RoutingError(f"strong_model_pct is {strong_model_pct}; expected 0 to 1")
        rates = self.batch_calculate_win_rate(prompts, router)
        return float(np.quantile(rates, 1 - strong_model_pct))

    def _check(self, router: str | None, threshold: float | None) -> None:
        if router is None or threshold is None:
            raise RoutingError("Router or threshold unspecified.")
        if router not in self.routers:
            there = list(self.routers)
            raise RoutingError(f"Invalid router {router}. Available routers are {there}.")
        if not 0 <= threshold <= 1:
            raise RoutingError(
                f"Invalid threshold {threshold}. Threshold must be a float between 0.0 and 1.0."
            )

    # -- completions --------------------------------------------------------------------------

    def completion(
        self, *, router: str | None = None, threshold: float | None = None, **kwargs: Any
    ) -> Any:
        """Answer a chat: OpenAI's arguments, with ``model="router-NAME-THRESHOLD"``.

        Args:
            router: Router, where ``model`` is not given.
            threshold: Threshold, likewise.
            kwargs: ``messages`` and further fields of OpenAI's chat completions. With ``stream``
                the answer comes as two chunks.

        Returns:
            A `Completion`, or an iterator of chunks; its ``model`` is the LLM that answered.

        Raises:
            RoutingError: See `route`; or the name of the model has another form.
            GatewayError: The LLM did not answer.
        """
        model, body = self._routed(router, threshold, kwargs)
        reply = self._opened().ask(body.pop("messages"), model=model, **body)
        return self._told(reply.body, stream=bool(kwargs.get("stream")))

    async def acompletion(
        self, *, router: str | None = None, threshold: float | None = None, **kwargs: Any
    ) -> Any:
        """Answer a chat in an event loop; see `completion`."""
        model, body = self._routed(router, threshold, kwargs)
        gateway = await asyncio.to_thread(self._opened)
        reply = await gateway.ask_async(body.pop("messages"), model=model, **body)
        return self._told(reply.body, stream=bool(kwargs.get("stream")))

    def _routed(
        self, router: str | None, threshold: float | None, given: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        if "model" in given:
            router, threshold = parse_model_name(given["model"])
        self._check(router, threshold)
        assert router is not None  # checked
        assert threshold is not None
        messages = given.get("messages")
        if not isinstance(messages, list) or not messages:
            raise RoutingError("messages: expected a list of at least one message")
        routed = self.route(content_text(messages[-1].get("content") or ""), router, threshold)
        self.model_counts[router][routed] += 1
        return routed, {k: v for k, v in given.items() if k not in {"model", "stream"}}

    def _opened(self) -> Gateway:
        with self._opening:  # completions may begin at the same time
            if self._gateway is None:
                pool = [
                    {"name": n, "engine": one.engine, "placement": "inline", "config": one.config}
                    for n, one in self._pool.items()
                ]
                self._gateway = Gateway(pool=pool, router="in_order", unknown_fields="pass").open()
            return self._gateway

    @staticmethod
    def _told(body: Mapping[str, Any], *, stream: bool) -> Any:
        return _chunks(body) if stream else Completion.of(dict(body))


def parse_model_name(model: str) -> tuple[str, float]:
    """Return router and threshold of a name such as ``router-mf-0.11593``.

    Raises:
        RoutingError: The name has another form.
    """
    parts = model.split("-", 2)
    if len(parts) != 3 or parts[0] != "router":
        raise RoutingError(
            f"Invalid model {model}. Model name must be of the format "
            "'router-[router name]-[threshold]'."
        )
    try:
        return parts[1], float(parts[2])
    except ValueError:
        raise RoutingError(f"Threshold {parts[2]} must be a float.") from None


def _chunks(body: Mapping[str, Any]) -> Iterator[Completion]:
    head = {key: body.get(key) for key in ("id", "created", "model")}
    head["object"] = "chat.completion.chunk"
    for choice in body["choices"]:
        index, message = choice["index"], choice["message"]
        first = {"index": index, "delta": message, "finish_reason": None}
        last = {"index": index, "delta": {}, "finish_reason": choice["finish_reason"]}
        for one in (first, last):
            yield Completion.of({**head, "choices": [one]})


def _win_rates(name: str, given: Mapping[str, Any], strong: str, weak: str) -> WinRates:
    if name == "random":
        return lambda prompts: np.array([random.uniform(0, 1) for _ in prompts])  # noqa: S311
    folder = given.get("artifact", given.get("checkpoint_path"))
    if folder is None and name == "difficulty":
        router: Any = make_router(name, {"strong": "strong", "weak": "weak"})
        llms = [LLMConfig(engine="echo").info(one) for one in ("strong", "weak")]
        router.fit(no_outcomes(llms))
        return lambda prompts: np.asarray(router.difficulty(list(prompts)), np.float64)
    if folder is None:
        ours = ROUTERS.get(name, name)
        problem = (
            f"needs config={{{name!r}: {{'artifact': DIR}}}}; `waypost train --router {ours} "
            "--data DATA --out DIR` writes one from routing data of your two LLMs. RouteLLM's own "
            "checkpoints are of its own two LLMs. Without data: 'difficulty' or 'random'"
        )
        raise ConfigError([Fault(f"router {name}", problem)])
    return _predicted(
        load_router(folder), name, given.get("strong", strong), given.get("weak", weak)
    )


def _predicted(router: object, name: str, strong: str, weak: str) -> WinRates:
    if not isinstance(router, ScoreRouter):
        raise ConfigError([Fault(f"router {name}", "does not predict scores of two LLMs")])
    columns = [_column(router.model_names, one, name) for one in (strong, weak)]

    def of(prompts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
        queries = tuple(Query(prompt) for prompt in prompts)
        prediction = router.predict(QueryBatch(queries, router.embed(queries)))
        quality = np.asarray(decision_quality(prediction, router.mean_quality_), np.float64)
        return np.asarray((1.0 + quality[:, columns[0]] - quality[:, columns[1]]) / 2.0)

    return of


def _column(known: Sequence[str], wanted: str, router: str) -> int:
    for name in (wanted, wanted.rpartition("/")[2]):
        if name in known:
            return known.index(name)
    problem = f"its artifact knows {', '.join(known)}, not {wanted}: name it under strong or weak"
    raise ConfigError([Fault(f"router {router}", problem)])


def _llm(model: str, api_base: str | None, api_key: str | None) -> LLMConfig:
    provider, slash, name = model.partition("/")
    known = slash and provider in PROVIDERS
    if api_base is not None:
        named = name if known else model
        # the key of one endpoint must not go to another one
        service = f"routellm {api_base.rstrip('/')}" if api_key else NO_KEY
        (found,) = from_endpoint(api_base, service, [named])
    else:
        found = from_provider(model if slash else f"openai/{model}")
    return found


def _give_keys(pool: Mapping[str, LLMConfig], api_key: str | None) -> None:
    services = sorted({one.config["service"] for one in pool.values() if "service" in one.config})
    if api_key is not None and len(services) > 1:
        problem = f"is one key, and {' and '.join(services)} are two: set their own variables"
        raise ConfigError([Fault("api_key", problem)])
    for service in services:
        _give_key(service, api_key)


def _give_key(service: str, api_key: str | None) -> None:
    """Add a key to this process's ring: the given one, else that of the provider's variable."""
    ring = key_ring()
    provider = PROVIDERS.get(service)
    if api_key is not None:
        ring.add(service, api_key)
        return
    if provider is None or provider.key is None or ring.count(service):
        return
    if (found := environment_value(provider.key)) is not None:
        ring.add(service, found)
