"""Pools of running LLMs: behind an OpenAI-style endpoint, or deployments of a Serve application.

All calls of a pool are made in one event loop.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from typing import Any

from pydantic import ValidationError

from waypost.config import environment_value
from waypost.contracts.errors import (
    ConfigError,
    EngineError,
    EngineServerError,
    Fault,
    MissingExtraError,
    engine_error,
    names,
)
from waypost.contracts.generation import (
    Answer,
    Chunk,
    GenerateRequest,
    deployment_name,
    joined,
)
from waypost.contracts.wording import faults
from waypost.engines.base import collect
from waypost.engines.openai_http import OpenAIEngine
from waypost.ray_session import ray_session
from waypost.secrets import KeyRing, parse_keys, redact
from waypost_rl.training.parts import Ask, Reply

MAX_TOKENS = 512
"""Maximum tokens of an answer, as in the paper."""

TIMEOUT_S = 60.0
AT_ONCE = 64


class LivePool(ABC):
    """What the live pools share: the request, the limit of calls at a time, and the time-out.

    Answers are greedy (temperature 0). A call that waits for its turn is within its time-out, so a
    batch waits for a dead LLM no longer than that, and each LLM has turns of its own, so a dead one
    does not block the others.

    Args:
        models: Candidate -> its name in the pool.
        timeout_s: Seconds after which a call has failed.
        at_once: Maximum calls of one LLM at a time.
        max_tokens: Maximum tokens of an answer.
        system: System message before the query; None sends the query alone, as serving does.
    """

    def __init__(
        self,
        models: Mapping[str, str],
        *,
        timeout_s: float = TIMEOUT_S,
        at_once: int = AT_ONCE,
        max_tokens: int = MAX_TOKENS,
        system: str | None = None,
    ) -> None:
        self.models = dict(models)
        self.timeout_s = timeout_s
        self.max_tokens = max_tokens
        self.system = system
        self._turns = {name: asyncio.Semaphore(at_once) for name in set(self.models.values())}

    def settings_of(self, candidate: str) -> dict[str, Any]:
        """Return what a candidate's answer to a query depends on besides the query."""
        return {
            "model": self.models.get(candidate),
            "max_tokens": self.max_tokens,
            "temperature": 0.0,
            "system": self.system,
        }

    async def ask(self, ask: Ask) -> Reply:
        """Ask a candidate; see `DelegatePool.ask`.

        Raises:
            ConfigError: The pool has no such candidate, or the pool cannot be called at all.
        """
        model = self.models.get(ask.candidate)
        if model is None:
            problem = f"has no {ask.candidate}; it has {names(tuple(self.models))}"
            raise ConfigError([Fault("pool", problem)])
        await self._open(model)
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        request = GenerateRequest(
            request_id=uuid.uuid4().hex,
            messages=[*system, {"role": "user", "content": ask.query}],
            max_tokens=self.max_tokens,
            temperature=0.0,
            timeout_s=self.timeout_s,
        )
        try:
            async with asyncio.timeout(self.timeout_s), self._turns[model]:
                answer = await self._answer(model, request)
        except TimeoutError:
            return Reply(None, fault=f"{model}: no answer in {self.timeout_s:g} s")
        except EngineError as error:
            return Reply(None, fault=redact(str(error)))
        return Reply(answer.text, answer.usage.input_tokens, answer.usage.output_tokens)

    @abstractmethod
    async def close(self) -> None:
        """Close connections."""

    @abstractmethod
    async def _open(self, model: str) -> None:
        """Prepare the calls of an LLM, where that is not done yet.

        Raises:
            ConfigError: It cannot be called.
        """

    @abstractmethod
    async def _answer(self, model: str, request: GenerateRequest) -> Answer:
        """Return the answer of an LLM.

        Raises:
            EngineError: The call failed.
        """


class HttpPool(LivePool):
    """LLMs behind one OpenAI-style endpoint, such as a running ``waypost serve``.

    Args:
        base_url: The address, up to ``/v1``.
        models: Candidate -> name of its model at the endpoint.
        api_key_env: Environment variable with the key, or several with commas; None sends none.
        settings: See `LivePool`.

    Raises:
        ConfigError: The address is wrong, or the variable is not set.
    """

    def __init__(
        self,
        base_url: str,
        models: Mapping[str, str],
        *,
        api_key_env: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(models, **settings)
        self._keys = _keys(api_key_env)
        self._engines: dict[str, OpenAIEngine] = {}
        self._configs = {
            model: _config(base_url, model, self.timeout_s, api_key_env) for model in self._turns
        }

    async def _open(self, model: str) -> None:
        if model not in self._engines:
            engine = self._engines[model] = OpenAIEngine(self._configs[model], self._keys)
            await engine.start()  # makes the pool of connections without a wait

    async def _answer(self, model: str, request: GenerateRequest) -> Answer:
        return await collect(self._engines[model], request)

    async def close(self) -> None:
        """Close all connections."""
        engines, self._engines = self._engines, {}
        for engine in engines.values():
            await engine.close()


def _keys(variable: str | None) -> KeyRing:
    if variable is None:
        return KeyRing()
    value = environment_value(variable)
    if value is None:
        problem = "is not set; it holds the key of the pool's endpoint"
        raise ConfigError([Fault(variable, problem)])
    return KeyRing(parse_keys(value, variable))


def _config(base_url: str, model: str, timeout_s: float, service: str | None) -> Any:
    kind = OpenAIEngine.config_class
    data = {
        "base_url": base_url,
        "model": model,
        "service": service,
        "stream": False,
        "connect_timeout_s": min(5.0, timeout_s),
        "first_token_timeout_s": timeout_s,
        "token_timeout_s": timeout_s,
        "total_timeout_s": timeout_s,
        "retry_max_s": timeout_s,
    }
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise ConfigError(faults(error, "pool", kind)) from None


class HandlePool(LivePool):
    """LLMs of a Serve application on the Ray cluster of this process, called by their handles.

    No HTTP and no gateway is between: only LLMs with a deployment of their own can be called, not
    those inside the gateway (``placement: inline``). A process that has no Ray joins that of
    RAY_ADDRESS, which a job has set.

    Args:
        app: Name of the application.
        models: Candidate -> name of its LLM in the application's pool.
        settings: See `LivePool`.
    """

    def __init__(self, app: str, models: Mapping[str, str], **settings: Any) -> None:
        super().__init__(models, **settings)
        self.app = app
        self._streams: dict[str, Any] = {}
        self._connection = ExitStack()
        self._connecting = asyncio.Lock()

    def connect(self) -> None:
        """Join the Ray that serves, and find the LLMs; the first call does it otherwise.

        Raises:
            ConfigError: RAY_ADDRESS is not set, or the application or an LLM is not there.
            ClusterError: Ray does not answer at the address.
        """
        self._connection.enter_context(_serving_ray())
        self._streams = {
            model: handle.options(method_name="stream", stream=True)
            for model, handle in _handles(self.app, sorted(self._turns)).items()
        }

    async def _open(self, model: str) -> None:
        async with self._connecting:  # a batch asks at once
            if not self._streams:
                await asyncio.to_thread(self.connect)

    async def _answer(self, model: str, request: GenerateRequest) -> Answer:
        pace = {"first_s": self.timeout_s, "between_s": self.timeout_s}
        call = self._streams[model].remote(request.to_dict(), pace, True)
        done = False
        chunks: list[Chunk] = []
        try:
            async for messages in call:
                for message in messages:
                    if "error" in message:
                        raise engine_error(message["error"])
                    chunks.append(Chunk.from_dict(message["answer"]))
            done = True
        except EngineError:
            raise
        except Exception as error:  # noqa: BLE001 - a border: what Ray raises is data here
            raise EngineServerError(f"{model}: the call failed ({type(error).__name__})") from None
        finally:
            if not done:
                _cancel(call)
        return joined(chunks)

    async def close(self) -> None:
        """Leave the Ray that this pool joined."""
        self._streams = {}
        self._connection.close()


def _cancel(call: Any) -> None:
    # a call that never reached a replica raises its error here once more
    with suppress(Exception):
        call.cancel()


@contextmanager
def _serving_ray() -> Iterator[None]:
    """Use the Ray of this process, or join that of RAY_ADDRESS during the block."""
    if find_spec("ray") is None:
        raise MissingExtraError("ray", "serve")
    ray = sys.modules.get("ray")  # the session imports it, with its settings
    initialized = ray is not None and ray.is_initialized()
    if not initialized and environment_value("RAY_ADDRESS") is None:
        problem = (
            "kind handle needs the Ray that serves: start the run as a job there (waypost submit), "
            "or set RAY_ADDRESS to its address"
        )
        raise ConfigError([Fault("pool", problem)])
    with ray_session():
        yield


def _handles(app: str, models: Sequence[str]) -> dict[str, Any]:
    from ray import serve

    known = serve.status().applications
    if app not in known:
        problem = f"Ray Serve has no application {app!r}; it has {names(tuple(known)) or 'none'}"
        raise ConfigError([Fault("pool.app", problem)])
    deployments = known[app].deployments
    missing = [model for model in models if deployment_name(model) not in deployments]
    if missing:
        have = names(tuple(deployments))
        raise ConfigError(
            [Fault("pool", f"{app} has no deployment of {one}; it has {have}") for one in missing]
        )
    return {model: serve.get_deployment_handle(deployment_name(model), app) for model in models}
