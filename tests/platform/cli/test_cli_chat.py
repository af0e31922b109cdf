"""``waypost chat``: options, and the page on a port of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from support.gateway import arguments, knn_artifact
from waypost.cli import command
from waypost.cli.chat import _key


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give either --url or --pool"),
        (["--url", "http://a", "--pool", "b.yaml"], "give either --url or --pool"),
        (["--url", "http://a", "--allow-plugin-code"], "need --pool"),
        (["--url", "http://a", "--auth", "nameonly"], "expected NAME:PASSWORD"),
        (["--url", "http://a", "--top-k", "33"], "1<=x<=32"),
        (["--url", "http://a", "--key-service", "nobody"], "no key of the service 'nobody'"),
        (["--pool", "missing.yaml"], "missing.yaml"),
    ],
)
def test_a_wrong_option_is_one_message(options: list[str], message: str) -> None:
    result = CliRunner().invoke(command, ["chat", *options])
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("keys", "service", "key"),
    [
        ('{"waypost-clients": "own-key-1"}', None, "own-key-1"),
        ('{"other": "other-key"}', "other", "other-key"),
        ('{"other": "other-key"}', None, None),
        ("key-for-any", None, None),
        ("key-for-any", "named", "key-for-any"),
    ],
)
def test_a_gateway_gets_its_own_key_only(
    monkeypatch: pytest.MonkeyPatch, keys: str, service: str | None, key: str | None
) -> None:
    from waypost.secrets import key_ring

    monkeypatch.setenv("API_KEYS", keys)
    key_ring.cache_clear()
    found = _key(service)
    assert (None if found is None else found.reveal()) == key
    key_ring.cache_clear()


@pytest.mark.browser
@pytest.mark.parametrize("login", [None, "ann:secret-word"])
def test_the_page_alone_serves_a_pool_and_stops(tmp_path: Path, login: str | None) -> None:
    knn_artifact(tmp_path / "artifact")
    pool = tmp_path / "pool.yaml"
    pool.write_text(yaml.safe_dump({"pool": arguments("")["pool"]}))
    words = ["--artifact", "artifact", "--pool", "pool.yaml", "--port", "0"]
    variables = {**os.environ, **({} if login is None else {"WAYPOST_CHAT_AUTH": login})}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "waypost.cli", "chat", *words],
        cwd=tmp_path,
        env=variables,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        lines = iter(process.stderr.readline, "")
        url = next(found[0] for line in lines if (found := re.search(r"http://\S+", line)))
        with urllib.request.urlopen(url) as page:
            text = page.read().decode()
        assert ("From cheap to good" in text) == (login is None)
    finally:
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=30)
    assert (process.returncode, rest.strip()) == (0, "stopped")
