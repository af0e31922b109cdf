"""URIs as inputs and outputs: what is copied, when, and what a reader and a message can see."""

from __future__ import annotations

import logging
import math
import tempfile
import uuid
from pathlib import Path

import fsspec
import pyarrow.fs
import pytest

from waypost.contracts.errors import (
    ConfigError,
    Fault,
    StorageAccessError,
    StorageError,
    StorageMissingError,
    StorageSchemeError,
)
from waypost.secrets import redact
from waypost.storage import Uri, folders, is_uri, local_copy, mirrored, place
from waypost.storage import uri as filesystem


@pytest.fixture
def uri() -> str:
    """A folder of its own in the memory of this process."""
    return f"memory://{uuid.uuid4().hex}/runs/knn"


def files_at(uri: str) -> dict[str, bytes]:
    store, path = fsspec.core.url_to_fs(uri)
    found = store.find(path) if store.exists(path) else []
    return {name.removeprefix(path).lstrip("/"): store.cat_file(name) for name in found}


def put(uri: str, **files: bytes) -> None:
    store, path = fsspec.core.url_to_fs(uri)
    store.makedirs(path, exist_ok=True)
    for name, data in files.items():
        store.pipe_file(f"{path}/{name}", data)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("s3://bucket/a", True),
        ("gs://bucket", True),
        ("memory://a", True),
        ("file:///a", True),
        ("/a/b", False),
        ("C:/a", False),
        ("c://a", False),
        ("knnrouter:k=40,encoder=onnx", False),
        ("simple", False),
    ],
)
def test_a_uri_has_a_scheme_of_more_than_a_letter(text: str, says: bool) -> None:
    assert is_uri(text) is says


def test_a_path_and_a_file_uri_are_themselves(tmp_path: Path) -> None:
    spaced = tmp_path / "a b"
    for text in (str(spaced), f"file://{tmp_path}/a%20b", f"file://localhost{tmp_path}/a%20b"):
        with local_copy(text) as read, mirrored(text) as written:
            assert read == written == spaced
    assert not spaced.exists()


def test_a_file_uri_of_another_machine_is_refused() -> None:
    with pytest.raises(StorageSchemeError, match=r"file://runs/x: .*three slashes"):
        place("file://runs/x")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://AKIAXXXXXXXX:pa%2Fss@bucket/a/b/?region=x&session_token=tok", "s3://bucket/a/b"),
        ("sftp://alice:pw@host:22/a", "sftp://alice@host:22/a"),
        ("abfs://container@account/a", "abfs://container@account/a"),
        ("https://token@host/a?sig=abc", "https://host/a"),
    ],
)
def test_a_uri_shows_no_credentials(text: str, shown: str) -> None:
    uri = Uri(text)
    assert (str(uri), repr(uri), uri.reveal()) == (shown, f"Uri({shown!r})", text)


def test_credentials_of_a_uri_are_taken_out_of_other_texts() -> None:
    Uri("s3://AKIAOFTHISTEST:very%2Fsecret-value@bucket/a?region=eu-central-1")
    said = "AKIAOFTHISTEST used very/secret-value (very%2Fsecret-value) in eu-central-1"
    assert redact(said) == "[secret] used [secret] ([secret]) in eu-central-1"


def test_a_folder_is_read_whole_and_its_copy_removed(uri: str) -> None:
    put(uri, **{"llms.json": b"{}", "deep/er/part.bin": bytes(3_000_000)})
    with local_copy(uri) as folder:
        assert folder.name == "knn"
        found = {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*.*")}
        assert found == {"llms.json": 2, "deep/er/part.bin": 3_000_000}
    assert not folder.parent.exists()


def test_one_file_is_read_as_a_file(uri: str) -> None:
    put(uri, **{"queries.jsonl": b"abc"})
    with local_copy(f"{uri}/queries.jsonl") as file:
        assert (file.name, file.read_bytes()) == ("queries.jsonl", b"abc")


def test_an_input_that_is_not_there_is_said(uri: str) -> None:
    with pytest.raises(StorageMissingError, match=f"{uri}: nothing is there"), local_copy(uri):
        pass


def test_a_file_named_outside_of_the_folder_is_refused(uri: str, monkeypatch) -> None:
    put(uri, good=b"1")

    class Named:
        is_file, size, path = True, 1, ""

    store, path = filesystem.open_store(Uri(uri))
    Named.path = f"{path}/../../escaped"

    class Store:
        def get_file_info(self, asked):
            return store.get_file_info(asked) if isinstance(asked, str) else [Named()]

    monkeypatch.setattr("waypost.storage.folders.open_store", lambda _: (Store(), path))
    with pytest.raises(StorageError, match="outside of the folder"), local_copy(uri):
        pass


def test_an_output_appears_and_another_run_finds_it(uri: str) -> None:
    with mirrored(uri) as folder:
        assert list(folder.iterdir()) == []
        (folder / "sub").mkdir()
        (folder / "sub" / "a.parquet").write_bytes(b"one")
        (folder / "b").write_bytes(b"two")
    assert files_at(uri) == {"sub/a.parquet": b"one", "b": b"two"}
    assert not folder.parent.exists()
    with mirrored(uri) as folder:
        assert (folder / "sub" / "a.parquet").read_bytes() == b"one"
        (folder / "sub" / "a.parquet").write_bytes(b"three")
        (folder / "b").unlink()
    assert files_at(uri) == {"sub/a.parquet": b"three"}


def test_a_folder_replaced_in_one_step_is_replaced_there(uri: str) -> None:
    put(uri, old=b"1")
    with mirrored(uri) as folder:
        new = folder.parent / "new"
        new.mkdir()
        (new / "manifest.json").write_bytes(b"2")
        folder.rename(folder.parent / "gone")
        new.rename(folder)
    assert files_at(uri) == {"manifest.json": b"2"}


def test_what_was_written_is_there_after_a_failure(uri: str) -> None:
    def run() -> None:
        with mirrored(uri) as folder:
            (folder / "cells").write_bytes(b"paid for")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert files_at(uri) == {"cells": b"paid for"}


def test_an_error_names_the_uri_and_not_the_copy(uri: str) -> None:
    put(uri, a=b"1")
    with pytest.raises(ConfigError) as caught, local_copy(uri) as folder:
        raise ConfigError([Fault(str(folder / "a"), "is wrong"), Fault("b", f"not {folder}")])
    assert str(caught.value) == f"{uri}/a: is wrong\nb: not {uri}"
    assert caught.value.faults[0] == Fault(f"{uri}/a", "is wrong")


def started(uri: str, folder: Path) -> folders.Mirror:
    made = folders.Mirror(Uri(uri), folder)
    made.begin()
    return made


def age(file: Path, seconds: float) -> None:
    import os

    then = file.stat().st_mtime - seconds
    os.utime(file, (then, then))


def test_only_what_changed_is_copied_and_nothing_half_written(uri: str, tmp_path: Path) -> None:
    put(uri, old=b"0")
    kept = started(uri, tmp_path / "out")
    (kept.folder / "done").write_bytes(b"1")
    age(kept.folder / "done", 60)
    (kept.folder / "being-written").write_bytes(b"2")
    assert kept.push() == 1
    assert files_at(uri) == {"old": b"0", "done": b"1"}
    assert kept.push() == 0
    assert kept.push(whole=True) == 1
    assert files_at(uri) == {"old": b"0", "done": b"1", "being-written": b"2"}


def test_a_file_that_changes_while_it_is_copied_is_not_shown(
    uri: str, tmp_path: Path, monkeypatch
) -> None:
    kept = started(uri, tmp_path / "out")
    file = kept.folder / "a.parquet"
    file.write_bytes(b"whole")
    kept.push(whole=True)
    file.write_bytes(b"first half")
    copy = folders.shutil.copyfileobj

    def slow(source, stream, size):
        copy(source, stream, size)
        with file.open("ab") as more:
            more.write(b", second half")

    monkeypatch.setattr(folders.shutil, "copyfileobj", slow)
    assert kept.push(whole=True) == 0
    assert files_at(uri) == {"a.parquet": b"whole"}
    monkeypatch.setattr(folders.shutil, "copyfileobj", copy)
    assert kept.push(whole=True) == 1
    assert files_at(uri) == {"a.parquet": b"first half, second half"}


def test_what_was_written_last_appears_last(uri: str, tmp_path: Path, monkeypatch) -> None:
    kept = started(uri, tmp_path / "out")
    for seconds, name in ((1, "manifest.json"), (3, "weights"), (2, "training")):
        (kept.folder / name).write_bytes(b"x")
        age(kept.folder / name, seconds)
    order: list[str] = []
    upload = folders.Mirror._upload
    monkeypatch.setattr(
        folders.Mirror, "_upload", lambda self, name: order.append(name) or upload(self, name)
    )
    kept.push(whole=True)
    assert order[-1] == "manifest.json"
    assert len(order) == 3


def test_a_long_run_is_copied_while_it_goes_on(uri: str) -> None:
    import time

    with mirrored(uri, every_s=0.05) as folder:
        (folder / "cells").write_bytes(b"early")
        age(folder / "cells", 60)
        deadline = time.monotonic() + 60
        while not files_at(uri) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert files_at(uri) == {"cells": b"early"}


def test_a_name_is_no_pattern(uri: str) -> None:
    with mirrored(uri) as folder:
        (folder / "a*").write_bytes(b"1")
        (folder / "[ab]?").write_bytes(b"2")
        (folder / "ab").write_bytes(b"3")
    assert files_at(uri) == {"a*": b"1", "[ab]?": b"2", "ab": b"3"}
    with mirrored(uri) as folder:
        (folder / "a*").unlink()
    assert files_at(uri) == {"[ab]?": b"2", "ab": b"3"}


def test_leftovers_of_a_killed_upload_are_no_content(uri: str) -> None:
    put(uri, **{"a.waypost-part": b"half", "a": b"whole"})
    with local_copy(uri) as folder:
        assert [path.name for path in folder.iterdir()] == ["a"]


def test_where_the_last_copy_fails_the_files_are_kept(
    uri: str, monkeypatch, caplog, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def refuse(self, name):
        raise StorageAccessError(f"{self.uri}: no")

    def run(what) -> None:
        with mirrored(uri, every_s=math.inf) as folder:
            (folder / "a").write_bytes(b"1")
            what()

    monkeypatch.setattr(folders.time, "sleep", lambda s: None)
    monkeypatch.setattr(folders.Mirror, "_upload", refuse)
    with pytest.raises(StorageAccessError, match="the files are kept in") as caught:
        run(dict)
    kept = Path(str(caught.value).rpartition("kept in ")[2])
    assert (kept / "a").read_bytes() == b"1"
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 // 0)
    assert "the files are kept in" in caplog.text


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("foo://key:secret-of-mine@x/y", StorageSchemeError, "foo://x/y: unknown kind of store"),
        ("oci://key:secret-of-mine@x/y", StorageSchemeError, "oci://x/y: .*[Ii]nstall"),
    ],
)
def test_an_unknown_scheme_is_said_before_anything_runs(text, kind, says) -> None:
    for opened in (local_copy, mirrored):
        with pytest.raises(kind, match=says) as caught, opened(text):
            pytest.fail("it began")
        assert "secret-of-mine" not in str(caught.value)


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (OSError("AWS Error NO_SUCH_BUCKET during HeadObject operation"), StorageMissingError),
        (FileNotFoundError(2, "gone"), StorageMissingError),
        (OSError("AWS Error ACCESS_DENIED during PutObject operation"), StorageAccessError),
        (PermissionError(13, "no"), StorageAccessError),
        (OSError("the cable is cut"), StorageError),
    ],
)
def test_what_a_store_raises_becomes_one_of_ours(raised: Exception, kind: type) -> None:
    uri = Uri("s3://k1:p1@bucket/a?x=y2")
    raised.args = (*raised.args[:-1], f"{raised.args[-1]} (s3://k1:p1@bucket/a?x=y2, k1:p1)")
    with pytest.raises(StorageError) as caught, filesystem.store_errors(uri):
        raise raised
    assert type(caught.value) is kind
    assert str(caught.value).startswith("s3://bucket/a: ")
    assert "p1" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_an_output_that_cannot_be_written_is_said_before_the_block(monkeypatch, uri: str) -> None:
    store, path = filesystem.open_store(Uri(uri))

    class ReadOnly(pyarrow.fs.FSSpecHandler):
        def open_output_stream(self, path, metadata):
            raise PermissionError(13, "read-only")

    opened = pyarrow.fs.PyFileSystem(ReadOnly(store.handler.fs))
    monkeypatch.setattr(folders, "open_store", lambda _: (opened, path))
    with pytest.raises(StorageAccessError, match="read-only"), mirrored(uri):
        pytest.fail("it began")


def test_the_log_names_no_credentials(caplog) -> None:
    name = uuid.uuid4().hex
    with (
        caplog.at_level(logging.DEBUG, "waypost"),
        mirrored(f"memory://me:hidden-value@{name}/a") as folder,
    ):
        (folder / "a").write_bytes(b"1")
    assert f"copied 1 files to memory://{name}/a" in caplog.text
    assert "hidden-value" not in caplog.text
