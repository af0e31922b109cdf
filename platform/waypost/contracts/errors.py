"""Tree of all errors that Waypost raises on purpose.

    WaypostError
      ConfigError              a config file or option is wrong; holds every fault at once
      SchemaError              data does not have the agreed form (columns, shapes, ranges)
      PolicyError              no decision satisfies the request
        EmptyPoolError         no model is left to choose from
        BudgetError            no model fits the money allowed
      ArtifactError            a trained router cannot be loaded
        ArtifactFormatError    unknown format version, or a file is missing or unreadable
        ArtifactDigestError    a file is not what the manifest says
        EncoderMismatchError   the query encoder is not the one it was trained with
        PoolMismatchError      the models are not the ones it was trained on
      NotFittedError           also a ValueError and an AttributeError, as in scikit-learn
      RegistryError            no such router, engine, encoder or benchmark
        PluginError            one plug-in does not load, or breaks the router contract
      WeightsError             model weights cannot be obtained from any source
      StorageError             an input or output cannot be read or written
        StorageSchemeError     no installed library supports that kind of store
        StorageMissingError    no such file, folder or bucket
        StorageAccessError     the store refuses the credentials, or they lack a permission
      EngineError              an LLM call failed; `retryable` says whether another try may help
        EngineTimeoutError     no answer in time
        EngineConnectionError  the endpoint or process cannot be reached, or cut the answer off
        EngineOverloadedError  429, or a full queue; may carry `retry_after_s`
          EngineLoadingError   the LLM is still loading
        EngineServerError      5xx, or generation failed
        EngineRequestError     the request itself is refused (4xx): not retryable
          ContextLengthError   the prompt does not fit the model's context
          EngineAuthError      the key is refused: retryable, another model may answer
      GatewayError             a gateway in this process gave no answer; has HTTP's status
      NotStartedError          a gateway is asked before it was opened
      PipelineError            a data run cannot continue
        FolderInUseError       another process works in the folder
      JobError                 a job cannot be submitted to a cluster, or its status is unknown
        ClusterUnreachableError  no head of a cluster answers
        ClusterAuthError       the cluster refuses the token
      SandboxError             no process can be started to run generated code in
      MissingExtraError        an optional dependency is absent; holds the install command

A message says what failed, where, what was expected and what to do. No message ever
holds an API key or the text of a user's query.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class WaypostError(Exception):
    """Base of every error that Waypost raises on purpose."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong in a config.

    Attributes:
        where: File and key, for instance ``router.yaml: applications[0].args.pool``.
        problem: What is wrong and what was expected.
    """

    where: str
    problem: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


class ConfigError(WaypostError):
    """A config file, key or option is wrong.

    Attributes:
        faults: Every fault found, in the order of the file.
    """

    def __init__(self, faults: Iterable[Fault] | str) -> None:
        self.faults: tuple[Fault, ...] = (
            (Fault("config", faults),) if isinstance(faults, str) else tuple(faults)
        )
        super().__init__("\n".join(str(fault) for fault in self.faults))

    # Ray rebuilds an exception from `args` in the other process; this keeps the faults.
    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[Fault, ...]]]:
        return type(self), (self.faults,)


class SchemaError(WaypostError):
    """Data does not have the agreed form: columns, types, shapes or ranges."""


class PolicyError(WaypostError):
    """No decision satisfies the request."""


class EmptyPoolError(PolicyError):
    """No model is left to choose from: the pool is empty or no allowed model is in it."""


class BudgetError(PolicyError):
    """No model's predicted cost fits the money allowed."""


class ArtifactError(WaypostError):
    """A trained router cannot be written or loaded."""


class ArtifactFormatError(ArtifactError):
    """The artifact's format is unknown, or one of its files is missing or unreadable."""


class ArtifactDigestError(ArtifactError):
    """A file of the artifact is not the one its manifest describes."""


class EncoderMismatchError(ArtifactError):
    """The query encoder is not the one the router was trained with."""


class PoolMismatchError(ArtifactError):
    """The pool's models are not those the router was trained on, or in another order."""


class NotFittedError(WaypostError, ValueError, AttributeError):
    """A router is used before ``fit`` or before its state was loaded."""


class RegistryError(WaypostError):
    """No router, engine, encoder or benchmark of that name is known."""


class PluginError(RegistryError):
    """One plug-in does not load, or breaks the router contract. Other plug-ins still work."""


class WeightsError(WaypostError):
    """Model weights cannot be obtained from any source; the message lists what was tried."""


class StorageError(WaypostError):
    """A store cannot be read or written. The message names the URI without its credentials."""


class StorageSchemeError(StorageError):
    """No installed library supports that kind of store."""


class StorageMissingError(StorageError):
    """No such file, folder or bucket."""


class StorageAccessError(StorageError):
    """The store refuses the credentials, or they lack a permission."""


class EngineError(WaypostError):
    """An LLM call failed.

    Attributes:
        retryable: True where the same call, or the next model of the ranking, may succeed.
        status: The upstream's HTTP status, where there was one.
        retry_after_s: Seconds the upstream asked to wait, where it did.
    """

    retryable_by_default = True

    def __init__(
        self,
        message: str,
        *,
        retryable: bool | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.retryable = self.retryable_by_default if retryable is None else retryable
        self.status = status
        self.retry_after_s = retry_after_s

    def to_dict(self) -> dict[str, object]:
        """Return the plain form that crosses process borders; `engine_error` reads it back."""
        return {
            "type": type(self).__name__,
            "message": str(self),
            "retryable": self.retryable,
            "status": self.status,
            "retry_after_s": self.retry_after_s,
        }


class EngineTimeoutError(EngineError):
    """No answer, or no next token, in time."""


class EngineDeadlineError(EngineTimeoutError):
    """A whole answer took longer than the LLM's own times of earlier answers allow."""


class EngineConnectionError(EngineError):
    """The endpoint or process cannot be reached, or it cut the answer off."""


class EngineOverloadedError(EngineError):
    """The engine refuses more work for now (HTTP 429, full queue)."""


class EngineLoadingError(EngineOverloadedError):
    """The LLM is still loading; it takes requests afterwards."""


class EngineServerError(EngineError):
    """The engine failed (HTTP 5xx, a crash during generation)."""


class EmptyAnswerError(EngineServerError):
    """The LLM ended its answer without having said anything in any form."""


class EngineRequestError(EngineError):
    """The engine refuses this request (HTTP 4xx): the same call cannot succeed.

    Not retryable by default. For a model that the upstream does not have (404) the next LLM of
    the ranking may still answer.
    """

    retryable_by_default = False


REFUSED_REQUEST = frozenset({400, 413, 415, 422})
"""HTTP statuses by which an upstream refuses what was asked, not who asks or of whom."""


class ContextLengthError(EngineRequestError):
    """The prompt and the tokens asked for do not fit the model's context."""


class ContentFilterError(EngineRequestError):
    """A content filter of the provider refuses the prompt or the answer; another may not."""

    retryable_by_default = True


class EngineAuthError(EngineRequestError):
    """The engine refuses the key. The message names the service, never the key."""

    retryable_by_default = True


_ENGINE_ERRORS: dict[str, type[EngineError]] = {
    cls.__name__: cls
    for cls in (
        EngineError,
        EngineTimeoutError,
        EngineDeadlineError,
        EngineConnectionError,
        EngineOverloadedError,
        EngineLoadingError,
        EngineServerError,
        EngineRequestError,
        ContextLengthError,
        ContentFilterError,
        EmptyAnswerError,
        EngineAuthError,
    )
}


def engine_error(data: dict[str, object]) -> EngineError:
    """Rebuild an engine error from ``EngineError.to_dict``; an unknown type is EngineError."""
    cls = _ENGINE_ERRORS.get(str(data.get("type")), EngineError)
    status, wait = data.get("status"), data.get("retry_after_s")
    return cls(
        str(data.get("message", "the engine failed")),
        retryable=bool(data.get("retryable", cls.retryable_by_default)),
        status=status if isinstance(status, int) else None,
        retry_after_s=float(wait) if isinstance(wait, int | float) else None,
    )


class GatewayError(WaypostError):
    """A gateway in this process gave no answer.

    Attributes:
        status: The HTTP status that a client would get, 400 to 599.
        code: OpenAI's code of the error; None where it has none.
        param: The field that is wrong; None where none is.
    """

    def __init__(
        self, message: str, status: int, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


class NotStartedError(WaypostError, RuntimeError):
    """A gateway in this process is asked before it was opened, or after it was closed."""


class PipelineError(WaypostError):
    """A data run cannot continue. Finished work is kept, and the same command resumes it."""


class FolderInUseError(PipelineError):
    """Another process works in the folder; the message names process, host and start time."""


class ClusterError(WaypostError):
    """Ray does not start on this machine, or the cluster that was named does not answer."""


class JobError(WaypostError):
    """A job cannot be submitted to a cluster, or its final status is unknown."""


class ClusterUnreachableError(JobError):
    """No head of a Ray cluster answers at that address."""


class ClusterAuthError(JobError):
    """The cluster requires a token, or refuses the one given."""


class SandboxError(WaypostError):
    """No process can be started to run generated code; the code itself was not judged."""


class MissingExtraError(WaypostError):
    """An optional dependency is absent.

    Attributes:
        extra: The extra that holds it.
        command: The exact command that installs it.
    """

    def __init__(self, module: str, extra: str) -> None:
        self.module, self.extra = module, extra
        self.command = f'pip install "waypost[{extra}]"'
        super().__init__(f"{module} is not installed; it comes with: {self.command}")

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        return type(self), (self.module, self.extra)


def names(values: Sequence[str], limit: int = 12) -> str:
    """Join names for a message, cut after `limit` of them."""
    shown = ", ".join(values[:limit])
    return shown if len(values) <= limit else f"{shown} and {len(values) - limit} more"


def raised_at(error: BaseException) -> str:
    """Say what was raised and where, without its message, which may hold a user's text."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return type(error).__name__
    file = "/".join(frames[-1].filename.split("/")[-2:])
    return f"{type(error).__name__} at {file}, line {frames[-1].lineno}"
