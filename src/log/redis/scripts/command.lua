-- Leaves a command for an instance, and tells it. Begins with a write that is allowed when Redis is
-- full: what is asked to end must be able to.
-- KEYS: 1 alive:<id>, 2 cmds:<id>, 3 channel. ARGV: 1 the command, 2 ttl in ms, 3 how many may wait.
-- Answers kept | dead | full.
if redis.call('GET', KEYS[1]) == 'dead' then return 'dead' end
if redis.call('LLEN', KEYS[2]) >= tonumber(ARGV[3]) then return 'full' end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('RPUSH', KEYS[2], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.pcall(PUBLISH, KEYS[3], ARGV[1])
return 'kept'
