"""A sub-agent without a sidecar: it writes to the session itself, and answers when it is done.

Its body is one POST request that lasts as long as it speaks. Everybody who watches the session sees
each word as soon as it is stored; the answer, at the end, says where the last one stands.
"""

import http.client
import json
import os
from urllib.parse import urlsplit

from agent import chunked, question_of, say, serve, speak

SIDECAR = urlsplit(os.environ["SIDECAR"])  # any sidecar of the session's store


def answer(body, headers):
    text = f"Before anybody reads “{question_of(body)}”: who says so, compared with what, and how would we know?"
    connection = http.client.HTTPConnection(SIDECAR.netloc)
    connection.request(
        "POST",
        f"/_sidestream/v1/sessions/{body['session']}/events",
        body=chunked(speak(text)),
        headers={
            "Content-Type": "text/event-stream",
            "Transfer-Encoding": "chunked",
            "Sidestream-Source": "critic",
            "Sidestream-Parent-Run": body["parent"],
        },
    )
    written = json.load(connection.getresponse())
    yield say(f"{written['events']} words, up to {written['offset']}")


serve(answer)
