"""Make a router_r1 artifact from the folder of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from waypost.contracts.errors import ConfigError, Fault, names
from waypost.storage import Place
from waypost_rl.importing import Imported, Trained, import_checkpoint, pool_names
from waypost_rl.run_file import POLICY, TrainedRun, read_run_file


def export_run(
    run_folder: Path,
    pool_file: Path,
    out: str | Place,
    *,
    policy: str | None = None,
    candidates: Mapping[str, str] | None = None,
    fallback: str | None = None,
    data_folder: str | Place | None = None,
    overrides: Sequence[str] = (),
    copy: bool = False,
) -> Imported:
    """Write a router_r1 artifact of a run for the LLMs of a Serve file.

    Prompt, descriptions, chat template and rules are those of the training.

    Args:
        run_folder: Folder of the run.
        pool_file: See `import_checkpoint`.
        out: See `import_checkpoint`.
        policy: See `import_checkpoint`; None is the entry that serves the policy of the run, or
            its copy.
        candidates: Name in training -> entry of the pool. The others have the entry of their name,
            or of the name that they had in the pool of the training.
        fallback: See `import_checkpoint`.
        data_folder: See `import_checkpoint`.
        overrides: See `import_checkpoint`.
        copy: See `import_checkpoint`.

    Raises:
        ConfigError: The folder holds no finished run, or names or parameters are wrong.
        SchemaError, WeightsError, MissingExtraError, ArtifactError, StorageError: See
            `import_checkpoint`.
    """
    run = read_run_file(run_folder)
    pool = pool_names(pool_file)
    known = {name: entry for name, entry in run.pool_names.items() if entry in pool}
    mapped = _entries(run, candidates or {}, {name: name for name in pool} | known, str(pool_file))
    return import_checkpoint(
        str(run_folder / POLICY),
        pool_file,
        out,
        policy=policy,
        candidates=mapped,
        prompt=run.prompt,
        fallback=fallback,
        data_folder=data_folder,
        overrides=overrides,
        copy=copy,
        trained=_trained(run),
    )


def _entries(
    run: TrainedRun, given: Mapping[str, str], known: Mapping[str, str], where: str
) -> dict[str, str]:
    """Return the entry of each candidate, in the order of the prompt.

    Args:
        run: The run.
        given: Entries that the user names.
        known: Entries of candidates that are not named.
        where: The pool's file, for messages.

    Raises:
        ConfigError: With a fault for each name of ``given`` that is no candidate, and for each
            candidate without an entry.
    """
    there = names(list(run.candidates))
    faults = [
        Fault(f"--candidate {name}", f"the run has no such candidate; it has {there}")
        for name in given
        if name not in run.candidates
    ]
    faults += [
        Fault(
            f"{where}: pool",
            f"has no LLM {name}, which the run trained with; name its entry with "
            f'--candidate "{name}=ENTRY"',
        )
        for name in run.candidates
        if name not in given and name not in known
    ]
    if faults:
        raise ConfigError(faults)
    return {name: given.get(name) or known[name] for name in run.candidates}


def _trained(run: TrainedRun) -> Trained:
    parameters = run.model_dump(
        include={"budget", "corrective", "max_turns", "policy_tokens", "information_tokens"}
    )
    parameters["descriptions"] = dict(run.candidates)
    if run.frame is not None:
        parameters |= {"frame": list(run.frame), "reserved": list(run.reserved)}
    scale = None if run.cost_scale is None else run.cost_scale.model_dump()
    return Trained(parameters, {"base": run.base, "cost_scale": scale})
