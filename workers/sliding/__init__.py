"""Sliding windows: images larger than the network takes, given to it piece by piece."""
