"""Train with several processes: Ray Train starts them, accelerate joins them."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waypost.config import PATIENT_THREADS, set_default_environment
from waypost.contracts.errors import ClusterError
from waypost.ray_session import ray_session
from waypost_rl.training.config import RunConfig
from waypost_rl.training.logs import progress_line, read_metrics
from waypost_rl.training.loop import RESULT, Result, train
from waypost_rl.training.setup import check_run
from waypost_rl.training.workers import Worker

logger = logging.getLogger(__name__)

_POLL_S = 1.0


def train_on_ray(config: RunConfig, command: str) -> Result:
    """Train with `RunConfig.workers` processes on the Ray of RAY_ADDRESS, or on a new one.

    All of them need the run's folder, on several machines a shared one, and the environment of
    training.

    Raises:
        ClusterError: A process failed; the message is its error. The same command continues.
    """
    of = config.workers
    check_run(Path(config.out), config)  # before Ray writes into the folder
    with ray_session(cpus=int(of.count * of.cpus + 2)):
        from ray.train import FailureConfig, ScalingConfig
        from ray.train import RunConfig as TrainRunConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        trainer = TorchTrainer(
            _work,
            train_loop_config={"config": config.model_dump(mode="json"), "command": command},
            scaling_config=ScalingConfig(
                num_workers=of.count,
                use_gpu=of.gpus > 0,
                resources_per_worker={"CPU": of.cpus, **({"GPU": of.gpus} if of.gpus else {})},
            ),
            torch_config=TorchConfig(backend="nccl" if of.gpus > 0 else "gloo"),
            run_config=TrainRunConfig(
                name="workers",
                storage_path=str(Path(config.out) / "ray"),
                failure_config=FailureConfig(max_failures=0),
            ),
        )
        try:
            with _progress(Path(config.out), config.steps):
                trainer.fit()
        except Exception as error:  # Ray wraps a worker's error in several of its own
            raise ClusterError(f"training on Ray failed: {_reason(error)}") from error
    found = json.loads((Path(config.out) / RESULT).read_text(encoding="utf-8"))
    return Result(**found)


@contextmanager
def _progress(run: Path, steps: int) -> Iterator[None]:
    """Log the progress lines of new steps during the block; workers' logs stay with Ray."""
    over = threading.Event()
    told = max((one["step"] for one in read_metrics(run)), default=0)

    def follow() -> None:
        nonlocal told
        while True:
            done = over.wait(_POLL_S)
            for numbers in read_metrics(run):
                if numbers["step"] > told:
                    told = numbers["step"]
                    logger.info("%s", progress_line(told, steps, numbers, numbers["step_s"]))
            if done:
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _work(given: dict[str, Any]) -> None:
    """Run one worker's part of a training."""
    import ray.train

    set_default_environment(PATIENT_THREADS)
    context = ray.train.get_context()
    worker = Worker(context.get_world_rank(), context.get_world_size())
    train(RunConfig.model_validate(given["config"]), given["command"], worker)


def _reason(error: BaseException) -> str:
    inner = error
    while inner.__cause__ is not None:
        inner = inner.__cause__
    lines = [line for line in str(inner).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(inner).__name__
