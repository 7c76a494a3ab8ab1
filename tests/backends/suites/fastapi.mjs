// FastAPI with sse-starlette, and clients that know nothing of Sidestream: a plain Python one, and fetch.
import { python, tools } from "../lib/tools.mjs";
import { serve } from "../lib/process.mjs";
import { events, sidecar } from "../lib/sidecar.mjs";
import { check, recipe, same, truly } from "../lib/suite.mjs";

const name = "FastAPI";
const said = (events) => events.map((data) => (typeof data === "string" ? data : JSON.stringify(data)));

export async function run() {
  const backend = await serve("fastapi", tools.python, ["servers/fastapi_app.py", tools.pages]);
  const ss = await sidecar(backend.url, recipe("fastapi"));
  const ask = (url, thread, headers) => ({ url: `${url}/api/chat`, json: { thread_id: thread, message: "hi" }, headers });
  const post = (url, thread, message = "hi", more = {}) => fetch(`${url}/api/chat`, {
    method: "POST", body: JSON.stringify({ thread_id: thread, message }), headers: { "content-type": "application/json", ...more.headers }, signal: more.signal,
  });
  let whole;

  await check(name, "fetch", "the bytes and the backend's headers are those of a direct call", async () => {
    const direct = await post(backend.url, "a"), through = await post(ss.url, "a");
    for (const header of ["content-type", "cache-control", "x-accel-buffering", "x-app"]) same(through.headers.get(header), direct.headers.get(header));
    const bytes = [await direct.text(), await through.text()];
    same(bytes[1], bytes[0]);
    truly(bytes[0].includes("\r\n\r\n"), "sse-starlette writes CRLF");
  });

  await check(name, "httpx-sse (Python)", "the events are those of a direct call", async () => {
    const direct = await python("sse_post", ask(backend.url, "b")).finished();
    const through = await python("sse_post", ask(ss.url, "b")).finished();
    same(through, direct);
    whole = direct.filter((e) => e.data).map((e) => e.data);
  });

  await check(name, "httpx-sse (Python)", "killed mid-answer: the run completes, and a second device has seen all of it", async () => {
    const device = await ss.device("killed");
    const client = python("sse_post", ask(ss.url, "killed"));
    await client.says("five events", (_, lines) => lines.length > 5);
    await client.kill();
    const end = await ss.ended("killed");
    same(end.state, "completed");
    await device.ended();
    device.close();
    same(said(events(device.entries)), said(events(await ss.entries("killed"))));
    same(events(device.entries).map((d) => (typeof d === "string" ? d : d.token ?? JSON.stringify(d))), whole.map(decoded));
    const input = device.entries.find((e) => e.type === "input");
    same(input?.json, "hi");
    same(ss.seen.requests.filter((r) => r.hungUp).length, 0);
  });

  await check(name, "SSE of the session", "a device that comes late reads the same entries", async () => {
    same((await ss.readBySse("killed")).map((e) => e.offset), (await ss.entries("killed")).map((e) => e.offset));
  });

  await check(name, "fetch", "Stop, from any device, closes the backend's stream", async () => {
    ss.seen.forget();
    const device = await ss.device("stopped");
    const client = python("sse_post", ask(ss.url, "stopped"));
    await client.says("five events", (_, lines) => lines.length > 5);
    const { outcome } = await ss.cancel("stopped");
    same(outcome, "cancelled");
    same((await device.ended()).state, "cancelled");
    device.close();
    same(ss.seen.requests.map((r) => r.hungUp), [true]);
    const last = (await client.finished()).at(-1);
    truly(last.end !== "clean", "the direct caller must not believe that the answer is complete");
  });

  await check(name, "fetch", "the same Idempotency-Key twice is one call of the backend", async () => {
    ss.seen.forget();
    const headers = { "idempotency-key": crypto.randomUUID() };
    const both = await Promise.all([post(ss.url, "twice", "hi", { headers }), post(ss.url, "twice", "hi", { headers })]);
    const texts = await Promise.all(both.map((r) => r.text()));
    same(data(texts[0]), data(texts[1]));
    same(ss.seen.asked("POST", "/api/chat").length, 1);
  });

  await check(name, "httpx-sse (Python)", "a generator that raises ends as directly: as an error, not politely", async () => {
    const direct = await python("sse_post", { url: `${backend.url}/api/broken`, json: {} }).finished();
    const through = await python("sse_post", { url: `${ss.url}/api/broken`, json: {} }).finished();
    same(through, direct);
    truly(direct.at(-1).end !== "clean");
  });

  await ss.stop();
  await backend.kill();
}

const decoded = (data) => { try { return JSON.parse(data).token; } catch { return data; } };
const data = (body) => body.split(/\r?\n/).filter((line) => line.startsWith("data")).map((line) => line.replace(/^data: ?/, ""));
