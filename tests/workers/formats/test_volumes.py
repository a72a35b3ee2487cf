"""What is written of a map of a volume, read back by programs of others."""

import io
import json

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
from numpy.testing import assert_allclose
from pydicom.sr.codedict import codes

from service.domain.boxes import PatientBox
from service.domain.grid import Grid
from service.domain.request import MOST_SLICES
from service.domain.volume import Slice
from service.errors.studies import FormatNotApplicable
from tests.support.dciodvfy import complaints
from tests.support.sheets import TARGET
from tests.support.volumes import CORONAL, ENHANCED_CT, SAGITTAL, Series, blob, volume_sheet
from workers.drawing.palettes import FAINT
from workers.drawing.picture import draw
from workers.formats.base import FORMATS
from workers.formats.derived import REQUIRED
from workers.sheets import write

SERIES = [Series(), Series(tilt=15.0), Series(orientation=SAGITTAL), Series(orientation=CORONAL)]
NAMES = ["axial", "sheared", "sagittal", "coronal"]


@pytest.fixture(params=SERIES, ids=NAMES)
def series(request):
    return request.param


def written(sheet, folder, name):
    """The bytes of the one file of a format."""
    ((_, file),), omitted = write(sheet, [name], folder)
    assert omitted == []
    return file.read_bytes()


def dicom(sheet, folder, name):
    return pydicom.dcmread(io.BytesIO(written(sheet, folder, name)))


def at_voxels(values, grid, shape):
    """Trilinear interpolation, axis by axis with NumPy's own, for grids of three straight axes."""
    found = values[0].astype(float)
    for axis in range(3):
        centers = grid.affine[axis, axis] * np.arange(grid.shape[axis]) + grid.affine[axis, 3]
        found = np.apply_along_axis(
            lambda line, centers=centers, axis=axis: np.interp(
                np.arange(shape[axis]), centers, line
            ),
            axis,
            found,
        )
    return found


def slice_at(group, series):
    """Which slice of a series lies where a frame does."""
    position = group.PlanePositionSequence[0].ImagePositionPatient
    away = [np.linalg.norm(np.subtract(position, series.position(k))) for k in range(12)]
    assert min(away) < 1e-4
    return int(np.argmin(away))


def enhanced_sheet(folder, **changes):
    """A map of a volume whose slices are frames of one object."""
    volume = Series().volume()
    frames = tuple(
        Slice(
            sop_class_uid=ENHANCED_CT,
            sop_instance_uid="2.25.77",
            frame=number,
            position=each.position,
            instance="in_0001",
            instance_number=5,
        )
        for number, each in enumerate(volume.slices, 1)
    )
    return volume_sheet(folder, volume=volume.model_copy(update={"slices": frames}), **changes)


# ------------------------------------------------------------------- the grid


def test_cells_turned_and_mirrored_come_to_the_same_voxels(tmp_path):
    shape = (12, 24, 20)
    straight = volume_sheet(tmp_path / "a")
    turned = np.ascontiguousarray(straight.values.transpose(0, 3, 1, 2)[:, ::-1])
    affine = straight.grid.affine[:, [2, 0, 1, 3]]
    affine = affine @ np.array([[-1, 0, 0, 4], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    other = volume_sheet(tmp_path / "b", values=turned, grid=Grid((5, 6, 8), affine))
    expected = at_voxels(straight.values, straight.grid, shape)
    assert_allclose(straight.source_relevance, expected, atol=1e-6)
    assert_allclose(other.source_relevance, expected, atol=1e-6)
    assert other.relevant_slices == straight.relevant_slices
    assert other.peak[0] == pytest.approx(straight.peak[0])


def test_many_cells_are_interpolated_as_few_are(tmp_path):
    values = np.random.default_rng(0).random((1, 30, 18, 25)).astype(np.float32)
    fine = volume_sheet(tmp_path, values=values)
    expected = at_voxels(values, fine.grid, (12, 24, 20))
    assert_allclose(fine.source_relevance, expected, atol=1e-6)


# --------------------------------------------------------------- the pictures


def test_the_slices_with_the_most_evidence_are_frames_of_one_capture(tmp_path):
    long = Series(shape=(50, 24, 20))
    values = np.random.default_rng(0).random((1, 25, 8, 5)).astype(np.float32)
    for name, evidence in (("hill", blob((25, 8, 5))), ("even", values)):
        sheet = volume_sheet(tmp_path / name, long, evidence)
        ds = dicom(sheet, tmp_path, "dicom_sc")
        masses = at_voxels(sheet.values, sheet.grid, long.shape).sum(axis=(1, 2))
        shares = np.cumsum(np.sort(masses)[::-1]) / masses.sum()
        shown = min(MOST_SLICES, int((shares < 0.9).sum()) + 1)
        most = sorted(np.argsort(-masses)[:shown] + 1)
        assert list(ds.PageNumberVector) == most
        assert ds.NumberOfFrames == len(ds.SourceImageSequence) == shown
        assert (shown < 25) is (name == "hill")
    uids = [each.ReferencedSOPInstanceUID for each in ds.SourceImageSequence]
    assert uids == [long.volume().slices[page - 1].sop_instance_uid for page in most]


def numbered_backward(series):
    """The volume of a series whose Instance Numbers run against its slices' positions."""
    volume = series.volume()
    count = len(volume.slices)
    slices = tuple(
        each.model_copy(update={"instance_number": count - place})
        for place, each in enumerate(volume.slices)
    )
    return volume.model_copy(update={"slices": slices})


def test_slices_are_called_by_their_source_images_instance_numbers(tmp_path, monkeypatch):
    said = []

    def spy(*args, where, **kwargs):
        said.append(where)
        return draw(*args, where=where, **kwargs)

    monkeypatch.setattr("workers.formats.sheet.draw", spy)
    volume = numbered_backward(Series())
    sheet = volume_sheet(tmp_path / "a", volume=volume, slices="all")
    ds = dicom(sheet, tmp_path, "dicom_sc")
    assert said[0] == "Instance Number 12: slice 01 of 12 by position."
    assert said[11] == "Instance Number 1: slice 12 of 12 by position."
    assert list(ds.PageNumberVector) == list(range(12, 0, -1))
    apart = volume_sheet(tmp_path / "b", volume=volume, slices="all", objects="single_frame")
    numbers = {each.sop_instance_uid: each.instance_number for each in volume.slices}
    files, _ = write(apart, ["dicom_sc"], tmp_path)
    for artifact, file in files:
        single = pydicom.dcmread(file)
        (source,) = single.SourceImageSequence
        assert single.InstanceNumber == numbers[source.ReferencedSOPInstanceUID]
        assert f".{single.InstanceNumber:04d}." in artifact.name
    frames = enhanced_sheet(tmp_path / "c")
    frames.slice_picture(2)
    assert said[-1] == "Instance Number 5, frame 3: slice 03 of 12 by position."
    nameless = tuple(each.model_copy(update={"instance_number": None}) for each in volume.slices)
    of_none = volume.model_copy(update={"slices": nameless})
    drawn = volume_sheet(tmp_path / "d", volume=of_none, slices="all")
    assert list(dicom(drawn, tmp_path, "dicom_sc").PageNumberVector) == list(range(1, 13))
    assert said[-1] == "Slice 12 of 12 by position."


def test_key_images_are_the_fewest_that_hold_half_of_the_evidence(tmp_path):
    for name, values in (("hill", blob((6, 8, 5))), ("even", np.ones((1, 25, 8, 5), np.float32))):
        long = Series(shape=(50, 24, 20))
        sheet = volume_sheet(tmp_path / name, long, values)
        ds = dicom(sheet, tmp_path, "dicom_ko")
        uids = [each.sop_instance_uid for each in long.volume().slices]
        key = [uids.index(each) for each in _images(ds)]
        masses = at_voxels(sheet.values, sheet.grid, long.shape).sum(axis=(1, 2))
        held = masses[key].sum() / masses.sum()
        if name == "even":
            assert len(key) == 10
        else:
            assert held >= 0.5 > held - masses[key].min() / masses.sum()
            assert masses[key].min() >= np.delete(masses, key).max()


def _images(item):
    """Every image that a document's content refers to."""
    for each in item.get("ContentSequence", ()):
        if each.ValueType == "IMAGE":
            yield each.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        yield from _images(each)


@pytest.mark.parametrize("kind", ["slices", "frames"])
def test_report_and_json_tell_which_image_holds_the_peak(tmp_path, kind):
    backward = {"volume": numbered_backward(Series())}
    make = volume_sheet if kind == "slices" else enhanced_sheet
    sheet = make(tmp_path / "work", **(backward if kind == "slices" else {}))
    place = round(float(sheet.peak[0][0]))
    slices = sheet.record.volume.slices
    ds = dicom(sheet, tmp_path, "dicom_sr")
    ds.save_as(tmp_path / "report.dcm")
    assert complaints("dicom_sr", tmp_path / "report.dcm") == []
    (group,) = [
        each
        for each in _items(ds)
        if each.ValueType == "IMAGE" and each.ConceptNameCodeSequence[0].CodeValue == "peak_image"
    ]
    (reference,) = group.ReferencedSOPSequence
    assert reference.ReferencedSOPInstanceUID == slices[place].sop_instance_uid
    assert reference.ReferencedSOPClassUID == slices[place].sop_class_uid
    assert reference.get("ReferencedFrameNumber") == (place + 1 if kind == "frames" else None)
    number = 12 - place if kind == "slices" else 5
    assert dict(_numbers(ds))["peak_instance_no"] == number
    assert json.loads(written(sheet, tmp_path, "json"))["map"]["peak_image"] == {
        "instance": f"in_{place + 1:04d}" if kind == "slices" else "in_0001",
        "instance_number": number,
        "frame": place + 1 if kind == "frames" else None,
    }


def _items(item):
    """Every content item of a report."""
    for each in item.get("ContentSequence", ()):
        yield each
        yield from _items(each)


def test_each_frame_is_its_own_slice_where_nothing_is_drawn(tmp_path):
    sheet = volume_sheet(tmp_path / "work", slices="all")
    frames = dicom(sheet, tmp_path, "dicom_sc").pixel_array
    display = np.load(sheet.display_file)
    assert len(frames) == len(display)
    relevance = at_voxels(sheet.values, sheet.grid, display.shape)
    bare = relevance < 0.9 * FAINT * sheet.scale.full
    image = frames[:, : display.shape[1], : display.shape[2]]
    assert (image[bare] == display[bare][:, None]).all()
    drawn = relevance > 2 * FAINT * sheet.scale.full
    assert (image[drawn] != display[drawn][:, None]).any(axis=-1).all()


@pytest.mark.parametrize("slices", ["relevant", "all"])
def test_slices_are_an_object_each_on_request(tmp_path, slices):
    sheet = volume_sheet(tmp_path / "work", objects="single_frame", slices=slices)
    files, _ = write(sheet, ["dicom_sc"], tmp_path)
    stack = dicom(volume_sheet(tmp_path / "stack", slices=slices), tmp_path, "dicom_sc")
    objects = [pydicom.dcmread(file) for _, file in files]
    assert len({each.SOPInstanceUID for each in objects}) == len(objects) == stack.NumberOfFrames
    assert len({each.SeriesInstanceUID for each in objects}) == 1
    for ds, frame, page in zip(objects, stack.pixel_array, stack.PageNumberVector, strict=True):
        assert np.array_equal(ds.pixel_array, frame)
        assert ds.InstanceNumber == page
        (source,) = ds.SourceImageSequence
        assert source.ReferencedSOPInstanceUID == f"2.25.10{page}"


def test_a_map_without_evidence_shows_the_middle_slice(tmp_path):
    blank = np.zeros((1, 6, 8, 5), np.float32)
    ds = dicom(volume_sheet(tmp_path / "work", values=blank), tmp_path, "dicom_sc")
    assert ds.PageNumberVector == 7
    image = ds.pixel_array[:24, :20]
    assert (image == np.load(tmp_path / "work/display.npy")[6][..., None]).all()


def test_evidence_beside_a_volume_counts_for_no_slice(tmp_path):
    values = np.zeros((1, 8, 8, 5), np.float32)  # two slices of cells below, and two columns beside
    values[0, 5, 4, 2], values[0, 6, 2, 4], values[0, 0, 0, 0] = 1, 3, 9
    affine = np.diag([2, 3, 8, 1.0])
    affine[:3, 3] = -3.5, 1, -8.5
    sheet = volume_sheet(tmp_path / "work", values=values, grid=Grid((8, 8, 5), affine))
    assert sheet.peak == (pytest.approx((6.5, 13, 7.5)), 1)
    assert set(sheet.key_slices) <= {6, 7}
    document = json.loads(written(sheet, tmp_path, "json"))
    assert document["map"]["peak"] == [6.5, 13, 7.5]


def test_contours_of_every_slice_make_one_stack(tmp_path):
    ds = dicom(volume_sheet(tmp_path / "work", style="contour", slices="all"), tmp_path, "dicom_sc")
    assert ds.pixel_array.shape[0] == 12


@pytest.mark.parametrize("syntax", ["jpeg_ls_lossless", "jpeg_2000_lossless", "rle_lossless"])
@pytest.mark.parametrize("name", ["dicom_sc", "dicom_sc_word"])
def test_a_compressed_stack_holds_the_same_frames(tmp_path, syntax, name):
    plain = dicom(volume_sheet(tmp_path / "a"), tmp_path, name)
    packed = dicom(volume_sheet(tmp_path / "b", transfer_syntax=syntax), tmp_path, name)
    assert np.array_equal(packed.pixel_array, plain.pixel_array)
    assert packed.SOPInstanceUID == plain.SOPInstanceUID


def test_the_png_is_the_slice_of_the_peak(tmp_path):
    sheet = volume_sheet(tmp_path / "work")
    ds = dicom(volume_sheet(tmp_path / "all", slices="all"), tmp_path, "dicom_sc")
    peak = int(at_voxels(sheet.values, sheet.grid, (12, 24, 20)).max(axis=(1, 2)).argmax())
    assert abs(sheet.peak_slice - peak) <= 1
    assert np.array_equal(sheet.picture, ds.pixel_array[sheet.peak_slice])


BOXED = TARGET.model_copy(
    update={
        "kind": "detection",
        "box": (3.2, 5.0, 4.0, 7.0, 15.0, 12.0),
        "patient": PatientBox(center=(1.5, -2.0, 30.0), size=(11.4, 8.0, 5.6)),
    }
)
"""On the slices 4 to 7, counted from 1."""


@pytest.mark.parametrize("style", ["overlay", "contour"])
def test_a_box_is_framed_on_its_own_slices_and_told_on_the_others(tmp_path, style):
    asked = {"style": style, "slices": "all"}
    plain, framed = (
        dicom(volume_sheet(tmp_path / each.kind, target=each, **asked), tmp_path, "dicom_sc")
        for each in (TARGET, BOXED)
    )
    before, after = (each.pixel_array[:, :24, :20] for each in (plain, framed))
    changed = (before != after).any(axis=(1, 2, 3))
    assert np.flatnonzero(changed).tolist() == [3, 4, 5, 6]
    for image, bare in zip(after[3:7], before[3:7], strict=True):
        assert (image[5, 4:12] == 255).all()
        assert (image[14, 4:12] == 255).all()
        assert (image[5:15, [4, 11]] == 255).all()
        assert np.array_equal(image[6:14, 5:11], bare[6:14, 5:11])
    legends = framed.pixel_array[[0, 3], 24:]
    assert not np.array_equal(legends[0], legends[1])


# ---------------------------------------------------------- the map and region


def test_a_parametric_map_has_every_value_at_its_place(tmp_path, series):
    sheet = volume_sheet(tmp_path / "work", series, blob((6, 8, 5), signed=True), signed=True)
    ds = dicom(sheet, tmp_path, "dicom_pm")
    (shared,) = ds.SharedFunctionalGroupsSequence
    assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == [0.8, 0.7]
    for capture in ("dicom_sc", "dicom_sc_word"):  # no spacing, but the same shape
        assert dicom(sheet, tmp_path, capture).PixelAspectRatio == [8, 7]
    assert_allclose(
        shared.PlaneOrientationSequence[0].ImageOrientationPatient, series.orientation, atol=1e-8
    )
    expected = at_voxels(sheet.values, sheet.grid, series.shape)
    frames = zip(ds.pixel_array, ds.PerFrameFunctionalGroupsSequence, strict=True)
    seen = set()
    for frame, group in frames:
        number = slice_at(group, series)
        seen.add(number)
        assert_allclose(frame, expected[number], atol=1e-6)
        (derived,) = group.DerivationImageSequence
        (of,) = derived.SourceImageSequence
        assert of.ReferencedSOPInstanceUID == f"2.25.10{number + 1}"
    assert seen == set(range(12))


def by_highdicom(series):
    """What highdicom lays out for a map of these slices."""
    slices = series.datasets()
    for each in slices:
        for keyword in REQUIRED:
            setattr(each, keyword, each.get(keyword) or "")
    meaning = highdicom.pm.RealWorldValueMapping(
        "relevance", "relevance", codes.UCUM.NoUnits, (0.0, 1.0), slope=1.0, intercept=0.0
    )
    return highdicom.pm.ParametricMap(
        slices,
        np.zeros(series.shape, np.float32),
        series_instance_uid="2.25.9",
        series_number=1,
        sop_instance_uid="2.25.10",
        instance_number=1,
        manufacturer="-",
        manufacturer_model_name="-",
        software_versions="-",
        device_serial_number="-",
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[meaning],
        voi_lut_transformations=[highdicom.VOILUTTransformation(0.0, 1.0)],
    )


def test_frames_are_laid_out_as_highdicom_does_it(tmp_path, series):
    ds = dicom(volume_sheet(tmp_path / "work", series), tmp_path, "dicom_pm")
    reference = by_highdicom(series)
    for made, expected in zip(
        ds.PerFrameFunctionalGroupsSequence,
        reference.PerFrameFunctionalGroupsSequence,
        strict=True,
    ):
        places = [each.PlanePositionSequence[0] for each in (made, expected)]
        assert_allclose(*(each.ImagePositionPatient for each in places), atol=1e-6)
        del made.PlanePositionSequence, expected.PlanePositionSequence  # rounded elsewhere
        assert made == expected
    for keyword in ("NumberOfFrames", "DimensionOrganizationType"):
        assert ds.get(keyword) == reference.get(keyword)
    assert ds.get("DimensionOrganizationType") == (None if series.tilt else "3D")


def test_a_segmentation_marks_the_salient_voxels_at_their_place(tmp_path, series):
    sheet = volume_sheet(tmp_path / "work", series)
    ds = dicom(sheet, tmp_path, "dicom_seg")
    inside = at_voxels(sheet.values, sheet.grid, series.shape) >= 0.5 * sheet.values.max()
    marked = np.zeros(series.shape, bool)
    frames = ds.pixel_array.reshape(ds.NumberOfFrames, *series.shape[1:])
    for frame, group in zip(frames, ds.PerFrameFunctionalGroupsSequence, strict=True):
        marked[slice_at(group, series)] = frame
    assert np.array_equal(marked, inside)


def test_the_16_bit_map_leads_back_to_relevance(tmp_path):
    sheet = volume_sheet(tmp_path / "work", values=blob((6, 8, 5), signed=True), signed=True)
    ds = dicom(sheet, tmp_path, "dicom_sc_word")
    found = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
    expected = at_voxels(sheet.values, sheet.grid, (12, 24, 20))
    assert_allclose(found, expected, atol=0.51 * float(ds.RescaleSlope))
    assert list(ds.PageNumberVector) == list(range(1, 13))


@pytest.mark.parametrize("name", ["dicom_pm", "dicom_seg"])
def test_slices_without_a_frame_of_reference_have_no_place_in_the_patient(tmp_path, name):
    nowhere = Series().volume().model_copy(update={"frame_of_reference_uid": ""})
    with pytest.raises(FormatNotApplicable) as refused:
        FORMATS[name]().write(volume_sheet(tmp_path / "work", volume=nowhere), tmp_path / "x")
    assert refused.value.facts["reason"] == "no_plane_in_patient"


# ------------------------------------------------------------- the references


def test_key_objects_are_the_slices_with_the_most_evidence(tmp_path):
    long = Series(shape=(50, 24, 20))
    sheet = volume_sheet(tmp_path / "work", long, blob((25, 8, 5)))
    ds = dicom(sheet, tmp_path, "dicom_ko")
    images = [each for each in ds.ContentSequence if each.ValueType == "IMAGE"]
    named = [each.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for each in images]
    shown = [each + 1 for each in sheet.key_slices]
    assert named == [f"2.25.10{each}" for each in shown]
    (study,) = ds.CurrentRequestedProcedureEvidenceSequence
    (of,) = study.ReferencedSeriesSequence
    assert of.SeriesInstanceUID == "2.25.2"
    assert [each.ReferencedSOPInstanceUID for each in of.ReferencedSOPSequence] == named
    assert ds.ConceptNameCodeSequence[0].CodeValue == "113000"


@pytest.mark.parametrize("name", ["dicom_ko", "dicom_sc", "dicom_sr", "dicom_pm"])
def test_frames_of_one_object_are_named_by_number(tmp_path, name):
    sheet = enhanced_sheet(tmp_path / "work", slices="all")
    ds = dicom(sheet, tmp_path, name)
    frames = []

    def look(_, element):
        if element.VR == "SQ":
            for item in element.value:
                if item.get("ReferencedSOPInstanceUID") == "2.25.77":
                    assert item.ReferencedSOPClassUID == ENHANCED_CT
                    named = item.get("ReferencedFrameNumber")
                    frames.append([named] if isinstance(named, int) else list(named or ()))

    ds.walk(look)
    every = list(range(1, 13))
    if name == "dicom_ko":
        every = [each + 1 for each in sheet.key_slices]
    assert every in frames or [[each] for each in every] == [each for each in frames if each][-12:]
    assert "2.25.77" in ds.to_json()


def test_the_report_names_every_slice_and_measures_the_region(tmp_path, series):
    sheet = volume_sheet(tmp_path / "work", series)
    files, _ = write(sheet, ["dicom_seg", "dicom_sr"], tmp_path)
    ds = pydicom.dcmread(next(file for each, file in files if each.format == "dicom_sr"))
    (study,) = ds.CurrentRequestedProcedureEvidenceSequence
    named = {
        item.ReferencedSOPInstanceUID
        for each in study.ReferencedSeriesSequence
        for item in each.ReferencedSOPSequence
    }
    assert {each.sop_instance_uid for each in series.volume().slices} < named
    numbers = dict(_numbers(ds))
    voxels = np.count_nonzero(
        at_voxels(sheet.values, sheet.grid, series.shape) >= 0.5 * sheet.values.max()
    )
    assert numbers["region_pixels"] == voxels
    assert numbers["region_volume"] == pytest.approx(voxels * 3.0 * 0.8 * 0.7, rel=1e-5)
    at = numbers["peak_slice"], numbers["peak_row"], numbers["peak_column"]
    assert at == pytest.approx(sheet.peak[0])
    assert (numbers["cell_slices"], numbers["cell_rows"], numbers["cell_columns"]) == (2, 3, 4)


def test_the_report_tells_the_box_in_voxels_and_in_the_patient(tmp_path):
    numbers = dict(
        _numbers(dicom(volume_sheet(tmp_path / "a", target=BOXED), tmp_path, "dicom_sr"))
    )
    edges = ("first_slice", "top", "left", "end_slice", "bottom", "right")
    assert tuple(numbers[f"box_{each}"] for each in edges) == BOXED.box
    assert tuple(numbers[f"box_center_{each}"] for each in "xyz") == BOXED.patient.center
    sizes = tuple(numbers[f"box_{each}"] for each in ("slices", "rows", "columns"))
    assert sizes == BOXED.patient.size


def _numbers(item):
    """Every number of a report, by the value of its code."""
    for each in item.get("ContentSequence", ()):
        if each.ValueType == "NUM":
            value = each.MeasuredValueSequence[0].NumericValue
            yield each.ConceptNameCodeSequence[0].CodeValue, float(value)
        yield from _numbers(each)


# ------------------------------------------------------------------ the arrays


@pytest.mark.parametrize("on_source_grid", [False, True])
def test_nifti_and_npz_place_every_cell_in_the_patient(tmp_path, series, on_source_grid):
    sheet = volume_sheet(tmp_path / "work", series, on_source_grid=on_source_grid)
    (tmp_path / "map.nii.gz").write_bytes(written(sheet, tmp_path, "nifti"))
    image = nibabel.load(tmp_path / "map.nii.gz")
    archive = np.load(io.BytesIO(written(sheet, tmp_path, "npz")))
    cells = archive["values"][0]
    assert_allclose(image.get_fdata(), cells.transpose(2, 1, 0), atol=1e-7)
    k, i, j = 3, 5, 2
    voxel = archive["affine"] @ [k, i, j, 1]
    lps = series.affine @ voxel
    assert_allclose(archive["patient_affine"] @ voxel, lps, atol=1e-4)
    assert_allclose(image.affine @ [j, i, k, 1], lps * [-1, -1, 1, 1], atol=1e-3)
    assert str(archive["axes"]) == "channel slice row column"


OBLIQUE = (0.6, 0.64, -0.48, 0.0, 0.6, 0.8)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(
    "series", [*SERIES[::2], Series(tilt=0.09), Series(orientation=OBLIQUE, tilt=-0.05)]
)
def test_itk_finds_a_nifti_where_the_patient_is(tmp_path, series, mirrored):
    """ITK reads axes at right angles alone: of a volume that is almost so, it has the nearest."""
    grid = Grid.partition((6, 8, 5), series.shape)
    if mirrored:  # as a model's steps may turn one axis over
        turn = np.diag([-1.0, 1, 1, 1])
        turn[0, 3] = 5
        grid = Grid(grid.shape, grid.affine @ turn)
    sheet = volume_sheet(tmp_path / "work", series, grid=grid)
    (tmp_path / "map.nii.gz").write_bytes(written(sheet, tmp_path, "nifti"))
    image = sitk.ReadImage(str(tmp_path / "map.nii.gz"))
    for cell in ((0, 0, 0), (5, 7, 4), (3, 5, 2), (2.5, 3.5, 2)):
        lps = (series.affine @ grid.affine @ [*cell, 1])[:3]
        found = image.TransformContinuousIndexToPhysicalPoint(cell[::-1])
        assert_allclose(found, lps, atol=1e-3 if cell[0] == 2.5 else 0.03)
    own = nibabel.load(tmp_path / "map.nii.gz")
    assert_allclose(own.get_qform(), own.affine, atol=0.05)


def test_itk_refuses_the_nifti_of_a_sheared_volume(tmp_path):
    sheet = volume_sheet(tmp_path / "work", Series(tilt=9.0))
    (tmp_path / "map.nii.gz").write_bytes(written(sheet, tmp_path, "nifti"))
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(tmp_path / "map.nii.gz"))


def test_json_holds_the_volume_and_says_how_its_axes_run(tmp_path):
    document = json.loads(written(volume_sheet(tmp_path / "work"), tmp_path, "json"))
    assert document["map"]["axes"] == ["channel", "slice", "row", "column"]
    assert np.shape(document["map"]["values"]) == (1, 6, 8, 5)
    assert document["image"]["slices"] == 12


def test_json_of_too_many_values_is_left_out_with_the_alternatives(tmp_path):
    values = np.zeros((1, 128, 128, 65), np.float32)
    files, (omitted,) = write(volume_sheet(tmp_path, values=values), ["json"], tmp_path)
    assert files == []
    assert omitted.reason.facts["alternatives"] == ["npy", "npz", "nifti"]


def test_the_same_map_gives_the_same_bytes(tmp_path):
    names = [name for name in FORMATS if FORMATS[name].media_type == "application/dicom"]
    first, _ = write(volume_sheet(tmp_path / "a"), names, tmp_path / "a")
    second, _ = write(volume_sheet(tmp_path / "b"), names, tmp_path / "b")
    assert [each.sha256 for each, _ in first] == [each.sha256 for each, _ in second]


def test_another_slice_is_another_object(tmp_path):
    """A UID never comes again with other pixels."""
    whole = dicom(volume_sheet(tmp_path / "a", slices="all"), tmp_path, "dicom_sc")
    some = volume_sheet(tmp_path / "b", values=blob((6, 8, 5)) * (blob((6, 8, 5)) > 0.2))
    assert dicom(some, tmp_path, "dicom_sc").SOPInstanceUID != whole.SOPInstanceUID
