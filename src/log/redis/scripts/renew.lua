-- Renews an instance's lease, and answers the commands that wait for it. Begins with a write that is
-- allowed when Redis is full, so that a full Redis does not make the living look dead. A command
-- stays until a later renewal says that it was heard: this answer may be lost.
-- KEYS: 1 alive:<id>, 2 runs:<id>, 3 all, 4 cmds:<id>.
-- ARGV: 1 id, 2 lease in ms, 3 ttl in ms, 4 ttl of commands in ms, 5… commands that were heard.
-- Answers dead | alive, then the commands, oldest first.
if redis.call('GET', KEYS[1]) == 'dead' then return { 'dead' } end
if redis.call('PEXPIRE', KEYS[1], ARGV[2]) == 0 then redis.call('SET', KEYS[1], 'alive', 'PX', ARGV[2]) end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('ZADD', KEYS[3], 0, ARGV[1])
redis.call('PEXPIRE', KEYS[3], ARGV[3])
for i = 5, #ARGV do redis.call('LREM', KEYS[4], 1, ARGV[i]) end
redis.call('PEXPIRE', KEYS[4], ARGV[4])
return { 'alive', unpack(redis.call('LRANGE', KEYS[4], 0, -1)) }
