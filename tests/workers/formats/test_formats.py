import hashlib
import io
import json

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, ImageCms
from pydicom.sr.codedict import codes

from service.domain.explanation import Check
from service.domain.grid import Grid
from service.errors.requests import UnknownFormat
from tests.support.sheets import CREATED, TARGET, blob, sheet
from workers.formats.base import FORMATS
from workers.sheets import write

NATIVE = blob((12, 10))


@pytest.fixture
def made(source, tmp_path):
    """A function that writes one format of a map and returns its bytes."""

    def of(format_, values=NATIVE, elements=None, **changes) -> bytes:
        drawn = sheet(source(**(elements or {})), tmp_path / "work", values, **changes)
        ((_, file),), _ = write(drawn, [format_], tmp_path)
        return file.read_bytes()

    return of


def dicom(data: bytes):
    return pydicom.dcmread(io.BytesIO(data))


def test_the_formats_are_these():
    assert list(FORMATS) == [
        "dicom_ko",
        "dicom_pm",
        "dicom_sc",
        "dicom_sc_word",
        "dicom_seg",
        "dicom_sr",
        "json",
        "nifti",
        "npy",
        "npz",
        "png",
    ]
    assert not FORMATS.unavailable
    for name in FORMATS:
        part = FORMATS[name]
        assert part.title
        assert "/" in part.media_type


def test_artifacts_are_named_and_digested(source, tmp_path):
    drawn = sheet(source(), tmp_path / "work", NATIVE)
    files, omitted = write(drawn, ["dicom_sc", "png", "json", "npy"], tmp_path)
    assert not omitted
    for artifact, file in files:
        assert artifact.name == f"grad_cam.effusion.{FORMATS[artifact.format].extension}"
        assert artifact.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        assert artifact.bytes == file.stat().st_size
        assert artifact.media_type == FORMATS[artifact.format].media_type


def test_an_unknown_format_is_refused(source, tmp_path):
    with pytest.raises(UnknownFormat):
        write(sheet(source(), tmp_path / "work", NATIVE), ["gif"], tmp_path)


# ------------------------------------------------------------------- npy, json


def test_npy_holds_the_raw_map_on_its_own_grid(made):
    values = np.load(io.BytesIO(made("npy")))
    assert_array_equal(values, NATIVE)
    assert values.dtype == np.float32


def test_npy_on_the_source_grid_has_the_sources_pixels(made):
    values = np.load(io.BytesIO(made("npy", on_source_grid=True)))
    assert values.shape == (1, 600, 500)
    assert_allclose(values[0, 424, 174], NATIVE[0, 8, 3], atol=0.02)


def test_json_tells_values_geometry_score_checks_and_provenance(made):
    check = Check(name="integrity", version=1, outcome="pass", meaning="The map is fine.")
    document = json.loads(made("json", checks=(check,), extras={"residual": 0.01}))
    assert_allclose(document["map"]["values"], NATIVE, rtol=1e-6)
    assert document["map"]["grid"] == "native"
    assert document["map"]["cell"] == [50.0, 50.0]
    assert_allclose(document["map"]["affine"], Grid.partition((12, 10), (600, 500)).affine)
    peak = np.unravel_index(NATIVE[0].argmax(), (12, 10))
    assert_allclose(document["map"]["peak"], np.array(peak) * 50 + 24.5)
    assert document["target"] == TARGET.model_dump(mode="json")
    assert document["checks"][0]["outcome"] == "pass"
    assert document["extras"] == {"residual": 0.01}
    assert document["provenance"]["model"]["weights"] == "b" * 64
    assert_allclose(document["display"]["full_scale"], NATIVE.max())


def test_json_on_the_source_grid_keeps_the_native_cell_in_sight(made):
    document = json.loads(made("json", on_source_grid=True))
    assert document["map"]["shape"] == [1, 600, 500]
    assert document["map"]["cell"] == [1.0, 1.0]
    assert document["map"]["native_cell"] == [50.0, 50.0]


def test_json_gives_way_to_arrays_when_the_map_is_too_large(source, tmp_path):
    wide = np.random.default_rng(0).random((4, 600, 500)).astype(np.float32)
    drawn = sheet(source(), tmp_path / "work", wide)
    ((artifact, _),), (omitted,) = write(drawn, ["json", "npy"], tmp_path)
    assert artifact.format == "npy"
    assert (omitted.format, omitted.name) == ("json", "grad_cam.effusion.json")
    assert omitted.reason.code == "format_not_applicable"
    assert omitted.reason.facts["reason"] == "too_many_values"
    assert set(omitted.reason.facts["alternatives"]) <= set(FORMATS)


def test_a_degenerate_map_has_no_peak_and_no_scale(made):
    document = json.loads(made("json", values=np.zeros((1, 4, 4), np.float32), degenerate=True))
    assert document["map"]["peak"] is None
    assert document["display"] == {
        "full_scale": None,
        "own_scale": None,
        "joint_scale": None,
        "drawn": False,
        "window": document["display"]["window"],
    }


def test_json_can_be_read_even_where_the_map_is_not_finite(made):
    broken = np.full((1, 4, 4), np.nan, np.float32)
    assert json.loads(made("json", values=broken, degenerate=True))["map"]["values"][0][0][0] == 0


@pytest.mark.parametrize("format_", ["json", "npy", "png"])
def test_no_patient_is_in_what_is_not_dicom(made, format_):
    data = made(format_)
    assert b"Canary" not in data
    assert b"CANARY" not in data
    assert b"2.25.1" not in data


# --------------------------------------------------------------------- pictures


def test_png_and_dicom_show_the_same_picture(made):
    shown = np.asarray(Image.open(io.BytesIO(made("png"))))
    assert_array_equal(dicom(made("dicom_sc")).pixel_array, shown)


def test_the_image_fills_the_top_left_of_the_capture(made):
    ds = dicom(made("dicom_sc", values=np.zeros((1, 4, 4), np.float32), degenerate=True))
    shown = ds.pixel_array[:600, :500]
    assert not np.ptp(shown, axis=-1).any()
    assert (np.diff(shown[::50, ::50, 0].astype(int), axis=1) >= 0).all()
    assert ds.Rows > 600
    assert "600 x 500 pixels at the top left" in ds.DerivationDescription


# ------------------------------------------------------------- secondary capture


def test_the_capture_says_what_it_is(made):
    ds = dicom(made("dicom_sc"))
    assert ds.SOPClassUID.name == "Secondary Capture Image Storage"
    assert ds.file_meta.TransferSyntaxUID.name == "Explicit VR Little Endian"
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert (ds.PhotometricInterpretation, ds.PlanarConfiguration) == ("RGB", 0)
    assert (ds.Modality, ds.ConversionType, ds.BurnedInAnnotation) == ("OT", "WSD", "YES")
    assert list(ds.ImageType) == ["DERIVED", "SECONDARY"]
    assert ds.SeriesDescription == "AI explanation chest-phantom@1.0.0"
    assert "PixelSpacing" not in ds
    profile = ImageCms.ImageCmsProfile(io.BytesIO(ds.ICCProfile))
    assert "sRGB" in ImageCms.getProfileDescription(profile)
    for word in ("grad_cam", "effusion", "chest-phantom@1.0.0", "a" * 64):
        assert word in ds.DerivationDescription


def regions(*deltas, units=3, form=1):
    """Regions of ultrasound whose pixels are so wide and so high."""
    items = []
    for across, down in deltas:
        item = pydicom.Dataset()
        item.RegionSpatialFormat = form
        item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = units
        item.PhysicalDeltaX, item.PhysicalDeltaY = across, down
        items.append(item)
    return {"SequenceOfUltrasoundRegions": items}


ASPECTS = [
    ({"PixelAspectRatio": ["2", "1"]}, [2, 1]),
    ({"PixelAspectRatio": ["40", "30"]}, [4, 3]),
    ({"PixelSpacing": ["0.2", "0.1"]}, [2, 1]),
    ({"ImagerPixelSpacing": ["0.15", "0.2"]}, [3, 4]),
    ({"NominalScannedPixelSpacing": ["1", "3"]}, [1, 3]),
    ({"PixelSpacing": ["0.48828125", "0.4882812"]}, None),
    ({"PixelSpacing": ["0.5", "0.5"], "PixelAspectRatio": ["2", "1"]}, None),
    ({"PixelSpacing": ["0", "0"], "PixelAspectRatio": ["2", "1"]}, [2, 1]),
    ({"PixelAspectRatio": ["0", "1"]}, None),
    ({"PixelAspectRatio": ["1", "99999"]}, None),
    (regions((0.02, 0.03)), [3, 2]),
    (regions((0.02, -0.03), (0.04, 0.06)) | {"PixelAspectRatio": ["1", "1"]}, [3, 2]),
    (regions((0.02, 0.03)) | {"PixelSpacing": ["0.2", "0.2"]}, None),
    (regions((0.02, 0.03), (0.02, 0.02)) | {"PixelAspectRatio": ["2", "1"]}, [2, 1]),
    (regions((0.02, 0.03), units=4), None),
    (regions((0.02, 0.03), form=2), None),
    (regions((0.02, 0), (0.0, 0.0)), None),
    ({}, None),
]


@pytest.mark.parametrize(("elements", "aspect"), ASPECTS)
def test_pixels_that_are_not_square_keep_their_shape(made, elements, aspect):
    ds = dicom(made("dicom_sc_word", elements=elements))
    assert ds.get("PixelAspectRatio") == aspect
    assert "PixelSpacing" not in ds


@pytest.mark.parametrize("format_", ["dicom_sc", "dicom_seg"])
@pytest.mark.parametrize(("elements", "aspect"), [ASPECTS[0], ASPECTS[2], ASPECTS[-1]])
def test_other_objects_on_the_sources_grid_keep_it_too(made, format_, elements, aspect):
    ds = dicom(made(format_, elements=elements))
    assert ds.get("PixelAspectRatio") == aspect
    assert "PixelSpacing" not in ds


@pytest.mark.parametrize(("elements", "aspect"), [ASPECTS[0], ASPECTS[2], ASPECTS[-1]])
def test_a_png_tells_the_shape_of_its_pixels(made, elements, aspect):
    with Image.open(io.BytesIO(made("png", elements=elements))) as png:
        png.load()  # checks every chunk's sum
        assert png.info.get("aspect") == (aspect and tuple(aspect))


def test_the_capture_is_filed_beside_its_source(made):
    elements = {"AccessionNumber": "A1", "StudyDate": "20240229", "IssuerOfPatientID": "HOSPITAL"}
    ds = dicom(made("dicom_sc", elements=elements))
    assert (ds.StudyInstanceUID, ds.PatientID, ds.PatientName) == (
        "2.25.3",
        "CANARY-1",
        "Canary^Patient",
    )
    assert (ds.AccessionNumber, ds.StudyDate, ds.IssuerOfPatientID) == (
        "A1",
        "20240229",
        "HOSPITAL",
    )
    (reference,) = ds.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == "2.25.1"
    assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert ds.ReferencedSeriesSequence[0].SeriesInstanceUID == "2.25.2"
    assert ds.SeriesInstanceUID not in {"2.25.1", "2.25.2", "2.25.3"}


def test_the_same_question_gives_the_same_bytes(made):
    assert made("dicom_sc") == made("dicom_sc")


PLACED = {
    "FrameOfReferenceUID": "2.25.4",
    "ImagePositionPatient": [0, 0, 0],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "PixelSpacing": [0.5, 0.25],
}
OBJECTS = [name for name in FORMATS if FORMATS[name].media_type == "application/dicom"]


@pytest.mark.parametrize("name", OBJECTS)
def test_a_question_asked_again_adds_to_its_series_and_repeats_no_uid(made, name):
    first, again = (
        dicom(made(name, elements=PLACED, created=created)) for created in (CREATED, CREATED + 1500)
    )
    assert first.SeriesInstanceUID == again.SeriesInstanceUID
    assert first.SOPInstanceUID != again.SOPInstanceUID
    of_series = [
        "Modality",
        "SeriesNumber",
        "SeriesDescription",
        "SeriesDate",
        "SeriesTime",
        "Manufacturer",
        "ManufacturerModelName",
        "DeviceSerialNumber",
        "SoftwareVersions",
        "Laterality",
        "BodyPartExamined",
        "ProtocolName",
        "FrameOfReferenceUID",
    ]
    for keyword in of_series:
        assert first.get(keyword) == again.get(keyword), keyword
    other = dicom(made(name, elements=PLACED, software="0.2.0"))
    assert other.SeriesInstanceUID != first.SeriesInstanceUID


def test_a_uid_never_comes_again_with_other_pixels(made):
    first, again = dicom(made("dicom_sc")), dicom(made("dicom_sc", values=NATIVE * 0.9 + 0.1))
    assert first.SeriesInstanceUID == again.SeriesInstanceUID
    assert first.SOPInstanceUID != again.SOPInstanceUID
    assert len(first.SOPInstanceUID) <= 64
    assert first.SOPInstanceUID.startswith("2.25.")


def test_another_question_has_a_series_of_its_own(made):
    first, other = dicom(made("dicom_sc")), dicom(made("dicom_sc", digest="d" * 64))
    assert first.SeriesInstanceUID != other.SeriesInstanceUID


def test_missing_elements_stay_empty_and_are_never_made_up(made):
    ds = dicom(made("dicom_sc", elements={"PatientName": "", "PatientID": ""}))
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "StudyID", "AccessionNumber"):
        assert keyword in ds
        assert not ds[keyword].value
    assert not ds.PatientOrientation


@pytest.mark.parametrize(
    ("keyword", "value", "kept"),
    [
        ("PatientAge", "62", "062Y"),
        ("PatientAge", "old", None),
        ("PatientAge", "007M", "007M"),
        ("PatientSex", "X", ""),
        ("PatientSex", "F", "F"),
        ("PatientBirthDate", "1950.01.31", "19500131"),
        ("PatientBirthDate", "17000101", "17000101"),
        ("PatientBirthDate", "11111111", "11111111"),
        ("PatientBirthDate", "00010101", "00010101"),
        ("StudyDate", "29991231", "29991231"),
        ("PatientBirthDate", "00000000", ""),
        ("PatientBirthDate", "20241301", ""),
        ("StudyDate", "20240132", ""),
        ("StudyDate", "20230231", ""),
        ("PatientBirthDate", "19000229", ""),
        ("PatientBirthDate", "20000229", "20000229"),
        ("PatientBirthDate", "yesterday", ""),
        ("StudyTime", "12:30:00", "123000"),
        ("StudyTime", "250000", ""),
        ("StudyTime", "235960", "235960"),
        ("StudyTime", "235961", ""),
        ("AccessionNumber", "A" * 17, ""),
        ("ImageLaterality", "LEFT", None),
        ("PatientOrientation", ["L", "F"], ["L", "F"]),
        ("PatientOrientation", ["AL", "FPR"], ["AL", "FPR"]),
        ("PatientOrientation", ["left", "F"], None),
        ("PatientOrientation", ["LR", "F"], None),
        ("PatientOrientation", ["HLF", "P"], None),
        ("PatientOrientation", ["L", "R"], None),
        ("PatientOrientation", ["L", "L"], None),
        ("PatientOrientation", ["RT", "V"], None),
        ("TimezoneOffsetFromUTC", "+0530", "+0530"),
        ("TimezoneOffsetFromUTC", "+1400", "+1400"),
        ("TimezoneOffsetFromUTC", "+1430", None),
        ("TimezoneOffsetFromUTC", "-1200", "-1200"),
        ("TimezoneOffsetFromUTC", "-1330", None),
        ("TimezoneOffsetFromUTC", "-0000", None),
    ],
)
def test_copied_elements_are_valid_repaired_or_left_out(made, keyword, value, kept):
    ds = dicom(made("dicom_sc", elements={keyword: value}))
    found = ds.get(keyword)
    assert (list(found) if isinstance(kept, list) else found or kept) == kept


def test_repairs_and_omissions_are_told_by_codes_without_values(source, tmp_path):
    elements = {"PatientAge": "62", "PatientSex": "X", "BodyPartExamined": "chest"}
    drawn = sheet(source(**elements), tmp_path / "work", NATIVE)
    assert drawn.record.facts.warnings == (
        "left_out_patient_sex",
        "repaired_patient_age",
        "repaired_body_part_examined",
    )


@pytest.mark.parametrize("absent", ["", None])
def test_a_missing_patient_id_stays_empty_and_is_told(source, tmp_path, absent):
    drawn = sheet(source(PatientID=absent), tmp_path / "work", NATIVE)
    assert "missing_patient_id" in drawn.record.facts.warnings
    ((_, file),), _ = write(drawn, ["dicom_sc"], tmp_path)
    assert dicom(file.read_bytes()).PatientID == ""


@pytest.mark.parametrize(
    ("said", "kept"), [("YES", "YES"), ("NO", "NO"), ("PERHAPS", None), (None, None)]
)
def test_recognizable_features_are_told_as_the_source_tells_them(made, said, kept):
    elements = {} if said is None else {"RecognizableVisualFeatures": said}
    assert dicom(made("dicom_sc", elements=elements)).get("RecognizableVisualFeatures") == kept


def test_the_capture_tells_how_it_was_derived_and_by_what(made):
    ds = dicom(made("dicom_sc"))
    (item,) = ds.DerivationCodeSequence
    assert (item.CodeValue, item.CodingSchemeDesignator) == ("113042", "DCM")
    assert item.CodeMeaning == codes.DCM.PixelByPixelAddition.meaning
    assert "alpha from 0 at 6% of it to 0.66" in ds.DerivationDescription
    assert ds.SoftwareVersions == ds.DeviceSerialNumber


def test_purposes_are_those_of_the_standard(made):
    ds = dicom(made("dicom_sc", elements={"Manufacturer": "Maker"}))
    purposes = [
        each.PurposeOfReferenceCodeSequence[0].CodeValue
        for each in ds.ContributingEquipmentSequence
    ]
    expected = [codes.DCM.AcquisitionEquipment.value, codes.DCM.ProcessingEquipment.value]
    assert purposes == expected == ["109101", "109102"]


def test_private_and_unknown_elements_are_left_behind(source, tmp_path):
    path = source()
    ds = pydicom.dcmread(path)
    ds.private_block(0x0011, "MAKER", create=True).add_new(0x01, "LO", "Canary secret")
    ds.OtherPatientIDs = "CANARY-2"
    ds.save_as(path)
    drawn = sheet(path, tmp_path / "work", NATIVE)
    ((_, file),), _ = write(drawn, ["dicom_sc"], tmp_path)
    assert b"Canary secret" not in file.read_bytes()
    assert b"CANARY-2" not in file.read_bytes()


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 144", "Жданов^Илья"),
        ("ISO_IR 100", "Äneas^Rüdiger"),
        ("ISO_IR 203", "Lefèvre^Œdipe"),
        (["", "ISO 2022 IR 203"], "Lefevre^Œdipe"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ],
)
def test_names_of_any_script_come_over_as_utf8(made, charset, name):
    ds = dicom(made("dicom_sc", elements={"SpecificCharacterSet": charset, "PatientName": name}))
    assert ds.SpecificCharacterSet == "ISO_IR 192"
    assert str(ds.PatientName) == name


@pytest.mark.parametrize("declared", ["ISO_IR 192", "ISO_IR 13", "ISO_IR 166", "", "FOO_BAR"])
def test_bytes_that_are_no_text_in_their_set_are_left_out_and_told(source, tmp_path, declared):
    said = {"PatientName": "Müller^Jörg", "PatientID": "ÄID1", "StudyDescription": "Thorax"}
    path = source(SpecificCharacterSet="ISO_IR 100", **said)
    path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", declared.encode().ljust(10)))
    drawn = sheet(path, tmp_path / "work", NATIVE)
    left_out = {"left_out_patient_name", "left_out_patient_id"}
    assert left_out <= set(drawn.record.facts.warnings)
    ((_, file),), _ = write(drawn, ["dicom_sc"], tmp_path)
    ds = dicom(file.read_bytes())
    assert (str(ds.PatientName), ds.PatientID, ds.StudyDescription) == ("", "", "Thorax")


def test_the_objects_dates_are_the_jobs_in_the_sources_zone(made):
    plain = dicom(made("dicom_sc"))
    assert (plain.ContentDate, plain.ContentTime) == ("20251009", "085320.123000")
    assert "TimezoneOffsetFromUTC" not in plain  # it would speak for the study's time too
    zoned = dicom(made("dicom_sc", elements={"TimezoneOffsetFromUTC": "+0900"}))
    assert (zoned.ContentDate, zoned.ContentTime) == ("20251009", "175320.123000")
    for ds in (plain, zoned):
        ours = ds.ContributingEquipmentSequence[-1]
        assert ours.ContributionDateTime == "20251009085320.123000+0000"


def test_the_scanner_and_we_are_both_named(made):
    ds = dicom(made("dicom_sc", elements={"Manufacturer": "Maker", "StationName": "ROOM1"}))
    scanner, ours = ds.ContributingEquipmentSequence
    assert (scanner.Manufacturer, scanner.StationName) == ("Maker", "ROOM1")
    assert scanner.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Acquisition Equipment"
    assert ours.Manufacturer == ds.Manufacturer == "Whylight"
    assert "b" * 64 in ours.ContributionDescription


@pytest.mark.parametrize(
    ("declared", "inherited"), [(None, None), ("00", None), ("01", "01")], ids=str
)
def test_loss_is_inherited_and_never_denied(made, declared, inherited):
    elements = {} if declared is None else {"LossyImageCompression": declared}
    if declared == "01":
        elements |= {"LossyImageCompressionRatio": "12.5"}
    ds = dicom(made("dicom_sc", elements=elements))
    assert ds.get("LossyImageCompression") == inherited
    assert ds.get("LossyImageCompressionRatio") == (12.5 if inherited else None)


@pytest.mark.parametrize(
    ("elements", "laterality"),
    [
        ({"BodyPartExamined": "CHEST", "Laterality": "L"}, None),
        ({"BodyPartExamined": "HAND", "Laterality": "L"}, "L"),
        ({"BodyPartExamined": "HAND"}, ""),
        ({"BodyPartExamined": "BREAST", "ImageLaterality": "R"}, None),
    ],
    ids=str,
)
def test_laterality_is_there_for_paired_parts_alone(made, elements, laterality):
    ds = dicom(made("dicom_sc", elements=elements))
    assert ds.get("Laterality") == laterality


def test_a_picture_can_have_lines_instead_of_colors(made):
    ds = dicom(made("dicom_sc", style="contour"))
    shown = ds.pixel_array[:600, :500].astype(int)
    colored = np.ptp(shown, axis=-1) > 0
    assert 0 < colored.mean() < 0.02
    assert "lines around relevance from" in ds.DerivationDescription
    assert "DerivationCodeSequence" not in ds
    assert ds.SOPInstanceUID != dicom(made("dicom_sc")).SOPInstanceUID
