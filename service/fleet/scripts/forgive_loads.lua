-- ARGV: now, package.
redis.call('HDEL', key('lost'), ARGV[2])
