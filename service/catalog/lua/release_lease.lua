-- Give a lease or a mark back, unless another has taken it meanwhile.
-- KEYS[1]  the lease
-- ARGV[1]  who holds it
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
