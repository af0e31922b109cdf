"""The dial, the files, the visit, the door."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from waypost.chat.client import Pool
from waypost.chat.dial import cost_weight, place_of
from waypost.chat.door import Door, Patience, host_name
from waypost.chat.export import as_json, as_votes
from waypost.chat.talk import Answer, Talk
from waypost.chat.visit import MOST_TALKS, Visit, draw
from waypost.pipelines.data.votes import import_votes
from waypost.serve.chat_alone import Options, accepted_hosts, warnings


def battle() -> Talk:
    talk = Talk(view="battle", names=["good", "cheap"], at=1_800_000_000.0)
    turn = talk.ask("What is 2 + 2?")
    turn.answers = [
        Answer(state="answered", text="Four.", model="good", request_id="aa"),
        Answer(state="answered", text="Five.", model="cheap", request_id="bb"),
    ]
    turn.vote, talk.revealed = "left", True
    return talk


def test_the_dial_goes_from_cost_alone_to_quality_alone() -> None:
    weights = [cost_weight(place / 2) for place in range(21)]
    assert weights == sorted(weights, reverse=True)
    assert (weights[0], weights[10], weights[20]) == (100.0, 1.0, 0.0)


@pytest.mark.parametrize("place", [0.0, 0.5, 3.0, 5.0, 7.5, 9.5, 10.0])
def test_a_weight_has_its_place_on_the_dial(place: float) -> None:
    assert place_of(cost_weight(place)) == place


@pytest.mark.parametrize(("lam", "place"), [(float("inf"), 0.0), (1e9, 0.0), (1e-9, 9.5), (0, 10)])
def test_every_weight_has_a_place_on_the_dial(lam: float, place: float) -> None:
    assert place_of(lam) == place


def test_the_votes_are_lines_that_the_import_reads(tmp_path: Path) -> None:
    file = tmp_path / "votes.jsonl"
    file.write_text(as_votes([Talk(), battle()]), encoding="utf-8")
    line = json.loads(file.read_text(encoding="utf-8"))
    assert (line["type"], line["models"]) == ("leftvote", ["good", "cheap"])
    assert line["states"][1]["messages"] == [["user", "What is 2 + 2?"], ["assistant", "Five."]]
    told = import_votes([file], tmp_path / "data", test=0)
    assert (told["votes"], told["left_out"]) == (1, 0)


def test_the_json_of_a_talk_has_all_that_is_known() -> None:
    told = json.loads(as_json(battle()))
    assert (told["title"], told["turns"][0]["vote"]) == ("What is 2 + 2?", "left")
    assert Talk.model_validate(told).turns == battle().turns


def test_what_the_browser_keeps_is_read_back() -> None:
    visit = Visit()
    visit.read(None, None)
    visit.talk = battle()
    visit.remember()
    again = Visit()
    again.read(json.loads(json.dumps(visit.kept())), None)
    assert again.user_id == visit.user_id
    assert (again.talk, again.talks) == (visit.talk, visit.talks)


@pytest.mark.parametrize(
    "kept",
    [
        [],
        "text",
        {"user_id": 7, "talks": "none"},
        {"user_id": "root", "talks": [1, None, {"turns": "x"}, {"view": "side", "turns": []}]},
        {"talks": [{"view": "battle", "turns": [{"question": "?", "answers": [{}]}]}]},
    ],
)
def test_what_cannot_be_read_is_left_out(kept: Any) -> None:
    visit = Visit()
    visit.read(kept, None)
    assert visit.talks == []
    assert visit.user_id.startswith("browser-")


def test_a_login_is_the_user_and_stays_out_of_the_browser() -> None:
    visit = Visit()
    visit.read({"user_id": "browser-1"}, "ann")
    assert visit.user_id == "ann"
    assert visit.kept()["user_id"] == ""


def test_an_answer_that_was_cut_off_by_a_reload_is_stopped() -> None:
    visit = Visit(talk=Talk())
    visit.talk.ask("Hello?")
    visit.remember()
    again = Visit()
    again.read(visit.kept(), None)
    assert again.talk.turns[0].answers[0].state == "stopped"


def test_the_browser_keeps_the_latest_talks_as_far_as_they_fit() -> None:
    visit = Visit()
    for number in range(MOST_TALKS + 5):
        visit.new("chat", ["auto"])
        visit.talk.ask(f"{number}")
        visit.remember()
    assert [talk.title for talk in visit.talks[:2]] == ["34", "33"]
    assert len(visit.kept()["talks"]) == MOST_TALKS
    for talk in visit.talks:
        talk.turns[0].question = "x" * 900_000
    assert len(visit.kept()["talks"]) == 2


def test_talks_are_opened_and_deleted() -> None:
    visit = Visit(talk=battle())
    visit.remember()
    first = visit.talk
    visit.new("chat", ["auto"])
    visit.open(first.id)
    assert visit.talk is first
    visit.open("nothing")
    assert visit.talk is first
    visit.delete()
    assert (visit.talks, visit.talk.turns) == ([], [])


def test_a_battle_draws_two_different_llms_that_can_answer() -> None:
    pool = Pool(llms=("a", "b", "c"), waiting=frozenset({"c"}))
    assert sorted(draw(pool)) == ["a", "b"]
    assert draw(Pool(llms=("a",))) == ["a"]


@pytest.mark.parametrize(
    ("hosts", "host", "accepted"),
    [
        (["127.0.0.1", "localhost", "::1"], "localhost:7860", True),
        (["127.0.0.1", "localhost", "::1"], "[::1]:7860", True),
        (["127.0.0.1", "localhost", "::1"], "LOCALHOST.:7860", True),
        (["127.0.0.1"], "evil.example:7860", False),
        (["127.0.0.1"], "127.0.0.1.evil.example", False),
        (["127.0.0.1"], "", False),
        (["0.0.0.0"], "192.168.1.7:7860", True),
        (["0.0.0.0"], "evil.example", False),
        (["*.gradio.live"], "abc.gradio.live", True),
        (["*.gradio.live"], "gradio.live.evil.example", False),
        (None, "anything", True),
    ],
)
def test_foreign_names_of_the_host_are_refused(
    hosts: list[str] | None, host: str, accepted: bool
) -> None:
    async def app(*_: Any) -> None: ...

    assert Door(app, hosts).accepts(host) is accepted


def test_the_name_of_a_host_has_no_port() -> None:
    assert [host_name(text) for text in ("A.b:80", "[::1]", "a")] == ["a.b", "::1", "a"]


def test_after_some_wrong_passwords_a_name_must_wait() -> None:
    patience = Patience(most=2, within_s=60)
    patience.failed("ann")
    assert patience.may_try("ann")
    patience.failed("ann")
    assert not patience.may_try("ann")
    assert patience.may_try("bob")
    rested = Patience(most=1, within_s=0)
    rested.failed("ann")
    assert rested.may_try("ann")


def test_what_an_option_opens_is_said() -> None:
    assert warnings(Options()) == []
    assert warnings(Options(login=("a", "b"))) == []
    shared = warnings(Options(share=True))
    assert "everybody who has the link" in shared[0]
    assert "--auth" in shared[-1]
    assert len(warnings(Options(host="0.0.0.0", login=("a", "b")))) == 1
    assert "*.gradio.live" in accepted_hosts(Options(share=True))
    assert "*.gradio.live" not in accepted_hosts(Options())
