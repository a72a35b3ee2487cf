-- ARGV: now, package.
redis.call('SREM', key('withdrawn'), ARGV[2])
