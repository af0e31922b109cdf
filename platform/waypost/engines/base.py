"""What every engine does: one request in, chunks out, cancellation that stops the work.

The contract (checked for each engine by ``waypost.testing.engine_contract``):

- `generate` yields chunks; exactly the last has ``finish_reason`` and ``usage``.
- The text of all chunks joined is the answer; stop strings are not part of it.
- A failure is an `EngineError`; nothing else leaves an engine. Its ``retryable`` says whether
  the next model of a ranking should be tried.
- `answer` gives the whole answer: by default the chunks joined, from an engine that can ask for
  it whole (`answers_whole`) without any sign of life before.
- Closing the iterator (a client that disconnects) or `abort` ends the generation itself, not
  only its delivery.
- `start` is called once before use and is where weights load and connections open; building
  the object does nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from typing import Any, ClassVar

from waypost.config import StrictModel
from waypost.contracts.generation import Answer, Chunk, GenerateRequest, joined


class Engine(ABC):
    """Calls one LLM.

    The class says what the rest of Waypost needs to know of the engine; nothing else names it.

    Args:
        config: Its settings, an instance of `config_class`.
    """

    name: ClassVar[str]
    """Registry name: what stands under ``engine`` in configs, and the name of an entry point."""

    config_class: ClassVar[type[StrictModel]]
    """Model of its settings."""

    remote: ClassVar[bool] = False
    """Whether answers come from elsewhere (an endpoint, a file, a script). Such an engine takes no
    CPU worth counting and may run in the gateway's process (``placement: inline``). Any other one
    needs a deployment; its setting ``model``, where it has one, names weights (`waypost.weights`)
    that are fetched before the start."""

    multimodal: ClassVar[bool] = False
    """Whether images and other non-text parts of a message may be sent to it."""

    sends_keys: ClassVar[bool] = False
    """Whether its setting ``service`` names whose keys (``API_KEYS``) it sends."""

    answers_whole: bool = False
    """Whether `answer` asks for whole answers, which give no sign of life while they are made. The
    gateway then bounds their time by the LLM's earlier answers, else by the pauses between chunks.
    An engine may set it for itself when it is built."""

    data_defaults: ClassVar[Mapping[str, Any]] = {}
    """Settings of data runs (``waypost data run``) where the file gives no other."""

    @classmethod
    def provider(cls, config: Any) -> str:
        """Return a name of who runs its LLM: LLMs of one provider may see each other's reasoning.

        By default each model of a local engine has its own.

        Args:
            config: The engine's settings, an instance of `config_class`.
        """
        return f"{cls.name} {getattr(config, 'model', '')}".strip()

    @classmethod
    def ignored(cls, config: Any, request: GenerateRequest) -> tuple[str, ...]:
        """Return the names of the request's fields that the engine leaves out, sorted.

        The client is told of them (``x-waypost-ignored``). By default an engine that is not
        `multimodal` leaves out all of ``extra``, any other nothing.

        Args:
            config: The engine's settings, an instance of `config_class`.
            request: A request that the engine answers.
        """
        return () if cls.multimodal else tuple(sorted(request.extra))

    @abstractmethod
    def __init__(self, config: Any) -> None:
        """Keep the settings; load and open nothing."""

    @abstractmethod
    async def start(self) -> None:
        """Load weights or open connections.

        Raises:
            WaypostError: where the model cannot be obtained; the message says what to do.
        """

    @abstractmethod
    def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Answer one request as a stream of chunks (see the module's contract).

        Raises:
            EngineError: at the first or any later chunk.
        """

    async def answer(self, request: GenerateRequest) -> Answer:
        """Answer one request as a whole; by default its chunks joined.

        Cancelling the call ends the generation.

        Raises:
            EngineError: as `generate` does.
        """
        return await collect(self, request)

    async def abort(self, request_id: str) -> None:
        """Stop the generation of that request, if it runs here; unknown ids are ignored."""
        return

    async def healthy(self) -> bool:
        """Say whether the engine can take requests now. Cheap: no generation."""
        return True

    async def close(self) -> None:
        """Free what `start` took. Running requests end with an EngineConnectionError."""
        return


async def collect(engine: Engine, request: GenerateRequest) -> Answer:
    """Run one request to its end and join its chunks.

    Raises:
        EngineError: as the engine does.
    """
    return joined([chunk async for chunk in engine.generate(request)])
