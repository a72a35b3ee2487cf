"""The picture as PNG: for people, slides and web pages."""

import struct
import zlib
from pathlib import Path
from typing import Final

import imagecodecs
from typing_extensions import override

from workers.formats.base import FORMATS, Format
from workers.formats.derived import Source
from workers.formats.pixeldata import aspect_of
from workers.formats.sheet import Sheet

FAST = 1
"""Compression level; radiographs are too noisy for more to pay."""

AVERAGE = imagecodecs.PNG.FILTER.AVG
"""The one filter that suits radiographs: as small as trying all, in 60 % of the time."""

HEAD: Final = 33
"""Bytes of signature and image header, which every other chunk follows."""


@FORMATS.register("png")
class Png(Format):
    """The overlay with its legend, 8-bit RGB; no patient data beside the pixels.

    Its pixels are the source's. Where these are not square, a chunk ``pHYs`` tells
    their aspect ratio (ISO/IEC 15948, 11.3.5.3).
    """

    title = "Overlay as PNG"
    media_type = "image/png"
    extension = "png"

    @override
    def write(self, sheet: Sheet, to: Path) -> None:
        data = imagecodecs.png_encode(sheet.picture, level=FAST, filter=AVERAGE)
        height, width = aspect_of(Source.read(sheet.header_file))
        if height != width:
            data = data[:HEAD] + _aspect(height, width) + data[HEAD:]
        to.write_bytes(data)


def _aspect(height: int, width: int) -> bytes:
    """Return the chunk that tells pixels a unit of length, across and down, of an unknown unit."""
    chunk = b"pHYs" + struct.pack(">LLB", height, width, 0)
    return struct.pack(">L", len(chunk) - 4) + chunk + struct.pack(">L", zlib.crc32(chunk))
