// A LangGraph server (`langgraph dev`, in memory, without a key) with the LangGraph SDKs for Python and JavaScript.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { Client } from "@langchain/langgraph-sdk";
import { loopbackOnly } from "../lib/loopback.mjs";
import { Child, until } from "../lib/process.mjs";
import { events, sidecar } from "../lib/sidecar.mjs";
import { check, recipe, same, truly } from "../lib/suite.mjs";
import { freePort, python, tools } from "../lib/tools.mjs";
import { witness } from "../lib/witness.mjs";

const name = "LangGraph";
const whole = Array.from({ length: 40 }, (_, n) => `${n}:hi`).join(" ");

/** `langgraph dev`: nothing is traced, nothing is reported, nothing is looked up. */
async function langgraph() {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "sidestream-langgraph-"));
  fs.cpSync("servers/langgraph", dir, { recursive: true });
  const port = await freePort();
  const args = ["-m", "langgraph_cli", "dev", "--no-browser", "--no-reload", "--host", "127.0.0.1", "--port", String(port), "--n-jobs-per-worker", "4"];
  const env = {
    ...process.env, LANGSMITH_TRACING: "false", LANGCHAIN_TRACING_V2: "false", LANGGRAPH_CLI_NO_ANALYTICS: "1", LANGGRAPH_NO_VERSION_CHECK: "1", NO_COLOR: "1",
  };
  for (const key of ["LANGSMITH_API_KEY", "LANGCHAIN_API_KEY", "LANGGRAPH_CLOUD_LICENSE_KEY"]) delete env[key];
  const backend = new Child("langgraph", tools.python, args, { cwd: dir, env });
  backend.watch = loopbackOnly(backend.child.pid);
  const url = `http://127.0.0.1:${port}`;
  await until("the LangGraph server", () => fetch(`${url}/ok`).then((r) => r.ok, () => false), 60_000);
  backend.url = url;
  backend.tidy = () => fs.rmSync(dir, { recursive: true, force: true });
  return backend;
}

export async function run() {
  const backend = await langgraph();
  const ss = await sidecar(backend.url, recipe("langgraph"));
  const js = (url) => new Client({ apiUrl: url, apiKey: null });
  const input = { messages: [{ role: "user", content: "hi" }] };
  const spoken = (parts) => parts.filter((p) => p.event === "messages").map((p) => p.text ?? p.data[0].content).join("");
  // Ids, run and message names differ from run to run.
  const plain = (parts) => parts.map(({ event, text, values }) => ({ event, text, values }));
  // LangGraph's own join now and then repeats an event where what was stored meets what is live, also without Sidestream.
  const once = (parts) => parts.filter(({ id }, n) => !id || parts.findIndex((part) => part.id === id) === n);
  const session = (thread) => ss.entries(thread);

  await check(name, "langgraph-sdk (Python)", "the parts of a stream are those of a direct call", async () => {
    const [direct, through] = [await python("langgraph_client", { url: backend.url, do: "stream" }).finished(), await python("langgraph_client", { url: ss.url, do: "stream" }).finished()];
    same(plain(through), plain(direct));
    same(spoken(direct), whole);
    truly(through.filter((p) => p.event).every((p) => p.id), "resumable ids pass through");
    return `${direct.length} parts`;
  });

  await check(name, "@langchain/langgraph-sdk", "the parts of a stream are those of a direct call", async () => {
    const parts = async (url) => {
      const { thread_id } = await js(url).threads.create();
      const all = [];
      for await (const { event, data } of js(url).runs.stream(thread_id, "agent", { input, streamMode: ["messages-tuple", "values"], streamResumable: true })) {
        // What the server's heartbeats look like, every 5 s.
        if (event) all.push({ event, text: event === "messages" ? data[0].content : undefined, values: event === "values" ? data.messages.map((m) => m.content) : undefined });
      }
      return all;
    };
    const direct = await parts(backend.url);
    same(await parts(ss.url), direct);
    same(spoken(direct), whole);
  });

  await check(name, "langgraph-sdk (Python)", "killed mid-answer: the run completes, a second device has all of it, join_stream gives the rest", async () => {
    const client = python("langgraph_client", { url: ss.url, do: "stream" });
    const { thread, run } = await client.says("its run", () => client.messages().find((m) => m.run));
    const device = await ss.device(thread);
    await client.says("some parts", () => client.messages().length > 10);
    await client.kill();
    const before = client.messages();
    const joined = await python("langgraph_client", { url: ss.url, do: "join", thread, run, last_event_id: before.at(-1).id }).finished();
    same((await device.ended()).state, "completed");
    device.close();
    const all = device.entries.filter((e) => e.type === "event");
    same(all.filter((e) => e.event === "messages").map((e) => e.json[0].content).join(""), whole);
    same(spoken(once([...before, ...joined])), whole);
    same(once([...before, ...joined]).filter((p) => p.id).map((p) => p.id), all.map((e) => e.id));
    const direct = await python("langgraph_client", { url: backend.url, do: "join", thread, run, last_event_id: before.at(-1).id }).finished();
    same(once(joined), once(direct), "as LangGraph itself resumes it");
  });

  await check(name, "@langchain/langgraph-sdk", "joinStream from the start gives what the session has", async () => {
    const client = js(ss.url);
    const { thread_id } = await client.threads.create();
    let run;
    for await (const part of client.runs.stream(thread_id, "agent", { input, streamMode: "messages-tuple", streamResumable: true, onRunCreated: (created) => (run = created.run_id) })) {
      if (part.event === "messages" && part.data[0].content.startsWith("3:")) break;
    }
    const parts = [];
    for await (const part of client.runs.joinStream(thread_id, run, { lastEventId: "-1" })) parts.push(part);
    same(spoken(once(parts)), whole);
    await ss.ended(thread_id);
    same(spoken((await session(thread_id)).filter((e) => e.type === "event").map((e) => ({ event: e.event, data: e.json }))), whole);
  });

  for (const resume of ["langgraph-sdk (Python)", "@langchain/langgraph-sdk"]) {
    await check(name, resume, "the network goes mid-answer: the SDK reconnects by `Location` with its last id and misses nothing", async () => {
      const network = await witness(ss.url);
      const parts = [];
      const cut = () => { if (parts.length === 12) network.cut(); };
      let thread;
      if (resume.includes("Python")) {
        const client = python("langgraph_client", { url: network.url, do: "stream" });
        ({ thread } = await client.says("its run", () => client.messages().find((m) => m.run)));
        await client.says("some parts", () => client.messages().length > 10);
        network.cut();
        parts.push(...(await client.finished()));
      } else {
        const client = js(network.url);
        ({ thread_id: thread } = await client.threads.create());
        for await (const part of client.runs.stream(thread, "agent", { input, streamMode: "messages-tuple", streamResumable: true })) {
          parts.push(part);
          cut();
        }
      }
      same(spoken(once(parts)), whole);
      const rejoined = network.asked("GET", `/threads/${thread}/runs/`).filter((r) => r.path.endsWith("/stream"));
      truly(rejoined.length > 0 && rejoined.every((r) => /^last-event-id: \d/im.test(r.head)), "it came back by GET with its last id");
      same((await ss.ended(thread)).state, "completed");
      same(spoken((await session(thread)).filter((e) => e.type === "event").map((e) => ({ event: e.event, data: e.json }))), whole);
      network.stop();
    });
  }

  await check(name, "langgraph-sdk (Python)", "its own cancel works, and the run's stream ends everywhere", async () => {
    const client = python("langgraph_client", { url: ss.url, do: "stream", asked: "stop" });
    const { thread, run } = await client.says("its run", () => client.messages().find((m) => m.run));
    await client.says("some parts", () => client.messages().length > 10);
    const [{ status }] = await python("langgraph_client", { url: ss.url, do: "cancel", thread, run }).finished();
    const { state } = await ss.ended(thread);
    await client.done;
    truly(!events(await session(thread)).some((data) => JSON.stringify(data).includes("1999:stop")), "it was stopped");
    return `LangGraph says ${status}, the session ${state}`;
  });

  await check(name, "@langchain/langgraph-sdk", "Stop from another device cancels the run in LangGraph", async () => {
    const client = python("langgraph_client", { url: ss.url, do: "stream", asked: "stop", on_disconnect: "continue" });
    const { thread, run } = await client.says("its run", () => client.messages().find((m) => m.run));
    await client.says("some parts", () => client.messages().length > 10);
    same((await ss.cancel(thread)).outcome, "cancelled");
    const status = await until("LangGraph's own run to end", async () => {
      const { status } = await js(backend.url).runs.get(thread, run);
      return !["pending", "running"].includes(status) && status;
    });
    same(status, "interrupted");
    same((await ss.ended(thread)).state, "cancelled");
    await client.done;
  });

  await check(name, "-", "the server has spoken to nobody outside", () => {
    same(backend.watch.strangers(), []);
    return `${backend.watch.looked()} looks`;
  });

  await ss.stop();
  await backend.kill("SIGINT");
  backend.tidy();
}
