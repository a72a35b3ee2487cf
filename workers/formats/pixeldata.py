"""Pixel Data of a derived image: as it is, or encoded without loss, and how its pixels lie.

Pixel Data is the last element that is written here, so the header is written
first and the pixels follow it without being copied. Color stays RGB, pixel by
pixel, except in JPEG 2000: there the standard asks for the reversible color
transform, which is the code stream's own affair (PS3.3 A.8.5.4, PS3.5 8.2.4).
"""

import io
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from service.dicom.dataset import items_of
from service.domain.request import TransferSyntax
from workers.formats.derived import Source

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
PIXEL_DATA, FLOAT_PIXEL_DATA = 0x0010, 0x0008
"""Elements of group 7FE0."""

UNDEFINED: Final = 0xFFFFFFFF
GRAY: Final = 2
"""Axes of a frame that has one sample a pixel."""

RLE_HEAD: Final = 64
"""Bytes of the count and the offsets of up to 15 segments (PS3.5 G.5)."""


SPACINGS: Final = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
"""What tells height and width of a pixel."""

MEASURED: Final = {
    "RegionSpatialFormat": (1,),
    "PhysicalUnitsXDirection": (3,),
    "PhysicalUnitsYDirection": (3,),
}
"""What a region of ultrasound says that lies in space, in centimeters (PS3.3 C.8.5.5.1)."""

FINEST: Final = 1000
"""Greatest denominator of a ratio: spacings come rounded."""


def aspect_of(source: Source) -> tuple[int, int]:
    """Return height and width of the source's pixels in proportion, in whole numbers.

    1 to 1 where the source says nothing valid (PS3.3 C.7.6.3.1.7).
    """
    ratio = next(filter(None, _ratios(source)), Fraction(1))
    return ratio.numerator, ratio.denominator


def _ratios(source: Source) -> Iterator[Fraction | None]:
    """Yield what the source says of height to width, what is measured first."""
    for keyword in SPACINGS:
        yield _ratio(source.numbers(keyword))
    yield _calibrated(source)
    yield _ratio(source.numbers("PixelAspectRatio"))


def _calibrated(source: Source) -> Fraction | None:
    """Return what the regions of an ultrasound image say; nothing unless they agree."""
    found: set[Fraction | None] = set()
    for item in items_of(source.dataset, "SequenceOfUltrasoundRegions"):
        region = replace(source, dataset=item)
        if all(region.numbers(keyword) == value for keyword, value in MEASURED.items()):
            steps = (*region.numbers("PhysicalDeltaY"), *region.numbers("PhysicalDeltaX"))
            found.add(_ratio([abs(each) for each in steps]))  # an axis may lead either way
    found.discard(None)
    return found.pop() if len(found) == 1 else None


def _ratio(sides: Sequence[float]) -> Fraction | None:
    """Return height to width, where they can be those of a pixel."""
    if len(sides) != 2 or min(sides) <= 0:  # noqa: PLR2004 - height, width
        return None
    exact = Fraction(sides[0]) / Fraction(sides[1])
    return exact.limit_denominator(FINEST) if max(exact, 1 / exact) <= FINEST else None


def describe_aspect(ds: Dataset, source: Source) -> None:
    """Say that pixels on the source's grid are not square, if they are not.

    A ratio and no spacing: nobody is to measure on a picture.
    """
    if (aspect := aspect_of(source)) != (1, 1):
        ds.PixelAspectRatio = list(aspect)


def describe_frames(ds: Dataset, pages: Sequence[int]) -> None:
    """Say that `ds` has a frame for each of a volume's slices, by their `pages` (PS3.3 C.8.6.4)."""
    ds.NumberOfFrames = len(pages)
    ds.FrameIncrementPointer = Tag("PageNumberVector")
    ds.PageNumberVector = list(pages)


def save(ds: Dataset, pixels: Pixels, syntax: TransferSyntax, to: Path) -> None:
    """Write an object that lacks nothing but its pixels.

    Parameters
    ----------
    ds
        With file meta information; it gets the transfer syntax.
    pixels
        Shape ``(rows, columns[, 3])``, with frames before them if `ds` has a number of
        frames, in C order.
    """
    uid, encode = SYNTAXES[syntax]
    ds.file_meta.TransferSyntaxUID = uid
    if uid == JPEG2000Lossless and ds.PhotometricInterpretation == "RGB":
        ds.PhotometricInterpretation = "YBR_RCT"
    with to.open("wb") as stream:
        stream.write(_header(ds))
        if encode is None:
            kind = b"OB" if pixels.dtype == np.uint8 else b"OW"
            stream.write(_element(kind, pixels.nbytes + pixels.nbytes % 2))
            stream.write(pixels.data)
            stream.write(b"\0" * (pixels.nbytes % 2))
            return
        stream.write(_element(b"OB", UNDEFINED) + _item(b""))  # an empty offset table
        for frame in pixels if "NumberOfFrames" in ds else (pixels,):
            stream.write(_item(encode(frame)))
        stream.write(struct.pack("<HHL", 0xFFFE, 0xE0DD, 0))


def save_floats(ds: Dataset, frames: Sequence[NDArray[np.float32]], to: Path) -> None:
    """Write an object that lacks nothing but its Float Pixel Data, uncompressed."""
    with to.open("wb") as stream:
        stream.write(_header(ds))
        length = sum(frame.nbytes for frame in frames)
        stream.write(_element(b"OF", length, FLOAT_PIXEL_DATA))
        for frame in frames:
            stream.write(np.ascontiguousarray(frame, "<f4").data)


def _header(ds: Dataset) -> memoryview:
    """Return a file up to its pixels; pydicom writes it in many small pieces."""
    written = io.BytesIO()
    ds.save_as(written, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return written.getbuffer()


def _element(vr: bytes, length: int, number: int = PIXEL_DATA) -> bytes:
    return struct.pack("<HH2sHL", 0x7FE0, number, vr, 0, length)


def _item(data: bytes) -> bytes:
    length = len(data) + len(data) % 2
    return struct.pack("<HHL", 0xFFFE, 0xE000, length) + data.ljust(length, b"\0")


def _jpeg_ls(pixels: Pixels) -> bytes:
    """Encode with CharLS; noise can come out larger than it went in."""
    return bytes(imagecodecs.jpegls_encode(pixels, out=2 * pixels.nbytes + 4096))


def _jpeg_2000(pixels: Pixels) -> bytes:
    """Encode with OpenJPEG, color by way of the reversible transform."""
    color = pixels.ndim > GRAY
    code = imagecodecs.jpeg2k_encode(
        pixels, level=0, reversible=True, codecformat="j2k", mct=color, numthreads=1
    )
    return bytes(code)


def _rle(pixels: Pixels) -> bytes:
    """Encode each byte plane row by row, the high byte first (PS3.5 G)."""
    samples = pixels.reshape(*pixels.shape[:2], -1)
    octets = samples.astype(samples.dtype.newbyteorder(">"), copy=False).view(np.uint8)
    planes = np.ascontiguousarray(np.moveaxis(octets, -1, 0))
    packed = [bytes(imagecodecs.packbits_encode(plane, axis=-1)) for plane in planes]
    segments = [each + b"\0" * (len(each) % 2) for each in packed]
    offsets = np.cumsum([RLE_HEAD, *map(len, segments)])[:-1]
    head = struct.pack(f"<{1 + len(segments)}L", len(segments), *offsets)
    return head.ljust(RLE_HEAD, b"\0") + b"".join(segments)


Encode = Callable[[Any], bytes]
SYNTAXES: Final[Mapping[TransferSyntax, tuple[UID, Encode | None]]] = MappingProxyType(
    {
        "explicit_vr_little_endian": (ExplicitVRLittleEndian, None),
        "jpeg_ls_lossless": (JPEGLSLossless, _jpeg_ls),
        "jpeg_2000_lossless": (JPEG2000Lossless, _jpeg_2000),
        "rle_lossless": (RLELossless, _rle),
    }
)
"""Transfer syntax and encoder by the name in a request."""
