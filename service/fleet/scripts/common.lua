-- Shared by the fleet's scripts.
--
-- KEYS[1] is the prefix of all keys and ARGV[1] the time in milliseconds (0:
-- the server's own clock). Keys, after the prefix:
--
--   fleet:alive      zset: worker by the time at which it is gone
--   fleet:worker:ID  hash: its record, its catalog's digest, and whether it still loads
--   fleet:last       set: digests of the catalogs that were last alive together and whole
--   fleet:loading    zset: worker by the time at which its load is lost
--   fleet:loads      hash: worker -> the package that it loads
--   fleet:lost       hash: package -> how many loads of it were lost
--   fleet:withdrawn  set: packages that catalogs may still have and that count no more

local function key(...)
  return KEYS[1] .. ':fleet:' .. table.concat({...}, ':')
end

local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function remove(id)
  redis.call('ZREM', key('alive'), id)
  redis.call('DEL', key('worker', id))
end

-- Buries the silent and answers the others, in the order of their names.
local function alive()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('alive'), '-inf', now)) do
    remove(id)
  end
  local ids = redis.call('ZRANGE', key('alive'), 0, -1)
  table.sort(ids)
  return ids
end

-- Takes back a worker's note of a load, and answers the package, if there was one.
local function take_note(id)
  local package = redis.call('HGET', key('loads'), id)
  redis.call('ZREM', key('loading'), id)
  redis.call('HDEL', key('loads'), id)
  return package
end

-- Answers the workers that are alive and have loaded all they should: their catalogs are whole.
local function settled()
  local ids = {}
  for _, id in ipairs(alive()) do
    if redis.call('HGET', key('worker', id), 'loading') ~= '1' then
      ids[#ids + 1] = id
    end
  end
  return ids
end

-- Remembers which whole catalogs are alive, unless none is.
local function remember()
  local ids = settled()
  if #ids == 0 then
    return
  end
  redis.call('DEL', key('last'))
  for _, id in ipairs(ids) do
    redis.call('SADD', key('last'), redis.call('HGET', key('worker', id), 'catalog'))
  end
end
