#!/usr/bin/env bash
# Portkey's gateway, installed by npm today, answers every stream of an OpenAI endpoint with 500.
#
# Versions:  @portkey-ai/gateway 1.15.2 with @hono/node-server 1.19.19 (what npm resolves) and 1.13.8
# Expected:  "stream": true gives the events of the endpoint, as it does with 1.13.8.
# Happens:   500 {"status":"failure","message":"Something went wrong"}; whole answers work. The gateway
#            sets headers on the Response of fetch, which is immutable; before 1.14.2 @hono/node-server
#            replaced the global Response by one that is not. Portkey's range is ^1.3.3 and an installation
#            from npm has no lock. Known as Portkey-AI/gateway#1389.
# Here:      requirements/portkey_node locks 1.13.8 for `waypost bench gateway`.
#
# The gateway listens on every address, so this runs in a network namespace of its own.
set -euo pipefail
for tool in npm ip unshare; do
    command -v "$tool" >/dev/null || { echo "skipped: needs $tool"; exit 0; }
done
apart=(unshare --net)
"${apart[@]}" true 2>/dev/null || apart=(unshare --user --map-root-user --net)
"${apart[@]}" true 2>/dev/null || { echo "skipped: this machine gives no network namespace"; exit 0; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/try.mjs" <<'JAVASCRIPT'
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { setTimeout as pause } from "node:timers/promises";

const modules = `${process.argv[2]}/node_modules`;
const { version } = JSON.parse(readFileSync(`${modules}/@hono/node-server/package.json`));

function answer(object, key, message, reason) {
  const choices = [{ index: 0, [key]: message, finish_reason: reason }];
  return JSON.stringify({ id: "c", object, created: 0, model: "m", choices });
}

const upstream = createServer(async (request, response) => {
  let body = "";
  for await (const part of request) body += part;
  if (!JSON.parse(body).stream) {
    response.setHeader("content-type", "application/json");
    response.end(answer("chat.completion", "message", { role: "assistant", content: "hello" }, "stop"));
    return;
  }
  response.setHeader("content-type", "text/event-stream");
  response.write(`data: ${answer("chat.completion.chunk", "delta", { content: "hello" }, null)}\n\n`);
  response.write(`data: ${answer("chat.completion.chunk", "delta", {}, "stop")}\n\n`);
  response.end("data: [DONE]\n\n");
});
await new Promise((ready) => upstream.listen(0, "127.0.0.1", ready));

const script = `${modules}/@portkey-ai/gateway/build/start-server.js`;
const gateway = spawn(process.execPath, [script, "--headless", "--port=8787"], { stdio: ["ignore", "ignore", "pipe"] });
let errors = "";
gateway.stderr.on("data", (part) => (errors += part));
const gatewayUrl = "http://127.0.0.1:8787";
try {
  for (let tries = 0; ; tries += 1) {
    try {
      await fetch(gatewayUrl);
      break;
    } catch (error) {
      if (tries === 150) throw error;
      await pause(200);
    }
  }
  const headers = {
    "content-type": "application/json",
    authorization: "Bearer none",
    "x-portkey-provider": "openai",
    "x-portkey-custom-host": `http://127.0.0.1:${upstream.address().port}/v1`,
  };
  for (const stream of [false, true]) {
    const body = JSON.stringify({ model: "m", stream, messages: [{ role: "user", content: "hello?" }] });
    const response = await fetch(`${gatewayUrl}/v1/chat/completions`, { method: "POST", headers, body });
    const said = (await response.text()).includes("hello") ? "hello" : "Something went wrong";
    console.log(`${version}, stream ${stream}: ${response.status} ${said}`);
  }
  console.log(`${version} logs ${errors.match(/TypeError: \w+/)?.[0] ?? "no error"}`);
} finally {
  gateway.kill();
  upstream.close();
}
JAVASCRIPT

for version in 1.19.19 1.13.8; do
    mkdir "$work/$version"
    cat >"$work/$version/package.json" <<JSON
{"private": true, "dependencies": {"@portkey-ai/gateway": "1.15.2"},
 "overrides": {"@hono/node-server": "$version"}}
JSON
    (cd "$work/$version" && npm install --silent --no-audit --no-fund)
    # shellcheck disable=SC2016
    "${apart[@]}" sh -c 'ip link set lo up && exec node "$@"' sh "$work/try.mjs" "$work/$version"
done | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
1.19.19, stream false: 200 hello
1.19.19, stream true: 500 Something went wrong
1.19.19 logs TypeError: immutable
1.13.8, stream false: 200 hello
1.13.8, stream true: 200 hello
1.13.8 logs no error
SEEN
echo "as described"
