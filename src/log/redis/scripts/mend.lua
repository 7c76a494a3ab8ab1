-- Rebuilds meta from the log where meta is gone. Readers ask for it; it appends nothing.
local s = load('v')
if not s and redis.call('EXISTS', LOG) == 1 then
  local tomb = tombstone()
  if not (tomb and tomb.state == 'erased') then rebuild('v') end
end
return 'OK'
