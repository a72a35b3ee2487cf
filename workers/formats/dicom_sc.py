"""The picture as a DICOM Secondary Capture: what any PACS files beside the study."""

import hashlib
import struct
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ImageCms
from pydicom.dataset import Dataset
from typing_extensions import override

from service.dicom import syntaxes
from workers.formats.base import FORMATS, Format, MapRecord, Sheet
from workers.formats.derived import Source, derive, finish

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
LOSSY = "01"


@FORMATS.register("dicom_sc")
class DicomSc(Format):
    """True-color single-frame Secondary Capture, uncompressed RGB (PS3.3 A.8.1).

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
        _inherit_loss(ds, source, sheet.record)
        finish(ds, sheet.record, hashlib.sha256(sheet.picture.data).hexdigest())
        ds.save_as(to, enforce_file_format=True)
        append_pixels(to, sheet.picture)


def append_pixels(file: Path, pixels: NDArray[np.uint8]) -> None:
    """Append the Pixel Data element, which comes last, without copying it first."""
    length = pixels.nbytes + pixels.nbytes % 2
    with file.open("ab") as stream:
        stream.write(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, length))
        stream.write(pixels.data)
        stream.write(b"\0" * (pixels.nbytes % 2))


def _describe(ds: Dataset, sheet: Sheet) -> None:
    """Say what the pixels are and how they were made."""
    record = sheet.record
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.ConversionType = "WSD"
    ds.BurnedInAnnotation = "YES"
    ds.DerivationDescription = _derivation(sheet)
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
    """Tell method, model, target, scale and layout (ST, at most 1024 characters)."""
    record, scale = sheet.record, sheet.scale
    parameters = ", ".join(f"{name}={value}" for name, value in sorted(record.parameters.items()))
    drawn = "nothing drawn in color" if scale is None else f"full color at {scale.full:.6g}"
    return (
        f"Attribution map of {record.method} ({parameters or 'defaults'}) for target"
        f" {record.target.key} of model {record.model.name}@{record.model.version}"
        f" (package sha256 {record.model.package}), {drawn}, over the source image of"
        f" {record.facts.rows} x {record.facts.columns} pixels at the top left; legend added."
    )[:1024]


def _inherit_loss(ds: Dataset, source: Source, record: MapRecord) -> None:
    """Carry on that the pixels once lost something; never claim that they did not."""
    if not record.facts.lossy:
        return
    ds.LossyImageCompression = LOSSY
    if ratios := source.values("LossyImageCompressionRatio"):
        ds.LossyImageCompressionRatio = ratios
    by_syntax = syntaxes.LOSSY_METHODS.get(syntaxes.FAMILIES[source.transfer_syntax_uid])
    if methods := source.values("LossyImageCompressionMethod") or by_syntax:
        ds.LossyImageCompressionMethod = methods


@cache
def srgb_profile() -> bytes:
    """Return an sRGB ICC profile, the same bytes at every time."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes((7, 232, 0, 1, 0, 1)) + bytes(6)  # dated 1 January 2024
    profile[84:100] = bytes(16)  # the profile's own digest, if any, is of other bytes
    return bytes(profile)
