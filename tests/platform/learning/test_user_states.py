import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from waypost.contracts.errors import ConfigError, SchemaError
from waypost.contracts.user_state import UserState
from waypost.learning.user_states import UserStates
from waypost.learning.user_turns import UserTurn

ENCODER = "hashing+d4"


def sums(history):
    """Make a state that shows its history: the number of events, the sum of their values."""
    return UserState(len(history), np.array([history.values.sum()], np.float32))


def turn(key, value=1.0, other=None, vector=(1.0, 0.0, 0.0, 0.0)):
    return UserTurn(key, np.array(vector, np.float32), "small", value, other)


@pytest.fixture
def states(tmp_path):
    with UserStates(tmp_path / "users.db", sums, ENCODER) as opened:
        yield opened


def seen(state):
    return None if state is None else (state.events, float(state.vector[0]))


def test_events_change_the_state(states):
    assert states.get("ann") is None
    assert seen(states.add("ann", turn("r1", 0.25))) == (1, 0.25)
    assert seen(states.add("ann", turn("r2", 1.0, other="large"))) == (2, 1.25)
    assert states.get("bob") is None
    found = states.history("ann")
    assert (found.llms, found.others) == (("small", "small"), (None, "large"))
    assert found.embeddings.shape == (2, 4)


def test_a_later_rating_of_one_request_replaces_the_earlier(states):
    states.add("ann", turn("r1", 0.25))
    assert seen(states.add("ann", turn("r1", 0.75))) == (1, 0.75)
    assert seen(states.add("bob", turn("r1", 0.5))) == (1, 0.5)


def test_the_oldest_events_are_dropped(tmp_path):
    with UserStates(tmp_path / "users.db", sums, ENCODER, kept=3) as states:
        states.add_all([("ann", turn(f"r{i}", i / 10)) for i in range(6)])
        assert states.history("ann").values.tolist() == pytest.approx([0.3, 0.4, 0.5])


def test_memory_is_bounded_and_the_disk_keeps_all(tmp_path):
    made = []

    def counted(history):
        made.append(1)
        return sums(history)

    with UserStates(tmp_path / "users.db", counted, ENCODER, hot=3) as states:
        states.add_all([(f"user {i}", turn("r")) for i in range(10)])
        for i in range(10):
            assert seen(states.get(f"user {i}")) == (1, 1.0)
        assert (len(states), states.in_memory, len(made)) == (10, 3, 10)
        states.get("user 9")
        assert len(made) == 10
        states.get("user 0")
        assert len(made) == 11


def test_a_restart_keeps_users(tmp_path):
    with UserStates(tmp_path / "users.db", sums, ENCODER) as states:
        states.add("ann", turn("r1", 0.25))
    with UserStates(tmp_path / "users.db", sums, ENCODER) as states:
        assert seen(states.get("ann")) == (1, 0.25)


def test_a_forgotten_user_leaves_no_byte(tmp_path):
    path = tmp_path / "users.db"
    with UserStates(path, sums, ENCODER) as states, UserStates(path, sums, ENCODER) as beside:
        states.add("ann-the-secret", turn("r1"))
        assert seen(beside.get("ann-the-secret")) == (1, 1.0)
        assert states.forget("ann-the-secret")
        assert not states.forget("ann-the-secret")
        assert beside.get("ann-the-secret") is None
        assert beside.in_memory == 0
        files = [one for one in tmp_path.iterdir() if b"ann-the-secret" in one.read_bytes()]
        assert files == []
        # who comes back begins anew, for every process
        states.add("ann-the-secret", turn("r9", 0.5))
        assert seen(beside.get("ann-the-secret")) == (1, 0.5)


def test_another_process_sees_every_event(tmp_path, states):
    code = """
import sys
import numpy as np
from waypost.contracts.user_state import UserState
from waypost.learning.user_states import UserStates
from waypost.learning.user_turns import UserTurn
make = lambda history: UserState(len(history), np.zeros(1, np.float32))
with UserStates(sys.argv[1], make, "hashing+d4") as states:
    for i in range(30):
        states.add("ann", UserTurn(sys.argv[2] + str(i), np.ones(4, np.float32), "small", 0.5))
"""
    path = str(tmp_path / "users.db")
    states.add("ann", turn("first", 0.0))
    writers = [subprocess.Popen([sys.executable, "-c", code, path, name]) for name in "ab"]
    while any(one.poll() is None for one in writers):
        states.get("ann")
        time.sleep(0.01)
    assert [one.returncode for one in writers] == [0, 0]
    assert states.get("ann").events == 50  # of 61 the latest are kept
    assert len(set(states.history("ann").values)) == 1


def test_threads_share_a_store(states):
    def write(name):
        for i in range(20):
            states.add(name, turn(f"r{i}"))

    threads = [threading.Thread(target=write, args=(f"user {i % 2}",)) for i in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert [states.get(f"user {i}").events for i in range(2)] == [20, 20]


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_values_out_of_range_are_refused_whole(states, value):
    with pytest.raises(SchemaError, match="expected 0 to 1"):
        states.add_all([("ann", turn("r1")), ("ann", turn("r2", value))])
    assert states.get("ann") is None


def test_embeddings_have_one_width(states):
    states.add("ann", turn("r1"))
    with pytest.raises(SchemaError, match="4 numbers"):
        states.add("ann", turn("r2", vector=(1.0, 2.0)))
    assert states.get("ann").events == 1


def test_a_store_of_another_encoder_is_refused(tmp_path, states):
    with pytest.raises(ConfigError, match="has encoder hashing"):
        UserStates(tmp_path / "users.db", sums, "other")
    wrong = tmp_path / "text.db"
    wrong.write_text("no database, " * 100)
    with pytest.raises(ConfigError, match="cannot be opened"):
        UserStates(wrong, sums, ENCODER)
