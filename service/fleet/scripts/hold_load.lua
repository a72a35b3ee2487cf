-- ARGV: now, worker, for how long.
redis.call('ZADD', key('loading'), 'XX', now + tonumber(ARGV[3]), ARGV[2])
