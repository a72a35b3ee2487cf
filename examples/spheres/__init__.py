"""Spheres in a volume: a small 3-D model whose evidence is known, and its CT series."""
