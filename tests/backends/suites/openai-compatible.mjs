// An OpenAI-compatible backend (recorded answers) with the official clients, for Python and Node.
import fs from "node:fs";
import path from "node:path";
import { createHash } from "node:crypto";
import OpenAI from "openai";
import { until, serve } from "../lib/process.mjs";
import { events, sidecar } from "../lib/sidecar.mjs";
import { check, recipe, same, truly } from "../lib/suite.mjs";
import { javascript, python } from "../lib/tools.mjs";

const name = "OpenAI-compatible";
const index = JSON.parse(fs.readFileSync(path.join(process.env.BACKENDS_ROOT, "tests/data/sse/visible/index.json")));
const digest = (text) => createHash("sha256").update(text).digest("hex");
const recorded = (model) => index.find(({ file }) => file === `${model}.sse`);
const textOf = (entries) => events(entries).flatMap((e) => e.choices ?? []).map((choice) => choice.delta?.content ?? "").join("");

export async function run() {
  const backend = await serve(...javascript("replay"));
  const ss = await sidecar(backend.url, recipe("openai-compatible"));
  const client = (url, session) => new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", defaultHeaders: session ? { "Sidestream-Session": session } : {} });
  const messages = [{ role: "user", content: "hi" }];
  const chat = "openai-chat__openai-text", responses = "openai-responses__openai-text";

  for (const model of [chat, "openai-chat__openrouter-comments-reasoning", "openai-chat__mistral-magistral"]) {
    await check(name, "openai (Node)", `${model}: every chunk is that of a direct call`, async () => {
      const chunks = async (url) => {
        const all = [];
        for await (const chunk of await client(url).chat.completions.create({ model, messages, stream: true })) all.push(chunk);
        return all;
      };
      const [direct, through] = [await chunks(backend.url), await chunks(ss.url)];
      same(through, direct);
      return `${direct.length} chunks`;
    });
  }

  await check(name, "openai (Node)", "responses.stream: the final response is that of a direct call", async () => {
    const final = async (url) => client(url).responses.stream({ model: responses, input: "hi" }).finalResponse();
    same(await final(ss.url), await final(backend.url));
  });

  for (const [api, model] of [["chat", chat], ["responses", responses]]) {
    await check(name, "openai (Python)", `${api}: the result is that of a direct call`, async () => {
      const [direct, through] = [backend.url, ss.url].map((url) => python("openai_chat", { url, model, api }));
      same(await through.finished(), await direct.finished());
      same(digest(through.messages().at(-1).text), recorded(model).text_sha256);
    });
  }

  await check(name, "openai (Python)", "killed mid-answer: the run completes, and a second device has the whole text", async () => {
    ss.seen.forget();
    const device = await ss.device("python");
    const child = python("openai_chat", { url: ss.url, model: chat, headers: { "Sidestream-Session": "python" } });
    await child.says("a delta", (_, lines) => lines.length > 2);
    await child.kill();
    same((await device.ended()).state, "completed");
    device.close();
    same(digest(textOf(device.entries)), recorded(chat).text_sha256);
    same(ss.seen.requests.map((r) => [r.method, r.hungUp]), [["POST", false]]);
  });

  await check(name, "openai (Node)", "aborted mid-answer: the run completes, and a second device has the whole text", async () => {
    ss.seen.forget();
    const device = await ss.device("node");
    const stream = await client(ss.url, "node").chat.completions.create({ model: chat, messages, stream: true });
    for await (const chunk of stream) if (chunk.choices[0]?.delta?.content) break;
    same((await device.ended()).state, "completed");
    device.close();
    same(digest(textOf(device.entries)), recorded(chat).text_sha256);
    same(ss.seen.requests.map((r) => r.hungUp), [false]);
  });

  await check(name, "openai (Node)", "Stop from another device: the backend's connection is closed, the client's stream throws", async () => {
    ss.seen.forget();
    const stream = await client(ss.url, "stop").chat.completions.create({ model: chat, messages, stream: true });
    let chunks = 0, error;
    try {
      for await (const _ of stream) if ((chunks += 1) === 2) same((await ss.cancel("stop")).outcome, "cancelled");
    } catch (thrown) { error = thrown; }
    truly(error, "the client must not believe that the answer is complete");
    same(ss.seen.requests.map((r) => r.hungUp), [true]);
    return error.constructor.name;
  });

  await check(name, "fetch", "a run that is begun through the API of Sidestream reaches the backend as a plain request", async () => {
    ss.seen.forget();
    const body = { model: chat, messages, stream: true };
    const sent = await fetch(`${ss.api}/sessions/sent/runs`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ path: "/v1/chat/completions", body }) });
    same(sent.status, 202);
    same((await ss.ended("sent")).state, "completed");
    same(digest(textOf(await ss.entries("sent"))), recorded(chat).text_sha256);
    same(ss.seen.requests.length, 1);
  });

  await check(name, "openai (Node)", "a request without `stream` passes through as it is", async () => {
    await until("the 404", async () => (await fetch(`${ss.url}/v1/chat/completions`, { method: "POST", body: '{"model":"none"}' })).status === 404);
    const error = await client(ss.url).chat.completions.create({ model: "none", messages }).catch((e) => e);
    same(error.status, 404);
  });

  await ss.stop();

  const ollama = await sidecar(backend.url, recipe("openai-compatible", 1));
  await check("Ollama", "fetch", "its lines pass unchanged; a caller that leaves loses nothing, and the session has every line", async () => {
    const file = "ollama-ndjson__chat";
    const ask = (url, more) => fetch(`${url}/api/chat`, { method: "POST", body: JSON.stringify({ model: file, messages }), ...more });
    const direct = await (await ask(backend.url)).text();
    const through = await ask(ollama.url);
    same([await through.text(), through.headers.get("content-type")], [direct, "application/x-ndjson"]);
    const left = await ask(ollama.url, { headers: { "Sidestream-Session": "left" } });
    await left.body.cancel();
    same((await ollama.ended("left")).state, "completed");
    same(events(await ollama.entries("left")), direct.trim().split("\n").map((line) => JSON.parse(line)));
  });
  await ollama.stop();
  await backend.kill();
}
