// Answers as the services give them, made of words.
const data = json => `data: ${JSON.stringify(json)}\n\n`

export const words = n => Array.from({ length: n }, (_, i) => `word${i} `)

export const openai = words => [
  ...words.map((content, i) => data({ id: 'c1', object: 'chat.completion.chunk', created: 1, model: 'm', choices: [{ index: 0, delta: { ...(i ? {} : { role: 'assistant' }), content }, finish_reason: null }] })),
  data({ id: 'c1', object: 'chat.completion.chunk', created: 1, model: 'm', choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] }),
  'data: [DONE]\n\n',
]

const named = json => `event: ${json.type}\n${data(json)}`

export const anthropic = words => [
  named({ type: 'message_start', message: { id: 'm1', type: 'message', role: 'assistant', model: 'm', content: [], stop_reason: null, stop_sequence: null, usage: { input_tokens: 1, output_tokens: 1 } } }),
  named({ type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } }),
  ...words.map(text => named({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text } })),
  named({ type: 'content_block_stop', index: 0 }),
  named({ type: 'message_delta', delta: { stop_reason: 'end_turn', stop_sequence: null }, usage: { output_tokens: words.length } }),
  named({ type: 'message_stop' }),
]

export const uiMessages = words => [
  data({ type: 'start', messageId: 'a1' }),
  data({ type: 'start-step' }),
  data({ type: 'text-start', id: 't1' }),
  ...words.map(delta => data({ type: 'text-delta', id: 't1', delta })),
  data({ type: 'text-end', id: 't1' }),
  data({ type: 'finish-step' }),
  data({ type: 'finish' }),
  'data: [DONE]\n\n',
]

/** The headers of an AI SDK server's answer. */
export const uiHeaders = { 'x-vercel-ai-ui-message-stream': 'v1' }
