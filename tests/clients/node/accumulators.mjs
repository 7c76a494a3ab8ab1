// The accumulators of the JavaScript SDKs: each reads one whole answer and answers the state that the SDK built of it.
// SDKs without one hand out events: there a fold does what an application would, and joins neighbouring text.

const question = [{ role: 'user', content: 'hi' }];

/** openai: chat.completions.stream() */
async function openaiChat() {
  const { default: OpenAI } = await import('openai');
  return async (url) => {
    const client = new OpenAI({ baseURL: url, apiKey: 'k', maxRetries: 0 });
    const stream = client.chat.completions.stream({ model: 'm', messages: question });
    let snapshot;
    stream.on('content', (_, whole) => (snapshot = whole));
    return { final: await stream.finalChatCompletion(), snapshot };
  };
}

/** openai: responses.stream(), with the last snapshot of every block: the last event repeats the whole answer */
async function openaiResponses() {
  const { default: OpenAI } = await import('openai');
  return async (url) => {
    const client = new OpenAI({ baseURL: url, apiKey: 'k', maxRetries: 0 });
    const stream = client.responses.stream({ model: 'm', input: 'hi' });
    const snapshots = {};
    stream.on('event', (event) => {
      if ('snapshot' in event) snapshots[`${event.type} ${event.output_index} ${event.content_index}`] = event.snapshot;
    });
    return { final: await stream.finalResponse(), snapshots };
  };
}

/** @ai-sdk/openai: streamText */
const streamText = (kind) => async () => {
  const [{ createOpenAI }, ai] = await Promise.all([import('@ai-sdk/openai'), import('ai')]);
  return async (url) => {
    const model = createOpenAI({ baseURL: url, apiKey: 'k' })[kind]('m');
    const result = ai.streamText({ model, prompt: 'hi', maxRetries: 0, onError() {} });
    const errors = [];
    for await (const part of result.fullStream) if (part.type === 'error') errors.push(String(part.error));
    const [content, finishReason, usage] = await Promise.all([result.content, result.finishReason, result.totalUsage]);
    // The SDK makes up the ids of sources.
    for (const part of content) if (part.type === 'source') part.id = undefined;
    return { content, finishReason, usage, errors };
  };
};

/** @anthropic-ai/sdk: messages.stream() */
async function anthropic() {
  const { default: Anthropic } = await import('@anthropic-ai/sdk');
  return async (url) => {
    const client = new Anthropic({ baseURL: url, apiKey: 'k', maxRetries: 0 });
    return client.messages.stream({ model: 'm', max_tokens: 100, messages: question }).finalMessage();
  };
}

/** ai: readUIMessageStream */
const readUi = (name) => async () => {
  const ai = await import(name);
  return async (url) => {
    const transport = new ai.DefaultChatTransport({ api: url });
    const request = { chatId: 'c1', messages: [], trigger: 'submit-message', abortSignal: undefined };
    const stream = await transport.sendMessages(request);
    const errors = [];
    let message = { id: 'a1', role: 'assistant', parts: [] };
    for await (message of ai.readUIMessageStream({ message, stream, onError: (error) => errors.push(String(error)) }));
    return { message, errors };
  };
};

/** @ag-ui/client: the messages and the state of an HttpAgent */
async function agUi() {
  const { HttpAgent } = await import('@ag-ui/client');
  console.error = console.warn = () => {};
  return async (url) => {
    const agent = new HttpAgent({ url, threadId: 't1' });
    const { result } = await agent.runAgent({ runId: 'r1' });
    return { messages: agent.messages, state: agent.state, result };
  };
}

/** Appends `value`; to the text of the last item, where both are text and alike otherwise. */
function join(items, value, text = 'text') {
  const last = items.at(-1);
  const rest = ({ [text]: _, ...others }) => JSON.stringify(others);
  if (typeof last?.[text] === 'string' && typeof value[text] === 'string' && rest(last) === rest(value)) {
    last[text] += value[text];
  } else items.push(structuredClone(value));
}

/** @google/genai: generateContentStream, its parts joined */
async function gemini() {
  const { GoogleGenAI } = await import('@google/genai');
  return async (url) => {
    const client = new GoogleGenAI({ apiKey: 'k', httpOptions: { baseUrl: url } });
    const parts = [], last = {};
    for await (const chunk of await client.models.generateContentStream({ model: 'm', contents: 'hi' })) {
      for (const candidate of chunk.candidates ?? []) {
        for (const part of candidate.content?.parts ?? []) join(parts, part);
        const { content, ...others } = candidate;
        Object.assign(last, others);
      }
      Object.assign(last, { usage: chunk.usageMetadata, model: chunk.modelVersion, response: chunk.responseId });
    }
    return { parts, last };
  };
}

/** @mistralai/mistralai: chat.stream, its choices folded */
async function mistral() {
  const { Mistral } = await import('@mistralai/mistralai');
  return async (url) => {
    const client = new Mistral({ apiKey: 'k', serverURL: url });
    const content = [], calls = [], last = {};
    for await (const { data } of await client.chat.stream({ model: 'm', messages: question })) {
      for (const { delta, finishReason } of data.choices) {
        const text = typeof delta.content === 'string';
        for (const piece of text ? [{ type: 'text', text: delta.content }] : (delta.content ?? [])) {
          const thoughts = piece.type === 'thinking' ? piece.thinking : undefined;
          for (const thought of thoughts ?? []) join(content, { ...thought, type: 'thinking' });
          if (!thoughts) join(content, piece);
        }
        for (const call of delta.toolCalls ?? []) join(calls, { ...call.function, index: call.index }, 'arguments');
        last.finishReason = finishReason ?? last.finishReason;
      }
      last.usage = data.usage ?? last.usage;
    }
    return { content, calls, last };
  };
}

/** cohere-ai: chatStream, its blocks folded by index */
async function cohere() {
  const { CohereClientV2 } = (await import('cohere-ai')).default;
  return async (url) => {
    const client = new CohereClientV2({ token: 'k', environment: url });
    const blocks = {}, others = [];
    const add = (name, text) => (blocks[name] = (blocks[name] ?? '') + text);
    for await (const event of await client.chatStream({ model: 'm', messages: question })) {
      const message = event.delta?.message;
      const { text, thinking } = message?.content ?? {};
      const argument = message?.toolCalls?.function?.arguments;
      if (event.type === 'content-delta') add(`content ${event.index}`, text ?? thinking);
      else if (event.type === 'tool-call-delta') add(`call ${event.index}`, argument);
      else if (event.type === 'tool-plan-delta') add('plan', message.toolPlan);
      else others.push(event);
    }
    return { blocks, others };
  };
}

/** @langchain/langgraph-sdk: runs.stream; what is cumulative counts with its last value */
async function langgraph() {
  const { Client } = await import('@langchain/langgraph-sdk');
  return async (url) => {
    const client = new Client({ apiUrl: url, apiKey: 'k', callerOptions: { maxRetries: 0 } });
    const messages = {}, partial = {}, others = [];
    const payload = { input: {}, streamMode: ['messages-tuple'] };
    for await (const { event, data } of client.runs.stream('t1', 'agent', payload)) {
      if (event === 'messages') {
        const [{ content, ...rest }, about] = data;
        const known = (messages[rest.id] ??= { content: '' });
        known.content = typeof content === 'string' ? known.content + content : [].concat(known.content, content);
        Object.assign(known, { rest, about });
      } else if (event === 'messages/partial') for (const message of data) partial[message.id] = message;
      else others.push({ event, data });
    }
    return { messages, partial, others };
  };
}

export const accumulators = {
  'openai-node chat': openaiChat,
  'openai-node responses': openaiResponses,
  'anthropic-ts stream()': anthropic,
  'ai readUIMessageStream': readUi('ai'),
  'ai 6 readUIMessageStream': readUi('ai6'),
  '@ai-sdk/openai chat': streamText('chat'),
  '@ai-sdk/openai responses': streamText('responses'),
  '@ag-ui/client HttpAgent': agUi,
  '@google/genai': gemini,
  '@mistralai': mistral,
  'cohere-ai': cohere,
  'langgraph-sdk js': langgraph,
};
