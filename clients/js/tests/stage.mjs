// Real processes and servers for the tests: the sidecar, a backend, and a line between that can be cut. All on loopback,
// at free ports, ended by the test that began them.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import net from 'node:net'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../../', import.meta.url))
const SIDESTREAM = process.env.SIDESTREAM ?? `${root}target/debug/sidestream`
const DEMO_AGENT = process.env.DEMO_AGENT ?? `${root}target/debug/demo-agent`

// A test that is given up leaves no process behind.
const children = new Set()
process.once('SIGTERM', () => process.exit(1))
process.on('exit', () => children.forEach(child => child.kill('SIGKILL')))

/** Everything that a test has begun; `end` ends it in reverse order. */
export class Stage {
  #ends = []

  /** A backend whose answers are `answer(request, response, body)`. */
  async backend(answer) {
    const asked = []
    const server = createServer(async (request, response) => {
      const pieces = []
      for await (const piece of request) pieces.push(piece)
      const body = Buffer.concat(pieces).toString()
      const call = { method: request.method, url: request.url, headers: request.headers, body, closed: false }
      asked.push(call)
      response.on('close', () => (call.closed = true))
      await answer(request, response, body)
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    this.#ends.push(() => (server.closeAllConnections(), new Promise(resolve => server.close(resolve))))
    return { url: `http://127.0.0.1:${server.address().port}`, asked }
  }

  async demoAgent(...options) {
    const child = this.#spawn(DEMO_AGENT, ['--recordings', `${root}tests/data/sse/visible`, ...options])
    const line = await new Promise((resolve, reject) => {
      for (const stream of [child.stdout, child.stderr]) createInterface({ input: stream }).on('line', line => /:\d+/.test(line) && resolve(line))
      child.once('exit', code => reject(new Error(`demo-agent ended with ${code}`)))
    })
    return { url: `http://${line.match(/127\.0\.0\.1:\d+/)[0]}` }
  }

  /** The real binary in front of `upstream`. `kill` and `again` are a crash and a restart at the same address. */
  async sidecar(upstream, { store = 'memory:', args = [] } = {}) {
    const self = { url: undefined, log: [] }
    const start = async listen => {
      const child = this.#spawn(SIDESTREAM, ['--upstream', upstream, '--store', store, '--listen', listen, '--health-listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0', '--log-format', 'json', ...args])
      const address = await new Promise((resolve, reject) => {
        for (const stream of [child.stdout, child.stderr]) {
          createInterface({ input: stream }).on('line', line => {
            self.log.push(line)
            if (line.includes('"listener":"data"')) resolve(JSON.parse(line).address)
          })
        }
        child.once('exit', code => reject(new Error(`the sidecar ended with ${code}:\n${self.log.join('\n')}`)))
      })
      self.url = `http://${address}`
      self.kill = async () => {
        const gone = once(child, 'exit')
        child.kill('SIGKILL')
        await gone
      }
      self.again = () => start(address)
      return self
    }
    return start('127.0.0.1:0')
  }

  /** A TCP line to `url`; `cut()` resets all its connections, `after(bytes)` each when it has carried so much. */
  async line(url) {
    const target = new URL(url)
    const sockets = new Set()
    const self = { cuts: 0, limit: () => Infinity, down: false, connections: 0 }
    const server = net.createServer(near => {
      if (self.down) return near.resetAndDestroy()
      self.connections++
      let left = self.limit(self.connections)
      const far = net.connect(Number(target.port), target.hostname)
      const end = () => {
        sockets.delete(end)
        near.resetAndDestroy()
        far.destroy()
      }
      sockets.add(end)
      near.on('data', bytes => far.write(bytes))
      far.on('data', bytes => {
        near.write(bytes.subarray(0, left))
        left -= bytes.length
        if (left > 0) return
        self.cuts++
        // What was let through is to arrive: an end in the middle of the answer, not a reset that takes it back.
        sockets.delete(end)
        far.destroy()
        near.end()
      })
      for (const socket of [near, far]) socket.on('error', end).on('close', end)
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    self.url = `http://127.0.0.1:${server.address().port}`
    self.cut = () => {
      if (sockets.size) self.cuts++
      for (const end of [...sockets]) end()
    }
    this.#ends.push(() => (self.cut(), new Promise(resolve => server.close(resolve))))
    return self
  }

  /** Something else to be ended. */
  later(end) {
    this.#ends.push(end)
  }

  async end() {
    for (const end of this.#ends.reverse()) await end()
  }

  #spawn(command, args) {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    children.add(child)
    child.once('exit', () => children.delete(child))
    this.#ends.push(async () => {
      if (child.exitCode !== null || child.signalCode !== null) return
      const gone = once(child, 'exit')
      child.kill('SIGKILL')
      await gone
    })
    return child
  }
}

/** Runs a test on a stage of its own. */
export const staged = act => async () => {
  const stage = new Stage()
  try {
    await act(stage)
  } finally {
    await stage.end()
  }
}

/** Answers with these events, `pauseMs` apart. */
export const streaming = (events, { pauseMs = 2, type = 'text/event-stream', headers = {} } = {}) => async (_, response) => {
  response.writeHead(200, { 'content-type': type, ...headers })
  response.flushHeaders()
  for (const event of typeof events === 'function' ? events() : events) {
    if (response.destroyed) return
    response.write(event)
    await new Promise(resolve => setTimeout(resolve, pauseMs))
  }
  response.end()
}
