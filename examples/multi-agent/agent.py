"""The least that an agent needs to be an SSE server. Standard library only.

Nothing in this file knows Sidestream: any server that streams will do.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PACE = float(os.environ.get("PACE", "0.12"))  # seconds between two words


def serve(answer):
    """Serves POST requests: `answer(body, headers)` yields SSE events, which are sent as they come."""

    class Agent(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in chunked(answer(body, self.headers)):
                self.wfile.write(chunk)

        def log_message(self, *_):
            pass

    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    server = ThreadingHTTPServer(("127.0.0.1", port), Agent)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


def say(text):
    """One piece of an answer, in the format of OpenAI's chat completions."""
    return "data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}) + "\n\n"


def speak(text):
    """A whole answer, word by word."""
    for word in text.split():
        yield say(word + " ")
        time.sleep(PACE)


def question_of(body):
    """What was asked, as the demo page or a chat client sends it."""
    return body.get("message") or body["messages"][-1]["content"]


def chunked(events):
    """An HTTP/1.1 body of pieces whose number nobody knows yet (RFC 9112, section 7.1)."""
    for event in events:
        data = event.encode()
        yield b"%x\r\n%s\r\n" % (len(data), data)
    yield b"0\r\n\r\n"
