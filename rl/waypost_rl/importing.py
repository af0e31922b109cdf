"""Make a router_r1 artifact from a checkpoint of a trained policy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from waypost.config import apply_overrides, read_yaml, resolve_path
from waypost.contracts.artifact import Manifest, check_target
from waypost.contracts.errors import (
    ConfigError,
    Fault,
    MissingExtraError,
    SchemaError,
    WeightsError,
    names,
)
from waypost.contracts.records import LLMInfo
from waypost.contracts.routing_data import RoutingData, read_routing_data
from waypost.contracts.tables import read_llms
from waypost.loading import save_router
from waypost.registry import make_trainable
from waypost.registry.rule_router import no_outcomes
from waypost.storage import Place, local_copy, mirrored
from waypost.weights import resolve
from waypost_rl.chat import Chat, chat_of
from waypost_rl.copying import copy_checkpoint
from waypost_rl.router import with_column
from waypost_rl.run_file import POLICY


@dataclass(frozen=True)
class Checkpoint:
    """A trained policy.

    Attributes:
        model: Folder or hub name, as given.
        architecture: Class of the model.
        config_sha256: Digest of its config.json.
        frame: Chat template: text before and after the message of the user.
        reserved: Special tokens, without the protocol's tags.
    """

    model: str
    architecture: str
    config_sha256: str
    frame: tuple[str, str]
    reserved: tuple[str, ...]


def read_checkpoint(model: str) -> Checkpoint:
    """Read config and tokenizer of a checkpoint; a hub name is downloaded if needed.

    Raises:
        WeightsError: There is no such checkpoint, or it is not a whole causal language model in
            safetensors with a tokenizer.
        MissingExtraError: transformers is not installed.
    """
    folder = resolve(model)
    text = (folder / "config.json").read_text(encoding="utf-8")
    try:
        found = json.loads(text).get("architectures") or [""]
    except (ValueError, AttributeError):
        raise WeightsError(f"{model}: config.json is not a JSON object") from None
    if not str(found[0]).endswith("ForCausalLM"):
        what = found[0] or "no architecture"
        raise WeightsError(
            f"{model}: config.json names {what}; expected a causal language model. Merge an "
            "adapter, or take the value head off, and save it again"
        )
    chat = _chat_of(folder, model)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Checkpoint(model, str(found[0]), digest, chat.frame, chat.reserved)


def _chat_of(folder: Path, model: str) -> Chat:
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise MissingExtraError("transformers", "serve") from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise WeightsError(
            f"{model}: its tokenizer cannot be used ({type(error).__name__}: {error})"
        ) from error
    return chat_of(tokenizer, model)


@dataclass(frozen=True)
class Trained:
    """How a policy was trained, where that is known.

    Attributes:
        parameters: Parameters of the router, which replace those of a checkpoint alone.
        facts: Further facts for the manifest.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Imported:
    """The result of an import.

    Attributes:
        manifest: Of the artifact.
        policy: Entry of the pool that is the policy.
        model: The policy's folder or hub name, which that entry has to serve.
        served_model: ``model`` of that entry's engine; None where its config has none.
    """

    manifest: Manifest
    policy: str
    model: str
    served_model: str | None


def import_checkpoint(
    model: str,
    pool_file: Path,
    out: str | Place,
    *,
    policy: str | None = None,
    candidates: Mapping[str, str] | None = None,
    prompt: str | None = None,
    fallback: str | None = None,
    data_folder: str | Place | None = None,
    overrides: Sequence[str] = (),
    copy: bool = False,
    trained: Trained = Trained(),
) -> Imported:
    """Write a router_r1 artifact for the LLMs of a Serve file.

    Args:
        model: Checkpoint of the policy: folder or hub name.
        pool_file: Serve file with the pool.
        out: The artifact, a path or URI; an existing artifact is replaced.
        policy: Entry of the pool that serves the checkpoint; None is the entry with that model.
        candidates: Name that the checkpoint was trained with -> entry of the pool. None is all
            other entries under their own names.
        prompt: Template that the checkpoint was trained with (see `fill_template`); None is
            Waypost's prompt.
        fallback: Entry that answers where the policy does not; None is the best single LLM of
            the data.
        data_folder: Routing data with facts and scores of the LLMs; None uses the names and
            prices of the pool file.
        overrides: ``key=value`` settings of the router's parameters; they take precedence.
        copy: Whether the artifact contains the checkpoint, as its folder ``policy``.
        trained: How the policy was trained.

    Raises:
        ConfigError: Pool file, names or parameters are wrong.
        SchemaError: Neither a fallback nor a score for each candidate is given.
        WeightsError, MissingExtraError: See `read_checkpoint`.
        ArtifactError, StorageError: The artifact cannot be written.
    """
    pool, models = _read_pool(pool_file)
    inside = f"{out}/{POLICY}"
    entry = _policy_entry([inside, model] if copy else [model], policy, models, str(pool_file))
    _check_names(pool, entry, candidates, fallback)
    checkpoint = read_checkpoint(model)
    parameters = {
        "policy_llm": entry,
        "delegates": dict(candidates) if candidates else None,
        "fallback_llm": fallback,
        "prompt": prompt,
        "frame": list(checkpoint.frame),
        "reserved": list(checkpoint.reserved),
        "budget": False,
        **trained.parameters,
    }
    router = make_trainable("router_r1", apply_overrides(parameters, overrides))
    with mirrored(out) as target:
        check_target(target)
        if data_folder is None:
            data = no_outcomes(pool)
        else:
            with local_copy(data_folder) as folder:
                data = _outcomes(folder, pool)
        router.fit(data)
        source = {
            "model": model,
            "architecture": checkpoint.architecture,
            "config_sha256": checkpoint.config_sha256,
            **trained.facts,
        }
        manifest = save_router(
            router,
            target,
            data,
            metrics={
                "training_queries": len(data),
                "llms": len(router.llms_),
                "learns": True,
                "checkpoint": source,
            },
            add_files=(lambda partial: copy_checkpoint(resolve(model), partial / POLICY))
            if copy
            else None,
        )
    return Imported(manifest, entry, inside if copy else model, models[entry])


def pool_names(path: Path) -> list[str]:
    """Return the names of the LLMs of a Serve file.

    Raises:
        ConfigError: It has no pool.
    """
    return [llm.name for llm in _read_pool(path)[0]]


def _check_names(
    pool: Sequence[LLMInfo],
    policy: str,
    candidates: Mapping[str, str] | None,
    fallback: str | None,
) -> None:
    others = [llm.name for llm in pool if llm.name != policy]
    named = {f"--candidate {key}": name for key, name in (candidates or {}).items()}
    if fallback is not None:
        named["--fallback"] = fallback
    if found := [
        Fault(where, f"{name} is not an LLM that can be asked; the pool has {names(others)}")
        for where, name in named.items()
        if name not in others
    ]:
        raise ConfigError(found)


def _read_pool(path: Path) -> tuple[list[LLMInfo], dict[str, str | None]]:
    """Return the LLMs of a Serve file, and the model of each entry's engine."""
    data = read_yaml(path)
    applications = data.get("applications")
    arguments = (
        [one.get("args") for one in applications if isinstance(one, Mapping)]
        if isinstance(applications, list)
        else [data]
    )
    pools = [one["pool"] for one in arguments if isinstance(one, Mapping) and one.get("pool")]
    entries = pools[0] if pools else None
    if not isinstance(entries, list) or not all(
        isinstance(one, Mapping) and isinstance(one.get("name"), str) for one in entries
    ):
        problem = "has no pool; expected a Serve file whose LLMs have names"
        raise ConfigError([Fault(str(path), problem)])
    llms, models = [], {}
    for one in entries:
        config = one.get("config")
        served = config.get("model") if isinstance(config, Mapping) else None
        models[one["name"]] = served if isinstance(served, str) else None
        prices = {key: one.get(key) for key in ("input_price", "output_price")}
        try:
            llms.append(LLMInfo(name=one["name"], model=models[one["name"]], **prices))
        except ValueError:
            where = f"{path}: pool: {one['name']}"
            raise ConfigError([Fault(where, "expected prices of at least 0")]) from None
    return llms, models


def _policy_entry(
    wanted: Sequence[str], policy: str | None, models: Mapping[str, str | None], where: str
) -> str:
    """Return the entry of the policy: the named one, or the only one that serves it."""
    if policy is None:
        found = [name for name, served in models.items() if is_same(served, wanted)]
        if len(found) == 1:
            return found[0]
        what = f"{names(found)} all serve" if found else "no entry serves"
        problem = f"{what} {wanted[0]}; name the policy's entry with --policy"
        raise ConfigError([Fault(f"{where}: pool", problem)])
    if policy not in models:
        problem = f"the pool has no LLM {policy}; it has {names(list(models))}"
        raise ConfigError([Fault("--policy", problem)])
    return policy


def is_same(served: str | None, wanted: Sequence[str]) -> bool:
    """Return whether a model is one of others, which may be spelled as other paths."""
    if served is None:
        return False
    return served in wanted or resolve_path(served) in map(resolve_path, wanted)


def _outcomes(folder: Path, pool: Sequence[LLMInfo]) -> RoutingData:
    """Return the training data of the pool's LLMs, with the pool's prices where it gives them."""
    facts = {llm.name: llm for llm in read_llms(folder / "llms.json")}
    data = read_routing_data(folder)
    measured = [llm.name for llm in pool if llm.name in data.names]
    if not measured:
        problem = f"has no score of an LLM of the pool; it has {names(data.names)}"
        raise SchemaError(f"{folder}: {problem}")
    data = data.select_llms(measured)
    for llm in pool:
        if llm.name not in measured:
            data = with_column(data, facts.get(llm.name, llm))
    priced = {llm.name: llm.model_dump(include={"input_price", "output_price"}) for llm in pool}
    llms = [
        llm.model_copy(update={k: v for k, v in priced[llm.name].items() if v is not None})
        for llm in data.llms
    ]
    return replace(data, llms=tuple(llms))
