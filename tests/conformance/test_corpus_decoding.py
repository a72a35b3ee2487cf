"""Every real single-frame image against decoders that share no code with ours."""

import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_allclose
from PIL import Image
from pydicom.pixels import apply_modality_lut, pixel_array
from pydicom.pixels.processing import apply_color_lut

from service.dicom.header import read_header
from service.errors.base import WhylightError
from tests.support import corpus
from tests.support.programs import needs
from workers.pixels.decode import DecodedFiles, decode_file

pytestmark = pytest.mark.skipif(not corpus.FOLDER, reason=corpus.REASON)

REFUSED = {
    "DICOMDIR": "no_pixel_data",
    "MR_truncated.dcm": "truncated",
    "ExplVR_BigEndNoMeta.dcm": "no_pixel_data",
    "badVR.dcm": "absurd_dimensions",
    "empty_charset_LEI.dcm": "no_pixel_data",
    "nested_priv_SQ.dcm": "absurd_dimensions",
    "no_meta.dcm": "not_dicom",
    "reportsi.dcm": "no_pixel_data",
    "rtplan.dcm": "no_pixel_data",
    "GH1339.dcm": "truncated",
    "test_SR.dcm": "no_pixel_data",
    "chrJapMulti.dcm": "no_pixel_data",
    "chrJapMultiExplicitIR6.dcm": "no_pixel_data",
    "chrSQEncoding.dcm": "no_pixel_data",
    "chrSQEncoding1.dcm": "no_pixel_data",
    "sr_document.dcm": "no_pixel_data",
    "liver.dcm": "unsupported_image",
}
TWELVE_BIT_JPEG = ("MR4_JPLY", "JPEG-lossy.dcm")
"""Which the reference library cannot read; DCMTK can."""

EMPTY_TABLES = ("leadtools-flowers-16-mono2-rle.dcm",)
"""Whose look-up tables are empty, which the reference library does not expect."""


@cache
def frames(path: Path) -> int:
    try:
        return read_header(path, max_samples=corpus.LIMIT).number_of_frames
    except WhylightError:
        return 1


READ = [
    path
    for path in corpus.FILES
    if path.name not in {*REFUSED, *TWELVE_BIT_JPEG} and frames(path) == 1
]


def decoded(path: Path, folder: Path) -> tuple[DecodedFiles, np.ndarray]:
    files = decode_file(path, folder)
    return files, np.load(files.pixels)


@pytest.mark.parametrize("path", READ, ids=corpus.name)
def test_pixels_equal_the_reference(path, tmp_path):
    files, values = decoded(path, tmp_path)
    ds = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in ds.file_meta:
        ds.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    reference = ds.pixel_array
    if files.facts.photometric_interpretation == "PALETTE COLOR":
        reference = apply_color_lut(reference, ds) >> 8
    if files.facts.channels == 3:
        assert np.abs(np.moveaxis(values, 0, -1) - reference.astype(int)).max() <= 1
        return
    if path.name not in EMPTY_TABLES:
        reference = apply_modality_lut(reference, ds)
    assert np.array_equal(values[0], reference.astype(np.float32))


@needs("dcmdjpeg")
@pytest.mark.parametrize("name", TWELVE_BIT_JPEG)
def test_twelve_bit_jpeg_equals_dcmtk(name, tmp_path):
    path = corpus.find(name)
    plain = tmp_path / "plain.dcm"
    subprocess.run(["dcmdjpeg", path, plain], check=True, timeout=30)
    files, values = decoded(path, tmp_path)
    ds = pydicom.dcmread(plain)
    reference = apply_modality_lut(ds.pixel_array, ds)
    apart = np.abs(values[0].astype(float) - reference).max()
    assert apart <= 2  # two inverse transforms of one lossy image
    assert files.facts.lossy
    assert "illegal_jpeg_scan" in files.facts.warnings


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_readable_image_is_refused_by_name(name, tmp_path):
    with pytest.raises(WhylightError) as refusal:
        decode_file(corpus.find(f"/{name}"), tmp_path)
    assert refusal.value.code == REFUSED[name]


@pytest.mark.parametrize(
    "path",
    [path for path in corpus.FILES if path.name not in REFUSED and frames(path) > 1],
    ids=corpus.name,
)
def test_a_frame_of_several_equals_the_reference(path, tmp_path):
    ds = pydicom.dcmread(path)
    for frame in (1, frames(path)):
        files = decode_file(path, tmp_path, frame=frame)
        values = np.load(files.pixels)
        reference = pixel_array(ds, index=frame - 1)
        if files.facts.channels == 3:
            if files.facts.photometric_interpretation == "PALETTE COLOR":
                reference = apply_color_lut(reference, ds) >> 8
            assert_allclose(np.moveaxis(values, 0, -1), reference, rtol=1e-6, atol=1)
        else:
            slope, intercept = rescale(ds, frame)
            assert_allclose(values[0], reference * slope + intercept, rtol=1e-6)


def rescale(ds, frame):
    """The frame's own rescale, else that of all frames, else none."""
    places = [ds]
    for groups, place in (
        ("PerFrameFunctionalGroupsSequence", frame - 1),
        ("SharedFunctionalGroupsSequence", 0),
    ):
        for item in ds.get(groups, [])[place : place + 1]:
            places += item.get("PixelValueTransformationSequence", [])
    said = next((each for each in places if "RescaleSlope" in each), None)
    return (1.0, 0.0) if said is None else (float(said.RescaleSlope), float(said.RescaleIntercept))


SHOWN = (
    "CT_small.dcm",
    "693_UNCR.dcm",
    "MR_small.dcm",
    "MR01.dcm",
    "GH342.dcm",
    "MR-SIEMENS-DICOM-WithOverlays.dcm",
    "CT-MONO2-16-ankle",
    "vlut_04.dcm",
    "dx_image.dcm",
)


@needs("dcm2pnm")
@pytest.mark.parametrize("name", SHOWN)
def test_the_display_equals_dcmtks(name, tmp_path):
    path = corpus.find(f"/{name}")
    files, _ = decoded(path, tmp_path)
    ds = pydicom.dcmread(path)
    if "VOILUTSequence" in ds:
        voi = ["+Wl", "1"]
    elif "WindowCenter" in ds:
        voi = ["+Wi", "1"]
    else:
        low, width = files.facts.window[0] - files.facts.window[1] / 2, files.facts.window[1]
        voi = ["+Ww", str(low + width / 2), str(width), "+Wfl"]
    raster = tmp_path / "shown.pgm"
    subprocess.run(["dcm2pnm", "-O", *voi, path, raster], check=True, timeout=30)
    reference = np.asarray(Image.open(raster))
    shown = np.load(files.display)
    padded = np.zeros(shown.shape, bool) if files.padding is None else np.load(files.padding)
    difference = np.abs(shown.astype(int) - reference.astype(int))
    assert difference[~padded].max() <= 2
