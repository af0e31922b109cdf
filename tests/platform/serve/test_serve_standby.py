"""Processes that stand by for the next replica; `test_serve_kills` has one take over."""

from __future__ import annotations

import importlib
import os

import pytest

from waypost.serve import launch, standby


@pytest.mark.parametrize("modules", [None, "", "numpy"])
async def test_none_is_started_where_workers_import_nothing_for_it(monkeypatch, caplog, modules):
    monkeypatch.delenv(standby.VARIABLE, raising=False)
    if modules is not None:
        monkeypatch.setenv(standby.VARIABLE, modules)
    await standby.prepare_successor()
    assert not caplog.records


async def test_a_failure_is_logged_only(monkeypatch, caplog):
    monkeypatch.setattr(standby, "LATER_S", 0)
    monkeypatch.setenv(standby.VARIABLE, ",".join(standby.IMPORTS))
    await standby.prepare_successor()  # there is no Ray in this process
    assert "no process stands by" in caplog.text


def test_the_command_has_workers_import_them_and_keeps_what_users_set(monkeypatch):
    for name in standby.IMPORTS:
        importlib.import_module(name)
    monkeypatch.setattr(launch, "environment", lambda **modes: {})
    monkeypatch.setenv(standby.VARIABLE, "numpy")
    launch.set_environment(throughput=False)
    assert os.environ[standby.VARIABLE] == "numpy"
    monkeypatch.delenv(standby.VARIABLE)
    launch.set_environment(throughput=False)
    assert os.environ[standby.VARIABLE].split(",") == list(standby.IMPORTS)
