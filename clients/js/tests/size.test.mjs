import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'

test('`connect` alone has at most 8 KiB, minified and compressed, and imports nothing of others', async t => {
  const built = await build({ entryPoints: ['src/connect.ts'], bundle: true, minify: true, format: 'esm', target: 'es2022', write: false, metafile: true })
  const size = gzipSync(built.outputFiles[0].contents, { level: 9 }).length
  t.diagnostic(`${size} bytes`)
  assert.ok(size <= 8192, `${size} bytes`)
  assert.ok(Object.keys(built.metafile.inputs).every(file => file.startsWith('src/')))
})

test('there are no runtime dependencies, and the lock file names no registry', async () => {
  const { dependencies } = JSON.parse(await readFile('package.json'))
  assert.equal(dependencies, undefined)
  assert.ok(!/https?:\/\/[^"]*\.tgz/.test(await readFile('package-lock.json', 'utf8')))
})
