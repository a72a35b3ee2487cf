"""A DICOM file to arrays on disk: what the decode stage and self-tests share."""

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import UID

from service.dicom import syntaxes
from service.dicom.damage import is_damage
from service.dicom.dataset import Parsed, parsed, value_of
from service.dicom.frames import flatten, lacks
from service.dicom.header import Header, header_of
from service.domain.value import Value
from service.errors.base import WhylightError
from service.errors.requests import InvalidRequest
from service.errors.studies import UndecodablePixels, UnsupportedImage
from workers.formats.derived import Source
from workers.parcels import ImageFacts
from workers.pixels.arrays import ArrayWriter
from workers.pixels.display import (
    INVERTED,
    chosen_window,
    is_inverted,
    show_color,
    show_gray,
)
from workers.pixels.modality import Modality, modality_of
from workers.pixels.padding import LARGEST, Mask, padding_of, without_holes
from workers.pixels.stored import Pixels, read_stored
from workers.pixels.ultrasound import doubts_of, regions_of
from workers.pixels.uptake import uptake_scale
from workers.pixels.voi import Voi, Window, voi_of

MAX_SAMPLES = 128 << 20
GUESSED = "guessed_transfer_syntax"
"""Warning of an object without file meta information, whose encoding its elements show."""

MISNAMED = "contradicted_encoding"
"""Warning of an object whose elements have a VR, or none, other than its transfer syntax says."""

OVERRULED = "overruled_by_functional_groups"
"""Warning of an object that says other than its frame's functional groups, which hold."""

UNDECLARED = "undeclared_loss"
"""Warning of a code stream that shows loss, of which the header says that nothing was lost."""

LOSSLESS = "00"
"""Of Lossy Image Compression: nothing was ever lost."""

UNSCALED = "missing_rescale"
"""Warning of a CT image that does not say how its values become Hounsfield units."""

SHAPED = "contradicted_presentation_shape"
"""Warning of a Presentation LUT Shape that turns over what the photometric interpretation says."""

AS_STORED = Modality()
BLOCK = 32
"""Rows worked on at a time; they stay in the processor's cache."""

SHORT = 2
"""Bytes of a stored integer up to which it is kept as it is, where it means itself."""

PIXELS, DISPLAY, PADDING, HEADER = "pixels.npy", "display.npy", "padding.npy", "header.dcm"


class DecodedFiles(Value):
    """What `decode_file` wrote: fields as in `workers.parcels.Decoded`."""

    facts: ImageFacts
    pixels: Path
    display: Path
    padding: Path | None
    header: Path


def decode_file(
    file: Path, scratch: Path, *, frame: int = 1, max_samples: int = MAX_SAMPLES
) -> DecodedFiles:
    """Decode one frame of a DICOM image into `scratch`.

    Parameters
    ----------
    file
        The DICOM object.
    scratch
        An existing folder; ``pixels.npy`` (modality values, ``(C, rows, columns)``;
        float32, or as they are stored where these are integers of 16 bits at most
        and mean the same), ``display.npy`` (uint8, ``(rows, columns[, 3])``),
        ``padding.npy`` (bool, if there is padding) and ``header.dcm`` (the
        object without its pixels, as if it had this frame alone) are written
        to it.
    frame
        Which frame, counted from 1; no other is decoded.
    max_samples
        Most samples a frame may have.

    Raises
    ------
    NotDicom, TruncatedDicom, NoPixelData, AbsurdDimensions, UnsupportedTransferSyntax
        As `service.dicom.header.read_header`, except that UIDs may lack.
    InvalidRequest
        There are not so many frames.
    UnsupportedImage
        A form of pixels that is not read.
    UndecodablePixels
        The pixels are damaged.
    """
    try:
        with parsed(file, max_samples=max_samples) as found:
            header = header_of(found, max_samples=max_samples, identified=False)
            _require_frame(found, header, frame)
            flat = flatten(found, frame, header.number_of_frames)
            keep_header(file, flat, scratch / HEADER)
            return _decode(flat, header, frame, scratch)
    except (WhylightError, MemoryError):
        raise
    except Exception as error:
        if not is_damage(error):
            raise
        raise UndecodablePixels("The image's pixels or their description are damaged.") from error


def _require_frame(found: Parsed, header: Header, frame: int) -> None:
    if frame > header.number_of_frames:
        raise InvalidRequest("The image has no such frame.", pointer="/frame")
    if lacks(found.dataset, frame, "PixelValueTransformationSequence"):
        raise UnsupportedImage(
            "The frame has no rescale (Pixel Value Transformation) where others of the object have"
            " one, so its values mean nothing; ask for another frame, or send the object whole."
        )


def _decode(found: Parsed, header: Header, frame: int, scratch: Path) -> DecodedFiles:
    """Write the arrays; return what is known of them."""
    pixels = read_stored(found, header, frame)
    doubts = Source.of(found).doubts()
    if pixels.color:
        _write_color(pixels, scratch)
        return _files(scratch, facts_of(found, header, frame, pixels, doubts=doubts), None)
    gray = gray_of(found, header, pixels)
    used = gray.voi or gray.chosen_window()
    _write_gray(gray, used, scratch)
    facts = facts_of(
        found, header, frame, gray.pixels, doubts=doubts, modality=gray.modality, voi=used
    )
    return _files(scratch, facts, gray.padding)


@dataclass(frozen=True, slots=True, eq=False)
class Gray:
    """A gray frame: its stored values, and what the header says that they mean."""

    pixels: Pixels
    modality: Modality
    padding: Mask | None
    voi: Voi | None
    """As declared; `None` where nothing is."""

    inverted: bool
    """Whether the least value is shown white."""

    def chosen_window(self) -> Window:
        """Choose a window where none is declared."""
        return chosen_window(self.pixels.values, self.modality, self.padding, self.pixels.bits)


def gray_of(found: Parsed, header: Header, pixels: Pixels) -> Gray:
    """Return a gray frame with its transforms, which `flatten` brought to the top.

    Raises
    ------
    UnsupportedImage
        A table or the rescale cannot be read, or leads beyond what float32 holds.
    """
    modality = modality_of(found.dataset, signed=header.pixel_representation == 1)
    padding = pixels.padding
    if padding is None:
        padding = padding_of(pixels.values, found.dataset, header)
    if pixels.real:
        pixels = replace(pixels, values=without_holes(pixels.values, padding))
    low, high = modality.range(*_stored_range(pixels, header))
    if not -LARGEST <= low <= high <= LARGEST:
        raise UnsupportedImage(
            "The image has values that float32 does not hold, as they are stored or by its rescale;"
            " send it in another unit. Where they stand for no value, name them as its padding"
            " (Float or Double Float Pixel Padding Value)."
        )
    voi = voi_of(found.dataset, signed=low < 0)
    inverted = is_inverted(found.dataset, header)
    shaped = inverted != (header.photometric_interpretation == INVERTED)
    unscaled = header.modality == "CT" and not modality.declared
    doubts = (*((UNSCALED,) if unscaled else ()), *((SHAPED,) if shaped else ()))
    pixels = replace(pixels, doubts=(*pixels.doubts, *doubts))
    return Gray(pixels, modality, padding, voi, inverted)


def _write_color(pixels: Pixels, scratch: Path) -> None:
    planes = np.ascontiguousarray(np.moveaxis(pixels.values, -1, 0), _kept(pixels.values))
    np.save(scratch / PIXELS, planes, allow_pickle=False)
    np.save(scratch / DISPLAY, show_color(pixels.values, pixels.bits), allow_pickle=False)


def _write_gray(gray: Gray, voi: Voi, scratch: Path) -> None:
    """Write values and brightness a few rows at a time: twice as fast as whole images."""
    stored = gray.pixels.values
    shape = (stored.shape[0], stored.shape[1])
    kept = _kept(stored, gray.modality)
    with (
        ArrayWriter(scratch / PIXELS, (1, *shape), kept) as pixels,
        ArrayWriter(scratch / DISPLAY, shape, np.uint8) as display,
    ):
        for start in range(0, len(stored), BLOCK):
            part = slice(start, start + BLOCK)
            values = gray.modality.apply(stored[part])
            mask = None if gray.padding is None else gray.padding[part]
            pixels.append(values if kept.kind == "f" else stored[part])
            display.append(show_gray(values, voi, mask, inverted=gray.inverted))


def _kept(stored: NDArray[Any], modality: Modality = AS_STORED) -> np.dtype[Any]:
    """Return the type of modality values on disk: float32, or short integers as they are."""
    same = modality.identity and stored.dtype.itemsize <= SHORT
    return stored.dtype if same else np.dtype(np.float32)


def facts_of(
    found: Parsed,
    header: Header,
    frame: int,
    pixels: Pixels,
    *,
    doubts: tuple[str, ...] = (),
    modality: Modality = AS_STORED,
    voi: Voi | None = None,
) -> ImageFacts:
    """Return what is known of one frame; of what derived objects copy, `doubts` tell."""
    low, high = _stored_range(pixels, header)
    value_low, value_high = modality.range(low, high)
    linear = isinstance(voi, Window) and voi.shape != "SIGMOID"
    declared = str(value_of(found.dataset, "LossyImageCompression") or "").strip()
    lossy = _is_lossy(declared, header, pixels)
    return ImageFacts(
        rows=header.rows,
        columns=header.columns,
        channels=3 if pixels.color else 1,
        frame=frame if header.number_of_frames > 1 else None,
        modality=header.modality,
        photometric_interpretation=header.photometric_interpretation,
        bits_stored=pixels.bits,
        stored_minimum=math.floor(low),
        stored_maximum=math.ceil(high),
        value_minimum=value_low,
        value_maximum=value_high,
        lossy=lossy,
        uptake_scale=uptake_scale(found.dataset),
        regions=regions_of(found.dataset, header),
        window=(voi.center, voi.width) if linear and isinstance(voi, Window) else None,
        warnings=(
            *doubts,
            *((GUESSED,) if found.guessed else ()),
            *((MISNAMED,) if found.contradicted else ()),
            *((OVERRULED,) if found.overruled else ()),
            *doubts_of(found.dataset, header),
            *pixels.doubts,
            *((UNDECLARED,) if lossy and declared == LOSSLESS else ()),
        ),
    )


def _stored_range(pixels: Pixels, header: Header) -> tuple[float, float]:
    """Return what stored values may be, by bits and sign; of real numbers, what they are."""
    if pixels.real:
        return float(pixels.values.min()), float(pixels.values.max())
    bits = pixels.bits
    if header.pixel_representation:
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1


def _is_lossy(declared: str, header: Header, pixels: Pixels) -> bool:
    """Tell whether the pixels were ever compressed with loss, by header, syntax and code stream."""
    if declared == "01" or pixels.lossy:
        return True
    compressed = syntaxes.FAMILIES[header.transfer_syntax_uid] is not syntaxes.Family.NATIVE
    may_lose = compressed and header.transfer_syntax_uid not in syntaxes.LOSSLESS_ONLY
    return may_lose and declared != LOSSLESS


def keep_header(file: Path, found: Parsed, to: Path) -> None:
    """Write the object up to its pixels; a deflated one whole, as it cannot be cut."""
    if found.flattened:
        found.dataset.file_meta.TransferSyntaxUID = UID(found.transfer_syntax_uid)
        found.dataset.save_as(to, enforce_file_format=True)
        return
    if found.pixels is None or found.transfer_syntax_uid == syntaxes.DEFLATED:
        shutil.copyfile(file, to)
        return
    found.stream.seek(0)
    to.write_bytes(found.stream.read(found.pixels.start))


def _files(scratch: Path, facts: ImageFacts, padding: Mask | None) -> DecodedFiles:
    mask = None if padding is None else scratch / PADDING
    if padding is not None and mask is not None:
        np.save(mask, padding, allow_pickle=False)
    return DecodedFiles(
        facts=facts,
        pixels=scratch / PIXELS,
        display=scratch / DISPLAY,
        padding=mask,
        header=scratch / HEADER,
    )
