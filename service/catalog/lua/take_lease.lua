-- Take a lease that is free, or from a holder known to be dead.
-- KEYS[1]  the lease
-- ARGV[1]  runner id   ARGV[2]  TTL in milliseconds   ARGV[3]  dead runner's id, or empty
-- Returns who holds the lease now.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] and holder ~= ARGV[3] then
  return holder
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', tonumber(ARGV[2]))
return ARGV[1]
