"""The agent that the user talks to. It has the others work on the question, all at once, and relays nothing.

Its own caller named the session (`Sidestream-Session`), so Sidestream tells it the session and its run. It hands both
on with each call: what the others say goes into the same session, each in a run of its own, below this one.
"""

import json
import os
import urllib.request
from concurrent.futures import ThreadPoolExecutor, as_completed

from agent import question_of, say, serve, speak

# Behind Sidestream: the addresses of their sidecars instead of their own.
SIDECARS = {"researcher": os.environ["RESEARCHER"], "writer": os.environ["WRITER"]}
# Writes to the session itself.
CRITIC = os.environ["CRITIC"]


def answer(body, headers):
    session, run = headers["Sidestream-Session"], headers["Sidestream-Run"]
    yield from speak("I ask a researcher, a writer and a critic.")
    with ThreadPoolExecutor() as pool:
        asked = {
            pool.submit(
                call,
                url,
                body,
                {"Sidestream-Session": session, "Sidestream-Source": name, "Sidestream-Parent-Run": run},
            ): name
            for name, url in SIDECARS.items()
        }
        asked[pool.submit(call, CRITIC, {**body, "session": session, "parent": run}, {})] = "critic"
        for done in as_completed(asked):
            yield say(f"The {asked[done]} is done after {done.result()} events. ")
    yield from speak(f"That is all on “{question_of(body)}”.")
    yield "data: [DONE]\n\n"


def call(url, body, headers):
    """Waits for the end of an answer, and keeps no more of it than its length."""
    headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(url + "/chat", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as response:
        return sum(line.startswith(b"data:") for line in response)


serve(answer)
