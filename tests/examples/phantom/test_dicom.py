import io
import os
import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from pydicom.uid import ComputedRadiographyImageStorage

from examples.packaging import write_object
from examples.phantom.chest import Case, draw
from examples.phantom.dicom import dataset
from examples.phantom.samples import full_size, read

CASE = Case(12, frozenset({"nodule", "cardiomegaly"}))


@pytest.fixture(scope="module")
def radiograph():
    return draw(CASE, full_size(CASE))


def written(tmp_path, radiograph, photometric, *, compress):
    path = tmp_path / "phantom.dcm"
    write_object(path, dataset(CASE, radiograph, photometric), compress=compress)
    return path


@pytest.mark.dcmtk
@pytest.mark.skipif(
    shutil.which("dciodvfy") is None and not os.environ.get("CI"),
    reason="dciodvfy (dicom3tools) is not installed",
)
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_dciodvfy_finds_no_error(tmp_path, radiograph, photometric, compress):
    path = written(tmp_path, radiograph, photometric, compress=compress)
    verdict = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    assert "CRImage" in verdict.stderr
    assert "Error" not in verdict.stderr


@pytest.mark.parametrize("compress", [False, True])
def test_pixels_come_back_as_they_were_drawn(tmp_path, radiograph, compress):
    path = written(tmp_path, radiograph, "MONOCHROME2", compress=compress)
    assert np.array_equal(pydicom.dcmread(path).pixel_array, radiograph.stored)


def test_it_is_a_large_twelve_bit_computed_radiograph(tmp_path, radiograph):
    data = pydicom.dcmread(written(tmp_path, radiograph, "MONOCHROME2", compress=False))
    assert data.SOPClassUID == ComputedRadiographyImageStorage
    assert min(data.Rows, data.Columns) >= 1024
    assert (data.BitsAllocated, data.BitsStored) == (16, 12)
    assert (data.Modality, data.BodyPartExamined, data.ViewPosition) == ("CR", "CHEST", "PA")


def test_nobody_could_take_it_for_a_patient(radiograph):
    data = dataset(CASE, radiograph)
    assert data.PatientName == "PHANTOM^CHEST"
    assert data.PatientID.startswith("PHANTOM-")


def test_both_photometric_interpretations_show_the_model_the_same(radiograph):
    inputs = []
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        buffer = io.BytesIO()
        dataset(CASE, radiograph, photometric).save_as(buffer, enforce_file_format=True)
        inputs.append(read(buffer.getvalue()))
    np.testing.assert_allclose(inputs[0], inputs[1], atol=1e-5)


def test_the_same_phantom_is_the_same_file(tmp_path, radiograph):
    first = written(tmp_path, radiograph, "MONOCHROME2", compress=False).read_bytes()
    assert first == written(tmp_path, radiograph, "MONOCHROME2", compress=False).read_bytes()


def test_other_pixels_never_bear_the_same_uid(radiograph):
    uids = {
        dataset(CASE, radiograph).SOPInstanceUID,
        dataset(CASE, radiograph, "MONOCHROME1").SOPInstanceUID,
        dataset(CASE, draw(CASE, (640, 640))).SOPInstanceUID,
    }
    assert len(uids) == 3
