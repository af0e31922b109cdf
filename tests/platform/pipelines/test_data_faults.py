"""A data run tells all that is wrong at once: one fault hides no other."""

from __future__ import annotations

from pathlib import Path

import yaml
from click.testing import CliRunner

from waypost.cli import command

REMOTE = {"engine": "openai", "config": {"base_url": "http://x/v1", "model": "m"}}


def said(folder: Path, **changes) -> str:
    data = {"out": "out", "questions": ["mine.jsonl"], "llms": {"a": REMOTE}} | changes
    (folder / "data.yaml").write_text(yaml.safe_dump(data))
    done = CliRunner().invoke(command, ["data", "run", "--config", str(folder / "data.yaml")])
    assert done.exit_code == 2
    return done.stderr


def test_a_wrong_key_hides_no_wrong_engine(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("x")
    told = said(tmp_path, metrik="exact", llms={"a": {"engine": "openia"}})
    assert "metrik: unknown key" in told
    assert "llms.a.engine: no engine is named 'openia' (did you mean 'openai'?)" in told


def test_a_missing_key_hides_no_empty_file(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("")
    keyed = {**REMOTE, "config": {**REMOTE["config"], "service": "nobody"}}
    told = said(tmp_path, llms={"a": keyed})
    assert "no key for the service 'nobody'" in told
    assert "questions.0" in told
    assert "mine.jsonl: holds no question" in told
