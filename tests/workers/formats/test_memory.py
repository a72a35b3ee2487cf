"""Writing a map of a volume takes no more memory than it may, whatever the format."""

import gzip
import io
import tracemalloc
import zipfile

import nibabel
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from service.domain.grid import Grid
from tests.support.volumes import Series, volume_sheet
from workers.formats.sheet import Sheet
from workers.sheets import write

SHAPE = (24, 384, 384)
VOLUME = 4 * 24 * 384 * 384
MOST = 3
"""Volumes of memory that writing one may take, with its values."""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Sheet:
    """A map with a value for each voxel, of noise: it cannot be packed."""
    noise = np.random.default_rng(0).standard_normal((1, *SHAPE)).astype(np.float32)
    folder = tmp_path_factory.mktemp("volume")
    return volume_sheet(folder, Series(shape=SHAPE), noise, Grid.identity(SHAPE), signed=True)


def anew(sheet: Sheet) -> Sheet:
    """The same with nothing read yet."""
    return Sheet(sheet.record, sheet.map_file, sheet.display_file, sheet.header_file)


@pytest.mark.parametrize(
    "format_", ["npy", "npz", "nifti", "dicom_pm", "dicom_sc_word", "dicom_seg", "dicom_sr"]
)
def test_no_format_takes_more_than_three_volumes(drawn, tmp_path, format_):
    write(volume_sheet(tmp_path / "small"), [format_], tmp_path)  # tables are read once
    tracemalloc.start()
    try:
        _, omitted = write(anew(drawn), [format_], tmp_path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not omitted
    assert most < MOST * VOLUME


def test_what_is_written_piece_by_piece_is_whole(drawn, tmp_path):
    ((_, nifti), (_, npz)), _ = write(anew(drawn), ["nifti", "npz"], tmp_path)
    values = np.load(drawn.map_file)
    unpacked = gzip.decompress(nifti.read_bytes())  # holds CRC and length against the data
    image = nibabel.Nifti1Image.from_bytes(unpacked)
    assert_array_equal(image.get_fdata(dtype=np.float32).transpose(2, 1, 0), values[0])
    with zipfile.ZipFile(npz) as archive:
        assert archive.testzip() is None
        assert archive.infolist()[0].compress_type == zipfile.ZIP_STORED
        assert_array_equal(np.load(io.BytesIO(archive.read("values.npy"))), values)
