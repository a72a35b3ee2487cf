"""Whether the coded data of a JPEG reach the end of its image.

Where they end early, libjpeg fills the image up with middle gray, and its warning is lost. So
the image is asked for with more rows than it has. Below a whole one, what is left of the last
byte and zeros behind it are decoded as if they were data, before libjpeg sees that nothing is
there; below one cut short it has seen that already, and all is gray.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors.studies import UndecodablePixels
from workers.pixels.jpeg_markers import (
    END_OF_IMAGE,
    FRAME_MARKERS,
    RESTART_INTERVAL,
    START_OF_SCAN,
    jpeg_segments,
    scans,
)

Decoder = Callable[[bytes], NDArray[Any]]
LOSSLESS, PROGRESSIVE = 0xC3, 0xC2
"""Frame markers of these processes."""

BLOCK = 8
"""Rows and columns of a block, where there are blocks."""

COEFFICIENTS = BLOCK**2
SCAN_HEADER = 6
"""Bytes of a scan header of one component."""

MOST_ROWS = 0xFFFF
"""Most that a code stream can name; libjpeg refuses less."""

TAILS = (
    *(b"", b"\x5a\xa5", b"\x35\xca\x9c\x63"),
    *(b"\x96\x69\xd2", b"\xe3\x1c\x71", b"\xb4\x4b\x2d"),
)
"""What is put behind the data in turn: zeros alone may mean gray, and one may mean what lacks."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a JPEG's image is coded."""

    at: int
    """Where the code stream names the number of rows."""

    rows: int
    columns: int
    flat: int
    """The middle gray."""

    components: bytes
    """Their identifiers."""

    factors: tuple[int, int]
    """Greatest sampling factors, across and down."""

    block: int
    """Rows and columns of what is coded at once."""

    process: int
    """The frame's marker."""

    several: bool
    """Whether there are several scans."""

    restarts: bool

    @classmethod
    def of(cls, code: bytes) -> "Layout":
        """Read it of a code stream.

        Raises
        ------
        UndecodablePixels
            It has no frame or scan header, or one of another form.
        """
        at, place, process, frame, scan, restarts = 2, 0, 0, b"", b"", False
        for marker, segment in jpeg_segments(code):
            if marker in FRAME_MARKERS:
                place, process, frame = at + 5, marker, segment
            elif marker == START_OF_SCAN:
                scan = segment
            restarts = restarts or (marker == RESTART_INTERVAL and any(segment))
            at += 4 + len(segment)
        factors = [divmod(each, 16) for each in frame[7::3]]
        if not (factors and frame[0] and scan[1:-3] and all(min(each) for each in factors)):
            raise UndecodablePixels("The JPEG does not tell how its image is coded.")
        several = len(scan[1:-3:2]) < len(factors)
        used = factors if len(factors) > 1 else [(1, 1)]  # then they mean nothing (A.2.2)
        return cls(
            at=place,
            rows=int.from_bytes(frame[1:3], "big"),
            columns=int.from_bytes(frame[3:5], "big"),
            flat=1 << frame[0] - 1,
            components=frame[6::3],
            factors=(max(h for h, _ in used), max(v for _, v in used)),
            block=1 if process == LOSSLESS else BLOCK,
            process=process,
            several=several or process == PROGRESSIVE,
            restarts=restarts,
        )

    @property
    def halved(self) -> bool:
        """Whether color has fewer rows: those below then show in the last ones above."""
        return self.factors[1] > 1

    @property
    def below(self) -> slice:
        """Rows below the image's blocks, one block high."""
        height = self.block * self.factors[1]
        start = -(-self.rows // height) * height
        return slice(start + 2 * self.halved, start + height)

    @property
    def above(self) -> slice:
        """Rows that those below do not show in: of the image, or in one scan of its blocks."""
        own = self.rows if self.several else self.below.start
        return slice(min(own, self.below.start - 4 * self.halved))

    @property
    def least(self) -> int:
        """Fewest bits a component can take: one a sample; two a block, for its two ends."""
        samples = self.rows * self.columns // (self.factors[0] * self.factors[1])
        return samples * min(2, self.block) // self.block**2

    def taller(self, code: bytes, tail: bytes = b"") -> bytes:
        """Return the code stream of the image and `below`, a tail behind its data."""
        end = code.rfind(END_OF_IMAGE)
        rows = min(self.below.stop, MOST_ROWS).to_bytes(2, "big")
        return b"".join((code[: self.at], rows, code[self.at + 2 : end], tail, code[end:]))


def decoded_whole(code: bytes, decode: Decoder, apart: Decoder) -> NDArray[Any] | None:
    """Decode a JPEG; `None` where its data end before its image does.

    Parameters
    ----------
    code
        Its markers are in order and lead to its end.
    decode
        Decodes it as it is wanted.
    apart
        Decodes it with its components as they are coded.
    """
    layout = Layout.of(code)
    if layout.several:
        frame = np.asarray(decode(code))
        reaches = _is_refined if layout.process == PROGRESSIVE else _reaches_end
        return frame if reaches(code, layout, apart) else None
    tall = np.asarray(decode(layout.taller(code)))
    frame = np.asarray(decode(code)) if layout.halved else tall[: layout.rows]
    below = bool((tall[layout.below] != layout.flat).any())
    return frame if below or _reaches_end(code, layout, apart) else None


def _reaches_end(code: bytes, layout: Layout, apart: Decoder) -> bool:
    """Tell whether all components have a scan, and the last scan's data reach their end."""
    headers = list(scans(code))
    named = [header[1:-3:2] for header, _ in headers]
    if set(b"".join(named)) != set(layout.components):
        return False
    last = [layout.components.index(each) for each in named[-1]]
    tall = [each[..., last] for each in _tailed(code, layout, apart)]
    if _leans(tall, layout):
        return False
    if any((each[layout.below] != layout.flat).any() for each in tall):
        return True
    image = tall[0][: layout.rows]
    if layout.restarts and (image[-1, -1] != layout.flat).any():
        return True  # an interval ends with the image; the next could begin with a marker alone
    enough = headers[-1][1] * 8 >= layout.least * len(last)
    return enough and bool((image == layout.flat).all())  # perhaps no code but that of gray


def _is_refined(code: bytes, layout: Layout, apart: Decoder) -> bool:
    """Tell whether progressive scans lead each coefficient to its last bit (ISO 10918-1 G.1.1).

    And whether the last one's data reach its end.
    """
    left = {(each, place) for each in layout.components for place in range(COEFFICIENTS)}
    for header, _ in scans(code):
        if len(header) >= SCAN_HEADER and header[-1] & 0xF == 0:
            band = range(header[-3], header[-2] + 1)
            left -= {(each, place) for each in header[1:-3:2] for place in band}
    return not left and not _leans(_tailed(code, layout, apart), layout)


def _tailed(code: bytes, layout: Layout, apart: Decoder) -> list[NDArray[Any]]:
    """Decode the image and what is below, with each tail behind the data."""
    return [np.atleast_3d(apart(layout.taller(code, tail))) for tail in TAILS]


def _leans(tall: Sequence[NDArray[Any]], layout: Layout) -> bool:
    """Tell whether the image itself made use of what is behind its data."""
    first, *others = (each[layout.above] for each in tall)
    return any((each != first).any() for each in others)
