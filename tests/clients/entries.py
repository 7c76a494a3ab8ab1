"""The client entry points of the matrix: which runner has them, which dialect they read, and their rows in the file."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Entry:
    """One entry point. `key` names it on the command line, `client` in its runner; `version` is as in the file."""

    client: str
    dialect: str
    version: str
    runner: str
    row: str

    @property
    def key(self):
        return f"{self.row} ({self.version})"

    @property
    def slug(self):
        """The client as a path segment."""
        return "".join(c if c.isalnum() else "-" for c in self.client)


def python(row, dialect, version, packages="openai-2"):
    return Entry(row, dialect, version, packages, row)


def node(row, dialect, version, client=None):
    return Entry(client or row, dialect, version, "node", row)


ENTRIES = [
    python("openai-python chat", "chat", "openai PyPI 2.54.0"),
    python("openai-python responses", "responses", "openai PyPI 2.54.0"),
    python("anthropic-python raw", "anthropic", "anthropic PyPI 2.11.0"),
    python("anthropic-python stream()", "anthropic", "anthropic PyPI 2.11.0"),
    python("httpx-sse", "generic", "httpx-sse 0.4.3"),
    python("requests iter_lines", "generic", "requests 2.34.2"),
    python("aiohttp-sse-client2", "generic", "aiohttp-sse-client2 0.3.0"),
    node("openai-node chat", "chat", "openai npm 7.55.0"),
    node("openai-node responses", "responses", "openai npm 7.55.0"),
    node("anthropic-ts raw", "anthropic", "@anthropic-ai/sdk 1.12.0"),
    node("ai DefaultChatTransport", "ui", "ai 7.0.173"),
    node("ai reconnectToStream", "ui", "ai 7.0.173"),
    node("@ai-sdk/openai chat", "chat", "@ai-sdk/openai 4.0.118"),
    node("@ai-sdk/openai responses", "responses", "@ai-sdk/openai 4.0.118"),
    node("@ag-ui/client HttpAgent", "ag-ui", "@ag-ui/client 1.0.0"),
    node("@google/genai", "gemini", "@google/genai 3.1.0"),
    node("@mistralai", "mistral", "@mistralai/mistralai 2.7.0"),
    node("cohere-ai", "cohere", "cohere-ai 8.1.0"),
    node("langgraph-sdk js", "langgraph", "@langchain/langgraph-sdk 2.0.0"),
    node("eventsource npm", "generic", "eventsource 5.1.5"),
    python("openai-python chat", "chat", "openai PyPI 3.54.0", "openai-3"),
    python("openai-python responses", "responses", "openai PyPI 3.54.0", "openai-3"),
    node("ai DefaultChatTransport", "ui", "ai 6.0.326 (Node 20)", "ai 6 DefaultChatTransport"),
    node("ai reconnectToStream", "ui", "ai 6.0.326 (Node 20)", "ai 6 reconnectToStream"),
]

# The accumulators of scripts/clients --replays: which recordings they read is the dialect of tests/data/sse's index.
ACCUMULATORS = [
    python("openai-python chat", "openai-chat", "openai PyPI 2.54.0"),
    python("openai-python chat", "openai-chat", "openai PyPI 3.54.0", "openai-3"),
    node("openai-node chat", "openai-chat", "openai npm 7.55.0"),
    node("@ai-sdk/openai chat", "openai-chat", "@ai-sdk/openai 4.0.118"),
    node("@mistralai", "openai-chat", "@mistralai/mistralai 2.7.0"),
    python("openai-python responses", "openai-responses", "openai PyPI 2.54.0"),
    python("openai-python responses", "openai-responses", "openai PyPI 3.54.0", "openai-3"),
    node("openai-node responses", "openai-responses", "openai npm 7.55.0"),
    node("@ai-sdk/openai responses", "openai-responses", "@ai-sdk/openai 4.0.118"),
    python("anthropic-python stream()", "anthropic-messages", "anthropic PyPI 2.11.0"),
    node("anthropic-ts stream()", "anthropic-messages", "@anthropic-ai/sdk 1.12.0"),
    node("ai readUIMessageStream", "vercel-ui-message-stream", "ai 7.0.173"),
    node("ai readUIMessageStream", "vercel-ui-message-stream", "ai 6.0.326", "ai 6 readUIMessageStream"),
    node("@ag-ui/client HttpAgent", "ag-ui", "@ag-ui/client 1.0.0"),
    node("@google/genai", "gemini-sse", "@google/genai 3.1.0"),
    node("cohere-ai", "cohere-v2", "cohere-ai 8.1.0"),
    node("langgraph-sdk js", "langgraph-runs-stream", "@langchain/langgraph-sdk 2.0.0"),
]
