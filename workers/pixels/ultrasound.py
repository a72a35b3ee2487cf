"""Where in an ultrasound image there is ultrasound, by its own account."""

from typing import Final

from pydicom.dataset import Dataset

from service.dicom.dataset import items_of
from service.dicom.header import Header, number
from service.errors.studies import AbsurdDimensions

Box = tuple[int, int, int, int]
"""Top, left, bottom, right in pixels; the last two past the end."""

REGIONS: Final = "SequenceOfUltrasoundRegions"
ECHOES: Final = frozenset({1, 2, 3})
"""Spatial formats made of echoes: 2-D, M-mode, spectral; not waveforms or graphics."""


MALFORMED: Final = "malformed_ultrasound_region"
"""Warning of a region that is not valid: what it meant to declare is taken to be outside."""

UNRESTRICTED: Final = "no_ultrasound_region"
"""Warning of an image that declares regions, and none of echoes: its map is not restricted."""


def regions_of(dataset: Dataset, header: Header) -> tuple[Box, ...]:
    """Return the ultrasound regions (PS3.3 C.8.5.5), clipped to the image.

    What lies outside is text, logos and scales. An item that is not valid is
    passed over; `doubts_of` tells of it.
    """
    found = (_echoes(item, header) for item in items_of(dataset, REGIONS))
    return tuple(box for box in found if box is not None)


def doubts_of(dataset: Dataset, header: Header) -> tuple[str, ...]:
    """Return warnings of what the image declares and what could not be kept to."""
    declared = items_of(dataset, REGIONS)
    malformed = any(_format(each) is None or _box(each, header) is None for each in declared)
    unrestricted = bool(declared) and not regions_of(dataset, header)
    return (*([MALFORMED] if malformed else []), *([UNRESTRICTED] if unrestricted else []))


def _echoes(item: Dataset, header: Header) -> Box | None:
    return _box(item, header) if _format(item) in ECHOES else None


def _format(item: Dataset) -> int | None:
    """Return what a region is made of; `None` where that is not validly said."""
    try:
        return number(item, "RegionSpatialFormat", 0, 5)
    except AbsurdDimensions:
        return None


def _box(item: Dataset, header: Header) -> Box | None:
    """Return where a region lies in the image; `None` where that is not validly said."""
    try:
        left, right = (number(item, f"RegionLocation{x}", 0, 65535) for x in ("MinX0", "MaxX1"))
        top, bottom = (number(item, f"RegionLocation{y}", 0, 65535) for y in ("MinY0", "MaxY1"))
    except AbsurdDimensions:
        return None
    box = (top, left, min(bottom + 1, header.rows), min(right + 1, header.columns))
    return box if box[0] < box[2] and box[1] < box[3] else None
