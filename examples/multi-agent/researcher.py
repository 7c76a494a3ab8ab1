"""A sub-agent: a plain SSE server."""

from agent import question_of, serve, speak


def answer(body, headers):
    yield from speak(f"Looking into “{question_of(body)}”. I find three sources. The first agrees, the second "
                     "does not, and the third is older than both. On balance the first is right.")


serve(answer)
