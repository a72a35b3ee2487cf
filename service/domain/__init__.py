"""What the house speaks of: values without input or output."""
