"""The raw map as a 16-bit grayscale capture: numbers for a PACS that takes no floats."""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from typing_extensions import override

from workers.formats.base import FORMATS, Format
from workers.formats.derived import Source, derivation, derive, digest, finish, inherit_loss
from workers.formats.pixeldata import describe_aspect, describe_frames, save
from workers.formats.sheet import Sheet

SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
MULTI_FRAME: Final = "1.2.840.10008.5.1.4.1.1.7.3"
HIGHEST, MIDDLE = 65535, 32767


@dataclass(frozen=True, slots=True)
class Rescale:
    """Stored values to relevance, by numbers that a decimal string holds exactly."""

    slope: Decimal
    intercept: Decimal

    def store(self, relevance: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Return the nearest stored values; they are off by half a step at most."""
        stored = np.empty(relevance.shape, np.uint16)
        for part, into in zip(relevance, stored, strict=True):  # a copy of one part at a time
            steps = (part.astype(np.float64) - float(self.intercept)) / float(self.slope)
            into[:] = np.clip(np.rint(steps), 0, HIGHEST)
        return stored


@FORMATS.register("dicom_sc_word")
class DicomScWord(Format):
    """Relevance of each source pixel, 16 bits, on the source's own grid; a frame for each slice.

    The rescale (Modality LUT module) leads from stored values to relevance
    exactly as far as 16 bits go; nothing of the image and no legend is in it.
    The window covers what pictures draw, from nothing to full strength.
    """

    title = "Raw map as 16-bit DICOM Secondary Capture"
    media_type = "application/dicom"
    extension = "word.dcm"

    @override
    def write(self, sheet: Sheet, to: Path) -> None:
        source = Source.read(sheet.header_file)
        rescale = rescale_of(sheet.source_relevance)
        pixels = rescale.store(sheet.source_relevance)
        volume = sheet.record.volume
        kind = SECONDARY_CAPTURE if volume is None else MULTI_FRAME
        ds = derive(source, sheet.record, kind, self.name, title="AI map, 16 bit", place=2)
        if volume is not None:
            describe_frames(ds, volume.pages)
            ds.PresentationLUTShape = "IDENTITY"
        _describe(ds, sheet, rescale)
        describe_aspect(ds, source)
        inherit_loss(ds, source, sheet.record)
        rule = f"{ds.RescaleSlope}/{ds.RescaleIntercept}".encode()
        finish(ds, sheet, self.name, digest(pixels.data, rule))
        save(ds, pixels, sheet.record.transfer_syntax, to)


def rescale_of(relevance: NDArray[np.float32]) -> Rescale:
    """Spread all values over 16 bits; no relevance has a stored value of its own, exactly."""
    low, high = float(relevance.min()), float(relevance.max())
    if low < 0:
        slope = _step(max(-low, high) / MIDDLE)
        return Rescale(slope, -MIDDLE * slope)
    return Rescale(_step(high / HIGHEST) if high > 0 else Decimal(1), Decimal(0))


def _step(value: float) -> Decimal:
    """Round up to 5 digits, of which a multiple still fits a decimal string (DS)."""
    return Context(prec=5, rounding=ROUND_CEILING).create_decimal_from_float(value)


def _ds(value: Decimal | float) -> str:
    """Return a decimal string: 10 digits, and what float32 holds needs 16 characters at most."""
    return f"{value:.9e}"


def _describe(ds: Dataset, sheet: Sheet, rescale: Rescale) -> None:
    """Say what the pixels are and how they are to be shown."""
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.ConversionType = "WSD"
    ds.BurnedInAnnotation = "NO"
    how = "relevance of each source pixel, interpolated linearly between the map's cells."
    ds.DerivationDescription = derivation(sheet.record, how)
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = sheet.shape[-2:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.PixelRepresentation = 0
    ds.RescaleSlope, ds.RescaleIntercept = _ds(rescale.slope), _ds(rescale.intercept)
    ds.RescaleType = "US"
    low, high = sheet.window
    ds.WindowCenter, ds.WindowWidth = _ds((low + high) / 2), _ds(high - low)
    ds.VOILUTFunction = "LINEAR_EXACT"
    ds.WindowCenterWidthExplanation = "Nothing to full strength"
