// An AI SDK backend as the documentation of the AI SDK writes it, with the mock model that the SDK ships for tests.
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { convertToModelMessages, createIdGenerator, pipeUIMessageStreamToResponse, streamText, toUIMessageStream } from "ai";
import { MockLanguageModelV4 } from "ai/test";

const pages = process.argv[2];
const pace = Number(process.env.PACE ?? 30);
const usage = {
  inputTokens: { total: 7, noCache: 7, cacheRead: undefined, cacheWrite: undefined },
  outputTokens: { total: 40, text: 40, reasoning: undefined },
};

// What a test holds: answers stop after 20 words until it lets them go.
let held = Promise.resolve(), go = () => {};

/** A stream of these chunks, one at a time. */
function paced(chunks) {
  let n = 0;
  return new ReadableStream({
    async pull(controller) {
      if (n === 20) await held;
      await new Promise((resolve) => setTimeout(resolve, pace));
      if (n < chunks.length) controller.enqueue(chunks[n++]);
      else controller.close();
    },
  });
}

/** Answers `words` words about what was asked, one delta each. */
const model = (words) => new MockLanguageModelV4({
  doStream: async ({ prompt }) => {
    const asked = prompt.at(-1).content.map((part) => part.text).join("");
    const deltas = Array.from({ length: words }, (_, n) => ({ type: "text-delta", id: "t1", delta: `${n}:${asked} ` }));
    return {
      stream: paced([
        { type: "stream-start", warnings: [] },
        { type: "text-start", id: "t1" }, ...deltas, { type: "text-end", id: "t1" },
        { type: "finish", finishReason: { unified: "stop", raw: "stop" }, usage },
      ]),
    };
  },
});

const server = http.createServer(async (request, response) => {
  if (request.method === "POST" && request.url === "/api/chat") {
    let body = "";
    for await (const bytes of request) body += bytes;
    const { messages } = JSON.parse(body);
    const result = streamText({ model: model(40), messages: await convertToModelMessages(messages) });
    const stream = toUIMessageStream({ stream: result.stream, originalMessages: messages, generateMessageId: createIdGenerator({ prefix: "msg", size: 16 }) });
    return pipeUIMessageStreamToResponse({ response, stream });
  }
  if (request.url === "/hold") held = new Promise((resolve) => (go = resolve));
  if (request.url === "/go") go();
  const file = path.join(pages, path.basename(new URL(request.url, "http://local").pathname));
  if (request.method === "GET" && !request.url.startsWith("/api/") && fs.existsSync(file)) {
    return response.writeHead(200, { "content-type": file.endsWith(".html") ? "text/html" : "text/javascript" }).end(fs.readFileSync(file));
  }
  response.writeHead(404).end();
});
server.listen(0, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
