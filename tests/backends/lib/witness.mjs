// Stands between Sidestream and a backend, passes every byte on as it is, and knows what was asked: how many requests
// reached the backend, with which headers, and whether the caller hung up before the answer was complete.
import net from "node:net";

const REQUEST = /^([A-Z]+) (\S+) HTTP\/1\.[01]\r\n/;

export async function witness(upstream) {
  const { hostname, port } = new URL(upstream);
  const requests = [];
  const sockets = new Set();
  const server = net.createServer({ noDelay: true }, (caller) => {
    const backend = net.connect({ host: hostname, port: Number(port), noDelay: true });
    let current;
    for (const socket of [caller, backend]) {
      sockets.add(socket);
      socket.on("error", () => {}).on("close", () => sockets.delete(socket));
    }
    caller.on("data", (bytes) => {
      const head = bytes.toString("latin1");
      const [, method, path] = head.match(REQUEST) ?? [];
      if (method) requests.push((current = { method, path, head: head.split("\r\n\r\n")[0], complete: false, hungUp: false, answer: "" }));
      backend.write(bytes);
    });
    backend.on("data", (bytes) => {
      if (current) {
        current.answer += bytes.toString("latin1");
        current.complete = current.answer.endsWith("0\r\n\r\n");
      }
      caller.write(bytes);
    });
    caller.on("close", () => {
      if (current && !current.complete && !current.ended) current.hungUp = true;
      backend.destroy();
    });
    backend.on("end", () => {
      if (current) current.ended = true;
      caller.end();
    });
    backend.on("close", () => caller.destroy());
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    requests,
    /** The requests with this method whose path begins so. */
    asked: (method, path) => requests.filter((r) => r.method === method && r.path.startsWith(path)),
    /** Cuts every connection, as a network does that goes away. */
    cut: () => sockets.forEach((socket) => socket.destroy()),
    forget: () => requests.splice(0),
    stop: () => {
      server.close();
      sockets.forEach((socket) => socket.destroy());
    },
  };
}
