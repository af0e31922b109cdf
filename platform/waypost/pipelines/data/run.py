"""What a whole data run does before and after its third phase."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from waypost.pipelines.data import llm_embeddings, questions, responses
from waypost.pipelines.data.config import held, load_data_config, run_folder
from waypost.pipelines.data.llmrouter.exporting import export_llmrouter


@contextmanager
def whole_run(config_path: str | Path, overrides: Sequence[str] = ()) -> Iterator[None]:
    """Keep the folder from the first phase to the last, after a look at what the third needs.

    Raises:
        ConfigError: with every fault.
        FolderInUseError: another process works in it.
        StorageError: the store cannot be read or written.
    """
    path = Path(config_path)
    config = load_data_config(path, overrides)
    responses.check_candidates(config, str(path))
    with held(path, config):
        yield


def prepare(
    config_path: str | Path,
    overrides: Sequence[str] = (),
    progress: questions.Progress | None = None,
) -> None:
    """Run the first two phases.

    Args:
        config_path: YAML of a `DataConfig`.
        overrides: ``key=value`` settings on top of it.
        progress: Told how far the questions are.

    Raises:
        WaypostError: as the phases raise.
    """
    questions.run(config_path, overrides, progress)
    llm_embeddings.run(config_path, overrides)


def export(config_path: str | Path, overrides: Sequence[str], target: Path) -> None:
    """Write LLMRouter's files of a run's routing data.

    Raises:
        WaypostError: see `export_llmrouter`.
    """
    config = load_data_config(Path(config_path), overrides)
    with run_folder(Path(config_path), config) as folder:
        export_llmrouter(folder, target)
