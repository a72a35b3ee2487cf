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
from service.dicom.header import FLOATS, Header, native_bits, number, surplus_bytes
from service.dicom.photometric import COMPONENTS, GRAY, HALVED, PARTIAL
from service.dicom.syntaxes import Family
from service.errors.studies import NoPixelData, UnsupportedImage
from workers.pixels import palette
from workers.pixels.codecs import (
    code_image,
    decode_frame,
    has_component_transform,
    shows_loss,
)
from workers.pixels.doubts import CONTRADICTED, OTHER_PROCESS, doubts_of
from workers.pixels.padding import Mask, padding_above

Stored = NDArray[Any]
SURPLUS = "surplus_pixel_data"
"""Warning of pixel data that is longer than rows, columns and frames say."""

DEEPER = "deeper_than_bits_stored"
"""Warning of compressed values that Bits Stored cannot hold."""


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

    lossy: bool = False
    """Whether the code stream itself shows that something was lost."""

    padding: Mask | None = None
    """Of gray: pixels that are padding by bits that `values` lack; `None` where there are none."""

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
        A segmentation, or a palette that cannot be read.
    UndecodablePixels
        The compressed pixels are damaged.
    """
    if found.pixels is None:
        raise NoPixelData("The object holds no image; send an image of the study.")
    if header.bits_allocated == 1:
        raise UnsupportedImage("A segmentation is no image; it can be the region of a target.")
    label = header.photometric_interpretation
    doubts: tuple[str, ...] = ()
    lossy = False
    if syntaxes.FAMILIES[header.transfer_syntax_uid] is Family.NATIVE:
        words = values = _native(found, found.pixels, header, frame)
        rgb = label in GRAY | COMPONENTS | {"RGB"}
        surplus = (SURPLUS,) if surplus_bytes(found, header) else ()
        doubts = (*surplus, *((CONTRADICTED,) if label in COMPONENTS else ()))
    else:
        code = _code(found, found.pixels, header, frame)
        words = decode_frame(code, header)
        values, deeper = _bounded(words, code, header)
        doubts = (*doubts_of(code, header), *((DEEPER,) if deeper else ()))
        rgb = _is_rgb(code, header)
        family = syntaxes.FAMILIES[header.transfer_syntax_uid]
        lossy = OTHER_PROCESS in doubts or shows_loss(code, family)
    if found.pixels.tag in FLOATS:
        native = values.astype(values.dtype.newbyteorder("="), copy=False)
        return Pixels(native, header.bits_allocated, doubts)
    values = _clean(values, header, header.bits_stored, _shift(found.dataset, header))
    if label == "PALETTE COLOR":
        signed = header.pixel_representation == 1
        rgb_values, more = palette.colors(values, found.dataset, signed=signed)
        return Pixels(rgb_values, palette.BYTE, (*doubts, *more), lossy)
    if not rgb:
        values = _rgb(values, header)
    padding = padding_above(words, found.dataset, header)
    return Pixels(values, header.bits_stored, doubts, lossy, padding)


def _code(found: Parsed, element: PixelElement, header: Header, frame: int) -> bytes:
    """Join the frame's fragments."""
    pieces = []
    for offset, length in frame_fragments(found, element, header.number_of_frames, frame):
        found.stream.seek(offset)
        pieces.append(found.stream.read(length))
    return b"".join(pieces)


def _is_rgb(code: bytes, header: Header) -> bool:
    """Tell whether the decoder has already undone the color transform."""
    if header.photometric_interpretation in GRAY | COMPONENTS | {"RGB"}:
        return True  # in JPEG 2000 the code stream's own flag decides
    family = syntaxes.FAMILIES[header.transfer_syntax_uid]
    return family in syntaxes.JPEG_COLOR or (
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
    if header.photometric_interpretation in HALVED:
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
        raise UnsupportedImage("Color with shared chroma needs an even number of columns.")
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


def _bounded(values: Stored, code: bytes, header: Header) -> tuple[Stored, bool]:
    """Bring the values of a code stream into the range of Bits Stored, and tell if any were not.

    What lies above is cleared as in uncompressed pixels (it may be an overlay's bits). A
    lossy code stream overshoots instead, and is cut off: cleared, its white would turn black.
    """
    declared = code_image(code, syntaxes.FAMILIES[header.transfer_syntax_uid])
    if declared is None:
        return values, False
    largest = int(values.view(f"u{values.dtype.itemsize}").max()).bit_length()
    depth = max(declared.bits, largest)  # JPEG Lossless holds 16 whatever it says
    bits = largest if values.dtype.kind == "u" else depth  # of unsigned ones the bits are all
    if bits <= header.bits_stored:
        return values, False
    deep = _clean(values, header, depth)
    high = (1 << header.bits_stored - header.pixel_representation) - 1
    low = (-high - 1) * header.pixel_representation
    if low <= deep.min() and deep.max() <= high:
        return deep, False
    if header.transfer_syntax_uid in syntaxes.LOSSLESS_ONLY:
        return _clean(deep, header, header.bits_stored), True
    return np.asarray(np.clip(deep, low, high)), True


def _clean(values: Stored, header: Header, bits: int, shift: int = 0) -> Stored:
    """Keep `bits` bits alone, from `shift` on, and extend the sign."""
    native: Stored = values.astype(values.dtype.newbyteorder("="), copy=False)
    width = native.dtype.itemsize * 8
    kept: Stored = native.view(f"{'i' if header.pixel_representation else 'u'}{width // 8}")
    spare = max(0, width - bits - shift)
    if spare and not shift and not header.pixel_representation:
        mask = np.array((1 << bits) - 1, kept.dtype)
        return kept if kept.max() <= mask else np.asarray(kept & mask)
    if spare:
        kept = kept << spare
    if spare + shift:
        kept = kept >> (spare + shift)
    return kept


def _rgb(values: Stored, header: Header) -> Stored:
    """Convert YCbCr to RGB (PS3.3 C.7.6.3.1.2, ITU-R BT.601)."""
    bits = min(header.bits_stored, 8 * values.dtype.itemsize)
    exact = np.dtype(np.float32 if bits <= 16 else np.float64)  # noqa: PLR2004 - float32 has 24
    half = 1 << bits - 1
    y: NDArray[Any] = values[..., 0].astype(exact)
    cb: NDArray[Any] = values[..., 1].astype(exact) - half
    cr: NDArray[Any] = values[..., 2].astype(exact) - half
    if header.photometric_interpretation in PARTIAL:  # black is 16, white 235
        y, cb, cr = (y - 16) * (255 / 219), cb * (255 / 224), cr * (255 / 224)
    rgb = np.stack((y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb), axis=-1)
    return np.asarray(np.clip(rgb, 0, (1 << bits) - 1) + 0.5, values.dtype)
