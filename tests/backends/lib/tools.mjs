// Where the installed things are, and how a Python client is started.
import net from "node:net";
import path from "node:path";
import { Child } from "./process.mjs";

const here = path.dirname(import.meta.dirname);

export const tools = {
  here,
  node: process.execPath,
  python: "python3",
  /** Whether what is written in Python takes part; `scripts/backends --fast` does without. */
  withPython: process.env.BACKENDS_PYTHON === "yes",
  pages: path.join(here, "built"),
};

/** A Python client of clients/, in a process of its own. */
export const python = (client, argument) =>
  new Child(`clients/${client}.py`, tools.python, [`clients/${client}.py`, JSON.stringify(argument)], { cwd: here });

/** Runs a backend written in JavaScript. */
export const javascript = (server, ...args) => [`servers/${server}.mjs`, tools.node, [path.join(here, "servers", `${server}.mjs`), ...args]];

/** A port that is free now, for servers that cannot choose one and say so. */
export const freePort = () => new Promise((resolve) => {
  const server = net.createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address();
    server.close(() => resolve(port));
  });
});
