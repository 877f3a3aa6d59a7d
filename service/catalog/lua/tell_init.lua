-- Say something of the configuration that a deferred start was given; returns 1, or 0 where it was not for us to say.
-- KEYS[1]  hash: token, sealed, and ready, started, failure once there is something to be said there
-- ARGV[1]  token   ARGV[2]  TTL in milliseconds; 0 leaves what there is
-- ARGV[3]  `new`: there must be none   `own`: it must be this one   `any`: it must not be another one
-- ARGV[4], ARGV[5], ...  field, value
local current = redis.call('HGET', KEYS[1], 'token')
if ARGV[3] == 'new' and current then return 0 end
if ARGV[3] == 'own' and current ~= ARGV[1] then return 0 end
if ARGV[3] == 'any' and current and current ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'token', ARGV[1])
for i = 4, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
if tonumber(ARGV[2]) > 0 then redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[2])) end
return 1
