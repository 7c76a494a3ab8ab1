-- Replaces the value of a claim, or gives its key free, if it still is what the caller knows. A repeat
-- finds what the first attempt has done.
-- KEYS: 1 idem:<digest>. ARGV: 1 the value known, 2 the new one (empty: none), 3 ttl in ms. Answers 1 or 0.
local stored = redis.call('GET', KEYS[1])
if ARGV[2] == '' then
  if stored == ARGV[1] then redis.call('DEL', KEYS[1]) end
  return (not stored or stored == ARGV[1]) and 1 or 0
end
if stored == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[3]) -- allowed when Redis is full: what was begun can be said to be done
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return (stored == ARGV[1] or stored == ARGV[2]) and 1 or 0
