"""Export a routing-data folder as LLMRouter's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from waypost.contracts.atomic import new_folder
from waypost.contracts.choices import with_choices
from waypost.contracts.routing_data import read_routing_data
from waypost.contracts.tables import SPLITS, read_routing_table, split_path
from waypost.encoders import make_encoder
from waypost.pipelines.data.embedding_cache import query_embeddings
from waypost.pipelines.data.embeddings import Progress
from waypost.pipelines.data.llmrouter.formats import line_of, stored_vectors, write_pt

LLM_FILE = "llm_candidates/default_llm.json"
VECTOR_FILE = "routing_data/query_embeddings.pt"


def export_llmrouter(
    source: str | Path,
    target: str | Path,
    encoder: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write LLMRouter's files from a routing-data folder, and a ``config.yaml`` that names them.

    Rows without a score are left out, as LLMRouter requires one. Lines also get ``query_id``,
    ``cost_usd``, ``scorer_version`` and ``error``, so that `import_llmrouter` restores the data.

    Args:
        source: Routing data.
        target: Written atomically; must not exist.
        encoder: Kind or id of the encoder of the query embeddings; None takes stored embeddings
            of all queries, if the folder has them.
        progress: Called with (done, total) embedded texts.

    Returns:
        JSON-able: ``splits`` (name -> rows, queries, rows left out), ``llms``, ``embeddings``
        (origin of the vectors; null without any).

    Raises:
        SchemaError: The source is not routing data.
        ConfigError: The target exists.
        RegistryError, WeightsError: The encoder is unknown, or its weights are not available.
    """
    source, target = Path(source), Path(target)
    found = [split for split in SPLITS if split == "train" or split_path(source, split).is_file()]
    data = {split: read_routing_data(source, split) for split in found}  # checks every split
    tables = {split: read_routing_table(split_path(source, split)) for split in found}
    measured = {split: _measured(table) for split, table in tables.items()}
    texts = list(dict.fromkeys(text for split in found for text in _texts(measured[split])))
    origin, vectors = None, None
    if encoder is not None:
        made = make_encoder(encoder)
        origin, vectors = made.id, query_embeddings(texts, made, source, progress)
    elif (known := stored_vectors(source, texts)) is not None:
        origin, vectors = known
    number = {text: i for i, text in enumerate(texts)}
    with new_folder(target) as folder:
        for part in ("query_data", "routing_data", "llm_candidates"):
            (folder / part).mkdir()
        for split, table in measured.items():
            rows = table.to_pylist()
            ids = [number[text] for text in _texts(table)]
            name = f"default_routing_{split}_data.jsonl"
            lines = (line_of(row, i) for row, i in zip(rows, ids, strict=True))
            _write(folder / "routing_data" / name, lines)
            first = {row["query_id"]: row for row in reversed(rows)}
            questions = (_question(row) for row in reversed(first.values()))
            _write(folder / "query_data" / f"default_query_{split}.jsonl", questions)
        (folder / LLM_FILE).write_text(
            (source / "llms.json").read_text(encoding="utf-8"), encoding="utf-8"
        )
        if vectors is not None:
            write_pt(folder / VECTOR_FILE, dict(enumerate(vectors)))
        config = _config(target.absolute(), found, vectors is not None)
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return {
        "splits": {
            split: {
                "rows": len(measured[split]),
                "queries": len(data[split]),
                "left_out": len(tables[split]) - len(measured[split]),
            }
            for split in found
        },
        "llms": len(data["train"].llms),
        "embeddings": origin,
    }


def _measured(table: pa.Table) -> pa.Table:
    return table.filter(pc.is_valid(table["performance"]))


def _texts(table: pa.Table) -> list[str]:
    """Return the routed text of each row, as `RoutingData` has it."""
    choices = table["choices"].to_pylist() if "choices" in table.column_names else None
    queries = table["query"].to_pylist()
    if choices is None:
        return [str(query) for query in queries]
    return [with_choices(query, one) for query, one in zip(queries, choices, strict=True)]


def _question(row: dict[str, Any]) -> str:
    line = json.loads(line_of(row, None))
    keys = ("task_name", "query", "ground_truth", "metric", "choices", "task_id")
    return json.dumps({key: line[key] for key in keys}, ensure_ascii=False)


def _write(path: Path, lines: Any) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def _config(target: Path, splits: list[str], has_vectors: bool) -> dict[str, Any]:
    # Absolute paths, as LLMRouter resolves relative ones from its installation folder.
    data_path = {}
    for split in splits:
        data_path[f"query_data_{split}"] = target / "query_data" / f"default_query_{split}.jsonl"
        name = f"default_routing_{split}_data.jsonl"
        data_path[f"routing_data_{split}"] = target / "routing_data" / name
    if has_vectors:
        data_path["query_embedding_data"] = target / VECTOR_FILE
    data_path["llm_data"] = target / LLM_FILE
    return {"data_path": {key: str(path) for key, path in data_path.items()}}
