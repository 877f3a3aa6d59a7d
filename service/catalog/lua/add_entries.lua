-- Put conversations into the index as the disk has them, unless their owners have said something newer meanwhile.
-- KEYS[1]  zset by creation   KEYS[2]  zset by change   KEYS[3]  hash of statuses   KEYS[4]  set of what runs
-- ARGV[1]  the status of what runs; then for each: conversation, both scores, status
for first = 2, #ARGV, 4 do
  local name, updated, status = ARGV[first], tonumber(ARGV[first + 2]), ARGV[first + 3]
  local known = redis.call('ZSCORE', KEYS[2], name)
  local is_newer = not known or tonumber(known) < updated
  redis.call('ZADD', KEYS[1], 'NX', ARGV[first + 1], name)
  if is_newer then
    redis.call('ZADD', KEYS[2], ARGV[first + 2], name)
  end
  if is_newer or redis.call('HEXISTS', KEYS[3], name) == 0 then
    redis.call('HSET', KEYS[3], name, status)
    redis.call(status == ARGV[1] and 'SADD' or 'SREM', KEYS[4], name)
  end
end
