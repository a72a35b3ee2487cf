"""Photometric interpretations: which are read, and how color lies in each (PS3.3 C.7.6.3.1.2)."""

from typing import Final

from service.dicom.syntaxes import JPEG_COLOR, Family

MONOCHROME: Final = ("MONOCHROME1", "MONOCHROME2")
GRAY: Final = frozenset({*MONOCHROME, "PALETTE COLOR"})
PARTIAL: Final = frozenset({"YBR_PARTIAL_422", "YBR_PARTIAL_420"})
"""Color in the range of video; the first is retired, the second is of video alone."""

HALVED: Final = frozenset({"YBR_FULL_422", "YBR_PARTIAL_422"})
"""Color whose pixels share their chroma in pairs, where they are not compressed."""

COMPONENTS: Final = frozenset({"YBR_ICT", "YBR_RCT"})
"""Color as JPEG 2000 transforms it; its decoder undoes that."""

COLOR: Final = frozenset({"RGB", "YBR_FULL"}) | HALVED | PARTIAL | COMPONENTS


def was_defined(label: str, family: Family, bits_allocated: int) -> bool:
    """Tell whether color of a label was ever defined in such a form.

    The range of video was for uncompressed samples of 8 bits; a JPEG says itself what it holds.
    """
    if label not in PARTIAL or family in JPEG_COLOR:
        return True
    return family is Family.NATIVE and label in HALVED and bits_allocated == 8  # noqa: PLR2004
