"""What Ray prints stays out of what a command prints."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time

import click
import pytest

from waypost.ray_session import ray_session, results_only, without_first_words


def test_what_the_listener_prints_is_no_result(capsys, caplog):
    caplog.set_level(logging.DEBUG, logger="waypost.ray_session")
    with results_only():
        sys.stdout.write("ours\n")
        thread = threading.Thread(
            target=print, args=("(raylet) A worker died",), name="ray_listen_error_messages"
        )
        thread.start()
        thread.join()
        click.echo("ours, too")
    sys.stdout.write("after\n")
    assert capsys.readouterr().out == "ours\nours, too\nafter\n"
    assert [record.getMessage() for record in caplog.records] == [
        "message of Ray: (raylet) A worker died"
    ]


def test_only_the_line_about_the_level_is_left_out(capfd):
    with without_first_words():
        os.write(2, b"[x] logging.cc:303: Set ray log level from environment variable A to 3\n")
        os.write(2, b"a problem\n")
        assert capfd.readouterr().err == ""
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "a problem\nlater\n"


def test_what_was_said_is_there_after_a_failure(capfd):
    def fail() -> None:
        with without_first_words():
            os.write(2, b"why it fails\n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert capfd.readouterr().err == "why it fails\n"


@pytest.mark.ray
def test_a_worker_that_dies_is_not_on_standard_output(capfd, caplog):
    caplog.set_level(logging.DEBUG, logger="waypost.ray_session")
    told: list[str] = []
    with ray_session(tell=told.append):
        import ray

        assert told == ["starting Ray, which takes about 10 s"]
        with pytest.raises(ray.exceptions.WorkerCrashedError):
            ray.get(ray.remote(max_retries=0)(lambda: os._exit(1)).remote())
        deadline = time.monotonic() + 60
        while not any("worker died" in one.getMessage() for one in caplog.records):
            assert time.monotonic() < deadline, "Ray said nothing of the worker"
            time.sleep(0.1)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "Set ray log level" not in shown.err
