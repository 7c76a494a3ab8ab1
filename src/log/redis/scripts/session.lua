-- The prelude of every script that touches a session. Each script is this file and its own, some with
-- `queue.lua` between them.
--
-- KEYS: 1 log, 2 meta, 3 active, 4 tomb, 5 channel, 6 cancels, 7 queue, 8 items, 9 presence,
-- 10 cursors (one slot).
-- ARGV: 1 identity of the server that the caller is connected to ('' unknown), 2 ttl in ms,
--       3 max_entries, 4 max_bytes, 5 floor: the largest `ms` of any offset that the caller was ever given.
--       A script's own arguments follow.
-- Rules: nothing is written before an answer is certain; the first write is one that Redis refuses
-- when it is full, or `even_when_full`; numbers leave as %.0f, because Lua would write large ones as 1.7e+12.

local LOG, META, ACTIVE, TOMB, CHANNEL = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local CANCELS, QUEUE, ITEMS, PRESENCE, CURSORS = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local SRV, TTL, FLOOR = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[5])
local LAYOUT = '1'
local TOMB_MS = 30 * 24 * 3600 * 1000 -- how long a tombstone outlives its session
local META_MS = 60 * 1000             -- meta outlives the log, so that a log without meta is a fault
local REMEMBERED_MS = 10 * 60 * 1000  -- how long it is remembered what was cancelled before it was there
local REMEMBERED = 1000               -- how many; the one that is due first goes for one more
local ZERO = '0-0'
local NONE = '~'                      -- no parent, no key
local FORKS = 16                      -- changes of server that are remembered
local TERMINALS = { completed = true, failed = true, cancelled = true, interrupted = true }

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function text(number) return string.format('%.0f', number) end
local function join(ms, seq) return string.format('%.0f-%.0f', ms, seq) end
local function halves(offset)
  local ms, seq = string.match(offset, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

-- Lets this script write to its end although Redis is full: Redis looks at its memory only before the
-- first write, and this one it allows. It changes nothing, for the channel's name is no key. For what must
-- end although there is no room; an ordinary append that began with it would have no limit at all.
local function even_when_full() redis.call('PEXPIRE', CHANNEL, '1') end

-- What an entry counts: the bytes of its texts, without `kind` (Record::size in Rust).
local function size_of(fields)
  local bytes = 0
  for i = 1, #fields, 2 do
    if fields[i] ~= 'kind' then bytes = bytes + #fields[i + 1] end
  end
  return bytes
end

local function field_of(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
end

-- Calls `visit(id, fields)` for the entries of the log in order, until it returns true.
local function scan(visit)
  local from = '-'
  while true do
    local page = redis.call('XRANGE', LOG, from, '+', 'COUNT', 32)
    for _, entry in ipairs(page) do
      if visit(entry[1], entry[2]) then return end
      from = '(' .. entry[1]
    end
    if #page < 32 then return end
  end
end

-- A run as its meta field has it. `counter` '0': the fence is not known (meta was rebuilt).
local function parse_run(value)
  local state, counter, nonce, n, owner, started, last, ended, cancel, parent, route, key, by =
    string.match(value, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (.*)$')
  return { state = state, counter = counter, nonce = nonce, n = tonumber(n), owner = owner,
    started = started, last = last, ended = ended, cancel = cancel, parent = parent, route = route, key = key, by = by }
end

local function format_run(r)
  return table.concat({ r.state, r.counter, r.nonce, text(r.n), r.owner, r.started, r.last, r.ended, r.cancel,
    r.parent, r.route, r.key, r.by }, ' ')
end

-- An active run as the hash of active runs has it: what outlives a loss of meta.
local function parse_active(value)
  local started, owner, cancel, parent, route, key, by =
    string.match(value, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (.*)$')
  return { state = 'active', started = started, owner = owner, cancel = cancel, parent = parent, route = route,
    key = key, by = by }
end

local function format_active(r)
  return table.concat({ r.started, r.owner, r.cancel, r.parent, r.route, r.key, r.by }, ' ')
end

-- A run of which meta knows nothing: what is still known of it, with its fence to be brought along.
local function unknown_run(id, started)
  local value = redis.call('HGET', ACTIVE, id)
  local r = value and parse_active(value) or { state = 'active', started = started, owner = '-', cancel = '0',
    parent = NONE, route = '%', key = NONE, by = '' }
  r.counter, r.nonce, r.n, r.last, r.ended = '0', '-', 0, r.started, '-'
  return r
end

-- Who asked for the run's cancellation, as its owner is told; '' nobody.
local function asked(run)
  if run.cancel ~= '1' then return '' end
  return run.by ~= '' and run.by or '{}'
end

-- Remembers that `field` (`key <key>`, `run <run>`) was cancelled before it was there: by whom, and for
-- a key the run that was withdrawn with it. The first write is one that a full Redis allows.
local function remember(field, run, by)
  redis.call('PEXPIRE', CANCELS, text(REMEMBERED_MS))
  if redis.call('HLEN', CANCELS) >= REMEMBERED then
    local all, first_due = redis.call('HGETALL', CANCELS), nil
    for i = 1, #all, 2 do
      local due = tonumber(string.match(all[i + 1], '^%S+'))
      if not first_due or due < first_due.due then first_due = { field = all[i], due = due } end
      if due <= now then redis.call('HDEL', CANCELS, all[i]) end
    end
    redis.call('HDEL', CANCELS, first_due.field)
  end
  redis.call('HSET', CANCELS, field, text(now + REMEMBERED_MS) .. ' ' .. run .. ' ' .. by)
  redis.call('PEXPIRE', CANCELS, text(REMEMBERED_MS))
end

-- Who cancelled `field`, and the run that was withdrawn with it; or nil.
local function remembered(field)
  local value = redis.call('HGET', CANCELS, field)
  if not value then return nil end
  local due, run, by = string.match(value, '^(%S+) (%S+) (.*)$')
  if now < tonumber(due) then return by, run end
end

-- The tombstone, or nil: state 'live' or 'erased', the last offset; for a live session when it expires and on
-- which server it was written, for an erased one when that was.
local function tombstone()
  local value = redis.call('GET', TOMB)
  if not value then return nil end
  local state, last, date, srv = string.match(value, '^(%S+) (%S+) ?(%S*) ?(%S*)$')
  local at = state == 'live' and 'expires' or 'erased'
  return { state = state, last = last, [at] = tonumber(date), srv = srv }
end

-- Entries and meta do not agree: somebody else trimmed, evicted or wrote. Count again, and adopt
-- the larger of both last offsets.
local function recount(s)
  local entries, bytes, first, last = 0, 0, nil, nil
  scan(function(id, fields)
    entries, bytes, first, last = entries + 1, bytes + size_of(fields), first or id, id
  end)
  s.entries, s.bytes = entries, bytes
  if not first then
    s.trimmed = s.last
  else
    local last_ms, last_seq = halves(last)
    local known_ms, known_seq = halves(s.last)
    if last_ms > known_ms or (last_ms == known_ms and last_seq > known_seq) then s.last = last end
    local first_ms, first_seq = halves(first)
    local _, trimmed_seq = halves(s.trimmed)
    if first_seq > trimmed_seq + 1 then s.trimmed = join(first_ms, first_seq - 1) end
  end
  s.recounted = true
end

-- The session with the writer's field, or nil where meta does not have it (any more).
local function load(writer)
  local m = redis.call('HMGET', META, 'v', 'created', 'last', 'srv', 'entries', 'bytes', 'trimmed', 'expires', writer)
  if m[1] and m[1] ~= LAYOUT then
    error('the session has layout ' .. m[1] .. ', this version writes ' .. LAYOUT .. ': upgrade this instance', 0)
  end
  if not m[2] then return nil end
  if now >= tonumber(m[8]) then return nil, true end
  local s = { created = m[2], last = m[3], srv = m[4], entries = tonumber(m[5]), bytes = tonumber(m[6]),
    trimmed = m[7], expires = tonumber(m[8]), writer = m[9] or nil, before = m }
  if redis.call('XLEN', LOG) ~= s.entries then recount(s) end
  return s
end

-- Whether the log is there and meta is not, which is to be rebuilt then. Not what a life that has expired
-- left behind: its log goes in the very millisecond that is its last.
local function is_headless(expired_meta, tomb)
  local over = expired_meta or tomb and (tomb.state == 'erased' or now >= tomb.expires)
  return not over and redis.call('EXISTS', LOG) == 1
end

-- A session that begins (again) after `last`; `expired`: the last offset of a life that expired.
-- Written by the first `write`. A marker "never started" may stand in a meta that is no session.
local function create(last, expired, writer, expired_meta)
  local marker = writer and not expired_meta and redis.call('HGET', META, writer)
  local tomb = tombstone()
  return { last = last, srv = SRV, entries = 0, bytes = 0, trimmed = last, erased = tomb and tomb.erased,
    expires = 0, expired = expired, fresh = true, writer = marker or nil, expired_meta = expired_meta }
end

-- The log is there and meta is not: meta is rebuilt from the log, also when Redis is full, for whatever
-- reads or ends needs it. Fences and counts of writers are lost; a run's owner brings its own along with
-- its next append. The forks are lost, too: of what is not in the log nothing is known up to now.
local function rebuild(writer)
  even_when_full()
  local s, tomb = create(ZERO), tombstone()
  local runs = {}
  scan(function(id, fields)
    local run = field_of(fields, 'run')
    if s.entries == 0 then s.created = string.match(id, '^%d+') end
    s.entries, s.bytes = s.entries + 1, s.bytes + size_of(fields)
    if s.entries == 1 then
      local ms, seq = halves(id)
      if seq > 1 then s.trimmed = join(ms, seq - 1) end
    end
    s.last = id
    if run then
      local r = runs[run] or unknown_run(run, id)
      r.last = id
      if field_of(fields, 'kind') == 'run' then
        local event = field_of(fields, 'event')
        if event == 'started' then r.started = id end
        if TERMINALS[event] then r.state, r.ended = event, id end
      end
      runs[run] = r
    end
  end)
  s.expires = now + TTL
  local srv = tomb and tomb.state == 'live' and tomb.srv ~= '' and tomb.srv or NONE
  local set = { 'v', LAYOUT, 'created', s.created, 'last', s.last, 'srv', srv, 'entries', text(s.entries),
    'bytes', text(s.bytes), 'trimmed', s.trimmed, 'expires', text(s.expires),
    'forks', ZERO .. '@' .. text(math.max(now, FLOOR)) }
  redis.call('HSET', META, unpack(set))
  for run, r in pairs(runs) do
    redis.call('HSET', META, 'run:' .. run, format_run(r))
    if r.key ~= NONE then redis.call('HSET', META, 'key:' .. r.key, run) end
    if r.state == 'active' then redis.call('HSET', ACTIVE, run, format_active(r)) end
  end
  redis.call('PEXPIREAT', LOG, text(s.expires))
  redis.call('PEXPIREAT', META, text(s.expires + META_MS))
  redis.call('PEXPIREAT', ACTIVE, text(s.expires + META_MS))
  return load(writer)
end

-- Meta, rebuilt where it was lost; or nil: there is no session.
local function mended(writer)
  local s, expired_meta = load(writer)
  if s or not is_headless(expired_meta, tombstone()) then return s end
  return rebuild(writer)
end

-- Whether `seen` cannot be of a life of the session that ended as the tombstone says: it is of a later one, which is
-- lost. What was given before an erasure is erased, also where the store had lost it by then.
local function outlives(seen, tomb)
  if seen == '' or seen == ZERO then return false end
  local ms, seq = halves(seen)
  if tomb.erased then return ms > tomb.erased end
  local last_ms, last_seq = halves(tomb.last)
  return ms > last_ms or seq > last_seq
end

-- Whether the log lost the entry `seen`. What lies at or before the last trimmed entry, in both
-- halves, was trimmed, not lost.
local function lost(s, seen)
  if seen == '' or seen == ZERO or seen == s.last then return false end
  local ms, seq = halves(seen)
  local trimmed_ms, trimmed_seq = halves(s.trimmed)
  if ms <= trimmed_ms and seq <= trimmed_seq then return false end
  return #redis.call('XRANGE', LOG, seen, seen, 'COUNT', 1) == 0
end

-- Removes the oldest entries until the bounds hold, and the runs that ended among them. It goes a
-- little below the bounds, so that not every append trims. The newest entry always stays.
local function trim(s)
  local max_entries, max_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
  if s.entries <= max_entries and s.bytes <= max_bytes then return end
  local keep_entries = max_entries - math.min(256, math.floor(max_entries / 256))
  local keep_bytes = max_bytes - math.min(1048576, math.floor(max_bytes / 64))
  local kept
  local ended = {}
  scan(function(id, fields)
    if (s.entries <= keep_entries and s.bytes <= keep_bytes) or s.entries == 1 then
      kept = id
      return true
    end
    s.entries, s.bytes, s.trimmed = s.entries - 1, s.bytes - size_of(fields), id
    if field_of(fields, 'kind') == 'run' and TERMINALS[field_of(fields, 'event')] then
      ended[#ended + 1] = field_of(fields, 'run')
    end
  end)
  if not kept then return end
  redis.call('XTRIM', LOG, 'MINID', '=', kept)
  redis.call('HSET', META, 'entries', text(s.entries), 'bytes', text(s.bytes), 'trimmed', s.trimmed)
  for _, id in ipairs(ended) do
    local value = redis.call('HGET', META, 'run:' .. id)
    if value then
      local key = 'key:' .. parse_run(value).key
      -- The key may have come to another run since.
      if redis.call('HGET', META, key) == id then redis.call('HDEL', META, key) end
      redis.call('HDEL', META, 'run:' .. id)
    end
  end
end

-- Whether the server that wrote last is another than this.
local function is_moved(s) return not s.fresh and SRV ~= '' and s.srv ~= SRV end

-- The date of a fork.
local function date_of(fork) return tonumber(string.match(fork, '@(%d+)$')) end

-- All forks, oldest first.
local function forks_of()
  local all = {}
  for fork in string.gmatch(redis.call('HGET', META, 'forks') or '', '%S+') do all[#all + 1] = fork end
  return all
end

-- Whether this server's clock is still behind the date of the newest fork.
local function is_behind()
  local all = forks_of()
  return #all > 0 and date_of(all[#all]) >= now
end

-- The `ms` of the next entries. A session that begins, or goes on on another server, may have been
-- longer than this server knows, and by a clock that was ahead of its own: no offset that the caller
-- knows is given again. At any other time the caller's floor counts for nothing, for a clock
-- that was wrong once must not move every session.
local function stamp(s)
  local ms = math.max(now, (halves(s.last)), s.erased and s.erased + 1 or 0)
  if FLOOR >= ms and (s.fresh or is_moved(s) or is_behind()) then ms = FLOOR + 1 end
  return ms
end

-- The caller has `seen` what is lost. Where whoever recorded the forks did not know of anything so late, they
-- are dated anew: every one at which that branch may have left, for nobody can tell which it was.
local function date_forks(s, seen)
  if s.fresh or is_moved(s) then return end -- the next append records one
  local ms, seq = halves(seen)
  local all = forks_of()
  if #all == 0 then
    all[1] = ZERO .. '@' .. text(ms)
  elseif date_of(all[#all]) >= ms then
    return
  end
  for i, fork in ipairs(all) do
    local tail = string.match(fork, '^[^@]+')
    local tail_ms, tail_seq = halves(tail)
    if tail_ms <= ms and tail_seq < seq then all[i] = tail .. '@' .. text(math.max(date_of(fork), ms)) end
  end
  redis.pcall('HSET', META, 'forks', table.concat(all, ' ')) -- refused when Redis is full; the answer matters more
end

-- The forks with one more: here, on this server. It is dated so that no offset of a lost branch that the
-- caller knows is later. The oldest of too many becomes "of what was before nothing is known".
local function one_more_fork(s)
  local all = forks_of()
  all[#all + 1] = s.last .. '@' .. text(math.max(now, FLOOR, (halves(s.last))))
  if #all > FORKS then
    all[2] = ZERO .. '@' .. text(math.max(date_of(all[1]), date_of(all[2])))
    table.remove(all, 1)
  end
  return table.concat(all, ' ')
end

-- Appends `batch` and answers its first and last offset, and whether it was published.
--
-- batch: base (index in ARGV of the first field of the first record), counts (one character per
-- record: its number of strings), lens (their lengths for the push; '' too large to push),
-- bytes, skip (how many records are stored already).
-- writer: name of the writer's meta field; value(first, last): its new content; set: more fields.
local function write(s, batch, writer, value, set)
  local count = #batch.counts
  local base = batch.base
  for i = 1, batch.skip do
    local strings = string.byte(batch.counts, i)
    for j = base + 1, base + strings - 1, 2 do
      if ARGV[j - 1] ~= 'kind' then batch.bytes = batch.bytes - #ARGV[j] end
    end
    base = base + strings
  end
  local prev = s.last
  local _, prev_seq = halves(prev)
  local ms = stamp(s)
  local first, last = join(ms, prev_seq + 1), join(ms, prev_seq + count - batch.skip)

  local renew = s.fresh or s.expires - now < TTL / 2
  if renew then
    s.expires = now + TTL
    set[#set + 1] = 'expires'
    set[#set + 1] = text(s.expires)
  end
  if s.fresh then
    local ended = s.expired_meta or s.expired
    if ended or redis.call('EXISTS', LOG) == 1 then
      redis.call('HSET', META, 'v', LAYOUT) -- refused when Redis is full, unlike the DEL
      redis.call('DEL', LOG)
      if s.expired_meta then redis.call('DEL', META) end
      if ended then redis.call('DEL', ACTIVE, QUEUE, ITEMS, CURSORS) end
    end
    for _, pair in ipairs({ 'v', LAYOUT, 'created', text(ms), 'trimmed', s.trimmed, 'srv', SRV }) do
      set[#set + 1] = pair
    end
    if prev ~= ZERO then
      set[#set + 1] = 'base'
      set[#set + 1] = prev
    end
    if s.expired then
      set[#set + 1] = 'expired'
      set[#set + 1] = s.expired
    end
  elseif is_moved(s) then
    -- What was written on the other server after this tail, if anything, is a branch that readers must leave.
    set[#set + 1] = 'forks'
    set[#set + 1] = one_more_fork(s)
    set[#set + 1] = 'srv'
    set[#set + 1] = SRV
    s.srv = SRV
  end
  if s.recounted then
    set[#set + 1] = 'trimmed'
    set[#set + 1] = s.trimmed
  end

  local entries, bytes = s.entries, s.bytes
  s.last, s.entries, s.bytes = last, s.entries + count - batch.skip, s.bytes + batch.bytes
  redis.call('HSET', META, 'last', last, 'entries', text(s.entries), 'bytes', text(s.bytes),
    writer, value(first, last), unpack(set))
  local seq = prev_seq
  for i = batch.skip + 1, count do
    local strings = string.byte(batch.counts, i)
    seq = seq + 1
    local added = redis.pcall('XADD', LOG, join(ms, seq), unpack(ARGV, base, base + strings - 1))
    if type(added) == 'table' and added.err then
      -- Only something that is not ours in the stream, or a user who may not XADD, leads here.
      -- The entries are not stored, so meta must not say that they are.
      if s.fresh then
        redis.call('DEL', META)
      else
        redis.call('HSET', META, 'last', prev, 'entries', text(entries), 'bytes', text(bytes))
        if s.writer then redis.call('HSET', META, writer, s.writer) else redis.call('HDEL', META, writer) end
      end
      error(added.err, 0)
    end
    base = base + strings
  end

  if renew or entries == 0 then
    redis.call('PEXPIREAT', LOG, text(s.expires))
    redis.call('PEXPIREAT', META, text(s.expires + META_MS))
    redis.call('PEXPIREAT', ACTIVE, text(s.expires + META_MS))
    redis.call('PEXPIREAT', QUEUE, text(s.expires + META_MS))
    redis.call('PEXPIREAT', ITEMS, text(s.expires + META_MS))
    redis.call('PEXPIREAT', CURSORS, text(s.expires + META_MS))
  end
  redis.call('SET', TOMB, 'live ' .. last .. ' ' .. text(s.expires) .. ' ' .. s.srv, 'PXAT', text(s.expires + TOMB_MS))

  local message
  if batch.skip == 0 and batch.lens ~= '' then
    message = 'entries ' .. prev .. ' ' .. first .. '\n' .. batch.lens .. '\n' .. table.concat(ARGV, '', batch.base, base - 1)
  else
    message = 'ids ' .. prev .. ' ' .. first .. ' ' .. last
  end
  local published = redis.pcall(PUBLISH, CHANNEL, message)
  trim(s)
  return first, last, prev, type(published) == 'table' and '0' or '1'
end

