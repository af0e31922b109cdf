"""Second phase of a data run: embed a description of each LLM.

The routing-data folder gets

    llms.json                               facts of the LLMs
    llm_embeddings.json                     encoder, and text and embedding of each LLM
    llm_embeddings-<encoder>.safetensors    the same vectors, in the format of the query embeddings
                                            (`pipelines.data.embeddings`), rows as in the JSON

Texts and vectors depend only on config and encoder, so equal runs write equal bytes. Each file is
replaced atomically, the JSON last.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from waypost.contracts.atomic import write_text
from waypost.contracts.errors import ConfigError, Fault, RegistryError
from waypost.contracts.records import LLMInfo
from waypost.contracts.tables import read_llms, write_llms
from waypost.encoders import make_encoder
from waypost.pipelines.data.config import DataConfig, load_data_config, run_folder
from waypost.pipelines.data.embeddings import first_rows, text_digests, write_embeddings
from waypost.storage.uri import Uri, is_uri


def llm_text(llm: LLMInfo) -> str:
    """Return the description of an LLM: its name, and a sentence for each known fact."""
    facts = [f"{llm.name}."]
    if feature := llm.feature.strip():
        facts.append(feature if feature.endswith((".", "!", "?")) else f"{feature}.")
    if llm.size is not None:
        facts.append(f"Size: {llm.size} parameters.")
    for what, price in (("prompt", llm.input_price), ("generated", llm.output_price)):
        if price is not None:
            facts.append(f"Price: {price:g} USD per million {what} tokens.")
    if llm.context_length is not None:
        facts.append(f"Context: {llm.context_length} tokens.")
    return " ".join(facts)


def run(config_path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Embed the LLMs of a data run and write them into its routing-data folder.

    Args:
        config_path: YAML of a `DataConfig`.
        overrides: ``key=value`` settings on top of it.

    Returns:
        ``folder``, ``encoder``, ``dimension`` and ``llms`` (name -> text).

    Raises:
        ConfigError: With all faults of the config, or the folder cannot be written.
        SchemaError: The folder has an invalid ``llms.json``.
        WeightsError: The encoder's weights are not available.
    """
    config_path = Path(config_path)
    config = load_data_config(config_path, overrides)
    try:
        encoder = make_encoder(config.encoder)
    except RegistryError as error:
        raise ConfigError([Fault(f"{config_path}: encoder", str(error))]) from None
    llms = [llm_config.info(name) for name, llm_config in config.llms.items()]
    texts = [llm_text(llm) for llm in llms]
    rows = encoder.encode(texts)
    data = {
        "encoder": encoder.id,
        "llms": {
            llm.name: {"text": text, "embedding": [float(f"{value:.9g}") for value in row]}
            for llm, text, row in zip(llms, texts, rows, strict=True)
        },
    }
    digests = text_digests(texts)
    distinct = first_rows(digests)
    with run_folder(config_path, config) as folder:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_embeddings(
                folder / f"llm_embeddings-{encoder.id}.safetensors",
                digests[distinct],
                [rows[distinct]],
                encoder,
            )
            text = json.dumps(data, ensure_ascii=False) + "\n"
            write_text(folder / "llm_embeddings.json", text)
            write_llms(folder / "llms.json", [*llms, *_others(folder / "llms.json", config)])
        except OSError as error:
            problem = f"cannot be written: {error.strerror}"
            raise ConfigError([Fault(str(folder), problem)]) from None
    return {
        "folder": str(Uri(config.out)) if is_uri(config.out) else str(folder),
        "encoder": encoder.id,
        "dimension": encoder.dimension,
        "llms": {llm.name: text for llm, text in zip(llms, texts, strict=True)},
    }


def _others(path: Path, config: DataConfig) -> list[LLMInfo]:
    """Return LLMs of ``llms.json`` that the config lacks; the tables may still have their rows."""
    known = read_llms(path) if path.is_file() else ()
    return [llm for llm in known if llm.name not in config.llms]
