"""A toy graph: one node that streams words with a fake chat model. No key, no model, no network."""

import asyncio
from typing import Annotated, TypedDict

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


class SlowModel(GenericFakeChatModel):
    async def _astream(self, *args, **kwargs):
        async for chunk in super()._astream(*args, **kwargs):
            await asyncio.sleep(0.03)
            yield chunk


async def talk(state: State):
    asked = state["messages"][-1].content
    # Who is going to be stopped has much to say.
    words = " ".join(f"{n}:{asked}" for n in range(2000 if asked == "stop" else 40))
    model = SlowModel(messages=iter([AIMessage(content=words)]))
    return {"messages": [await model.ainvoke(state["messages"])]}


graph = StateGraph(State).add_node("talk", talk).add_edge(START, "talk").add_edge("talk", END).compile()
