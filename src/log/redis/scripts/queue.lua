-- The queue of a session, for the scripts that look at it: stands between `session.lua` and theirs.

local START_MS = 10 * 1000 -- how long the mark holds that the end of a run leaves on the next

local function format_queued(q)
  return table.concat({ q.run, q.route, q.key, q.client, q.bytes, q.owner, q.deadline }, ' ')
end

-- All that wait, first come first. `position`: among those of its route.
local function read_queue()
  local queue, positions = {}, {}
  for at, line in ipairs(redis.call('LRANGE', QUEUE, 0, -1)) do
    local run, route, key, client, bytes, owner, deadline =
      string.match(line, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
    positions[route] = (positions[route] or 0) + 1
    queue[at] = { run = run, route = route, key = key, client = client, bytes = bytes, owner = owner,
      deadline = deadline, line = line, position = positions[route] }
  end
  return queue
end

local function find_queued(queue, field, value)
  for _, q in ipairs(queue) do
    if q[field] == value then return q end
  end
end

local function tell_queue() redis.pcall(PUBLISH, CHANNEL, 'queue') end

local function unqueue(q)
  redis.call('LREM', QUEUE, 1, q.line)
  redis.call('HDEL', ITEMS, q.run)
  tell_queue()
end

-- Marks `queue[at]` as starting.
local function mark(queue, at, owner, hold_ms)
  local q = queue[at]
  q.owner, q.deadline = owner, text(now + hold_ms)
  q.line = format_queued(q)
  redis.call('LSET', QUEUE, at - 1, q.line)
end

local function is_marked_by_another(q, owner)
  return q.owner ~= NONE and q.owner ~= owner and now < tonumber(q.deadline)
end

-- The active root runs of a route.
local function roots_of(route)
  local active, roots = redis.call('HGETALL', ACTIVE), {}
  for i = 1, #active, 2 do
    local r = parse_active(active[i + 1])
    if r.parent == NONE and r.route == route then roots[#roots + 1] = active[i] end
  end
  return roots
end

-- A root run of `route` has ended, which `owner` drove: marks the first that waits for it. Answers its
-- id, or ''. Where the owner is not known nothing is marked, and whoever hears of it may. Another's mark is
-- from before that run: whoever has it may have found the route busy since, and given up.
local function next_of(route, owner)
  if redis.call('LLEN', QUEUE) == 0 or #roots_of(route) > 0 then return '' end
  local queue = read_queue()
  for at, q in ipairs(queue) do
    if q.route == route then
      if owner ~= '-' then mark(queue, at, owner, START_MS) end
      return q.run
    end
  end
  return ''
end
