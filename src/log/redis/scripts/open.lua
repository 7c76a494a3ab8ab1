-- Opens a run and writes its first entries; creates the session. Idempotent by (run, nonce).
--
-- ARGV: 5 run, 6 owner, 7 nonce, 8 counts, 9 lens, 10 bytes, 11… fields.
-- Answers: opened started | stored first last prev published | fenced | terminal offset state |
-- unknown

local id, owner, nonce = ARGV[5], ARGV[6], ARGV[7]
local batch = { counts = ARGV[8], lens = ARGV[9], bytes = tonumber(ARGV[10]), base = 11, skip = 0 }
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
  if own or (run.counter == '0' and run.state == 'active') then return { 'opened', run.started } end
  if run.state ~= 'active' then return { 'terminal', run.ended, run.state } end
  return { 'fenced' }
end

local first, last, prev, published = write(s, batch, field, function(_, last)
  return format_run({ state = 'active', counter = '1', nonce = nonce, n = #batch.counts, owner = owner,
    started = last, last = last, ended = '-', cancel = '0' })
end, { 'newest', id })
redis.call('HSET', ACTIVE, id, last .. ' ' .. owner)
redis.call('PEXPIREAT', ACTIVE, text(s.expires + META_MS))
return { 'stored', first, last, prev, published }
