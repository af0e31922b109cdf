import json

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from safetensors.numpy import load_file

from waypost.cli import command
from waypost.contracts.errors import ConfigError
from waypost.contracts.records import LLMInfo
from waypost.contracts.tables import read_llms, write_llms
from waypost.encoders import make_encoder
from waypost.pipelines.data.embeddings import text_digest
from waypost.pipelines.data.llm_embeddings import llm_text, run
from waypost.testing.synthetic import ENCODER_ID
from waypost.testing.tiny_model import write_tiny_encoder

SMALL = {
    "engine": "echo",
    "size": "135M",
    "feature": "Tiny, fast, knows little",
    "input_price": 0.02,
    "output_price": 0.5,
    "context_length": 8192,
}
SMALL_TEXT = (
    "small. Tiny, fast, knows little. Size: 135M parameters. Price: 0.02 USD per million prompt "
    "tokens. Price: 0.5 USD per million generated tokens. Context: 8192 tokens."
)


def write_config(folder, encoder=ENCODER_ID, **llms):
    config = {"out": "data", "encoder": encoder, "llms": llms}
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_text_has_a_sentence_for_each_known_fact():
    facts = {key: value for key, value in SMALL.items() if key != "engine"}
    assert llm_text(LLMInfo(name="small", **facts)) == SMALL_TEXT
    assert llm_text(LLMInfo(name="bare")) == "bare."
    free = LLMInfo(name="free", feature="Local.", input_price=0)
    assert llm_text(free) == "free. Local. Price: 0 USD per million prompt tokens."


def test_json_and_safetensors_hold_the_encoders_vectors_in_the_order_of_the_config(tmp_path):
    found = run(write_config(tmp_path, small=SMALL, bare={"engine": "echo"}))
    texts = {"small": SMALL_TEXT, "bare": "bare."}
    assert found["llms"] == texts
    expected = make_encoder(ENCODER_ID).encode(list(texts.values()))
    data = json.loads((tmp_path / "data/llm_embeddings.json").read_text())
    assert data["encoder"] == ENCODER_ID
    assert {name: one["text"] for name, one in data["llms"].items()} == texts
    vectors = [one["embedding"] for one in data["llms"].values()]
    np.testing.assert_array_equal(np.array(vectors, np.float32), expected)
    arrays = load_file(tmp_path / f"data/llm_embeddings-{ENCODER_ID}.safetensors")
    np.testing.assert_array_equal(arrays["embeddings"], expected)
    assert [row.tobytes() for row in arrays["texts"]] == [text_digest(t) for t in texts.values()]
    small, bare = read_llms(tmp_path / "data/llms.json")
    assert (small.name, small.context_length, small.output_price) == ("small", 8192, 0.5)
    assert bare.input_price is None


def test_the_same_run_writes_the_same_bytes_and_leaves_no_other_file(tmp_path):
    config = write_config(tmp_path, small=SMALL, bare={"engine": "echo"})
    run(config)
    first = contents(tmp_path / "data")
    run(config)
    assert contents(tmp_path / "data") == first
    assert set(first) == {
        "llms.json",
        "llm_embeddings.json",
        f"llm_embeddings-{ENCODER_ID}.safetensors",
    }


def test_llms_that_the_run_no_longer_asks_keep_their_facts(tmp_path):
    (tmp_path / "data").mkdir()
    before = [LLMInfo(name="gone", size="7B"), LLMInfo(name="small", size="1B")]
    write_llms(tmp_path / "data/llms.json", before)
    run(write_config(tmp_path, small=SMALL))
    found = {llm.name: llm.size for llm in read_llms(tmp_path / "data/llms.json")}
    assert found == {"small": "135M", "gone": "7B"}
    data = json.loads((tmp_path / "data/llm_embeddings.json").read_text())
    assert list(data["llms"]) == ["small"]


@pytest.mark.engine  # torch and transformers take seconds to load
def test_a_sentence_encoder_tells_the_llms_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("WAYPOST_ROOT", str(tmp_path))
    write_tiny_encoder(tmp_path / "weights/tiny")
    encoder = {"kind": "torch", "model": "weights/tiny", "structure": False}
    found = run(write_config(tmp_path, encoder, small=SMALL, bare={"engine": "echo"}))
    assert found["dimension"] == 64
    arrays = load_file(tmp_path / f"data/llm_embeddings-{found['encoder']}.safetensors")
    one, other = arrays["embeddings"]
    assert one @ one == pytest.approx(1, abs=1e-5)
    assert one @ other < 0.999


def test_an_unknown_encoder_is_a_fault_of_the_config(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.yaml: encoder: no encoder 'words'"):
        run(write_config(tmp_path, "words", small=SMALL))
    assert not (tmp_path / "data").exists()


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(ConfigError, match=r"out: data: cannot be a folder: File exists"):
        run(write_config(tmp_path, small=SMALL))


def test_the_command_prints_texts_and_takes_settings(tmp_path):
    config = write_config(tmp_path, "static", small=SMALL)
    arguments = ["data", "llm-embeddings", "--config", str(config), f"encoder={ENCODER_ID}"]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0, done.output
    assert "Tiny, fast, knows little. Size: 135M" in " ".join(done.output.split())
    assert f"encoder {ENCODER_ID}, 64 numbers each" in done.output
    found = json.loads(CliRunner().invoke(command, [*arguments, "--json"]).output)
    assert found["llms"] == {"small": SMALL_TEXT}
    wrong = CliRunner().invoke(command, [*arguments, "sed=1"])
    assert wrong.exit_code == 2
    assert "sed: unknown key" in wrong.output
