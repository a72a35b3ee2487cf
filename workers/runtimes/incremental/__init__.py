"""Rows that differ from one image in a box each, without computing what stays the same."""
