// Browser clients that reconnect by themselves, in Chromium, in front of FastAPI: EventSource, and fetch-event-source,
// which closes its stream while its tab is hidden and sends its POST again when it is shown.
import { browser, bundle } from "../lib/browser.mjs";
import { serve, until } from "../lib/process.mjs";
import { events, sidecar } from "../lib/sidecar.mjs";
import { check, recipe, same, truly } from "../lib/suite.mjs";
import { tools } from "../lib/tools.mjs";
import { witness } from "../lib/witness.mjs";

const words = (asked) => Array.from({ length: 40 }, (_, n) => (n % 5 ? `${n}:${asked} ` : `${n}:${asked}\n`));
// What the backend says, as a browser's parser dispatches it.
const whole = (asked) => [...words(asked).map((word, n) => (n % 2 ? { event: "token", data: word } : { event: "message", data: json(word) })), { event: "done", data: "[DONE]" }];
const json = (token) => `{"token": ${JSON.stringify(token)}}`;

export async function run() {
  await bundle();
  const backend = await serve("fastapi", tools.python, ["servers/fastapi_app.py", tools.pages]);
  const ss = await sidecar(backend.url, recipe("eventsource"));
  const network = await witness(ss.url);
  const chromium = await browser();
  const came = (page) => page.evaluate(() => window.came);
  const some = (page, n = 8) => until(`${n} events in the page`, async () => (await came(page)).length >= n);
  const requests = (method) => network.requests.filter((r) => r.method === method && r.path.startsWith("/api"));
  const begin = async () => {
    const page = await chromium.page(`${network.url}/source.html`);
    network.forget();
    ss.seen.forget();
    return page;
  };

  await check("EventSource", "Chromium", "without a cut: every event once; the reconnect after the end is answered 204 and calls nobody", async () => {
    const page = await begin();
    await page.evaluate(() => window.listen("/api/answer?thread=plain&message=hi"));
    await until("EventSource is told to stop", () => page.evaluate(() => window.source.readyState === EventSource.CLOSED));
    same(await came(page), whole("hi"));
    same(requests("GET").map((r) => Number(r.answer.match(/^HTTP\/1\.1 (\d+)/)?.[1])), [200, 204]);
    same(ss.seen.asked("GET", "/api").length, 1);
    await page.close();
  });

  await check("EventSource", "Chromium", "the network goes mid-answer: it reconnects with Last-Event-ID and gets exactly the rest", async () => {
    const page = await begin();
    await page.evaluate(() => window.listen("/api/answer?thread=cut&message=hi"));
    await some(page);
    network.cut();
    await until("EventSource is told to stop", () => page.evaluate(() => window.source.readyState === EventSource.CLOSED));
    same(await came(page), whole("hi"));
    truly(/^last-event-id: ss1\./im.test(requests("GET")[1].head), "the second request has our id");
    same(ss.seen.asked("GET", "/api").map((r) => r.hungUp), [false]);
    same((await ss.ended("cut")).state, "completed");
    await page.close();
  });

  await check("fetch-event-source", "Chromium", "without a cut: every event once, a clean end", async () => {
    const page = await begin();
    await page.evaluate(() => window.post("/api/chat", { thread_id: "fes", message: "hi" }));
    same(await until("the end", () => page.evaluate(() => window.outcome)), "clean");
    same(await came(page), whole("hi"));
    await page.close();
  });

  for (const [hidden, awhile] of [["", async () => {}], [", the answer ending meanwhile", () => ss.ended("tab-2")]]) {
    const thread = hidden ? "tab-2" : "tab-1";
    await check("fetch-event-source", "Chromium", `tab hidden and shown${hidden}: one POST upstream, every event once`, async () => {
      const page = await begin();
      await page.evaluate((thread_id) => window.post("/api/chat", { thread_id, message: "hi" }), thread);
      await some(page);
      await page.hide(true);
      await awhile();
      const before = (await came(page)).length;
      truly(before < whole("hi").length, "it was hidden in the middle");
      await page.hide(false);
      await until("the end", async () => (await came(page)).length >= whole("hi").length);
      same(await until("the end", () => page.evaluate(() => window.outcome)), "clean");
      same(await came(page), whole("hi"));
      same(requests("POST").length, 2);
      truly(/^last-event-id: ss1\./im.test(requests("POST")[1].head), "the second POST has our id");
      same(ss.seen.asked("POST", "/api/chat").map((r) => r.hungUp), [false]);
      await page.close();
    });
  }

  await check("fetch-event-source", "Chromium", "the network goes mid-answer: one POST upstream, every event once", async () => {
    const page = await begin();
    await page.evaluate(() => window.post("/api/chat", { thread_id: "net", message: "hi" }));
    await some(page);
    network.cut();
    same(await until("the end", () => page.evaluate(() => window.outcome)), "clean");
    same(await came(page), whole("hi"));
    same(ss.seen.asked("POST", "/api/chat").map((r) => r.hungUp), [false]);
    same(events(await ss.entries("net")).length, whole("hi").length);
    await page.close();
  });

  network.stop();
  await chromium.stop();
  await ss.stop();
  await backend.kill();
}
