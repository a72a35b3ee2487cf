"""One explanation as a structured report: the numbers and words, tied to the images."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ComprehensiveSR,
    ContentItem,
    ImageContentItem,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    ReferencedSegment,
    ReferencedSegmentationFrame,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID
from typing_extensions import override

from workers.formats.base import FORMATS, Format
from workers.formats.derived import Source, derive, digest, finish, tracking
from workers.formats.enhanced import adopt, documented, named, ourselves, strip
from workers.formats.plane import Plane, planes_of
from workers.formats.record import EARLY, MapRecord
from workers.formats.scheme import describe_scheme, finding_of, own, plain
from workers.formats.sheet import Made, Sheet
from workers.formats.statements import evaluations, measurements, sentences

COMPREHENSIVE_SR: Final = "1.2.840.10008.5.1.4.1.1.88.33"
IMAGING: Final = CodedConcept("363679005", "SCT", "Imaging procedure")
ILLUSTRATION: Final = CodedConcept("121080", "DCM", "Best illustration of finding")
MEASURED: Final = CodedConcept("121112", "DCM", "Source of Measurement")
COMMENT: Final = CodedConcept("121106", "DCM", "Comment")
SHOWN_BY: Final = {
    "dicom_sc": ILLUSTRATION,
    "dicom_sc_word": MEASURED,
    "dicom_pm": MEASURED,
}
"""What the objects made beside the report are to it; the segmentation is its region."""

Group = (
    MeasurementsAndQualitativeEvaluations
    | PlanarROIMeasurementsAndQualitativeEvaluations
    | VolumetricROIMeasurementsAndQualitativeEvaluations
)
"""Measurements of images (TID 1501), of a region of one (TID 1410), of a volume (TID 1411)."""


@FORMATS.register("dicom_sr")
class DicomSr(Format):
    """Comprehensive SR by template TID 1500, with one measurement group.

    The finding is coded as the model's manifest codes it. The group holds
    score, peak, salient region, checks and certificate as numbers, grade,
    certificate, parity and cautions as codes, the algorithm once, and refers
    to the source image and to the objects made of the same map in this job.
    Nobody has verified it, and it says so.
    """

    title = "Explanation as DICOM Structured Report"
    media_type = "application/dicom"
    extension = "sr.dcm"
    last = True

    @override
    def write(self, sheet: Sheet, to: Path) -> None:
        source, beside = Source.read(sheet.header_file), tuple(sheet.made)
        ds = derive(
            source,
            sheet.record,
            COMPREHENSIVE_SR,
            self.name,
            title="AI explanation report",
            place=5,
        )
        strip(ds)
        describe_scheme(ds, sheet.record.software)
        seen = documented(source, ds, sheet)
        report = _report(sheet, seen.images, planes_of(source, sheet.record), beside)
        said = report[0].to_json(suppress_invalid_tags=True).encode()
        finish(ds, sheet, self.name, digest(said))
        document = ComprehensiveSR(
            [*seen.images, *(_evidence(ds, each) for each in beside)],
            report,
            **named(ds),
            is_complete=not sheet.record.partial,
        )
        if sheet.record.partial:
            document.CompletionFlagDescription = EARLY
        adopt(document, ds, seen).save_as(to, enforce_file_format=True)


def _report(
    sheet: Sheet, images: Sequence[Dataset], planes: Sequence[Plane], beside: Sequence[Made]
) -> MeasurementReport:
    """Return the content tree."""
    observer = ourselves(sheet.record)
    group = _group(sheet, images, planes, beside)
    group[0].ContentSequence.extend(_peak(sheet, images))
    group[0].ContentSequence.extend(_beside(sheet.record, beside))
    return MeasurementReport(ObservationContext(observer_device_context=observer), IMAGING, [group])


def _group(
    sheet: Sheet, images: Sequence[Dataset], planes: Sequence[Plane], beside: Sequence[Made]
) -> Group:
    """Return the measurement group; of the segmented region, where that was made as well."""
    name, uid = tracking(sheet.record)
    said: dict[str, Any] = {
        "tracking_identifier": TrackingIdentifier(UID(uid), name),
        "finding_type": finding_of(sheet.record),
        "algorithm_id": _algorithm(sheet.record),
        "measurements": measurements(sheet, planes),
        "qualitative_evaluations": evaluations(sheet.record),
    }
    segmented = next((each for each in beside if each.format == "dicom_seg"), None)
    explained = [(each.SOPClassUID, each.SOPInstanceUID) for each in images]
    if segmented is None:
        return MeasurementsAndQualitativeEvaluations(
            source_images=[SourceImageForMeasurementGroup(*each) for each in explained], **said
        )
    if sheet.record.volume is not None:
        segment = ReferencedSegment(
            segmented.sop_class_uid,
            segmented.sop_instance_uid,
            segment_number=1,
            source_images=[SourceImageForSegmentation(*each) for each in explained],
        )
        return VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=segment, **said
        )
    region = ReferencedSegmentationFrame(
        segmented.sop_class_uid,
        segmented.sop_instance_uid,
        frame_number=1,
        segment_number=1,
        source_image=SourceImageForSegmentation(*explained[0]),
    )
    # The segment says it all; PS3.3 C.18.4 wants segment or frame numbers, never both.
    del region[0].ReferencedSOPSequence[0].ReferencedFrameNumber
    return PlanarROIMeasurementsAndQualitativeEvaluations(referenced_segment=region, **said)


def _algorithm(record: MapRecord) -> AlgorithmIdentification:
    """Name the method, its parameters and, to the byte, the model that it explains."""
    model = [
        f"model={record.model.name}@{record.model.version}",
        f"model package sha256={record.model.package}",
        f"model {record.model.weights_in_words}",
    ]
    return AlgorithmIdentification(
        name=plain(record.method_title),
        version=record.software,
        parameters=[*model, *record.settings],
        family=codes.cid7162.ArtificialIntelligence,
        manufacturer="Whylight",
    )


def _peak(sheet: Sheet, images: Sequence[Dataset]) -> Iterator[ContentItem]:
    """Yield a reference to the slice of the peak, of a volume."""
    peak = sheet.peak_image
    if peak is None:
        return
    seen = next(each for each in images if each.SOPInstanceUID == peak.sop_instance_uid)
    yield ImageContentItem(
        own("peak_image", "Source image of the peak"),
        seen.SOPClassUID,
        seen.SOPInstanceUID,
        referenced_frame_numbers=None if peak.frame is None else [peak.frame],
        relationship_type=RelationshipTypeValues.CONTAINS,
    )


def _beside(record: MapRecord, beside: Sequence[Made]) -> Iterator[ContentItem]:
    """Yield references to what was made of the same map, and the sentences."""
    for each in beside:
        if each.format in SHOWN_BY:
            yield ImageContentItem(
                SHOWN_BY[each.format],
                each.sop_class_uid,
                each.sop_instance_uid,
                relationship_type=RelationshipTypeValues.CONTAINS,
            )
    yield TextContentItem(
        COMMENT, sentences(record), relationship_type=RelationshipTypeValues.CONTAINS
    )


def _evidence(ds: Dataset, made: Made) -> Dataset:
    """Return an object of this job as evidence, which is known by its identifiers."""
    evidence = Dataset()
    evidence.StudyInstanceUID = ds.StudyInstanceUID
    evidence.SOPClassUID = UID(made.sop_class_uid)
    evidence.SOPInstanceUID = UID(made.sop_instance_uid)
    evidence.SeriesInstanceUID = UID(made.series_instance_uid)
    return evidence
