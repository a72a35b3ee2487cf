"""What workers publish about themselves."""
