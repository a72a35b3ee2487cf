"""Unguessable identifiers: 128 random bits behind a two-letter prefix."""

import secrets

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case
LENGTH = 26  # 26 x 5 bits hold 128 random bits


def new_id(prefix: str) -> str:
    """Return a new identifier such as ``ex_...`` (job) or ``st_...`` (study)."""
    number = secrets.randbits(128)
    letters = []
    for _ in range(LENGTH):
        number, digit = divmod(number, 32)
        letters.append(ALPHABET[digit])
    return f"{prefix}_{''.join(letters)}"
