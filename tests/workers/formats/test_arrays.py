"""Archives for programs: NPZ read by NumPy, NIfTI by nibabel."""

import gzip
import io

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
from numpy.testing import assert_allclose, assert_array_equal

from service.domain.grid import Grid
from tests.support.sheets import blob

NATIVE = blob((12, 10))
CELLS = Grid.partition((12, 10), (600, 500))
SAGITTAL = {
    "FrameOfReferenceUID": "2.25.4",
    "ImagePositionPatient": [-12.5, -100, 80],
    "ImageOrientationPatient": [0, 1, 0, 0, 0, -1],
    "PixelSpacing": [0.5, 0.25],
    "SliceThickness": "3",
}
BROKEN = [
    {},
    {**SAGITTAL, "ImagePositionPatient": [0, 0]},
    {**SAGITTAL, "ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
    {**SAGITTAL, "ImageOrientationPatient": [2, 0, 0, 0, 1, 0]},
    {**SAGITTAL, "PixelSpacing": [0, 0.25]},
]


def lps(row, column):
    """By hand: columns run to posterior, rows to the feet."""
    return np.array([-12.5, -100 + 0.25 * column, 80 - 0.5 * row])


def nifti(data: bytes) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(data))


def test_npz_places_the_values_in_image_and_patient(written):
    with np.load(io.BytesIO(written("npz", elements=SAGITTAL)), allow_pickle=False) as archive:
        assert_array_equal(archive["values"], NATIVE)
        assert_allclose(archive["affine"], CELLS.affine)
        point = archive["patient_affine"] @ [7, 11, 0, 1]
        assert_allclose(point[:3], lps(7, 11))
        assert (archive["method"], archive["target"], archive["grid"]) == (
            "grad_cam",
            "effusion",
            "native",
        )
        assert archive["method_version"] == 3
        assert archive["score"] == 2.5


@pytest.mark.parametrize("elements", BROKEN)
def test_npz_claims_no_place_in_the_patient_without_a_valid_plane(written, elements):
    with np.load(io.BytesIO(written("npz", elements=elements)), allow_pickle=False) as archive:
        assert "patient_affine" not in archive


@pytest.mark.parametrize("uid", ["", "1.2.840.113619.2.5.099", "no uid"])
def test_arrays_keep_the_place_of_an_image_without_a_valid_frame_of_reference(written, uid):
    whole = written("npz", elements=SAGITTAL)
    with np.load(io.BytesIO(whole)) as placed:
        affine = placed["patient_affine"]
    with np.load(
        io.BytesIO(written("npz", elements={**SAGITTAL, "FrameOfReferenceUID": uid}))
    ) as bare:
        assert_array_equal(bare["patient_affine"], affine)


def test_the_same_map_gives_the_same_archive(written):
    assert written("npz") == written("npz")
    assert written("nifti") == written("nifti")


@pytest.mark.parametrize("on_source_grid", [False, True])
def test_nifti_puts_each_cell_where_the_patient_has_it(written, on_source_grid):
    image = nifti(written("nifti", elements=SAGITTAL, on_source_grid=on_source_grid))
    row, column = (300, 70) if on_source_grid else (6, 1)
    at = (row, column) if on_source_grid else CELLS.to_source((row, column))
    placed = image.affine @ [column, row, 0, 1]
    assert_allclose(placed[:3], lps(*at) * [-1, -1, 1], rtol=1e-6)
    edge = (0.25, 0.5) if on_source_grid else (12.5, 25)
    assert_allclose(image.header.get_zooms(), (*edge, 3))
    assert image.header.get_xyzt_units()[0] == "mm"
    assert int(image.header["sform_code"]) == 1


def test_itk_reads_a_nifti_of_cosines_that_are_not_exact(written, tmp_path):
    rounded = [0, 1, 0.0005, 0, 0, -1]
    file = tmp_path / "map.nii.gz"
    file.write_bytes(written("nifti", elements={**SAGITTAL, "ImageOrientationPatient": rounded}))
    placed = sitk.ReadImage(str(file)).TransformIndexToPhysicalPoint((1, 6, 0))
    assert_allclose(placed, lps(*CELLS.to_source((6, 1))), atol=0.06)


@pytest.mark.parametrize("elements", BROKEN)
def test_nifti_without_a_plane_counts_source_pixels(written, elements):
    image = nifti(written("nifti", elements=elements))
    row, column = CELLS.to_source((6, 1))
    assert_allclose((image.affine @ [1, 6, 0, 1])[:3], (column, row, 0))
    assert image.header.get_xyzt_units()[0] == "unknown"
    assert int(image.header["sform_code"]) == 2


@pytest.mark.parametrize("channels", [1, 3])
def test_nifti_holds_the_raw_values(written, channels):
    values = np.random.default_rng(0).normal(size=(channels, 12, 10)).astype(np.float32)
    image = nifti(written("nifti", values=values))
    read = np.asarray(image.dataobj)
    assert read.dtype == np.float32
    assert read.shape == ((10, 12, 1) if channels == 1 else (10, 12, 1, 1, 3))
    assert_array_equal(read.reshape(10, 12, channels), np.transpose(values, (2, 1, 0)))


@pytest.mark.parametrize("format_", ["npz", "nifti"])
def test_no_patient_is_in_arrays(written, format_):
    data = written(format_, elements=SAGITTAL)
    for word in (b"Canary", b"CANARY", b"2.25."):
        assert word not in data
