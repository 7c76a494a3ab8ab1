-- Opens a run and writes its first entries; creates the session. Idempotent by (run, nonce).
--
-- ARGV: 5 run, 6 owner, 7 nonce, 8 parent, 9 route, 10 key, 11 counts, 12 lens, 13 bytes, 14… fields.
-- Answers: opened started cancel | stored first last prev published cancel | fenced | terminal offset state |
-- unknown

local id, owner, nonce, parent, route, key = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local batch = { counts = ARGV[11], lens = ARGV[12], bytes = tonumber(ARGV[13]), base = 14, skip = 0 }
local field = 'run:' .. id

local s, expired_meta = load(field)
if not s then
  local tomb = tombstone()
  if redis.call('EXISTS', LOG) == 1 then
    s = rebuild(field)
  else
    -- An erased session may be made anew by a run; its offsets go on.
    local expired = tomb and tomb.state == 'live' and now >= tomb.expires and tomb.last or nil
    s = create(tomb and tomb.last or ZERO, expired, field, expired_meta)
  end
end

if s.writer then
  local run = parse_run(s.writer)
  if run.state == 'never' then return { 'unknown' } end
  local own = run.counter == '1' and run.nonce == nonce
  if own or (run.counter == '0' and run.state == 'active') then return { 'opened', run.started, run.cancel } end
  if run.state ~= 'active' then return { 'terminal', run.ended, run.state } end
  return { 'fenced' }
end

local by = key ~= NONE and remembered('key ' .. key)
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
return { 'stored', first, last, prev, published, run.cancel }
