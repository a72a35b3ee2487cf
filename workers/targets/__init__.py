"""Scalars to explain."""
