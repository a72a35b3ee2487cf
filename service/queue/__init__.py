"""Jobs and their records: one port."""
