"""Checks of a finished map, one file each."""
