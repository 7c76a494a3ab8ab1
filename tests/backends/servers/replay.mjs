// An OpenAI- and Anthropic-compatible backend without a model: answers with the recording that `model` names, event by
// event, `PACE` milliseconds apart.
import fs from "node:fs";
import http from "node:http";
import path from "node:path";

const folder = path.join(process.env.BACKENDS_ROOT, "tests/data/sse/visible");
const pace = Number(process.env.PACE ?? 15);
const types = { "openai-chat": "text/event-stream; charset=utf-8", "ollama-ndjson": "application/x-ndjson" };

const server = http.createServer(async (request, response) => {
  let body = "";
  for await (const bytes of request) body += bytes;
  const { model } = JSON.parse(body || "{}");
  const file = model && ["sse", "ndjson"].map((ext) => path.join(folder, `${path.basename(model)}.${ext}`)).find(fs.existsSync);
  if (request.method !== "POST" || !file) {
    response.writeHead(404, { "content-type": "application/json" }).end('{"error":{"message":"no such recording"}}');
    return;
  }
  const bytes = fs.readFileSync(file);
  const type = types[model.split("__")[0]] ?? "text/event-stream; charset=utf-8";
  response.writeHead(200, { "content-type": type, "cache-control": "no-cache", "x-request-id": "req_recorded" });
  const end = file.endsWith(".ndjson") ? /[^]*?\n/g : /[^]*?(?:\r\n\r\n|\n\n|$)/g;
  for (const [event] of bytes.toString("latin1").matchAll(end)) {
    if (response.destroyed) return;
    if (event) response.write(Buffer.from(event, "latin1"));
    await new Promise((resolve) => setTimeout(resolve, pace));
  }
  response.end();
});
server.listen(0, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
