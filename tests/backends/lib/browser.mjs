// Debian's Chromium, headless, with a profile of its own and no traffic of its own; and the pages, bundled by esbuild.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { build } from "esbuild";
import { chromium } from "playwright-core";
import { until } from "./process.mjs";
import { tools } from "./tools.mjs";

const ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];

/** Bundles pages/*.jsx into scripts that pages/*.html load. */
export async function bundle() {
  const from = path.join(tools.here, "pages");
  const entryPoints = fs.readdirSync(from).filter((file) => /\.jsx?$/.test(file)).map((file) => path.join(from, file));
  await build({ entryPoints, outdir: tools.pages, bundle: true, format: "esm", target: "chrome120", logLevel: "warning", jsx: "automatic", define: { "process.env.NODE_ENV": '"production"' } });
  for (const file of fs.readdirSync(from).filter((file) => file.endsWith(".html"))) fs.copyFileSync(path.join(from, file), path.join(tools.pages, file));
}

/** A browser, and everything that its pages logged. */
export async function browser() {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), "sidestream-chromium-"));
  const executablePath = process.env.BACKENDS_CHROMIUM || "/usr/bin/chromium";
  const context = await chromium.launchPersistentContext(profile, { executablePath, args: ARGUMENTS, chromiumSandbox: false });
  const said = [];
  return {
    context, said,
    page: async (url) => {
      const page = await context.newPage();
      page.on("console", (message) => said.push(message.text()));
      page.on("pageerror", (error) => said.push(String(error)));
      await page.goto(url);
      return page;
    },
    stop: async () => {
      await context.close();
      fs.rmSync(profile, { recursive: true, force: true });
    },
  };
}

/** Hides a page by minimising its window, or shows it again. */
export async function hide(page, hidden) {
  const cdp = await page.context().newCDPSession(page);
  const { windowId } = await cdp.send("Browser.getWindowForTarget");
  await cdp.send("Browser.setWindowBounds", { windowId, bounds: { windowState: hidden ? "minimized" : "normal" } });
  await until(`the page is ${hidden ? "hidden" : "visible"}`, () => page.evaluate((wanted) => document.hidden === wanted, hidden));
}
