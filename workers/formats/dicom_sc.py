"""The picture as a DICOM Secondary Capture: what any PACS files beside the study."""

from functools import cache
from pathlib import Path

from PIL import ImageCms
from pydicom.dataset import Dataset
from typing_extensions import override

from workers.drawing.palettes import FAINT, LEVELS, OPAQUE
from workers.drawing.region import SHARE
from workers.formats.base import FORMATS, Format, Sheet
from workers.formats.derived import Source, code, derivation, derive, digest, finish, inherit_loss
from workers.formats.pixeldata import save

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
BLENDED = ("113042", "Pixel by pixel addition")
"""Image Derivation (PS3.16 CID 7203): gray and color are added pixel by pixel, by their weights."""


@FORMATS.register("dicom_sc")
class DicomSc(Format):
    """True-color single-frame Secondary Capture, RGB (PS3.3 A.8.1).

    The source image fills the top left corner pixel by pixel; the legend is
    burned in below or beside it, which Burned In Annotation tells. Pixel
    spacing is left out: a capture must not be measured on.
    """

    title = "Overlay as DICOM Secondary Capture"
    media_type = "application/dicom"
    extension = "dcm"

    @override
    def write(self, sheet: Sheet, to: Path) -> None:
        source = Source.read(sheet.header_file)
        ds = derive(source, sheet.record, SECONDARY_CAPTURE, self.name)
        _describe(ds, sheet)
        if features := source.text("RecognizableVisualFeatures"):
            ds.RecognizableVisualFeatures = features  # the source's pixels are in the picture
        inherit_loss(ds, source, sheet.record)
        finish(ds, sheet, self.name, digest(sheet.picture.data))
        save(ds, sheet.picture, sheet.record.transfer_syntax, to)


def _describe(ds: Dataset, sheet: Sheet) -> None:
    """Say what the pixels are and how they were made."""
    record = sheet.record
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.ConversionType = "WSD"
    ds.BurnedInAnnotation = "YES"
    ds.DerivationDescription = _derivation(sheet)
    if sheet.scale is not None and record.style == "overlay":
        ds.DerivationCodeSequence = [code(*BLENDED)]
    ds.ImageComments = f"{record.method_title}: {record.target.label}. Not for diagnosis."
    ds.SamplesPerPixel = 3
    ds.PhotometricInterpretation = "RGB"
    ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = sheet.picture.shape[:2]
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
