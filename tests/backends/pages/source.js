// Two ways to read an event stream in a browser, each as its documentation writes it. What came is in `window.came`.
import { fetchEventSource } from "@microsoft/fetch-event-source";

window.came = [];
window.opened = 0;
const keep = (event) => window.came.push({ event: event.type ?? event.event, data: event.data });

window.listen = (path) => {
  const source = (window.source = new EventSource(path));
  source.onopen = () => (window.opened += 1);
  source.onmessage = keep;
  for (const name of ["token", "done"]) source.addEventListener(name, keep);
};

window.post = (path, body) => {
  window.finished = fetchEventSource(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    onopen: async (response) => {
      window.opened += 1;
      if (!response.ok) throw new Error(`status ${response.status}`);
    },
    onmessage: (message) => {
      if (message.data || message.event) window.came.push({ event: message.event || "message", data: message.data });
    },
  }).then(() => (window.outcome = "clean"), (error) => (window.outcome = String(error)));
};
