// Checks, each a sentence about a promise; a suite is one backend with its clients.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";

export const results = [];

/** Runs one check and keeps its outcome; a check that fails does not end its suite. */
export async function check(backend, client, promise, body) {
  const begun = Date.now();
  const result = { backend, client, promise, ok: true };
  try {
    result.note = await body();
  } catch (error) {
    result.ok = false;
    result.error = error;
  }
  result.ms = Date.now() - begun;
  results.push(result);
  console.log(`    ${result.ok ? "ok  " : "FAIL"} ${client}: ${promise} (${result.ms} ms)`);
  if (!result.ok) console.log(String(result.error?.stack ?? result.error).replace(/^/gm, "         "));
}

export const same = assert.deepEqual;
export const truly = assert.ok;

/** The configuration that a recipe tells its reader to add: its `nth` toml block. What is documented is what runs. */
export function recipe(name, nth = 0) {
  const page = fs.readFileSync(path.join(process.env.BACKENDS_ROOT, "docs/recipes", `${name}.md`), "utf8");
  const block = [...page.matchAll(/```toml\n([\s\S]*?)```/g)][nth]?.[1];
  truly(block, `docs/recipes/${name}.md has no configuration`);
  return block;
}
