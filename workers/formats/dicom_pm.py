"""The raw map as a Parametric Map: floating-point relevance in the patient's own space."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import highdicom
import numpy as np
from highdicom.pm import ParametricMap, RealWorldValueMapping
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from typing_extensions import override

from service.errors.studies import FormatNotApplicable
from workers.formats.base import FORMATS, Format
from workers.formats.derived import Source, derivation, derive, digest, finish, inherit_loss
from workers.formats.enhanced import adopt, named_image, originals, repeat, slices_of
from workers.formats.pixeldata import save_floats
from workers.formats.plane import Plane, planes_of
from workers.formats.scheme import describe_scheme, own, plain
from workers.formats.sheet import Sheet

PARAMETRIC_MAP: Final = "1.2.840.10008.5.1.4.1.1.30"


@FORMATS.register("dicom_pm")
class DicomPm(Format):
    """Float32 relevance of each source pixel, with its real-world meaning (PS3.3 A.75).

    Only an image with a place in the patient can have one: the standard wants
    a frame of reference, and none is made up.
    """

    title = "Raw map as DICOM Parametric Map"
    media_type = "application/dicom"
    extension = "pm.dcm"

    @override
    def write(self, sheet: Sheet, to: Path) -> None:
        source = Source.read(sheet.header_file)
        planes = planes_of(source, sheet.record)
        if not planes:
            raise FormatNotApplicable(
                "A Parametric Map needs images with a frame of reference, position, orientation"
                " and pixel spacing; these lack them, or say them in an invalid form. Ask for a"
                " 16-bit capture or an array.",
                reason="no_plane_in_patient",
                alternatives=["dicom_sc_word", "npz", "nifti", "npy"],
            )
        ds = derive(source, sheet.record, PARAMETRIC_MAP, self.name, title="AI map", place=3)
        describe_scheme(ds, sheet.record.software)
        how = "relevance of each source pixel, interpolated linearly between the map's cells."
        ds.DerivationDescription = derivation(sheet.record, how)
        finish(ds, sheet, self.name, digest(sheet.source_relevance.data))
        slices = slices_of(source, sheet.record)
        seen = originals(source, ds, sheet, slices[:1], planes[:1])
        made = adopt(_map(seen.images[0], ds, sheet, planes), ds, seen)
        order = repeat(made, slices, planes)
        del made.FloatPixelData
        made.Rows, made.Columns = sheet.shape[-2:]
        inherit_loss(made, source, sheet.record)
        frames = sheet.source_relevance.reshape(-1, *sheet.shape[-2:])
        save_floats(made, [frames[number] for number in order], to)


def _map(image: Dataset, ds: Dataset, sheet: Sheet, planes: Sequence[Plane]) -> ParametricMap:
    """Have highdicom lay out the functional groups around an image of a single pixel."""
    image.Rows = image.Columns = 1
    low, high = sheet.window
    return ParametricMap(
        [image],
        np.zeros((1, 1, 1), np.float32),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[_meaning(sheet)],
        voi_lut_transformations=[
            highdicom.VOILUTTransformation(
                window_center=(low + high) / 2,
                window_width=high - low,
                voi_lut_function="LINEAR_EXACT",
            )
        ],
        content_label="HEATMAP",
        **named_image(ds, sheet, planes),
    )


def _meaning(sheet: Sheet) -> RealWorldValueMapping:
    """Say that stored values are relevance, as they stand."""
    values = sheet.source_relevance
    return RealWorldValueMapping(
        lut_label="relevance",
        lut_explanation=plain(f"Relevance for {sheet.record.target.label}"),
        unit=codes.UCUM.NoUnits,
        value_range=(float(values.min()), float(values.max())),
        slope=1.0,
        intercept=0.0,
        quantity_definition=own("relevance", "Relevance of a pixel for the score of a class"),
    )
