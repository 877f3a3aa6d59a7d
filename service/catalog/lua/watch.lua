-- Say who watches a conversation at one web worker; returns the whole when it has changed, to be published, else nil.
-- KEYS[1]  hash: web worker -> "<when it runs out, Redis time, ms> <number> <names>"; '' -> what was told last
-- ARGV[1]  worker   ARGV[2]  number of its watchers   ARGV[3]  their names, JSON strings, one a line
-- ARGV[4]  TTL in milliseconds
-- The entry of a worker that does not renew it is dropped by the next one that does.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if tonumber(ARGV[2]) > 0 then
  local entry = string.format('%d', now + tonumber(ARGV[4])) .. ' ' .. ARGV[2] .. ' ' .. ARGV[3]
  redis.call('HSET', KEYS[1], ARGV[1], entry)
else
  redis.call('HDEL', KEYS[1], ARGV[1])
end
local count, names, known = 0, {}, {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local deadline, number, lines = string.match(all[i + 1], '^(%d+) (%d+) (.*)$')
  if all[i] ~= '' and tonumber(deadline) < now then
    redis.call('HDEL', KEYS[1], all[i])
  elseif all[i] ~= '' then
    count = count + tonumber(number)
    for name in string.gmatch(lines, '[^\n]+') do
      if not known[name] then
        known[name] = true
        table.insert(names, name)
      end
    end
  end
end
table.sort(names)
local presence = '{"count":' .. string.format('%d', count) .. ',"names":[' .. table.concat(names, ',') .. ']}'
local is_news = presence ~= redis.call('HGET', KEYS[1], '')
if count == 0 then
  redis.call('DEL', KEYS[1])
else
  redis.call('HSET', KEYS[1], '', presence)
  redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[4]))
end
return is_news and presence
