"""What the slices of a series are to each other, told by their positions alone."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.dicom.dataset import parsed
from service.dicom.header import header_of
from service.domain.volume import Geometry
from tests.support import corpus
from tests.support.phantom_dicom import encoded
from tests.support.volumes import AXIAL, CORONAL, SAGITTAL, Series, enhanced
from workers.volumes.assemble import assemble
from workers.volumes.planes import planes_of

OBLIQUE = (0.96, 0.28, 0.0, -0.168, 0.576, 0.8)


def planes(datasets, tmp_path):
    """The planes of data sets, each by way of a file."""
    found = []
    for number, dataset in enumerate(datasets):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(encoded(dataset))
        found += planes_of_file(path)
    return found


def planes_of_file(path):
    with parsed(path, max_samples=corpus.LIMIT) as found:
        return list(planes_of(found, header_of(found, max_samples=corpus.LIMIT, identified=False)))


def made(series, tmp_path):
    return planes(series.datasets(), tmp_path)


@pytest.fixture
def regular(tmp_path):
    return made(Series(), tmp_path)


def moved(plane, *, along=0.0, **changes):
    """A plane some mm further along z."""
    x, y, z = plane.position
    return replace(plane, position=(x, y, z + along), **changes)


@pytest.mark.parametrize(
    ("orientation", "plane"),
    [(AXIAL, "axial"), (CORONAL, "coronal"), (SAGITTAL, "sagittal"), (OBLIQUE, "coronal")],
)
def test_a_regular_series_is_placed_as_its_writer_meant(tmp_path, orientation, plane):
    series = Series(orientation=orientation, origin=(-40.5, 30.25, 700.125))
    assembly = assemble(made(series, tmp_path))
    assert assembly.geometry is Geometry.REGULAR
    assert assembly.volume.plane == plane
    assert np.allclose(assembly.volume.matrix, series.affine, atol=1e-5)
    assert assembly.volume.shape == series.shape
    assert assembly.steps.median == pytest.approx(3.0, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_point_of_any_slice_lies_where_its_own_header_says(data, tmp_path_factory):
    unit = st.floats(-1, 1)
    a, b = (data.draw(st.tuples(unit, unit, unit)) for _ in range(2))
    row = np.add(a, (2, 0, 0)) / np.linalg.norm(np.add(a, (2, 0, 0)))
    column = np.add(b, (0, 2, 0))
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    length = st.floats(0.3, 8)
    series = Series(
        shape=(data.draw(st.integers(2, 9)), 4, 3),
        orientation=(*row, *column),
        spacing=(data.draw(length), data.draw(length), data.draw(length)),
        tilt=data.draw(st.sampled_from([0, 0, 5.0, -18.5, 30.0])),
    )
    found = made(series, tmp_path_factory.mktemp("series"))
    random.Random(data.draw(st.integers(0, 99))).shuffle(found)  # noqa: S311 - no secret
    assembly = assemble(found)
    assert assembly.geometry is (Geometry.SHEARED if series.tilt else Geometry.REGULAR)
    volume = assembly.volume
    assert volume.tilt == pytest.approx(abs(series.tilt), abs=0.05)
    for place, number in enumerate(assembly.order):
        plane = found[number]
        assert volume.slices[place].position == plane.position
        along_row, along_column = np.reshape(plane.orientation, (2, 3))
        by_header = (  # PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1
            np.array(plane.position)
            + along_column * plane.spacing[0] * 3
            + along_row * plane.spacing[1] * 2
        )
        by_affine = (volume.matrix @ (place, 3, 2, 1))[:3]
        assert np.abs(by_header - by_affine).max() < 1e-4


def test_a_reversed_series_is_the_same_volume(regular):
    backward = assemble(regular[::-1])
    assert backward.volume == assemble(regular).volume
    assert backward.order == tuple(reversed(range(12)))


def test_numbers_and_names_do_not_decide_the_order(tmp_path):
    datasets = Series().datasets()
    for number, dataset in enumerate(datasets):
        dataset.InstanceNumber = (number * 5) % 12
        dataset.SOPInstanceUID = f"2.25.{(number * 7) % 12 + 1}"
    volume = assemble(planes(datasets, tmp_path)).volume
    heights = [each.position[2] for each in volume.slices]
    assert heights == sorted(heights)
    assert volume.matrix == pytest.approx(Series().affine, abs=1e-5)


def test_a_tilted_gantry_is_sheared_and_not_straightened(tmp_path):
    series = Series(tilt=18.5)
    assembly = assemble(made(series, tmp_path))
    assert assembly.geometry is Geometry.SHEARED
    assert assembly.volume.tilt == pytest.approx(18.5, abs=1e-3)
    assert np.allclose(assembly.volume.matrix, series.affine, atol=1e-5)


@pytest.mark.parametrize(("tilt", "geometry"), [(0.08, "regular"), (0.12, "sheared")])
def test_a_tenth_of_a_degree_is_the_limit_of_straight(tmp_path, tilt, geometry):
    assert assemble(made(Series(tilt=tilt), tmp_path)).geometry == geometry


def test_a_missing_slice_is_counted(regular):
    assembly = assemble([*regular[:4], *regular[6:]])
    assert (assembly.geometry, assembly.missing) == (Geometry.IRREGULAR, 2)
    assert assembly.volume is None
    assert assembly.steps.greatest == pytest.approx(9.0)
    (gap,) = assembly.gaps
    assert (gap.after, gap.before) == (regular[3], regular[6])
    assert gap.step == pytest.approx(9.0)


def test_a_spacing_that_changes_is_irregular(tmp_path):
    offsets = tuple(np.cumsum([0, *[4.2] * 6, *[7.4] * 5]))
    assembly = assemble(made(Series(offsets=offsets), tmp_path))
    assert (assembly.geometry, assembly.missing, assembly.volume) == (Geometry.IRREGULAR, 0, None)


def test_small_errors_that_add_up_are_irregular(tmp_path):
    offsets = tuple(np.cumsum([0, *[3.0] * 6, *[3.09] * 5]))  # each step is within 0.1 mm
    assert assemble(made(Series(offsets=offsets), tmp_path)).geometry is Geometry.IRREGULAR


def test_a_slice_shifted_within_its_own_plane_is_irregular(regular):
    shifted = replace(regular[5], position=tuple(np.add(regular[5].position, (2, 0, 0))))
    assembly = assemble([*regular[:5], shifted, *regular[6:]])
    assert assembly.geometry is Geometry.IRREGULAR


@pytest.mark.parametrize(("off", "geometry"), [(0.04, "regular"), (0.3, "irregular")])
def test_a_step_may_be_off_by_a_tenth_of_a_mm(regular, off, geometry):
    assembly = assemble([*regular[:5], moved(regular[5], along=off), *regular[6:]])
    assert assembly.geometry == geometry


@pytest.mark.parametrize("apart", [0.0, 0.005, 0.05, 0.25])
def test_two_slices_at_one_place_are_duplicates(regular, apart):
    twin = moved(regular[3], along=apart, sop_instance_uid="2.25.77")
    assembly = assemble([*regular, twin])
    assert (assembly.geometry, assembly.volume) == (Geometry.DUPLICATES, None)
    (gap,) = assembly.gaps
    assert {gap.after, gap.before} == {regular[3], twin}
    assert gap.step == pytest.approx(apart)


def test_a_series_of_twins_is_one_of_duplicates(regular):
    twins = [
        moved(each, along=0.05, sop_instance_uid=f"{each.sop_instance_uid}.1") for each in regular
    ]
    assembly = assemble([*regular, *twins])
    assert assembly.geometry is Geometry.DUPLICATES
    assert len(assembly.gaps) == len(regular)


def test_tolerances_are_those_of_thin_slices(tmp_path):
    offsets = tuple(np.cumsum([0, *[0.2] * 5, 0.35, *[0.2] * 4, 0.15]))
    assembly = assemble(made(Series(offsets=offsets), tmp_path))
    assert (assembly.geometry, assembly.missing) == (Geometry.IRREGULAR, 0)
    assert [gap.step for gap in assembly.gaps] == pytest.approx([0.35, 0.15])


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({"orientation": CORONAL}, "orientation"),
        ({"spacing": (0.8, 0.71)}, "spacing"),
        ({"rows": 25}, "size"),
        ({"frame_of_reference_uid": "2.25.98"}, "frame_of_reference"),
    ],
)
def test_slices_that_do_not_go_together_are_mixed_and_say_in_what(regular, changes, differing):
    assembly = assemble([*regular[:-1], replace(regular[-1], **changes)])
    assert (assembly.geometry, assembly.differing) == (Geometry.MIXED, (differing,))
    assert [plane.sop_instance_uid for plane in assembly.odd] == [regular[-1].sop_instance_uid]


def test_orientations_that_drift_apart_are_told_by_those_far_from_most(regular):
    angles = np.linspace(0, 0.0012, len(regular))  # more than is allowed, in steps that are not
    turned = [
        replace(plane, orientation=(*AXIAL[:3], *(0, np.cos(angle), np.sin(angle))))
        for plane, angle in zip(regular, angles, strict=True)
    ]
    assembly = assemble(turned)
    assert assembly.geometry is Geometry.MIXED
    assert 0 < len(assembly.odd) < len(regular)


@pytest.mark.parametrize(
    "elements",
    [
        {"ImagePositionPatient": None},
        {"ImagePositionPatient": ["1", "2"]},
        {"ImageOrientationPatient": None},
        {"ImageOrientationPatient": ["1", "0", "0", "1", "0", "0"]},
        {"PixelSpacing": None},
        {"PixelSpacing": ["0", "0.7"]},
    ],
)
def test_a_slice_without_a_valid_place_leaves_no_volume(tmp_path, elements):
    datasets = Series().datasets()
    datasets[4] = Series().dataset(4, **elements)
    found = planes(datasets, tmp_path)
    assembly = assemble(found)
    assert (assembly.geometry, assembly.unplaced) == (Geometry.NONE, (found[4],))


def test_one_slice_is_no_volume(regular):
    assert assemble(regular[:1]).geometry is Geometry.NONE
    assert assemble([]).geometry is Geometry.NONE


def test_frames_of_an_enhanced_object_are_placed_by_their_groups(tmp_path):
    series = Series(tilt=4.0)
    path = tmp_path / "enhanced.dcm"
    path.write_bytes(encoded(enhanced(series)))
    assembly = assemble(planes_of_file(path))
    assert np.allclose(assembly.volume.matrix, series.affine, atol=1e-5)
    assert [each.frame for each in assembly.volume.slices] == list(range(1, 13))
    assert assembly.geometry is Geometry.SHEARED


@pytest.mark.skipif(not corpus.FILES, reason=corpus.REASON)
@pytest.mark.parametrize(
    ("folder", "slices", "geometry"),
    [
        ("dcm_qa_ct/In_Philips_S21570_S2010", 28, "regular"),
        ("dcmqi/paramaps_pm-example-dcm.zip__701-ADCb500", 20, "regular"),
        ("dicom2nifti/tests_data_generic_compressed_jpegls_001", 4, "regular"),
        ("dcm4che/dcm4che-assembly_src_etc_testdata_dicom", 16, "regular"),
        ("s_data_siemens_multiframe_anatomical_001", 8, "regular"),
        ("sts_data_philips_enhanced_anatomical_001", 8, "regular"),
    ],
)
def test_a_real_series_lies_where_simpleitk_puts_it(folder, slices, geometry):
    sitk = pytest.importorskip("SimpleITK")
    files = [each for each in corpus.FILES if folder in str(each)]
    found = [plane for each in files for plane in planes_of_file(each)]
    assembly = assemble(found)
    assert (len(found), assembly.geometry) == (slices, geometry)
    several = len(files) > 1
    names = [str(files[number]) for number in assembly.order] if several else str(files[0])
    image = sitk.ReadImage(names)
    depth, rows, columns = assembly.volume.shape
    for corner in ((0, 0, 0), (depth - 1, rows - 1, 0), (depth - 1, 0, columns - 1)):
        ours = (assembly.volume.matrix @ (*corner, 1))[:3]
        theirs = image.TransformIndexToPhysicalPoint(tuple(map(int, corner[::-1])))
        assert np.abs(ours - theirs).max() < 0.15


@pytest.mark.skipif(not corpus.FILES, reason=corpus.REASON)
def test_a_real_series_whose_steps_differ_by_a_percent_is_regular():
    found = [
        plane
        for each in corpus.FILES
        if "Papaya/tests_data_dicom" in str(each)
        for plane in planes_of_file(each)
    ]
    assembly = assemble(found)
    assert assembly.geometry is Geometry.REGULAR
    assert 1.01 < assembly.steps.greatest / assembly.steps.least < 1.02


@pytest.mark.skipif(not corpus.FILES, reason=corpus.REASON)
def test_a_real_object_whose_frames_share_places_is_no_volume():
    assembly = assemble(planes_of_file(corpus.find("MOVEKNEE.dcm")))
    assert assembly.geometry is Geometry.DUPLICATES
