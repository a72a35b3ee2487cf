"""The picture as a DICOM Secondary Capture: what any PACS files beside the study."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from PIL import ImageCms
from pydicom.dataset import Dataset
from typing_extensions import override

from workers.drawing.legend import BACKGROUND
from workers.drawing.overlay import Rgb
from workers.drawing.palettes import FAINT, LEVELS, OPAQUE
from workers.drawing.region import SHARE
from workers.formats.base import FORMATS, Format
from workers.formats.derived import Source, code, derivation, derive, digest, finish, inherit_loss
from workers.formats.pixeldata import describe_aspect, describe_frames, save
from workers.formats.sheet import Sheet

SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
MULTI_FRAME: Final = "1.2.840.10008.5.1.4.1.1.7.4"
FRAMES: Final = 4
"""Axes of several pictures: frames, rows, columns, samples."""

BLENDED = ("113042", "Pixel by pixel addition")
"""Image Derivation (PS3.16 CID 7203): gray and color are added pixel by pixel, by their weights."""


@FORMATS.register("dicom_sc")
class DicomSc(Format):
    """True-color Secondary Capture, RGB (PS3.3 A.8.1; of a volume, multi-frame, A.8.5).

    The source image fills the top left corner pixel by pixel; the legend is
    burned in below or beside it, which Burned In Annotation tells. Pixel
    spacing is left out: a capture must not be measured on; pixels that are not
    square have their aspect ratio. Of a volume, the slices with the most evidence
    are frames of one object; on request all slices, and an object each.
    """

    title = "Overlay as DICOM Secondary Capture"
    media_type = "application/dicom"
    extension = "dcm"

    @override
    def write(self, sheet: Sheet, to: Path) -> None:
        if sheet.record.volume is None:
            self._write(sheet, sheet.picture, to)
        else:
            frames = stacked([sheet.slice_picture(each) for each in sheet.slices])
            self._write(sheet, frames, to, slices=sheet.slices)

    @override
    def write_all(self, sheet: Sheet, to: Path) -> tuple[Path, ...]:
        if sheet.record.volume is None or sheet.record.objects == "multi_frame":
            return super().write_all(sheet, to)
        files = []
        for each in sheet.slices:
            file = to.with_suffix(f".{sheet.pages[each]:04d}{to.suffix}")
            self._write(sheet, sheet.slice_picture(each), file, slices=(each,))
            files.append(file)
        return tuple(files)

    def _write(
        self, sheet: Sheet, pixels: Rgb, to: Path, *, slices: Sequence[int] | None = None
    ) -> None:
        """Write a picture, or several of as many `slices`."""
        several = pixels.ndim == FRAMES
        source = Source.read(sheet.header_file)
        kind = MULTI_FRAME if several else SECONDARY_CAPTURE
        ds = derive(source, sheet.record, kind, self.name, slices=slices)
        _describe(ds, sheet, pixels)
        describe_aspect(ds, source)
        if several and slices is not None:
            describe_frames(ds, [sheet.pages[each] for each in slices])
        if features := source.text("RecognizableVisualFeatures"):
            ds.RecognizableVisualFeatures = features  # the source's pixels are in the picture
        inherit_loss(ds, source, sheet.record)
        place = None
        if slices is not None and not several:
            place = (sheet.record.number - 1) * sheet.shape[0] + sheet.pages[slices[0]]
        shown = np.array(slices or (), np.int64)
        finish(ds, sheet, self.name, digest(pixels.data, shown.data), number=place)
        save(ds, pixels, sheet.record.transfer_syntax, to)


def stacked(pictures: Sequence[Rgb]) -> Rgb:
    """Return pictures as frames of one size, shape ``(frames, rows, columns, 3)``."""
    rows = max(len(each) for each in pictures)
    frames = np.empty((len(pictures), rows, *pictures[0].shape[1:]), np.uint8)
    for frame, picture in zip(frames, pictures, strict=True):
        frame[: len(picture)] = picture
        frame[len(picture) :] = BACKGROUND
    return frames


def _describe(ds: Dataset, sheet: Sheet, pixels: Rgb) -> None:
    """Say what the pixels are and how they were made."""
    record = sheet.record
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.ConversionType = "WSD"
    ds.BurnedInAnnotation = "YES"
    ds.DerivationDescription = _derivation(sheet)
    if sheet.scale is not None and record.style == "overlay":
        ds.DerivationCodeSequence = [code(*BLENDED)]
    said = f"{record.method_title}: {record.target.label}. Not for diagnosis."
    ds.ImageComments = f"{record.mark}{said}"
    ds.SamplesPerPixel = 3
    ds.PhotometricInterpretation = "RGB"
    ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = pixels.shape[-3:-1]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.PixelRepresentation = 0
    ds.ICCProfile = srgb_profile()
    ds.ColorSpace = "SRGB"


def _derivation(sheet: Sheet) -> str:
    """Tell scale and layout beside what the map is."""
    facts, scale = sheet.record.facts, sheet.scale
    if scale is None:
        drawn = "nothing drawn in color"
    elif sheet.record.style == "contour":
        drawn = f"lines around relevance from {SHARE * scale.full:.6g}"
    else:
        alpha = f"alpha from 0 at {FAINT:.0%} of it to {OPAQUE / LEVELS:.2f}"
        drawn = f"full color at {scale.full:.6g}, {alpha}"
    shown = (
        f"{drawn}, over the source image of {facts.rows} x {facts.columns} pixels at the top"
        " left; legend added."
    )
    return derivation(sheet.record, shown)


@cache
def srgb_profile() -> bytes:
    """Return an sRGB ICC profile, the same bytes at every time."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes((7, 232, 0, 1, 0, 1)) + bytes(6)  # dated 1 January 2024
    profile[84:100] = bytes(16)  # the profile's own digest, if any, is of other bytes
    return bytes(profile)
