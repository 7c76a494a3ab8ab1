// An MCP server over Streamable HTTP (2025-11-25) with the SDK's own transport and an event store, so that streams have
// ids and can be resumed at the server itself.
import { randomUUID } from "node:crypto";
import http from "node:http";
import { InMemoryEventStore } from "@modelcontextprotocol/sdk/examples/shared/inMemoryEventStore.js";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { isInitializeRequest } from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";

const pace = Number(process.env.PACE ?? 30);
const transports = new Map();
let cancelled = 0, calls = 0;

function newServer() {
  const server = new McpServer({ name: "toy", version: "1.0.0" });
  server.registerTool("count", { description: "Counts slowly.", inputSchema: { to: z.number() } }, async ({ to }, { sendNotification, _meta, signal }) => {
    calls += 1;
    for (let n = 1; n <= to; n += 1) {
      if (signal.aborted) { cancelled += 1; break; }
      if (_meta?.progressToken !== undefined) {
        await sendNotification({ method: "notifications/progress", params: { progressToken: _meta.progressToken, progress: n, total: to } });
      }
      await new Promise((resolve) => setTimeout(resolve, pace));
    }
    return { content: [{ type: "text", text: `counted to ${to}` }] };
  });
  return server;
}

const server = http.createServer(async (request, response) => {
  if (request.url === "/calls") return response.end(JSON.stringify({ calls, cancelled }));
  if (request.url !== "/mcp") return response.writeHead(404).end();
  let text = "";
  for await (const bytes of request) text += bytes;
  const body = text ? JSON.parse(text) : undefined;
  let transport = transports.get(request.headers["mcp-session-id"]);
  if (!transport && isInitializeRequest(body)) {
    transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      eventStore: new InMemoryEventStore(),
      onsessioninitialized: (id) => transports.set(id, transport),
    });
    await newServer().connect(transport);
  }
  if (!transport) return response.writeHead(404).end();
  await transport.handleRequest(request, response, body);
});
server.listen(0, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
