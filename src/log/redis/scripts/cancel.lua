-- Flags runs as cancelled, withdraws them from the queue, or remembers a key that no run has yet. Its
-- first write is one that a full Redis allows: what is asked to end must be able to.
--
-- ARGV: 6 'run' | 'active' | 'key' | 'withdraw' (a key, from the queue only), 7 run id | '' | key,
-- 8 who asks (JSON).
-- Answers: remembered | runs, then per run: its id, and `requested owner` | `ended offset state` |
-- `withdrawn` | `none`, filled up with empty strings to four.

local target, name, by = ARGV[6], ARGV[7], ARGV[8]
local answer = { 'runs' }

local function say(id, outcome, a, b)
  for _, word in ipairs({ id, outcome, a or '', b or '' }) do answer[#answer + 1] = word end
end

-- Whoever opens it late, or asks again, shall know.
local function withdraw(q)
  remember('run ' .. q.run, NONE, by)
  if q.key ~= NONE then remember('key ' .. q.key, q.run, by) end
  unqueue(q)
  say(q.run, 'withdrawn')
end

local function request(id)
  local line, value = redis.call('HGET', META, 'run:' .. id), redis.call('HGET', ACTIVE, id)
  local run = line and parse_run(line)
  -- Where meta was lost and is not rebuilt yet, the flag waits among the active runs.
  local known = run or (value and parse_active(value))
  if not known or known.state == 'never' then
    return say(id, remembered('run ' .. id) and 'withdrawn' or 'none')
  end
  if known.state ~= 'active' then return say(id, 'ended', known.ended, known.state) end
  if known.cancel == '0' then
    redis.call('PEXPIRE', CANCELS, text(REMEMBERED_MS))
    known.cancel, known.by = '1', by
    if run then redis.call('HSET', META, 'run:' .. id, format_run(run)) end
    if value then redis.call('HSET', ACTIVE, id, format_active(known)) end
  end
  say(id, 'requested', known.owner)
end

local s = mended('v')
local queue = s and read_queue() or {}

if target == 'key' or target == 'withdraw' then
  local queued = find_queued(queue, 'key', name)
  if queued then
    withdraw(queued)
    return answer
  end
  local id = target == 'key' and s and redis.call('HGET', META, 'key:' .. name)
  if id then
    request(id)
    return answer
  end
  local _, withdrawn = remembered('key ' .. name)
  if withdrawn and withdrawn ~= NONE then
    say(withdrawn, 'withdrawn')
  elseif target == 'key' then
    remember('key ' .. name, NONE, by)
    return { 'remembered' }
  end
elseif target == 'run' then
  local queued = find_queued(queue, 'run', name)
  if queued then
    withdraw(queued)
  elseif s then
    request(name)
  else
    say(name, 'none')
  end
elseif s then
  local active = redis.call('HGETALL', ACTIVE)
  local runs = {}
  for i = 1, #active, 2 do
    local _, seq = halves(parse_active(active[i + 1]).started)
    runs[#runs + 1] = { id = active[i], seq = seq }
  end
  table.sort(runs, function(a, b) return a.seq < b.seq end)
  for _, run in ipairs(runs) do request(run.id) end
end
return answer
