// A chat as the AI SDK's documentation writes it: useChat with `resume`. What it keeps over a reload is in the
// address: `keep=partial` keeps the messages as they are shown, `keep=asked` only what the user said, as an app does that
// stores the answer at its end.
import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport } from "ai";
import { useEffect } from "react";
import { createRoot } from "react-dom/client";

const parameters = new URLSearchParams(location.search);
const id = parameters.get("id"), keep = parameters.get("keep") ?? "partial";
const kept = JSON.parse(sessionStorage.getItem(id) ?? "[]");

function Chat() {
  const chat = useChat({ id, messages: kept, resume: kept.length > 0, transport: new DefaultChatTransport({ api: "/api/chat" }) });
  useEffect(() => {
    const messages = keep === "partial" ? chat.messages : chat.messages.filter((message) => message.role === "user");
    sessionStorage.setItem(id, JSON.stringify(messages));
  }, [chat.messages]);
  window.chat = chat;
  return (
    <main data-status={chat.status} data-error={chat.error?.message}>
      {chat.messages.map((message) => (
        <p key={message.id} id={message.id} data-role={message.role}>
          {message.parts.filter((part) => part.type === "text").map((part) => part.text).join("")}
        </p>
      ))}
      <button onClick={() => chat.sendMessage({ text: "hi" })}>send</button>
      <button onClick={() => chat.stop()}>stop</button>
    </main>
  );
}

createRoot(document.getElementById("root")).render(<Chat />);
