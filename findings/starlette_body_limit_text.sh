#!/usr/bin/env bash
# For a body over the limit with a content-length, starlette answers in plain text and skips the
# application's exception handlers; without a content-length it calls them.
#
# Versions:  starlette 1.10.0
# Expected:  if the handler of HTTPException returns JSON, the response with status 413 is JSON.
# Happens:   the response to a body in chunks is the handler's JSON. The response to the same body
#            with a content-length is `text/plain`. Most clients send the length.
# Here:      serve/gateway/http.py reads and limits bodies (DECISIONS 62).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet "starlette==1.10.0"
"$work/venv/bin/python" - <<'PYTHON'
import asyncio

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route


async def length(request):
    return PlainTextResponse(str(len(await request.body())))


async def problem(request, error):
    return JSONResponse({"error": error.detail}, error.status_code)


app = Starlette(
    routes=[Route("/", length, methods=["POST"])],
    exception_handlers={HTTPException: problem},
    max_body_size=10,
)


async def ask(headers):
    sent = []
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}

    async def receive():
        return {"type": "http.request", "body": b"x" * 20, "more_body": False}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"])[b"content-type"].decode()


chunked = asyncio.run(ask([(b"transfer-encoding", b"chunked")]))
declared = asyncio.run(ask([(b"content-length", b"20")]))
print(f"in chunks {chunked}, with a declared length {declared}")
expected = ((413, "application/json"), (413, "text/plain; charset=utf-8"))
if (chunked, declared) != expected:
    raise SystemExit("changed: look at this finding anew")
PYTHON
