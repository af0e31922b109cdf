const AGAIN_MS = 5000;
const dollars = (value) => (value === null || value === undefined ? null : value === 0 ? "$0" :
  "$" + (value >= 0.01 ? value.toFixed(3) : value.toPrecision(2).replace(/e-0?(\d+)$/, "e-$1")));
const seconds = (value) => (value === null || value === undefined ? null :
  value < 10 ? value.toFixed(2) + " s" : value.toFixed(0) + " s");
const headers = () => {
  const key = sessionStorage.getItem("waypost-key");
  return key ? { authorization: "Bearer " + key } : {};
};
async function read(path) {
  const reply = await fetch(base + path, { headers: headers(), cache: "no-store" });
  if (reply.status === 401) throw { locked: true };
  return reply.json();
}
function lambda() {
  const dial = Number(at("dial").value);
  return dial === 0 ? null : Number((Math.pow(10, dial / 25 - 3)).toPrecision(2));
}
function state(name, kind) {
  return make("span", name, "state " + kind);
}
function showStatus(found) {
  at("version").textContent = found.version;
  at("status").textContent = found.status;
  at("status").className = "state " + found.status;
  at("chat").hidden = !found.chat;
  at("metrics").hidden = found.api_keys; // a link sends no key
  table(at("pool"), [["LLM", "name"], ["State", ""], ["In", "number"], ["Out", "number"]],
    found.models.map((one) => {
      const loading = one.state === "loading" && found.loading_s[one.name];
      const told = one.resting && one.state === "ready" ? "resting" : one.state;
      const shown = state(loading ? "loading, " + Math.round(loading) + " s" : told, told);
      if (found.failed[one.name]) shown.title = found.failed[one.name];
      return [one.name, shown, one.input_price, one.output_price];
    }));
  at("routers").textContent = (found.routers.length > 1 ? "Routers: " : "Router: ") +
    found.routers.map((one) => one.name + (one.default && found.routers.length > 1 ? " (auto)" : "")).join(", ") +
    ". Routed on: " + found.route_on.replace("_", " ") + ".";
  const names = ["auto", ...found.routers.map((one) => one.name), ...found.models.map((one) => one.name)];
  const list = at("model");
  if (names.join("\n") !== [...list.options].map((one) => one.value).join("\n")) {
    const chosen = list.value;
    list.replaceChildren(...names.map((name) => make("option", name)));
    list.value = names.includes(chosen) ? chosen : "auto";
  }
}
function showDecisions(found) {
  at("none").hidden = found.length > 0;
  at("decisions").hidden = found.length === 0;
  const texts = found.some((one) => one.text);
  const heads = [["Time", "time"], ["Router", "name hide"], ["LLM", "name"], ["Cost", "number"],
    ["Took", "number hide"], ...(texts ? [["Text", "why"]] : []), ["Why", "why"]];
  table(at("decisions"), heads, found.slice(0, 20).map((one) => {
    const when = new Date(one.time * 1000).toLocaleTimeString();
    const name = one.answered || one.chosen;
    const llm = one.answered || !one.error ? name : make("span", name + " failed", "error");
    return [when, one.router, llm, dollars(one.cost_usd ?? one.predicted_cost_usd), seconds(one.seconds),
      ...(texts ? [one.text] : []), one.error && one.error.replace(/^\w+Error: /, "") || (one.failed.length ? one.failed.join(", ") + " did not answer; " : "") + one.reason];
  }));
}
async function refresh() {
  try {
    showStatus(await read("v1/status"));
    showDecisions((await read("v1/decisions")).decisions);
    at("locked").hidden = true;
  } catch (error) {
    if (error.locked) {
      at("locked").hidden = false;
      at("status").textContent = "needs a key";
    } else {
      at("status").textContent = "not reachable";
      at("status").className = "state failed";
    }
  }
}
function showRanking(decision) {
  at("more").hidden = decision.ranking.length < 2;
  table(at("ranking"), [["LLM", "name"], ["Predicted quality", "number"], ["Predicted cost", "number"]],
    decision.ranking.map((name) => {
      const quality = decision.quality[name];
      return [name, quality === undefined ? null : quality.toFixed(3), dollars(decision.cost_usd[name])];
    }));
}
function tell(text, kind) {
  at("told").textContent = text;
  at("told").className = "small " + (kind || "soft");
}
function take(data) {
  if (data.error) throw new Error(data.error.message);
  const decision = data.waypost && data.waypost.decision;
  if (decision) {
    showRanking(decision);
    tell(data.model + ": " + decision.reason);
  }
  for (const choice of data.choices) at("answer").append(choice.delta.content || "");
  const way = data.usage && data.usage.waypost;
  if (way) {
    const parts = [way.model, way.cost_usd === null ? "no price" : dollars(way.cost_usd),
      data.usage.prompt_tokens + " + " + data.usage.completion_tokens + " tokens", seconds(way.seconds)];
    tell(parts.join(" \u00B7 ") + ". " + way.reason);
  }
}
async function ask(event) {
  event.preventDefault();
  const text = at("question").value.trim();
  if (!text) return at("question").focus();
  const waypost = { explain: true };
  if (lambda() !== null) waypost.lambda = lambda();
  at("send").disabled = true;
  at("result").hidden = false;
  at("more").hidden = true;
  at("answer").textContent = "";
  tell("asking");
  try {
    const reply = await fetch(base + "v1/chat/completions", {
      method: "POST",
      headers: { "content-type": "application/json", ...headers() },
      body: JSON.stringify({ model: at("model").value, stream: true, stream_options: { include_usage: true },
        messages: [{ role: "user", content: text }], waypost }),
    });
    if (!reply.ok) throw new Error((await reply.json()).error.message);
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const blocks = (rest + part.value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const data = block.replace(/^data: /, "");
        if (data !== "[DONE]") take(JSON.parse(data));
      }
    }
  } catch (error) {
    tell(error.message || "the gateway cannot be reached", "error");
  }
  at("send").disabled = false;
  refresh();
}
at("dial").addEventListener("input", () => { at("lambda").textContent = lambda() ?? "default"; });
at("ask").addEventListener("submit", ask);
at("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("ask").requestSubmit();
});
at("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("waypost-key", at("key").value.trim());
  at("key").value = "";
  refresh();
});
refresh();
setInterval(() => { if (!document.hidden) refresh(); }, AGAIN_MS);
