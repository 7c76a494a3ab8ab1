-- Fences a run's owner and writes the run's terminal. A run that was never opened is marked, so
-- that it never can be.
--
-- ARGV: 6 run, 7 nonce, 8 details (a JSON object), 9 largest push in bytes.
-- Answers: stored first last prev published state details | ended offset state | terminal offset state |
-- queued | never | erased | expired

local id, nonce, details = ARGV[6], ARGV[7], ARGV[8]
local field = 'run:' .. id

local function never()
  even_when_full()
  redis.call('HSET', META, 'v', LAYOUT, field, format_run({ state = 'never', counter = '1', nonce = nonce, n = 0,
    owner = '-', started = ZERO, last = ZERO, ended = '-', cancel = '0', parent = NONE, route = '%', key = NONE,
    by = '' }))
  if redis.call('PTTL', META) < 0 then redis.call('PEXPIREAT', META, text(now + TTL)) end
end

local s, expired_meta = load(field)
if not s then
  local tomb = tombstone()
  if tomb and tomb.state == 'erased' then return { 'erased' } end
  if is_headless(expired_meta, tomb) then
    s = rebuild(field)
  elseif tomb and now >= tomb.expires then
    -- Its owner may still try to open it: that would begin a new session with a ghost.
    even_when_full()
    if expired_meta then
      redis.call('DEL', META, ACTIVE, QUEUE, ITEMS, CURSORS)
    end
    never()
    return { 'expired' }
  elseif find_queued(read_queue(), 'run', id) then
    return { 'queued' }
  else
    local marker = redis.call('HGET', META, field)
    if not marker then never() end
    return { 'never' }
  end
end

local run = s.writer and parse_run(s.writer)
if not run then
  if find_queued(read_queue(), 'run', id) then return { 'queued' } end
  never()
  return { 'never' }
end
if run.state == 'never' then return { 'never' } end
if run.state ~= 'active' then
  if run.nonce == nonce then return { 'ended', run.ended, run.state } end
  return { 'terminal', run.ended, run.state }
end

even_when_full()
local state = run.cancel == '1' and 'cancelled' or 'interrupted'
-- Takeover::whole_details in Rust.
local took = math.max(0, stamp(s) - (halves(run.started)))
local by = run.cancel == '1' and run.by ~= '' and '"by":' .. run.by .. ',' or ''
local rest = details == '{}' and '}' or ',' .. string.sub(details, 2)
details = '{' .. by .. '"duration_ms":' .. text(took) .. rest
local fields = { 'kind', 'run', 'run', id, 'event', state, 'data', details }
local base, lens = #ARGV + 1, {}
local limit = tonumber(ARGV[9])
for i, value in ipairs(fields) do
  ARGV[base + i - 1] = value
  lens[i] = #value
end
local bytes = size_of(fields)
local batch = { counts = string.char(#fields), bytes = bytes, base = base, skip = 0,
  lens = bytes <= limit and table.concat(lens, ',') or '' }
run.state, run.counter, run.nonce = state, text(tonumber(run.counter) + 1), nonce
local first, last, prev, published = write(s, batch, field, function(_, last)
  run.ended = last -- `last` stays what the owner wrote last, for its repeats
  return format_run(run)
end, {})
redis.call('HDEL', ACTIVE, id)
return { 'stored', first, last, prev, published, state, details }
