// Runs Node clients of OpenAI's API and prints what they saw, as python_clients.py does.
// node node_clients.mjs NAME=URL ...; run where node_modules has the clients.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import path from "node:path";

const root = process.env.WAYPOST_NODE_CLIENTS;
const require = createRequire(path.join(root, "package.json"));
const load = async (name) => import(pathToFileURL(require.resolve(name)).href);
const versionOf = (name) =>
  JSON.parse(readFileSync(path.join(root, "node_modules", name, "package.json"))).version;

const RESULTS = { call_a: "rain", call_b: "12:00" };
const [MODEL, LOCAL] = ["cook", "tiny"];
const SCHEMA = {
  type: "object",
  properties: { city: { type: "string", maxLength: 9 }, people: { type: "integer" } },
  required: ["city", "people"],
  additionalProperties: false,
};
const FORM = { type: "json_schema", json_schema: { name: "City", strict: true, schema: SCHEMA } };
const tool = (name, field) => ({
  type: "function",
  function: {
    name,
    parameters: { type: "object", properties: { [field]: { type: "string" } }, required: [field] },
  },
});
const TOOLS = [tool("get_weather", "city"), tool("get_time", "tz")];
const user = (name) => [{ role: "user", content: `Case ${name}` }];

async function openaiCells(url) {
  const { OpenAI } = await load("openai");
  const client = new OpenAI({ baseURL: url, apiKey: "sk-x", maxRetries: 0, timeout: 60000 });
  const create = (fields) => client.chat.completions.create({ model: MODEL, ...fields });
  const whole = async (name, more = {}) =>
    (await create({ messages: user(name), ...more })).choices[0].message;
  const chunks = async (name, more = {}) => {
    const options = { stream: true, stream_options: { include_usage: true } };
    const found = [];
    for await (const c of await create({ messages: user(name), ...options, ...more })) found.push(c);
    return found;
  };
  const joined = async (name, field, more = {}) =>
    (await chunks(name, more)).map((c) => c.choices[0]?.delta[field] ?? "").join("");
  const calls = (found) =>
    found.map((c) => [c.id, c.function.name, JSON.parse(c.function.arguments)]);
  const usage = (u) => [
    u.prompt_tokens,
    u.completion_tokens,
    u.prompt_tokens_details.cached_tokens,
    u.completion_tokens_details.reasoning_tokens,
  ];
  const local = (more = {}) =>
    create({ model: LOCAL, messages: user("x"), temperature: 0, max_tokens: 20, seed: 1, ...more });
  return {
    "whole/whole": async () => (await whole("whole")).content,
    "stream/stream": async () => {
      const found = (await chunks("whole")).map((c) => c.choices[0]?.delta.content ?? "");
      if (found.filter(Boolean).length < 2) throw new Error("one piece");
      return found.join("");
    },
    "parallel tools/whole": async () => {
      const message = await whole("tools", { tools: TOOLS, parallel_tool_calls: true });
      const turn = [...user("tools"), message];
      for (const [id, content] of Object.entries(RESULTS))
        turn.push({ role: "tool", tool_call_id: id, content });
      const answer = (await create({ messages: turn, tools: TOOLS })).choices[0].message.content;
      return [calls(message.tool_calls), answer];
    },
    "parallel tools/stream": async () => {
      const stream = client.chat.completions.stream({
        model: MODEL, messages: user("tools"), tools: TOOLS,
      });
      return calls((await stream.finalChatCompletion()).choices[0].message.tool_calls);
    },
    "reasoning/whole": async () => {
      const message = await whole("reasoning");
      return [message.reasoning_content, message.content];
    },
    "reasoning/stream": () => joined("reasoning", "reasoning_content"),
    "refusal/whole": async () => {
      const message = await whole("refusal");
      return [message.refusal, message.content];
    },
    "refusal/stream": () => joined("refusal", "refusal"),
    "structured output/whole": async () => {
      const done = await client.chat.completions.parse({
        model: MODEL, messages: user("structured"), response_format: FORM,
      });
      return JSON.parse(done.choices[0].message.content);
    },
    "structured output/stream": async () =>
      JSON.parse(await joined("structured", "content", { response_format: FORM })),
    "usage/whole": async () => usage((await create({ messages: user("whole") })).usage),
    "usage/stream": async () => usage((await chunks("whole")).filter((c) => c.usage).at(-1).usage),
    "local LLM/whole": async () => (await local()).choices[0].message.content,
    "local LLM/stream": async () => {
      let text = "";
      for await (const c of await local({ stream: true })) text += c.choices[0]?.delta.content ?? "";
      return text;
    },
    "local LLM/structured": async () =>
      JSON.parse((await local({ response_format: FORM, max_tokens: 60 })).choices[0].message.content),
  };
}

async function aiCells(url) {
  const ai = await load("ai");
  const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
  const provider = createOpenAICompatible({
    name: "waypost", baseURL: url, apiKey: "sk-x", includeUsage: true,
    supportsStructuredOutputs: true,
  });
  globalThis.AI_SDK_LOG_WARNINGS = false;
  const base = { model: provider(MODEL), maxRetries: 0 };
  const ask = (name, more = {}) => ai.generateText({ ...base, prompt: `Case ${name}`, ...more });
  const stream = (name, more = {}) => ai.streamText({
    ...base, prompt: `Case ${name}`, onError: () => {}, ...more,
  });
  const schema = ai.jsonSchema(SCHEMA);
  const made = (field, wanted, result) => ai.tool({
    inputSchema: ai.jsonSchema({
      type: "object", properties: { [field]: { type: "string" } }, required: [field],
    }),
    execute: async (input) => (input[field] === wanted ? result : "?"),
  });
  const tools = {
    get_weather: made("city", "Oslo", RESULTS.call_a),
    get_time: made("tz", "UTC", RESULTS.call_b),
  };
  const calls = (found) => found.map((c) => [c.toolCallId, c.toolName, c.input]);
  const usage = (u) => [
    u.inputTokens, u.outputTokens,
    u.inputTokenDetails?.cacheReadTokens ?? u.cachedInputTokens,
    u.outputTokenDetails?.reasoningTokens ?? u.reasoningTokens,
  ];
  const local = { model: provider(LOCAL), temperature: 0, maxOutputTokens: 20, seed: 1 };
  return {
    "whole/whole": async () => (await ask("whole")).text,
    "stream/stream": async () => {
      const found = [];
      for await (const text of stream("whole").textStream) found.push(text);
      if (found.length < 2) throw new Error("one piece");
      return found.join("");
    },
    "parallel tools/whole": async () => {
      const done = await ask("tools", { tools, stopWhen: ai.stepCountIs(3) });
      return [calls(done.steps[0].toolCalls), done.text];
    },
    "parallel tools/stream": async () => calls(await stream("tools", { tools }).toolCalls),
    "reasoning/whole": async () => {
      const done = await ask("reasoning");
      return [done.reasoningText, done.text];
    },
    "reasoning/stream": async () => await stream("reasoning").reasoningText,
    "structured output/whole": async () =>
      (await ask("structured", { output: ai.Output.object({ schema }) })).output,
    "structured output/stream": async () => {
      const done = stream("structured", { output: ai.Output.object({ schema }) });
      let last;
      for await (const part of done.partialOutputStream) last = part;
      return last;
    },
    "usage/whole": async () => usage((await ask("whole")).usage),
    "usage/stream": async () => usage(await stream("whole").usage),
    "local LLM/whole": async () => (await ask("x", local)).text,
    "local LLM/stream": async () => {
      let text = "";
      for await (const piece of stream("x", local).textStream) text += piece;
      return text;
    },
    "local LLM/structured": async () =>
      (await ask("x", { ...local, maxOutputTokens: 60, output: ai.Output.object({ schema }) })).output,
  };
}

const CLIENTS = {
  "openai (Node)": ["openai", openaiCells],
  "ai + @ai-sdk/openai-compatible": ["@ai-sdk/openai-compatible", aiCells],
};

for (const [client, [name, make]] of Object.entries(CLIENTS)) {
  const version = name === "openai" ? versionOf(name) : `${versionOf("ai")} + ${versionOf(name)}`;
  for (const [server, url] of process.argv.slice(2).map((text) => text.split(/=(.*)/s))) {
    for (const [key, run] of Object.entries(await make(url))) {
      const [column, mode] = key.split("/");
      if (column === "local LLM" && server === "direct") continue;
      const found = {};
      try {
        found.seen = (await run()) ?? null;
      } catch (error) {
        found.error = `${error.name}: ${String(error.message).slice(0, 300)}`;
      }
      console.log(JSON.stringify({ client, version, server, column, mode, ...found }));
    }
  }
}
