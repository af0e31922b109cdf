"""The LLMs that an evaluation may call, from a Serve file or from the file of a data run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from waypost.config import parse, read_yaml
from waypost.contracts.errors import ConfigError
from waypost.contracts.records import LLM
from waypost.pipelines.data.config import DataConfig, LLMConfig, need_llms, with_library_prices
from waypost.pipelines.data.responses import check_llms, with_defaults


@dataclass(frozen=True)
class Sampling:
    """Sampling of calls for which the router says nothing else.

    Attributes:
        temperature: Of answers to the question itself; 0 is greedy.
        top_p: Probability mass of nucleus sampling.
        seed: Seed of a call without one.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class CallablePool:
    """LLMs that may be called.

    Attributes:
        where: The file, for messages.
        llms: The LLMs by name.
        sampling: Sampling of the calls.
        budget_usd: Maximum dollars for the calls of one run; None is no limit.
    """

    where: str
    llms: Mapping[str, LLMConfig]
    sampling: Sampling = Sampling()
    budget_usd: float | None = None


def read_callable_pool(path: str | Path) -> CallablePool:
    """Read the LLMs of a file.

    A file with ``llms`` is that of a data run, whose limits, budget and sampling apply. Any other
    is a Serve file or only the ``args`` of its application. The entries served under
    ``WAYPOST_POOL`` are taken, without a budget, with ``max_ongoing_requests`` calls at a time.

    Raises:
        ConfigError: With every fault of the file.
    """
    data, where = read_yaml(path), str(path)
    if "llms" not in data:
        return _of_serve_file(data, where)
    config = parse(DataConfig, data, where)
    need_llms(config, where)
    config = with_library_prices(config, where)
    check_llms(config, where)
    sampling = Sampling(config.temperature, config.top_p, config.seed)
    llms = {name: with_defaults(one) for name, one in config.llms.items()}
    return CallablePool(where, llms, sampling, config.budget_usd)


def _of_serve_file(data: Mapping[str, object], where: str) -> CallablePool:
    # Only a Serve file needs the models of serving.
    from waypost.serve.config import ServeArgs
    from waypost.serve.faults import engine_faults
    from waypost.serve.infer import application_args, check_environments
    from waypost.serve.plan import served_entries

    found, place = application_args(data, where)
    args = parse(ServeArgs, found, place)
    if faults := engine_faults([entry.model_dump() for entry in args.pool], place):
        raise ConfigError(faults)
    entries = served_entries(args)
    check_environments(entries, place)
    llms = {
        entry.name: LLMConfig(
            **entry.model_dump(include=set(LLM.model_fields)),
            concurrency=min(entry.max_ongoing_requests, 4096),
            gpus=entry.ray_actor_options.num_gpus,
        )
        for entry in entries
    }
    llms = with_library_prices(DataConfig(out=".", llms=llms), place).llms
    return CallablePool(where, {name: with_defaults(one) for name, one in llms.items()})
