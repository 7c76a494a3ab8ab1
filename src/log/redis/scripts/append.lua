-- Appends records of one writer.
--
-- ARGV: 6 'run' | 'producer', 7 writer id, 8 fence counter | epoch, 9 nonce | the run that a producer's
-- records belong to, which must be active ('' none), 10 number
-- of the first record, 11 newest offset that the caller knows ('' none), 12 the run's terminal if
-- the last record is one ('' none), 13 '1': what is missing before the first is gone for good, 14 counts,
-- 15 lens, 16 bytes, 17… fields.
-- Answers (by: who asked for the run's cancellation, '' nobody): stored first last prev published by
-- skipped next | duplicate last by | gap expected |
-- fenced | terminal offset state | erased | expired | unknown | rolled_back tail n

local role, id, generation, nonce = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local first_n, seen, terminal = tonumber(ARGV[10]), ARGV[11], ARGV[12]
local skips = ARGV[13] == '1'
local batch = { counts = ARGV[14], lens = ARGV[15], bytes = tonumber(ARGV[16]), base = 17, skip = 0 }
local count = #batch.counts
local ENDING = 64 * 1024 -- bytes that come with a terminal although Redis is full
local field = role .. ':' .. id
local knows = seen ~= '' and seen ~= ZERO
local adopt = false

local s, expired_meta = load(field)
if not s then
  local tomb = tombstone()
  local ended = tomb and (tomb.state == 'erased' or now >= tomb.expires)
  if ended and outlives(seen, tomb) then
    return { 'rolled_back', ZERO, '0' }
  elseif tomb and tomb.state == 'erased' then
    -- A producer that begins makes the session anew; its offsets go on.
    if role == 'run' or first_n > 1 then return { 'erased' } end
    s = create(tomb.last, nil, field, expired_meta)
  elseif is_headless(expired_meta, tomb) then
    s = rebuild(field)
  elseif tomb and now >= tomb.expires then
    if role == 'run' or first_n > 1 then return { 'expired' } end
    s = create(tomb.last, tomb.last, field, expired_meta)
  elseif tomb and (tomb.srv == SRV or SRV == '') then
    -- Evicted: the same server still knows where the log stood. The writer goes on.
    s = create(tomb.last, nil, field, expired_meta)
    adopt = true
  elseif tomb then
    if role == 'run' or knows then return { 'rolled_back', ZERO, '0' } end
    s = create(tomb.last, nil, field, expired_meta)
  elseif knows then
    return { 'rolled_back', ZERO, '0' }
  elseif role == 'run' then
    return { 'unknown' }
  else
    s = create(ZERO, nil, field, expired_meta)
  end
end

local function rolled_back(n)
  date_forks(s, seen)
  return { 'rolled_back', s.last, text(n) }
end

local set = {}
if role == 'run' then
  local run = s.writer and parse_run(s.writer)
  if not run then
    if adopt then
      run = unknown_run(id, ZERO)
      run.counter, run.nonce, run.n, run.last = generation, nonce, first_n - 1, s.last
    elseif lost(s, seen) then
      return rolled_back(0)
    else
      return { 'unknown' }
    end
  end
  if run.state == 'never' then return { 'unknown' } end
  if run.counter == '0' then
    run.counter, run.nonce, run.n = generation, nonce, first_n - 1
  end
  local own = run.counter == generation and run.nonce == nonce
  batch.skip = math.max(0, run.n - first_n + 1)
  if batch.skip >= count and (own or tonumber(generation) < tonumber(run.counter)) then
    return { 'duplicate', run.last, asked(run) }
  end
  if not own then return { 'fenced' } end
  if run.state ~= 'active' then return { 'terminal', run.ended, run.state } end
  -- A store that went back in time lacks entries of this writer, too: say the cause, not the gap.
  if lost(s, seen) then return rolled_back(run.n) end
  if first_n > run.n + 1 and not skips then return { 'gap', text(run.n + 1) } end
  run.n = first_n + count - 1
  if terminal ~= '' then
    if batch.bytes <= ENDING then even_when_full() end
    -- The terminal is not counted: who sends it again shall hear which terminal won, not that some
    -- entry of this number is stored.
    run.n, run.state = run.n - 1, terminal
  end
  local first, last, prev, published = write(s, batch, field, function(_, last)
    run.last = last
    if terminal ~= '' then run.ended = last end
    return format_run(run)
  end, set)
  local next_run = ''
  if terminal ~= '' then
    redis.call('HDEL', ACTIVE, id)
    if run.parent == NONE then next_run = next_of(run.route, run.owner) end
  elseif adopt then
    redis.call('HSET', ACTIVE, id, format_active(run))
    redis.call('PEXPIREAT', ACTIVE, text(s.expires + META_MS))
  end
  return { 'stored', first, last, prev, published, asked(run), text(batch.skip), next_run }
end

-- A producer: field `epoch n last`.
local epoch, n, own_last = generation, 0, ZERO
if s.writer then
  local stored_epoch, stored_n, stored_last = string.match(s.writer, '^(%S+) (%S+) (%S+)$')
  if tonumber(generation) < tonumber(stored_epoch) then return { 'fenced' } end
  if generation == stored_epoch then n, own_last = tonumber(stored_n), stored_last end
elseif adopt then
  n = first_n - 1
end
batch.skip = math.max(0, n - first_n + 1)
if batch.skip >= count then return { 'duplicate', own_last, '' } end
-- First, for the run that the entries belong to may be lost as well, and be opened again.
if lost(s, seen) then return rolled_back(n) end
if nonce ~= '' then
  local value = not s.fresh and redis.call('HGET', META, 'run:' .. nonce)
  local run = value and parse_run(value)
  if run and TERMINALS[run.state] then return { 'terminal', run.ended, run.state } end
  -- Of an evicted session the active runs may be all that is left.
  local active = (adopt or not s.fresh) and redis.call('HEXISTS', ACTIVE, nonce) == 1
  if not active and not (run and run.state == 'active') then return { 'unknown' } end
end
if first_n > n + 1 and not skips then return { 'gap', text(n + 1) } end
if not s.writer then
  -- At most 1,000 producers are remembered; beyond it the hundred that were silent longest go.
  local known = s.fresh and 0 or tonumber(redis.call('HGET', META, 'producers') or '0')
  if known >= 1000 then
    local all, producers = redis.call('HGETALL', META), {}
    for i = 1, #all, 2 do
      if string.sub(all[i], 1, 9) == 'producer:' then
        local _, seq = halves(string.match(all[i + 1], '(%S+)$'))
        producers[#producers + 1] = { field = all[i], seq = seq }
      end
    end
    table.sort(producers, function(a, b) return a.seq < b.seq end)
    for i = 1, 100 do set[#set + 1] = producers[i].field end
    redis.call('HSET', META, 'producers', text(#producers - 100))
    redis.call('HDEL', META, unpack(set))
    set, known = {}, #producers - 100
  end
  set = { 'producers', text(known + 1) }
end
local first, last, prev, published = write(s, batch, field, function(_, last)
  return epoch .. ' ' .. text(first_n + count - 1) .. ' ' .. last
end, set)
return { 'stored', first, last, prev, published, '', text(batch.skip), '' }
