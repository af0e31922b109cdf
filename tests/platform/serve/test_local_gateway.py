"""`waypost.Gateway`: questions in process, an ASGI application, a port, changes while it serves."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import urllib.request

import pytest

import waypost
from support.asgi import Client
from support.gateway import ALGEBRA, COOKING, chat, echo_pool
from waypost.contracts.errors import ConfigError, GatewayError, NotStartedError, WaypostError
from waypost.secrets import key_ring
from waypost.serve.handover import listen
from waypost.serve.local import Gateway
from waypost.serve.local.config import read_local
from waypost.serve.local.loop import LoopThread

CHAT = "/v1/chat/completions"


def made(artifact, **args) -> Gateway:
    return Gateway(pool=args.pop("pool", echo_pool()), artifact=artifact, **args)


def test_questions_of_a_program_without_an_event_loop(artifact) -> None:
    with made(artifact) as gateway:
        reply = gateway.ask(COOKING)
        assert (reply.model, reply.router, str(reply)) == ("cook", "knnrouter", COOKING)
        assert reply.cost_usd > 0
        assert reply.body["usage"]["waypost"]["model"] == "cook"
        assert (
            gateway.ask([{"role": "user", "content": "a b c"}], model="tiny", max_tokens=1).text
            == "a"
        )
        assert gateway.ask(COOKING, lam=1000.0, user_id="u").model == "tiny"
        decision = gateway.route(ALGEBRA)
        assert (decision.model, len(decision.ranking)) == ("prover", 3)
    assert "cook" in repr(gateway)


async def test_questions_of_an_event_loop(artifact) -> None:
    async with made(artifact) as gateway:
        replies = await asyncio.gather(*(gateway.ask_async(f"question {i}") for i in range(20)))
        assert [reply.text for reply in replies] == [f"question {i}" for i in range(20)]
        assert (await gateway.route_async(COOKING)).model == "cook"
        with pytest.raises(NotStartedError, match="await"):
            gateway.ask(COOKING)


async def test_an_event_loop_may_ask_a_gateway_that_runs_in_a_thread(artifact) -> None:
    gateway = made(artifact).open()
    try:
        assert (await gateway.ask_async(COOKING)).model == "cook"
    finally:
        await asyncio.to_thread(gateway.close)


def test_an_answer_that_there_is_not_is_an_error_with_status_and_code(artifact) -> None:
    pool = echo_pool(
        cook={"fail_with": "500"}, prover={"fail_with": "500"}, tiny={"fail_with": "500"}
    )
    with made(artifact, pool=pool) as gateway:
        with pytest.raises(GatewayError) as failed:
            gateway.ask(COOKING)
        with pytest.raises(GatewayError) as wrong:
            gateway.ask(COOKING, temperature=9)
    assert (failed.value.status, failed.value.code) == (502, "all_models_failed")
    assert (wrong.value.status, wrong.value.param) == (400, "temperature")


def test_it_answers_between_its_start_and_its_end_only(artifact, tmp_path) -> None:
    gateway = made(artifact, feedback_dir=str(tmp_path / "feedback"))
    for _ in range(2):  # it may be opened again
        with pytest.raises(NotStartedError, match="with Gateway"):
            gateway.ask(COOKING)
        with gateway:
            gateway.rate(gateway.ask(COOKING).request_id, 1.0)
    gateway.close()


def test_threads_that_ask_while_it_is_closed_are_all_answered_or_told(artifact) -> None:
    for _ in range(5):
        gateway = made(artifact).open()
        told: list[object] = []
        begun = threading.Barrier(7)

        def ask(gateway=gateway, told=told, begun=begun) -> None:
            begun.wait()
            while True:
                try:
                    gateway.ask(COOKING)
                except (NotStartedError, GatewayError) as error:
                    told.append(error)
                    return

        def close(gateway=gateway, begun=begun) -> None:
            begun.wait()
            gateway.close()

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(5)]
        threads += [threading.Thread(target=close, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
        assert len(told) == 5


def test_a_loop_that_has_ended_takes_no_calls() -> None:
    loop = LoopThread()
    late = threading.Thread(target=lambda: waiting(loop), daemon=True)
    late.start()
    assert loop.call(asyncio.sleep(0.05, 7)) == 7
    loop.end()
    late.join(30)
    assert not late.is_alive()
    with pytest.raises(NotStartedError, match="closed meanwhile"):
        loop.call(asyncio.sleep(0, 7))


def waiting(loop: LoopThread) -> None:
    with pytest.raises(NotStartedError, match="closed meanwhile"):
        loop.call(asyncio.Event().wait())


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"stream": True}, "comes whole"),
        ({"tools": {1}}, "cannot be JSON"),
        ({"waypost": 3, "lam": 1}, "waypost"),
    ],
)
def test_fields_that_cannot_be_sent_are_told(artifact, fields, problem) -> None:
    with made(artifact) as gateway, pytest.raises(GatewayError, match=problem) as found:
        gateway.ask(COOKING, **fields)
    assert found.value.status == 400


@pytest.mark.parametrize("asked", [3, None])
def test_a_question_that_is_none_is_told(artifact, asked) -> None:
    with made(artifact) as gateway, pytest.raises(GatewayError, match="messages"):
        gateway.ask(asked)


def test_a_start_that_fails_leaves_nothing_open(artifact, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    gateway = made(artifact, feedback_dir=str(tmp_path / "file"))
    with pytest.raises(WaypostError):
        gateway.open()
    with pytest.raises(NotStartedError):
        gateway.ask(COOKING)


def test_it_listens_on_ports(artifact) -> None:
    with made(artifact) as gateway:
        urls = [gateway.listen(), gateway.listen(prefix="/way")]
        for url in urls:
            request = urllib.request.Request(url + CHAT, json.dumps(chat()).encode())
            with urllib.request.urlopen(request, timeout=30) as reply:
                assert reply.headers["x-waypost-model"] == "cook"
        with listen("127.0.0.1", 0) as taken, pytest.raises(OSError, match="in use"):
            gateway.listen(port=taken.getsockname()[1])


async def test_an_asgi_server_starts_and_ends_it(artifact) -> None:
    gateway = made(artifact)
    told, sent = asyncio.Queue(), asyncio.Queue()
    served = asyncio.ensure_future(gateway({"type": "lifespan"}, told.get, sent.put))
    await told.put({"type": "lifespan.startup"})
    assert (await sent.get())["type"] == "lifespan.startup.complete"
    assert (await Client(gateway).post(CHAT, chat())).status == 200
    await told.put({"type": "lifespan.shutdown"})
    assert (await sent.get())["type"] == "lifespan.shutdown.complete"
    await served


async def test_an_asgi_server_is_told_why_it_does_not_start(artifact, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    gateway = made(artifact, feedback_dir=str(tmp_path / "file"))
    told, sent = asyncio.Queue(), asyncio.Queue()
    await told.put({"type": "lifespan.startup"})
    await gateway({"type": "lifespan"}, told.get, sent.put)
    failed = await sent.get()
    assert failed["type"] == "lifespan.startup.failed"
    assert "file" in failed["message"]


async def test_mounted_in_another_application_it_starts_with_the_first_request(artifact) -> None:
    gateway = made(artifact)
    replies = await asyncio.gather(*(Client(gateway).post(CHAT, chat()) for _ in range(5)))
    assert {reply.status for reply in replies} == {200}
    await gateway.end()


async def test_keys_are_asked_of_clients_and_not_of_the_process(artifact, monkeypatch) -> None:
    key_ring.cache_clear()
    with pytest.raises(ConfigError, match="waypost-clients"):
        made(artifact, api_keys=True)
    monkeypatch.setenv("API_KEYS", json.dumps({"waypost-clients": "one"}))
    key_ring.cache_clear()
    async with made(artifact, api_keys=True) as gateway:
        assert (await gateway.ask_async(COOKING)).model == "cook"
        assert (await Client(gateway).post(CHAT, chat())).status == 401
        assert (await Client(gateway).post(CHAT, chat(), authorization="Bearer one")).status == 200
    key_ring.cache_clear()


async def test_changed_arguments_hold_for_further_requests(artifact) -> None:
    slow = {"tokens": 20, "tokens_per_s": 40}
    async with made(artifact, pool=echo_pool(cook=slow)) as gateway:
        client = Client(gateway)
        early = client.open("POST", CHAT, chat(COOKING, stream=True))
        await early.part(2)
        pool = echo_pool(cook={"text": "changed"})
        await gateway.change(read_local({"artifact": str(artifact), "pool": pool}))
        assert (await gateway.ask_async(COOKING)).text == "changed"
        reply = await early.end()
        assert reply.events()[-1] == "[DONE]"
        wrong = read_local({"artifact": str(artifact), "pool": [{"name": "x", "engine": "echo"}]})
        with pytest.raises(WaypostError, match="x"):
            await gateway.change(wrong)
        assert (await gateway.ask_async(COOKING)).text == "changed"


async def test_at_its_end_requests_in_flight_have_their_time(artifact) -> None:
    slow = {"tokens": 1000, "tokens_per_s": 50}
    gateway = made(artifact, pool=echo_pool(cook=slow))
    await gateway.start()
    client = Client(gateway)
    quick = client.open("POST", CHAT, chat(COOKING, stream=True, max_tokens=5))
    long = client.open("POST", CHAT, chat(COOKING, stream=True))
    await long.part(2)
    await gateway.end(0.3)
    assert (await quick.end()).events()[-1] == "[DONE]"
    assert (await long.end()).events()[-1]["error"]["code"] == "server_stopping"


BLOCKED = ("torch", "ray", "transformers", "sklearn", "scipy", "pandas", "psutil", "genai_prices")

WITHOUT = """
import json, sys

class Blocks:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocks())
from waypost import Gateway
with Gateway(json.loads(sys.argv[1])) as gateway:
    gateway.listen()
    print(gateway.ask(sys.argv[2]).model)
"""


def test_it_needs_neither_ray_nor_torch_nor_transformers(artifact, tmp_path) -> None:
    config = json.dumps({"artifact": str(artifact), "pool": echo_pool()})
    command = [sys.executable, "-P", "-c", WITHOUT.format(blocked=BLOCKED), config, ALGEBRA]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, text=True)
    assert (done.stdout.strip(), done.returncode) == ("prover", 0), done.stderr


def test_the_public_name_is_this_class() -> None:
    assert waypost.Gateway is Gateway


def test_on_the_base_alone_questions_are_answered_and_a_port_names_its_extra(
    artifact, tmp_path
) -> None:
    blocked = (*BLOCKED, "uvicorn", "httptools", "uvloop")
    script = WITHOUT.format(blocked=blocked).replace("    gateway.listen()\n    print", "    print")
    script += "    gateway.listen()\n"
    config = json.dumps({"artifact": str(artifact), "pool": echo_pool()})
    command = [sys.executable, "-P", "-c", script, config, ALGEBRA]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, text=True)
    assert done.stdout.strip() == "prover", done.stderr
    assert 'pip install "waypost[gateway]"' in done.stderr
