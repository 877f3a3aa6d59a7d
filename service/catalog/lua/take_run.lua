-- Take one of the cluster's run slots; a slot that is not renewed comes back by itself.
-- KEYS[1]  zset of running conversations, score: when the slot runs out (Redis time, ms)
-- ARGV[1]  conversation   ARGV[2]  limit   ARGV[3]  TTL in milliseconds
-- Returns 1 when taken or held already, 0 when all are taken.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
  return 0
end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[1])
return 1
