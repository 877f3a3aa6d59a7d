-- Put conversations into the index that are not in it: what their owners said meanwhile is newer than the disk was.
-- KEYS[1]  zset by creation   KEYS[2]  zset by change   KEYS[3]  hash of statuses   KEYS[4]  set of what runs
-- ARGV[1]  the status of what runs; then for each: conversation, both scores, status
for first = 2, #ARGV, 4 do
  local name, status = ARGV[first], ARGV[first + 3]
  redis.call('ZADD', KEYS[1], 'NX', ARGV[first + 1], name)
  redis.call('ZADD', KEYS[2], 'NX', ARGV[first + 2], name)
  if redis.call('HSETNX', KEYS[3], name, status) == 1 and status == ARGV[1] then
    redis.call('SADD', KEYS[4], name)
  end
end
