// An AG-UI backend with the protocol's own client.
import { HttpAgent } from "@ag-ui/client";
import { serve, until } from "../lib/process.mjs";
import { events, sidecar } from "../lib/sidecar.mjs";
import { check, recipe, same, truly } from "../lib/suite.mjs";
import { javascript } from "../lib/tools.mjs";

const name = "AG-UI";

export async function run() {
  // The client prints every failed run, also those that a test wants.
  const print = console.error;
  console.error = () => {};
  const backend = await serve(...javascript("ag-ui"));
  const ss = await sidecar(backend.url, recipe("ag-ui"));
  const agent = (url, threadId, content = "hi") => new HttpAgent({ url: `${url}/agent`, threadId, initialMessages: [{ id: "u1", role: "user", content }] });
  const outcome = async (runner, subscriber) => {
    const seen = [];
    await runner.runAgent({ runId: "r1" }, { onEvent: ({ event }) => { seen.push(event); subscriber?.(event); } });
    return { messages: runner.messages, state: runner.state, seen };
  };
  let whole;

  await check(name, "@ag-ui/client", "messages, state and events are those of a direct call", async () => {
    whole = await outcome(agent(backend.url, "t1"));
    same(await outcome(agent(ss.url, "t1")), whole);
    same(whole.state, { words: 30 });
    return `${whole.seen.length} events`;
  });

  await check(name, "@ag-ui/client", "abortRun mid-answer: the run completes, and a second device has all of it", async () => {
    ss.seen.forget();
    const device = await ss.device("aborted");
    const runner = agent(ss.url, "aborted");
    await outcome(runner, (event) => { if (event.delta?.startsWith?.("5:")) runner.abortRun(); }).catch(() => {});
    same((await device.ended()).state, "completed");
    device.close();
    const types = events(device.entries).map((event) => event.type);
    same(types, whole.seen.map((event) => event.type));
    same(ss.seen.requests.map((r) => [r.method, r.hungUp]), [["POST", false]]);
    truly(device.entries.some((e) => e.type === "input" && JSON.stringify(e.json ?? e.text).includes("hi")), "the user's message is in the session");
  });

  // The resume route takes a GET, so the client gets a `fetch` of its own.
  const follower = (threadId, path) => new HttpAgent({
    url: ss.url, threadId, initialMessages: [{ id: "u1", role: "user", content: "hi" }], fetch: () => fetch(`${ss.url}${path}`),
  });

  await check(name, "@ag-ui/client", "an agent that joins mid-answer by the resume route gets the same messages and state", async () => {
    ss.seen.forget();
    let joined;
    const first = await outcome(agent(ss.url, "joined"), (event) => {
      if (event.delta?.startsWith?.("5:")) joined = outcome(follower("joined", "/agent/joined/stream"));
    });
    const { messages, state } = await joined;
    same({ messages, state }, { messages: first.messages, state: first.state });
    same((await fetch(`${ss.url}/agent/joined/stream`)).status, 204);
    same(ss.seen.requests.map((r) => [r.method, r.hungUp]), [["POST", false]]);
  });

  await check(name, "@ag-ui/client", "an agent that comes after the end replays the run into the same messages and state", async () => {
    const { run } = (await ss.entries("aborted")).find((entry) => entry.type === "run");
    const { messages, state } = await outcome(follower("aborted", `/_sidestream/v1/sessions/aborted/runs/${run}/stream`));
    same({ messages, state }, { messages: whole.messages, state: whole.state });
  });

  await check(name, "@ag-ui/client", "a backend that dies mid-answer is the same error as directly", async () => {
    const died = async (url) => {
      const seen = [];
      const error = await agent(url, "died", "die").runAgent({ runId: "r1" }, { onEvent: ({ event }) => { seen.push(event); } }).then(() => undefined, (thrown) => thrown);
      return { error: error?.message, seen };
    };
    const direct = await died(backend.url);
    truly(direct.error);
    same(await died(ss.url), direct);
    same((await ss.ended("died")).state, "failed");
    return direct.error;
  });

  await check(name, "@ag-ui/client", "Stop from another device: the backend's connection is closed, the client's run ends with an error", async () => {
    ss.seen.forget();
    let stopping;
    const seen = [];
    const runner = agent(ss.url, "stopped");
    const subscriber = { onEvent: ({ event }) => { seen.push(event); if (event.delta?.startsWith?.("5:")) stopping = ss.cancel("stopped"); } };
    const error = await runner.runAgent({ runId: "r1" }, subscriber).then(() => undefined, (thrown) => thrown);
    same((await stopping).outcome, "cancelled");
    truly(error || seen.at(-1).type === "RUN_ERROR", "the client must not believe that the answer is complete");
    await until("a hang-up upstream", async () => ss.seen.requests.every((r) => r.hungUp));
    same(ss.seen.requests.length, 1);
    return error ? error.message : seen.at(-1).type;
  });

  console.error = print;
  await ss.stop();
  await backend.kill();
}
