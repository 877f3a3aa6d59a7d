-- Give a lease back, unless another runner has taken it meanwhile.
-- KEYS[1]  the lease
-- ARGV[1]  runner id
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
