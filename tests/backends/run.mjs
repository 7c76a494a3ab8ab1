// Runs the suites that are named, or all, one after another, and prints a table. Started by scripts/backends.
import { results } from "./lib/suite.mjs";

const all = ["fastapi", "openai-compatible", "anthropic", "ag-ui", "mcp", "ai-sdk", "eventsource", "langgraph"];
// The part of a suite that needs no Python.
const parts = { "mcp-typescript": ["mcp", "typescript"] };
const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !all.includes(name) && !parts[name]);
if (unknown.length) {
  console.error(`no such suite: ${unknown.join(", ")}; there are ${all.join(", ")}`);
  process.exit(2);
}

// @ag-ui/client rejects twice when a stream breaks off: what its caller gets, and a promise that nobody holds.
process.on("unhandledRejection", (error) => console.log(`    (left unhandled by a client: ${error?.message ?? error})`));
process.chdir(import.meta.dirname);
const begun = Date.now();
for (const name of wanted.length ? wanted : all) {
  console.log(`\n  ${name}`);
  try {
    const [file, part] = parts[name] ?? [name, "run"];
    await (await import(`./suites/${file}.mjs`))[part]();
  } catch (error) {
    results.push({ backend: name, client: "-", promise: "the suite runs", ok: false, error, ms: 0 });
    console.log(error);
  }
}

const width = (key) => Math.max(...results.map((result) => result[key].length));
const [backend, client] = [width("backend"), width("client")];
console.log("\n");
for (const result of results) {
  const row = [result.backend.padEnd(backend), result.client.padEnd(client), result.ok ? "ok  " : "FAIL", result.promise];
  console.log(row.join("  ") + (result.note ? ` [${result.note}]` : ""));
}
const failed = results.filter((result) => !result.ok).length;
console.log(`\n${results.length} checks, ${failed} failed, ${((Date.now() - begun) / 1000).toFixed(0)} s`);
process.exit(failed ? 1 : 0);
