-- ARGV: now, worker.
remove(ARGV[2])
take_note(ARGV[2])
remember()
