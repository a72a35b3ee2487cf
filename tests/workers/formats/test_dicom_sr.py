import io

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from service.domain.certificate import Similarity
from service.domain.explanation import Check
from service.domain.grid import Grid, scaling
from service.domain.outputs import Code
from service.domain.trust import CertificateRef, Flag, Grade, TrustReport, statements
from tests.support.sheets import TARGET, blob, sheet
from workers.sheets import write

NATIVE = blob((12, 10))
EFFUSION = Code(system="SCT", value="60046008", meaning="Pleural effusion")
BANK = Check(
    name="probe_bank",
    version=1,
    outcome="pass",
    values={"r": 0.61, "p": 0.008},
    passes=25,
    meaning="It does.",
)
TRUST = TrustReport(
    grade=Grade.WEAK,
    flags=(Flag.DEPENDS_OUTSIDE_EXPECTED_REGION,),
    statements=statements(Grade.WEAK, [Flag.DEPENDS_OUTSIDE_EXPECTED_REGION]),
    certificate=CertificateRef(
        outcome="passed",
        similarities={"all_random": Similarity(value=0.07, low=0.01, high=0.13, pairs=80)},
    ),
)
PLACED = {
    "FrameOfReferenceUID": "2.25.4",
    "ImagePositionPatient": [0, 0, 0],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "PixelSpacing": [0.5, 0.25],
}


@pytest.fixture
def made(source, tmp_path):
    """A function that writes the report beside other formats and returns all by format."""

    def of(*beside, elements=None, values=NATIVE, **changes) -> dict[str, Dataset]:
        drawn = sheet(source(**(elements or {})), tmp_path / "work", values, **changes)
        files, omitted = write(drawn, ["dicom_sr", *beside], tmp_path)
        assert not omitted
        return {artifact.format: pydicom.dcmread(file) for artifact, file in files}

    return of


def group(ds: Dataset) -> list[Dataset]:
    """The items of the one measurement group, found by code."""
    (measured,) = (each for each in ds.ContentSequence if concept(each) == "126010")
    (found,) = measured.ContentSequence
    assert concept(found) == "125007"
    return list(found.ContentSequence)


def concept(item: Dataset) -> str:
    name = item.ConceptNameCodeSequence[0]
    return name.get("CodeValue") or name.LongCodeValue


def numbers(ds: Dataset) -> dict[str, float]:
    return {
        concept(item): float(item.MeasuredValueSequence[0].NumericValue)
        for item in group(ds)
        if item.ValueType == "NUM"
    }


def words(ds: Dataset) -> dict[str, str]:
    return {
        concept(item): item.ConceptCodeSequence[0].get("CodeValue")
        or item.ConceptCodeSequence[0].LongCodeValue
        for item in group(ds)
        if item.ValueType == "CODE"
    }


def images(ds: Dataset) -> list[tuple[str, str]]:
    return [
        (concept(item), item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for item in group(ds)
        if item.ValueType == "IMAGE"
    ]


def test_the_finding_is_the_manifests_code(made):
    assert words(made(finding=EFFUSION)["dicom_sr"])["121071"] == "60046008"


def test_a_class_without_a_code_is_named_in_our_described_scheme(made):
    ds = made()["dicom_sr"]
    assert words(ds)["121071"] == "effusion"
    (scheme,) = ds.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "99WHYLIGHT"


def test_numbers_are_those_of_score_map_checks_and_certificate(made):
    found = numbers(made(checks=(BANK,), trust=TRUST, elements=PLACED)["dicom_sr"])
    assert (found["probability"], found["logit"], found["threshold"]) == (0.92, 2.5, 0.5)
    peak = np.unravel_index(NATIVE[0].argmax(), (12, 10))
    assert found["peak_relevance"] == pytest.approx(NATIVE.max())
    assert (found["peak_row"], found["peak_column"]) == (peak[0] * 50 + 24.5, peak[1] * 50 + 24.5)
    assert (found["cell_rows"], found["cell_columns"]) == (50, 50)
    assert (found["probe_bank_r"], found["probe_bank_p"]) == (0.61, 0.008)
    assert found["cert_all_random"] == 0.07
    assert found["region_area"] == pytest.approx(found["region_pixels"] * 0.125)


def test_what_is_told_of_a_letterboxed_map_is_of_the_image(made):
    grid = Grid((12, 10), scaling((50, 75), (24.5, -100.0)))  # a column beside it on each side
    values = NATIVE.copy()
    values[0, 5, 0] = 1.5
    files = made("dicom_seg", values=values, grid=grid, padding_share=0.4, elements=PLACED)
    found = numbers(files["dicom_sr"])
    inside = values[0, :, 1:9]
    row, column = np.unravel_index(inside.argmax(), inside.shape)
    assert found["peak_relevance"] == pytest.approx(inside.max())
    assert found["peak_row"] == row * 50 + 24.5
    assert found["peak_column"] == max(0, (column + 1) * 75 - 100)
    assert found["padding_share"] == pytest.approx(0.4)
    assert found["region_pixels"] == np.count_nonzero(files["dicom_seg"].pixel_array)
    assert not {"padding_share", "seen_share"} & set(numbers(made()["dicom_sr"]))


def test_a_crop_is_told(made):
    grid = Grid((12, 10), scaling((25, 25), (162.0, 137.0)))  # the middle
    assert numbers(made(grid=grid)["dicom_sr"])["seen_share"] == pytest.approx(0.25)


def test_the_box_of_a_detection_is_told_in_source_pixels(made):
    box = {"kind": "detection", "box": (10.0, 20.5, 30.0, 44.0), "overlap": 0.8}
    found = numbers(made(target=TARGET.model_copy(update=box))["dicom_sr"])
    assert [found[f"box_{each}"] for each in ("top", "left", "bottom", "right")] == [*box["box"]]
    assert found["box_overlap"] == 0.8


def test_the_region_is_that_of_the_segmentation(made):
    files = made("dicom_seg")
    found = numbers(files["dicom_sr"])
    assert found["region_pixels"] == files["dicom_seg"].pixel_array.sum()
    assert 0 < found["region_mass"] < 1
    assert files["dicom_seg"].SegmentSequence[0].TrackingUID == next(
        item.UID for item in group(files["dicom_sr"]) if concept(item) == "112040"
    )


def test_words_are_grade_certificate_parity_and_cautions(made):
    ds = made(trust=TRUST)["dicom_sr"]
    said = words(ds)
    assert (said["trust_grade"], said["certificate"], said["parity"]) == (
        "weak",
        "passed",
        "not_given",
    )
    assert said["caution"] == "depends_outside_expected_region"
    (comment,) = (item.TextValue for item in group(ds) if concept(item) == "121106")
    assert "describes the model, not the patient" in comment


def test_it_refers_to_the_source_and_to_all_that_was_made_with_it(made):
    files = made("dicom_sc", "dicom_seg", "dicom_pm", "dicom_sc_word", elements=PLACED)
    uid = {name: ds.SOPInstanceUID for name, ds in files.items()}
    assert images(files["dicom_sr"]) == [
        ("121214", uid["dicom_seg"]),
        ("121233", "2.25.1"),
        ("121080", uid["dicom_sc"]),
        ("121112", uid["dicom_pm"]),
        ("121112", uid["dicom_sc_word"]),
    ]
    (study,) = files["dicom_sr"].CurrentRequestedProcedureEvidenceSequence
    evidence = {
        each.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        for each in series.ReferencedSOPSequence
    }
    assert evidence == {"2.25.1", *uid.values()} - {uid["dicom_sr"]}


def test_each_kind_has_a_series_that_can_be_told_from_the_others(made):
    files = made("dicom_sc", "dicom_seg", "dicom_pm", "dicom_sc_word", elements=PLACED).values()
    for keyword in ("SeriesInstanceUID", "SeriesNumber", "SeriesDescription"):
        assert len({ds[keyword].value for ds in files}) == 5
    assert all("chest-phantom@1.0.0" in ds.SeriesDescription for ds in files)


def test_alone_it_refers_to_the_source(made):
    ((_, referred),) = images(made()["dicom_sr"])
    assert referred == "2.25.1"


def test_the_model_is_named_to_the_byte_and_once(made):
    ds = made(parameters={"layer": "layer4"})["dicom_sr"]
    said = [item.TextValue for item in group(ds) if concept(item) == "111002"]
    assert "layer=layer4" in said
    assert f"model weights sha256={'b' * 64}" in said
    assert sum(concept(item) == "111001" for item in group(ds)) == 1


def test_nobody_has_verified_it(made):
    ds = made()["dicom_sr"]
    assert (ds.VerificationFlag, ds.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert ds.SOPClassUID.name == "Comprehensive SR Storage"
    assert ds.Modality == "SR"


def test_a_map_that_says_nothing_has_no_peak_and_no_region(made):
    values = np.zeros((1, 4, 4), np.float32)
    found = numbers(made(values=values, degenerate=True)["dicom_sr"])
    assert not {"peak_row", "peak_relevance", "region_pixels"} & set(found)


def test_the_same_question_gives_the_same_bytes_and_another_answer_another_uid(written):
    first = written("dicom_sr")
    assert first == written("dicom_sr")
    other = pydicom.dcmread(io.BytesIO(written("dicom_sr", trust=TRUST)))
    assert other.SOPInstanceUID != pydicom.dcmread(io.BytesIO(first)).SOPInstanceUID
