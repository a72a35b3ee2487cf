"""Where in an ultrasound image there is ultrasound, by its own account."""

from typing import Final

from pydicom.dataset import Dataset

from service.dicom.dataset import items_of
from service.dicom.header import Header, number
from service.errors.studies import AbsurdDimensions

Box = tuple[int, int, int, int]
"""Top, left, bottom, right in pixels; the last two past the end."""

ECHOES: Final = frozenset({1, 2, 3})
"""Spatial formats made of echoes: 2-D, M-mode, spectral; not waveforms or graphics."""


def regions_of(dataset: Dataset, header: Header) -> tuple[Box, ...]:
    """Return the ultrasound regions (PS3.3 C.8.5.5), clipped to the image.

    What lies outside is text, logos and scales. An item that is not valid is
    passed over.
    """
    found = (_region(item, header) for item in items_of(dataset, "SequenceOfUltrasoundRegions"))
    return tuple(box for box in found if box is not None)


def _region(item: Dataset, header: Header) -> Box | None:
    try:
        if number(item, "RegionSpatialFormat", 0, 5) not in ECHOES:
            return None
        left, right = (number(item, f"RegionLocation{x}", 0, 65535) for x in ("MinX0", "MaxX1"))
        top, bottom = (number(item, f"RegionLocation{y}", 0, 65535) for y in ("MinY0", "MaxY1"))
    except AbsurdDimensions:
        return None
    box = (top, left, min(bottom + 1, header.rows), min(right + 1, header.columns))
    return box if box[0] < box[2] and box[1] < box[3] else None
