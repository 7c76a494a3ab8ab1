// Child processes: started on free loopback ports, stopped by pid, and what they said on hand when something fails.
import { spawn } from "node:child_process";

const running = new Set();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));

/** Asks `probe` until it returns something that is neither false nor undefined; throws after `ms`. */
export async function until(what, probe, ms = 20_000) {
  const deadline = Date.now() + ms;
  for (;;) {
    const found = await probe();
    if (found !== undefined && found !== false && found !== null) return found;
    if (Date.now() > deadline) throw new Error(`waited ${ms} ms in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A child process and what it has said. */
export class Child {
  constructor(name, command, args, options = {}) {
    this.name = name;
    this.output = "";
    this.lines = [];
    this.ended = undefined;
    this.child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], ...options });
    running.add(this.child);
    let rest = "";
    this.child.stdout.setEncoding("utf8").on("data", (text) => {
      this.output += text;
      const lines = (rest + text).split("\n");
      rest = lines.pop();
      this.lines.push(...lines);
    });
    this.child.stderr.setEncoding("utf8").on("data", (text) => (this.output += text));
    this.done = new Promise((resolve) => {
      this.child.on("close", (code, signal) => {
        running.delete(this.child);
        resolve((this.ended = code ?? signal));
      });
      this.child.on("error", (error) => {
        this.output += `${error}\n`;
        running.delete(this.child);
        resolve((this.ended = "not started"));
      });
    });
  }

  /** What `probe` finds in the output so far, once it finds it. */
  says(what, probe, ms = 60_000) {
    return until(`${this.name}: ${what}`, () => {
      const found = probe(this.output, this.lines);
      if (found) return found;
      if (this.ended !== undefined) throw new Error(`${this.name} has ended (${this.ended}):\n${this.output.slice(-3000)}`);
    }, ms);
  }

  /** Its end, and every line of its standard output as JSON. */
  async finished() {
    const code = await this.done;
    if (code !== 0) throw new Error(`${this.name} ended with ${code}:\n${this.output.slice(-3000)}`);
    return this.messages();
  }

  messages() {
    return this.lines.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
  }

  /** Ended at once, as by a crash. */
  async kill(signal = "SIGKILL") {
    if (this.ended === undefined) this.child.kill(signal);
    await this.done;
  }
}

/** A server that prints `listening on http://…` when it is there. */
export async function serve(name, command, args, options) {
  const child = new Child(name, command, args, options);
  child.url = await child.says("its address", (output) => output.match(/(?:listening|running) on (http:\/\/127\.0\.0\.1:\d+)/)?.[1]);
  return child;
}
