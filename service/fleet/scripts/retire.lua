-- ARGV: now, worker.
remove(ARGV[2])
remember()
