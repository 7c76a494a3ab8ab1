-- Opens a run and writes its first entries; creates the session. Idempotent by (run, nonce).
--
-- ARGV: 6 run, 7 owner, 8 nonce, 9 parent, 10 route, 11 key, 12 'parallel' | 'waited' | 'again' | 'reject' |
-- 'queue', 13 most that may wait, 14 bytes that they may have, 15 client, 16 item, 17 counts, 18 lens, 19 bytes, 20… fields.
-- Answers (by: who asked for the run's cancellation, '' nobody): opened started by | stored first last prev published by | fenced | terminal offset state |
-- unknown | queued position | queue_full | busy run…

local id, owner, nonce, parent, route, key = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11]
local on_busy, depth, room, client, item = ARGV[12], tonumber(ARGV[13]), tonumber(ARGV[14]), ARGV[15], ARGV[16]
local batch = { counts = ARGV[17], lens = ARGV[18], bytes = tonumber(ARGV[19]), base = 20, skip = 0 }
local field = 'run:' .. id

local s, expired_meta = load(field)
if not s then
  local tomb = tombstone()
  if is_headless(expired_meta, tomb) then
    s = rebuild(field)
  else
    -- An erased session may be made anew by a run, its offsets go on; but not by one that was in it.
    if on_busy == 'again' and tomb and tomb.state == 'erased' then return { 'erased' } end
    local expired = tomb and tomb.state == 'live' and now >= tomb.expires and tomb.last or nil
    s = create(tomb and tomb.last or ZERO, expired, field, expired_meta)
  end
end

if s.writer then
  local run = parse_run(s.writer)
  if run.state == 'never' then return { 'unknown' } end
  local own = run.counter == '1' and run.nonce == nonce
  if own or (run.counter == '0' and run.state == 'active') then return { 'opened', run.started, asked(run) } end
  if run.state ~= 'active' then return { 'terminal', run.ended, run.state } end
  return { 'fenced' }
end

if remembered('run ' .. id) then return { 'unknown' } end
local by = key ~= NONE and remembered('key ' .. key)

-- What waited in a life of the session that has expired is gone with it.
local queue = (s.expired_meta or s.expired) and {} or read_queue()
local queued = find_queued(queue, 'run', id)
if not queued and on_busy == 'waited' then return { 'unknown' } end
if queued and on_busy == 'queue' then return { 'queued', text(queued.position) } end
if on_busy ~= 'parallel' and on_busy ~= 'again' and not queued and not by and parent == NONE and not s.fresh then
  local busy, position = roots_of(route), 1
  for _, q in ipairs(queue) do
    if q.route == route then
      busy[#busy + 1] = q.run
      position = q.position + 1
    end
    room = room - tonumber(q.bytes)
  end
  if #busy > 0 then
    if on_busy == 'reject' then return { 'busy', unpack(busy) } end
    if #queue >= depth or #item > room then return { 'queue_full' } end
    redis.call('RPUSH', QUEUE, format_queued({ run = id, route = route, key = key, client = client, bytes = text(#item),
      owner = NONE, deadline = '0' }))
    redis.call('HSET', ITEMS, id, item)
    redis.call('PEXPIREAT', QUEUE, text(s.expires + META_MS))
    redis.call('PEXPIREAT', ITEMS, text(s.expires + META_MS))
    tell_queue()
    return { 'queued', text(position) }
  end
end
local run = { state = 'active', counter = '1', nonce = nonce, n = #batch.counts, owner = owner, ended = '-',
  cancel = by and '1' or '0', parent = parent, route = route, key = key, by = by or '' }
local set = { 'newest', id }
if key ~= NONE then
  set[#set + 1] = 'key:' .. key
  set[#set + 1] = id
end
local first, last, prev, published = write(s, batch, field, function(_, last)
  run.started, run.last = last, last
  return format_run(run)
end, set)
redis.call('HSET', ACTIVE, id, format_active(run))
redis.call('PEXPIREAT', ACTIVE, text(s.expires + META_MS))
if by then redis.call('HDEL', CANCELS, 'key ' .. key) end
if queued then unqueue(queued) end
return { 'stored', first, last, prev, published, asked(run) }
