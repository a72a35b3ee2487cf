"""Allow-listed network constructors for state-dict models."""
