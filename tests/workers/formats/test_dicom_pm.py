import io

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_array_equal
from pydicom import config
from pydicom.valuerep import DSfloat

from service.domain.grid import Grid
from tests.support.sheets import blob
from workers.drawing.resample import to_source

NATIVE = blob((12, 10), signed=True)
PLACED = {
    "FrameOfReferenceUID": "2.25.4",
    "ImagePositionPatient": [-12.5, -100, 80],
    "ImageOrientationPatient": [0, 1, 0, 0, 0, -1],
    "PixelSpacing": [0.5, 0.25],
}


@pytest.fixture
def made(written):
    def of(elements=PLACED, **changes):
        data = written("dicom_pm", values=NATIVE, elements=elements, signed=True, **changes)
        return pydicom.dcmread(io.BytesIO(data))

    return of


def test_stored_values_are_relevance_to_the_bit(made):
    expected = to_source(NATIVE, Grid.partition((12, 10), (600, 500)), (600, 500))[0]
    ds = made()
    assert_array_equal(ds.pixel_array, expected)
    (mapping,) = ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert mapping.DoubleFloatRealWorldValueFirstValueMapped == expected.min()
    assert mapping.DoubleFloatRealWorldValueLastValueMapped == expected.max()
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("degenerate", [True, False])
def test_its_window_is_that_of_the_capture_of_the_same_map(written, signed, degenerate):
    """Up to full strength; of what rounding left of a map without evidence, not that."""
    values = blob((12, 10), signed=signed) * np.float32(4e-8 if degenerate else 4)
    changes = {"values": values, "signed": signed, "degenerate": degenerate}
    both = [
        pydicom.dcmread(io.BytesIO(written(name, elements=PLACED, **changes)))
        for name in ("dicom_pm", "dicom_sc_word")
    ]
    (of_map,) = both[0].SharedFunctionalGroupsSequence[0].FrameVOILUTSequence
    for each in (of_map, both[1]):
        full = 1 if degenerate else np.abs(values).max()
        low = -full if signed else 0
        assert float(each.WindowCenter) == pytest.approx((low + full) / 2, abs=1e-6)
        assert float(each.WindowWidth) == pytest.approx(full - low, rel=1e-6)


def test_it_lies_where_its_source_lies(made):
    ds = made()
    assert ds.FrameOfReferenceUID == "2.25.4"
    shared, frame = ds.SharedFunctionalGroupsSequence[0], ds.PerFrameFunctionalGroupsSequence[0]
    assert list(frame.PlanePositionSequence[0].ImagePositionPatient) == [-12.5, -100, 80]
    directions = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    assert list(directions) == [0, 1, 0, 0, 0, -1]
    (measures,) = shared.PixelMeasuresSequence
    assert list(measures.PixelSpacing) == [0.5, 0.25]
    assert "SpacingBetweenSlices" not in measures  # the source names none
    assert "SliceThickness" not in made(elements=PLACED).SharedFunctionalGroupsSequence[0]


def test_more_digits_than_may_be_are_rounded(made, monkeypatch):
    monkeypatch.setattr(config.settings, "writing_validation_mode", config.IGNORE)
    long = "-12.50000000000000012345"
    ds = made(
        elements={**PLACED, "ImagePositionPatient": [DSfloat(long, False, config.IGNORE)] * 3}
    )
    frame = ds.PerFrameFunctionalGroupsSequence[0]
    assert list(frame.PlanePositionSequence[0].ImagePositionPatient) == [-12.5] * 3


def test_it_says_what_it_is(made):
    ds = made()
    assert ds.SOPClassUID.name == "Parametric Map Storage"
    assert (ds.ContentLabel, ds.ContentQualification) == ("HEATMAP", "RESEARCH")
    assert list(ds.ImageType)[:2] == ["DERIVED", "PRIMARY"]
    assert ds.Manufacturer == "Whylight"
    assert ds.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99WHYLIGHT"
    assert (ds.PatientID, ds.StudyInstanceUID) == ("CANARY-1", "2.25.3")
    assert ds.ContentTime == "085320.123000"


def test_the_same_question_gives_the_same_bytes(written):
    once, again = (written("dicom_pm", elements=PLACED) for _ in range(2))
    assert once == again


@pytest.mark.parametrize("missing", ["FrameOfReferenceUID", "ImagePositionPatient", "PixelSpacing"])
def test_without_a_place_in_the_patient_there_is_none_and_others_are_named(written, missing):
    reason = written("dicom_pm", elements={**PLACED, missing: ""})
    assert reason.code == "format_not_applicable"
    assert reason.facts["reason"] == "no_plane_in_patient"
    assert "dicom_sc_word" in reason.facts["alternatives"]


def test_loss_is_inherited(made):
    lossy = made(elements={**PLACED, "LossyImageCompression": "01"})
    assert lossy.LossyImageCompression == "01"
