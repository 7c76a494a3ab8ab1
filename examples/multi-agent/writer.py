"""A sub-agent: a plain SSE server."""

from agent import question_of, serve, speak


def answer(body, headers):
    yield from speak(f"A draft on “{question_of(body)}”. It begins with what is known, goes on with what is "
                     "disputed, and ends with what one would have to measure to decide it.")


serve(answer)
