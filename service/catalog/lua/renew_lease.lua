-- Hold a lease for another TTL, unless another runner holds it.
-- KEYS[1]  the lease
-- ARGV[1]  runner id   ARGV[2]  TTL in milliseconds
-- Returns 1 when held, 0 when lost. A lease that Redis lost (restart, FLUSHALL) is taken again.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', tonumber(ARGV[2]))
return 1
