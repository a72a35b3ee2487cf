"""Manifests begun from what others publish beside their models, read as data alone."""
