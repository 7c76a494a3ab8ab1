// An AG-UI backend written by hand, with the event types of @ag-ui/core: a text, a tool call, a state delta.
import http from "node:http";
import { EventType } from "@ag-ui/core";

const pace = Number(process.env.PACE ?? 30);

function* answer({ threadId, runId, messages }) {
  const asked = messages.at(-1).content, messageId = `answer-${runId}`, toolCallId = `call-${runId}`;
  yield { type: EventType.RUN_STARTED, threadId, runId };
  yield { type: EventType.STATE_SNAPSHOT, snapshot: { words: 0 } };
  yield { type: EventType.TEXT_MESSAGE_START, messageId, role: "assistant" };
  for (let n = 0; n < 30; n += 1) yield { type: EventType.TEXT_MESSAGE_CONTENT, messageId, delta: `${n}:${asked} ` };
  yield { type: EventType.TEXT_MESSAGE_END, messageId };
  yield { type: EventType.STATE_DELTA, delta: [{ op: "replace", path: "/words", value: 30 }] };
  yield { type: EventType.TOOL_CALL_START, toolCallId, toolCallName: "weather", parentMessageId: messageId };
  for (const delta of ['{"city"', ":", '"Köln"}']) yield { type: EventType.TOOL_CALL_ARGS, toolCallId, delta };
  yield { type: EventType.TOOL_CALL_END, toolCallId };
  yield { type: EventType.RUN_FINISHED, threadId, runId };
}

const server = http.createServer(async (request, response) => {
  if (request.method !== "POST" || request.url !== "/agent") return response.writeHead(404).end();
  let body = "";
  for await (const bytes of request) body += bytes;
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
  const input = JSON.parse(body);
  for (const event of answer(input)) {
    if (response.destroyed) return;
    // A backend that dies in the middle of its answer.
    if (event.delta === "5:die ") return response.destroy();
    response.write(`data: ${JSON.stringify(event)}\n\n`);
    await new Promise((resolve) => setTimeout(resolve, pace));
  }
  response.end();
});
server.listen(0, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
