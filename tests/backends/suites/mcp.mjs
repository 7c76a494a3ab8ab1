// MCP servers over Streamable HTTP (TypeScript and Python SDK) with both SDKs' clients.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { CallToolResultSchema } from "@modelcontextprotocol/sdk/types.js";
import { serve, until } from "../lib/process.mjs";
import { events, sidecar } from "../lib/sidecar.mjs";
import { check, recipe, same, truly } from "../lib/suite.mjs";
import { javascript, python, tools } from "../lib/tools.mjs";

const TO = 20;
const counting = (to = TO) => ({ method: "tools/call", params: { name: "count", arguments: { to } } });
const whole = { text: `counted to ${TO}`, progress: Array.from({ length: TO }, (_, n) => n + 1) };

/** A connected client, of an existing MCP session where one is named. */
async function connect(url, sessionId) {
  const client = new Client({ name: "tests", version: "1.0.0" });
  const transport = new StreamableHTTPClientTransport(new URL(`${url}/mcp`), { sessionId });
  await client.connect(transport);
  return { client, transport };
}

async function count(client, options = {}) {
  const progress = [];
  const onprogress = ({ progress: n }) => { progress.push(n); options.after?.(n); };
  const result = await client.request(counting(), CallToolResultSchema, { onprogress, ...options });
  return { text: result.content[0].text, progress };
}

async function suite(name, backend, resumable) {
  const ss = await sidecar(backend.url, recipe("mcp"));

  await check(name, "@modelcontextprotocol/sdk", "a tool call with progress is that of a direct call", async () => {
    for (const url of [backend.url, ss.url]) {
      const { client, transport } = await connect(url);
      same((await client.listTools()).tools.map((tool) => tool.name), ["count"]);
      same(await count(client), whole);
      await transport.terminateSession();
      await client.close();
    }
  });

  for (const mode of tools.withPython ? ["legacy", "auto"] : []) {
    await check(name, "mcp (Python)", `${mode}: a tool call with progress is that of a direct call`, async () => {
      const answers = [];
      for (const url of [backend.url, ss.url]) answers.push(await python("mcp_client", { url, to: TO, mode }).finished());
      same(answers[1], answers[0]);
      same(answers[0].at(-1).text, whole.text);
      return `protocol ${answers[0][0].protocol}`;
    });
  }

  await check(name, "@modelcontextprotocol/sdk", "gone mid-call: the run completes, and a second device has the result", async () => {
    ss.seen.forget();
    const { client, transport } = await connect(ss.url);
    const session = transport.sessionId;
    const device = await ss.device(session, "end");
    count(client, { after: (n) => n === 5 && transport.close() }).catch(() => {});
    const end = await until("the tool's result", () => events(device.entries).find((e) => e?.result?.content));
    same(end.result.content[0].text, whole.text);
    same(events(device.entries).filter((e) => e?.method === "notifications/progress").map((e) => e.params.progress), whole.progress);
    device.close();
  });

  if (resumable) {
    // What the SDK's own resumption does: a GET with the last id that was seen, on the same MCP session.
    const resumed = async (url, others = 0) => {
      const first = await connect(url);
      let token;
      const before = [];
      const leave = (n) => { before.push(n); if (n === 5) first.transport.close(); };
      count(first.client, { after: leave, onresumptiontoken: (id) => (token = id) }).catch(() => {});
      await until("the first notification", () => before.length > 0);
      for (let n = 0; n < others; n += 1) count(first.client).catch(() => {});
      await until("the fifth notification", () => before.length >= 5);
      const session = first.transport.sessionId;
      const second = await connect(url, session);
      const result = await second.client.request(counting(), CallToolResultSchema, { resumptionToken: token, timeout: 8000 });
      await second.client.close();
      return { session, text: result.content[0].text };
    };

    for (const others of [0, 1]) {
      const beside = others ? "with another call in the same MCP session" : "by the id of the server's own";
      await check(name, "@modelcontextprotocol/sdk", `resumption ${beside}: the client gets its result, and so does the session`, async () => {
        same((await resumed(backend.url, others)).text, whole.text);
        ss.seen.forget();
        const { session, text } = await resumed(ss.url, others);
        same(text, whole.text);
        // A server that is asked for the rest takes it away from the stream that Sidestream reads.
        const results = async () => events(await ss.entries(session)).filter((e) => e?.result?.content).map((e) => e.result.content[0].text);
        await until("the results in the session", async () => (await results()).length > others, 5000);
        same(await results(), Array(others + 1).fill(whole.text));
        same(ss.seen.asked("GET", "/mcp").filter((r) => /^last-event-id:/im.test(r.head)).length, 0);
      });
    }
  }

  await check(name, "@modelcontextprotocol/sdk", "the client's own cancel reaches the server", async () => {
    ss.seen.forget();
    const { client } = await connect(ss.url);
    const stop = new AbortController();
    const error = await count(client, { signal: stop.signal, after: (n) => n === 5 && stop.abort() }).then(() => undefined, (thrown) => thrown);
    truly(error);
    await until("the cancellation", () => ss.seen.requests.some((r) => r.answer.startsWith("HTTP/1.1 202") && r.method === "POST"));
    if (resumable) await until("the tool's end", async () => (await (await fetch(`${backend.url}/calls`)).json()).cancelled > 0);
    await client.close();
  });

  await check(name, "fetch", "the notification stream (GET) passes through untouched", async () => {
    const { client, transport } = await connect(ss.url);
    await client.close();
    const gone = new AbortController();
    const answer = await fetch(`${ss.url}/mcp`, {
      headers: { accept: "text/event-stream", "mcp-session-id": transport.sessionId, "mcp-protocol-version": "2025-11-25" }, signal: gone.signal,
    });
    // The SDK's client had it open; where the server still thinks so, it says 409.
    truly([200, 409].includes(answer.status), `status ${answer.status}`);
    if (answer.status === 200) same(answer.headers.get("sidestream-durable"), "no");
    gone.abort();
  });

  await ss.stop();
  await backend.kill();
}

export const typescript = async () => suite("MCP (TypeScript SDK)", await serve(...javascript("mcp")), true);

export async function run() {
  await typescript();
  const app = () => serve("mcp", tools.python, ["servers/mcp_app.py"]);
  await suite("MCP (Python SDK)", await app(), false);
  await closingIsCancelling(await app());
}

/** From 2026-07-28 on the end of the connection is the client's cancel. */
async function closingIsCancelling(backend) {
  const ss = await sidecar(backend.url, recipe("mcp"));
  await check("MCP (Python SDK)", "mcp (Python)", "2026-07-28: a client that is killed mid-call ends the call at the server", async () => {
    const client = python("mcp_client", { url: ss.url, to: 1000, mode: "2026-07-28" });
    await client.says("progress", () => client.messages().some((m) => m.progress === 5));
    await client.kill();
    await until("the call's connection is closed", () => ss.seen.requests.at(-1).hungUp);
  });
  await ss.stop();
  await backend.kill();
}
