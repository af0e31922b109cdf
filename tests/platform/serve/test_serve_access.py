"""The keys that clients of the gateway have to show."""

from __future__ import annotations

import pytest

from support.gateway import chat, running
from waypost.secrets import KeyRing
from waypost.serve.gateway.access import ClientKeys, client_keys

CHAT = "/v1/chat/completions"


async def test_where_keys_are_asked_for_only_they_get_in(artifact):
    async with running(artifact, keys=ClientKeys(["canary-key-1", "canary-key-2"])) as up:
        good = await up.client.post(CHAT, chat(), authorization="Bearer canary-key-2")
        assert good.status == 200
        for wrong in ({}, {"authorization": "Bearer no"}, {"authorization": "canary-key-1"}):
            reply = await up.client.post(CHAT, chat(), **wrong)
            assert reply.status == 401
            assert reply.json()["error"]["type"] == "authentication_error"
            assert b"canary" not in reply.body
        assert (await up.client.get("/metrics")).status == 401
        assert (await up.client.get("/healthz")).status == 200


def test_the_keys_of_clients_are_those_of_their_service():
    ring = KeyRing({"waypost-clients": ["for-clients-1", "for-clients-2"], "openai": ["upstream"]})
    keys = client_keys(ring)
    keys.check("Bearer for-clients-1")
    keys.check("bearer for-clients-2")
    with pytest.raises(Exception, match="not known"):
        keys.check("Bearer upstream")


def test_keys_that_serve_any_service_are_no_keys_of_clients():
    with pytest.raises(Exception, match="waypost-clients"):
        client_keys(KeyRing({"*": ["upstream-key"]}))
