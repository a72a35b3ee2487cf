"""Standardized uptake: by the formula where the image says all, else not at all."""

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from service.dicom.dataset import parsed
from tests.support import corpus
from workers.pixels.uptake import uptake_scale


def pet(tracer=None, **changes):
    """A PET image 90 minutes after injection of 370 MBq; `None` deletes an element."""
    ds, given = Dataset(), Dataset()
    known = {
        "Modality": "PT",
        "Units": "BQML",
        "CorrectedImage": ["DECY", "ATTN", "SCAT"],
        "DecayCorrection": "START",
        "PatientWeight": "70",
        "SeriesDate": "20240102",
        "SeriesTime": "103000",
        "AcquisitionDate": "20240102",
        "AcquisitionTime": "103500.5",
    }
    injection = {
        "RadionuclideTotalDose": "370000000",
        "RadionuclideHalfLife": "6586.2",
        "RadiopharmaceuticalStartTime": "090000",
    }
    for target, elements in ((ds, known | changes), (given, injection | (tracer or {}))):
        for keyword, value in elements.items():
            if value is not None:
                setattr(target, keyword, value)
    ds.RadiopharmaceuticalInformationSequence = Sequence([given])
    return ds


FORMULA = 70_000 / (370e6 * 0.5 ** (5400 / 6586.2))


@pytest.mark.parametrize(
    ("ds", "scale"),
    [
        (pet(), FORMULA),
        (pet({"RadiopharmaceuticalStartDateTime": "20240102090000"}), FORMULA),
        (
            pet(
                {"RadiopharmaceuticalStartDateTime": "20240101233000"},
                SeriesTime="010000",
                AcquisitionTime="010000",
            ),
            FORMULA,
        ),
        (pet(DecayCorrection="ADMIN"), 70_000 / 370e6),
        (pet(Units="GML"), 1.0),
    ],
    ids=["time", "date and time", "over midnight", "corrected to injection", "is SUV already"],
)
def test_the_scale_is_weight_over_decayed_dose(ds, scale):
    assert uptake_scale(ds) == pytest.approx(scale, rel=1e-12)


@pytest.mark.parametrize(
    ("injected", "zone"),
    [
        ("20240102090000", None),
        ("20240102090000", "local"),
        ("20240102090000", "+0200"),
        ("20240102090000+0200", "+0200"),
        ("20240102070000+0000", "+0200"),
        ("202401012230-0830", "+0200"),
        ("20240102123000.00+0530", "+0200"),
        ("20240102100000+0000", "-0100"),
    ],
)
def test_one_moment_gives_one_scale_however_its_offset_is_written(injected, zone):
    ds = pet({"RadiopharmaceuticalStartDateTime": injected}, TimezoneOffsetFromUTC=zone)
    assert uptake_scale(ds) == pytest.approx(FORMULA, rel=1e-12)


@pytest.mark.parametrize(
    "ds",
    [
        pet(Modality="NM"),
        pet(Units="CNTS"),
        pet(Units="GML", SUVType="LBM"),
        pet(CorrectedImage=["DECY"]),
        pet(CorrectedImage=None),
        pet(DecayCorrection="NONE"),
        pet(PatientWeight=None),
        pet(PatientWeight="0"),
        pet(SeriesTime="120000"),
        pet(SeriesTime="noon"),
        pet(AcquisitionDate=None),
        pet({"RadionuclideTotalDose": None}),
        pet({"RadionuclideHalfLife": "0"}),
        pet({"RadiopharmaceuticalStartTime": None}),
        pet({"RadiopharmaceuticalStartTime": "110000"}),
        pet({"RadiopharmaceuticalStartDateTime": "20230102090000"}),
        pet({"RadiopharmaceuticalStartDateTime": "20240102090000+0000"}),
        pet({"RadiopharmaceuticalStartDateTime": "20240102090000+0000"}, TimezoneOffsetFromUTC="?"),
        pet(
            {"RadiopharmaceuticalStartDateTime": "20240102090000 +0000"},
            TimezoneOffsetFromUTC="+0000",
        ),
        pet({"RadiopharmaceuticalStartDateTime": "20240102"}),
        pet({"RadiopharmaceuticalStartDateTime": "2024010209"}),
        pet({"RadiopharmaceuticalStartTime": "09"}),
        pet(TimezoneOffsetFromUTC="+0000", SeriesTime="10"),
    ],
)
def test_what_is_not_said_is_not_assumed(ds):
    assert uptake_scale(ds) is None


@pytest.mark.parametrize(
    "ds",
    [
        pet({"RadionuclideTotalDose": "370"}),
        pet({"RadionuclideTotalDose": "370000"}),
        pet({"RadionuclideTotalDose": "10"}),
        pet({"RadionuclideTotalDose": "370000000000"}),
        pet({"RadionuclideHalfLife": "109.77"}),
        pet({"RadionuclideHalfLife": "109.77", "RadiopharmaceuticalStartTime": "102900"}),
        pet({"RadionuclideHalfLife": "67.7", "RadiopharmaceuticalStartTime": "102900"}),
        pet({"RadionuclideHalfLife": "762", "RadiopharmaceuticalStartTime": "102900"}),
        pet({"RadionuclideHalfLife": "1.83"}, DecayCorrection="ADMIN"),
        pet({"RadionuclideHalfLife": "122.24"}),
        pet(PatientWeight="70000"),
        pet(PatientWeight="0.07"),
    ],
)
def test_what_is_of_another_unit_is_not_taken_for_becquerels_seconds_or_kilograms(ds):
    """MBq, kBq, mCi; minutes of F-18, Ga-68, Cu-64, hours; 44 half-lives; grams, tonnes."""
    assert uptake_scale(ds) is None


@pytest.mark.parametrize(
    ("dose", "half_life", "minutes"),
    [
        (740e6, 597.9, 8),
        (1.5e9, 122.24, 2),
        (1.1e9, 75.45, 1),
        (1.1e9, 76.38, 1),
        (600e6, 1223.4, 20),
        (150e6, 4062.6, 30),
        (37e6, 282276, 30),
        (14e6, 6586.2, 30),
    ],
    ids=["N-13", "O-15", "Rb-82", "older Rb-82", "C-11", "Ga-68", "Zr-89", "a child's F-18"],
)
def test_doses_and_half_lives_in_use_are_taken(dose, half_life, minutes):
    injected = {
        "RadionuclideTotalDose": f"{dose:.0f}",
        "RadionuclideHalfLife": str(half_life),
        "RadiopharmaceuticalStartTime": "100000",
    }
    ds = pet(injected, SeriesTime=f"10{minutes:02}00", PatientWeight="3.5")
    expected = 3500 / (dose * 0.5 ** (minutes * 60 / half_life))
    assert uptake_scale(ds) == pytest.approx(expected, rel=1e-12)


@pytest.mark.skipif(not corpus.FOLDER, reason=corpus.REASON)
def test_a_real_series_dated_at_its_start_has_a_scale():
    with parsed(corpus.find("Test_Data/GH184.dcm"), max_samples=corpus.LIMIT) as found:
        waited = (11 - 9) * 3600 + (0 - 32) * 60 + 36
        expected = 90_000 / (474592928 * 0.5 ** (waited / 6588))
        assert uptake_scale(found.dataset) == pytest.approx(expected, rel=1e-9)
