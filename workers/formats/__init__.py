"""Artifacts, one file a format."""
