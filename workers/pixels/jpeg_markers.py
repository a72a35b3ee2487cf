"""The markers of a JPEG, and what stands between them (ISO 10918-1 B)."""

from collections.abc import Iterator

import numpy as np

END_OF_IMAGE = b"\xff\xd9"
"""Ends a code stream of any JPEG; coded data cannot hold these bytes."""

START_OF_SCAN, RESTART_INTERVAL = 0xDA, 0xDD
RESTARTS, AT_END = range(0xD0, 0xD8), 0xD9
BETWEEN_SCANS = frozenset({0xC4, 0xCC, *range(0xDA, 0xE0), *range(0xE0, 0xF0), 0xFE})
"""What may stand behind entropy-coded data: tables, another scan, comments."""

FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
"""Start of frame: of JPEG, and of JPEG-LS (0xF7)."""


def jpeg_segments(code: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield markers and their segments up to the entropy-coded data (ISO 10918-1 B)."""
    at = 2
    while at + 4 <= len(code) and code[at] == 0xFF:  # noqa: PLR2004 - a marker's first byte
        marker, length = code[at + 1], int.from_bytes(code[at + 2 : at + 4], "big")
        yield marker, code[at + 4 : at + 2 + length]
        if marker == START_OF_SCAN:
            return
        at += 2 + length


def is_in_order(code: bytes) -> bool:
    """Tell whether no marker stands in a JPEG's coded data that cannot stand there.

    A value that damage makes a marker ends the image for libjpeg, silently. Restart markers
    must count up, and nothing that looks like another end may follow the end.
    """
    heads = list(jpeg_segments(code))
    at = 2 + sum(4 + len(segment) for _, segment in heads)
    restarts, restarting = 0, any(marker == RESTART_INTERVAL for marker, _ in heads)
    for place, marker in markers(code, at):
        if place < at:  # within a segment
            continue
        if marker in RESTARTS:
            if not restarting or marker != RESTARTS[restarts % len(RESTARTS)]:
                return False
            restarts += 1
        elif marker in BETWEEN_SCANS:
            at = place + 2 + int.from_bytes(code[place + 2 : place + 4], "big")
            restarts, restarting = 0, restarting or marker == RESTART_INTERVAL
        else:
            return marker == AT_END and code.find(END_OF_IMAGE, place + 2) < 0
    return False


def scans(code: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield each scan's header, and the length of its entropy-coded data."""
    heads = list(jpeg_segments(code))
    start = at = 2 + sum(4 + len(segment) for _, segment in heads)
    header = heads[-1][1]
    for place, marker in markers(code, at):
        if place < at or marker in RESTARTS:
            continue
        if start == at:  # not behind tables
            yield header, place - start
        if marker == AT_END:
            return
        at = place + 2 + int.from_bytes(code[place + 2 : place + 4], "big")
        if marker == START_OF_SCAN:
            start, header = at, code[place + 4 : at]


def markers(code: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Yield place and second byte of what has the form of a marker: a value's has a zero there."""
    data = np.frombuffer(code, np.uint8, offset=start)
    places = np.flatnonzero(data[:-1] == 0xFF)  # noqa: PLR2004 - a marker's first byte
    seconds = data[places + 1]
    marked = (seconds > 0) & (seconds < 0xFF)  # noqa: PLR2004 - it may come several times
    yield from zip((start + places[marked]).tolist(), seconds[marked].tolist(), strict=True)
