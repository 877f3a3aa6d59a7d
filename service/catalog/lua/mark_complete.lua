-- Say that the index is complete, unless Redis was emptied while it was built: the builder's mark went with the rest.
-- KEYS[1], KEYS[2]  zsets by creation and by change   KEYS[3]  who is building
-- ARGV[1]  the builder   ARGV[2]  the entry that says so
if redis.call('GET', KEYS[3]) ~= ARGV[1] then
  return 0
end
redis.call('ZADD', KEYS[1], '+inf', ARGV[2])
redis.call('ZADD', KEYS[2], '+inf', ARGV[2])
return 1
