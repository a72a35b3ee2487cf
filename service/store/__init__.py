"""Bytes by path: a local directory or S3."""
