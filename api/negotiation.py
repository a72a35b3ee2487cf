"""Choosing among media types and byte ranges (RFC 9110, sections 12.5.1 and 14)."""

import re
from collections.abc import Sequence

from api.problems import RangeNotSatisfiable
from service.errors.requests import NotAcceptable

_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")
_QUALITY = re.compile(r"\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*", re.IGNORECASE)


def choose(accept: str | None, offered: Sequence[str]) -> str:
    """Return the offered media type that is liked best; the first of equals.

    Raises
    ------
    NotAcceptable
        None is accepted.
    """
    if accept is None or not accept.strip():
        return offered[0]
    ranges = [_media_range(each) for each in accept.split(",")]
    likings = [(_liking(each, ranges), -place, each) for place, each in enumerate(offered)]
    quality, _, best = max(likings)
    if quality == 0:
        raise NotAcceptable("Accept one of the media types in 'offered'.", offered=[*offered])
    return best


def span(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the one byte range ``[start, end)`` that is asked for; `None` for the whole.

    What is no single byte range is passed over, as the standard asks.

    Raises
    ------
    RangeNotSatisfiable
        The range begins beyond the end.
    """
    found = _RANGE.fullmatch((header or "").strip())
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if first == "":
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), size if last == "" else min(int(last) + 1, size)
    if start >= size:
        raise RangeNotSatisfiable("The range begins beyond the artifact's end.", size=size)
    return None if end <= start else (start, end)


def _media_range(text: str) -> tuple[str, float]:
    """Return a media range without its parameters, and its quality."""
    name, *parameters = text.split(";")
    found = (_QUALITY.fullmatch(each) for each in parameters)
    quality = next((float(each[1]) for each in found if each is not None), 1.0)
    return name.strip().lower(), quality


def _liking(offer: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Return the quality that the most specific fitting range gives an offer."""
    kind = offer.partition("/")[0]
    for wanted in (offer, f"{kind}/*", "*/*"):
        for name, quality in ranges:
            if name == wanted:
                return quality
    return 0.0
