from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import stat
import threading

import pytest

from waypost import secrets
from waypost.contracts.errors import ConfigError
from waypost.secrets import (
    HIDDEN,
    KeyRing,
    RedactingFilter,
    Secret,
    guard_logging,
    load_keys,
    parse_keys,
    redact,
)

KEY = "sk-canary-0123456789"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def environment(monkeypatch):
    def set_(**values: str) -> None:
        for name in ("API_KEYS", "WAYPOST_API_KEYS_FILE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_


def revealed(ring: KeyRing, service: str, count: int) -> list[str]:
    return [key.reveal() for _ in range(count) if (key := ring.take(service)) is not None]


def test_a_secret_shows_nothing():
    secret = Secret(KEY)
    texts = [repr(secret), str(secret), f"{secret}", f"{secret:>40}", f"{[secret]}", f"{secret!r}"]
    assert all(KEY not in text for text in texts)
    with pytest.raises(TypeError, match="JSON serializable"):
        json.dumps({"key": secret})
    with pytest.raises(TypeError, match="does not leave its process"):
        pickle.dumps(secret)
    with pytest.raises(AttributeError):
        vars(secret).keys() if hasattr(secret, "__dict__") else secret.__dict__


def test_secrets_compare_by_value_and_copy_as_themselves():
    secret = Secret(KEY)
    assert secret == Secret(KEY)
    assert secret != Secret("another-key-value")
    assert secret != KEY
    assert copy.deepcopy(secret) is copy.copy(secret) is secret
    assert len({secret, Secret(KEY)}) == 1


def test_redact_takes_out_every_spelling():
    key = 'odd"key/with+signs\\0001'
    Secret(key)
    Secret(key + "-longer")
    text = f"{key} {json.dumps(key)} {key!r} {key}-longer odd%22key%2Fwith%2Bsigns%5C0001"
    assert redact(text) == f"{HIDDEN} \"{HIDDEN}\" '{HIDDEN}' {HIDDEN} {HIDDEN}"


def test_placeholders_are_not_redacted():
    Secret("EMPTY")
    assert redact("the list is EMPTY") == "the list is EMPTY"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"openai": "k1", "nvidia": ["k2", "k3"]}', {"openai": ["k1"], "nvidia": ["k2", "k3"]}),
        ('["k1", "k2"]', {"*": ["k1", "k2"]}),
        ("k1, k2 ,k3", {"*": ["k1", "k2", "k3"]}),
        ("k1", {"*": ["k1"]}),
        ('{"openai": "k1,k2"}', {"openai": ["k1", "k2"]}),
    ],
)
def test_forms_of_api_keys(text, expected):
    assert parse_keys(secrets._json_or_text(text), "API_KEYS") == expected


def test_wrong_entries_are_named_by_place_not_by_value():
    with pytest.raises(ConfigError) as caught:
        parse_keys({"a": ["good-key-1", 7, " "], "b": {"x": "hidden-value"}, "c": []}, "keys.json")
    assert [fault.where for fault in caught.value.faults] == [
        "keys.json: a[1]",
        "keys.json: a[2]",
        "keys.json: b",
        "keys.json: c",
    ]
    assert "hidden-value" not in str(caught.value)


def test_broken_json_shows_its_place_and_not_its_text(environment):
    environment(API_KEYS='{"openai": "sk-very-secret-value", }')
    with pytest.raises(ConfigError, match=r"line 1, column \d+") as caught:
        load_keys()
    error = caught.value
    assert "sk-very" not in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_keys_from_a_file(environment, tmp_path, suffix, caplog):
    file = tmp_path / f"keys{suffix}"
    file.write_text('{"openai": ["file-key-1"]}' if suffix == ".json" else "openai: [file-key-1]\n")
    file.chmod(0o600)
    environment(WAYPOST_API_KEYS_FILE=str(file))
    assert revealed(load_keys(), "openai", 1) == ["file-key-1"]
    assert not caplog.records


def test_a_file_open_to_others_is_warned_of(environment, tmp_path, caplog):
    file = tmp_path / "keys.json"
    file.write_text('["file-key-1"]')
    file.chmod(stat.S_IRUSR | stat.S_IWUSR | stat.S_IROTH)
    environment(WAYPOST_API_KEYS_FILE=str(file))
    assert load_keys().count("any") == 1
    assert "chmod 600" in caplog.text


def test_a_broken_file_does_not_show_its_text(environment, tmp_path):
    file = tmp_path / "keys.yaml"
    file.write_text("openai: [sk-very-secret-value\nother: }")
    file.chmod(0o600)
    environment(WAYPOST_API_KEYS_FILE=str(file))
    with pytest.raises(ConfigError, match="line 2") as caught:
        load_keys()
    assert "sk-very" not in str(caught.value)
    assert caught.value.__context__ is None


def test_two_places_are_one_too_many(environment, tmp_path):
    environment(API_KEYS="k1", WAYPOST_API_KEYS_FILE=str(tmp_path / "k"))
    with pytest.raises(ConfigError, match="unset one of the two"):
        load_keys()


def test_no_place_is_an_empty_ring(environment):
    environment()
    assert load_keys().take("openai") is None


def test_keys_rotate_per_service_without_regard_to_case():
    ring = KeyRing({"OpenAI": ["a", "b"], "nvidia": ["c"], "*": ["d"]})
    assert revealed(ring, "openai", 3) == ["a", "b", "a"]
    assert revealed(ring, "NVIDIA", 2) == ["c", "c"]
    assert revealed(ring, "other", 1) == ["d"]


def test_a_refused_key_is_passed_over_until_its_rest_ends():
    clock = Clock()
    ring = KeyRing({"s": ["a", "b", "c"]}, clock=clock)
    first = ring.take("s")
    ring.refused(first)
    assert ring.ready("s") == 2
    assert revealed(ring, "s", 4) == ["b", "c", "b", "c"]
    clock.now += secrets.REFUSED_REST_S
    assert "a" in revealed(ring, "s", 3)


def test_when_all_rest_the_one_that_is_ready_first_is_given():
    ring = KeyRing({"s": ["a", "b"]}, clock=Clock())
    a, b = ring.take("s"), ring.take("s")
    ring.limited(a, 30)
    ring.limited(b, 5)
    ring.limited(b, 1)  # a shorter wait does not end a longer one
    assert revealed(ring, "s", 2) == ["b", "b"]


def test_the_ring_shows_counts_only():
    assert repr(KeyRing({"s": [KEY]})) == "KeyRing(s: 1)"


def test_rotation_is_even_over_threads():
    ring = KeyRing({"s": [f"key-{n}" for n in range(4)]})
    taken: list[str] = []

    def take() -> None:
        taken.extend(revealed(ring, "s", 250))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken.count(f"key-{n}") for n in range(4)) == [250] * 4


def test_guarded_logging_hides_keys_in_messages_tracebacks_and_fields():
    Secret(KEY)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s %(where)s"))
    guard_logging([handler])
    guard_logging([handler])
    assert len(handler.filters) == 1
    log = logging.Logger("test")
    log.addHandler(handler)
    try:
        raise ValueError(f"refused: {KEY}")
    except ValueError:
        log.exception("with %s", KEY, extra={"where": f"header {KEY}"})
    text = stream.getvalue()
    assert "Traceback" in text
    assert f"with {HIDDEN} header {HIDDEN}" in text
    assert KEY not in text


def test_arguments_that_do_not_fit_are_hidden_too():
    Secret(KEY)
    record = logging.LogRecord("x", logging.INFO, "f", 1, "%d keys", (KEY,), None)
    assert RedactingFilter().filter(record)
    assert KEY not in record.getMessage()


def test_guard_logging_defaults_to_the_root_handlers(monkeypatch):
    handler = logging.NullHandler()
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    guard_logging()
    assert isinstance(handler.filters[0], RedactingFilter)
