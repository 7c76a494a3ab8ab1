// Debian's Chromium, headless, driven over its own protocol (CDP): a profile of its own, and no traffic of its own. Pages
// are real tabs: one that another tab covers is hidden as in a window. No automation package: those keep pages visible.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { build } from "esbuild";
import { Child, until } from "./process.mjs";
import { tools } from "./tools.mjs";

const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0"];

/** Bundles pages/*.js(x) into the scripts that pages/*.html load. */
export async function bundle() {
  const from = path.join(tools.here, "pages");
  const files = fs.readdirSync(from);
  const entryPoints = files.filter((file) => /\.jsx?$/.test(file)).map((file) => path.join(from, file));
  const define = { "process.env.NODE_ENV": '"production"' };
  await build({ entryPoints, outdir: tools.pages, bundle: true, format: "esm", target: "chrome120", logLevel: "warning", jsx: "automatic", define });
  for (const file of files.filter((file) => file.endsWith(".html"))) fs.copyFileSync(path.join(from, file), path.join(tools.pages, file));
}

/** A running browser. */
export async function browser() {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), "sidestream-chromium-"));
  const child = new Child("chromium", "chromium", [...FLAGS, `--user-data-dir=${profile}`, "about:blank"]);
  const cdp = await connect(await child.says("its debugging address", (output) => output.match(/ws:\/\/\S+/)?.[0]));
  // Covers the others when it is shown.
  const cover = await cdp("Target.createTarget", { url: "about:blank" });
  return {
    page: (url) => tab(cdp, cover.targetId, url),
    stop: async () => {
      await cdp("Browser.close").catch(() => {});
      await child.done;
      fs.rmSync(profile, { recursive: true, force: true });
    },
  };
}

async function tab(cdp, cover, url) {
  const { targetId } = await cdp("Target.createTarget", { url });
  const { sessionId } = await cdp("Target.attachToTarget", { targetId, flatten: true });
  const page = {
    /** What a function gives in the page, with these arguments. */
    async evaluate(body, ...values) {
      const expression = `(${body})(${values.map((value) => JSON.stringify(value)).join(", ")})`;
      const answer = await cdp("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true }, sessionId);
      if (answer.exceptionDetails) throw new Error(`in the page: ${answer.exceptionDetails.exception?.description ?? answer.exceptionDetails.text}`);
      return answer.result.value;
    },
    async reload() {
      await page.evaluate(() => { window.before = true; });
      await cdp("Page.reload", {}, sessionId);
      await loaded();
    },
    /** Hides the page behind another tab, or shows it again. */
    async hide(hidden) {
      await cdp("Target.activateTarget", { targetId: hidden ? cover : targetId });
      await until(`the page is ${hidden ? "hidden" : "shown"}`, () => page.evaluate((wanted) => document.hidden === wanted, hidden));
    },
    close: () => cdp("Target.closeTarget", { targetId }),
  };
  const loaded = () => until(`${url} in the browser`, () =>
    page.evaluate(() => location.href !== "about:blank" && !window.before && document.readyState === "complete").catch(() => false));
  await loaded();
  return page;
}

/** A connection to the browser: a function that sends a command and gives its answer. */
async function connect(url) {
  const socket = new WebSocket(url);
  await new Promise((resolve, reject) => Object.assign(socket, { onopen: resolve, onerror: () => reject(new Error("no debugging connection")) }));
  const waiting = new Map();
  socket.onmessage = ({ data }) => {
    const { id, result, error } = JSON.parse(data);
    if (!waiting.has(id)) return;
    const [resolve, reject] = waiting.get(id);
    waiting.delete(id);
    if (error) reject(new Error(error.message));
    else resolve(result);
  };
  socket.onclose = () => waiting.forEach(([, reject]) => reject(new Error("the browser has gone")));
  let last = 0;
  return (method, params = {}, sessionId = undefined) => new Promise((resolve, reject) => {
    waiting.set((last += 1), [resolve, reject]);
    socket.send(JSON.stringify({ id: last, method, params, sessionId }));
  });
}
