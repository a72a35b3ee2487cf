"""Who can serve which passes."""
