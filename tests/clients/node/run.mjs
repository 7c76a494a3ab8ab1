// Runs one JavaScript client over cells. In: a line of JSON, `{what, client, cells: [{id, url}]}`; `what` is `clients`
// or `accumulators`. Out: a line of JSON per cell.

import { accumulators } from './accumulators.mjs';
import { clients } from './clients.mjs';

const AT_ONCE = 6;
const DEADLINE = 15_000;

const late = () =>
  new Promise((_, reject) => setTimeout(() => reject(new Error(`no end within ${DEADLINE} ms`)), DEADLINE));

/** What the client made of one cell, or its error. */
async function cell(read, { id, url }) {
  try {
    return { id, made: await Promise.race([read(url), late()]) };
  } catch (error) {
    return { id, error: `${error?.name ?? ''}: ${error?.message ?? error}` };
  }
}

// Some clients also reject promises that nobody asked for; what counts is what they tell their caller.
process.on('unhandledRejection', () => {});
// Some clients print warnings; the output is ours.
console.log = () => {};

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const job = JSON.parse(Buffer.concat(chunks).toString());
const read = await { clients, accumulators }[job.what][job.client]();
const waiting = [...job.cells];
const worker = async () => {
  for (let given = waiting.shift(); given; given = waiting.shift()) {
    process.stdout.write(`${JSON.stringify(await cell(read, given))}\n`);
  }
};
await Promise.all(Array.from({ length: AT_ONCE }, worker));
// Sockets of clients that would come back are still open.
process.stdout.write('', () => process.exit(0));
