-- Marks the first of every free route as starting, also when Redis is full: a mark takes no room.
--
-- ARGV: 6 instance, 7 how long the marks hold, in ms.
-- Answers the ms until the first mark of another ends ('' none), then per run that the instance is to
-- start: run, route, key, client, item.

local owner, hold_ms = ARGV[6], tonumber(ARGV[7])
if not load('v') or redis.call('LLEN', QUEUE) == 0 then return { '' } end

even_when_full()
local queue = read_queue()
-- What lies beside the list may have been evicted: then there is nothing left to start.
for _, q in ipairs(queue) do
  if redis.call('HEXISTS', ITEMS, q.run) == 0 then unqueue(q) end
end
queue = read_queue()

local answer, others = { '' }, nil
for at, q in ipairs(queue) do
  if q.position == 1 and #roots_of(q.route) == 0 then
    if is_marked_by_another(q, owner) then
      others = math.min(others or math.huge, tonumber(q.deadline) - now)
    else
      mark(queue, at, owner, hold_ms)
      for _, value in ipairs({ q.run, q.route, q.key, q.client, redis.call('HGET', ITEMS, q.run) }) do
        answer[#answer + 1] = value
      end
    end
  end
end
if others then answer[1] = text(others) end
return answer
