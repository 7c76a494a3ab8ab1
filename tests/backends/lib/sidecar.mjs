// The real sidestream binary in front of a backend, and the devices that attach to its sessions.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { Child, until } from "./process.mjs";
import { witness } from "./witness.mjs";

const TERMINAL = ["completed", "failed", "cancelled", "interrupted"];

/** Sidestream in front of `upstream` with this configuration file, and a witness in between. */
export async function sidecar(upstream, config) {
  const seen = await witness(upstream);
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), "sidestream-backends-"));
  const file = path.join(dir, "sidestream.toml");
  fs.writeFileSync(file, config);
  const any = "127.0.0.1:0";
  const args = ["serve", "--upstream", seen.url, "--store", process.env.BACKENDS_STORE || "memory:", "--config", file];
  args.push("--listen", any, "--health-listen", any, "--admin-listen", any, "--log-format", "json");
  const child = new Child("sidestream", process.env.SIDESTREAM, args, {
    env: { ...process.env, SIDESTREAM_STORE__EAGER_AFTER: "20s", RUST_BACKTRACE: "1" },
  });
  const bound = (listener) => (output) => output.split("\n").filter((line) => line.includes(`"listener":"${listener}"`) && line.endsWith("}"))
    .map((line) => JSON.parse(line)).find(({ message }) => message === "listening")?.address;
  const url = `http://${await child.says("its address", bound("data"))}`;
  const health = `http://${await child.says("its health address", bound("health"))}`;
  await until("readiness", async () => (await fetch(`${health}/readyz`)).ok);
  const api = `${url}/_sidestream/v1`;

  const json = async (response) => (response.ok ? response.json() : Promise.reject(new Error(`${response.status} ${await response.text()}`)));
  return {
    url, api, seen, child,
    /** All entries of a session. */
    async entries(session) {
      const all = [];
      for (let after = "start"; after;) {
        const page = await fetch(`${api}/sessions/${session}/events?after=${after}&limit=1000&replay=full`, { headers: { accept: "application/json" } });
        if (page.status === 404) return all;
        const { entries, next } = await json(page);
        all.push(...entries);
        after = next;
      }
      return all;
    },
    /** The newest terminal of a session, once it has so many. */
    async ended(session, runs = 1) {
      return until(`the end of ${runs} run(s) in ${session}`, async () => {
        const ends = (await this.entries(session)).filter((e) => e.type === "run" && TERMINAL.includes(e.state));
        return ends.length >= runs && ends.at(-1);
      });
    },
    /** Ends what runs in the session. */
    cancel: async (session) => json(await fetch(`${api}/sessions/${session}/runs/active/cancel`, { method: "POST" })),
    /** Another device, over WebSocket. */
    device: (session, after = "start") => device(url, session, after),
    /** Another device, over SSE: every entry of the session up to the first run's end. */
    async readBySse(session) {
      const gone = new AbortController();
      const response = await fetch(`${api}/sessions/${session}/events`, { signal: gone.signal });
      const entries = [];
      let rest = "";
      for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
        const blocks = (rest + text).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) {
          const data = block.match(/^data: ?(.*)$/m)?.[1];
          if (!data || /^event:/m.test(block)) continue;
          entries.push(JSON.parse(data));
          if (entries.at(-1).type === "run" && TERMINAL.includes(entries.at(-1).state)) {
            gone.abort();
            return entries;
          }
        }
      }
      throw new Error("the session's stream has ended");
    },
    async stop() {
      await child.kill();
      seen.stop();
      fs.rmSync(dir, { recursive: true });
      if (child.output.includes("panicked")) throw new Error(`sidestream panicked:\n${child.output}`);
    },
  };
}

async function device(url, session, after) {
  const socket = new WebSocket(`${url.replace("http", "ws")}/_sidestream/v1/ws`, "sidestream.v1");
  const entries = [];
  let answered = 0;
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === "ping") socket.send('{"type":"pong"}');
    if (message.type === "attached" || message.type === "ack") answered += 1;
    if (message.offset && ["run", "event", "input", "result"].includes(message.type)) entries.push(message);
  };
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = () => reject(new Error("the WebSocket did not open"));
  });
  socket.send(JSON.stringify({ type: "attach", session, after, create: true }));
  await until("the attach", () => answered === 1);
  return {
    entries,
    ended: () => until("a run's end on the device", () => entries.find((e) => e.type === "run" && TERMINAL.includes(e.state))),
    close: () => socket.close(),
  };
}

/** The data of the events among entries: parsed where it is JSON. */
export const events = (entries) => entries.filter((e) => e.type === "event").map((e) => ("json" in e ? e.json : e.text));
