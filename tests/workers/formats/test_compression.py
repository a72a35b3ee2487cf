"""Lossless encodings, decoded by libraries that share nothing with the encoders."""

import io

import numpy as np
import pydicom
import pytest

from tests.support.sheets import blob, sheet
from workers.sheets import write

SYNTAXES = {
    "jpeg_ls_lossless": ("1.2.840.10008.1.2.4.80", "pyjpegls"),
    "jpeg_2000_lossless": ("1.2.840.10008.1.2.4.90", "pylibjpeg"),
    "rle_lossless": ("1.2.840.10008.1.2.5", "pydicom"),
}


@pytest.mark.parametrize("format_", ["dicom_sc", "dicom_sc_word"])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_another_decoder_finds_every_pixel(written, format_, syntax):
    plain = pydicom.dcmread(io.BytesIO(written(format_)))
    packed = pydicom.dcmread(io.BytesIO(written(format_, transfer_syntax=syntax)))
    uid, decoder = SYNTAXES[syntax]
    assert packed.file_meta.TransferSyntaxUID == uid
    assert packed.SOPInstanceUID == plain.SOPInstanceUID  # the same pixels
    expected = plain.pixel_array
    transformed = syntax == "jpeg_2000_lossless" and format_ == "dicom_sc"
    label = "YBR_RCT" if transformed else plain.PhotometricInterpretation
    assert packed.PhotometricInterpretation == label
    packed.pixel_array_options(decoding_plugin=decoder)
    assert np.array_equal(packed.pixel_array, expected)
    assert len(packed.PixelData) < len(plain.PixelData)


@pytest.mark.parametrize("format_", ["dicom_sr", "dicom_seg"])
def test_what_is_no_integer_image_stays_as_it_is(written, format_):
    packed = written(format_, transfer_syntax="jpeg_ls_lossless")
    assert packed == written(format_)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_noise_that_grows_when_compressed_is_whole_all_the_same(source, tmp_path, syntax):
    rng = np.random.default_rng(0)
    drawn = sheet(source(), tmp_path / "work", blob((4, 4)), transfer_syntax=syntax)
    drawn.source_relevance = rng.random((600, 500), np.float32)
    ((_, file),), _ = write(drawn, ["dicom_sc_word"], tmp_path)
    ds = pydicom.dcmread(file)
    ds.pixel_array_options(decoding_plugin=SYNTAXES[syntax][1])
    step = float(ds.RescaleSlope)
    assert np.abs(ds.pixel_array * step - drawn.source_relevance).max() <= 0.51 * step
