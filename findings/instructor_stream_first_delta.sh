#!/usr/bin/env bash
# instructor drops all but the first delta of tool calls in an event of a stream.
#
# Version:   instructor 1.17.0 with openai 3.3.0
# Expected:  choices[0].delta.tool_calls is a list: two deltas of one call in one event are read one
#            after the other, as the openai package itself does when it accumulates a stream.
# Happens:   create_partial reads delta.tool_calls[0] of each event only. With the same deltas in two
#            events the object is whole; in one event its second half is lost.
# Here:      the gateway sends one delta of tool calls an event, whatever the upstream put together.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check instructor==1.17.0 openai==3.3.0

cat >"$work/try.py" <<'PYTHON'
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import instructor
import openai
from pydantic import BaseModel


class City(BaseModel):
    name: str | None = None
    people: int | None = None


def delta(**fields):
    return {"index": 0, **fields}


HEAD = delta(id="call_1", type="function", function={"name": "City", "arguments": '{"name": "Oslo",'})
TAIL = delta(function={"arguments": ' "people": 700000}'})
STREAMS = {"two events": [[HEAD], [TAIL]], "one event": [[HEAD, TAIL]]}
chosen = ""


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        """Quiet."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for calls in STREAMS[chosen]:
            self.event({"tool_calls": calls}, None)
        self.event({}, "tool_calls")
        self.wfile.write(b"data: [DONE]\n\n")

    def event(self, delta, reason):
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())


server = HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
raw = openai.OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none", max_retries=0)
client = instructor.from_openai(raw)
for chosen in STREAMS:
    parts = client.chat.completions.create_partial(
        model="m", response_model=City, messages=[{"role": "user", "content": "Oslo?"}], max_retries=0
    )
    last = None
    for last in parts:
        pass
    print(f"{chosen}: {last!r}")
PYTHON
"$work/env/bin/python" "$work/try.py" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
two events: City(name='Oslo', people=700000)
one event: City(name='Oslo', people=None)
SEEN
