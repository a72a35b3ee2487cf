"""The production line: from a leased job to published artifacts."""
