"""The closed set of invertible preprocessing steps."""
