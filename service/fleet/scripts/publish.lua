-- ARGV: now, worker, for how long, record, catalog's digest, 1 if it still loads.
local id, life = ARGV[2], tonumber(ARGV[3])
redis.call('HSET', key('worker', id), 'record', ARGV[4], 'catalog', ARGV[5], 'loading', ARGV[6])
redis.call('ZADD', key('alive'), now + life, id)
remember()
