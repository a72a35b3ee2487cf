"""Segments that other programs marked, on the grid of a model's input."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest

from examples.planted.dicom import plate
from examples.planted.pictures import shapes
from service.domain.grid import Grid
from service.errors.base import WhylightError
from service.errors.requests import InvalidTarget
from tests.support import corpus
from tests.support.segmentations import segmentation, written
from tests.support.volumes import CORONAL, Series
from workers.volumes.segment import Subject, read_segment

SERIES = Series()
PICTURE = shapes(4_712, {"cyst": 1, "stone": 1})
CENTER, RADIUS = np.array([-33.0, 39.0, -683.0]), 6.0
"""Of a ball in the patient, in mm."""


def ball(series):
    """Return the voxels of a series whose centers lie in the ball."""
    index = np.moveaxis(np.indices(series.shape), 0, -1)
    places = index @ series.affine[:3, :3].T + series.affine[:3, 3]
    return np.linalg.norm(places - CENTER, axis=-1) < RADIUS


def subject(series, **changes):
    volume = series.volume()
    known = {
        "frame_of_reference_uid": "2.25.99",
        "affine": volume.affine,
        "frames": tuple((each.sop_instance_uid, each.frame) for each in volume.slices),
        "rows": volume.rows,
        "columns": volume.columns,
    }
    return Subject(**{**known, **changes})


def plain(**changes):
    """Return the planted picture, which does not say where in the patient it lies."""
    data = plate(PICTURE, "segmented", "KIDNEY")
    rows, columns = PICTURE.stored.shape
    known = {
        "frame_of_reference_uid": "",
        "affine": None,
        "frames": ((data.SOPInstanceUID, None),),
        "rows": rows,
        "columns": columns,
    }
    return data, Subject(**{**known, **changes})


def read(folder, made, segment, of, grid=None, *, most=1 << 24):
    file = folder / "seg.dcm"
    file.write_bytes(made if isinstance(made, bytes) else written(made))
    grid = grid or Grid.identity((len(of.frames), of.rows, of.columns))
    return read_segment(file, segment, of, grid, max_voxels=most)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_a_segment_of_a_volume_lies_where_it_was_marked(tmp_path, kind):
    truth, rest = ball(SERIES), np.zeros(SERIES.shape, bool)
    rest[9, 2:9, 3:6] = True
    stacked = np.stack([truth, rest], -1)
    if kind == "FRACTIONAL":
        stacked = np.where(stacked, 0.8, 0.2)  # above and below one half
    elif kind == "LABELMAP":
        stacked = truth + 2 * rest
    made = segmentation(SERIES.datasets(), stacked, kind)
    for segment, expected in ((1, truth), ("Lesion", truth), (2, rest), ("Organ", rest)):
        number, mask = read(tmp_path, made, segment, subject(SERIES))
        assert number == (1 if expected is truth else 2)
        np.testing.assert_array_equal(mask, expected)


def test_it_is_read_at_the_centers_of_the_models_own_cells(tmp_path):
    truth = ball(SERIES)
    grid = Grid.partition((12, 8, 4), SERIES.shape)  # no center on an edge
    _, mask = read(tmp_path, segmentation(SERIES.datasets(), truth), None, subject(SERIES), grid)
    places = np.rint(grid.to_source(np.moveaxis(np.indices(grid.shape), 0, -1))).astype(int)
    np.testing.assert_array_equal(mask, truth[tuple(np.moveaxis(places, -1, 0))])


@pytest.mark.parametrize(
    "other",
    [
        Series(shape=(20, 40, 30), spacing=(2.0, 0.5, 0.5), origin=(-41.0, 29.0, -703.0)),
        Series(
            shape=(40, 40, 30),
            orientation=CORONAL,
            spacing=(0.5, 0.8, 0.6),
            origin=(-42.0, 29.0, -670.0),
        ),
        Series(
            shape=(20, 40, 30), spacing=(2.0, 0.5, 0.5), tilt=12.0, origin=(-41.0, 29.0, -703.0)
        ),
    ],
    ids=["finer", "coronal", "tilted"],
)
def test_one_that_was_marked_on_another_series_is_found_by_the_frame_of_reference(tmp_path, other):
    elements = {"SeriesInstanceUID": "2.25.7", "FrameOfReferenceUID": "2.25.99"}
    other = replace(other, elements=elements)
    marked, truth = ball(other), ball(SERIES)
    assert marked.any()
    _, mask = read(tmp_path, segmentation(other.datasets(), marked), 1, subject(SERIES))
    assert mask.sum() == pytest.approx(truth.sum(), rel=0.15)
    # they differ at the surface alone: by half a voxel of either series, aslant
    index = np.argwhere(mask != truth)
    places = index @ SERIES.affine[:3, :3].T + SERIES.affine[:3, 3]
    away = np.abs(np.linalg.norm(places - CENTER, axis=-1) - RADIUS)
    assert away.size == 0 or away.max() <= np.linalg.norm(other.spacing) / 2 + 1e-6


def test_slices_that_a_segmentation_leaves_out_are_empty(tmp_path):
    truth = np.zeros(SERIES.shape, bool)
    truth[3, 4:8, 4:8] = truth[7, 4:8, 4:8] = True
    made = segmentation(SERIES.datasets(), truth)
    assert made.NumberOfFrames == 2
    _, mask = read(tmp_path, made, 1, subject(SERIES))
    np.testing.assert_array_equal(mask, truth)


def test_without_a_place_in_the_patient_it_lies_on_the_image_that_it_names(tmp_path):
    data, of = plain()
    made = segmentation([data], PICTURE.masks["cyst"][None])
    half = Grid.partition((64, 64), PICTURE.stored.shape)
    _, mask = read(tmp_path, made, "Lesion", of, half)
    places = np.rint(half.to_source(np.moveaxis(np.indices((64, 64)), 0, -1))).astype(int)
    np.testing.assert_array_equal(mask, PICTURE.masks["cyst"][places[..., 0], places[..., 1]])


def test_a_frame_of_several_is_not_meant_by_the_name_of_the_object_alone(tmp_path):
    data, of = plain()
    made = segmentation([data], PICTURE.masks["cyst"][None])
    of = of.model_copy(update={"frames": ((data.SOPInstanceUID, 4),)})
    with pytest.raises(InvalidTarget) as caught:
        read(tmp_path, made, 1, of, Grid.identity((128, 128)))
    assert caught.value.facts["reason"] == "not_of_this_image"


REFUSED = {
    "of another image": ({"frames": (("2.25.1", None),)}, 1, "not_of_this_image"),
    "of another size": ({"rows": 64}, 1, "not_of_this_image"),
    "no such number": ({}, 3, "no_such_segment"),
    "no such label": ({}, "Fracture", "no_such_segment"),
    "several, and none named": ({}, None, "no_such_segment"),
    "a segment without pixels": ({}, 2, "empty_segment"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_region_of_the_image_is_refused_by_name(tmp_path, case):
    changes, segment, reason = REFUSED[case]
    data, of = plain(**changes)
    mask = np.stack([PICTURE.masks["cyst"], np.zeros_like(PICTURE.masks["cyst"])], -1)[None]
    with pytest.raises(InvalidTarget) as caught:
        read(tmp_path, segmentation([data], mask), segment, of, Grid.identity((of.rows, 128)))
    assert caught.value.facts["reason"] == reason
    if reason == "no_such_segment":
        assert caught.value.facts["segments"] == [1, 2]


def test_another_frame_of_reference_is_refused(tmp_path):
    made = segmentation(SERIES.datasets(), ball(SERIES))
    of = subject(SERIES, frame_of_reference_uid="2.25.98", frames=(("2.25.5", None),) * 12)
    with pytest.raises(InvalidTarget) as caught:
        read(tmp_path, made, 1, of)
    assert caught.value.facts["reason"] == "not_of_this_image"


def test_a_damaged_one_and_one_too_large_are_refused(tmp_path):
    made = written(segmentation(SERIES.datasets(), ball(SERIES)))
    with pytest.raises(WhylightError):
        read(tmp_path, made[: len(made) - 200], 1, subject(SERIES))
    with pytest.raises(WhylightError):
        read(tmp_path, made, 1, subject(SERIES), most=600)
    broken = pydicom.dcmread(tmp_path / "seg.dcm")
    del broken.SegmentSequence[0].SegmentNumber
    with pytest.raises(InvalidTarget):
        read(tmp_path, written(broken), 1, subject(SERIES))


@pytest.mark.skipif(not corpus.FOLDER, reason=corpus.REASON)
def test_a_real_one_is_read_as_the_reference_reads_it(tmp_path):
    (file,) = [each for each in corpus.FILES if each.name == "liver.dcm"]
    ds = pydicom.dcmread(file)
    groups = ds.PerFrameFunctionalGroupsSequence
    shared = ds.SharedFunctionalGroupsSequence[0]
    row, column = np.reshape(
        shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)
    ).astype(float)
    down, right = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    places = np.array([g.PlanePositionSequence[0].ImagePositionPatient for g in groups], float)
    order = np.argsort(places @ np.cross(row, column))
    affine = np.eye(4)
    affine[:3] = np.stack(
        [np.diff(places[order], axis=0)[0], down * column, right * row, places[order][0]], 1
    )
    of = Subject(
        frame_of_reference_uid=ds.FrameOfReferenceUID,
        affine=tuple(map(tuple, affine.tolist())),
        frames=tuple(("2.25.1", None) for _ in groups),
        rows=ds.Rows,
        columns=ds.Columns,
    )
    label = ds.SegmentSequence[0].SegmentLabel
    _, mask = read(tmp_path, file.read_bytes(), label, of)
    np.testing.assert_array_equal(mask, ds.pixel_array[order].astype(bool))
