import io
from decimal import Decimal

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_allclose
from pydicom.pixels import apply_modality_lut

from service.domain.grid import Grid
from tests.support.sheets import blob
from workers.drawing.resample import to_source

NATIVE = blob((12, 10))
SIGNED = blob((12, 10), signed=True)
PLACE = Grid.partition((12, 10), (600, 500))


def dicom(data: bytes):
    return pydicom.dcmread(io.BytesIO(data))


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
@pytest.mark.parametrize("signed", [False, True])
def test_the_rescale_gives_back_the_map_to_half_a_step(written, scale, signed):
    values = (SIGNED if signed else NATIVE) * np.float32(scale)
    ds = dicom(written("dicom_sc_word", values=values, signed=signed))
    expected = to_source(values, PLACE, (600, 500))[0].astype(np.float64)
    step = np.ptp(expected) / 65535 if not signed else np.abs(expected).max() / 32767
    assert_allclose(apply_modality_lut(ds.pixel_array, ds), expected, atol=0.51 * step, rtol=0)
    assert len(str(ds.RescaleSlope)) <= 16
    assert len(str(ds.RescaleIntercept)) <= 16


def test_no_relevance_is_stored_as_one_value_exactly(written):
    values = np.float32([[[-3, 0], [0, 1]]])
    ds = dicom(written("dicom_sc_word", values=values, signed=True))
    assert Decimal(str(ds.RescaleSlope)) * 32767 + Decimal(str(ds.RescaleIntercept)) == 0
    assert ds.pixel_array[-1, 0] == 32767


def test_the_window_goes_from_nothing_to_full_strength(written):
    ds = dicom(written("dicom_sc_word", reference=2.0))
    assert (ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction) == (1.0, 2.0, "LINEAR_EXACT")
    ds = dicom(written("dicom_sc_word", values=SIGNED, signed=True, reference=2.0))
    assert (ds.WindowCenter, ds.WindowWidth) == (0.0, 4.0)


@pytest.mark.parametrize("values", [np.zeros((1, 4, 4)), np.full((1, 4, 4), np.nan)])
def test_a_map_that_says_nothing_is_black(written, values):
    ds = dicom(written("dicom_sc_word", values=values.astype(np.float32), degenerate=True))
    assert not ds.pixel_array.any()
    assert ds.WindowWidth > 0


def test_it_is_the_map_and_nothing_else(written):
    ds = dicom(written("dicom_sc_word"))
    assert (ds.Rows, ds.Columns) == (600, 500)
    assert ds.BurnedInAnnotation == "NO"
    assert (ds.BitsStored, ds.PixelRepresentation, ds.RescaleType) == (16, 0, "US")
    assert "grad_cam" in ds.DerivationDescription
    assert ds.SourceImageSequence[0].ReferencedSOPInstanceUID == "2.25.1"
    assert "PixelSpacing" not in ds


def test_the_same_pixels_of_another_scale_are_another_object(written):
    once, again = (
        dicom(written("dicom_sc_word", np.full((1, 2, 2), value, np.float32)))
        for value in (65535, 655350)
    )
    assert (once.pixel_array == again.pixel_array).all()
    assert once.SOPInstanceUID != again.SOPInstanceUID
