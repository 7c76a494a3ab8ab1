// An AI SDK server, and `useChat` with `resume: true` in Chromium.
import { DefaultChatTransport } from "ai";
import { browser, bundle } from "../lib/browser.mjs";
import { serve, until } from "../lib/process.mjs";
import { events, sidecar } from "../lib/sidecar.mjs";
import { check, recipe, same, truly } from "../lib/suite.mjs";
import { javascript, tools } from "../lib/tools.mjs";

const name = "AI SDK";
const whole = Array.from({ length: 40 }, (_, n) => `${n}:hi `).join("");

export async function run() {
  await bundle();
  const backend = await serve(...javascript("ai-sdk", tools.pages));
  const ss = await sidecar(backend.url, recipe("ai-sdk"));
  const chromium = await browser();
  const messages = [{ id: "u1", role: "user", parts: [{ type: "text", text: "hi" }] }];
  const transport = (url) => new DefaultChatTransport({ api: `${url}/api/chat` });
  const send = async (url, chatId, abortSignal) => transport(url).sendMessages({ chatId, messages, trigger: "submit-message", abortSignal });
  const all = async (stream) => { const chunks = []; for await (const chunk of stream) chunks.push(chunk); return chunks; };
  const anonymous = (chunks) => chunks.map(({ messageId, ...chunk }) => chunk);
  let direct;

  await check(name, "DefaultChatTransport", "chunks and headers are those of a direct call", async () => {
    direct = await all(await send(backend.url, "same"));
    same(anonymous(await all(await send(ss.url, "same"))), anonymous(direct));
    same(direct.filter((c) => c.type === "text-delta").map((c) => c.delta).join(""), whole);
    const head = await fetch(`${ss.url}/api/chat`, { method: "POST", body: JSON.stringify({ id: "head", messages }) });
    same(head.headers.get("x-vercel-ai-ui-message-stream"), "v1");
    await head.text();
    return `${direct.length} chunks`;
  });

  await check(name, "DefaultChatTransport", "gone mid-answer: the run completes, and reconnectToStream gives the whole message", async () => {
    ss.seen.forget();
    const gone = new AbortController();
    const reader = (await send(ss.url, "gone", gone.signal)).getReader();
    for (let n = 0; n < 8; n += 1) await reader.read();
    gone.abort();
    const rest = await transport(ss.url).reconnectToStream({ chatId: "gone" });
    truly(rest, "there is an active stream");
    const chunks = await all(rest);
    same(chunks[0].type, "start");
    same(chunks.filter((c) => c.type === "text-delta").map((c) => c.delta).join(""), whole);
    same(chunks.at(-1).type, "finish");
    same((await ss.ended("gone")).state, "completed");
    same(await transport(ss.url).reconnectToStream({ chatId: "gone" }), null);
    same(await transport(ss.url).reconnectToStream({ chatId: "never-seen" }), null);
    same(ss.seen.requests.map((r) => [r.method, r.hungUp]), [["POST", false]]);
  });

  const bubbles = (page) => page.evaluate(() => [...document.querySelectorAll("p")].map((p) => [p.dataset.role, p.textContent]));
  const state = (page) => page.evaluate(() => document.querySelector("main").dataset.status);
  const id = (page) => page.evaluate(() => [...document.querySelectorAll("p")].at(-1).id);
  const status = (page, wanted) => until(`status ${wanted}`, async () => (await state(page)) === wanted);
  const opened = async (id, keep) => {
    const page = await chromium.page(`${ss.url}/chat.html?id=${id}&keep=${keep}`);
    await page.evaluate(() => document.querySelector("button").click());
    await until("half of the answer", async () => (await bubbles(page)).at(-1)?.[1].includes("15:hi"));
    return page;
  };

  await check(name, "useChat in Chromium", "an answer without a reload is the whole text in one bubble", async () => {
    const page = await opened("plain", "partial");
    await status(page, "ready");
    same(await bubbles(page), [["user", "hi"], ["assistant", whole]]);
    await page.close();
  });

  for (const keep of ["partial", "asked"]) {
    await check(name, "useChat in Chromium", `reload mid-answer, ${keep === "partial" ? "the half answer kept" : "only the question kept"}: it completes in the same bubble, with one POST`, async () => {
      ss.seen.forget();
      await fetch(`${backend.url}/hold`);
      const page = await opened(`reload-${keep}`, keep);
      const before = await id(page);
      await page.reload();
      await status(page, "streaming");
      await fetch(`${backend.url}/go`);
      await until("the whole answer", async () => (await bubbles(page)).at(-1)?.[1].includes("39:hi"));
      await status(page, "ready");
      same(await bubbles(page), [["user", "hi"], ["assistant", whole]]);
      same(await id(page), before);
      same(ss.seen.asked("POST", "/api/chat").map((r) => r.hungUp), [false]);
      same(ss.seen.asked("GET", "/api/chat").length, 0);
      await page.close();
    });
  }

  await check(name, "useChat in Chromium", "a reload after the end resumes nothing", async () => {
    ss.seen.forget();
    const page = await opened("ended", "partial");
    await status(page, "ready");
    await page.reload();
    await until("the messages", async () => (await bubbles(page)).length === 2);
    await status(page, "ready");
    same(await bubbles(page), [["user", "hi"], ["assistant", whole]]);
    same(ss.seen.asked("POST", "/api/chat").length, 1);
    await page.close();
  });

  await check(name, "useChat in Chromium", "a second device follows over WebSocket; Stop from there ends the answer everywhere", async () => {
    ss.seen.forget();
    const device = await ss.device("stopped");
    const page = await opened("stopped", "partial");
    same((await ss.cancel("stopped")).outcome, "cancelled");
    same((await device.ended()).state, "cancelled");
    truly(events(device.entries).some((e) => e.type === "text-delta"));
    truly(device.entries.some((e) => e.type === "input" && JSON.stringify(e.json ?? e.text).includes("hi")), "the question is in the session");
    device.close();
    // The connection is closed before the cancel is answered; the backend's side hears of it a moment later.
    await until("a hang-up upstream", async () => ss.seen.asked("POST", "/api/chat").every((r) => r.hungUp));
    same(ss.seen.asked("POST", "/api/chat").length, 1);
    await until("an end in the page", async () => ["ready", "error"].includes(await state(page)));
    const shown = await state(page);
    await page.close();
    return `the page says ${shown}`;
  });

  await chromium.stop();
  await ss.stop();
  await backend.kill();
}
