import io

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_array_equal

from service.domain.grid import Grid
from tests.support.sheets import blob
from workers.drawing.resample import to_source

NATIVE = blob((12, 10))
SIGNED = blob((12, 10), signed=True)
PLACED = {
    "FrameOfReferenceUID": "2.25.4",
    "ImagePositionPatient": [0, 0, 0],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "PixelSpacing": [0.5, 0.5],
    "SliceThickness": "3",
}


@pytest.fixture
def made(written):
    def of(**changes):
        return pydicom.dcmread(io.BytesIO(written("dicom_seg", **changes)))

    return of


@pytest.mark.parametrize("signed", [False, True])
def test_the_segment_is_what_reaches_half_of_full_strength(made, signed):
    values = SIGNED if signed else NATIVE
    fine = to_source(values, Grid.partition((12, 10), (600, 500)), (600, 500))[0]
    ds = made(values=values, signed=signed)
    threshold = np.float32(0.5 * np.abs(values).max())
    assert_array_equal(ds.pixel_array.astype(bool), fine >= threshold)
    assert f"{threshold:.6g}" in ds.SegmentSequence[0].SegmentDescription
    assert f"{threshold:.6g}" in ds.DerivationDescription


def test_full_strength_is_the_models_usual_where_it_is_known(made):
    usual = made(reference=float(NATIVE.max()) * 1.5).pixel_array
    own = made().pixel_array
    assert 0 < usual.sum() < own.sum()


@pytest.mark.parametrize(
    ("values", "changes"),
    [
        (np.zeros((1, 4, 4), np.float32), {"degenerate": True}),
        (-NATIVE, {"signed": True}),
        (NATIVE, {"reference": 100.0}),
    ],
    ids=["degenerate", "all against", "faint"],
)
def test_an_empty_region_is_told_and_not_segmented(written, values, changes):
    reason = written("dicom_seg", values=values, **changes)
    assert reason.facts["reason"] == "empty_region"


def test_the_segment_is_coded_as_the_maps_and_not_as_the_finding(made):
    (segment,) = made().SegmentSequence
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "salient_region"
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmName == "Grad-CAM"
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
    assert segment.TrackingUID.startswith("2.25.")


def test_a_projection_has_no_frame_of_reference_and_a_slice_keeps_its_own(made):
    assert "FrameOfReferenceUID" not in made()
    assert made(elements=PLACED).FrameOfReferenceUID == "2.25.4"
    assert "FrameOfReferenceUID" not in made(elements={**PLACED, "SliceThickness": ""})


@pytest.mark.parametrize(
    "kind", ["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.6", "2.25.77"]
)
def test_a_source_of_any_kind_is_referred_to_as_what_it_is(made, kind):
    ds = made(elements={"SOPClassUID": kind})
    (derivation,) = ds.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence
    assert derivation.SourceImageSequence[0].ReferencedSOPClassUID == kind
    assert ds.SourceImageSequence[0].ReferencedSOPClassUID == kind


def test_the_same_question_gives_the_same_bytes(written):
    assert written("dicom_seg", elements=PLACED) == written("dicom_seg", elements=PLACED)
