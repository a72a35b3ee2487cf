"""Ultrasound regions, as real and as hostile headers declare them."""

from types import SimpleNamespace

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from service.dicom.dataset import parsed
from service.dicom.header import read_header
from tests.support import corpus
from workers.pixels.ultrasound import doubts_of, regions_of

HEADER = SimpleNamespace(rows=100, columns=80)


def image(*regions):
    """An image with these regions: format, left, top, right, bottom."""
    ds = Dataset()
    items = []
    for values in regions:
        item = Dataset()
        keywords = ("RegionSpatialFormat", *(f"RegionLocation{x}" for x in NAMES))
        for keyword, value in zip(keywords, values, strict=True):
            if value is not None:
                setattr(item, keyword, value)
        items.append(item)
    ds.SequenceOfUltrasoundRegions = Sequence(items)
    return ds


NAMES = ("MinX0", "MinY0", "MaxX1", "MaxY1")


def test_echoes_are_regions_and_waveforms_and_graphics_are_none():
    ds = image((1, 2, 4, 9, 19), (4, 0, 0, 9, 9), (5, 0, 0, 9, 9), (3, 10, 4, 19, 19))
    assert regions_of(ds, HEADER) == ((4, 2, 20, 10), (4, 10, 20, 20))


def test_a_region_ends_with_the_image():
    assert regions_of(image((1, 2, 4, 80, 5000)), HEADER) == ((4, 2, 100, 80),)


@pytest.mark.parametrize(
    "region",
    [(1, 9, 4, 2, 19), (1, 90, 4, 99, 19), (1, None, 4, 9, 19), (None, 2, 4, 9, 19)],
)
def test_a_region_that_cannot_be_is_passed_over(region):
    assert regions_of(image(region), HEADER) == ()
    assert regions_of(Dataset(), HEADER) == ()


GOOD, SWAPPED, WAVEFORM = (1, 2, 4, 9, 19), (1, 9, 4, 2, 19), (4, 0, 0, 9, 9)


@pytest.mark.parametrize(
    ("regions", "told"),
    [
        ((), ()),
        ((GOOD, WAVEFORM), ()),
        ((GOOD, SWAPPED), ("malformed_ultrasound_region",)),
        ((SWAPPED,), ("malformed_ultrasound_region", "no_ultrasound_region")),
        (((7, 2, 4, 9, 19), GOOD), ("malformed_ultrasound_region",)),
        ((WAVEFORM,), ("no_ultrasound_region",)),
    ],
)
def test_regions_that_restrict_nothing_are_told(regions, told):
    assert doubts_of(image(*regions), HEADER) == told


@pytest.mark.skipif(not corpus.FOLDER, reason=corpus.REASON)
def test_a_real_image_has_its_region_and_not_its_physiology():
    path = corpus.find("/OBXXXX1A_rle_2frame.dcm")
    header = read_header(path, max_samples=corpus.LIMIT)
    with parsed(path, max_samples=corpus.LIMIT) as found:
        assert regions_of(found.dataset, header) == ((60, 120, 519, 800),)
