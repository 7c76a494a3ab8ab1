-- Erases a session. What stays is a tombstone with its last offset and a date: late appends are refused, also of
-- who knows of more than the store, which may have gone back, and no offset is ever given twice.
-- Answers 1 and the subject that it was bound to ('' none), or 0 where there was no session.

local tomb = tombstone()
if tomb and tomb.state == 'erased' then return { '0' } end
local s = load('subject')
local last = s and s.last or (tomb and now < tomb.expires and tomb.last)
if not last then
  local newest = redis.call('XREVRANGE', LOG, '+', '-', 'COUNT', 1)[1]
  if not newest then return { '0' } end
  last = newest[1]
end
-- First what frees memory: erasing works when Redis is full.
redis.call('UNLINK', LOG, META, ACTIVE, CANCELS, QUEUE, ITEMS, PRESENCE, CURSORS)
redis.call('SET', TOMB, 'erased ' .. last .. ' ' .. text(math.max(now, FLOOR)), 'PX', text(TOMB_MS))
redis.pcall(PUBLISH, CHANNEL, 'check')
return { '1', s and s.writer or '' }
