"""The bench of the light start: files of both servers, sizes, aims; a start of ours."""

from __future__ import annotations

import pytest
import yaml

from waypost.bench import start
from waypost.bench._processes import upstream
from waypost.serve.local.config import read_local


def figures(seconds: float, memory: float, disk: float, other: float):
    spread = {"median": seconds, "least": seconds, "most": seconds}
    mb = {"median": memory, "least": memory, "most": memory}
    return {
        start.WAYPOST: {"first_s": spread, "memory_mb": mb, "disk_mb": disk},
        start.LITELLM: {"first_s": spread, "memory_mb": mb, "disk_mb": other},
    }


def test_aims_are_of_ours_and_its_size_is_beside_the_others() -> None:
    assert all(aim.reached for aim in start.aims(figures(2.0, 100.0, 300.0, 500.0)))
    assert not any(aim.reached for aim in start.aims(figures(4.0, 400.0, 400.0, 300.0)))
    (ours, _) = start.table(figures(2.0, 100.0, 300.0, 500.0)).rows
    assert (ours[0], ours[-1]) == ("waypost serve --local", "300")


def test_both_have_the_same_llms() -> None:
    args = read_local(start.config(start.WAYPOST, 8123, 4000)).args
    others = start.config(start.LITELLM, 8123, 4000)["model_list"]
    assert [e.name for e in args.pool] == [e["model_name"] for e in others] == list(start.MODELS)
    urls = {e.config["base_url"] for e in args.pool}
    assert urls == {e["litellm_params"]["api_base"] for e in others}


def test_compiled_files_and_links_take_no_room(tmp_path) -> None:
    (tmp_path / "one.py").write_bytes(b"x" * 1_000_000)
    (tmp_path / "one.pyc").write_bytes(b"x" * 1_000_000)
    (tmp_path / "link").symlink_to(tmp_path / "one.py")
    assert start.disk_mb(tmp_path) == pytest.approx(1.0)


@pytest.mark.e2e
def test_a_start_of_ours_is_timed(tmp_path) -> None:
    with upstream() as port:
        home = start.install(tmp_path / "venv")
        seconds, memory = start.started(start.WAYPOST, home, port, tmp_path, 3)
    assert 0 < seconds < start.WITHIN_S
    assert 30 < memory < start.MOST_MB
    assert start.disk_mb(home) < start.MOST_DISK_MB
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["applications"]
