import json

import numpy as np
import pytest

from waypost.contracts.artifact import (
    MANIFEST,
    WEIGHTS,
    Manifest,
    read_artifact,
    read_manifest,
    write_artifact,
)
from waypost.contracts.errors import ArtifactDigestError, ArtifactFormatError
from waypost.contracts.records import LLMInfo

MADE = Manifest(
    router="knnrouter",
    version="",
    parameters={"k": None, "tau": 0.1},
    llms=(LLMInfo(name="b", input_price=0.1), LLMInfo(name="a")),
    state={"k_": 5},
    metrics={"quality": 0.5, "none": None},
)
ARRAYS = {"memory_": np.arange(6, dtype=np.float32).reshape(2, 3), "flag_": np.array([True])}


@pytest.fixture
def folder(tmp_path):
    write_artifact(tmp_path / "made", MADE, ARRAYS)
    return tmp_path / "made"


def edit(folder, change):
    path = folder / MANIFEST
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_it_reads_back_as_written(folder):
    manifest, arrays = read_artifact(folder)
    assert manifest.parameters == MADE.parameters
    assert manifest.llms == MADE.llms
    assert manifest.metrics == MADE.metrics
    assert list(manifest.files) == [WEIGHTS]
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], value)
        assert arrays[name].dtype == value.dtype


def test_nothing_else_is_left_beside_it(folder):
    assert [path.name for path in folder.parent.iterdir()] == ["made"]


def test_the_version_tells_parameters_apart_but_not_measurements(folder, tmp_path):
    same = write_artifact(tmp_path / "x", MADE.model_copy(update={"metrics": {}}), ARRAYS)
    other = write_artifact(tmp_path / "y", MADE.model_copy(update={"parameters": {"k": 7}}), ARRAYS)
    assert read_manifest(folder).version == same.version
    assert other.version != same.version


def test_an_artifact_is_replaced(folder):
    write_artifact(folder, MADE, {"memory_": np.zeros(3)})
    assert read_artifact(folder)[1]["memory_"].tolist() == [0, 0, 0]
    assert [path.name for path in folder.parent.iterdir()] == ["made"]


def test_a_folder_that_is_no_artifact_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(ArtifactFormatError, match="is not an artifact"):
        write_artifact(tmp_path / "mine", MADE, ARRAYS)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_a_failed_write_leaves_the_old_one(folder):
    def fail(_):
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        write_artifact(folder, MADE, ARRAYS, fail)
    assert read_artifact(folder)[0].router == "knnrouter"
    assert [path.name for path in folder.parent.iterdir()] == ["made"]


@pytest.mark.parametrize("place", [0, 8, -1])
def test_one_changed_byte(folder, place):
    path = folder / WEIGHTS
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ArtifactDigestError, match="was changed after training"):
        read_artifact(folder)


def test_a_missing_file(folder):
    (folder / WEIGHTS).unlink()
    with pytest.raises(ArtifactDigestError, match="missing; the manifest lists it"):
        read_artifact(folder)


def test_a_file_too_many(folder):
    (folder / "extra.py").write_text("pass")
    with pytest.raises(ArtifactDigestError, match=r"extra\.py: does not belong"):
        read_artifact(folder)


def test_a_changed_parameter(folder):
    edit(folder, lambda data: data["parameters"].update(tau=0.2))
    with pytest.raises(ArtifactDigestError, match=r"manifest\.json: was changed"):
        read_artifact(folder)


def test_a_reordered_pool_in_the_manifest(folder):
    edit(folder, lambda data: data["llms"].reverse())
    with pytest.raises(ArtifactDigestError, match="was changed"):
        read_artifact(folder)


def test_an_unknown_format(folder):
    edit(folder, lambda data: data.update(format="waypost-artifact/99"))
    with pytest.raises(ArtifactFormatError, match="'waypost-artifact/99'; this version reads"):
        read_artifact(folder)


def test_an_unknown_key(folder):
    edit(folder, lambda data: data.update(color="red"))
    with pytest.raises(ArtifactFormatError, match="color"):
        read_artifact(folder)


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_manifest_that_is_none(folder, text):
    (folder / MANIFEST).write_text(text)
    with pytest.raises(ArtifactFormatError):
        read_artifact(folder)


def test_no_artifact_at_all(tmp_path):
    with pytest.raises(ArtifactFormatError, match="waypost train"):
        read_artifact(tmp_path)


def test_a_manifest_cannot_name_files_outside(folder):
    (folder.parent / "outside").write_text("x")
    edit(folder, lambda data: data["files"].update({"../outside": "0" * 64}))
    with pytest.raises(ArtifactDigestError):
        read_artifact(folder)


def test_a_changed_metric(folder):
    edit(folder, lambda data: data["metrics"].update(quality=0.9))
    with pytest.raises(ArtifactDigestError, match=r"manifest\.json: was changed"):
        read_manifest(folder)


@pytest.mark.parametrize("bit", [1, 0x20, 0x80])
def test_any_changed_byte_of_the_manifest(folder, bit):
    path = folder / MANIFEST
    sound = path.read_bytes()
    for place in range(0, len(sound), 7):
        changed = bytearray(sound)
        changed[place] ^= bit
        path.write_bytes(bytes(changed))
        with pytest.raises((ArtifactDigestError, ArtifactFormatError)):
            read_manifest(folder)


@pytest.mark.parametrize("number", ["NaN", "1e999"])
def test_a_manifest_with_a_number_that_is_none(folder, number):
    path = folder / MANIFEST
    path.write_text(path.read_text().replace('"none": null', f'"none": {number}'))
    with pytest.raises(ArtifactDigestError, match="was changed"):
        read_manifest(folder)


def test_a_manifest_from_before_there_was_a_digest(folder):
    edit(folder, lambda data: data.pop("digest"))
    assert read_manifest(folder).digest == ""
