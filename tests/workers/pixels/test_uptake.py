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


@pytest.mark.skipif(not corpus.FOLDER, reason=corpus.REASON)
def test_a_real_series_dated_at_its_start_has_a_scale():
    with parsed(corpus.find("Test_Data/GH184.dcm"), max_samples=corpus.LIMIT) as found:
        waited = (11 - 9) * 3600 + (0 - 32) * 60 + 36
        expected = 90_000 / (474592928 * 0.5 ** (waited / 6588))
        assert uptake_scale(found.dataset) == pytest.approx(expected, rel=1e-9)
