"""The salient region as a binary Segmentation: where the evidence is strongest."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from typing_extensions import override

from service.errors.studies import FormatNotApplicable
from workers.drawing.region import SHARE, Region
from workers.formats.base import FORMATS, Format
from workers.formats.derived import (
    WITHIN,
    Source,
    derivation,
    derive,
    digest,
    finish,
    inherit_loss,
    tracking,
)
from workers.formats.enhanced import adopt, named_image, originals, slices_of
from workers.formats.pixeldata import describe_aspect
from workers.formats.plane import Plane, planes_of
from workers.formats.scheme import describe_scheme, own, plain
from workers.formats.sheet import Sheet

SEGMENTATION: Final = "1.2.840.10008.5.1.4.1.1.66.4"
RELATION: Final = CodedConcept("309825002", "SCT", "Spatial and Relational Concept")


@FORMATS.register("dicom_seg")
class DicomSeg(Format):
    """One binary segment: pixels whose relevance reaches half of full strength (PS3.3 A.51).

    The segment is a region of the map, not of the finding, and is coded so.
    The threshold is told in the segment's description. A map without evidence,
    or with evidence too faint beside the model's usual maps, has no region.
    """

    title = "Salient region as DICOM Segmentation"
    media_type = "application/dicom"
    extension = "seg.dcm"

    @override
    def write(self, sheet: Sheet, to: Path) -> None:
        region = sheet.region
        if region is None or region.pixels == 0:
            raise FormatNotApplicable(
                "No pixel's evidence reaches half of full strength, so there is no region to"
                " segment.",
                reason="empty_region",
                alternatives=["json", "npz", "npy"],
            )
        source = Source.read(sheet.header_file)
        planes = _thick(planes_of(source, sheet.record))
        if sheet.record.volume is not None and not planes:
            raise FormatNotApplicable(
                "A segmentation of several slices needs a valid Frame of Reference UID; these"
                " have none.",
                reason="no_plane_in_patient",
                alternatives=["dicom_sc_word", "npz", "nifti", "npy"],
            )
        ds = derive(
            source, sheet.record, SEGMENTATION, self.name, title="AI salient region", place=4
        )
        del ds.Modality
        if "Laterality" in ds:  # segments tell of anatomy by code
            del ds.Laterality
        describe_scheme(ds, sheet.record.software)
        ds.DerivationDescription = derivation(sheet.record, _rule(region))
        finish(ds, sheet, self.name, digest(np.packbits(region.mask).data))
        slices = slices_of(source, sheet.record)
        seen = originals(source, ds, sheet, slices, planes)
        made = _segmentation(seen.images, ds, sheet, region, planes)
        if not planes:  # else it has the source's spacing
            describe_aspect(made, source)
        inherit_loss(made, source, sheet.record)
        adopt(made, ds, seen).save_as(to, enforce_file_format=True)


def _thick(planes: tuple[Plane, ...]) -> tuple[Plane, ...]:
    """Return planes of known thickness, without which a segmentation has no place."""
    return () if any(plane.thickness is None for plane in planes) else planes


def _rule(region: Region) -> str:
    """Say which pixels are inside (ST)."""
    return (
        f"pixels whose relevance is at least {region.threshold:.6g}, {SHARE:.0%} of full strength;"
        " not an outline of the finding."
    )


def _segmentation(
    images: Sequence[Dataset], ds: Dataset, sheet: Sheet, region: Region, planes: Sequence[Plane]
) -> Segmentation:
    """Have highdicom pack the bits and lay out the functional groups."""
    return Segmentation(
        images,
        region.mask,
        "BINARY",
        [_segment(sheet, region)],
        content_label="SALIENT_REGION",
        **named_image(ds, sheet, planes),
    )


def _segment(sheet: Sheet, region: Region) -> SegmentDescription:
    record = sheet.record
    tracking_id, tracking_uid = tracking(record)
    segment = SegmentDescription(
        segment_number=1,
        segment_label=plain(f"{record.tag}Salient for {record.target.label}"),
        segmented_property_category=RELATION,
        segmented_property_type=own("salient_region", "Salient region of an attribution map"),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=plain(record.method_title),
            family=codes.cid7162.ArtificialIntelligence,
            version=record.software,
            source="Whylight",
        ),
        tracking_id=tracking_id,
        tracking_uid=tracking_uid,
    )
    within = "" if record.restriction is None else f" {WITHIN}"
    segment.SegmentDescription = (
        f"{record.mark}Region of {record.method_title}: {_rule(region)}{within}"
    )
    return segment
