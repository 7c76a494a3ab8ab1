// An Anthropic-compatible backend (recorded answers) with the official clients, for Python and TypeScript.
import Anthropic from "@anthropic-ai/sdk";
import { serve, until } from "../lib/process.mjs";
import { events, sidecar } from "../lib/sidecar.mjs";
import { check, recipe, same, truly } from "../lib/suite.mjs";
import { javascript, python } from "../lib/tools.mjs";

const name = "Anthropic-compatible";
const text = "anthropic-messages__text-long";

export async function run() {
  const backend = await serve(...javascript("replay"));
  const ss = await sidecar(backend.url, recipe("anthropic"));
  const stream = (url, model, session) => new Anthropic({ baseURL: url, apiKey: "none", defaultHeaders: session ? { "Sidestream-Session": session } : {} })
    .messages.stream({ model, max_tokens: 100, messages: [{ role: "user", content: "hi" }] });
  let whole;

  for (const model of [text, "anthropic-messages__thinking", "anthropic-messages__web-search-nonascii"]) {
    await check(name, "@anthropic-ai/sdk", `${model}: every event and the final message are those of a direct call`, async () => {
      const answer = async (url) => {
        const all = [];
        const answering = stream(url, model).on("streamEvent", (event) => all.push(structuredClone(event)));
        return { message: await answering.finalMessage(), all };
      };
      const [direct, through] = [await answer(backend.url), await answer(ss.url)];
      same(through, direct);
      if (model === text) whole = direct.message.content.map((block) => block.text).join("");
      return `${direct.all.length} events`;
    });
  }

  await check(name, "anthropic (Python)", "the result is that of a direct call", async () => {
    const [direct, through] = [backend.url, ss.url].map((url) => python("anthropic_messages", { url, model: text }));
    same(await through.finished(), await direct.finished());
    same(direct.messages().at(-1).text, whole);
  });

  const gone = async (session, leave) => {
    ss.seen.forget();
    const device = await ss.device(session);
    await leave(session);
    same((await device.ended()).state, "completed");
    device.close();
    const received = events(device.entries);
    same(received.filter((e) => e.type === "content_block_delta").map((e) => e.delta.text ?? "").join(""), whole);
    same(received.at(-1).type, "message_stop");
    same(ss.seen.requests.map((r) => [r.method, r.hungUp]), [["POST", false]]);
  };

  await check(name, "anthropic (Python)", "killed mid-answer: the run completes, and a second device has all of it", () => gone("python", async (session) => {
    const child = python("anthropic_messages", { url: ss.url, model: text, headers: { "Sidestream-Session": session } });
    await child.says("a delta", (_, lines) => lines.length > 2);
    await child.kill();
  }));

  await check(name, "@anthropic-ai/sdk", "aborted mid-answer: the run completes, and a second device has all of it", () => gone("typescript", async (session) => {
    const answering = stream(ss.url, text, session);
    await new Promise((resolve) => answering.once("text", resolve));
    answering.abort();
    await answering.done().catch(() => {});
  }));

  await check(name, "@anthropic-ai/sdk", "Stop from another device: the backend's connection is closed, the client's stream throws", async () => {
    ss.seen.forget();
    const answering = stream(ss.url, text, "stop");
    answering.once("text", () => ss.cancel("stop"));
    const error = await answering.finalMessage().then(() => undefined, (thrown) => thrown);
    truly(error, "the client must not believe that the answer is complete");
    same((await ss.ended("stop")).state, "cancelled");
    await until("a hang-up upstream", async () => ss.seen.requests.every((r) => r.hungUp));
    same(ss.seen.requests.length, 1);
    return error.constructor.name;
  });

  await ss.stop();
  await backend.kill();
}
