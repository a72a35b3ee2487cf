"""Stored values: the pixel data element as an array of integers.

Color comes out as RGB, gray as it is stored; bits that do not belong to the
value (overlays, or dirt in the unused high bits) are cleared.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from service.dicom import syntaxes
from service.dicom.dataset import Parsed, PixelElement
from service.dicom.frames import frame_fragments
from service.dicom.header import FLOATS, GRAY, Header, native_bits, number, surplus_bytes
from service.dicom.syntaxes import Family
from service.errors.studies import NoPixelData, UnsupportedImage
from workers.pixels import palette
from workers.pixels.codecs import JPEG_COLOR, decode_frame, doubts_of, has_component_transform

Stored = NDArray[Any]
SURPLUS = "surplus_pixel_data"
"""Warning of pixel data that is longer than rows, columns and frames say."""


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """A frame's stored values."""

    values: Stored
    """Shape ``(rows, columns)`` (gray) or ``(rows, columns, 3)`` (RGB); integers, or
    floating-point gray as it is."""

    bits: int
    """Bits that each value takes."""

    doubts: tuple[str, ...] = ()
    """Codes of what the pixel data says wrongly, or other than the header."""

    @property
    def color(self) -> bool:
        """Whether the values are RGB."""
        return self.values.ndim == 3  # noqa: PLR2004 - rows, columns, samples

    @property
    def real(self) -> bool:
        """Whether the values are floating-point numbers."""
        return bool(self.values.dtype.kind == "f")


def read_stored(found: Parsed, header: Header, frame: int) -> Pixels:
    """Return one frame's stored values.

    Parameters
    ----------
    frame
        Counted from 1; no other frame is decoded.

    Raises
    ------
    UnsupportedImage
        A segmentation, a palette that cannot be read, or YBR color of more than 8 bits.
    UndecodablePixels
        The compressed pixels are damaged.
    """
    if found.pixels is None:
        raise NoPixelData("The object holds no image; send an image of the study.")
    if header.bits_allocated == 1:
        raise UnsupportedImage("A segmentation is no image; it can be the region of a target.")
    doubts: tuple[str, ...] = ()
    if syntaxes.FAMILIES[header.transfer_syntax_uid] is Family.NATIVE:
        values = _native(found, found.pixels, header, frame)
        rgb = header.photometric_interpretation in GRAY | {"RGB"}
        doubts = (SURPLUS,) if surplus_bytes(found, header) else ()
    else:
        code = _code(found, found.pixels, header, frame)
        doubts = doubts_of(code, header)
        values = decode_frame(code, header)
        rgb = _is_rgb(code, header)
    if found.pixels.tag in FLOATS:
        native = values.astype(values.dtype.newbyteorder("="), copy=False)
        return Pixels(native, header.bits_allocated, doubts)
    values = _clean(values, header, _shift(found.dataset, header))
    if header.photometric_interpretation == "PALETTE COLOR":
        return Pixels(*palette.colors(values, found.dataset), doubts)
    if not rgb:
        values = ybr_to_rgb(values)
    return Pixels(values, header.bits_stored, doubts)


def _code(found: Parsed, element: PixelElement, header: Header, frame: int) -> bytes:
    """Join the frame's fragments."""
    pieces = []
    for offset, length in frame_fragments(found, element, header.number_of_frames, frame):
        found.stream.seek(offset)
        pieces.append(found.stream.read(length))
    return b"".join(pieces)


def _is_rgb(code: bytes, header: Header) -> bool:
    """Tell whether the decoder has already undone the color transform."""
    if header.photometric_interpretation in GRAY | {"RGB", "YBR_RCT", "YBR_ICT"}:
        return True  # in JPEG 2000 the code stream's own flag decides
    family = syntaxes.FAMILIES[header.transfer_syntax_uid]
    return family in JPEG_COLOR or (
        family in {Family.JPEG_2000, Family.HTJ2K} and has_component_transform(code)
    )


def _native(found: Parsed, element: PixelElement, header: Header, frame: int) -> Stored:
    order = ">" if header.transfer_syntax_uid == syntaxes.EXPLICIT_BIG else "<"
    length = native_bits(header) // 8
    start = (frame - 1) * length
    swapped = order == ">" and element.vr == "OW" and header.bits_allocated == 8  # noqa: PLR2004 - bytes
    odd = start % 2 if swapped else 0
    found.stream.seek(element.offset + start - odd)
    data = np.fromfile(found.stream, np.uint8, length + odd + swapped * ((length + odd) % 2))
    if swapped:
        data = _swapped(data)[odd:]
    kind = "f" if element.tag in FLOATS else "u"
    flat = data[:length].view(f"{order}{kind}{header.bits_allocated // 8}")
    if header.photometric_interpretation == "YBR_FULL_422":
        return _from_422(flat, header)
    if header.samples_per_pixel == 1:
        return flat.reshape(header.rows, header.columns)
    if number(found.dataset, "PlanarConfiguration", 0, 1, default=0):
        planes = flat.reshape(header.samples_per_pixel, header.rows, header.columns)
        interleaved: Stored = np.moveaxis(planes, 0, -1)
        return interleaved
    return flat.reshape(header.rows, header.columns, header.samples_per_pixel)


def _swapped(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Undo the byte order of 8-bit pixels that were stored as 16-bit words."""
    even = np.pad(data, (0, data.size % 2))
    return even.view(np.uint16).byteswap().view(np.uint8)[: data.size]


def _from_422(flat: Stored, header: Header) -> Stored:
    """Spread the shared chroma of each pair of pixels: Y Y Cb Cr (PS3.3 C.7.6.3.1.2)."""
    if header.columns % 2:
        raise UnsupportedImage("YBR_FULL_422 needs an even number of columns.")
    pairs = flat.reshape(header.rows, header.columns // 2, 4)
    wide = np.empty((header.rows, header.columns, 3), flat.dtype)
    wide[:, 0::2, 0], wide[:, 1::2, 0] = pairs[..., 0], pairs[..., 1]
    wide[..., 1] = pairs[..., 2].repeat(2, axis=1)
    wide[..., 2] = pairs[..., 3].repeat(2, axis=1)
    return wide


def _shift(dataset: Dataset, header: Header) -> int:
    """Return how many bits lie below the value in uncompressed pixels."""
    if syntaxes.FAMILIES[header.transfer_syntax_uid] is not Family.NATIVE:
        return 0
    top = header.bits_allocated - 1
    high = number(dataset, "HighBit", 0, top, default=header.bits_stored - 1)
    return max(0, high + 1 - header.bits_stored)


def _clean(values: Stored, header: Header, shift: int) -> Stored:
    """Keep the stored bits alone and extend the sign."""
    native: Stored = values.astype(values.dtype.newbyteorder("="), copy=False)
    if header.pixel_representation and native.dtype.kind == "i":
        return native  # the code stream had a sign and few enough bits
    width = native.dtype.itemsize * 8
    kept: Stored = native.view(f"{'i' if header.pixel_representation else 'u'}{width // 8}")
    spare = max(0, width - header.bits_stored - shift)
    if spare and not shift and not header.pixel_representation:
        mask = np.array((1 << header.bits_stored) - 1, kept.dtype)
        return kept if kept.max() <= mask else np.asarray(kept & mask)
    if spare:
        kept = kept << spare
    if spare + shift:
        kept = kept >> (spare + shift)
    return kept


def ybr_to_rgb(values: Stored) -> Stored:
    """Convert full-range YCbCr to RGB, 8 bit (PS3.3 C.7.6.3.1.2, ITU-R BT.601)."""
    if values.dtype.itemsize != 1:
        raise UnsupportedImage("YBR color of more than 8 bits is not read.")
    y, cb, cr = (values[..., i].astype(np.float32) for i in range(3))
    cb -= 128
    cr -= 128
    rgb = np.stack((y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb), axis=-1)
    return np.asarray(np.clip(rgb, 0, 255) + 0.5, np.uint8)
