// The JavaScript clients of the matrix: for each entry point a function that reads one answer as an application would.
// A client takes the URL of its scenario and answers [text, end]; whatever it throws is the cell's error. Packages are
// imported when a client is chosen: one process runs one of them.

const question = [{ role: 'user', content: 'hi' }];

/** openai: chat.completions.create({ stream: true }) */
async function openaiChat() {
  const { default: OpenAI } = await import('openai');
  return async (url) => {
    const client = new OpenAI({ baseURL: url, apiKey: 'k' });
    let text = '', end;
    for await (const chunk of await client.chat.completions.create({ model: 'm', messages: question, stream: true })) {
      for (const choice of chunk.choices ?? []) {
        text += choice.delta.content ?? '';
        end = choice.finish_reason ?? end;
      }
    }
    return [text, end];
  };
}

/** openai: responses.create({ stream: true }) */
async function openaiResponses() {
  const { default: OpenAI } = await import('openai');
  return async (url) => {
    const client = new OpenAI({ baseURL: url, apiKey: 'k' });
    let text = '', end;
    for await (const event of await client.responses.create({ model: 'm', input: 'hi', stream: true })) {
      if (event.type === 'response.output_text.delta') text += event.delta;
      else if (event.type === 'response.completed') end = 'completed';
    }
    return [text, end];
  };
}

/** @anthropic-ai/sdk: messages.create({ stream: true }) */
async function anthropicRaw() {
  const { default: Anthropic } = await import('@anthropic-ai/sdk');
  return async (url) => {
    const client = new Anthropic({ baseURL: url, apiKey: 'k' });
    let text = '', end;
    const request = { model: 'm', max_tokens: 100, messages: question, stream: true };
    for await (const event of await client.messages.create(request)) {
      if (event.type === 'content_block_delta') text += event.delta.text ?? '';
      else if (event.type === 'message_stop') end = 'stop';
    }
    return [text, end];
  };
}

/** The text of the last message that readUIMessageStream builds, and the chunk that ended it. */
async function readUi(ai, stream, endOf) {
  let end, failure, message;
  const watched = stream.pipeThrough(
    new TransformStream({
      transform(chunk, controller) {
        if (chunk.type === 'finish') end = endOf;
        controller.enqueue(chunk);
      },
    }),
  );
  const fail = (error) => (failure ??= error);
  for await (message of ai.readUIMessageStream({ stream: watched, onError: fail }));
  if (failure) throw failure;
  const parts = message?.parts ?? [];
  return [parts.map((part) => (part.type === 'text' ? part.text : '')).join(''), end];
}

const uiMessage = { id: 'u1', role: 'user', parts: [{ type: 'text', text: 'hi' }] };

/** ai: DefaultChatTransport.sendMessages */
const sendMessages = (name) => async () => {
  const ai = await import(name);
  return async (url) => {
    const transport = new ai.DefaultChatTransport({ api: url });
    const request = { chatId: 'c1', messages: [uiMessage], trigger: 'submit-message', abortSignal: undefined };
    return readUi(ai, await transport.sendMessages(request), 'finish');
  };
};

/** ai: DefaultChatTransport.reconnectToStream; the matrix records no end for it, but `null` where there is no stream */
const reconnectToStream = (name) => async () => {
  const ai = await import(name);
  return async (url) => {
    const stream = await new ai.DefaultChatTransport({ api: url }).reconnectToStream({ chatId: 'c1' });
    return stream ? readUi(ai, stream, undefined) : [undefined, 'null'];
  };
};

/** streamText over a model of @ai-sdk/openai */
const streamText = (kind) => async () => {
  const [{ createOpenAI }, ai] = await Promise.all([import('@ai-sdk/openai'), import('ai')]);
  return async (url) => {
    const model = createOpenAI({ baseURL: url, apiKey: 'k' })[kind]('m');
    let text = '', end;
    for await (const part of ai.streamText({ model, prompt: 'hi', maxRetries: 0, onError() {} }).fullStream) {
      if (part.type === 'text-delta') text += part.text;
      else if (part.type === 'error') throw part.error;
      else if (part.type === 'finish') end = part.finishReason;
    }
    return [text, end];
  };
};

/** @ag-ui/client: HttpAgent.runAgent */
async function agUi() {
  const { HttpAgent } = await import('@ag-ui/client');
  // It prints what it also throws.
  console.error = console.warn = () => {};
  return async (url) => {
    const agent = new HttpAgent({ url, threadId: 't1', initialMessages: [{ id: 'u1', role: 'user', content: 'hi' }] });
    let text = '', end;
    await agent.runAgent(
      { runId: 'r1' },
      {
        onTextMessageContentEvent({ event }) {
          text += event.delta;
        },
        onRunFinishedEvent() {
          end = 'finished';
        },
      },
    );
    return [text, end];
  };
}

/** @google/genai: models.generateContentStream */
async function gemini() {
  const { GoogleGenAI } = await import('@google/genai');
  return async (url) => {
    const client = new GoogleGenAI({ apiKey: 'k', httpOptions: { baseUrl: url } });
    let text = '', end;
    for await (const chunk of await client.models.generateContentStream({ model: 'm', contents: 'hi' })) {
      text += chunk.text ?? '';
      end = chunk.candidates?.[0]?.finishReason ?? end;
    }
    return [text, end];
  };
}

/** @mistralai/mistralai: chat.stream */
async function mistral() {
  const { Mistral } = await import('@mistralai/mistralai');
  return async (url) => {
    const client = new Mistral({ apiKey: 'k', serverURL: url });
    let text = '', end;
    for await (const { data } of await client.chat.stream({ model: 'm', messages: question })) {
      for (const choice of data.choices) {
        text += choice.delta.content ?? '';
        end = choice.finishReason ?? end;
      }
    }
    return [text, end];
  };
}

/** cohere-ai: CohereClientV2.chatStream */
async function cohere() {
  const { CohereClientV2 } = (await import('cohere-ai')).default;
  return async (url) => {
    const client = new CohereClientV2({ token: 'k', environment: url });
    let text = '', end;
    for await (const event of await client.chatStream({ model: 'm', messages: question })) {
      if (event.type === 'content-delta') text += event.delta?.message?.content?.text ?? '';
      else if (event.type === 'message-end') end = 'end';
    }
    return [text, end];
  };
}

/** @langchain/langgraph-sdk: runs.stream */
async function langgraph() {
  const { Client } = await import('@langchain/langgraph-sdk');
  return async (url) => {
    const client = new Client({ apiUrl: url, apiKey: 'k', callerOptions: { maxRetries: 0 } });
    let text = '', end;
    const payload = { input: { messages: question }, streamMode: ['messages-tuple', 'values'] };
    for await (const { event, data } of client.runs.stream('t1', 'agent', payload)) {
      if (event === 'messages') text += data[0].content;
      else if (event === 'values') end = 'values';
    }
    return [text, end];
  };
}

/** eventsource: until the connection closes after the end, or is refused, or has failed twice */
async function eventSource() {
  const { EventSource } = await import('eventsource');
  return (url) =>
    new Promise((resolve) => {
      const source = new EventSource(url);
      let text = '', end, failures = 0;
      const finish = (with_) => {
        source.close();
        resolve([text, with_]);
      };
      source.onmessage = ({ data }) => {
        if (data === '[DONE]') end = 'done';
        else if (data) text += JSON.parse(data).t;
      };
      source.onerror = ({ message }) => {
        failures += 1;
        if (end) finish(end);
        else if (source.readyState === EventSource.CLOSED) finish(`closed ${message}`);
        else if (failures === 2) finish(`err ${message}`);
      };
    });
}

export const clients = {
  'openai-node chat': openaiChat,
  'openai-node responses': openaiResponses,
  'anthropic-ts raw': anthropicRaw,
  'ai DefaultChatTransport': sendMessages('ai'),
  'ai reconnectToStream': reconnectToStream('ai'),
  'ai 6 DefaultChatTransport': sendMessages('ai6'),
  'ai 6 reconnectToStream': reconnectToStream('ai6'),
  '@ai-sdk/openai chat': streamText('chat'),
  '@ai-sdk/openai responses': streamText('responses'),
  '@ag-ui/client HttpAgent': agUi,
  '@google/genai': gemini,
  '@mistralai': mistral,
  'cohere-ai': cohere,
  'langgraph-sdk js': langgraph,
  'eventsource npm': eventSource,
};
